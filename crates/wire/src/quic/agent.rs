//! The agent end of a connection over QUIC.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::{HeaderMap, StatusCode, header};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::duplex::Duplex;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::reader::Reader;
use super::{Cut, closed, settings};
use crate::agent_connection;
use crate::body::{Broken, Promise};
use crate::connect::{self, BodyForm, Head, RPC_SIGNATURE, RequestHead, ResponseHead, StreamType};
use crate::exchange::{length_promise, strip_hop_by_hop, strip_hop_by_hop_of_request};
use crate::flight::Flights;
use crate::registration::{Registered, Registration};
use crate::rpc::{CALL_TIMEOUT, ConfigurationServer};
use crate::service::{self, Call, Respond};
use crate::{
    AgentConnection, Body, ByteStream, ConnectError, Extensions, Handler, Kind, OriginError, OriginFault,
    StreamRefusal, StreamRequest,
};

/// How long the edge may take to send the head of a request on a stream that it has opened.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Requests that the edge may have under way on one connection.
const MAX_STREAMS: u32 = 20_000;

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
    let driver = drive(connection, handler, flights.clone());
    agent_connection::start(driver, control, flights, registration, rpc_timeout).await
}

/// Streams for RPC at once, each of which may hold one message. An edge has use for a few, each for a moment.
const RPC_STREAMS: usize = 16;

/// Serves whatever the edge opens until the connection ends; answers why.
async fn drive<H: Handler>(connection: Cut, handler: Arc<H>, flights: Flights) -> String {
    let mut requests = JoinSet::new();
    let rpc = Arc::new(Semaphore::new(RPC_STREAMS));
    let mut allowed = settings::EDGE_STREAMS;
    loop {
        tokio::select! {
            accepted = connection.0.accept_bi() => match accepted {
                Err(error) => return closed(&error, EDGE),
                Ok((send, recv)) => {
                    requests.spawn(serve(Arc::clone(&handler), flights.clone(), Arc::clone(&rpc), send, recv));
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
async fn serve<H: Handler>(handler: Arc<H>, flights: Flights, rpc: Arc<Semaphore>, send: SendStream, recv: RecvStream) {
    let mut reader = Reader::new(recv);
    match timeout(HEAD_LIMIT, stream_type(&mut reader)).await {
        Ok(Some(StreamType::Data)) => {
            let ticket = flights.board();
            data(&*handler, Outgoing::new(send), reader).await;
            drop(ticket);
        }
        Ok(Some(StreamType::Rpc)) => {
            let Ok(_turn) = rpc.try_acquire() else { return Outgoing::new(send).refuse() };
            // A stream for RPC is closed after this time, whatever happens on it (section 3).
            let _ = timeout(CALL_TIMEOUT, configure(&*handler, send, reader)).await;
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

/// Applies the configurations that the edge pushes (section 11.2).
async fn configure<H: Handler>(handler: &H, send: SendStream, reader: Reader) {
    let (recv, mut unread) = reader.into_parts();
    unread.advance(RPC_SIGNATURE.len());
    let unread = std::io::Cursor::new(unread);
    let mut server = ConfigurationServer::new(tokio::io::join(AsyncReadExt::chain(unread, recv), send));
    while let Ok(Some(update)) = server.next().await {
        let answer = handler.update_configuration(update.version, update.config).await;
        if server.reply(update.question, &answer).await.is_err() {
            return;
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
async fn data<H: Handler>(handler: &H, respond: Outgoing, mut reader: Reader) {
    match timeout(HEAD_LIMIT, request_head(&mut reader)).await {
        Ok(Some(Ok(Head::Exchange(head)))) => exchange(handler, head, respond, reader).await,
        Ok(Some(Ok(Head::Stream(request, extensions)))) => stream(handler, request, extensions, respond, reader).await,
        Ok(Some(Err(error))) => refuse(respond, error.to_string()).await,
        Ok(None) | Err(_) => respond.refuse(),
    }
}

/// Serves a byte stream to its end (section 7).
async fn stream<H: Handler>(
    handler: &H,
    request: StreamRequest,
    extensions: Extensions,
    mut respond: Outgoing,
    reader: Reader,
) {
    let first = match service::connect(handler, request, &mut respond).await {
        None => return,
        Some(Ok(origin)) => {
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
    let answer = match call.answer(handler, body, &mut respond).await {
        None => return,
        Some(Err(error)) => return fail(respond, &error, extensions).await,
        Some(Ok(answer)) => answer,
    };
    // A length is never followed by trailers.
    let framed = extensions.trailers
        && kind == Kind::Http
        && answer.body.is_some()
        && !answer.headers.contains_key(header::CONTENT_LENGTH);
    let first = ResponseHead::encode_answer(answer.status, &answer.headers, framed);
    // An error means that the edge has cancelled the request.
    if respond.write(first).await.is_err() {
        return;
    }
    match answer.body {
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
