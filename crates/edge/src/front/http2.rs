//! HTTP/2 for visitors, with interim answers, trailers and WebSockets (RFC 8441).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http2::{Accepted, Error, Event, Exchanges, Handle, Protocol, Rate, Reason, SendStream, Settings};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wire::{Body, BodyError, Interim, Kind};

use super::{Reception, ask};
use crate::Limits;
use crate::defence::Defence;
use crate::site::Counted;
use crate::visit::{Caller, Visit};

/// What a visitor may send of one body before it is taken: bounds memory, and is enough for 40 Mbit/s at 50 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The largest frame that visitors may send: the least that the standard allows. Larger ones save nobody much.
const FRAME: u32 = 16 * 1024;
/// Streams that a visitor may make the edge reset, on one connection: more is an attack (CVE-2025-8671). Each is a breach of the
/// protocol, which programs do not commit by the dozen.
const MISTAKES: Rate = Rate { burst: 64, per_second: 1 };
/// How often a visitor is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);

/// In a head it says that nothing follows ("Trailers-Only"). Callers by grpc-core take an end in a frame of its own for an error of the
/// connection, and the tunnel may tell of it only after the head.
const GRPC_STATUS: &str = "grpc-status";

/// How long a visitor whose request has been answered already may go on sending it before it is told to stop. Some (curl before
/// 8.0) take a reset that comes together with the answer for no answer at all; most notice the answer and stop by themselves.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one connection until either side closes it.
pub(super) async fn serve<IO>(io: IO, caller: Caller, reception: Arc<Reception>) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = reception.limits;
    let address = caller.address();
    let (mut driver, handle) = ::http2::server(io, settings(&limits));
    let settled = timeout(limits.handshake, poll_fn(|context| driver.poll_settled(context)));
    match reception.stop.unless_drained(settled).await {
        Some(Ok(settled)) => settled?,
        Some(Err(_)) | None => return Ok(()),
    }
    let mut vanished = pin!(vanished(&handle));
    let mut exchanges = Exchanges::default();
    let mut idle_since = Instant::now();
    let mut leaving = None;
    let idle_until =
        |since: Instant, leaving: Option<Instant>| leaving.map_or(since, |leaving| since.max(leaving)) + limits.idle;
    loop {
        tokio::select! {
            biased;
            event = poll_fn(|context| exchanges.poll(&mut driver, context)) => match event {
                Event::Over => idle_since = Instant::now(),
                Event::Ended(ended) => return ended,
                Event::Accepted(accepted) => {
                    exchanges.push(exchange(accepted, caller, address.clone(), Arc::clone(&reception)));
                }
            },
            () = reception.stop.drained(), if leaving.is_none() => {
                leaving = Some(Instant::now());
                handle.close();
            }
            () = sleep_until(idle_until(idle_since, leaving)), if exchanges.is_empty() => {
                // An upload may go on behind its answer, which nothing but its bytes shows here.
                idle_since = idle_since.max(handle.fed());
                if Instant::now() < idle_until(idle_since, leaving) {
                    continue;
                }
                if leaving.is_some() {
                    tracing::debug!(visitor = %caller.remote, "a visitor stays on a connection that is to end");
                    return Ok(());
                }
                leaving = Some(Instant::now());
                handle.close();
            }
            () = &mut vanished => {
                tracing::debug!(visitor = %caller.remote, "a visitor vanished");
                return Ok(());
            }
        }
    }
}

fn settings(limits: &Limits) -> Settings {
    Settings {
        stream_window: STREAM_WINDOW,
        widest_stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        frame: FRAME,
        header_list: u32::try_from(limits.header_bytes).unwrap_or(u32::MAX),
        streams: limits.streams,
        mistakes: MISTAKES,
        resets: Some(limits.resets),
        idle_frames: Some(limits.idle_frames),
        extended_connect: true,
        cut_headers: true,
    }
}

/// Ends when the visitor does not answer any more.
async fn vanished(handle: &Handle) {
    loop {
        sleep(PING).await;
        let before = handle.signs();
        handle.ping();
        sleep(PING).await;
        // Any sign will do: the answer waits behind what the visitor is still to take.
        if handle.signs() == before {
            return;
        }
    }
}

async fn exchange(accepted: Accepted, caller: Caller, address: HeaderValue, reception: Arc<Reception>) {
    let Accepted { head, mut send, recv } = accepted;
    let (kind, head) = kind_of(head);
    let (body, mut asked) = ask::asking(head.headers(), Body::request(recv));
    let (interim, mut interims) = Interim::channel();
    let visit = Visit { kind, request: head.map(|()| body), interim, caller, address };
    let mut answering = pin!(reception.answer(Box::new(visit)));
    let answer = loop {
        tokio::select! {
            biased;
            Some((status, headers)) = interims.recv() => send_interim(&mut send, status, headers),
            () = ask::asked(&mut asked) => send_interim(&mut send, StatusCode::CONTINUE, HeaderMap::new()),
            // The visitor left: dropping the rest cancels the origin's request.
            _ = poll_fn(|context| send.poll_reset(context)) => return,
            answer = &mut answering => break answer,
        }
    };
    while let Some((status, headers)) = interims.try_recv() {
        send_interim(&mut send, status, headers);
    }
    match answer_with(answer, kind, &mut send, &reception).await {
        Ok(()) => {
            let mut ended = poll_fn(|context| send.poll_ended(context));
            if (&mut ended).now_or_never().is_none() {
                let _ = timeout(LINGER, ended).await;
            }
        }
        Err(error) => tracing::debug!(visitor = %caller.remote, %error, "an answer did not reach its visitor"),
    }
}

/// What came over HTTP/2 as a request of either kind. An extended CONNECT that is no WebSocket's stays a CONNECT, which no
/// site can serve.
fn kind_of(mut head: Request<()>) -> (Kind, Request<()>) {
    match head.extensions_mut().remove::<Protocol>() {
        Some(Protocol(name)) if name.as_bytes().eq_ignore_ascii_case(b"websocket") => {
            *head.method_mut() = Method::GET;
            (Kind::WebSocket, head)
        }
        Some(_) | None => (Kind::Http, head),
    }
}

/// An interim answer is advice: one that cannot be sent is left out.
fn send_interim(stream: &mut SendStream, status: StatusCode, headers: HeaderMap) {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if let Err(error) = stream.answer(&answer, false) {
        tracing::debug!(%error, "an interim answer was left out");
    }
}

async fn answer_with(
    answer: Response<Counted>,
    kind: Kind,
    stream: &mut SendStream,
    reception: &Reception,
) -> Result<(), Error> {
    let (head, mut body) = answer.into_parts();
    let head = super::without_upgrade(head, kind);
    let mut ends = body.is_end_stream();
    let mut first = None;
    if !ends && head.headers.contains_key(GRPC_STATUS) {
        first = Some(next(&mut body, stream).await?);
        ends = matches!(first, Some(None));
    }
    stream.answer(&Response::from_parts(head, ()), ends)?;
    while !ends {
        let frame = match first.take() {
            Some(frame) => frame,
            None => next(&mut body, stream).await?,
        };
        match frame {
            None => {
                stream.send(Bytes::new(), true)?;
                ends = true;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    ends = body.is_end_stream();
                    if !ends && data.is_empty() {
                        continue;
                    }
                    room(stream, false, reception).await?;
                    stream.send(data, ends)?;
                }
                Err(frame) => {
                    stream.send_trailers(frame.into_trailers().unwrap_or_default())?;
                    ends = true;
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "an origin's answer broke off");
                stream.reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
    room(stream, true, reception).await
}

/// What comes next of a body, unless the visitor gives the answer up; `None` at its end.
async fn next(body: &mut Counted, stream: &mut SendStream) -> Result<Option<Result<Frame<Bytes>, BodyError>>, Error> {
    tokio::select! {
        frame = body.frame() => Ok(frame),
        error = poll_fn(|context| stream.poll_reset(context)) => Err(error),
    }
}

/// Waits until the visitor has room for more, or for all of it, so that a slow visitor slows the origin down. One who takes
/// nothing for too long is left.
async fn room(stream: &mut SendStream, all: bool, reception: &Reception) -> Result<(), Error> {
    loop {
        let before = stream.progress();
        let mut room = poll_fn(|context| if all { stream.poll_sent(context) } else { stream.poll_ready(context) });
        // Mostly there is room, and no clock is needed.
        if let Some(room) = (&mut room).now_or_never() {
            return room;
        }
        if let Ok(room) = timeout(reception.limits.stall, room).await {
            return room;
        }
        if stream.progress() == before {
            reception.site.metrics.defended(Defence::Stalled);
            stream.reset(Reason::CANCEL);
            return Err(Error::Reset(Reason::CANCEL));
        }
    }
}
