//! Requests to origins (section 13): one [`Origin`] for each rule, with its own pool of connections.

mod connect;
mod error;
mod hello;
mod tls;
mod web;
mod websocket;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use wire::{Body, BodyError, Interim, Kind, OriginError, OriginFault};

use crate::ingress::{Rule, Rules, Service};
use crate::proxy::Proxies;
pub use error::PrepareError;
use tls::Trust;
use web::HttpOrigin;

/// The origins of all rules, in their order.
pub(crate) struct Origins(Vec<Origin>);

impl Origins {
    /// Prepares clients; nothing is connected yet.
    pub(crate) fn prepare(rules: &Rules, proxies: &Proxies) -> Result<Self, PrepareError> {
        let mut trust = Trust::default();
        let origins = rules.iter().map(|rule| Origin::prepare(rule, &mut trust, proxies));
        origins.collect::<Result<_, _>>().map(Self)
    }

    /// The origin of a rule.
    pub(crate) fn get(&self, rule: usize) -> &Origin {
        &self.0[rule]
    }
}

/// Where one rule leads.
pub(crate) enum Origin {
    Http(Box<HttpOrigin>),
    Status(StatusCode),
    Hello(Instant),
    Unsupported(String),
}

impl Origin {
    fn prepare(rule: &Rule, trust: &mut Trust, proxies: &Proxies) -> Result<Self, PrepareError> {
        Ok(match &rule.service {
            Service::Status(status) => Self::Status(*status),
            Service::Hello => Self::Hello(Instant::now()),
            Service::Unsupported(text) => Self::Unsupported(text.clone()),
            Service::Http { .. } | Service::Unix { .. } => {
                Self::Http(Box::new(HttpOrigin::prepare(rule, trust, proxies)?))
            }
        })
    }

    /// Gets the answer to one request. Dropping the future, or the answer's body, cancels the request.
    pub(crate) async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<AnswerBody>, OriginError> {
        match (self, kind) {
            (Self::Unsupported(service), _) => Err(unsupported(format!(
                "the rule's service {service} is of a kind that this agent does not carry; it carries http, https, ws, wss, unix, \
                 unix+tls, http_status and hello_world"
            ))),
            (Self::Status(status), _) if status.is_informational() => Err(unsupported(format!(
                "the rule answers http_status:{}, which cannot be a final answer",
                status.as_u16()
            ))),
            (Self::Status(status), _) => {
                let mut response = Response::new(AnswerBody::Own(Body::empty()));
                *response.status_mut() = *status;
                Ok(response)
            }
            (Self::Hello(started), _) => Ok(hello::answer(kind, request, *started).map(AnswerBody::Own)),
            (Self::Http(origin), Kind::Http) => origin.exchange(request, interim).await,
            (Self::Http(origin), Kind::WebSocket) => origin.websocket(request, interim).await,
        }
    }
}

fn unsupported(text: String) -> OriginError {
    OriginError::new(OriginFault::Unsupported, text)
}

/// The host that the visitor asked for, port and all.
pub(crate) fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => headers.get(HOST).cloned(),
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// As it comes from the origin.
    Origin(Incoming),
    /// Made here, or the two ways of a WebSocket.
    Own(Body),
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Origin(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|error| BodyError(format!("the origin's answer broke off: {error}"))),
            Self::Own(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Origin(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Origin(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}
