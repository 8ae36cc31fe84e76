use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use uuid::Uuid;

use crate::registration::{LocalConfiguration, Refused, Registered, Registration};
use crate::{Body, ExchangeError, Extensions, Interim, Kind};

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP/2 over TLS over TCP.
    Http2,
    /// QUIC.
    Quic,
}

/// `http2` or `quic`, as in flags and metrics.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http2 => "http2",
            Self::Quic => "quic",
        })
    }
}

/// What a node decides about connections that agents dial.
///
/// [`crate::http2::edge::serve`] and [`crate::quic::edge::serve`] call it, in this order for one connection: `register` once;
/// `local_configuration` any number of times; `closed` once if and only if `register` accepted.
pub trait Registrar: Send + Sync + 'static {
    /// Accepts or refuses a connection. From acceptance on the handle carries requests.
    fn register(
        &self,
        registration: Registration,
        connection: Connection,
    ) -> impl Future<Output = Result<Registered, Refused>> + Send;

    /// The agent reports its own configuration (only when it is not remotely managed).
    fn local_configuration(
        &self,
        connection: Uuid,
        configuration: LocalConfiguration,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// The connection has ended, and why.
    fn closed(&self, connection: Uuid, reason: &str);
}

/// The edge's handle on one connection of a connector; cheap to clone.
#[derive(Clone)]
pub struct Connection {}

#[allow(unused_variables, clippy::unused_async)]
impl Connection {
    /// How it is carried.
    pub fn transport(&self) -> Transport {
        todo!()
    }

    /// The agent's address.
    pub fn remote(&self) -> SocketAddr {
        todo!()
    }

    /// What our own agents can do beyond the reference; set from the features at registration.
    pub fn extensions(&self) -> Extensions {
        todo!()
    }

    /// Requests under way, WebSockets and streams included.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// Whether new requests may be sent: registered, not draining, not closed.
    pub fn is_open(&self) -> bool {
        todo!()
    }

    /// Sends one request to the agent and waits for the head of the answer.
    ///
    /// The URI must be absolute (`https://host/path`); its host is lower case. The request's headers must already be those that the
    /// origin is to see. For [`Kind::WebSocket`], an answer with status 101 means accepted on either transport. The answer's headers are the
    /// origin's, hop-by-hop headers removed (for an accepted WebSocket `upgrade`, `connection` and `sec-websocket-accept` stay).
    /// The body is polled only once the agent wants it when the request holds `expect: 100-continue`, at once otherwise.
    /// Dropping the future, or the answer's body, cancels the origin's request. There is no time limit in here.
    pub async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, ExchangeError> {
        todo!()
    }

    /// Pushes a configuration (section 11.2); answers the version that the agent has in force.
    pub async fn update_configuration(&self, version: i32, config: Bytes) -> Result<i32, String> {
        todo!()
    }

    /// Takes no new requests, and closes the connection when the last one is done.
    pub fn drain(&self) {
        todo!()
    }

    /// Closes at once; requests under way fail.
    pub fn close(&self, reason: &str) {
        todo!()
    }
}
