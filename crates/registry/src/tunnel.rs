use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{CommitError, ConfigSource, Hostname, Registry, Secret, Snapshot, Tunnel, TunnelName};

/// A tunnel to be made.
#[derive(Debug, Clone)]
pub struct NewTunnel {
    /// Unique among the tunnels that are not deleted.
    pub name: TunnelName,
    /// `None`: a random one.
    pub secret: Option<Secret>,
    /// Who configures its connectors.
    pub config_source: ConfigSource,
}

/// Why a tunnel was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Another tunnel has the name.
    #[error("there is a tunnel named {0} already; choose another name, or delete that one first")]
    NameTaken(TunnelName),
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NotFound(Uuid),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a tunnel was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteTunnelError {
    /// No such tunnel.
    #[error("there is no tunnel {0}")]
    NotFound(Uuid),
    /// It has connections.
    #[error("the tunnel has {0} live connections; stop its connectors first, or delete with cascade (-f)")]
    Connected(usize),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a quick tunnel is to be called.
#[derive(Debug, Clone)]
pub enum QuickName {
    /// Two random words.
    Random,
    /// One label under the domain.
    Wished {
        /// The label.
        label: String,
        /// The secret of the tunnel, if the caller has one: with it, asking again for one's own name succeeds.
        secret: Option<Secret>,
    },
}

/// Why a quick tunnel was not made.
#[derive(Debug, thiserror::Error)]
pub enum QuickTunnelError {
    /// The name is in use.
    #[error("{0} is taken; choose another name")]
    Taken(Hostname),
    /// The wished name is not a label.
    #[error("{0}")]
    BadName(#[from] crate::name::BadName),
    /// The domain is no zone here.
    #[error("{0} is not a domain of this edge")]
    NoZone(Hostname),
    /// Too many quick tunnels exist.
    #[error("this edge has {0} quick tunnels, which is the most it takes; stop some, or use a named tunnel")]
    TooMany(usize),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a connection may not serve a tunnel. Peers are told no more than "unauthorized"; logs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelRefused {
    /// No such tunnel.
    #[error("no such tunnel")]
    Unknown,
    /// It was deleted.
    #[error("the tunnel is deleted")]
    Deleted,
    /// The account is not the tunnel's.
    #[error("the account is not the tunnel's")]
    WrongAccount,
    /// The secret is not the tunnel's.
    #[error("the secret is not the tunnel's")]
    WrongSecret,
}

impl Registry {
    /// More quick tunnels than this are not made: whoever may make them need not prove anything, and each costs memory.
    pub const MAX_QUICK_TUNNELS: usize = 10_000;

    /// Makes a tunnel.
    ///
    /// # Errors
    /// The name is taken, or the engine fails.
    pub async fn create_tunnel(&self, now: Timestamp, new: NewTunnel) -> Result<Tunnel, TunnelError> {
        let _ = (now, new);
        todo!()
    }

    /// Gives a tunnel another name, another secret, or both. Connections stay.
    ///
    /// # Errors
    /// No such tunnel, the name is taken, or the engine fails.
    pub async fn change_tunnel(
        &self,
        id: Uuid,
        name: Option<TunnelName>,
        secret: Option<Secret>,
    ) -> Result<Tunnel, TunnelError> {
        let _ = (id, name, secret);
        todo!()
    }

    /// Deletes a tunnel: it stays listed, its name is free again, its routes and configuration are gone. Deleting it
    /// again changes nothing. Without `cascade` it must have no connections; with it, closing them is the caller's part.
    ///
    /// # Errors
    /// No such tunnel, it has connections, or the engine fails.
    pub async fn delete_tunnel(&self, now: Timestamp, id: Uuid, cascade: bool) -> Result<Tunnel, DeleteTunnelError> {
        let _ = (now, id, cascade);
        todo!()
    }

    /// Makes a quick tunnel with a host name directly under this domain, routed to it.
    ///
    /// # Errors
    /// The wished name is taken or not a label, the domain is no zone, there are too many, or the engine fails.
    pub async fn create_quick_tunnel(
        &self,
        now: Timestamp,
        domain: &Hostname,
        name: QuickName,
    ) -> Result<Tunnel, QuickTunnelError> {
        let _ = (now, domain, name);
        todo!()
    }

    /// Removes quick tunnels that have had no connection for this long, and answers which. Time before the registry was opened does
    /// not count, so that a restart gives every agent the same time to come back.
    ///
    /// # Errors
    /// The engine fails; those removed until then stay so.
    pub async fn sweep_quick_tunnels(&self, now: Timestamp, idle: SignedDuration) -> Result<Vec<Uuid>, CommitError> {
        let _ = (now, idle);
        todo!()
    }
}

impl Snapshot {
    /// Checks that whoever shows this secret may serve the tunnel. Takes the same time for every wrong secret.
    ///
    /// # Errors
    /// They may not, and why.
    pub fn authenticate(&self, account_tag: &str, tunnel: Uuid, secret: &[u8]) -> Result<&Tunnel, TunnelRefused> {
        let _ = (account_tag, tunnel, secret);
        todo!()
    }
}
