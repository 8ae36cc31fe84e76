use jiff::Timestamp;
use uuid::Uuid;

use crate::resource::{Resource, Route};
use crate::{CommitError, Hostname, Registry, Snapshot, Transaction, ZoneId};

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
        self.change(|snapshot, transaction| {
            let zone = snapshot.zone(zone).ok_or(RouteError::NoZone(zone))?;
            if !hostname.is_within(&zone.name) {
                return Err(RouteError::OutsideZone { hostname: hostname.clone(), zone: zone.name.clone() });
            }
            let target = snapshot.live_tunnel(tunnel).ok_or(RouteError::NoTunnel(tunnel))?;
            // A route to a tunnel that is gone is in nobody's way.
            let leads_to =
                snapshot.route_exactly(&hostname).filter(|route| snapshot.live_tunnel(route.tunnel).is_some());
            let write = match leads_to {
                Some(route) if route.tunnel == tunnel => return Ok(RouteWrite::Unchanged),
                Some(route) if !overwrite => {
                    return Err(RouteError::Taken { hostname: hostname.clone(), tunnel: route.tunnel });
                }
                Some(_) => RouteWrite::Updated,
                None => RouteWrite::New,
            };
            transaction.expect(zone).expect(target);
            let route = Route { hostname: hostname.clone(), tunnel, zone: zone.id, created_at: now };
            write_route(snapshot, transaction, &route);
            Ok(write)
        })
        .await
    }

    /// Removes a route.
    ///
    /// # Errors
    /// There is none, or the engine fails.
    pub async fn delete_route(&self, hostname: &Hostname) -> Result<(), RouteError> {
        self.change(|snapshot, transaction| {
            let route = snapshot.route_exactly(hostname).ok_or_else(|| RouteError::NotFound(hostname.clone()))?;
            transaction.expect(route).delete(&route.key());
            Ok(())
        })
        .await
    }
}

/// Writes a route if what is there under its name is still what the snapshot has.
pub(crate) fn write_route(snapshot: &Snapshot, transaction: &mut Transaction, route: &Route) {
    match snapshot.route_exactly(&route.hostname) {
        Some(old) => transaction.expect(old),
        None => transaction.expect_absent(&route.key()),
    };
    transaction.put(route);
}
