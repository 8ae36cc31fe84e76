//! Stream framing of Cap'n Proto messages (section 3): segment count − 1 and segment sizes as little-endian u32, padded
//! to whole words, then the segments. Not packed.

use bytes::Bytes;
use capnp::message::{Allocator, Builder, Reader, ReaderOptions};
use capnp::serialize::{NoAllocSliceSegments, read_message_from_flat_slice_no_alloc};

const WORD: usize = 8;

/// Segments of one message. The reference takes 512, the runtime stops one short of it; all known peers send one.
pub(crate) const MAX_SEGMENTS: usize = 511;

/// A message may be read through this many times over before it is taken for a decompression bomb: a small message
/// whose pointers all lead to one place looks big to whoever walks it.
const TRAVERSALS: usize = 4;

/// Deepest nesting of a message. The deepest of ours, a call with features, has 8 levels.
const NESTING: i32 = 24;

/// Why bytes are not the beginning of an acceptable message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// More than [`MAX_SEGMENTS`].
    #[error("it has {0} segments, and at most {MAX_SEGMENTS} are accepted")]
    Segments(u64),
    /// Longer than the caller's limit.
    #[error("it has {length} bytes, and at most {limit} are accepted")]
    Length {
        /// As announced.
        length: u64,
        /// As given.
        limit: usize,
    },
}

/// Length in bytes of the message that `buffer` begins with, its own head included; `None`: too little is there to say.
///
/// Refuses by what the head announces, before the message itself is there.
pub(crate) fn message_length(buffer: &[u8], limit: usize) -> Result<Option<usize>, Refusal> {
    let Some((count, mut sizes)) = buffer.split_first_chunk() else { return Ok(None) };
    let segments = u64::from(u32::from_le_bytes(*count)) + 1;
    if segments > MAX_SEGMENTS as u64 {
        return Err(Refusal::Segments(segments));
    }
    let mut length = (4 + 4 * segments).next_multiple_of(WORD as u64);
    for _ in 0..segments {
        let Some((size, rest)) = sizes.split_first_chunk() else { return Ok(None) };
        length += u64::from(u32::from_le_bytes(*size)) * WORD as u64;
        sizes = rest;
    }
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(Some(length)),
        _ => Err(Refusal::Length { length, limit }),
    }
}

/// Reads a whole message as cut off by [`message_length`].
pub(crate) fn read(mut message: &[u8]) -> capnp::Result<Reader<NoAllocSliceSegments<'_>>> {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(message.len() / WORD * TRAVERSALS)).nesting_limit(NESTING);
    read_message_from_flat_slice_no_alloc(&mut message, options)
}

/// The bytes of a message, behind a prefix.
pub(crate) fn write<A: Allocator>(prefix: &[u8], message: &Builder<A>) -> Bytes {
    let segments = message.get_segments_for_output();
    let head = (4 + 4 * segments.len()).next_multiple_of(WORD);
    let body = segments.iter().map(|segment| segment.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(prefix.len() + head + body);
    bytes.extend_from_slice(prefix);
    bytes.extend_from_slice(&word_count(segments.len() - 1));
    for segment in segments.iter() {
        bytes.extend_from_slice(&word_count(segment.len() / WORD));
    }
    bytes.resize(prefix.len() + head, 0);
    for segment in segments.iter() {
        bytes.extend_from_slice(segment);
    }
    bytes.into()
}

fn word_count(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("a message that was built in memory has far fewer words than 2^32").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_needs_the_whole_head() {
        let head = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
        for cut in 0..head.len() {
            assert_eq!(message_length(&head[..cut], 1000), Ok(None), "{cut} bytes");
        }
        assert_eq!(message_length(&head, 1000), Ok(Some(16 + 5 * 8)));
    }

    #[test]
    fn limits_are_inclusive_and_judged_by_the_head_alone() {
        let head = [0, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(message_length(&head, 24), Ok(Some(24)));
        assert_eq!(message_length(&head, 23), Err(Refusal::Length { length: 24, limit: 23 }));
        assert_eq!(message_length(&[0, 0, 0, 0, 255, 255, 255, 255], 24).map_err(|refusal| refusal.to_string()), {
            Err("it has 34359738368 bytes, and at most 24 are accepted".to_owned())
        });

        let segments = |count: u32| (count - 1).to_le_bytes();
        assert_eq!(message_length(&segments(511), 24), Ok(None));
        assert_eq!(message_length(&segments(512), 24), Err(Refusal::Segments(512)));
        assert_eq!(message_length(&[255; 4], 24), Err(Refusal::Segments(1 << 32)));
    }
}
