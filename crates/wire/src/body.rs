use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::{Extensions, Kind, http2, quic};

/// Why a body ended before its end. Whoever forwards it must end its own side visibly short (reset, or no last chunk).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(pub String);

/// A message body on its way through: bytes as they come, then perhaps trailers.
///
/// Nothing is read ahead of whoever polls it beyond the transport's own windows, so back-pressure passes through.
/// Dropping it before its end cancels the sender.
pub struct Body(Source);

enum Source {
    Empty,
    Full(Option<Bytes>),
    Http2(http2::Incoming),
    /// Boxed, because all bodies would have to hold the room for it.
    Quic(Box<quic::Incoming>),
    Other(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// No bytes, no trailers.
    pub fn empty() -> Self {
        Self(Source::Empty)
    }

    /// These bytes, no trailers.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }

    /// Any other body.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        Self(Source::Other(body.map_err(|error| BodyError(error.to_string())).boxed_unsync()))
    }

    /// The body of a visitor's request as it comes over HTTP/2.
    pub fn request(stream: ::http2::RecvStream) -> Self {
        if stream.is_end() { Self::empty() } else { Self::http2(http2::Incoming::request(stream, None)) }
    }

    pub(crate) fn http2(incoming: http2::Incoming) -> Self {
        Self(Source::Http2(incoming))
    }

    pub(crate) fn quic(incoming: quic::Incoming) -> Self {
        Self(Source::Quic(Box::new(incoming)))
    }

    /// All of it is held in memory.
    pub fn is_full(&self) -> bool {
        matches!(self.0, Source::Empty | Source::Full(_))
    }

    /// Takes the bytes of a body that is held in memory as a whole.
    pub(crate) fn take_full(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Source::Full(bytes) => bytes.take(),
            Source::Empty | Source::Http2(_) | Source::Quic(_) | Source::Other(_) => None,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Http2(incoming) => incoming.poll_frame(context),
            Source::Quic(incoming) => incoming.poll_frame(context),
            Source::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Http2(incoming) => incoming.is_end_stream(),
            Source::Quic(incoming) => incoming.is_end_stream(),
            Source::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Http2(incoming) => incoming.size_hint(),
            Source::Quic(incoming) => incoming.size_hint(),
            Source::Other(body) => body.size_hint(),
        }
    }
}

/// What the head of a message promised of its body's length, and how much of it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// No body at all, whatever `content-length` says (HEAD, 204, 304): not even trailers.
    Nothing,
    /// This many bytes are still to come.
    Bytes(u64),
    /// The end of the stream is the end of the body.
    Open,
}

impl Promise {
    /// Counts bytes that came; more than were promised is an error.
    pub(crate) fn take(&mut self, length: usize) -> Result<(), BodyError> {
        match self {
            Self::Nothing => Err(BodyError("bytes where the head allows no body".into())),
            Self::Bytes(left) => match left.checked_sub(length as u64) {
                Some(rest) => {
                    *left = rest;
                    Ok(())
                }
                None => Err(BodyError("more bytes than content-length says".into())),
            },
            Self::Open => Ok(()),
        }
    }

    /// Checks that a body that ends now is whole.
    pub(crate) fn end(self) -> Result<(), BodyError> {
        match self {
            Self::Nothing | Self::Bytes(0) | Self::Open => Ok(()),
            Self::Bytes(left) => Err(BodyError(format!("{left} bytes fewer than content-length says"))),
        }
    }

    /// Everything promised has come; only an end, or trailers, can follow.
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::Nothing | Self::Bytes(0))
    }

    pub(crate) fn size_hint(self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Bytes(left) => SizeHint::with_exact(left),
            Self::Open => SizeHint::default(),
        }
    }
}

/// How a stream ends whose body breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// By a reset, which may overtake all that was sent before it, the head included.
    Reset,
    /// Behind all that was sent before, and so that our own other end sees that something is missing.
    Visible,
}

impl Broken {
    pub(crate) fn of_answer(kind: Kind, extensions: Extensions) -> Self {
        if extensions.trailers && kind == Kind::Http { Self::Visible } else { Self::Reset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_refuses_both_too_much_and_too_little() {
        let mut promise = Promise::Bytes(5);
        assert_eq!(promise.take(3), Ok(()));
        assert!(promise.end().is_err());
        assert!(!promise.is_kept());
        assert!(promise.take(3).is_err());
        assert_eq!(promise.take(2), Ok(()));
        assert_eq!(promise.end(), Ok(()));
        assert!(promise.is_kept());
        assert!(Promise::Nothing.take(1).is_err());
        assert_eq!(Promise::Open.take(usize::MAX), Ok(()));
    }

    #[tokio::test]
    async fn simple_bodies_know_their_length_and_end() {
        use http_body::Body as _;

        assert!(Body::empty().is_end_stream());
        assert!(Body::full("").is_end_stream());
        let body = Body::full("hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.expect("in memory").to_bytes(), "hello");
    }
}
