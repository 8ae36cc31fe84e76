//! Sending a body on a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use ::http2::{Reason, SendStream};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};

use crate::body::Broken;
use crate::{Body, BodyError, header};

/// Sends a body to its end, or as far as the other end wants it. Polls it only when the other end's window, and the local
/// buffer, have room. The error is the body's own; the stream is still to be [broken off](break_off) then.
pub(super) async fn send(stream: &mut SendStream, mut body: Body) -> Result<(), BodyError> {
    loop {
        if std::future::poll_fn(|context| stream.poll_ready(context)).await.is_err() {
            return Ok(());
        }
        let next = std::future::poll_fn(|context| poll_next(stream, &mut body, context)).await;
        let sent = match next {
            Next::Unwanted => return Ok(()),
            Next::Frame(None) => {
                let _ = stream.send(Bytes::new(), true);
                return Ok(());
            }
            Next::Frame(Some(Err(error))) => return Err(error),
            Next::Frame(Some(Ok(frame))) => match frame.into_data() {
                // Peers count empty frames against us.
                Ok(bytes) if bytes.is_empty() => Ok(false),
                Ok(bytes) => {
                    let end = body.is_end_stream();
                    stream.send(bytes, end).map(|()| end)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(mut trailers) => {
                        header::strip_forbidden_trailers(&mut trailers);
                        stream.send_trailers(trailers).map(|()| true)
                    }
                    Err(_) => Ok(false),
                },
            },
        };
        // An error means that the stream is closed already.
        if sent.unwrap_or(true) {
            return Ok(());
        }
    }
}

/// Ends a stream whose body broke off.
pub(super) fn break_off(stream: &mut SendStream, broken: Broken) {
    match broken {
        Broken::Reset => stream.reset(Reason::INTERNAL_ERROR),
        Broken::Visible => {
            let mark = [(header::BROKEN, HeaderValue::from_static("1"))];
            // An error means that the stream is closed already.
            let _ = stream.send_trailers(HeaderMap::from_iter(mark));
        }
    }
}

enum Next {
    Frame(Option<Result<Frame<Bytes>, BodyError>>),
    Unwanted,
}

/// The body's next frame, unless the other end resets the stream first.
fn poll_next(stream: &mut SendStream, body: &mut Body, context: &mut Context<'_>) -> Poll<Next> {
    if stream.poll_reset(context).is_ready() {
        return Poll::Ready(Next::Unwanted);
    }
    Pin::new(body).poll_frame(context).map(Next::Frame)
}
