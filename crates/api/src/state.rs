use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;
use registry::{HealthChange, Hostname, MemberId, MonitorTerms, Pool, PoolReport, PortId, Registry};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::balance::preview::Previews;
use crate::join::GatherHandover;
use crate::limit::Limits;
use crate::login::Logins;

/// Closes the connections of a tunnel, or of one of its connectors, and answers how many there were.
pub type CloseConnections = Arc<dyn Fn(Uuid, Option<Uuid>) -> usize + Send + Sync>;

/// Opens a public port for an agent that is about to come.
pub type OpenPort = Arc<dyn Fn(PortId) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> + Send + Sync>;

/// Answers until when the node's own certificate holds; `None`: it has none yet.
pub type NodeCertificateEnd = Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>;

/// Asks the members of a pool once, as a monitor says, and answers what it found out.
pub type Preview = Arc<dyn Fn(Pool, MonitorTerms) -> Pin<Box<dyn Future<Output = PoolReport> + Send>> + Send + Sync>;

/// Told where a call has come from that showed a valid token.
pub type KnowCaller = Arc<dyn Fn(IpAddr) + Send + Sync>;

/// What only this node knows of a pool's member.
#[derive(Debug, Clone, Default)]
pub struct MemberHere {
    /// Requests that it answered here since the node began.
    pub requests: u64,
    /// Those of the latest minutes.
    pub recent: u64,
    /// When it turned well or not: the latest changes, the last one first.
    pub changes: Vec<HealthChange>,
}

/// Answers what only this node knows of a member.
pub type KnownHere = Arc<dyn Fn(MemberId) -> MemberHere + Send + Sync>;

/// The ports that tunnels may have.
#[derive(Clone)]
pub struct PublicPorts {
    /// Which ones.
    pub range: RangeInclusive<u16>,
    /// How one is opened.
    pub open: OpenPort,
}

/// Who may make quick tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuickTunnels {
    /// Everybody.
    Open,
    /// Callers on this machine; others with an API token.
    #[default]
    Loopback,
    /// Callers with an API token.
    Token,
    /// Nobody.
    Off,
}

/// What an agent has to know to join this edge. Addresses are as bound; one that is unspecified (`0.0.0.0`) is told to
/// callers as the host that they called.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where agents dial, over TCP and UDP.
    pub tunnel: Vec<SocketAddr>,
    /// Where visitors come over TLS and QUIC.
    pub https: SocketAddr,
    /// Where visitors come in plain.
    pub http: SocketAddr,
    /// Quick tunnels get names under it.
    pub domain: Hostname,
    /// The root certificate to trust, as PEM text.
    pub ca: String,
    /// Where the node is, such as `ams1`.
    pub location: String,
    /// This program's version.
    pub version: String,
}

/// What the API works on.
pub struct ApiState {
    /// Everything it answers and writes.
    pub registry: Registry,
    /// How it closes connections of agents.
    pub close: CloseConnections,
    /// The public ports, if there are to be any.
    pub ports: Option<PublicPorts>,
    /// Visitors at once that one public port may have, or one name whose TLS is its origin's own. What a tunnel asks for beyond it is
    /// refused.
    pub most_visitors: usize,
    /// Who may make quick tunnels.
    pub quick_tunnels: QuickTunnels,
    /// What it tells agents.
    pub facts: Facts,
    /// What it gives a machine that joins; `None`: nobody can, since the registry is this node's alone.
    pub gather_handover: Option<GatherHandover>,
    /// Until when this node's own certificate holds, if it has one.
    pub node_certificate: NodeCertificateEnd,
    /// How it asks the members of a pool; `None`: this node asks nobody, and a preview finds nothing out.
    pub preview: Option<Preview>,
    /// What this node knows of pools' members; `None`: it leads no visitors to them.
    pub known_here: Option<KnownHere>,
    /// Who is told of callers with a valid token.
    pub know_caller: KnowCaller,
    /// Cancelled when the node takes nothing new; calls that wait for something are answered then.
    pub draining: CancellationToken,
}

/// What all handlers share.
pub(crate) struct Shared {
    pub(crate) state: ApiState,
    pub(crate) limits: Limits,
    pub(crate) logins: Logins,
    pub(crate) previews: Previews,
}
