//! The agent end of a connection over HTTP/2.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http2::{Accepted, Driver, Event, Exchanges, Reason, RecvStream, SendStream};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::duplex::Duplex;
use super::incoming::Incoming;
use super::liveness::Liveness;
use super::{agent_settings, outgoing, stream};
use crate::agent_connection;
use crate::body::Broken;
use crate::exchange::{clean_answer, strip_hop_by_hop};
use crate::flight::Flights;
use crate::header::{self, ResponseMeta, StreamKind};
use crate::registration::{Registered, Registration};
use crate::service::{Answer, Call, Respond};
use crate::{AgentConnection, Body, ConnectError, Extensions, Handler, Kind, OriginError, OriginFault};

/// How long the edge may take to send its preface (section 4).
const PREFACE_LIMIT: Duration = Duration::from_secs(10);

/// Requests that the edge may have under way on one connection.
const MAX_STREAMS: u32 = 20_000;

/// A pushed configuration is read whole: so large, all that are pushed at once together, and within this time.
const CONFIGURATION_SIZE: usize = 16 << 20;
const CONFIGURATION_LIMIT: Duration = Duration::from_secs(10);

/// Registers over a stream that is already secured, and serves what the edge sends from then on.
///
/// `rpc_timeout` limits the registration.
pub async fn connect<IO, H>(
    io: IO,
    registration: &Registration,
    handler: Arc<H>,
    rpc_timeout: Duration,
) -> Result<(Registered, AgentConnection), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let (mut driver, handle) = ::http2::server(io, agent_settings(MAX_STREAMS));
    match timeout(PREFACE_LIMIT, poll_fn(|context| driver.poll_settled(context))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(ConnectError::Lost(error.to_string())),
        Err(_) => return Err(ConnectError::Lost(format!("the edge said nothing for {PREFACE_LIMIT:?}"))),
    }
    let flights = Flights::default();
    let (opened, control) = oneshot::channel();
    let driver = drive(driver, Liveness::new(handle), handler, flights.clone(), opened);
    agent_connection::start(driver, control, flights, registration, rpc_timeout).await
}

/// Serves whatever the edge opens until the connection ends; answers why.
async fn drive<IO, H>(
    mut driver: Driver<IO>,
    liveness: Liveness,
    handler: Arc<H>,
    flights: Flights,
    opened: oneshot::Sender<Duplex>,
) -> String
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let mut vanished = pin!(liveness.vanished());
    let mut opened = Some(opened);
    let mut exchanges = Exchanges::default();
    let mut others = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONFIGURATION_SIZE));
    loop {
        tokio::select! {
            biased;
            event = poll_fn(|context| exchanges.poll(&mut driver, context)) => match event {
                Event::Over => {}
                Event::Ended(Ok(())) => return "the edge closed the connection".into(),
                Event::Ended(Err(error)) => return format!("the HTTP/2 connection failed: {error}"),
                Event::Accepted(accepted) => match StreamKind::of(accepted.head.headers()) {
                    StreamKind::Control => open_control(accepted, &mut opened),
                    StreamKind::Configuration => {
                        others.spawn(configure(Arc::clone(&handler), Arc::clone(&room), accepted));
                    }
                    StreamKind::Stream => {
                        let ticket = flights.board();
                        let handler = Arc::clone(&handler);
                        others.spawn(async move {
                            stream::serve(&*handler, accepted).await;
                            drop(ticket);
                        });
                    }
                    StreamKind::Exchange(kind) => {
                        let ticket = flights.board();
                        let handler = Arc::clone(&handler);
                        exchanges.push(async move {
                            exchange(&*handler, kind, accepted).await;
                            drop(ticket);
                        });
                    }
                },
            },
            Some(_) = others.join_next() => {}
            () = &mut vanished => return "the edge vanished".into(),
        }
    }
}

/// Accepts the control stream; there is one on a connection.
fn open_control(Accepted { mut send, recv, .. }: Accepted, opened: &mut Option<oneshot::Sender<Duplex>>) {
    let Some(opened) = opened.take() else {
        tracing::debug!("the edge opened a second control stream");
        send.reset(Reason::REFUSED_STREAM);
        return;
    };
    let mut response = Response::new(());
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, octets);
    if send.answer(&response, false).is_ok() {
        // Nobody listening means that the connection is being given up.
        let _ = opened.send(Duplex::new(send, recv));
    }
}

/// Serves a request until its answer is sent, or the edge cancels it.
async fn exchange<H: Handler>(handler: &H, kind: Kind, accepted: Accepted) {
    let Accepted { head, mut send, recv } = accepted;
    let (head, ()) = head.into_parts();
    let extensions = marked(&head.headers);
    let mut call = Call::new(kind, head, extensions);
    let body = if recv.is_end() { Body::empty() } else { Body::http2(Incoming::request(recv, call.want.take())) };
    // Boxed, so that a body, which may take long, does not hold the room that its head took.
    let answer = match Box::pin(call.answer(handler, body, &mut send)).await {
        None => return,
        Some(Err(error)) => return fail(send, &ResponseMeta::Fault(error), extensions),
        Some(Ok(answer)) => answer,
    };
    let body = {
        let (head, body) = answer_head(kind, extensions, answer);
        // An error means that the edge has cancelled the request.
        if send.answer(&head, body.is_none()).is_err() {
            return;
        }
        body
    };
    if let Some(body) = body
        && let Err(error) = outgoing::send(&mut send, body).await
    {
        outgoing::break_off(&mut send, Broken::of_answer(kind, extensions));
        tracing::debug!(%error, "an origin's answer broke off");
    }
}

/// The head of the stream that carries an answer, and what follows it (section 5.2).
fn answer_head(kind: Kind, extensions: Extensions, answer: Answer) -> (Response<()>, Option<Body>) {
    let Answer { status, headers, body } = answer;
    let mut head = Response::new(());
    *head.status_mut() = match status {
        StatusCode::SWITCHING_PROTOCOLS => StatusCode::OK,
        status => status,
    };
    if kind == Kind::Http && extensions.fields {
        *head.headers_mut() = headers;
        clean_answer(status, head.headers_mut());
        header::strip_reserved(head.headers_mut());
    } else {
        if status != StatusCode::SWITCHING_PROTOCOLS
            && let Some(length) = headers.get(http::header::CONTENT_LENGTH)
        {
            head.headers_mut().insert(http::header::CONTENT_LENGTH, length.clone());
        }
        head.headers_mut().insert(header::RESPONSE_HEADERS, header::serialize(&headers));
    }
    head.headers_mut().insert(header::RESPONSE_META, ResponseMeta::Origin.to_value(extensions));
    (head, body)
}

impl Respond for SendStream {
    fn poll_cancelled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_reset(context).map(|_| ())
    }

    async fn early(&mut self, status: StatusCode, mut headers: HeaderMap) {
        strip_hop_by_hop(&mut headers);
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        // Advice only; an error means that the stream is closed.
        let _ = self.answer(&head, false);
    }
}

/// The extensions that the edge wants used on a request.
pub(super) fn marked(headers: &HeaderMap) -> Extensions {
    headers
        .get(header::EXTENSIONS)
        .and_then(|mark| mark.to_str().ok())
        .map_or_else(Extensions::default, Extensions::from_mark)
}

/// Says that there is no answer of the origin (section 5.6).
pub(super) fn fail(mut send: SendStream, meta: &ResponseMeta, extensions: Extensions) {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::BAD_GATEWAY;
    head.headers_mut().insert(header::RESPONSE_META, meta.to_value(extensions));
    // An error means that the edge has cancelled the request.
    let _ = send.answer(&head, true);
}

/// Applies a configuration that the edge pushes (section 11.2). It takes of the `room` what it is long, until it is
/// answered.
async fn configure<H: Handler>(handler: Arc<H>, room: Arc<Semaphore>, Accepted { mut send, recv, .. }: Accepted) {
    let pushed = timeout(CONFIGURATION_LIMIT, read_configuration(recv, &room)).await;
    let Ok(Ok((version, config, _taken))) = pushed else {
        let fault = OriginError::new(OriginFault::Unsupported, "the pushed configuration cannot be read");
        return fail(send, &ResponseMeta::Fault(fault), Extensions::default());
    };
    let (version, error) = match handler.update_configuration(version, config).await {
        Ok(version) => (version, None),
        Err((version, error)) => (version, Some(error)),
    };
    let answer = serde_json::json!({ "lastAppliedVersion": version, "err": error }).to_string();
    let mut head = Response::new(());
    head.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if send.answer(&head, false).is_ok() {
        let _ = send.send(answer.into(), true);
    }
}

#[derive(Deserialize)]
struct Pushed<'a> {
    version: i32,
    #[serde(borrow)]
    config: &'a RawValue,
}

/// Reads the envelope of a pushed configuration; the document in it is the handler's.
async fn read_configuration(
    mut recv: RecvStream,
    room: &Semaphore,
) -> Result<(i32, Bytes, SemaphorePermit<'_>), String> {
    let mut whole = BytesMut::new();
    let mut taken = room.try_acquire_many(0).expect("nothing can be had at any time, and the semaphore is not closed");
    while let Some(bytes) = poll_fn(|context| recv.poll_data(context)).await {
        let bytes = bytes.map_err(|error| error.to_string())?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let more = room.try_acquire_many(length);
        taken.merge(more.map_err(|_| format!("longer than {CONFIGURATION_SIZE} bytes, with others pushed at once"))?);
        whole.extend_from_slice(&bytes);
    }
    let pushed: Pushed<'_> = serde_json::from_slice(&whole).map_err(|error| error.to_string())?;
    Ok((pushed.version, Bytes::copy_from_slice(pushed.config.get().as_bytes()), taken))
}
