//! What the edge sends on a connection over HTTP/2.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::uri::{self, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::duplex::Duplex;
use super::incoming::Incoming;
use super::outgoing;
use crate::body::{Broken, Promise};
use crate::exchange::{answer_promise, clean_answer, clean_request, expects_continue};
use crate::flight::Ticket;
use crate::header::{self, ResponseMeta};
use crate::phase::{Phase, unavailable};
use crate::upload::Upload;
use crate::{Body, ExchangeError, Extensions, Interim, Kind, OriginError, OriginFault};

/// How long an agent may take to apply a configuration.
const CONFIGURATION_LIMIT: Duration = Duration::from_secs(10);

/// An agent's answer to a configuration push is a version and perhaps one error.
const CONFIGURATION_ANSWER_SIZE: usize = 64 << 10;

/// The edge's sending side of a connection over HTTP/2; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    /// `None`: the connection is closing. Taken out then, because the library keeps a connection open while one exists.
    sender: Arc<Mutex<Option<SendRequest<Bytes>>>>,
    /// Streams that the agent still allows. Whoever waits here has certainly not been sent, which cannot be told of
    /// whoever waits inside the library.
    slots: Arc<Semaphore>,
}

impl Link {
    pub(super) fn new(sender: SendRequest<Bytes>) -> Self {
        Self { sender: Arc::new(Mutex::new(Some(sender))), slots: Arc::new(Semaphore::new(0)) }
    }

    fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn close(&self) {
        self.slots.close();
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Obeys MAX_CONCURRENT_STREAMS, which has come in with the agent's first frame; the control stream counts.
    pub(super) fn limit_streams(&self) {
        let limit = self.sender().map_or(0, |sender| sender.current_max_send_streams());
        self.slots.add_permits(limit.saturating_sub(1).min(Semaphore::MAX_PERMITS));
    }

    pub(super) async fn open_control(&self) -> Result<Duplex, String> {
        let mut sender = self.sender().ok_or("the connection is closed")?;
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_static("https://edge.invalid/");
        request.headers_mut().insert(header::UPGRADE, header::UPGRADE_CONTROL);
        let failed = |error: h2::Error| format!("the control stream failed: {error}");
        let (response, send) = sender.send_request(request, false).map_err(failed)?;
        let response = response.await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the agent answered the control stream with status {}", response.status()));
        }
        Ok(Duplex::new(send, response.into_body()))
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
        let slot = tokio::select! {
            biased;
            reason = unavailable(phase) => return Err(ExchangeError::NotSent(reason)),
            slot = Arc::clone(&self.slots).acquire_owned() => slot,
        };
        let (Ok(slot), Some(mut sender)) = (slot, self.sender()) else {
            return Err(ExchangeError::NotSent("the connection is closed".into()));
        };
        let end = kind == Kind::Http && body.is_end_stream();
        let (mut response, send) =
            sender.send_request(head, end).map_err(|error| ExchangeError::NotSent(error.to_string()))?;

        let ticket = ticket.with(slot);
        let (go, mut upload) = if end {
            (None, Upload::sent(kind, ticket))
        } else {
            let (go, wanted) = waits.then(oneshot::channel).unzip();
            (go, upload(kind, ticket, send, body, wanted))
        };
        let answer = upload.answer(answer_head(&mut response, go, &interim)).await?;
        read_answer(kind, &method, answer, upload)
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
        let mut sender = self.sender().ok_or("the connection is closed")?;
        let mut request = Request::new(());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("https://edge.invalid/");
        request.headers_mut().insert(header::UPGRADE, header::UPGRADE_CONFIGURATION);
        request.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let failed = |error: h2::Error| format!("the configuration push failed: {error}");
        let (response, mut send) = sender.send_request(request, false).map_err(failed)?;
        send.send_data(body.freeze(), true).map_err(failed)?;
        let response = response.await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the agent answered the configuration with status {}", response.status()));
        }
        let answer = collect(response.into_body()).await?;
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
    while let Some(bytes) = recv.data().await {
        let bytes = bytes.map_err(|error| format!("the agent's answer to the configuration broke off: {error}"))?;
        if whole.len() + bytes.len() > CONFIGURATION_ANSWER_SIZE {
            return Err("the agent's answer to the configuration is too long".into());
        }
        let _ = recv.flow_control().release_capacity(bytes.len());
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// The head of the stream that carries a request (sections 5.1, 5.4 and 5.5).
fn request_head(kind: Kind, mut head: http::request::Parts, body: &Body, extensions: Extensions) -> Request<()> {
    clean_request(kind, &mut head, body);
    let mut request = Request::from_parts(head, ());
    // The library refuses a URI without a host only for this version.
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().remove(http::header::HOST);
    match kind {
        Kind::Http => {}
        Kind::WebSocket => {
            request.headers_mut().insert(header::UPGRADE, header::UPGRADE_WEBSOCKET);
        }
        Kind::Tcp => {
            *request.method_mut() = Method::GET;
            request.headers_mut().insert(header::PROXY_SRC, HeaderValue::from_static("tcp"));
            if let Some(authority) = request.uri().authority().cloned() {
                let uri = Uri::builder().scheme(uri::Scheme::HTTPS).authority(authority).path_and_query("/").build();
                *request.uri_mut() = uri.expect("a scheme, an authority and a path make a URI");
            }
        }
    }
    if !extensions.is_none() {
        request.headers_mut().insert(header::EXTENSIONS, HeaderValue::from_static(extensions.mark()));
    }
    request
}

/// Starts sending a request's body. What is whole in memory goes at once, with no more memory than it has already.
fn upload(
    kind: Kind,
    ticket: Ticket,
    mut send: h2::SendStream<Bytes>,
    mut body: Body,
    wanted: Option<oneshot::Receiver<()>>,
) -> Upload {
    if wanted.is_none()
        && kind == Kind::Http
        && let Some(bytes) = body.take_full()
    {
        // Fails only on a stream that is closed, which its answer tells as well.
        let _ = send.send_data(bytes, true);
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
    response: &mut ResponseFuture,
    mut go: Option<oneshot::Sender<()>>,
    interim: &Interim,
) -> Result<Response<RecvStream>, ExchangeError> {
    while let Some(early) = std::future::poll_fn(|context| response.poll_informational(context)).await {
        let (head, ()) = early.map_err(exchange_error)?.into_parts();
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
    response.await.map_err(exchange_error)
}

fn read_answer(
    kind: Kind,
    method: &Method,
    answer: Response<RecvStream>,
    upload: Upload,
) -> Result<Response<Body>, ExchangeError> {
    let protocol = |what: &str| ExchangeError::Protocol(what.to_owned());
    let (head, recv) = answer.into_parts();
    let meta = head.headers.get(header::RESPONSE_META).ok_or_else(|| protocol("no word on who made the answer"))?;
    match ResponseMeta::parse(meta.as_bytes()).map_err(|error| ExchangeError::Protocol(error.to_string()))? {
        ResponseMeta::Origin => {}
        ResponseMeta::Fault(fault) => return Err(ExchangeError::Origin(fault)),
        ResponseMeta::FlowLimited => return Err(ExchangeError::Origin(flow_limited())),
    }
    let mut headers = match head.headers.get(header::RESPONSE_HEADERS) {
        None => HeaderMap::new(),
        Some(packed) => header::deserialize(packed.as_bytes(), header::Limits::HEADERS)
            .map_err(|error| ExchangeError::Protocol(error.to_string()))?,
    };
    let accepted = head.status == StatusCode::OK && headers.contains_key(http::header::SEC_WEBSOCKET_ACCEPT);
    let status = match kind {
        Kind::WebSocket if accepted => StatusCode::SWITCHING_PROTOCOLS,
        Kind::Http | Kind::WebSocket | Kind::Tcp => head.status,
    };
    clean_answer(status, &mut headers);
    let promise = match kind {
        Kind::Tcp => Promise::Open,
        Kind::Http | Kind::WebSocket => {
            answer_promise(method, status, &headers).map_err(|error| ExchangeError::Protocol(error.to_string()))?
        }
    };
    let mut response = Response::new(Body::http2(Incoming::answer(recv, promise, upload)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn flow_limited() -> OriginError {
    OriginError::new(OriginFault::Unsupported, "the agent has as many flows as it may have")
}

/// Whether the agent can have seen a request whose stream failed.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn exchange_error(error: h2::Error) -> ExchangeError {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // The library fails streams with the agent's GOAWAY only beyond the last one that the agent processed.
    let beyond = error.is_go_away();
    if error.is_remote() && (refused || beyond) {
        ExchangeError::NotSent(error.to_string())
    } else if error.is_library() && error.is_reset() {
        ExchangeError::Protocol(error.to_string())
    } else {
        ExchangeError::Lost(error.to_string())
    }
}
