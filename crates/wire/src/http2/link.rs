//! What the edge sends on a connection over HTTP/2.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use ::http2::{Error, Handle, Reason, RecvStream, SendStream};
use bytes::BytesMut;
use http::uri::{self, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::duplex::Duplex;
use super::incoming::Incoming;
use super::liveness::Liveness;
use super::outgoing;
use crate::body::Broken;
use crate::byte_stream::stream_mark;
use crate::exchange::{answer_promise, clean_answer, clean_request, expects_continue, length_promise};
use crate::flight::Ticket;
use crate::header::{self, ResponseMeta};
use crate::held::Holders;
use crate::phase::{Phase, unavailable};
use crate::upload::Upload;
use crate::{Body, ByteStream, ExchangeError, Extensions, Interim, Kind, OriginError, OriginFault, StreamRequest};

/// How long an agent may take to apply a configuration.
const CONFIGURATION_LIMIT: Duration = Duration::from_secs(10);

/// An agent's answer to a configuration push is a version and perhaps one error.
const CONFIGURATION_ANSWER_SIZE: usize = 64 << 10;

/// The edge's sending side of a connection over HTTP/2; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    handle: Handle,
    /// Streams that the agent still allows. Whoever waits here has certainly not been sent.
    slots: Arc<Semaphore>,
    liveness: Liveness,
    holders: Arc<Holders<RecvStream>>,
}

impl Link {
    pub(super) fn new(handle: Handle, liveness: Liveness, holders: Arc<Holders<RecvStream>>) -> Self {
        Self { handle, slots: Arc::new(Semaphore::new(0)), liveness, holders }
    }

    pub(crate) fn signs(&self) -> u64 {
        self.liveness.signs()
    }

    pub(crate) fn ask(&self) -> Duration {
        self.liveness.ask()
    }

    pub(super) fn close(&self) {
        self.slots.close();
        self.handle.close();
    }

    /// Obeys MAX_CONCURRENT_STREAMS, which has come in with the agent's first frame; the control stream counts.
    pub(super) fn limit_streams(&self) {
        let limit = self.handle.allowed_streams().map_or(Semaphore::MAX_PERMITS, |limit| limit as usize);
        self.slots.add_permits(limit.saturating_sub(1).min(Semaphore::MAX_PERMITS));
    }

    pub(super) async fn open_control(&self) -> Result<Duplex, String> {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_static("https://edge.invalid/");
        request.headers_mut().insert(header::UPGRADE, header::UPGRADE_CONTROL);
        let failed = |error: Error| format!("the control stream failed: {error}");
        let (send, mut recv) = self.handle.request(&request, false).map_err(failed)?;
        let response = poll_fn(|context| recv.poll_head(context)).await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the agent answered the control stream with status {}", response.status()));
        }
        Ok(Duplex::new(send, recv))
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
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let waits = expects_continue(&head.headers);
        let head = request_head(kind, head, &body, extensions);
        let slot = self.place(phase).await?;
        let end = kind == Kind::Http && body.is_end_stream();
        let (send, mut recv) = self.open(&head, end)?;

        let ticket = ticket.with(slot);
        let (go, mut upload) = if end {
            (None, Upload::sent(kind, ticket))
        } else {
            let (go, wanted) = waits.then(oneshot::channel).unzip();
            (go, upload(kind, ticket, send, body, wanted))
        };
        let answer = upload.answer(answer_head(&mut recv, go, &interim)).await?;
        read_answer(kind, extensions, &method, answer, recv, upload, &self.holders)
    }

    pub(crate) async fn connect_stream(
        &self,
        extensions: Extensions,
        ticket: Ticket,
        request: &StreamRequest,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<ByteStream, ExchangeError> {
        let head = stream_head(request, extensions)?;
        let slot = self.place(phase).await?;
        let (send, mut recv) = self.open(&head, false)?;
        let answer = poll_fn(|context| recv.poll_head(context)).await.map_err(exchange_error)?;
        check_meta(answer.headers())?;
        if answer.status() != StatusCode::OK {
            return Err(ExchangeError::Protocol(format!("status {} to a byte stream", answer.status())));
        }
        Ok(ByteStream::http2(Duplex::new(send, recv), Some(ticket.with(slot))))
    }

    /// Waits for one of the streams that the agent allows.
    async fn place(&self, phase: &mut watch::Receiver<Phase>) -> Result<OwnedSemaphorePermit, ExchangeError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        tokio::select! {
            biased;
            reason = unavailable(phase) => Err(ExchangeError::NotSent(reason)),
            slot = Arc::clone(&self.slots).acquire_owned() => {
                slot.map_err(|_| ExchangeError::NotSent("the connection is closed".into()))
            }
        }
    }

    fn open(&self, head: &Request<()>, end: bool) -> Result<(SendStream, RecvStream), ExchangeError> {
        self.handle.request(head, end).map_err(|error| ExchangeError::NotSent(error.to_string()))
    }

    pub(crate) async fn update_configuration(&self, version: i32, config: &[u8]) -> Result<i32, String> {
        match timeout(CONFIGURATION_LIMIT, self.push(version, config)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the agent did not answer the configuration within {CONFIGURATION_LIMIT:?}")),
        }
    }

    async fn push(&self, version: i32, config: &[u8]) -> Result<i32, String> {
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(config) {
            return Err(format!("the configuration is not JSON: {error}"));
        }
        let mut body = BytesMut::with_capacity(config.len() + 64);
        body.extend_from_slice(format!(r#"{{"version":{version},"config":"#).as_bytes());
        body.extend_from_slice(config);
        body.extend_from_slice(b"}");

        let _slot = self.slots.acquire().await.map_err(|_| "the connection is closed")?;
        let mut request = Request::new(());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("https://edge.invalid/");
        request.headers_mut().insert(header::UPGRADE, header::UPGRADE_CONFIGURATION);
        request.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let failed = |error: Error| format!("the configuration push failed: {error}");
        let (mut send, mut recv) = self.handle.request(&request, false).map_err(failed)?;
        send.send(body.freeze(), true).map_err(failed)?;
        let response = poll_fn(|context| recv.poll_head(context)).await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the agent answered the configuration with status {}", response.status()));
        }
        let answer = collect(recv).await?;
        let answer: ConfigurationAnswer = serde_json::from_slice(&answer)
            .map_err(|error| format!("the agent's answer to the configuration cannot be read: {error}"))?;
        match answer.err {
            serde_json::Value::Null => Ok(answer.last_applied_version),
            // Stock agents lose the text and send an empty object.
            serde_json::Value::String(text) => Err(format!("the agent refused the configuration: {text}")),
            other => Err(format!("the agent refused the configuration: {other}")),
        }
    }
}

#[derive(Deserialize)]
struct ConfigurationAnswer {
    #[serde(rename = "lastAppliedVersion")]
    last_applied_version: i32,
    #[serde(default)]
    err: serde_json::Value,
}

async fn collect(mut recv: RecvStream) -> Result<BytesMut, String> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = poll_fn(|context| recv.poll_data(context)).await {
        let bytes = bytes.map_err(|error| format!("the agent's answer to the configuration broke off: {error}"))?;
        if whole.len() + bytes.len() > CONFIGURATION_ANSWER_SIZE {
            return Err("the agent's answer to the configuration is too long".into());
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// The head of the stream that carries a request (sections 5.1 and 5.4).
fn request_head(kind: Kind, mut head: http::request::Parts, body: &Body, extensions: Extensions) -> Request<()> {
    clean_request(kind, &mut head, body);
    let mut request = Request::from_parts(head, ());
    request.headers_mut().remove(http::header::HOST);
    match kind {
        Kind::Http => {}
        Kind::WebSocket => {
            request.headers_mut().insert(header::UPGRADE, header::UPGRADE_WEBSOCKET);
        }
    }
    if !extensions.mark().is_empty() {
        request.headers_mut().insert(header::EXTENSIONS, HeaderValue::from_static(extensions.mark()));
    }
    request
}

/// The head of a byte stream (section 5.5).
fn stream_head(request: &StreamRequest, extensions: Extensions) -> Result<Request<()>, ExchangeError> {
    let invalid = |error: http::Error| ExchangeError::NotSent(format!("the byte stream cannot be asked for: {error}"));
    let authority = request.destination.to_string();
    let uri = Uri::builder().scheme(uri::Scheme::HTTPS).authority(authority).path_and_query("/").build();
    let mut head = Request::builder().uri(uri.map_err(invalid)?).header(header::PROXY_SRC, "tcp");
    if !request.flow.is_empty() {
        head = head.header(header::RAY, request.flow.as_str());
    }
    let mark = stream_mark(&request.destination, extensions);
    if !mark.is_empty() {
        head = head.header(header::EXTENSIONS, &*mark);
    }
    head.body(()).map_err(invalid)
}

/// Starts sending a request's body. What is whole in memory goes at once, with no more memory than it has already.
fn upload(
    kind: Kind,
    ticket: Ticket,
    mut send: SendStream,
    mut body: Body,
    wanted: Option<oneshot::Receiver<()>>,
) -> Upload {
    if wanted.is_none()
        && kind == Kind::Http
        && let Some(bytes) = body.take_full()
    {
        // Fails only on a stream that is closed, which its answer tells as well.
        let _ = send.send(bytes, true);
        return Upload::sent(kind, ticket);
    }
    Upload::spawn(kind, ticket, wanted, |failed| async move {
        if let Err(error) = outgoing::send(&mut send, body).await {
            // Nobody listening means that the answer has begun: it ends with the stream.
            let _ = failed.send(error);
            outgoing::break_off(&mut send, Broken::Reset);
        }
    })
}

/// Waits for the head of an answer. `go` is told when the agent wants the request's body.
async fn answer_head(
    recv: &mut RecvStream,
    mut go: Option<oneshot::Sender<()>>,
    interim: &Interim,
) -> Result<Response<()>, ExchangeError> {
    while let Some(early) = poll_fn(|context| recv.poll_early(context)).await {
        let (head, ()) = early.into_parts();
        if head.status == StatusCode::CONTINUE {
            if let Some(go) = go.take() {
                let _ = go.send(());
            }
        } else {
            let mut headers = head.headers;
            clean_answer(head.status, &mut headers);
            header::strip_reserved(&mut headers);
            interim.send(head.status, headers);
        }
    }
    poll_fn(|context| recv.poll_head(context)).await.map_err(exchange_error)
}

fn read_answer(
    kind: Kind,
    extensions: Extensions,
    method: &Method,
    answer: Response<()>,
    recv: RecvStream,
    upload: Upload,
    holders: &Holders<RecvStream>,
) -> Result<Response<Body>, ExchangeError> {
    let (head, ()) = answer.into_parts();
    check_meta(&head.headers)?;
    // Of the head that travels; what the origin said is looked at below.
    length_promise(&head.headers).map_err(|error| ExchangeError::Protocol(error.to_string()))?;
    let mut headers = match head.headers.get(header::RESPONSE_HEADERS) {
        Some(packed) => header::deserialize(packed.as_bytes(), header::Limits::HEADERS)
            .map_err(|error| ExchangeError::Protocol(error.to_string()))?,
        None if extensions.fields && kind == Kind::Http => {
            let mut headers = head.headers;
            header::strip_reserved(&mut headers);
            headers
        }
        None => HeaderMap::new(),
    };
    let accepted = head.status == StatusCode::OK && headers.contains_key(http::header::SEC_WEBSOCKET_ACCEPT);
    let status = match kind {
        Kind::WebSocket if accepted => StatusCode::SWITCHING_PROTOCOLS,
        Kind::Http | Kind::WebSocket => head.status,
    };
    clean_answer(status, &mut headers);
    let promise =
        answer_promise(method, status, &headers).map_err(|error| ExchangeError::Protocol(error.to_string()))?;
    let mut response = Response::new(Body::http2(Incoming::answer(recv, promise, upload, holders)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Whether the origin made an answer, and if it did not, why.
fn check_meta(headers: &HeaderMap) -> Result<(), ExchangeError> {
    let meta = headers
        .get(header::RESPONSE_META)
        .ok_or_else(|| ExchangeError::Protocol("no word on who made the answer".into()))?;
    match ResponseMeta::parse(meta.as_bytes()).map_err(|error| ExchangeError::Protocol(error.to_string()))? {
        ResponseMeta::Origin => Ok(()),
        ResponseMeta::Fault(fault) => Err(ExchangeError::Origin(fault)),
        ResponseMeta::FlowLimited => Err(ExchangeError::Origin(flow_limited())),
    }
}

fn flow_limited() -> OriginError {
    OriginError::new(OriginFault::Unsupported, "the agent has as many flows as it may have")
}

/// Whether the agent can have seen a request whose stream failed.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn exchange_error(error: Error) -> ExchangeError {
    match error {
        // Streams fail with the agent's leave only beyond the last one that the agent processed.
        Error::Reset(Reason::REFUSED_STREAM) | Error::GoneAway(_) => ExchangeError::NotSent(error.to_string()),
        Error::Broken(_) => ExchangeError::Protocol(error.to_string()),
        Error::Reset(_) | Error::Breach(_) | Error::Lost(_) => ExchangeError::Lost(error.to_string()),
    }
}
