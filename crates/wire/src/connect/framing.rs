//! Framed bodies over QUIC, an extension of ours: a body whose trailers must survive travels as frames.
//!
//! A frame is a type byte, a length (u32, big-endian) and that many bytes. Type 0 is data; type 1 ends the body and holds
//! its trailers, serialized as in section 5.3, or nothing.

use bytes::Bytes;
use http::HeaderMap;

/// Bytes of a frame's head.
pub const HEAD: usize = 5;

/// The head of a data frame: write it, then the bytes themselves.
pub fn data_head(length: u32) -> [u8; HEAD] {
    let _ = length;
    todo!()
}

/// The last frame.
pub fn end(trailers: Option<&HeaderMap>) -> Bytes {
    let _ = trailers;
    todo!()
}

/// What a framed body consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Body bytes: a whole data frame or a part of one.
    Data(Bytes),
    /// The end, with the trailers if there are any.
    End(Option<HeaderMap>),
}

/// Why a framed body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FramingError(pub &'static str);

/// Reads a framed body as it comes in.
#[derive(Debug, Default)]
pub struct Decoder {}

impl Decoder {
    /// Takes bytes off the front of `input` until a frame, or a part of a data frame, is there. `None`: `input` is used up.
    ///
    /// Data is not copied.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FramingError> {
        let _ = input;
        todo!()
    }

    /// Whether the end frame was seen; if not, a stream that ends here is cut short.
    pub fn is_finished(&self) -> bool {
        todo!()
    }
}
