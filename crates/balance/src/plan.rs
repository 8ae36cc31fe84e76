use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use geo::Place;
use jiff::Timestamp;
use registry::{
    LabelWord, LoadBalancer, LoadBalancerId, LoadShedding, LocationMode, LocationStrategy, MemberId, Origin,
    OriginPolicy, Pool, PoolId, PreferEcs, Snapshot, Steering, SteeringPolicy,
};
use uuid::Uuid;

use crate::affinity::Sessions;
use crate::budget::Budget;
use crate::choice::split::Split;
use crate::choice::{Walk, hash};
use crate::news::News;
use crate::visitor::Visitor;
use crate::vitals::{PoolVitals, UnderWay, Vitals};

/// What a load balancer does, made ready once for each change of it or its pools, so that a request looks up next to nothing.
#[derive(Debug)]
pub struct Plan {
    /// Which load balancer.
    pub balancer: LoadBalancerId,
    /// Every pool that visitors may be led to, each once. The lists below are of places in this one.
    pub(crate) pools: Vec<PlannedPool>,
    pub(crate) policy: SteeringPolicy,
    pub(crate) default: Vec<usize>,
    pub(crate) fallback: Option<usize>,
    /// By codes in capitals.
    pub(crate) by_pop: HashMap<Box<str>, Vec<usize>>,
    pub(crate) by_country: HashMap<Box<str>, Vec<usize>>,
    pub(crate) by_region: HashMap<Box<str>, Vec<usize>>,
    pub(crate) sessions: Sessions,
    pub(crate) is_across_pools: bool,
    location: LocationStrategy,
    by_member: HashMap<MemberId, Candidate>,
    budget: Arc<Mutex<Budget>>,
    news: Arc<News>,
}

/// The places of a pool in its plan, and of a member in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) pool: usize,
    pub(crate) member: usize,
}

#[derive(Debug)]
pub(crate) struct PlannedPool {
    pub(crate) id: PoolId,
    /// As good as random, and the same at all nodes.
    pub(crate) key: u64,
    pub(crate) is_enabled: bool,
    /// With fewer that are well, the pool is not.
    pub(crate) minimum: usize,
    pub(crate) weight: f64,
    pub(crate) place: Option<Place>,
    pub(crate) shedding: LoadShedding,
    pub(crate) policy: OriginPolicy,
    pub(crate) split: Option<Split>,
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) vitals: Arc<PoolVitals>,
}

/// An origin of a pool, to which visitors are led.
#[derive(Debug)]
pub struct Member {
    /// Of which pool.
    pub pool: PoolId,
    /// Which.
    pub id: MemberId,
    /// Where it is.
    pub target: Target,
    /// What it is told of the host instead of what the visitor asked for; may have a port.
    pub host: Option<Box<str>>,
    /// Its value of the label by which its pool's visitors are shared out; `None`: it has none, or they are not.
    pub value: Option<LabelWord>,
    pub(crate) weight: f64,
    pub(crate) admission: Admission,
    pub(crate) vitals: Arc<Vitals>,
}

/// Whether visitors are led to a member, as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    /// Only those that have a session there, until then.
    Draining(Timestamp),
    Closed,
}

/// Whose place decides, where DNS alone leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of the network that the resolver names.
    Network,
    /// The resolver's.
    Resolver,
    /// The PoP's.
    Pop,
}

/// Where a member is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Behind this tunnel, whose agent chooses by the host.
    Tunnel(Uuid),
    /// At this address and port; 0 is the protocol's own.
    Address(IpAddr, u16),
    /// At the addresses of this name, at this port; 0 is the protocol's own.
    Name(Box<str>, u16),
}

impl Target {
    /// Where an origin is.
    pub fn of(origin: &Origin) -> Self {
        match (origin.tunnel(), origin.address.parse()) {
            (Some(tunnel), _) => Self::Tunnel(tunnel),
            (None, Ok(address)) => Self::Address(address, origin.port),
            (None, Err(_)) => Self::Name(origin.address.clone(), origin.port),
        }
    }

    /// The tunnel behind which it is, if it is behind one.
    pub fn tunnel(&self) -> Option<Uuid> {
        match self {
            Self::Tunnel(tunnel) => Some(*tunnel),
            Self::Address(..) | Self::Name(..) => None,
        }
    }
}

impl Member {
    /// Counts a request that goes there now.
    pub fn begin(&self) -> UnderWay {
        UnderWay::new(self.vitals.clone())
    }

    /// Whether visitors are led to it as long as there are others.
    pub fn has_weight(&self) -> bool {
        self.weight > 0.0
    }

    /// What is known of it.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}

/// Where what is known of members and pools outlives a change of what is configured.
pub(crate) trait Ward {
    fn pool(&mut self, id: PoolId) -> Arc<PoolVitals>;
    fn member(&mut self, id: MemberId, pool: &Arc<PoolVitals>) -> Arc<Vitals>;
    fn budget(&mut self, id: LoadBalancerId) -> Arc<Mutex<Budget>>;
    fn news(&self) -> Arc<News>;
}

impl Plan {
    /// For a load balancer as it and its pools are in this snapshot.
    pub(crate) fn new(snapshot: &Snapshot, balancer: &LoadBalancer, ward: &mut dyn Ward) -> Self {
        let steering = &balancer.terms.steering;
        let pools: Vec<&Pool> =
            balancer.terms.pools().into_iter().filter_map(|id| Some(&snapshot.pool(id)?.value)).collect();
        let places: HashMap<PoolId, usize> = pools.iter().enumerate().map(|(at, pool)| (pool.id, at)).collect();
        let list = |ids: &[PoolId]| -> Vec<usize> { ids.iter().filter_map(|id| places.get(id).copied()).collect() };
        let by_code = |codes: &std::collections::BTreeMap<Box<str>, Vec<PoolId>>| {
            codes.iter().map(|(code, ids)| (code.to_ascii_uppercase().into(), list(ids))).collect()
        };
        let pools: Vec<_> = pools.into_iter().map(|pool| PlannedPool::new(pool, steering, snapshot, ward)).collect();
        let members = pools.iter().enumerate().flat_map(|(at, pool)| {
            let places = pool.members.iter().enumerate();
            places.map(move |(member, it)| (it.id, Candidate { pool: at, member }))
        });
        Self {
            balancer: balancer.id,
            by_member: members.collect(),
            policy: policy(steering),
            default: list(&steering.default_pools),
            fallback: places.get(&steering.fallback_pool).copied(),
            by_pop: by_code(&steering.pop_pools),
            by_country: by_code(&steering.country_pools),
            by_region: by_code(&steering.region_pools),
            sessions: Sessions::new(steering),
            is_across_pools: steering.adaptive_routing.failover_across_pools,
            location: steering.location_strategy,
            budget: ward.budget(balancer.id),
            news: ward.news(),
            pools,
        }
    }

    /// The members to which a visitor is led, the first one and those for when it fails. `random` is any number.
    pub fn walk<'a>(&'a self, visitor: &Visitor<'_>, now: Timestamp, random: u64) -> Walk<'a> {
        Walk::new(self, visitor, now, random)
    }

    /// Whose place decides for those who ask by DNS, for whom their resolver names a network or does not.
    pub fn whose_place(&self, names_network: bool) -> Whose {
        let prefers_network = match self.location.prefer_ecs {
            PreferEcs::Always => true,
            PreferEcs::Never => false,
            PreferEcs::Proximity => self.policy == SteeringPolicy::Proximity,
            PreferEcs::Geo => self.policy == SteeringPolicy::Geo,
        };
        match self.location.mode {
            _ if names_network && prefers_network => Whose::Network,
            LocationMode::ResolverIp => Whose::Resolver,
            LocationMode::Pop => Whose::Pop,
        }
    }

    /// Whether visitors are led by who they are, besides by where they are.
    pub fn tells_visitors_apart(&self) -> bool {
        let by_hash =
            |pool: &PlannedPool| pool.policy == OriginPolicy::Hash || pool.shedding != LoadShedding::default();
        self.sessions.are_kept() || self.pools.iter().any(by_hash)
    }

    /// Counts a request, so that some others may go again.
    pub fn count_request(&self, now: Timestamp) {
        self.budget(|budget| budget.count_request(now));
    }

    /// Whether one more request may go again; if so, it counts.
    pub fn may_retry(&self, now: Timestamp) -> bool {
        let is_granted = self.budget(|budget| budget.take(now));
        self.news.retry(is_granted);
        is_granted
    }

    /// The members of all its pools.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.pools.iter().flat_map(|pool| &pool.members)
    }

    pub(crate) fn member(&self, candidate: Candidate) -> &Arc<Member> {
        &self.pools[candidate.pool].members[candidate.member]
    }

    pub(crate) fn find(&self, id: MemberId) -> Option<Candidate> {
        self.by_member.get(&id).copied()
    }

    fn budget<T>(&self, ask: impl FnOnce(&mut Budget) -> T) -> T {
        ask(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn policy(steering: &Steering) -> SteeringPolicy {
    let has_places =
        [&steering.region_pools, &steering.country_pools, &steering.pop_pools].iter().any(|pools| !pools.is_empty());
    match steering.steering_policy {
        SteeringPolicy::Usual if has_places => SteeringPolicy::Geo,
        SteeringPolicy::Usual => SteeringPolicy::Off,
        other => other,
    }
}

impl PlannedPool {
    fn new(pool: &Pool, steering: &Steering, snapshot: &Snapshot, ward: &mut dyn Ward) -> Self {
        let terms = &pool.terms;
        let vitals = ward.pool(pool.id);
        vitals.set_name(&terms.name);
        let drain = steering.session_affinity_attributes.drain_duration.unwrap_or_default();
        let split = terms.label_steering.as_ref();
        let members: Vec<_> = pool
            .members()
            .map(|(id, origin)| {
                let of_member = ward.member(id, &vitals);
                of_member.set_name(if origin.name.is_empty() { &origin.address } else { &origin.name });
                let member = Member {
                    pool: pool.id,
                    id,
                    target: Target::of(origin),
                    host: origin.header.host.first().cloned(),
                    value: split.and_then(|split| snapshot.label(origin, &split.key).cloned()),
                    weight: origin.weight,
                    admission: admission(origin, drain),
                    vitals: of_member,
                };
                Arc::new(member)
            })
            .collect();
        vitals.set_size(members.iter().filter(|member| member.admission == Admission::Open).count());
        let random = &steering.random_steering;
        let place = terms.latitude.zip(terms.longitude);
        Self {
            id: pool.id,
            key: hash::mix(pool.id.to_bits() as u64 ^ (pool.id.to_bits() >> 64) as u64),
            is_enabled: terms.enabled,
            minimum: terms.minimum_origins as usize,
            weight: random.pool_weights.get(&pool.id).copied().unwrap_or(random.default_weight),
            place: place.and_then(|(latitude, longitude)| Place::new(latitude, longitude)),
            shedding: terms.load_shedding.clone(),
            policy: terms.origin_steering.policy,
            split: split.map(|split| Split::new(split, members.iter().map(|member| member.value.clone()), drain)),
            members,
            vitals,
        }
    }
}

fn admission(origin: &Origin, drain: u32) -> Admission {
    // There is no way into private networks yet.
    if origin.virtual_network_id.is_some() {
        return Admission::Closed;
    }
    match origin.disabled_at {
        _ if origin.enabled => Admission::Open,
        Some(since) => {
            let time = jiff::SignedDuration::from_secs(drain.into());
            Admission::Draining(since.saturating_add(time).unwrap_or(since))
        }
        None => Admission::Closed,
    }
}
