//! HTTP/1.1 for visitors. They get no interim answer but 100: many programs take any other for the answer itself.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use wire::{Body, BodyError, Interim, Kind};

use super::Reception;
use crate::refusal::Last;
use crate::site::Counted;
use crate::visit::{Caller, Visit};

/// Bytes read from a WebSocket's visitor at once.
const READ: usize = 16 * 1024;

/// The smallest buffer that hyper takes.
const MIN_BUFFER: usize = 8 * 1024;

/// Serves one connection until either side closes it.
pub(super) async fn serve<IO>(io: IO, caller: Caller, reception: Arc<Reception>) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = reception.limits;
    let websocket = Afterwards::default();
    let address = caller.address();
    let service = hyper::service::service_fn({
        let (reception, websocket) = (Arc::clone(&reception), Arc::clone(&websocket));
        move |request| {
            let (reception, websocket, address) = (Arc::clone(&reception), Arc::clone(&websocket), address.clone());
            // A connection has room for this all the time, also while there is no request.
            Box::pin(async move {
                let mut answer = answer(request, caller, address, &reception, &websocket).await;
                if answer.extensions().get::<Last>().is_some() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => ended?,
        () = reception.stop.drained() => {
            connection.as_mut().graceful_shutdown();
            connection.await?;
        }
    }
    let websocket = websocket.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(websocket) = websocket {
        websocket.await;
    }
    Ok(())
}

/// What is left to do on the connection once HTTP has ended on it.
type Afterwards = Arc<Mutex<Option<BoxFuture<'static, ()>>>>;

async fn answer(
    mut request: Request<Incoming>,
    caller: Caller,
    address: HeaderValue,
    reception: &Reception,
    websocket: &Afterwards,
) -> Response<Counted> {
    let upgrade = wants_websocket(&request).then(|| (hyper::upgrade::on(&mut request), oneshot::channel()));
    let (kind, request, upgrade) = match upgrade {
        None => (Kind::Http, request.map(taken), None),
        Some((upgrade, (accepted, reader))) => {
            (Kind::WebSocket, request.map(|_| Body::wrap(Raw::Waiting(reader))), Some((upgrade, accepted)))
        }
    };
    let answer = reception.answer(Visit { kind, request, interim: Interim::unwanted(), caller, address }).await;
    match upgrade {
        Some((upgrade, accepted)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let (answer, afterwards) = accept(answer, upgrade, accepted);
            *websocket.lock().unwrap_or_else(PoisonError::into_inner) = Some(afterwards);
            answer
        }
        Some(_) | None => answer,
    }
}

/// Most requests have no body.
fn taken(body: Incoming) -> Body {
    if body.is_end_stream() { Body::empty() } else { Body::wrap(body) }
}

/// RFC 6455 section 4.2.1. With a body it would not be clear where the frames begin.
fn wants_websocket(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.body().is_end_stream()
        && request.version() == Version::HTTP_11
        && has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket")
        && headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// Answers 101; what joins the two bodies with the visitor's bytes comes after.
fn accept(
    answer: Response<Counted>,
    upgrade: OnUpgrade,
    accepted: oneshot::Sender<ReadHalf<TokioIo<Upgraded>>>,
) -> (Response<Counted>, BoxFuture<'static, ()>) {
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.remove(header::CONTENT_LENGTH);
    let afterwards = async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        // The request's body is gone if the exchange has ended meanwhile, and then so has the answer's.
        let _ = accepted.send(reader);
        if let Err(error) = write_out(body, writer).await {
            tracing::debug!(%error, "a WebSocket broke");
        }
    };
    (Response::from_parts(head, Counted::nothing()), Box::pin(afterwards))
}

/// Writes until the origin's side ends, and then ends the visitor's.
async fn write_out(mut body: Counted, mut writer: WriteHalf<TokioIo<Upgraded>>) -> std::io::Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(std::io::Error::other)?;
        if let Ok(mut data) = frame.into_data() {
            writer.write_all_buf(&mut data).await?;
            writer.flush().await?;
        }
    }
    writer.shutdown().await
}

/// The bytes of a WebSocket's visitor, from the moment that the origin accepted it.
enum Raw {
    Waiting(oneshot::Receiver<ReadHalf<TokioIo<Upgraded>>>),
    Reading(ReadHalf<TokioIo<Upgraded>>, BytesMut),
    Ended,
}

impl http_body::Body for Raw {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut *self {
                Self::Waiting(reader) => match ready!(Pin::new(reader).poll(context)) {
                    Ok(reader) => *self = Self::Reading(reader, BytesMut::new()),
                    Err(_) => *self = Self::Ended,
                },
                Self::Reading(reader, buffer) => {
                    buffer.reserve(READ);
                    match ready!(tokio_util::io::poll_read_buf(Pin::new(reader), context, buffer)) {
                        Ok(0) => *self = Self::Ended,
                        Ok(_) => return Poll::Ready(Some(Ok(Frame::data(buffer.split().freeze())))),
                        Err(error) => {
                            *self = Self::Ended;
                            return Poll::Ready(Some(Err(BodyError(error.to_string()))));
                        }
                    }
                }
                Self::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Ended)
    }
}
