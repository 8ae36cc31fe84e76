use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::resource::{Passthrough, Port, Resource};
use crate::{CommitError, Hostname, Registry, Snapshot, Transaction, Versioned};

/// What the visitors of a public port speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// Byte streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// `tcp` or `udp`.
impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One public port: TCP and UDP have each their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// What its visitors speak.
    pub protocol: PortProtocol,
    /// Its number.
    pub number: u16,
}

impl PortId {
    /// Of TCP.
    pub fn tcp(number: u16) -> Self {
        Self { protocol: PortProtocol::Tcp, number }
    }

    /// Of UDP.
    pub fn udp(number: u16) -> Self {
        Self { protocol: PortProtocol::Udp, number }
    }
}

/// As keys have it: `20000` of TCP, `20000/udp`.
impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            PortProtocol::Tcp => self.number.fmt(f),
            PortProtocol::Udp => write!(f, "{}/udp", self.number),
        }
    }
}

impl FromStr for PortId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_suffix("/udp") {
            Some(number) => number.parse().map(Self::udp),
            None => text.parse().map(Self::tcp),
        }
    }
}

/// A port that a tunnel is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPort {
    /// Which one.
    pub id: PortId,
    /// See [`Port::service`].
    pub service: String,
    /// How visitors are served.
    pub options: PortOptions,
}

/// Which form of the PROXY protocol tells an origin who its visitor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How visitors of a public port are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOptions {
    /// What the origin is told about each visitor.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections, or flows, at once.
    #[serde(default = "PortOptions::usual_connections")]
    pub max_connections: usize,
    /// Seconds without a byte after which a connection is cut; zero is never. Seconds without a datagram after which a flow
    /// ends.
    #[serde(default = "PortOptions::usual_idle")]
    pub idle_seconds: u64,
}

impl PortOptions {
    /// A tenth of what a node takes by default, so that one port does not keep everybody else out.
    pub const MAX_CONNECTIONS: usize = 1_000;
    /// People leave terminals open over lunch; who wants more turns on keep-alive, or asks for more.
    pub const IDLE: Duration = Duration::from_secs(3_600);

    /// What RFC 4787 (REQ-5) demands at least of whatever holds UDP flows on the way.
    pub const FLOW_IDLE: Duration = Duration::from_secs(120);

    /// What a port has for which nothing else was said.
    pub fn usual(protocol: PortProtocol) -> Self {
        match protocol {
            PortProtocol::Tcp => Self::default(),
            PortProtocol::Udp => Self { idle_seconds: Self::FLOW_IDLE.as_secs(), ..Self::default() },
        }
    }

    fn usual_connections() -> usize {
        Self::MAX_CONNECTIONS
    }

    fn usual_idle() -> u64 {
        Self::IDLE.as_secs()
    }
}

impl Default for PortOptions {
    fn default() -> Self {
        Self { proxy_protocol: None, max_connections: Self::usual_connections(), idle_seconds: Self::usual_idle() }
    }
}

/// Why a port was not given to a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another tunnel has it.
    #[error("port {0} belongs to another tunnel; choose another one")]
    Taken(PortId),
    /// This tunnel has it.
    #[error("port {0} belongs to this tunnel already; choose another one, or remove it first")]
    ItsOwn(PortId),
    /// Another tunnel, or nobody, has it.
    #[error("port {0} does not belong to this tunnel")]
    NotItsPort(PortId),
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NoTunnel(Uuid),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Gives a tunnel these public ports. What it had before and is not among them is free again.
    ///
    /// # Errors
    /// Another tunnel has one of them, no such tunnel, or the engine fails.
    pub async fn put_ports(&self, now: Timestamp, tunnel: Uuid, ports: &[NewPort]) -> Result<(), PortError> {
        self.change(|snapshot, transaction| {
            snapshot.live_tunnel(tunnel).ok_or(PortError::NoTunnel(tunnel))?;
            for port in ports {
                put_port(snapshot, transaction, now, tunnel, port)?;
            }
            for other in snapshot.ports_of(tunnel).filter(|other| ports.iter().all(|port| port.id != other.id())) {
                transaction.expect(other).delete(&other.key());
            }
            Ok(())
        })
        .await
    }

    /// Gives a tunnel one more public port, beside those that it has.
    ///
    /// # Errors
    /// It has this port already, another tunnel has it, no such tunnel, or the engine fails.
    pub async fn add_port(&self, now: Timestamp, tunnel: Uuid, port: &NewPort) -> Result<(), PortError> {
        self.change(|snapshot, transaction| {
            if snapshot.port(port.id).is_some_and(|old| old.tunnel == tunnel) {
                return Err(PortError::ItsOwn(port.id));
            }
            put_port(snapshot, transaction, now, tunnel, port)
        })
        .await
    }

    /// Frees a port of this tunnel.
    ///
    /// # Errors
    /// It has no such port, or the engine fails.
    pub async fn delete_port(&self, tunnel: Uuid, id: PortId) -> Result<(), PortError> {
        self.change(|snapshot, transaction| {
            let port = snapshot.port(id).filter(|port| port.tunnel == tunnel).ok_or(PortError::NotItsPort(id))?;
            transaction.expect(port).delete(&port.key());
            Ok(())
        })
        .await
    }
}

/// Writes a port of a tunnel, unless it is there as it is to be.
fn put_port(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    now: Timestamp,
    tunnel: Uuid,
    NewPort { id, service, options }: &NewPort,
) -> Result<(), PortError> {
    let owner = snapshot.live_tunnel(tunnel).ok_or(PortError::NoTunnel(tunnel))?;
    let old = snapshot.port(*id);
    if old.is_some_and(|old| old.tunnel != tunnel && snapshot.live_tunnel(old.tunnel).is_some()) {
        return Err(PortError::Taken(*id));
    }
    let created_at = old.filter(|old| old.tunnel == tunnel).map_or(now, |old| old.created_at);
    let new = Port {
        number: id.number,
        protocol: id.protocol,
        tunnel,
        service: service.clone(),
        options: options.clone(),
        created_at,
    };
    if old.is_some_and(|old| old.value == new) {
        return Ok(());
    }
    match old {
        Some(old) => transaction.expect(old),
        None => transaction.expect_absent(&new.key()),
    };
    transaction.expect(owner).put(&new);
    Ok(())
}

/// Why the TLS of a name was not left to an origin, or to the edge again.
#[derive(Debug, thiserror::Error)]
pub enum PassthroughError {
    /// The name does not lead to this tunnel.
    #[error("{hostname} does not lead to the tunnel {tunnel}")]
    NotItsName {
        /// The name.
        hostname: Hostname,
        /// The tunnel.
        tunnel: Uuid,
    },
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Leaves the TLS of visitors for this name to the tunnel's origin; without options, to the edge again.
    ///
    /// # Errors
    /// The name does not lead to this tunnel, or the engine fails.
    pub async fn put_passthrough(
        &self,
        hostname: &Hostname,
        tunnel: Uuid,
        options: Option<PortOptions>,
    ) -> Result<(), PassthroughError> {
        self.change(|snapshot, transaction| {
            let route = snapshot.route_exactly(hostname).filter(|route| route.tunnel == tunnel);
            let route = route.ok_or_else(|| PassthroughError::NotItsName { hostname: hostname.clone(), tunnel })?;
            let old = snapshot.passthrough_entry(hostname);
            let new = options.clone().map(|options| Passthrough { hostname: hostname.clone(), tunnel, options });
            if old.map(|old| &old.value) == new.as_ref() {
                return Ok(());
            }
            match (old, &new) {
                (Some(old), _) => transaction.expect(old),
                (None, Some(new)) => transaction.expect_absent(&new.key()),
                (None, None) => return Ok(()),
            };
            // The record that leads the name there stays as it is, or this does not happen.
            let name = snapshot.record_set_with(route.zone, route.record);
            transaction
                .expect(name.ok_or_else(|| PassthroughError::NotItsName { hostname: hostname.clone(), tunnel })?);
            match (new, old) {
                (Some(new), _) => transaction.put(&new),
                (None, Some(old)) => transaction.delete(&old.key()),
                (None, None) => return Ok(()),
            };
            Ok(())
        })
        .await
    }
}

impl Snapshot {
    /// The ports of a tunnel.
    pub fn ports_of(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<Versioned<Port>>> {
        self.ports().filter(move |port| port.tunnel == tunnel)
    }
}
