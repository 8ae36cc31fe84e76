//! Streams of the QUIC transport (sections 6 and 7): signatures, the first message in each direction, framed bodies.
//!
//! A data stream begins, in each direction, with [`DATA_SIGNATURE`], [`VERSION`] and one message: [`RequestHead`] towards
//! the agent, [`ResponseHead`] towards the edge. Then come body bytes, bare ([`framing`] only by agreement).

pub mod framing;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};

use crate::{Extensions, Kind, OriginError};

/// First bytes of a data stream, in each direction.
pub const DATA_SIGNATURE: [u8; 6] = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e];
/// First bytes of an RPC stream.
pub const RPC_SIGNATURE: [u8; 6] = [0x52, 0xbb, 0x82, 0x5c, 0xdb, 0x65];
/// Follows [`DATA_SIGNATURE`]. Written, never checked.
pub const VERSION: [u8; 2] = *b"01";

/// What a stream other than the control stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamType {
    /// A request and its answer: the bytes, signature included, go to [`RequestHead::decode`].
    Data,
    /// RPC: what follows the signature goes to [`crate::rpc`].
    Rpc,
}

impl StreamType {
    /// Reads the signature without consuming it; `None`: more bytes are needed.
    pub fn peek(buffer: &[u8]) -> Result<Option<Self>, ConnectError> {
        let _ = buffer;
        todo!()
    }
}

/// Why the beginning of a stream was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Neither of the two signatures.
    #[error("the stream does not begin with a signature of the tunnel protocol")]
    Signature,
    /// Longer than what this end accepts.
    #[error("the first message of the stream is longer than {0} bytes")]
    TooLong(usize),
    /// Not a message, or not one that can be read.
    #[error("the first message of the stream cannot be read: {0}")]
    Malformed(String),
}

/// The first message towards the agent (section 7.1).
#[derive(Debug)]
pub struct RequestHead {
    /// What the stream carries.
    pub kind: Kind,
    /// Method, URI (absolute; for TCP the authority alone) and headers.
    pub request: Request<()>,
    /// Set by an edge of our own, only for agents that announced them.
    pub extensions: Extensions,
    /// The request's body is framed ([`framing`]), so that trailers can follow it.
    pub framed: bool,
}

impl RequestHead {
    /// Signature, version and message. The body follows them on the stream.
    ///
    /// Where there is a body, the headers must hold `content-length` or `transfer-encoding: chunked`.
    pub fn encode(kind: Kind, request: &http::request::Parts, extensions: Extensions, framed: bool) -> Bytes {
        let _ = (kind, request, extensions, framed);
        todo!()
    }

    /// Takes a whole head off the front of `buffer`; `None`: more bytes are needed. What is left is body.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, ConnectError> {
        let _ = buffer;
        todo!()
    }
}

/// The first message towards the edge (section 7.2).
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseHead {
    /// An interim answer (1xx other than 101); another head follows. Only with the extension `interim`.
    Interim {
        /// 1xx.
        status: StatusCode,
        /// The origin's headers.
        headers: HeaderMap,
    },
    /// The answer. 101: a WebSocket was accepted. For TCP streams always 200 without headers.
    Answer {
        /// The origin's status.
        status: StatusCode,
        /// The origin's headers.
        headers: HeaderMap,
        /// The body is framed ([`framing`]), so that trailers can follow it.
        framed: bool,
    },
    /// No answer of the origin.
    Failed(OriginError),
    /// Too many flows at once.
    FlowLimited(String),
}

impl ResponseHead {
    /// Signature, version and message for an answer, interim or not.
    ///
    /// `kind` decides whether there is a status at all (not for TCP).
    pub fn encode_answer(kind: Kind, status: StatusCode, headers: &HeaderMap, framed: bool) -> Bytes {
        let _ = (kind, status, headers, framed);
        todo!()
    }

    /// Signature, version and message for a failure; the kind of fault is told only to an edge that asked for it.
    pub fn encode_failure(error: &OriginError, extensions: Extensions) -> Bytes {
        let _ = (error, extensions);
        todo!()
    }

    /// Takes a whole head off the front of `buffer`; `None`: more bytes are needed. What is left is body, or the next head.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, ConnectError> {
        let _ = buffer;
        todo!()
    }
}
