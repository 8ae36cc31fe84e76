//! HTTP/1.1 for visitors. They get no interim answer but 100: many programs take any other for the answer itself.

mod rest;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use wire::{Body, BodyError, Interim, Kind};

use super::Reception;
use super::prefixed::Prefixed;
use crate::refusal::Last;
use crate::site::Counted;
use crate::unread::{Unread, Upload, linger};
use crate::visit::{Caller, Visit};
use rest::{Felt, Held, Progress, SILENCE};

/// Bytes read from a WebSocket's visitor at once.
const READ: usize = 16 * 1024;

/// The smallest buffer that hyper takes.
const MIN_BUFFER: usize = 8 * 1024;

/// Serves one connection until either side closes it.
pub(super) async fn serve<IO>(io: IO, caller: Caller, reception: Arc<Reception>) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut io = Prefixed::with(BytesMut::new(), io);
    loop {
        // Boxed, so that what rests, or is a WebSocket, does not hold the room for requests.
        match Box::pin(exchanges(io, caller, &reception)).await? {
            Left::Over => return Ok(()),
            Left::Silent(silent) => match rest::rest(silent, &reception).await {
                Some(awake) => io = awake,
                None => return Ok(()),
            },
            Left::WebSocket(accepted, io) => {
                accepted.join(io).await;
                return Ok(());
            }
        }
    }
}

/// What there is once requests have been served.
enum Left<IO> {
    Over,
    /// Requests may come again.
    Silent(Prefixed<IO>),
    WebSocket(Box<Accepted<IO>>, Prefixed<IO>),
}

/// Serves requests until the connection ends, or is silent.
async fn exchanges<IO>(io: Prefixed<IO>, caller: Caller, reception: &Arc<Reception>) -> Result<Left<IO>, hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = reception.limits;
    let websocket = Afterwards::default();
    let address = caller.address();
    let (progress, unread) = (Arc::new(Progress::default()), Unread::default());
    // Each exchange has one of its own until it is through; there are always the one here and the service's.
    let exchange = Arc::new(());
    let service = hyper::service::service_fn({
        let (reception, websocket) = (Arc::clone(reception), Arc::clone(&websocket));
        let (progress, exchange, unread) = (Arc::clone(&progress), Arc::clone(&exchange), unread.clone());
        move |request: Request<Incoming>| {
            progress.request();
            let (reception, websocket, address) = (Arc::clone(&reception), Arc::clone(&websocket), address.clone());
            let (unread, exchange) = (unread.clone(), Arc::clone(&exchange));
            // A connection has room for this all the time, also while there is no request.
            Box::pin(async move {
                let request =
                    request.map(|body| Held { body: Upload::new(body, unread), _exchange: Arc::clone(&exchange) });
                let mut answer = answer(request, caller, address, &reception, &websocket).await;
                if answer.extensions().get::<Last>().is_some() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| Held { body, _exchange: exchange }))
            })
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(Felt::new(io, Arc::clone(&progress))), service);
    let mut look = pin!(sleep(SILENCE));
    let mut drained = pin!(reception.stop.drained());
    let (mut requests, mut leaving) = (0, false);
    let ended = poll_fn(|context| {
        if !leaving && drained.as_mut().poll(context).is_ready() {
            leaving = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.poll_without_shutdown(context) {
            return Poll::Ready(Some(ended));
        }
        // Looked at from time to time only: that costs a busy connection nothing.
        while look.as_mut().poll(context).is_ready() {
            let before = std::mem::replace(&mut requests, progress.requests());
            if before == requests && progress.is_silent() && Arc::strong_count(&exchange) == 2 && !leaving {
                return Poll::Ready(None);
            }
            look.as_mut().reset(Instant::now() + SILENCE);
        }
        Poll::Pending
    })
    .await;
    // The service ends here, and what it has of the exchange.
    let Parts { io, read_buf, .. } = connection.into_parts();
    let mut io = io.into_inner().into_inner();
    if !read_buf.is_empty() {
        io = io.after(BytesMut::from(&read_buf[..]));
    }
    let accepted = websocket.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (ended, accepted) {
        (None, _) => Ok(Left::Silent(io)),
        (Some(Ok(())), Some(accepted)) => Ok(Left::WebSocket(Box::new(accepted), io)),
        (Some(ended), _) => {
            // Somebody may have the body still.
            let is_unread = unread.is_some() || Arc::strong_count(&exchange) > 1;
            rest::leave(&mut io, reception).await;
            if is_unread {
                linger(&mut io).await;
            }
            ended.map(|()| Left::Over)
        }
    }
}

/// What is left to do on the connection once HTTP has ended on it.
type Afterwards<IO> = Arc<Mutex<Option<Accepted<IO>>>>;

async fn answer<IO>(
    request: Request<Held<Upload>>,
    caller: Caller,
    address: HeaderValue,
    reception: &Reception,
    websocket: &Afterwards<IO>,
) -> Response<Counted>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !wants_websocket(&request) {
        let (kind, request) = (Kind::Http, request.map(taken));
        let visit = Visit { kind, request, interim: Interim::unwanted(), caller, address };
        return reception.answer(Box::new(visit)).await;
    }
    let (reader, accepted) = oneshot::channel();
    let request = request.map(|_| Body::wrap(Raw::<IO>::Waiting(accepted)));
    let visit = Visit { kind: Kind::WebSocket, request, interim: Interim::unwanted(), caller, address };
    let answer = reception.answer(Box::new(visit)).await;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.remove(header::CONTENT_LENGTH);
    *websocket.lock().unwrap_or_else(PoisonError::into_inner) = Some(Accepted { body, reader });
    Response::from_parts(head, Counted::nothing())
}

/// Most requests have no body.
fn taken(body: Held<Upload>) -> Body {
    if body.is_end_stream() { Body::empty() } else { Body::wrap(body) }
}

/// RFC 6455 section 4.2.1. With a body it would not be clear where the frames begin.
fn wants_websocket(request: &Request<Held<Upload>>) -> bool {
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

/// A WebSocket that was answered with 101.
struct Accepted<IO> {
    /// What the origin says.
    body: Counted,
    /// Takes what the visitor says.
    reader: oneshot::Sender<ReadHalf<Prefixed<IO>>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Accepted<IO> {
    /// Joins the two bodies with the visitor's bytes.
    async fn join(self, io: Prefixed<IO>) {
        let (reader, writer) = tokio::io::split(io);
        // The request's body is gone if the exchange has ended meanwhile, and then so has the answer's.
        let _ = self.reader.send(reader);
        if let Err(error) = write_out(self.body, writer).await {
            tracing::debug!(%error, "a WebSocket broke");
        }
    }
}

/// Writes until the origin's side ends, and then ends the visitor's.
async fn write_out(mut body: Counted, mut writer: WriteHalf<impl AsyncWrite>) -> std::io::Result<()> {
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
enum Raw<IO> {
    Waiting(oneshot::Receiver<ReadHalf<Prefixed<IO>>>),
    Reading(ReadHalf<Prefixed<IO>>, BytesMut),
    Ended,
}

impl<IO: AsyncRead + Unpin> http_body::Body for Raw<IO> {
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
                    match tokio_util::io::poll_read_buf(Pin::new(reader), context, buffer) {
                        Poll::Pending => {
                            // Nobody holds memory for a WebSocket that is silent.
                            *buffer = BytesMut::new();
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(0)) => *self = Self::Ended,
                        Poll::Ready(Ok(_)) => return Poll::Ready(Some(Ok(Frame::data(buffer.split().freeze())))),
                        Poll::Ready(Err(error)) => {
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
