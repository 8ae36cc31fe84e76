//! What load balancing consists of.

use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};

use super::{decode, parse, set, set_ordered};
use crate::balance::{LoadBalancer, Monitor, Origin, Pool, Referrer, Turn};
use crate::engine::Revision;
use crate::resource::{Resource as _, Versioned};
use crate::{Hostname, LabelWord, LoadBalancerId, MemberId, MonitorId, PoolId, Snapshot, ZoneId};

/// Ids begin with the time, so the order of ids is that in which things were made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Balance {
    turn: Option<Arc<Versioned<Turn>>>,
    monitors: OrdMap<MonitorId, Arc<Versioned<Monitor>>>,
    pools: OrdMap<PoolId, Arc<Versioned<Pool>>>,
    pool_names: HashMap<Box<str>, PoolId>,
    /// Of each pool, in the order of its origins: a hash each, which is not to be worked out whenever somebody looks at it.
    members: HashMap<PoolId, Arc<[MemberId]>>,
    monitored: OrdSet<(MonitorId, PoolId)>,
    /// Those of deleted zones are here, too, as long as they are in the registry.
    balancers: OrdMap<LoadBalancerId, Arc<Versioned<LoadBalancer>>>,
    /// By name, and by the name below which a wildcard is; the same one may be in two zones that lie in each other.
    exact: HashMap<Box<str>, OrdMap<ZoneId, LoadBalancerId>>,
    wildcards: HashMap<Box<str>, OrdMap<ZoneId, LoadBalancerId>>,
    /// With the labels of their names from the last one on, so that what lies under a name follows it.
    from_last: OrdSet<(ZoneId, Box<str>)>,
    of_zones: OrdSet<(ZoneId, LoadBalancerId)>,
    with_pools: OrdSet<(PoolId, LoadBalancerId)>,
}

impl Snapshot {
    /// What an origin's label of this key says: its own, or that of its tunnel.
    pub fn label<'a>(&'a self, origin: &'a Origin, key: &LabelWord) -> Option<&'a LabelWord> {
        let of_tunnel = || self.live_tunnel(origin.tunnel()?)?.labels.get(key);
        origin.labels.get(key).or_else(of_tunnel)
    }

    /// A monitor by its id.
    pub fn monitor(&self, id: MonitorId) -> Option<&Arc<Versioned<Monitor>>> {
        self.balance.monitors.get(&id)
    }

    /// All monitors, the oldest first.
    pub fn monitors(&self) -> impl Iterator<Item = &Arc<Versioned<Monitor>>> {
        self.balance.monitors.values()
    }

    /// The pools that refer to a monitor.
    pub fn pools_with(&self, monitor: MonitorId) -> impl Iterator<Item = &Arc<Versioned<Pool>>> {
        let first = (monitor, PoolId::from_bytes([0; 16]));
        let pools = self.balance.monitored.range(first..).take_while(move |(id, _)| *id == monitor);
        pools.filter_map(|(_, pool)| self.pool(*pool))
    }

    /// What refers to a monitor.
    pub fn referrers_of_monitor(&self, id: MonitorId) -> impl Iterator<Item = Referrer> {
        self.pools_with(id).map(|pool| Referrer::Pool { id: pool.id, name: pool.terms.name.clone() })
    }

    /// A pool by its id.
    pub fn pool(&self, id: PoolId) -> Option<&Arc<Versioned<Pool>>> {
        self.balance.pools.get(&id)
    }

    /// The pool of this name.
    pub fn pool_named(&self, name: &str) -> Option<&Arc<Versioned<Pool>>> {
        self.pool(*self.balance.pool_names.get(name)?)
    }

    /// The members of a pool, in the order of its origins.
    pub(crate) fn members(&self, pool: PoolId) -> Arc<[MemberId]> {
        self.balance.members.get(&pool).cloned().unwrap_or_default()
    }

    /// All pools, the oldest first.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Versioned<Pool>>> {
        self.balance.pools.values()
    }

    /// The load balancers that refer to a pool.
    pub fn load_balancers_with(&self, pool: PoolId) -> impl Iterator<Item = &Arc<Versioned<LoadBalancer>>> {
        let first = (pool, LoadBalancerId::from_bytes([0; 16]));
        let balancers = self.balance.with_pools.range(first..).take_while(move |(id, _)| *id == pool);
        balancers.filter_map(|(_, balancer)| self.load_balancer(*balancer))
    }

    /// What refers to a pool.
    pub fn referrers_of_pool(&self, id: PoolId) -> impl Iterator<Item = Referrer> {
        self.load_balancers_with(id)
            .map(|balancer| Referrer::LoadBalancer { id: balancer.id, name: balancer.terms.name.clone() })
    }

    /// A load balancer by its id.
    pub fn load_balancer(&self, id: LoadBalancerId) -> Option<&Arc<Versioned<LoadBalancer>>> {
        self.balance.balancers.get(&id).filter(|balancer| self.zone(balancer.zone).is_some())
    }

    /// The load balancer of this name in a zone.
    pub fn load_balancer_named(&self, zone: ZoneId, name: &Hostname) -> Option<&Arc<Versioned<LoadBalancer>>> {
        self.load_balancer(self.balance.named(zone, name)?)
    }

    /// Whether any load balancer of a zone has a name under this one.
    pub fn has_load_balancer_under(&self, zone: ZoneId, name: &str) -> bool {
        let under: Box<str> = format!("{}.", from_last(name)).into();
        let mut following = self.balance.from_last.range((zone, under.clone())..);
        following.next().is_some_and(|(other, name)| *other == zone && name.starts_with(&*under))
    }

    /// The load balancer that a visitor's host name comes to, if it is to be led by one: enabled, and through the edge. One of
    /// exactly this name goes before records, one of a wildcard before records of the same or a higher wildcard. The name must be
    /// in the form that [`Hostname`] has, as for [`Snapshot::route`].
    pub fn balancer_of(&self, host: &str) -> Option<&Arc<Versioned<LoadBalancer>>> {
        let balance = &self.balance;
        if balance.exact.is_empty() && balance.wildcards.is_empty() {
            return None;
        }
        let zone = self.zone_of(host)?;
        let leading = |names: &HashMap<Box<str>, OrdMap<ZoneId, LoadBalancerId>>, name: &str| {
            let id = *names.get(name)?.get(&zone.id)?;
            balance.balancers.get(&id).filter(|balancer| balancer.terms.enabled && balancer.terms.proxied)
        };
        let exact = leading(&balance.exact, host);
        if exact.is_some() || self.exact_route(host).is_some() {
            return exact;
        }
        let mut name = host;
        while name != zone.name.as_str() {
            name = name.split_once('.')?.1;
            let wildcard = leading(&balance.wildcards, name);
            if wildcard.is_some() || self.wildcard_route(name).is_some() {
                return wildcard;
            }
        }
        None
    }

    /// All load balancers, the oldest first.
    pub fn load_balancers(&self) -> impl Iterator<Item = &Arc<Versioned<LoadBalancer>>> {
        self.balance.balancers.values().filter(|balancer| self.zone(balancer.zone).is_some())
    }

    /// The load balancers of a zone, the oldest first.
    pub fn load_balancers_of(&self, zone: ZoneId) -> impl Iterator<Item = &Arc<Versioned<LoadBalancer>>> {
        self.balancer_entries(zone).filter(|balancer| self.zone(balancer.zone).is_some())
    }

    /// The same, or what is left of them.
    pub(crate) fn balancer_entries(&self, zone: ZoneId) -> impl Iterator<Item = &Arc<Versioned<LoadBalancer>>> {
        let first = (zone, LoadBalancerId::from_bytes([0; 16]));
        let balancers = self.balance.of_zones.range(first..).take_while(move |(id, _)| *id == zone);
        balancers.filter_map(|(_, id)| self.balance.balancers.get(id))
    }

    /// When anything of load balancing was last changed.
    pub fn balance_revision(&self) -> Revision {
        self.balance.turn.as_ref().map_or(0, |turn| turn.revision)
    }

    pub(crate) fn balance_turn(&self) -> Option<&Arc<Versioned<Turn>>> {
        self.balance.turn.as_ref()
    }
}

impl Balance {
    /// Takes in an entry, if it is one of these.
    pub(super) fn write(
        &mut self,
        kind: &str,
        id: &str,
        value: Option<&[u8]>,
        revision: Revision,
    ) -> Result<(), String> {
        match kind {
            Turn::KIND => self.turn = decode(value, revision)?,
            Monitor::KIND => set_ordered(&mut self.monitors, parse(id)?, decode(value, revision)?),
            Pool::KIND => self.set_pool(parse(id)?, decode(value, revision)?),
            LoadBalancer::KIND => self.set_balancer(parse(id)?, decode(value, revision)?),
            // A later version of this program may keep more in the same file.
            _ => (),
        }
        Ok(())
    }

    fn set_pool(&mut self, id: PoolId, pool: Option<Arc<Versioned<Pool>>>) {
        if let Some(old) = self.pools.get(&id) {
            // One that was renamed in the same moment has the name already.
            if self.pool_names.get(&old.terms.name) == Some(&id) {
                self.pool_names.remove(&old.terms.name);
            }
            if let Some(monitor) = old.terms.monitor {
                self.monitored.remove(&(monitor, id));
            }
        }
        if let Some(new) = &pool {
            self.pool_names.insert(new.terms.name.clone(), id);
            if let Some(monitor) = new.terms.monitor {
                self.monitored.insert((monitor, id));
            }
        }
        set(&mut self.members, id, pool.as_ref().map(|pool| pool.members().map(|(id, _)| id).collect()));
        set_ordered(&mut self.pools, id, pool);
    }

    fn set_balancer(&mut self, id: LoadBalancerId, balancer: Option<Arc<Versioned<LoadBalancer>>>) {
        if let Some(old) = self.balancers.get(&id).cloned() {
            // One that was renamed in the same moment has the name already.
            if self.named(old.zone, &old.terms.name) == Some(id) {
                self.set_name(old.zone, &old.terms.name, None);
            }
            self.of_zones.remove(&(old.zone, id));
            for pool in old.terms.pools() {
                self.with_pools.remove(&(pool, id));
            }
        }
        if let Some(new) = &balancer {
            self.set_name(new.zone, &new.terms.name, Some(id));
            self.of_zones.insert((new.zone, id));
            for pool in new.terms.pools() {
                self.with_pools.insert((pool, id));
            }
        }
        set_ordered(&mut self.balancers, id, balancer);
    }

    fn named(&self, zone: ZoneId, name: &Hostname) -> Option<LoadBalancerId> {
        let names = if name.wildcard_parent().is_some() { &self.wildcards } else { &self.exact };
        names.get(bare(name))?.get(&zone).copied()
    }

    fn set_name(&mut self, zone: ZoneId, name: &Hostname, id: Option<LoadBalancerId>) {
        let reversed = (zone, from_last(name.as_str()));
        match id {
            Some(_) => drop(self.from_last.insert(reversed)),
            None => drop(self.from_last.remove(&reversed)),
        }
        let names = if name.wildcard_parent().is_some() { &mut self.wildcards } else { &mut self.exact };
        let mut of_zones = names.get(bare(name)).cloned().unwrap_or_default();
        set_ordered(&mut of_zones, zone, id);
        set(names, bare(name).into(), Some(of_zones).filter(|of_zones| !of_zones.is_empty()));
    }
}

/// A name, or the one below which a wildcard is.
fn bare(name: &Hostname) -> &str {
    name.wildcard_parent().unwrap_or(name.as_str())
}

/// The labels of a name from the last one on.
fn from_last(name: &str) -> Box<str> {
    name.rsplit('.').collect::<Vec<_>>().join(".").into()
}
