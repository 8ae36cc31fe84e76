//! Framed bodies over QUIC, an extension of ours: a body whose trailers must survive travels as frames.
//!
//! A frame is a type byte, a length (u32, big-endian) and that many bytes. Type 0 is data; type 1 ends the body and holds
//! its trailers, serialized as in section 5.3, or nothing. Nothing may follow it.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use crate::header::{self, HeaderError, Limits};

/// Bytes of a frame's head.
pub const HEAD: usize = 5;

const DATA: u8 = 0;
const END: u8 = 1;

/// The head of a data frame: write it, then the bytes themselves.
pub const fn data_head(length: u32) -> [u8; HEAD] {
    head(DATA, length)
}

/// The last frame.
pub fn end(trailers: Option<&HeaderMap>) -> Bytes {
    let Some(trailers) = trailers.filter(|trailers| !trailers.is_empty()) else {
        return Bytes::from_static(const { &head(END, 0) });
    };
    let block = header::serialize(trailers);
    let length = u32::try_from(block.len()).expect("trailers that are in memory have far less than 4 GiB");
    let mut frame = Vec::with_capacity(HEAD + block.len());
    frame.extend_from_slice(&head(END, length));
    frame.extend_from_slice(block.as_bytes());
    frame.into()
}

const fn head(kind: u8, length: u32) -> [u8; HEAD] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind, a, b, c, d]
}

/// What a framed body consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Body bytes, never none: a whole data frame or a part of one.
    Data(Bytes),
    /// The end, with the trailers if there are any. Forbidden ones are left out.
    End(Option<HeaderMap>),
}

/// Why a framed body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Neither data nor end.
    #[error("the framed body holds a frame of the unknown type {0}")]
    Type(u8),
    /// A trailer block that cannot be within [`Limits::TRAILERS`].
    #[error("the body's trailers have {0} bytes, which is too many")]
    Length(u32),
    /// A trailer block that cannot be read.
    #[error("the body's trailers cannot be read: {0}")]
    Trailers(#[from] HeaderError),
    /// Bytes after the end.
    #[error("bytes follow the end of the framed body")]
    AfterEnd,
}

/// Reads a framed body as it comes in. Holds back at most one trailer block.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    held: BytesMut,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of a data frame are still to come.
    Data(usize),
    /// A trailer block of this length.
    End(usize),
    Finished,
}

impl Decoder {
    /// Takes bytes off the front of `input` until a frame, or a part of a data frame, is there. `None`: `input` is used up.
    ///
    /// Data is not copied.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FramingError> {
        loop {
            match self.state {
                State::Head => {
                    let Some(head) = self.gather(input, HEAD) else { return Ok(None) };
                    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
                    self.state = match head[0] {
                        DATA => State::Data(length as usize),
                        END if length as usize > Limits::TRAILERS.serialized() => {
                            return Err(FramingError::Length(length));
                        }
                        END => State::End(length as usize),
                        other => return Err(FramingError::Type(other)),
                    };
                }
                State::Data(0) => self.state = State::Head,
                State::Data(_) if input.is_empty() => return Ok(None),
                State::Data(rest) => {
                    let data = input.split_to(rest.min(input.len()));
                    self.state = State::Data(rest - data.len());
                    return Ok(Some(Frame::Data(data)));
                }
                State::End(length) => {
                    let Some(block) = self.gather(input, length) else { return Ok(None) };
                    let mut trailers = header::deserialize(&block, Limits::TRAILERS)?;
                    header::strip_forbidden_trailers(&mut trailers);
                    self.state = State::Finished;
                    return Ok(Some(Frame::End(Some(trailers).filter(|trailers| !trailers.is_empty()))));
                }
                State::Finished if input.is_empty() => return Ok(None),
                State::Finished => return Err(FramingError::AfterEnd),
            }
        }
    }

    /// Whether the end frame was seen; if not, a stream that ends here is cut short.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// Collects `length` bytes, from what is held and then from the input.
    fn gather(&mut self, input: &mut Bytes, length: usize) -> Option<Bytes> {
        if self.held.is_empty() && input.len() >= length {
            return Some(input.split_to(length));
        }
        let take = input.len().min(length - self.held.len());
        self.held.extend_from_slice(&input[..take]);
        input.advance(take);
        (self.held.len() == length).then(|| self.held.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])
    }

    fn framed(chunks: &[&[u8]], trailers: Option<&HeaderMap>) -> Vec<u8> {
        let mut body = Vec::new();
        for chunk in chunks {
            body.extend_from_slice(&data_head(chunk.len() as u32));
            body.extend_from_slice(chunk);
        }
        body.extend_from_slice(&end(trailers));
        body
    }

    /// The body's bytes, and its trailers once it has ended, when it comes in pieces of `size` bytes.
    fn read(body: &[u8], size: usize) -> Result<(Vec<u8>, Option<Option<HeaderMap>>), FramingError> {
        let mut decoder = Decoder::default();
        let (mut data, mut end) = (Vec::new(), None);
        for piece in body.chunks(size) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut input)? {
                match frame {
                    Frame::Data(bytes) => data.extend_from_slice(&bytes),
                    Frame::End(trailers) => end = Some(trailers),
                }
            }
            assert!(input.is_empty(), "the decoder said that it needs more but left some");
        }
        assert_eq!(decoder.is_finished(), end.is_some());
        Ok((data, end))
    }

    #[test]
    fn bodies_lead_back_however_they_are_cut() {
        for trailers in [None, Some(trailers())] {
            let body = framed(&[b"hello, ", b"", b"world"], trailers.as_ref());
            for size in 1..=body.len() {
                assert_eq!(read(&body, size), Ok((b"hello, world".to_vec(), Some(trailers.clone()))), "{size}");
            }
        }
    }

    #[test]
    fn a_body_cut_short_is_not_finished() {
        let body = framed(&[b"hello"], Some(&trailers()));
        for cut in 0..body.len() {
            assert_eq!(read(&body[..cut], 3).expect("is well formed as far as it goes").1, None, "{cut}");
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(read(&[2, 0, 0, 0, 0], 5), Err(FramingError::Type(2)));
        let longest = u32::try_from(Limits::TRAILERS.serialized()).unwrap();
        assert_eq!(read(&head(END, longest), 5), Ok((Vec::new(), None)));
        assert_eq!(read(&head(END, longest + 1), 5), Err(FramingError::Length(longest + 1)));
        assert_eq!(read(&[1, 0, 0, 0, 2, b'e', b'A'], 7), Err(FramingError::Trailers(HeaderError::Pair)));
        assert_eq!(read(&[1, 0, 0, 0, 0, 0], 6), Err(FramingError::AfterEnd));
    }

    #[test]
    fn forbidden_trailers_are_left_out() {
        let mut more = trailers();
        more.insert("content-length", "7".parse().unwrap());
        assert_eq!(read(&framed(&[], Some(&more)), 100), Ok((Vec::new(), Some(Some(trailers())))));
    }
}
