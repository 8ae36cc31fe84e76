//! What the edge sends on a connection over QUIC.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use quinn::{ReadError, RecvStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::duplex::Duplex;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::reader::Reader;
use super::sessions::{self, Sessions, Stock};
use super::settings::KEEP_ALIVE;
use super::{AGENT, REFUSED, closed};
use crate::connect::{self, BodyForm, RPC_SIGNATURE, RequestHead, ResponseHead};
use crate::datagram::{STOCK_PAYLOAD, Version};
use crate::exchange::{answer_promise, clean_answer, clean_request, expects_continue};
use crate::flight::Ticket;
use crate::flow::name;
use crate::held::Holders;
use crate::phase::{Phase, unavailable};
use crate::rpc::{CALL_TIMEOUT, ConfigurationClient};
use crate::upload::Upload;
use crate::{
    Body, ByteStream, Destination, ExchangeError, Extensions, Flow, FlowRequest, Interim, Kind, OriginError,
    OriginFault, StreamRequest,
};

/// The edge's side of a connection over QUIC, as far as requests are concerned.
pub(crate) struct Link {
    connection: quinn::Connection,
    sessions: Arc<Sessions>,
    holders: Arc<Holders<RecvStream>>,
}

impl Link {
    pub(super) fn new(
        connection: quinn::Connection,
        sessions: Arc<Sessions>,
        holders: Arc<Holders<RecvStream>>,
    ) -> Self {
        Self { connection, sessions, holders }
    }

    /// Packets that have come from the agent.
    pub(crate) fn signs(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// How long a sign of life may take. Agents give one unasked when they have heard nothing for a while, and over a long way what
    /// they have heard is old.
    pub(crate) fn ask(&self) -> Duration {
        const SPARE: Duration = Duration::from_millis(250);
        KEEP_ALIVE + SPARE + 2 * self.connection.rtt()
    }

    /// From now on datagrams are of this version.
    pub(crate) fn speak(&self, version: Version) {
        self.sessions.speak(version);
    }

    pub(crate) async fn exchange(
        &self,
        extensions: Extensions,
        ticket: Ticket,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<Response<Body>, ExchangeError> {
        let (mut head, body) = request.into_parts();
        let method = head.method.clone();
        // Stock agents cannot say that they want the body.
        let waits = extensions.interim && expects_continue(&head.headers);
        clean_request(kind, &mut head, &body);
        let end = kind == Kind::Http && body.is_end_stream();
        let form = match kind {
            Kind::Http if end => BodyForm::None,
            Kind::Http => body_form(&head.headers, extensions),
            Kind::WebSocket => BodyForm::Bare,
        };
        let framed = form == BodyForm::Framed;
        let first = RequestHead::encode(kind, &head, form, extensions);

        let (mut send, mut reader) = self.open(first, phase).await?;
        let (go, mut upload) = if end {
            send.finish();
            (None, Upload::sent(kind, ticket))
        } else {
            let (go, wanted) = waits.then(oneshot::channel).unzip();
            (go, upload(kind, ticket, send, body, framed, wanted))
        };
        let answer = upload.answer(answer_head(Some(kind), &mut reader, go, &interim)).await?;
        read_answer(&method, answer, reader, upload, &self.holders)
    }

    pub(crate) async fn connect_stream(
        &self,
        extensions: Extensions,
        ticket: Ticket,
        request: &StreamRequest,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<ByteStream, ExchangeError> {
        let (send, mut reader) = self.open(connect::encode_stream(request, extensions), phase).await?;
        answer_head(None, &mut reader, None, &Interim::unwanted()).await?;
        Ok(ByteStream::quic(Duplex::new(send, reader), Some(ticket)))
    }

    pub(crate) async fn open_flow(
        &self,
        extensions: Extensions,
        ticket: Ticket,
        request: &FlowRequest,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<Flow, ExchangeError> {
        let id = Uuid::new_v4();
        let gone = || ExchangeError::NotSent("the connection is gone".into());
        match &request.destination {
            Destination::Service(service) => {
                let datagrams = self.sessions.open(id, None).ok_or_else(gone)?;
                let destination = Destination::Service(name::write(id, service));
                let asked = StreamRequest { destination, flow: request.flow.clone() };
                let stream = self.connect_stream(extensions, ticket, &asked, phase).await?;
                Ok(Flow::new(Some(datagrams), Some(stream), None))
            }
            Destination::Address(destination) => {
                // Answers may be quicker than the session's.
                let stock = Stock { largest: STOCK_PAYLOAD, farewell: true };
                let datagrams = self.sessions.open(id, Some(stock)).ok_or_else(gone)?;
                let session = sessions::session(id, *destination, request.idle);
                match self.sessions.register(&session).await {
                    Ok(Ok(())) => Ok(Flow::new(Some(datagrams), None, Some(ticket))),
                    Ok(Err(text)) => Err(ExchangeError::Origin(OriginError::new(OriginFault::Unknown, text))),
                    Err(reason) => Err(ExchangeError::Lost(reason)),
                }
            }
        }
    }

    /// Opens a stream with this head.
    async fn open(&self, head: Bytes, phase: &mut watch::Receiver<Phase>) -> Result<(Outgoing, Reader), ExchangeError> {
        let (send, recv) = tokio::select! {
            biased;
            reason = unavailable(phase) => return Err(ExchangeError::NotSent(reason)),
            stream = self.connection.open_bi() => {
                stream.map_err(|error| ExchangeError::NotSent(closed(&error, AGENT)))?
            }
        };
        let mut send = Outgoing::new(send);
        // A part of a head is no request yet. An agent that stops the stream has an answer to it, or resets it.
        if let Err(quinn::WriteError::ConnectionLost(error)) = send.write(head).await {
            return Err(ExchangeError::NotSent(closed(&error, AGENT)));
        }
        Ok((send, Reader::new(recv)))
    }

    pub(crate) async fn update_configuration(&self, version: i32, config: &[u8]) -> Result<i32, String> {
        match timeout(CALL_TIMEOUT, self.push(version, config)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the agent did not answer the configuration within {CALL_TIMEOUT:?}")),
        }
    }

    async fn push(&self, version: i32, config: &[u8]) -> Result<i32, String> {
        let failed = |error: String| format!("the configuration push failed: {error}");
        let (mut send, recv) = self.connection.open_bi().await.map_err(|error| failed(closed(&error, AGENT)))?;
        send.write_all(&RPC_SIGNATURE).await.map_err(|error| failed(error.to_string()))?;
        let mut client = ConfigurationClient::new(tokio::io::join(recv, send));
        let answer = client.update(version, config).await.map_err(|error| failed(error.to_string()))?;
        client.shutdown().await;
        answer.map_err(|(version, text)| {
            format!("the agent refused the configuration and keeps version {version}: {text}")
        })
    }
}

/// How a body travels. One whose length is known never has trailers.
fn body_form(headers: &HeaderMap, extensions: Extensions) -> BodyForm {
    match extensions.trailers && !headers.contains_key(header::CONTENT_LENGTH) {
        true => BodyForm::Framed,
        false => BodyForm::Bare,
    }
}

/// Starts sending a request's body.
fn upload(
    kind: Kind,
    ticket: Ticket,
    mut send: Outgoing,
    body: Body,
    framed: bool,
    wanted: Option<oneshot::Receiver<()>>,
) -> Upload {
    Upload::spawn(kind, ticket, wanted, |failed| async move {
        if let Err(error) = send.send(body, framed).await {
            // Nobody listening means that the answer has begun: it ends with the stream, whose drop resets it.
            let _ = failed.send(error);
        }
    })
}

/// Units that a head costs of the 128 that the runtime gives a task for a turn: an agent may say any number of interim ones, of up to
/// 100 µs each.
const HEAD_COST: usize = 16;

/// What the agent answered.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    framed: bool,
}

/// Waits for the head of an answer. `go` is told when the agent wants the request's body.
async fn answer_head(
    kind: Option<Kind>,
    reader: &mut Reader,
    mut go: Option<oneshot::Sender<()>>,
    interim: &Interim,
) -> Result<Head, ExchangeError> {
    loop {
        for _ in 0..HEAD_COST {
            tokio::task::consume_budget().await;
        }
        let head = ResponseHead::decode(kind, &mut reader.buffer);
        match head.map_err(|error| ExchangeError::Protocol(error.to_string()))? {
            Some(ResponseHead::Interim { status: StatusCode::CONTINUE, .. }) => {
                if let Some(go) = go.take() {
                    let _ = go.send(());
                }
            }
            Some(ResponseHead::Interim { status, mut headers }) => {
                clean_answer(status, &mut headers);
                interim.send(status, headers);
            }
            Some(ResponseHead::Answer { status, headers, framed }) => return Ok(Head { status, headers, framed }),
            Some(ResponseHead::Failed(fault)) => return Err(ExchangeError::Origin(fault)),
            Some(ResponseHead::FlowLimited(text)) => {
                return Err(ExchangeError::Origin(OriginError::new(OriginFault::Unsupported, text)));
            }
            None => match reader.fill().await {
                Ok(true) => {}
                Ok(false) => return Err(ExchangeError::Protocol("the stream ended before an answer".into())),
                Err(ReadError::ConnectionLost(error)) => return Err(ExchangeError::Lost(closed(&error, AGENT))),
                Err(ReadError::Reset(REFUSED)) => {
                    return Err(ExchangeError::NotSent("the agent could not take the request in".into()));
                }
                Err(error) => return Err(ExchangeError::Lost(format!("the agent gave the request up: {error}"))),
            },
        }
    }
}

fn read_answer(
    method: &Method,
    head: Head,
    reader: Reader,
    upload: Upload,
    holders: &Holders<RecvStream>,
) -> Result<Response<Body>, ExchangeError> {
    let Head { status, mut headers, framed } = head;
    clean_answer(status, &mut headers);
    let promise =
        answer_promise(method, status, &headers).map_err(|error| ExchangeError::Protocol(error.to_string()))?;
    let mut response = Response::new(Body::quic(Incoming::answer(reader, framed, promise, upload, holders)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
