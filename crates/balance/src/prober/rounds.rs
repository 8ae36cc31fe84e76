use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::ready;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use rand::Rng as _;
use registry::{MemberId, MemberReport, MonitorTerms, Pool, PoolId, PoolReport, Registry, Revision, Snapshot};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::Asker;
use super::herald::Herald;
use super::question::{Subject, ask};
use crate::health::{Judge, Next};

/// Nodes and pools that begin at once do not ask all members in the same moment: the first round begins within this part of the
/// interval, and within this time.
const FIRST_WITHIN: (u32, Duration) = (10, Duration::from_secs(5));

/// While tunnels have no connection to this node, so often is looked whether they have one: who comes back is asked before the next round.
const LOOK: Duration = Duration::from_secs(1);

/// The rounds in which one pool's members are asked. What it said is withdrawn when it is dropped.
pub(super) struct Rounds {
    asker: Arc<Asker>,
    pool: PoolId,
    changed: watch::Receiver<()>,
    judges: HashMap<MemberId, Judge>,
    /// Members whose tunnels have no connection to this node, with these.
    unlinked: HashMap<MemberId, Uuid>,
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
        Self {
            asker,
            pool,
            changed,
            judges: HashMap::new(),
            unlinked: HashMap::new(),
            reports: HashMap::new(),
            herald: Herald::default(),
        }
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
            self.round(&registry, &terms, |_| true).await;
            let next = began + Duration::from_secs(terms.monitor.interval.into());
            let Some(new) = self.wait(&registry, terms, next).await else { return };
            terms = new;
        }
    }

    /// Waits for the next round: for its time, or until something else is configured, which is asked at once.
    async fn wait(&mut self, registry: &Registry, terms: Terms, until: Instant) -> Option<Terms> {
        loop {
            let look = if self.unlinked.is_empty() { until } else { until.min(Instant::now() + LOOK) };
            tokio::select! {
                () = sleep_until(look) => {
                    if look == until {
                        return Terms::of(&registry.snapshot(), self.pool);
                    }
                    let back = self.back(&registry.snapshot());
                    if !back.is_empty() {
                        self.round(registry, &terms, |id| back.contains(&id)).await;
                    }
                }
                changed = self.changed.changed() => changed.ok()?,
            }
            let now = Terms::of(&registry.snapshot(), self.pool)?;
            if now.at != terms.at {
                return Some(now);
            }
        }
    }

    /// Those whose tunnels have a connection to this node again.
    fn back(&self, snapshot: &Snapshot) -> Vec<MemberId> {
        let unlinked = self.unlinked.iter();
        unlinked.filter(|(_, tunnel)| is_linked(snapshot, **tunnel)).map(|(id, _)| *id).collect()
    }

    /// Asks each member for whom it is time once, or as often as it takes.
    async fn round(&mut self, registry: &Registry, terms: &Terms, is_time: impl Fn(MemberId) -> bool) {
        let snapshot = registry.snapshot();
        let known = snapshot.health(self.pool);
        let order: Vec<MemberId> = terms.pool.members().map(|(id, _)| id).collect();
        self.judges.retain(|id, _| order.contains(id));
        self.reports.retain(|id, _| order.contains(id));
        self.unlinked.clear();
        let mut under_way = FuturesUnordered::new();
        for (at, (id, origin)) in terms.pool.members().enumerate() {
            let unlinked = origin.tunnel().filter(|tunnel| !is_linked(&snapshot, *tunnel));
            self.unlinked.extend(unlinked.map(|tunnel| (id, tunnel)));
            // Of one that others alone can reach, this node has nothing to say. Nobody is led to one that is switched off; and there is no way
            // into private networks yet.
            if !origin.enabled || unlinked.is_some() || origin.virtual_network_id.is_some() {
                self.judges.remove(&id);
                self.reports.remove(&id);
                continue;
            }
            if !is_time(id) {
                continue;
            }
            let agreed = known.as_ref().and_then(|known| known.members.get(at)?.probe.as_ref());
            let judge = self.judges.remove(&id).unwrap_or_else(|| Judge::new(agreed));
            let (asker, monitor, subject) = (&self.asker, &terms.monitor, Subject::new(origin));
            under_way.push(async move { (id, asked(asker, &subject, monitor, judge).await) });
        }
        // Of those that are not asked any more nothing is known.
        tell(registry, &mut self.herald, self.pool, &self.reports, &order);
        // Each is told when it is known: one that takes long keeps nobody else waiting.
        while let Some((id, judge)) = under_way.next().await {
            match judge.report(id) {
                Some(report) => drop(self.reports.insert(id, report)),
                None => drop(self.reports.remove(&id)),
            }
            self.judges.insert(id, judge);
            tell(registry, &mut self.herald, self.pool, &self.reports, &order);
        }
    }
}

/// Whether a tunnel can be asked by this node.
fn is_linked(snapshot: &Snapshot, tunnel: Uuid) -> bool {
    snapshot.own_connections(tunnel).next().is_some()
}

/// Asks one member once, or as often as it takes.
async fn asked(asker: &Asker, subject: &Subject, monitor: &MonitorTerms, mut judge: Judge) -> Judge {
    loop {
        // Only ever closed with the program.
        let Ok(place) = asker.places.acquire().await else { return judge };
        let outcome = ask(asker, subject, monitor).await;
        drop(place);
        let next = match outcome {
            Ok(outcome) => judge.asked(monitor, outcome, Timestamp::now()),
            Err(reason) => judge.unasked(reason, Timestamp::now()),
        };
        if next == Next::Later {
            return judge;
        }
    }
}

/// One round of a pool, on its own.
pub(super) async fn once(asker: &Asker, pool: &Pool, monitor: &MonitorTerms) -> PoolReport {
    let monitor = MonitorTerms { consecutive_up: 0, consecutive_down: 0, ..monitor.clone() };
    let members = pool.members().filter(|(_, origin)| origin.virtual_network_id.is_none());
    let under_way: FuturesOrdered<_> = members
        .map(|(id, origin)| {
            let (subject, monitor) = (Subject::new(origin), &monitor);
            async move { asked(asker, &subject, monitor, Judge::new(None)).await.report(id) }
        })
        .collect();
    PoolReport { pool: pool.id, members: under_way.filter_map(ready).collect().await }
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
