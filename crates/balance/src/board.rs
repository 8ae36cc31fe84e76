use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use jiff::Timestamp;
use registry::{
    HealthChange, LoadBalancer, LoadBalancerId, MemberId, NodeId, PoolHealth, PoolId, Revision, Snapshot, Versioned,
};

use crate::budget::Budget;
use crate::chronicle::Chronicle;
use crate::news::News;
use crate::plan::{Member, Plan, Ward};
use crate::vitals::{PoolVitals, Vitals};

/// The plans of a node, and what it knows of all members. What is known of one outlives changes of its load balancer, and is shared
/// by all load balancers that lead to its pool.
#[derive(Debug, Default)]
pub struct Board {
    /// The PoP, whose own measurements go before others'.
    here: Box<str>,
    plans: RwLock<HashMap<LoadBalancerId, Made>>,
    known: Mutex<Known>,
    chronicle: Mutex<Chronicle>,
    news: Arc<News>,
}

/// Requests that a member answered at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answered {
    /// Since the node began.
    pub all: u64,
    /// In the latest 5 to 10 minutes.
    pub recent: u64,
}

#[derive(Debug)]
struct Made {
    /// Of load balancing as a whole: a plan is of its pools, too.
    at: Revision,
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Known {
    pools: HashMap<PoolId, Weak<PoolVitals>>,
    members: HashMap<MemberId, Weak<Vitals>>,
    budgets: HashMap<LoadBalancerId, Weak<Mutex<Budget>>>,
}

impl Board {
    /// Of a node in this PoP, such as `ams1`.
    pub fn at(location: &str) -> Self {
        Self { here: location.into(), ..Self::default() }
    }

    /// What has become of members, in numbers.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// The plan of a load balancer as it is in this snapshot. It is made once for each change of load balancing.
    pub fn plan(&self, snapshot: &Snapshot, balancer: &Versioned<LoadBalancer>, now: Timestamp) -> Arc<Plan> {
        let at = snapshot.balance_revision();
        let plans = self.plans.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = plans.get(&balancer.id).filter(|made| made.at == at) {
            return made.plan.clone();
        }
        drop(plans);
        self.make(snapshot, balancer, at, now)
    }

    /// Takes in which members there is a way to, and what those say who ask them. To be called when live state changes
    /// ([`keep_fresh`](crate::prober::keep_fresh) does).
    pub fn refresh(&self, snapshot: &Snapshot, now: Timestamp) {
        let plans: Vec<Arc<Plan>> = {
            let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
            plans.retain(|id, _| snapshot.load_balancer(*id).is_some());
            plans.values().map(|made| made.plan.clone()).collect()
        };
        for plan in plans {
            self.look(&plan, snapshot, now);
        }
        self.known().forget_the_gone();
    }

    /// Takes in who has turned well or not. To be called when live state changes ([`keep_history`](crate::keep_history) does).
    pub fn note_health(&self, snapshot: &Snapshot, now: Timestamp) {
        self.chronicle().note(snapshot, now);
    }

    /// When a member turned well or not, as far as this node saw it: the latest changes, the last one first.
    pub fn health_changes(&self, member: MemberId) -> Vec<HealthChange> {
        self.chronicle().changes(member)
    }

    /// How many requests a member answered at this node.
    pub fn answered(&self, member: MemberId, now: Timestamp) -> Answered {
        let vitals = self.known().members.get(&member).and_then(Weak::upgrade);
        let tally = vitals.as_deref().map(Vitals::answered);
        tally.map(|tally| Answered { all: tally.all(), recent: tally.recent(now) }).unwrap_or_default()
    }

    fn chronicle(&self) -> MutexGuard<'_, Chronicle> {
        self.chronicle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, snapshot: &Snapshot, balancer: &LoadBalancer, at: Revision, now: Timestamp) -> Arc<Plan> {
        let plan = {
            let mut known = self.known();
            let mut ward = Keeper { known: &mut known, news: &self.news };
            Arc::new(Plan::new(snapshot, balancer, &mut ward))
        };
        self.look(&plan, snapshot, now);
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        plans.insert(balancer.id, Made { at, plan: plan.clone() });
        plan
    }

    /// Takes into the vitals of a plan's members what the snapshot says of them.
    fn look(&self, plan: &Plan, snapshot: &Snapshot, now: Timestamp) {
        for pool in &plan.pools {
            let Some(health) = snapshot.health(pool.id) else { continue };
            for (at, member) in health.members.iter().enumerate() {
                let is_it = |planned: &&Arc<Member>| planned.id == member.id;
                // The snapshot may have a later configuration than the plan, and another order.
                let planned = pool.members.get(at).filter(is_it).or_else(|| pool.members.iter().find(is_it));
                let Some(planned) = planned else { continue };
                let probe = member.probe.as_ref();
                let reason = probe.and_then(|probe| probe.reason.as_deref());
                let is_linked = member.link.is_none_or(|link| link.is_up);
                planned.vitals.learn(is_linked, probe.is_none_or(|probe| probe.is_up), reason, now);
            }
            pool.vitals.set_latency(self.latency(pool.id, &health, snapshot));
        }
    }

    /// From question to answer, on average of the members that are up: as this PoP's nodes measure it, else as all do.
    fn latency(&self, pool: PoolId, health: &PoolHealth, snapshot: &Snapshot) -> Option<Duration> {
        let is_here = |node: &NodeId| snapshot.node(*node).is_some_and(|node| node.location == *self.here);
        let reports = snapshot.health_reports(pool).filter(|(node, _)| is_here(node));
        let own: Vec<Duration> = reports
            .flat_map(|(_, report)| report.members.iter().filter(|member| member.is_up))
            .filter_map(|member| Some(Duration::from_millis(member.millis?.into())))
            .collect();
        let all = || health.members.iter().filter_map(|member| member.probe.as_ref().filter(|probe| probe.is_up)?.time);
        let times = if own.is_empty() { all().collect() } else { own };
        let sum: Duration = times.iter().sum();
        sum.checked_div(u32::try_from(times.len()).ok()?)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While a plan is made.
struct Keeper<'a> {
    known: &'a mut Known,
    news: &'a Arc<News>,
}

impl Ward for Keeper<'_> {
    fn pool(&mut self, id: PoolId) -> Arc<PoolVitals> {
        kept(&mut self.known.pools, id, || PoolVitals::new(self.news.clone()))
    }

    fn member(&mut self, id: MemberId, pool: &Arc<PoolVitals>) -> Arc<Vitals> {
        kept(&mut self.known.members, id, || Vitals::new(pool.clone()))
    }

    fn budget(&mut self, id: LoadBalancerId) -> Arc<Mutex<Budget>> {
        kept(&mut self.known.budgets, id, Mutex::default)
    }

    fn news(&self) -> Arc<News> {
        self.news.clone()
    }
}

impl Known {
    fn forget_the_gone(&mut self) {
        self.pools.retain(|_, vitals| vitals.strong_count() > 0);
        self.members.retain(|_, vitals| vitals.strong_count() > 0);
        self.budgets.retain(|_, budget| budget.strong_count() > 0);
    }
}

fn kept<K: std::hash::Hash + Eq, V>(known: &mut HashMap<K, Weak<V>>, key: K, new: impl FnOnce() -> V) -> Arc<V> {
    if let Some(there) = known.get(&key).and_then(Weak::upgrade) {
        return there;
    }
    let new = Arc::new(new());
    known.insert(key, Arc::downgrade(&new));
    new
}
