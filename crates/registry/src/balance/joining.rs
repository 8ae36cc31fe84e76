//! Tunnels that become members of pools by themselves.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::change::take_turn;
use super::{BadTerms, BalanceError, LoadBalancer, LoadBalancerTerms, Pool, PoolTerms};
use crate::record::Record;
use crate::resource::Resource as _;
use crate::{Hostname, LoadBalancerId, PoolId, Registry, RouteWrite, Snapshot, Tunnel, ZoneId};

/// What [`Registry::join_pool`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// With the load balancer of the name.
    pub load_balancer: RouteWrite,
    /// With the pool.
    pub pool: RouteWrite,
}

impl Registry {
    /// Has a tunnel among the members of the pool of this name, and that pool behind a name of this zone. What is missing is made: the
    /// pool, with this member alone, and the load balancer, with this pool alone. What there is keeps all else.
    ///
    /// # Errors
    /// There is no such zone or tunnel, the name is outside of the zone, something would not be valid, or the engine fails.
    pub async fn join_pool(
        &self,
        now: Timestamp,
        zone: ZoneId,
        name: Hostname,
        pool: &str,
        tunnel: Uuid,
    ) -> Result<Joined, BalanceError> {
        PoolTerms::check_name("lb_pool", pool)?;
        let (new_pool, new_balancer) = (PoolId::at(now), LoadBalancerId::at(now));
        self.in_zone(zone, |snapshot, transaction| {
            let of_zone = snapshot.zone(zone).ok_or_else(|| BalanceError::NotFound(format!("zone {zone}")))?;
            let tunnel = live_tunnel(snapshot, tunnel)?;
            if !name.is_within(&of_zone.name) {
                return Err(
                    BadTerms::of("name", format_args!("{name} does not lie in the zone {}", of_zone.name)).into()
                );
            }
            let (pool_id, pool_write) = match snapshot.pool_named(pool) {
                Some(old) if has(&old.terms, tunnel.id) => (old.id, RouteWrite::Unchanged),
                Some(old) => {
                    let mut terms = old.terms.clone();
                    // Of a tunnel that was deleted nothing is left, and its name may be this one's.
                    terms.origins.retain(|origin| origin.tunnel().is_none_or(|id| live_tunnel(snapshot, id).is_ok()));
                    terms.origins.extend(first_pool(pool, tunnel)?.origins);
                    let terms = terms.checked()?;
                    transaction.expect(old).put(&Pool { terms, modified_at: now, ..old.value.clone() });
                    (old.id, RouteWrite::Updated)
                }
                None => {
                    let terms = first_pool(pool, tunnel)?.checked()?;
                    let pool = Pool { id: new_pool, terms, created_at: now, modified_at: now, disabled_at: None };
                    transaction.expect_absent(&pool.key()).put(&pool);
                    (new_pool, RouteWrite::New)
                }
            };
            let balancer_write = match snapshot.load_balancer_named(zone, &name) {
                Some(old) if old.terms.pools().contains(&pool_id) => RouteWrite::Unchanged,
                Some(old) if pool_write == RouteWrite::New && old.terms.needs_places() => {
                    let problem = format_args!(
                        "the load balancer {name} leads to the nearest pool: make one that says where it is first"
                    );
                    return Err(BadTerms::of("lb_pool", problem).into());
                }
                Some(old) => {
                    let mut terms = old.terms.clone();
                    terms.steering.default_pools.push(pool_id);
                    let terms = terms.checked()?;
                    transaction.expect(old).put(&LoadBalancer { terms, modified_at: now, ..old.value.clone() });
                    RouteWrite::Updated
                }
                None => {
                    let (terms, id) = (first_balancer(&name, pool_id)?.checked()?, new_balancer);
                    let balancer = LoadBalancer { id, zone, terms, created_at: now, modified_at: now };
                    transaction.expect_absent(&balancer.key()).put(&balancer);
                    RouteWrite::New
                }
            };
            if !transaction.writes.is_empty() {
                take_turn(snapshot, transaction);
                transaction.expect(of_zone);
            }
            Ok(Joined { load_balancer: balancer_write, pool: pool_write })
        })
        .await
    }

    /// Has a tunnel no more among the members of the pool of this name, as [`Registry::join_pool`] made it one; answers whether it was. It
    /// stays while another connector than this one serves it. The pool stays for the next one, with what else is said of it.
    ///
    /// # Errors
    /// There is no such pool, or the engine fails.
    pub async fn leave_pool(
        &self,
        now: Timestamp,
        pool: &str,
        tunnel: Uuid,
        connector: Option<Uuid>,
    ) -> Result<bool, BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.pool_named(pool).ok_or_else(|| BalanceError::NotFound(format!("pool {pool}")))?;
            let mut terms = old.terms.clone();
            terms.origins.retain(|origin| origin.tunnel() != Some(tunnel) || !origin.header.host.is_empty());
            let is_served = snapshot.connections(tunnel).any(|connection| Some(connection.connector) != connector);
            if is_served || terms == old.terms {
                return Ok(false);
            }
            take_turn(snapshot, transaction);
            transaction.expect(old).put(&Pool { terms, modified_at: now, ..old.value.clone() });
            Ok(true)
        })
        .await
    }
}

fn live_tunnel(snapshot: &Snapshot, id: Uuid) -> Result<&Tunnel, BalanceError> {
    let tunnel = snapshot.tunnel(id).filter(|tunnel| tunnel.deleted_at.is_none());
    tunnel.map(|tunnel| &tunnel.value).ok_or_else(|| BalanceError::NotFound(format!("tunnel {id}")))
}

fn has(terms: &PoolTerms, tunnel: Uuid) -> bool {
    terms.origins.iter().any(|origin| origin.tunnel() == Some(tunnel))
}

/// With what is usual for all that is not said.
fn first_pool(name: &str, tunnel: &Tunnel) -> Result<PoolTerms, BadTerms> {
    let origin = json!({ "name": tunnel.name.as_str(), "address": Record::tunnel_target(tunnel.id) });
    serde_json::from_value(json!({ "name": name, "origins": [origin] })).map_err(BadTerms::new)
}

fn first_balancer(name: &Hostname, pool: PoolId) -> Result<LoadBalancerTerms, BadTerms> {
    let terms = json!({ "name": name, "default_pools": [pool], "fallback_pool": pool, "proxied": true });
    serde_json::from_value(terms).map_err(BadTerms::new)
}
