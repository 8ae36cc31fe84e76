use jiff::Timestamp;
use uuid::Uuid;

use crate::name::Hostname;
use crate::{CommitError, Registry, ZoneId};

/// What writing a route did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteWrite {
    /// There was none of that name.
    New,
    /// It led elsewhere before.
    Updated,
    /// It led there already.
    Unchanged,
}

/// Why a route was not written or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The host name is not in the zone.
    #[error("{hostname} does not lie in the zone {zone}")]
    OutsideZone {
        /// The host name.
        hostname: Hostname,
        /// The zone's name.
        zone: Hostname,
    },
    /// No such zone.
    #[error("there is no zone {0}")]
    NoZone(ZoneId),
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NoTunnel(Uuid),
    /// The name leads to another tunnel.
    #[error("{hostname} leads to the tunnel {tunnel} already; overwrite it (--overwrite-dns), or choose another name")]
    Taken {
        /// The host name.
        hostname: Hostname,
        /// Where it leads.
        tunnel: Uuid,
    },
    /// No such route.
    #[error("there is no route for {0}")]
    NotFound(Hostname),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Leads a host name (or wildcard) to a tunnel. A name that leads elsewhere is changed only with `overwrite`.
    ///
    /// # Errors
    /// No such zone or tunnel, the name is outside the zone or taken, or the engine fails.
    pub async fn put_route(
        &self,
        now: Timestamp,
        zone: ZoneId,
        hostname: Hostname,
        tunnel: Uuid,
        overwrite: bool,
    ) -> Result<RouteWrite, RouteError> {
        let _ = (now, zone, hostname, tunnel, overwrite);
        todo!()
    }

    /// Removes a route.
    ///
    /// # Errors
    /// There is none, or the engine fails.
    pub async fn delete_route(&self, hostname: &Hostname) -> Result<(), RouteError> {
        let _ = hostname;
        todo!()
    }
}
