use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h3::server::RequestStream;
use http::{HeaderMap, Method, header, request};
use http_body::{Frame, SizeHint};
use tokio::time::timeout;
use wire::{Body, BodyError, Kind};

use super::quic::Receiver;

/// How long the end of a request may come after its header. A packet or two behind is ordinary, and the origin should
/// not be told of a body that there is not.
const END_OF_HEADER: Duration = Duration::from_millis(100);

/// The body of a request over HTTP/3. The library does not compare its length with the announced one, so that is done
/// here.
struct Incoming {
    stream: RequestStream<Receiver, Bytes>,
    /// Read already.
    first: Option<Bytes>,
    /// Announced and still to come; none if nothing was announced.
    missing: Option<u64>,
    stage: Stage,
}

enum Stage {
    Data,
    /// There may be trailers.
    After,
    Trailers(HeaderMap),
    Ended,
}

/// The body of this request. For requests that usually have none, it waits a moment to see whether there is one.
pub(super) async fn incoming(
    stream: RequestStream<Receiver, Bytes>,
    head: &request::Parts,
    kind: Kind,
) -> Result<Body, BodyError> {
    let missing = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Incoming { stream, first: None, missing, stage: Stage::Data };
    let usually_none = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    if kind == Kind::Http && missing.is_none_or(|missing| missing == 0) && (usually_none || missing.is_some()) {
        match timeout(END_OF_HEADER, poll_fn(|context| body.poll_data(context))).await {
            Ok(Some(Ok(data))) => body.first = Some(data),
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) if matches!(body.stage, Stage::Ended) => return Ok(Body::empty()),
            Ok(None) | Err(_) => (),
        }
    }
    Ok(Body::wrap(body))
}

impl Incoming {
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let data = match ready!(self.stream.poll_recv_data(context)) {
            Ok(Some(mut data)) => data.copy_to_bytes(data.remaining()),
            Ok(None) => {
                if self.missing.is_some_and(|missing| missing > 0) {
                    return Poll::Ready(Some(self.fail("it is shorter than it was announced")));
                }
                self.stage = Stage::After;
                // Says at once whether there are trailers if the end of the stream is here already.
                return match self.poll_trailers(context) {
                    Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(None),
                };
            }
            Err(error) => return Poll::Ready(Some(self.fail(&error.to_string()))),
        };
        if let Some(missing) = &mut self.missing {
            let Some(left) = missing.checked_sub(data.len() as u64) else {
                return Poll::Ready(Some(self.fail("it is longer than it was announced")));
            };
            *missing = left;
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match ready!(self.stream.poll_recv_trailers(context)) {
            Ok(Some(trailers)) => self.stage = Stage::Trailers(trailers),
            Ok(None) => self.stage = Stage::Ended,
            Err(error) => return Poll::Ready(self.fail(&error.to_string())),
        }
        Poll::Ready(Ok(()))
    }

    fn fail<T>(&mut self, reason: &str) -> Result<T, BodyError> {
        self.stage = Stage::Ended;
        Err(BodyError(reason.to_owned()))
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Stage::Data = self.stage
            && let Some(data) = ready!(self.poll_data(context))
        {
            return Poll::Ready(Some(data.map(Frame::data)));
        }
        if let Stage::After = self.stage {
            ready!(self.poll_trailers(context))?;
        }
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Stage::Data | Stage::After | Stage::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.missing.map(SizeHint::with_exact).unwrap_or_default()
    }
}
