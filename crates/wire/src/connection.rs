use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::watch;
use uuid::Uuid;

use crate::datagram::Version;
use crate::flight::Flights;
use crate::flow::name;
use crate::phase::{Phase, unavailable};
use crate::registration::{LocalConfiguration, Refused, Registered, Registration};
use crate::{
    Body, ByteStream, Destination, ExchangeError, Extensions, Flow, FlowRequest, Interim, Kind, OriginError,
    OriginFault, StreamRequest, http2, quic,
};

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
/// [`crate::http2::edge::serve`] and [`crate::quic::edge::serve`] call it, in this order for one connection: `register`
/// once; `local_configuration` any number of times; `closed` once if and only if `register` accepted.
pub trait Registrar: Send + Sync + 'static {
    /// Accepts or refuses a connection. From acceptance on the handle carries requests.
    ///
    /// The future is dropped if the connection ends meanwhile; the handle is closed then, and `closed` is not called.
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
pub struct Connection(Arc<Shared>);

struct Shared {
    remote: SocketAddr,
    extensions: Extensions,
    flights: Flights,
    phase: watch::Sender<Phase>,
    link: Link,
}

/// The edge's end of a transport, as far as requests are concerned.
pub(crate) enum Link {
    Http2(http2::Link),
    Quic(quic::Link),
}

impl Connection {
    pub(crate) fn new(remote: SocketAddr, extensions: Extensions, link: Link) -> Self {
        let phase = watch::Sender::new(Phase::Open);
        Self(Arc::new(Shared { remote, extensions, flights: Flights::default(), phase, link }))
    }

    /// How it is carried.
    pub fn transport(&self) -> Transport {
        match self.0.link {
            Link::Http2(_) => Transport::Http2,
            Link::Quic(_) => Transport::Quic,
        }
    }

    /// The agent's address.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// What our own agents can do beyond the reference; set from the features at registration.
    pub fn extensions(&self) -> Extensions {
        self.0.extensions
    }

    /// Requests under way, WebSockets and streams included.
    pub fn in_flight(&self) -> usize {
        self.0.flights.count()
    }

    /// Whether new requests may be sent: registered, not draining, not closed.
    pub fn is_open(&self) -> bool {
        *self.0.phase.borrow() == Phase::Open
    }

    /// A number that changes whenever something is heard from the agent's machine.
    pub fn signs_of_life(&self) -> u64 {
        match &self.0.link {
            Link::Http2(link) => link.signs(),
            Link::Quic(link) => link.signs(),
        }
    }

    /// Has the agent give a sign of life, and answers within which time one should have come. Who gives none is not gone for certain:
    /// its packets may have been lost.
    pub fn ask_for_life(&self) -> Duration {
        match &self.0.link {
            Link::Http2(link) => link.ask(),
            Link::Quic(link) => link.ask(),
        }
    }

    /// Sends one request to the agent and waits for the head of the answer.
    ///
    /// The URI must be absolute (`https://host/path`); its host is lower case. The request's headers must already be those
    /// that the origin is to see. For [`Kind::WebSocket`], an answer with status 101 means accepted on either transport.
    /// The answer's headers are the origin's, hop-by-hop headers removed (for an accepted WebSocket `upgrade`,
    /// `connection` and `sec-websocket-accept` stay).
    /// The body is polled only once the agent wants it when the request holds `expect: 100-continue`, at once otherwise
    /// (also then for stock agents over QUIC, which cannot say that they want it).
    /// Dropping the future, or the answer's body, cancels the origin's request. There is no time limit in here.
    pub async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, ExchangeError> {
        // Counted before the phase is looked at: whoever drains looks at the count after it has set the phase.
        let ticket = self.0.flights.board();
        let mut phase = self.0.phase.subscribe();
        if let Err(state) = phase.borrow().open() {
            return Err(ExchangeError::NotSent(state));
        }
        let interim = if self.0.extensions.interim { interim } else { Interim::unwanted() };
        match &self.0.link {
            Link::Http2(link) => link.exchange(self.0.extensions, ticket, kind, request, interim, &mut phase).await,
            Link::Quic(link) => link.exchange(self.0.extensions, ticket, kind, request, interim, &mut phase).await,
        }
    }

    /// Has the agent connect a byte stream, and waits until it is connected.
    ///
    /// Dropping the future gives it up; dropping the stream cuts it. There is no time limit in here.
    pub async fn connect_stream(&self, request: &StreamRequest) -> Result<ByteStream, ExchangeError> {
        let ticket = self.0.flights.board();
        let mut phase = self.0.phase.subscribe();
        if let Err(state) = phase.borrow().open() {
            return Err(ExchangeError::NotSent(state));
        }
        if matches!(request.destination, Destination::Service(_)) && !self.0.extensions.services {
            let text =
                "the agent is of a kind or version that carries streams only to addresses, not to services by name";
            return Err(ExchangeError::Origin(OriginError::new(OriginFault::Unsupported, text)));
        }
        match &self.0.link {
            Link::Http2(link) => link.connect_stream(self.0.extensions, ticket, request, &mut phase).await,
            Link::Quic(link) => link.connect_stream(self.0.extensions, ticket, request, &mut phase).await,
        }
    }

    /// Has the agent open a flow of datagrams, and waits until it has.
    ///
    /// Flows to services need the extension `flows`; those to addresses need QUIC, and an agent that serves addresses. The
    /// flow ends with the connection, and when it is dropped. There is no time limit in here.
    pub async fn open_flow(&self, request: &FlowRequest) -> Result<Flow, ExchangeError> {
        let ticket = self.0.flights.board();
        let mut phase = self.0.phase.subscribe();
        if let Err(state) = phase.borrow().open() {
            return Err(ExchangeError::NotSent(state));
        }
        let extensions = self.0.extensions;
        match (&self.0.link, &request.destination) {
            (_, Destination::Service(_)) if !(extensions.services && extensions.flows) => {
                let text = "the agent is of a kind or version that carries no datagrams to services by name";
                Err(ExchangeError::Origin(OriginError::new(OriginFault::Unsupported, text)))
            }
            (Link::Quic(link), _) => link.open_flow(extensions, ticket, request, &mut phase).await,
            (Link::Http2(_), Destination::Address(_)) => {
                // Another connection of the tunnel may be of another kind.
                let text = "over HTTP/2 there are no datagrams to addresses; start the agent with --protocol quic";
                Err(ExchangeError::NotSent(text.into()))
            }
            (Link::Http2(link), Destination::Service(service)) => {
                let destination = Destination::Service(name::write(Uuid::new_v4(), service));
                let asked = StreamRequest { destination, flow: request.flow.clone() };
                let stream = link.connect_stream(extensions, ticket, &asked, &mut phase).await?;
                Ok(Flow::new(None, Some(stream), None))
            }
        }
    }

    /// Waits until no new requests may be sent any more, and says why.
    pub async fn unavailable(&self) -> String {
        unavailable(&mut self.phase()).await
    }

    /// From now on datagrams are of the version that an agent with these features speaks.
    pub(crate) fn announced(&self, features: &[String]) {
        if let Link::Quic(link) = &self.0.link {
            link.speak(Version::from_features(features.iter().map(String::as_str)));
        }
    }

    /// Pushes a configuration (section 11.2); answers the version that the agent has in force.
    pub async fn update_configuration(&self, version: i32, config: Bytes) -> Result<i32, String> {
        match &self.0.link {
            Link::Http2(link) => link.update_configuration(version, &config).await,
            Link::Quic(link) => link.update_configuration(version, &config).await,
        }
    }

    /// Takes no new requests, and closes the connection when the last one is done.
    pub fn drain(&self) {
        self.0.phase.send_if_modified(|phase| {
            let open = *phase == Phase::Open;
            if open {
                *phase = Phase::Draining;
            }
            open
        });
    }

    /// Closes at once; requests under way fail.
    pub fn close(&self, reason: &str) {
        self.0.phase.send_if_modified(|phase| {
            let alive = !matches!(phase, Phase::Closed(_));
            if alive {
                *phase = Phase::Closed(reason.to_owned());
            }
            alive
        });
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.0.flights
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("transport", &self.transport())
            .field("remote", &self.0.remote)
            .field("in_flight", &self.in_flight())
            .field("phase", &*self.0.phase.borrow())
            .finish_non_exhaustive()
    }
}
