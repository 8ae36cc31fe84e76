//! HTTP/3 for visitors, with interim answers, trailers and WebSockets (RFC 9220).

mod body;
pub(crate) mod guard;
mod protocol;
mod quic;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, ConnectionError, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use http2::Bucket;
use quinn::VarInt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use wire::{Interim, Kind};

use super::{Reception, ask};
use crate::defence::Defence;
use crate::site::Counted;
use crate::visit::{Caller, Visit};
use body::incoming;
use quic::{Connection, Sender, Sidelight};

type Outgoing = RequestStream<Sender<Bytes>, Bytes>;

/// What a visitor may send of one body before it is taken.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of all answers of a connection that wait to be acknowledged: enough for 100 Mbit/s at 80 ms.
const SEND_WINDOW: u64 = 1024 * 1024;
/// Streams in one direction: control, two of QPACK, and room for kinds that are passed over (RFC 9114 section 6.2).
const ONE_WAY_STREAMS: u32 = 8;
/// How often a connection with requests shows that it is alive; a visitor that vanished is noticed after [`SILENCE`].
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A visitor that sends nothing at all for this long, not even an acknowledgement, is gone.
const SILENCE: Duration = Duration::from_secs(40);
/// How long a finished answer may take to be acknowledged when the connection is about to close.
const LINGER: Duration = Duration::from_secs(5);

/// Settings of the QUIC connections of visitors.
pub(crate) fn transport_config(streams: u32) -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(ONE_WAY_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(SILENCE.try_into().expect("40 s is within what QUIC can say")))
        .datagram_receive_buffer_size(None);
    config
}

/// Serves one connection until either side closes it.
pub(crate) async fn serve(quic: quinn::Connection, caller: Caller, reception: Arc<Reception>) {
    if let Err(error) = accept(quic, caller, reception).await
        && !error.is_h3_no_error()
    {
        tracing::debug!(visitor = %caller.remote, %error, "a visitor's connection broke");
    }
}

async fn accept(quic: quinn::Connection, caller: Caller, reception: Arc<Reception>) -> Result<(), ConnectionError> {
    let limits = reception.limits;
    let address = caller.address();
    let connection = Connection::new(quic.clone(), limits.header_bytes);
    let requests = connection.requests();
    let flooded = connection.flooded();
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits.header_bytes as u64).enable_extended_connect(true).send_grease(false);
    // A visitor that lets no control stream be opened would keep its place for ever.
    let built = reception.stop.unless_drained(timeout(limits.handshake, builder.build::<_, Bytes>(connection)));
    let Some(Ok(connection)) = built.await else { return Ok(()) };
    let mut connection = connection?;
    let mut streams = JoinSet::new();
    let mut idle_since = Instant::now();
    let mut taken_back = Bucket::new(limits.resets, idle_since);
    let mut leaving = false;
    while !(leaving && streams.is_empty()) {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(resolver) = accepted? else { break };
                if let Some(sidelight) = requests.latest() {
                    streams.spawn(exchange(resolver, sidelight, caller, address.clone(), Arc::clone(&reception)));
                }
            }
            Some(ended) = streams.join_next() => {
                idle_since = Instant::now();
                if matches!(ended, Ok(Ended::TakenBack)) && !taken_back.take(idle_since) {
                    reception.site.metrics.defended(Defence::Resets);
                    quic.close(EXCESSIVE_LOAD, b"");
                    break;
                }
            }
            () = flooded.notified() => {
                reception.site.metrics.defended(Defence::IdleFrames);
                quic.close(EXCESSIVE_LOAD, b"");
                break;
            }
            () = reception.stop.drained(), if !leaving => {
                leaving = true;
                say_goodbye(&mut connection).await?;
            }
            () = sleep_until(idle_since + limits.idle), if streams.is_empty() && !leaving => {
                leaving = true;
                say_goodbye(&mut connection).await?;
            }
        }
    }
    // The visitor will open no more, but what it opened is still answered.
    while streams.join_next().await.is_some() {}
    Ok(())
}

/// H3_EXCESSIVE_LOAD (RFC 9114 section 8.1).
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// How a request came to its end.
enum Ended {
    /// With an answer, or with a visitor who did not want all of it.
    Answered,
    /// Its visitor gave it up before there was an answer, or it was malformed.
    TakenBack,
}

/// Tells the visitor to send no more requests, unless it takes nothing on the control stream.
async fn say_goodbye(connection: &mut h3::server::Connection<Connection, Bytes>) -> Result<(), ConnectionError> {
    timeout(LINGER, connection.shutdown(0)).await.unwrap_or(Ok(()))
}

async fn exchange(
    resolver: RequestResolver<Connection, Bytes>,
    sidelight: Sidelight,
    caller: Caller,
    address: HeaderValue,
    reception: Arc<Reception>,
) -> Ended {
    let resolved = timeout(reception.limits.idle, resolver.resolve_request()).await;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            tracing::debug!(visitor = %caller.remote, %error, "a request was malformed");
            return Ended::TakenBack;
        }
        Err(_) => return Ended::TakenBack,
    };
    let Sidelight { websocket, mut done } = sidelight;
    let (mut outgoing, receiving) = stream.split();
    let (mut head, ()) = request.into_parts();
    let kind = match (websocket.load(Ordering::Acquire), &head.method) {
        (false, _) => Kind::Http,
        (true, &Method::CONNECT) => {
            head.method = Method::GET;
            Kind::WebSocket
        }
        (true, _) => {
            tracing::debug!(visitor = %caller.remote, "a request names a protocol and is no CONNECT");
            outgoing.stop_stream(Code::H3_MESSAGE_ERROR);
            return Ended::TakenBack;
        }
    };
    let body = match incoming(receiving, &head, kind).await {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(visitor = %caller.remote, %error, "a request was malformed");
            return Ended::TakenBack;
        }
    };
    let (body, mut asked) = ask::asking(&head.headers, body);
    let (interim, mut interims) = Interim::channel();
    let visit = Visit { kind, request: Request::from_parts(head, body), interim, caller, address };
    let mut answering = pin!(reception.answer(Box::new(visit)));
    let answer = loop {
        tokio::select! {
            biased;
            Some((status, headers)) = interims.recv() => send_interim(&mut outgoing, status, headers).await,
            () = ask::asked(&mut asked) => send_interim(&mut outgoing, StatusCode::CONTINUE, HeaderMap::new()).await,
            // The visitor left: dropping the rest cancels the origin's request.
            () = &mut done => {
                outgoing.stop_stream(Code::H3_REQUEST_CANCELLED);
                return Ended::TakenBack;
            }
            answer = &mut answering => break answer,
        }
    };
    while let Some((status, headers)) = interims.try_recv() {
        send_interim(&mut outgoing, status, headers).await;
    }
    let sent = tokio::select! {
        sent = send(answer, kind, &mut outgoing, &reception) => sent,
        () = &mut done => {
            outgoing.stop_stream(Code::H3_REQUEST_CANCELLED);
            return Ended::Answered;
        }
    };
    match sent {
        // Closing the connection throws away what is not acknowledged yet.
        Ok(()) => _ = timeout(LINGER, done).await,
        Err(error) => {
            outgoing.stop_stream(Code::H3_INTERNAL_ERROR);
            tracing::debug!(visitor = %caller.remote, %error, "an answer did not reach its visitor");
        }
    }
    Ended::Answered
}

/// An interim answer is advice: one that cannot be sent is left out.
async fn send_interim(outgoing: &mut Outgoing, status: StatusCode, headers: HeaderMap) {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if let Err(error) = outgoing.send_response(answer).await {
        tracing::debug!(%error, "an interim answer was left out");
    }
}

/// Why an answer did not get through.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Visitor(#[from] StreamError),
    #[error(transparent)]
    Origin(#[from] wire::BodyError),
    #[error("the visitor takes nothing of it")]
    Stalled,
}

async fn send(
    answer: Response<Counted>,
    kind: Kind,
    outgoing: &mut Outgoing,
    reception: &Reception,
) -> Result<(), SendError> {
    let (head, mut body) = answer.into_parts();
    let head = super::without_upgrade(head, kind);
    taken(outgoing.send_response(Response::from_parts(head, ())), reception).await?;
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        match frame?.into_data() {
            Ok(data) if data.is_empty() => (),
            Ok(data) => taken(outgoing.send_data(data), reception).await?,
            Err(frame) => {
                taken(outgoing.send_trailers(frame.into_trailers().unwrap_or_default()), reception).await?;
                break;
            }
        }
    }
    Ok(outgoing.finish().await?)
}

/// Sends a part of an answer, unless the visitor makes no room for it.
async fn taken(sending: impl Future<Output = Result<(), StreamError>>, reception: &Reception) -> Result<(), SendError> {
    match timeout(reception.limits.stall, sending).await {
        Ok(sent) => Ok(sent?),
        Err(_) => {
            reception.site.metrics.defended(Defence::Stalled);
            Err(SendError::Stalled)
        }
    }
}
