use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use rand::Rng as _;
use registry::{
    MemberId, MemberReport, MonitorTerms, MonitorType, Pool, PoolId, PoolReport, Registry, Revision, Snapshot,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Asker;
use super::herald::Herald;
use super::question::{Subject, ask};
use crate::health::{Judge, Next};

/// Nodes and pools that begin at once do not ask all members in the same moment: the first round begins within this part of the
/// interval, and within this time.
const FIRST_WITHIN: (u32, Duration) = (10, Duration::from_secs(5));

/// The rounds in which one pool's members are asked. What it said is withdrawn when it is dropped.
pub(super) struct Rounds {
    asker: Arc<Asker>,
    pool: PoolId,
    changed: watch::Receiver<()>,
    judges: HashMap<MemberId, Judge>,
    /// What each of them said when it was last asked.
    reports: HashMap<MemberId, MemberReport>,
    herald: Herald,
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.asker.registry.withdraw_health(self.pool);
    }
}

/// What is configured of a pool, as of these revisions.
struct Terms {
    at: (Revision, Revision),
    pool: Pool,
    monitor: MonitorTerms,
}

impl Terms {
    fn of(snapshot: &Snapshot, id: PoolId) -> Option<Self> {
        let pool = snapshot.pool(id)?;
        let monitor = snapshot.monitor(pool.terms.monitor?)?;
        let at = (pool.revision, monitor.revision);
        Some(Self { at, pool: pool.value.clone(), monitor: monitor.terms.clone() })
    }
}

impl Rounds {
    pub(super) fn new(asker: Arc<Asker>, pool: PoolId, changed: watch::Receiver<()>) -> Self {
        Self { asker, pool, changed, judges: HashMap::new(), reports: HashMap::new(), herald: Herald::default() }
    }

    /// Ends when the pool has no monitor any more.
    pub(super) async fn run(mut self) {
        let registry = self.asker.registry.clone();
        let Some(mut terms) = Terms::of(&registry.snapshot(), self.pool) else { return };
        let (part, most) = FIRST_WITHIN;
        let within = (Duration::from_secs(terms.monitor.interval.into()) / part).min(most);
        let first = rand::rng().random_range(Duration::ZERO..=within);
        sleep(first).await;
        loop {
            let began = Instant::now();
            self.round(&registry, &terms).await;
            let next = began + Duration::from_secs(terms.monitor.interval.into());
            // What is otherwise from now on is asked anew at once.
            let Some(new) = self.wait(&registry, terms, next).await else { return };
            terms = new;
        }
    }

    async fn wait(&mut self, registry: &Registry, terms: Terms, until: Instant) -> Option<Terms> {
        loop {
            tokio::select! {
                () = sleep_until(until) => return Terms::of(&registry.snapshot(), self.pool),
                changed = self.changed.changed() => changed.ok()?,
            }
            let now = Terms::of(&registry.snapshot(), self.pool)?;
            if now.at != terms.at {
                return Some(now);
            }
        }
    }

    /// Asks each member once, or as often as it takes.
    async fn round(&mut self, registry: &Registry, terms: &Terms) {
        // They need sockets that a node has no right to as a rule.
        if matches!(terms.monitor.kind, MonitorType::UdpIcmp | MonitorType::IcmpPing) {
            return;
        }
        let snapshot = registry.snapshot();
        let known = snapshot.health(self.pool);
        let order: Vec<MemberId> = terms.pool.members().map(|(id, _)| id).collect();
        self.judges.retain(|id, _| order.contains(id));
        self.reports.retain(|id, _| order.contains(id));
        let mut under_way = FuturesUnordered::new();
        for (at, (id, origin)) in terms.pool.members().enumerate() {
            let is_linked = origin.tunnel().is_none_or(|tunnel| snapshot.is_connected(tunnel));
            // Nobody is led there in any case; and there is no way into private networks yet.
            if !origin.enabled || !is_linked || origin.virtual_network_id.is_some() {
                self.judges.remove(&id);
                self.reports.remove(&id);
                continue;
            }
            let agreed = known.as_ref().and_then(|known| known.members.get(at)?.probe.as_ref());
            let mut judge = self.judges.remove(&id).unwrap_or_else(|| Judge::new(agreed));
            let (asker, monitor, subject) = (&self.asker, &terms.monitor, Subject::new(origin));
            under_way.push(async move {
                loop {
                    // Only ever closed with the program.
                    let Ok(place) = asker.places.acquire().await else { return (id, judge) };
                    let outcome = ask(asker, &subject, monitor).await;
                    drop(place);
                    if judge.asked(monitor, outcome, Timestamp::now()) == Next::Later {
                        return (id, judge);
                    }
                }
            });
        }
        // Each is told when it is known: one that takes long keeps nobody else waiting.
        while let Some((id, judge)) = under_way.next().await {
            match judge.report(id) {
                Some(report) => drop(self.reports.insert(id, report)),
                None => drop(self.reports.remove(&id)),
            }
            self.judges.insert(id, judge);
            tell(registry, &mut self.herald, self.pool, &self.reports, &order);
        }
        drop(under_way);
        // Of those that are not asked any more nothing is known.
        tell(registry, &mut self.herald, self.pool, &self.reports, &order);
    }
}

/// Tells what is known of a pool's members, in their order, if it is worth it.
fn tell(
    registry: &Registry,
    herald: &mut Herald,
    pool: PoolId,
    reports: &HashMap<MemberId, MemberReport>,
    order: &[MemberId],
) {
    let members = order.iter().filter_map(|id| reports.get(id).cloned()).collect();
    let report = PoolReport { pool, members };
    if herald.tells(&report, Timestamp::now()) {
        registry.report_health(report);
    }
}
