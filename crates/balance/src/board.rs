use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use jiff::Timestamp;
use registry::{LoadBalancer, LoadBalancerId, MemberId, PoolId, Revision, Snapshot, Versioned};

use crate::plan::{Plan, Target, Ward};
use crate::vitals::{PoolVitals, Vitals};

/// The plans of a node, and what it knows of all members. What is known of one outlives changes of its load balancer, and is shared
/// by all load balancers that lead to its pool.
#[derive(Debug, Default)]
pub struct Board {
    plans: RwLock<HashMap<LoadBalancerId, Made>>,
    known: Mutex<Known>,
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
}

impl Board {
    /// The plan of a load balancer as it is in this snapshot. It is made once for each change of load balancing.
    pub fn plan(&self, snapshot: &Snapshot, balancer: &Versioned<LoadBalancer>) -> Arc<Plan> {
        let at = snapshot.balance_revision();
        let plans = self.plans.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = plans.get(&balancer.id).filter(|made| made.at == at) {
            return made.plan.clone();
        }
        drop(plans);
        self.make(snapshot, balancer, at)
    }

    /// Takes in which members there is a way to. To be called when live state changes.
    pub fn refresh(&self, snapshot: &Snapshot, now: Timestamp) {
        let plans: Vec<Arc<Plan>> = {
            let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
            plans.retain(|id, _| snapshot.load_balancer(*id).is_some());
            plans.values().map(|made| made.plan.clone()).collect()
        };
        for plan in plans {
            look(&plan, snapshot, now);
        }
        self.known().forget_the_gone();
    }

    fn make(&self, snapshot: &Snapshot, balancer: &LoadBalancer, at: Revision) -> Arc<Plan> {
        let plan = Arc::new(Plan::new(snapshot, balancer, &mut *self.known()));
        look(&plan, snapshot, Timestamp::UNIX_EPOCH);
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        plans.insert(balancer.id, Made { at, plan: plan.clone() });
        plan
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes into the vitals of a plan's members what the snapshot says of them.
fn look(plan: &Plan, snapshot: &Snapshot, now: Timestamp) {
    for member in plan.members() {
        if let Target::Tunnel(tunnel) = member.target {
            member.vitals.set_linked(snapshot.is_connected(tunnel), now);
        }
    }
}

impl Ward for Known {
    fn pool(&mut self, id: PoolId) -> Arc<PoolVitals> {
        kept(&mut self.pools, id, PoolVitals::default)
    }

    fn member(&mut self, id: MemberId, pool: &Arc<PoolVitals>) -> Arc<Vitals> {
        kept(&mut self.members, id, || Vitals::new(pool.clone()))
    }
}

impl Known {
    fn forget_the_gone(&mut self) {
        self.pools.retain(|_, vitals| vitals.strong_count() > 0);
        self.members.retain(|_, vitals| vitals.strong_count() > 0);
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
