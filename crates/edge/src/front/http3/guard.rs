//! Looks at the frames of an HTTP/3 stream before the library does.
//!
//! The library collects every frame but DATA whole before it looks at it, however long, so the length is checked here.
//! The pseudo-headers in the first HEADERS frame of a request are examined too.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::protocol::{Examined, examine};

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const CONTROL_STREAM: u64 = 0x00;

/// What the library must not see.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A frame is longer than the library may collect.
    #[error("a frame of {length} bytes, where {limit} are allowed")]
    TooLong { length: u64, limit: usize },
    /// Pseudo-headers that stand twice, or behind a field, or in no request (RFC 9114 section 4.3).
    #[error("the request's pseudo-headers break the rules")]
    PseudoHeaders,
    /// Frames that carry nothing, one after the other.
    #[error("frames that carry nothing are too many")]
    Idle,
}

/// So many frames of one stream may carry nothing; clients send one or two to keep others used to them (RFC 9114 section 7.2.8).
const IDLE_FRAMES: u64 = 1000;
/// And one more for so many bytes that carry something.
const BYTES_PER_IDLE_FRAME: u64 = 1024;

/// Passes bytes through as they come, in order, unless a frame breaks the limit.
pub(crate) struct Guard {
    state: State,
    limit: usize,
    ready: VecDeque<Bytes>,
    websocket: bool,
    idle: u64,
    bytes: u64,
}

enum State {
    /// At the beginning of a stream in one direction, whose first number says what it is.
    StreamType(BytesMut),
    /// In the type and length of a frame. On a request's stream the first HEADERS frame is still to come if `first`.
    FrameHead { bytes: BytesMut, first: bool },
    /// Collecting the first HEADERS frame.
    Collecting { head: BytesMut, block: BytesMut, missing: usize },
    /// In a frame of which this much is to come.
    Passing { remaining: u64, first: bool },
    /// Not made of frames.
    Unframed,
}

impl Guard {
    /// For a stream that carries one request.
    pub(crate) fn request(limit: usize) -> Self {
        Self::new(State::FrameHead { bytes: BytesMut::new(), first: true }, limit)
    }

    /// For a stream in one direction.
    pub(crate) fn one_way(limit: usize) -> Self {
        Self::new(State::StreamType(BytesMut::new()), limit)
    }

    fn new(state: State, limit: usize) -> Self {
        Self { state, limit, ready: VecDeque::new(), websocket: false, idle: 0, bytes: 0 }
    }

    /// The request asks for a WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        self.websocket
    }

    /// The next bytes for the library.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Takes what has arrived.
    pub(crate) fn feed(&mut self, mut chunk: Bytes) -> Result<(), Refused> {
        while !chunk.is_empty() {
            match &mut self.state {
                State::Unframed => self.ready.push_back(chunk.split_to(chunk.len())),
                State::StreamType(bytes) => {
                    bytes.extend_from_slice(&chunk.split_to(1));
                    if let Some((kind, _)) = number(bytes) {
                        self.ready.push_back(std::mem::take(bytes).freeze());
                        self.state = if kind == CONTROL_STREAM {
                            State::FrameHead { bytes: BytesMut::new(), first: false }
                        } else {
                            State::Unframed
                        };
                    }
                }
                State::FrameHead { bytes, first } => {
                    bytes.extend_from_slice(&chunk.split_to(1));
                    if let Some((kind, length)) = frame_head(bytes) {
                        let (head, first) = (std::mem::take(bytes), *first);
                        self.begin_frame(kind, length, head, first)?;
                    }
                }
                State::Collecting { head, block, missing } => {
                    let part = chunk.split_to(chunk.len().min(*missing));
                    *missing -= part.len();
                    block.extend_from_slice(&part);
                    if *missing == 0 {
                        let (head, block) = (std::mem::take(head), std::mem::take(block));
                        self.end_headers(head, block)?;
                    }
                }
                State::Passing { remaining, first } => {
                    let part = chunk.split_to(usize::try_from(*remaining).unwrap_or(usize::MAX).min(chunk.len()));
                    *remaining -= part.len() as u64;
                    self.ready.push_back(part);
                    if *remaining == 0 {
                        self.state = State::FrameHead { bytes: BytesMut::new(), first: *first };
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self, kind: u64, length: u64, head: BytesMut, first: bool) -> Result<(), Refused> {
        if kind != DATA && length > self.limit as u64 {
            return Err(Refused::TooLong { length, limit: self.limit });
        }
        match kind {
            DATA if length > 0 => self.bytes = self.bytes.saturating_add(length),
            HEADERS => (),
            _ => self.idle += 1,
        }
        if self.idle > IDLE_FRAMES + self.bytes / BYTES_PER_IDLE_FRAME {
            return Err(Refused::Idle);
        }
        if kind == HEADERS && first && length > 0 {
            let missing = usize::try_from(length).expect("it is below the limit");
            self.state = State::Collecting { head, block: BytesMut::new(), missing };
            return Ok(());
        }
        // The library takes an empty frame for the end of the body.
        if kind != DATA || length > 0 || first {
            self.ready.push_back(head.freeze());
        }
        self.state = if length == 0 {
            State::FrameHead { bytes: BytesMut::new(), first }
        } else {
            State::Passing { remaining: length, first }
        };
        Ok(())
    }

    fn end_headers(&mut self, head: BytesMut, block: BytesMut) -> Result<(), Refused> {
        match examine(&block) {
            Examined::Ordinary => self.ready.extend([head.freeze(), block.freeze()]),
            Examined::WebSocket(shorter) => {
                self.websocket = true;
                let mut head = BytesMut::new();
                put_number(&mut head, HEADERS);
                put_number(&mut head, shorter.len() as u64);
                self.ready.extend([head.freeze(), Bytes::from(shorter)]);
            }
            Examined::Malformed => return Err(Refused::PseudoHeaders),
        }
        self.state = State::FrameHead { bytes: BytesMut::new(), first: false };
        Ok(())
    }
}

fn frame_head(bytes: &[u8]) -> Option<(u64, u64)> {
    let (kind, rest) = number(bytes)?;
    let (length, _) = number(rest)?;
    Some((kind, length))
}

/// A variable-length integer (RFC 9000 section 16), and what comes after it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let mut value = bytes.get(..length)?;
    let mut number = u64::from(value.get_u8() & 0x3f);
    while value.has_remaining() {
        number = number << 8 | u64::from(value.get_u8());
    }
    Some((number, &bytes[length..]))
}

/// Lengths of header blocks only, so the four-byte form is enough.
fn put_number(bytes: &mut BytesMut, number: u64) {
    let number = u32::try_from(number).expect("a header block is shorter than the limit");
    bytes.extend_from_slice(&(number | 0x8000_0000).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() < 64);
        [&[kind, u8::try_from(payload.len()).unwrap()], payload].concat()
    }

    /// Feeds in pieces of every size, and answers what comes out, which must always be the same.
    fn through(mut make: impl FnMut() -> Guard, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut outcomes = (1..=bytes.len()).map(|size| {
            let mut guard = make();
            let mut out = Vec::new();
            for piece in bytes.chunks(size) {
                guard.feed(Bytes::copy_from_slice(piece)).unwrap();
                while let Some(ready) = guard.next() {
                    out.extend_from_slice(&ready);
                }
            }
            (out, guard.is_websocket())
        });
        let first = outcomes.next().unwrap();
        assert!(outcomes.all(|outcome| outcome == first));
        first
    }

    #[test]
    fn ordinary_requests_pass_unchanged() {
        let bytes = [frame(0x21, b"grease"), frame(1, b"\0\0\xd1"), frame(0, b"body"), frame(1, b"\0\0")].concat();
        assert_eq!(through(|| Guard::request(LIMIT), &bytes), (bytes, false));
    }

    #[test]
    fn empty_data_is_left_out() {
        let with = |nothing: Vec<u8>| {
            [frame(1, b"\0\0\xd1"), nothing.clone(), frame(0, b"he"), nothing, frame(0, b"llo")].concat()
        };
        assert_eq!(through(|| Guard::request(LIMIT), &with(frame(0, b""))).0, with(Vec::new()));
        // Before the header it is for the library to refuse.
        let early = [frame(0, b""), frame(1, b"\0\0\xd1")].concat();
        assert_eq!(through(|| Guard::request(LIMIT), &early).0, early);
    }

    #[test]
    fn a_websocket_is_recognised_and_its_line_taken_out() {
        let line = b"\x27\x02:protocol\x09websocket";
        let block = [b"\0\0\xcf", line.as_slice()].concat();
        let bytes = [frame(1, &block), frame(0, b"raw")].concat();
        let mut expected = BytesMut::new();
        put_number(&mut expected, HEADERS);
        put_number(&mut expected, 3);
        expected.extend_from_slice(b"\0\0\xcf");
        expected.extend_from_slice(&frame(0, b"raw"));
        assert_eq!(through(|| Guard::request(LIMIT), &bytes), (expected.to_vec(), true));
    }

    #[test]
    fn a_path_that_stands_twice_is_refused() {
        let twice = frame(1, b"\0\0\xd1\xc1\x51\x02/b");
        assert_eq!(Guard::request(LIMIT).feed(twice.into()), Err(Refused::PseudoHeaders));
        // The header of the trailers is the library's.
        let later = [frame(1, b"\0\0\xd1\xc1"), frame(1, b"\0\0\xc1\xc1")].concat();
        assert_eq!(Guard::request(LIMIT).feed(later.into()), Ok(()));
    }

    #[test]
    fn frames_that_carry_nothing_have_a_limit() {
        for nothing in [&[0, 0][..], &[0x21, 0], &[0x21, 1, b'x']] {
            let mut guard = Guard::request(LIMIT);
            for _ in 0..IDLE_FRAMES {
                assert_eq!(guard.feed(Bytes::copy_from_slice(nothing)), Ok(()));
            }
            assert_eq!(guard.feed(Bytes::copy_from_slice(nothing)), Err(Refused::Idle));
        }
        let mut upload = Guard::request(LIMIT);
        for _ in 0..2 * IDLE_FRAMES {
            let piece = [vec![0, 0x44, 0], vec![b'x'; 1024], vec![0, 0]].concat();
            assert_eq!(upload.feed(piece.into()), Ok(()));
            while upload.next().is_some() {}
        }
    }

    #[test]
    fn long_frames_are_refused_unless_they_are_data() {
        let long = |kind: u8| Bytes::copy_from_slice(&[kind, 0x40, 101]);
        for kind in [1, 0x21, 4, 13] {
            let refused = Err(Refused::TooLong { length: 101, limit: LIMIT });
            assert_eq!(Guard::request(LIMIT).feed(long(kind)), refused, "{kind}");
        }
        assert_eq!(Guard::request(LIMIT).feed(long(0)), Ok(()));
    }

    #[test]
    fn control_streams_are_watched_and_others_left_alone() {
        let mut control = Guard::one_way(LIMIT);
        assert!(control.feed(Bytes::from_static(b"\0\x04\x40\x65")).is_err());
        let settings = [vec![0], frame(4, b"\x06\x10")].concat();
        assert_eq!(through(|| Guard::one_way(LIMIT), &settings).0, settings);
        let qpack = b"\x02\xff\xff\xff\xff\xff\xff".to_vec();
        assert_eq!(through(|| Guard::one_way(LIMIT), &qpack).0, qpack);
    }
}
