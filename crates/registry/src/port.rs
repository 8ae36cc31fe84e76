use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::resource::{Passthrough, Port, Resource};
use crate::{CommitError, Hostname, Registry, Snapshot, Versioned};

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
    /// Connections at once.
    #[serde(default = "PortOptions::usual_connections")]
    pub max_connections: usize,
    /// Seconds without a byte after which a connection is cut; zero is never.
    #[serde(default = "PortOptions::usual_idle")]
    pub idle_seconds: u64,
}

impl PortOptions {
    /// A tenth of what a node takes by default, so that one port does not keep everybody else out.
    pub const MAX_CONNECTIONS: usize = 1_000;
    /// People leave terminals open over lunch; who wants more turns on keep-alive, or asks for more.
    pub const IDLE: Duration = Duration::from_secs(3_600);

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
    Taken(u16),
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NoTunnel(Uuid),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Gives a tunnel this public port, which leads to the service that its agents have for a name. A port that it had
    /// before is free again.
    ///
    /// # Errors
    /// Another tunnel has it, no such tunnel, or the engine fails.
    pub async fn put_port(
        &self,
        now: Timestamp,
        number: u16,
        tunnel: Uuid,
        service: &str,
        options: PortOptions,
    ) -> Result<(), PortError> {
        self.change(|snapshot, transaction| {
            let owner = snapshot.live_tunnel(tunnel).ok_or(PortError::NoTunnel(tunnel))?;
            let old = snapshot.port(number);
            if old.is_some_and(|old| old.tunnel != tunnel && snapshot.live_tunnel(old.tunnel).is_some()) {
                return Err(PortError::Taken(number));
            }
            let created_at = old.filter(|old| old.tunnel == tunnel).map_or(now, |old| old.created_at);
            let new = Port { number, tunnel, service: service.to_owned(), options: options.clone(), created_at };
            if old.is_some_and(|old| old.value == new) {
                return Ok(());
            }
            match old {
                Some(old) => transaction.expect(old),
                None => transaction.expect_absent(&new.key()),
            };
            transaction.expect(owner).put(&new);
            for other in snapshot.ports_of(tunnel).filter(|other| other.number != number) {
                transaction.expect(other).delete(&other.key());
            }
            Ok(())
        })
        .await
    }
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
            transaction.expect(route);
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
