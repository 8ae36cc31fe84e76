//! HTTP/2 for visitors, with interim answers, trailers and WebSockets (RFC 8441).

mod cork;
mod guard;

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use wire::{Body, BodyError, Interim, Kind};

use super::{Reception, ask};
use crate::defence::Defence;
use crate::site::Counted;
use crate::visit::{Caller, Visit};
use cork::Corked;
use guard::{Alarm, Guarded};

/// What a visitor may send of one body before it is taken: bounds memory, and is enough for 40 Mbit/s at 50 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one answer that wait to be written.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that a visitor may open and reset before they are looked at; more is an attack (CVE-2023-44487).
const RESET_STREAMS: usize = 32;
/// Streams that a visitor may make the edge reset, on one connection: more is an attack (CVE-2025-8671). Each is a breach of the
/// protocol, which programs do not commit by the dozen.
const MADE_RESETS: usize = 64;
/// How often a visitor is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);

/// How long a visitor whose request has been answered already may go on sending it before it is told to stop. Some (curl before
/// 8.0) take a reset that comes together with the answer for no answer at all; most notice the answer and stop by themselves.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one connection until either side closes it.
pub(super) async fn serve<IO>(io: IO, caller: Caller, reception: Arc<Reception>) -> Result<(), Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, alarm) = Guarded::new(io, &reception.limits);
    let served = serve_guarded(io, &alarm, caller, reception).await;
    served.map_err(|error| Broken { defence: Defence::of_http2(&error, || alarm.seen().too_much()), error })
}

/// A connection that has not ended well.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Broken {
    /// What it was that ended it, if the edge did.
    pub(super) defence: Option<Defence>,
    error: h2::Error,
}

async fn serve_guarded<IO>(
    io: Guarded<IO>,
    alarm: &Alarm,
    caller: Caller,
    reception: Arc<Reception>,
) -> Result<(), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = reception.limits;
    let address = caller.address();
    let (io, uncork) = Corked::new(io);
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(MADE_RESETS))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io);
    let handshake = reception.stop.unless_drained(timeout(limits.handshake, uncork.drive(handshake)));
    let Some(Ok(connection)) = handshake.await else { return Ok(()) };
    let mut connection = connection?;
    let mut liveness = pin!(liveness(connection.ping_pong()));
    // Polled here and not by tasks of their own: what several of them have to say is written together, and a request
    // passes from thread to thread no more often than it has to.
    let mut streams = FuturesUnordered::new();
    let mut idle_since = Instant::now();
    let mut leaving = None;
    loop {
        tokio::select! {
            biased;
            Some(_) = streams.next() => idle_since = Instant::now(),
            accepted = uncork.drive(connection.accept()) => match accepted {
                None => return Ok(()),
                Some(accepted) => {
                    let (request, respond) = accepted?;
                    let exchange = exchange(request, respond, caller, address.clone(), Arc::clone(&reception));
                    // A panic ends its request alone, as it would end a task.
                    streams.push(AssertUnwindSafe(exchange).catch_unwind());
                }
            },
            () = reception.stop.drained(), if leaving.is_none() => {
                leaving = Some(Instant::now());
                connection.graceful_shutdown();
            }
            () = sleep_until(leaving.unwrap_or(idle_since).max(idle_since) + limits.idle), if streams.is_empty() => {
                if leaving.is_some() {
                    tracing::debug!(visitor = %caller.remote, "a visitor stays on a connection that is to end");
                    return Ok(());
                }
                leaving = Some(Instant::now());
                connection.graceful_shutdown();
            }
            defence = alarm.rung() => {
                reception.site.metrics.defended(defence);
                tracing::debug!(visitor = %caller.remote, limit = defence.label(), "a visitor sends too much of nothing");
                // What it asked for is given up, and it is told why, if it listens.
                streams.clear();
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = timeout(LINGER, uncork.drive(poll_fn(|context| connection.poll_closed(context)))).await;
                return Ok(());
            }
            () = &mut liveness => {
                tracing::debug!(visitor = %caller.remote, "a visitor vanished");
                return Ok(());
            }
        }
    }
}

/// Ends when the visitor does not answer any more.
async fn liveness(pings: Option<PingPong>) {
    let mut pings = pings.expect("it is taken once");
    loop {
        tokio::time::sleep(PING).await;
        match timeout(PING, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => (),
            // A connection that is closing has its own end.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    caller: Caller,
    address: HeaderValue,
    reception: Arc<Reception>,
) {
    let (kind, request, rest) = translate(request);
    let (head, body) = request.into_parts();
    let (body, mut asked) = ask::asking(&head.headers, body);
    let (interim, mut interims) = Interim::channel();
    let visit = Visit { kind, request: Request::from_parts(head, body), interim, caller, address };
    let mut answering = pin!(reception.answer(visit));
    let answer = loop {
        tokio::select! {
            biased;
            Some((status, headers)) = interims.recv() => send_interim(&mut respond, status, headers),
            () = ask::asked(&mut asked) => send_interim(&mut respond, StatusCode::CONTINUE, HeaderMap::new()),
            // The visitor left: dropping the rest cancels the origin's request.
            _ = poll_fn(|context| respond.poll_reset(context)) => return,
            answer = &mut answering => break answer,
        }
    };
    while let Some((status, headers)) = interims.try_recv() {
        send_interim(&mut respond, status, headers);
    }
    match send(answer, kind, respond, &reception).await {
        Ok(()) => {
            if let Some(rest) = rest {
                let _ = timeout(LINGER, pass_over(rest)).await;
            }
        }
        Err(error) => tracing::debug!(visitor = %caller.remote, %error, "an answer did not reach its visitor"),
    }
}

/// Waits for the end of what nobody reads any more. Its window stays closed.
async fn pass_over(rest: oneshot::Receiver<RecvStream>) {
    if let Ok(mut stream) = rest.await {
        while let Some(Ok(_)) = stream.data().await {}
    }
}

/// Turns what came over HTTP/2 into a request of either kind. An extended CONNECT that is no WebSocket's stays a
/// CONNECT, which no site can serve. What nobody reads of its body comes back.
fn translate(request: Request<RecvStream>) -> (Kind, Request<Body>, Option<oneshot::Receiver<RecvStream>>) {
    let (mut head, stream) = request.into_parts();
    let kind = match head.extensions.remove::<h2::ext::Protocol>() {
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => {
            head.method = Method::GET;
            Kind::WebSocket
        }
        Some(_) | None => Kind::Http,
    };
    if stream.is_end_stream() {
        return (kind, Request::from_parts(head, Body::empty()), None);
    }
    let (unread, rest) = oneshot::channel();
    let body = Body::wrap(Incoming { stream: Some(stream), data_ended: false, unread: Some(unread) });
    (kind, Request::from_parts(head, body), Some(rest))
}

/// An interim answer is advice: one that cannot be sent is left out.
fn send_interim(respond: &mut SendResponse<Bytes>, status: StatusCode, headers: HeaderMap) {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if let Err(error) = respond.send_informational(answer) {
        tracing::debug!(%error, "an interim answer was left out");
    }
}

async fn send(
    answer: Response<Counted>,
    kind: Kind,
    mut respond: SendResponse<Bytes>,
    reception: &Reception,
) -> Result<(), h2::Error> {
    let (head, mut body) = answer.into_parts();
    let head = super::without_upgrade(head, kind);
    let ends = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), ends)?;
    if ends {
        return Ok(());
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            reason = poll_fn(|context| stream.poll_reset(context)) => return Err(reason?.into()),
        };
        match frame {
            None => return stream.send_data(Bytes::new(), true),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    send_data(&mut stream, data, last, reception).await?;
                    if last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    return stream.send_trailers(frame.into_trailers().unwrap_or_default());
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "an origin's answer broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
}

/// Sends as the visitor's windows allow, so that a slow visitor slows the origin down.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
    reception: &Reception,
) -> Result<(), h2::Error> {
    if data.is_empty() {
        return if last { stream.send_data(data, true) } else { Ok(()) };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            let capacity = poll_fn(|context| stream_capacity(stream, context));
            let Ok(capacity) = timeout(reception.limits.stall, capacity).await else {
                reception.site.metrics.defended(Defence::Stalled);
                stream.send_reset(Reason::CANCEL);
                return Err(Reason::CANCEL.into());
            };
            capacity?;
        }
        let part = data.split_to(stream.capacity().min(data.len()));
        let ends = last && data.is_empty();
        stream.send_data(part, ends)?;
    }
    Ok(())
}

/// Ready when there is capacity, or with the reason why there never will be.
fn stream_capacity(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    if let Poll::Ready(reason) = stream.poll_reset(context) {
        return Poll::Ready(Err(reason?.into()));
    }
    match ready!(stream.poll_capacity(context)) {
        Some(Ok(_)) => Poll::Ready(Ok(())),
        Some(Err(error)) => Poll::Ready(Err(error)),
        None => Poll::Ready(Err(Reason::CANCEL.into())),
    }
}

/// The body of a request. Its window opens again as its bytes are taken.
struct Incoming {
    /// There until it is dropped.
    stream: Option<RecvStream>,
    data_ended: bool,
    /// Takes the stream if it is dropped before its end.
    unread: Option<oneshot::Sender<RecvStream>>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let (Some(stream), Some(unread)) = (self.stream.take(), self.unread.take())
            && !stream.is_end_stream()
        {
            // Nobody takes it when the visitor has left; then it may go.
            let _ = unread.send(stream);
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { stream: Some(stream), data_ended, .. } = &mut *self else { return Poll::Ready(None) };
        if !*data_ended {
            match ready!(stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // Fails only when the stream is gone, which the next poll tells.
                    let _ = stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError(error.to_string())))),
                None => *data_ended = true,
            }
        }
        match ready!(stream.poll_trailers(context)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(BodyError(error.to_string())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
