//! The agent's dealings with its handler, the same on both transports.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::body::Promise;
use crate::exchange::{answer_promise, expects_continue, join_cookies};
use crate::flow::name;
use crate::header as wire_header;
use crate::quic::{Datagrams, Sessions};
use crate::{
    Body, ByteStream, Destination, Extensions, Flow, FlowRequest, FlowService, Handler, Interim, Interims, Kind,
    OriginError, OriginFault, StreamRefusal, StreamRequest,
};

/// A request on its way to the handler.
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) head: Parts,
    /// To be told when the handler first polls the request's body, if the visitor waits for that.
    pub(crate) want: Option<oneshot::Sender<()>>,
    interim: Interim,
    asked: Asked,
    method: Method,
}

/// What the handler has to say before its answer.
#[derive(Debug, Default)]
struct Asked {
    wanted: Option<oneshot::Receiver<()>>,
    early: Option<Interims>,
}

/// The way back to the edge, before the answer.
pub(crate) trait Respond: Send {
    /// Ready when the edge wants no answer any more, or the connection is gone.
    fn poll_cancelled(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Sends an interim head: 100 when the handler wants a body that is held back, or what the origin said.
    fn early(&mut self, status: StatusCode, headers: HeaderMap) -> impl Future<Output = ()> + Send;
}

/// An answer that is fit to travel.
pub(crate) struct Answer {
    /// 101 for an accepted WebSocket.
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None`: nothing follows the head.
    pub(crate) body: Option<Body>,
}

impl Call {
    /// Takes the protocol's own out of a request.
    pub(crate) fn new(kind: Kind, mut head: Parts, extensions: Extensions) -> Self {
        wire_header::strip_protocol(&mut head.headers);
        join_cookies(&mut head.headers);
        if let Some(authority) = head.uri.authority()
            && let header::Entry::Vacant(entry) = head.headers.entry(header::HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            entry.insert(host);
        }
        let mut asked = Asked::default();
        let mut want = None;
        if expects_continue(&head.headers) {
            head.headers.remove(header::EXPECT);
            let (sender, receiver) = oneshot::channel();
            (want, asked.wanted) = (Some(sender), Some(receiver));
        }
        let mut interim = Interim::unwanted();
        if extensions.interim {
            let (sender, receiver) = Interim::channel();
            (interim, asked.early) = (sender, Some(receiver));
        }
        let method = head.method.clone();
        Self { kind, head, want, interim, asked, method }
    }

    /// Gets the handler's answer; `None`: the edge cancelled the request first, and the handler's future is dropped.
    pub(crate) async fn answer<H: Handler, R: Respond>(
        self,
        handler: &H,
        body: Body,
        respond: &mut R,
    ) -> Option<Result<Answer, OriginError>> {
        let Self { kind, head, interim, mut asked, method, .. } = self;
        let answering = handler.exchange(kind, Request::from_parts(head, body), interim);
        let mut answering = std::pin::pin!(answering);
        loop {
            let said = std::future::poll_fn(|context| {
                if respond.poll_cancelled(context).is_ready() {
                    Poll::Ready(Said::Cancelled)
                } else if let Poll::Ready((status, headers)) = asked.poll_next(context) {
                    Poll::Ready(Said::Early(status, headers))
                } else {
                    answering.as_mut().poll(context).map(Said::Answer)
                }
            });
            match said.await {
                Said::Cancelled => return None,
                Said::Early(status, headers) => respond.early(status, headers).await,
                Said::Answer(answer) => {
                    // What the origin said in the same breath goes first.
                    while let Some((status, headers)) = asked.rest() {
                        respond.early(status, headers).await;
                    }
                    return Some(answer.and_then(|answer| Answer::new(kind, &method, answer)));
                }
            }
        }
    }
}

/// What comes next on the way to an answer.
enum Said {
    Cancelled,
    Early(StatusCode, HeaderMap),
    Answer(Result<Response<Body>, OriginError>),
}

/// What a byte stream was connected to.
pub(crate) enum Connected {
    Stream(ByteStream),
    /// It is a flow. Over QUIC with the way through datagrams.
    Flow(Uuid, FlowService, Option<Datagrams>),
}

/// Has the handler connect a byte stream, or the flow that it stands for; `None`: the edge cancelled it first.
pub(crate) async fn connect<H: Handler, R: Respond>(
    handler: &H,
    request: StreamRequest,
    respond: &mut R,
) -> Option<Result<Connected, StreamRefusal>> {
    let connecting = async {
        let flow = match &request.destination {
            Destination::Service(name) => name::read(name),
            Destination::Address(_) => None,
        };
        let Some((id, service)) = flow else { return handler.stream(request).await.map(Connected::Stream) };
        let destination = Destination::Service(service.to_owned());
        let flow = FlowRequest { destination, flow: request.flow, idle: None };
        handler.flow(flow).await.map(|service| Connected::Flow(id, service, None))
    };
    tokio::select! {
        biased;
        () = std::future::poll_fn(|context| respond.poll_cancelled(context)) => None,
        connected = connecting => Some(connected),
    }
}

impl Connected {
    /// Lets a flow have datagrams of the connection, if there are any.
    pub(crate) fn with(self, sessions: &Arc<Sessions>) -> Self {
        match self {
            Self::Flow(id, service, None) => Self::Flow(id, service, sessions.open(id, None)),
            other => other,
        }
    }
}

/// Carries a connected byte stream, or flow.
pub(crate) async fn relay(tunnel: ByteStream, origin: Connected) {
    match origin {
        Connected::Stream(origin) => {
            if let Err(error) = tunnel.relay(origin).await {
                tracing::debug!(%error, "a byte stream broke off");
            }
        }
        Connected::Flow(_, service, datagrams) => {
            // The end of the stream tells the edge.
            let _ = service(Flow::new(datagrams, Some(tunnel), None)).await;
        }
    }
}

impl Asked {
    /// The next head to send.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(StatusCode, HeaderMap)> {
        if let Some(wanted) = &mut self.wanted
            && let Poll::Ready(wanted) = Pin::new(wanted).poll(context)
        {
            self.wanted = None;
            if wanted.is_ok() {
                return Poll::Ready((StatusCode::CONTINUE, HeaderMap::new()));
            }
        }
        if let Some(early) = &mut self.early
            && let Poll::Ready(next) = early.poll_recv(context)
        {
            match next {
                Some(early) => return Poll::Ready(early),
                None => self.early = None,
            }
        }
        Poll::Pending
    }

    /// What the origin has said and has not been sent.
    fn rest(&mut self) -> Option<(StatusCode, HeaderMap)> {
        self.early.as_mut()?.try_recv()
    }
}

impl Answer {
    fn new(kind: Kind, method: &Method, answer: Response<Body>) -> Result<Self, OriginError> {
        let (head, body) = answer.into_parts();
        let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if head.status.is_informational() && !(switched && kind == Kind::WebSocket) {
            let text = format!("status {} as an answer", head.status.as_u16());
            return Err(OriginError::new(OriginFault::Nonsense, text));
        }
        let limits = wire_header::Limits::HEADERS;
        if !limits.hold(&head.headers) {
            let wire_header::Limits { count, bytes } = limits;
            let text = format!("the origin's headers are more than {count}, or longer than {bytes} bytes");
            return Err(OriginError::new(OriginFault::Nonsense, text));
        }
        let promise = answer_promise(method, head.status, &head.headers)
            .map_err(|error| OriginError::new(OriginFault::Nonsense, error.to_string()))?;
        let empty = promise == Promise::Nothing || (!switched && http_body::Body::is_end_stream(&body));
        Ok(Self { status: head.status, headers: head.headers, body: Some(body).filter(|_| !empty) })
    }
}
