use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use uuid::Uuid;
use wire::{Kind, OriginFault, Transport};

/// What happens in an agent, for whoever shows or records it. See [`crate::Running::events`].
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection is registered and carries requests.
    Connected(ConnectionStatus),
    /// A registered connection has ended; it is dialled again unless the agent is stopping.
    Disconnected {
        /// Which of the parallel connections.
        index: u8,
        /// Why, for people.
        reason: String,
    },
    /// An attempt over one transport brought no registered connection; it is repeated by itself. Where both transports
    /// raced and neither got through, there is one event for each, QUIC's first; where one did, there is none.
    ConnectFailed {
        /// Which of the parallel connections.
        index: u8,
        /// Where it was tried.
        edge: String,
        /// How.
        transport: Transport,
        /// Why, for people.
        reason: String,
        /// The edge refused in a way that only a person can mend, such as a wrong tunnel.
        permanent: bool,
    },
    /// The names of the edge do not resolve; this is repeated by itself.
    LookUpFailed {
        /// Why, for people.
        reason: String,
    },
    /// From now on HTTP/2 is used.
    FellBack {
        /// Why.
        reason: FallbackReason,
    },
    /// A request has ended.
    Request(Arc<RequestEvent>),
    /// A byte stream has ended.
    Stream(Box<StreamEvent>),
    /// A flow of datagrams has ended.
    Flow(Box<FlowEvent>),
    /// New rules are in force.
    ConfigurationApplied {
        /// Where they come from.
        source: ConfigurationSource,
        /// How many there are.
        rules: usize,
    },
    /// New rules were refused; the old ones stay in force.
    ConfigurationRefused {
        /// Where they come from.
        source: ConfigurationSource,
        /// Every reason, one a line.
        reason: String,
    },
}

/// Why HTTP/2 is used where QUIC would be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackReason {
    /// QUIC got no answer where HTTP/2 worked: UDP is blocked on the way.
    QuicBlocked,
    /// The edge is reached through a proxy, which carries no UDP.
    Proxy,
    /// An earlier run found QUIC blocked.
    Remembered,
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QuicBlocked => "QUIC does not get through (UDP seems blocked), using HTTP/2",
            Self::Proxy => "the edge is reached through a proxy, using HTTP/2",
            Self::Remembered => "QUIC did not get through lately, using HTTP/2",
        })
    }
}

/// Who gave a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigurationSource {
    /// The local file.
    File,
    /// The edge, with its version.
    Edge {
        /// The version that was pushed.
        version: i32,
    },
}

/// A registered connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Which of the parallel connections.
    pub index: u8,
    /// Its id, given by the edge.
    pub id: Uuid,
    /// Where it landed, such as `ams1`.
    pub location: String,
    /// How it is carried.
    pub transport: Transport,
    /// The edge's address.
    pub edge: String,
    /// The edge pushes the configuration.
    pub remotely_managed: bool,
}

/// All registered connections, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The connections.
    pub connections: Vec<ConnectionStatus>,
}

impl Status {
    /// At least one connection carries requests.
    pub fn is_ready(&self) -> bool {
        !self.connections.is_empty()
    }
}

/// One request that has ended.
#[derive(Debug, Clone)]
pub struct RequestEvent {
    /// What it was.
    pub kind: Kind,
    /// The method.
    pub method: Method,
    /// The host that the visitor asked for.
    pub host: String,
    /// The path, without the query, which may hold what nobody else should see.
    pub path: String,
    /// Which rule served it, from 0.
    pub rule: usize,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// From its arrival to the end of the answer's body.
    pub duration: Duration,
    /// Bytes of the answer's body.
    pub bytes: u64,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The whole answer went out.
    Answered(u16),
    /// The answer began with this status and was cut: the visitor left, or the origin broke off.
    Cut(u16),
    /// There was no answer.
    Failed {
        /// Why, as a kind.
        fault: OriginFault,
        /// Why, for people.
        text: String,
    },
    /// The visitor left before there was an answer.
    Left,
}

impl RequestOutcome {
    /// The answer that was under way has come to its end.
    pub(crate) fn complete(&mut self) {
        if let Self::Cut(status) = *self {
            *self = Self::Answered(status);
        }
    }

    /// The status that the origin gave, if it gave one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(status) | Self::Cut(status) => Some(*status),
            Self::Failed { .. } | Self::Left => None,
        }
    }
}

/// One byte stream that has ended.
#[derive(Debug, Clone)]
pub struct StreamEvent {
    /// The name of the service that it was for, or the address.
    pub service: String,
    /// What the edge calls it: the visitor's address, at an edge of ours.
    pub flow: String,
    /// Which rule served it, from 0; `None`: it went to an address.
    pub rule: Option<usize>,
    /// How it ended.
    pub outcome: StreamOutcome,
    /// From its arrival to its end.
    pub duration: Duration,
    /// Bytes from the visitor to the origin.
    pub received: u64,
    /// Bytes from the origin to the visitor.
    pub sent: u64,
}

/// How a byte stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamOutcome {
    /// Both ways ended in order.
    Ended,
    /// The visitor, the origin or the tunnel cut it.
    Cut,
    /// It did not come about.
    Failed {
        /// Why, as a kind.
        fault: OriginFault,
        /// Why, for people.
        text: String,
    },
}

/// One flow of datagrams that has ended.
#[derive(Debug, Clone)]
pub struct FlowEvent {
    /// The name of the service that it was for, or the address.
    pub service: String,
    /// What the edge calls it: the visitor's address, at an edge of ours.
    pub flow: String,
    /// Which rule served it, from 0; `None`: it went to an address.
    pub rule: Option<usize>,
    /// How it ended.
    pub outcome: FlowOutcome,
    /// From its arrival to its end.
    pub duration: Duration,
    /// Datagrams from the visitor to the origin.
    pub received: u64,
    /// Datagrams from the origin to the visitor.
    pub sent: u64,
    /// Datagrams either way that were dropped here.
    pub dropped: u64,
}

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowOutcome {
    /// Nothing went either way for too long, or the visitor or the tunnel left.
    Ended,
    /// Nobody listened at the origin, at least for a while.
    Refused,
    /// It did not come about, or its socket failed.
    Failed {
        /// Why, as a kind.
        fault: OriginFault,
        /// Why, for people.
        text: String,
    },
}
