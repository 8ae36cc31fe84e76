//! Requests and byte streams to origins (section 13): one [`Origin`] for each rule, with its own pool of connections.

mod connect;
mod connected;
mod datagram;
mod direct;
mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hello;
mod http1;
mod pool;
mod socket;
mod socks;
mod stream;
mod tls;
mod web;
mod websocket;

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use wire::{Body, BodyError, Interim, Kind, OriginError, OriginFault};

use crate::ingress::{Rule, Rules, Service, WarpRouting};
use crate::proxy::Proxies;
use connect::Dial;
pub(crate) use connected::Connected;
use datagram::DatagramOrigin;
pub(crate) use datagram::{Peer, Sent, is_refusal};
pub use direct::{Directs, Permits, Place, Security};
use error::ConnectFailure;
pub use error::PrepareError;
use stream::StreamOrigin;
pub(crate) use tls::EdgeAuthority;
use tls::Trust;
use web::HttpOrigin;

/// The origins of all rules, in their order.
pub(crate) struct Origins(Vec<Origin>);

impl Origins {
    /// Prepares clients; nothing is connected yet.
    pub(crate) fn prepare(rules: &Rules, proxies: &Proxies, edge: &EdgeAuthority) -> Result<Self, PrepareError> {
        let mut trust = Trust::new(edge.clone());
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
    Stream(StreamOrigin),
    Datagram(DatagramOrigin),
}

impl Origin {
    fn prepare(rule: &Rule, trust: &mut Trust, proxies: &Proxies) -> Result<Self, PrepareError> {
        Ok(match &rule.service {
            Service::Status(status) => Self::Status(*status),
            Service::Hello => Self::Hello(Instant::now()),
            Service::Tcp { authority, .. } => Self::Stream(StreamOrigin::fixed(authority, &rule.options)),
            Service::Udp { authority } => Self::Datagram(DatagramOrigin::new(authority, &rule.options)),
            Service::Bastion => Self::Stream(StreamOrigin::jump(&rule.options)),
            Service::Socks => Self::Stream(StreamOrigin::socks(&rule.options)),
            Service::Http { .. } | Service::Unix { .. } => {
                Self::Http(Box::new(HttpOrigin::prepare(&rule.service, &rule.options, trust, proxies, None)?))
            }
        })
    }

    /// Gets the answer to one request, of which nothing of use is left. Dropping the future, or the answer's body, cancels the
    /// request.
    pub(crate) async fn exchange(
        &self,
        kind: Kind,
        request: &mut Request<Body>,
        interim: Interim,
    ) -> Result<Response<AnswerBody>, OriginError> {
        match (self, kind) {
            (Self::Status(status), _) if status.is_informational() => Err(unsupported(format!(
                "the rule answers http_status:{}, which cannot be a final answer",
                status.as_u16()
            ))),
            (Self::Status(status), _) => {
                let mut response = Response::new(AnswerBody::Own(Body::empty()));
                *response.status_mut() = *status;
                Ok(response)
            }
            (Self::Hello(started), _) => {
                Ok(hello::answer(kind, std::mem::take(request), *started).map(AnswerBody::Own))
            }
            // Boxed, because each request would have to hold the room for it.
            (Self::Stream(origin), Kind::WebSocket) => {
                let answer = Box::pin(origin.websocket(std::mem::take(request))).await;
                answer.map(|response| response.map(AnswerBody::Own))
            }
            (Self::Datagram(_), _) => {
                Err(unsupported("the rule's service takes datagrams (UDP), and no requests".to_owned()))
            }
            (Self::Stream(_), Kind::Http) => Ok(stream::no_websocket().map(AnswerBody::Own)),
            (Self::Http(origin), Kind::Http) => origin.exchange(request, interim).await,
            (Self::Http(origin), Kind::WebSocket) => Box::pin(origin.websocket(request, interim)).await,
        }
    }
}

impl Origin {
    /// Connects a byte stream.
    pub(crate) async fn connect(&self) -> Result<Connected, OriginError> {
        match self {
            Self::Stream(origin) => origin.connect().await,
            Self::Http(_) | Self::Status(_) | Self::Hello(_) | Self::Datagram(_) => {
                Err(unsupported("the rule's service takes no byte streams; those need tcp://HOST:PORT".to_owned()))
            }
        }
    }

    /// Opens a socket for a flow of datagrams.
    pub(crate) async fn open(&self) -> Result<Peer, OriginError> {
        match self {
            Self::Datagram(origin) => origin.open().await,
            Self::Http(_) | Self::Status(_) | Self::Hello(_) | Self::Stream(_) => {
                Err(unsupported("the rule's service takes no datagrams; those need udp://HOST:PORT".to_owned()))
            }
        }
    }
}

/// Connects to an address of a private network.
pub(crate) async fn connect_to(address: SocketAddr, routing: &WarpRouting) -> Result<Connected, OriginError> {
    let connected = Dial::private(routing).addresses(&[address], &address.to_string()).await;
    connected.map(Connected::new).map_err(|ConnectFailure(error)| error)
}

fn unsupported(text: String) -> OriginError {
    OriginError::new(OriginFault::Unsupported, text)
}

/// The host that the visitor asked for, port and all.
pub(crate) fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST)?.to_str().ok(),
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// As it comes from the origin, over HTTP/1.1.
    Http1(Box<pool::Answer>),
    /// As it comes from the origin, on a connection with a task of its own.
    Http2(Incoming),
    /// Made here, or the two ways of a WebSocket.
    Own(Body),
}

impl AnswerBody {
    /// The body, if all of it is here: nobody but the visitor can cut it short any more.
    pub(crate) fn into_full(self) -> Result<Body, Self> {
        match self {
            Self::Own(body) if body.is_full() => Ok(body),
            other => Err(other),
        }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(context),
            Self::Http2(body) => Pin::new(body).poll_frame(context).map_err(broken),
            Self::Own(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}

fn broken(error: impl Display) -> BodyError {
    BodyError(format!("the origin's answer broke off: {error}"))
}
