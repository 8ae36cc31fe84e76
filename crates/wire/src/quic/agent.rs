//! The agent end of a connection over QUIC.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::{HeaderMap, StatusCode, header};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::duplex::Duplex;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::reader::Reader;
use super::sessions::{Closing, Datagrams, Request, Sessions, Stock};
use super::{Cut, closed, settings};
use crate::agent_connection;
use crate::body::{Broken, Promise};
use crate::connect::{self, BodyForm, Head, RPC_SIGNATURE, RequestHead, ResponseHead, StreamType};
use crate::datagram::v3::{self, Code};
use crate::datagram::{STOCK_PAYLOAD, Version};
use crate::exchange::{length_promise, strip_hop_by_hop, strip_hop_by_hop_of_request};
use crate::flight::Flights;
use crate::registration::{Registered, Registration};
use crate::rpc::{AgentCall, AgentServer, CALL_TIMEOUT, UdpSession};
use crate::service::{self, Answer, Call, Respond};
use crate::{
    AgentConnection, Body, ByteStream, ConnectError, Destination, Extensions, Flow, FlowRequest, FlowService, Handler,
    Kind, OriginError, OriginFault, StreamRefusal, StreamRequest,
};

/// How long the edge may take to send the head of a request on a stream that it has opened.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Requests that the edge may have under way on one connection.
const MAX_STREAMS: u32 = 20_000;

/// Time without a datagram after which a session ends for which the edge names none (section 8.1).
const USUAL_IDLE: Duration = Duration::from_secs(210);

/// The other end, in reasons.
const EDGE: &str = "the edge";

/// Registers on an established QUIC connection, and serves what the edge sends from then on.
///
/// `rpc_timeout` limits the registration.
pub async fn connect<H: Handler>(
    connection: quinn::Connection,
    registration: &Registration,
    handler: Arc<H>,
    rpc_timeout: Duration,
) -> Result<(Registered, AgentConnection), ConnectError> {
    let connection = Cut(connection);
    let (send, recv) = connection.0.open_bi().await.map_err(|error| ConnectError::Lost(closed(&error, EDGE)))?;
    let (opened, control) = oneshot::channel();
    let _ = opened.send(tokio::io::join(recv, send));
    let flights = Flights::default();
    let version = Version::from_features(registration.features.iter().map(String::as_str));
    let driver = drive(connection, handler, flights.clone(), version);
    agent_connection::start(driver, control, flights, registration, rpc_timeout).await
}

/// Streams for RPC at once, each of which may hold one message. An edge has use for a few, each for a moment.
const RPC_STREAMS: usize = 16;

/// Flows that were accepted and have not begun yet; each does so in a moment.
const BEGINNING: usize = 64;

/// Flows of addresses on one connection; the handler may want fewer. Each holds a socket.
const MAX_FLOWS: usize = 10_000;

/// What all streams of a connection are served with.
struct Service<H> {
    handler: Arc<H>,
    flights: Flights,
    rpc: Semaphore,
    sessions: Arc<Sessions>,
    /// Flows to begin.
    begin: mpsc::Sender<Beginning>,
}

/// A flow that was accepted.
struct Beginning {
    id: Uuid,
    service: FlowService,
    datagrams: Datagrams,
}

/// Serves whatever the edge opens until the connection ends; answers why.
async fn drive<H: Handler>(connection: Cut, handler: Arc<H>, flights: Flights, version: Version) -> String {
    // Ends in this order: no flow outlives its datagrams.
    let (sessions, mut farewells) = Sessions::new(connection.0.clone());
    sessions.speak(version);
    let _closing = Closing(Arc::clone(&sessions));
    let (mut requests, mut flows) = (JoinSet::new(), JoinSet::new());
    let (begin, mut beginnings) = mpsc::channel(BEGINNING);
    let service = Arc::new(Service { handler, flights, rpc: Semaphore::new(RPC_STREAMS), sessions, begin });
    let mut allowed = settings::EDGE_STREAMS;
    loop {
        tokio::select! {
            request = service.sessions.next() => match request {
                Err(error) => return closed(&error, EDGE),
                Ok(Request::Registration(asked)) if flows.len() < MAX_FLOWS => {
                    flows.spawn(register(Arc::clone(&service), asked));
                }
                Ok(Request::Registration(asked)) => {
                    service.sessions.respond(asked.session, Code::TooMany, "");
                }
            },
            Some(beginning) = beginnings.recv() => drop(flows.spawn(begun(Arc::clone(&service), beginning))),
            // Agents say goodbye with their reason, when the flow's own task ends.
            _ = farewells.next() => {}
            Some(_) = flows.join_next() => {}
            accepted = connection.0.accept_bi() => match accepted {
                Err(error) => return closed(&error, EDGE),
                Ok((send, recv)) => {
                    requests.spawn(serve(Arc::clone(&service), send, recv));
                    // The library keeps an entry for every stream that it allows, used or not.
                    if requests.len() * 2 > allowed as usize && allowed < MAX_STREAMS {
                        allowed = (allowed * 2).min(MAX_STREAMS);
                        connection.0.set_max_concurrent_bi_streams(VarInt::from_u32(allowed));
                    }
                }
            },
            Some(_) = requests.join_next() => {}
        }
    }
}

/// Serves one stream that the edge has opened. Whatever is wrong with it ends with it.
async fn serve<H: Handler>(service: Arc<Service<H>>, send: SendStream, recv: RecvStream) {
    let mut reader = Reader::new(recv);
    match timeout(HEAD_LIMIT, stream_type(&mut reader)).await {
        Ok(Some(StreamType::Data)) => {
            let ticket = service.flights.board();
            data(&*service, Outgoing::new(send), reader).await;
            drop(ticket);
        }
        Ok(Some(StreamType::Rpc)) => {
            let Ok(_turn) = service.rpc.try_acquire() else { return Outgoing::new(send).refuse() };
            // A stream for RPC is closed after this time, whatever happens on it (section 3).
            let _ = timeout(CALL_TIMEOUT, converse(&*service, send, reader)).await;
        }
        Ok(None) | Err(_) => Outgoing::new(send).refuse(),
    }
}

/// What a stream carries; `None`: nothing that is known.
async fn stream_type(reader: &mut Reader) -> Option<StreamType> {
    loop {
        match StreamType::peek(&reader.buffer) {
            Ok(Some(kind)) => return Some(kind),
            Ok(None) if reader.fill().await.unwrap_or(false) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Applies the configurations that the edge pushes (section 11.2), and makes and ends sessions (section 8.1).
async fn converse<H: Handler>(service: &Service<H>, send: SendStream, reader: Reader) {
    let (recv, mut unread) = reader.into_parts();
    unread.advance(RPC_SIGNATURE.len());
    let unread = std::io::Cursor::new(unread);
    let mut server = AgentServer::new(tokio::io::join(AsyncReadExt::chain(unread, recv), send));
    while let Ok(Some(call)) = server.next().await {
        let replied = match call {
            AgentCall::Update(question, version, config) => {
                let answer = service.handler.update_configuration(version, config).await;
                server.reply_configuration(question, &answer).await
            }
            AgentCall::RegisterSession(question, session) => {
                let answer = match service.sessions.version() {
                    Version::V2 => accept(service, session).await,
                    Version::V3 => Err("this connection makes sessions by datagrams (version 3)".to_owned()),
                };
                let begun = match answer {
                    Ok(beginning) => service.begin.send(beginning).await.map_err(|_| "the agent is leaving".to_owned()),
                    Err(reason) => Err(reason),
                };
                server.reply_session(question, begun.as_ref().copied().map_err(String::as_str)).await
            }
            AgentCall::UnregisterSession(question, session, message) => {
                tracing::debug!(%session, message, "the edge ended a flow");
                service.sessions.end(session);
                server.reply_done(question).await
            }
        };
        if replied.is_err() {
            return;
        }
    }
}

/// Has the handler accept a session.
async fn accept<H: Handler>(service: &Service<H>, session: UdpSession) -> Result<Beginning, String> {
    let UdpSession { id, destination, idle } = session;
    let idle = Some(if idle.is_zero() { USUAL_IDLE } else { idle });
    let request = FlowRequest { destination: Destination::Address(destination), flow: id.to_string(), idle };
    let accepted = service.handler.flow(request).await.map_err(|refusal| refusal.to_string())?;
    let stock = Stock { largest: STOCK_PAYLOAD, farewell: false };
    let datagrams = service.sessions.open(id, Some(stock)).ok_or("there is such a session already")?;
    Ok(Beginning { id, service: accepted, datagrams })
}

/// Carries a session to its end. If that comes from here, the edge is told.
async fn begun<H: Handler>(service: Arc<Service<H>>, beginning: Beginning) {
    let Beginning { id, service: flow, datagrams } = beginning;
    let ticket = service.flights.board();
    if let Some(reason) = flow(Flow::new(Some(datagrams), None, Some(ticket))).await {
        service.sessions.unregister(id, &reason).await;
    }
}

/// Makes a session of version 3, and carries it.
async fn register<H: Handler>(service: Arc<Service<H>>, asked: v3::Registration) {
    let v3::Registration { session, destination, idle, .. } = asked;
    // The edge asks until it has heard the answer.
    if service.sessions.is_open(session) {
        return service.sessions.respond(session, Code::Ready, "");
    }
    match accept(&*service, UdpSession { id: session, destination, idle }).await {
        Err(reason) => service.sessions.respond(session, Code::NoSocket, &reason),
        Ok(beginning) => {
            service.sessions.respond(session, Code::Ready, "");
            begun(service, beginning).await;
        }
    }
}

/// Reads the head of a data stream.
async fn request_head(reader: &mut Reader) -> Option<Result<Head, connect::HeadError>> {
    loop {
        match Head::decode(&mut reader.buffer).transpose() {
            Some(head) => return Some(head),
            None if reader.fill().await.unwrap_or(false) => {}
            None => return None,
        }
    }
}

/// Serves what the head of a data stream asks for.
async fn data<H: Handler>(service: &Service<H>, respond: Outgoing, mut reader: Reader) {
    let handler = &*service.handler;
    match timeout(HEAD_LIMIT, request_head(&mut reader)).await {
        Ok(Some(Ok(Head::Exchange(head)))) => exchange(handler, head, respond, reader).await,
        Ok(Some(Ok(Head::Stream(request, extensions)))) => stream(service, request, extensions, respond, reader).await,
        Ok(Some(Err(error))) => refuse(respond, error.to_string()).await,
        Ok(None) | Err(_) => respond.refuse(),
    }
}

/// Serves a byte stream to its end (section 7).
async fn stream<H: Handler>(
    service: &Service<H>,
    request: StreamRequest,
    extensions: Extensions,
    mut respond: Outgoing,
    reader: Reader,
) {
    let first = match service::connect(&*service.handler, request, &mut respond).await {
        None => return,
        Some(Ok(origin)) => {
            // Datagrams may be quicker than the answer.
            let origin = origin.with(&service.sessions);
            // An error means that the edge has cancelled the stream.
            if respond.write(ResponseHead::encode_connected()).await.is_ok() {
                service::relay(ByteStream::quic(Duplex::new(respond, reader), None), origin).await;
            }
            return;
        }
        Some(Err(StreamRefusal::Origin(error))) => return fail(respond, &error, extensions).await,
        Some(Err(StreamRefusal::TooMany(text))) => ResponseHead::encode_flow_limited(&text),
    };
    if respond.write(first).await.is_ok() {
        respond.finish();
    }
}

/// Serves a request until its answer is sent, or the edge cancels it.
async fn exchange<H: Handler>(handler: &H, head: RequestHead, mut respond: Outgoing, reader: Reader) {
    let RequestHead { kind, request, extensions, body: form } = head;
    let (mut head, ()) = request.into_parts();
    let promise = match kind {
        Kind::Http => length_promise(&head.headers).unwrap_or(Promise::Open),
        Kind::WebSocket => Promise::Open,
    };
    strip_hop_by_hop_of_request(&mut head.headers);
    let mut call = Call::new(kind, head, extensions);
    let body = match form {
        BodyForm::None => Body::empty(),
        BodyForm::Framed => Body::quic(Incoming::request(reader, true, promise, call.want.take())),
        BodyForm::Bare => Body::quic(Incoming::request(reader, false, promise, call.want.take())),
    };
    // Boxed, so that a body, which may take long, does not hold the room that its head took.
    let Answer { status, headers, body } = match Box::pin(call.answer(handler, body, &mut respond)).await {
        None => return,
        Some(Err(error)) => return fail(respond, &error, extensions).await,
        Some(Ok(answer)) => answer,
    };
    // A length is never followed by trailers.
    let framed =
        extensions.trailers && kind == Kind::Http && body.is_some() && !headers.contains_key(header::CONTENT_LENGTH);
    let first = ResponseHead::encode_answer(status, &headers, framed);
    drop(headers);
    // An error means that the edge has cancelled the request.
    if respond.write(first).await.is_err() {
        return;
    }
    match body {
        None => respond.finish(),
        Some(body) => {
            if let Err(error) = respond.send(body, framed).await {
                match Broken::of_answer(kind, extensions) {
                    // Its drop does that.
                    Broken::Reset => {}
                    // The last frame is missing, or the length is not kept.
                    Broken::Visible => respond.finish(),
                }
                tracing::debug!(%error, "an origin's answer broke off");
            }
        }
    }
}

impl Respond for Outgoing {
    fn poll_cancelled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_stopped(context)
    }

    async fn early(&mut self, status: StatusCode, mut headers: HeaderMap) {
        strip_hop_by_hop(&mut headers);
        // Advice only; an error means that the stream is closed.
        let _ = self.write(ResponseHead::encode_answer(status, &headers, false)).await;
    }
}

/// Says that the request cannot be served.
async fn refuse(respond: Outgoing, reason: String) {
    fail(respond, &OriginError::new(OriginFault::Unsupported, reason), Extensions::default()).await;
}

/// Says that there is no answer of the origin (section 7.2).
async fn fail(mut respond: Outgoing, error: &OriginError, extensions: Extensions) {
    if respond.write(ResponseHead::encode_failure(error, extensions)).await.is_ok() {
        respond.finish();
    }
}
