use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, yield_now};

use crate::engine::{Batch, Embedded, Engine, Feed, FeedError, Revision};
use crate::membership::Publisher;
use crate::neighbours::Neighbours;
use crate::presence::Presence;
use crate::retry::Retry;
use crate::shared::Shared;
use crate::{
    CommitError, ConnectionRecord, EngineError, NodeId, NodeRecord, OpenError, PoolId, PoolReport, Snapshot,
    Transaction, Watch, audit, transfer,
};

/// A change waits this long for the engine, and as long again for the snapshot: a disk that takes longer has failed, and
/// callers are to know.
const PATIENCE: Duration = Duration::from_secs(10);
/// A change that meets another writer each time gives up after so many attempts; with that many writers on one entry,
/// the caller should know.
const ATTEMPTS: usize = 32;
/// Transactions that are taken in at once: whoever connects waits meanwhile, for about a millisecond.
const PIECE: usize = 16;
/// Nobody waits longer at the end for the other nodes to hear of it.
const FAREWELL: Duration = Duration::from_secs(3);

/// The typed state of the edge. Cheap to clone; the last clone closes the engine.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    shared: Arc<Shared>,
    applied: Arc<watch::Sender<Revision>>,
    follower: AbortHandle,
    opened_at: Timestamp,
    node: NodeId,
    membership: Mutex<Option<Membership>>,
    /// Whether the snapshot has all live state that there is, as far as anybody can tell.
    sees_all: Arc<AtomicBool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// What runs while this node is one of several. Dropping it ends that, without a word to the others.
struct Membership {
    publisher: JoinHandle<()>,
    neighbours: AbortHandle,
    leave: Option<oneshot::Sender<()>>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.publisher.abort();
        self.neighbours.abort();
    }
}

impl Registry {
    /// Opens the registry that this engine keeps, makes the account at first start, and brings one of an older version
    /// forward.
    ///
    /// # Errors
    /// The engine fails, an entry is damaged, or a newer version of this program wrote it.
    pub async fn open(engine: impl Engine, now: Timestamp) -> Result<Self, OpenError> {
        let engine: Arc<dyn Engine> = Arc::new(engine);
        let state = engine.load().await?;
        if transfer::is_half_imported(&state) {
            return Err(OpenError::HalfImported);
        }
        let mut snapshot = Snapshot::default();
        snapshot.load(&state)?;
        drop(state);
        let revision = snapshot.revision();

        let shared = Arc::new(Shared::new(snapshot));
        let applied = Arc::new(watch::Sender::new(revision));
        let follower = Follower {
            engine: Arc::downgrade(&engine),
            feed: engine.follow(revision),
            shared: shared.clone(),
            applied: applied.clone(),
        };
        let follower = tokio::spawn(follower.run()).abort_handle();
        let registry = Self {
            inner: Arc::new(Inner {
                engine,
                shared,
                applied,
                follower,
                opened_at: now,
                node: NodeId::random(),
                membership: Mutex::default(),
                // Alone.
                sees_all: Arc::new(AtomicBool::new(true)),
            }),
        };
        registry.found_or_migrate(now).await?;
        // Nobody sees what is left of deleted zones, so that a node starts without etcd all the same.
        if let Err(problem) = registry.finish_deletions().await {
            tracing::warn!(%problem, "what deleted zones had is not removed yet; the next start tries again");
        }
        Ok(registry)
    }

    /// [`Registry::open`] with the embedded engine in this file.
    ///
    /// # Errors
    /// As [`Registry::open`] and [`Embedded::open`].
    pub async fn open_file(path: &Path, now: Timestamp) -> Result<Self, OpenError> {
        Self::open(Embedded::open(path)?, now).await
    }

    /// [`Registry::open`] with the embedded engine in memory.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub async fn in_memory(now: Timestamp) -> Result<Self, OpenError> {
        Self::open(Embedded::in_memory()?, now).await
    }

    /// Everything, as of now. Never waits.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.shared.snapshot()
    }

    /// When this process opened the registry.
    pub fn opened_at(&self) -> Timestamp {
        self.inner.opened_at
    }

    /// Carries out a transaction, and answers its revision once [`Registry::snapshot`] has it.
    ///
    /// # Errors
    /// A guard does not hold any more, or the engine fails or takes too long.
    pub async fn commit(&self, mut transaction: Transaction) -> Result<Revision, CommitError> {
        audit::note(&mut transaction, &self.snapshot());
        let revision = patiently(self.inner.engine.commit(transaction.guards, transaction.writes)).await??;
        self.caught_up(revision).await?;
        Ok(revision)
    }

    /// Follows the changes after this revision.
    pub fn watch(&self, after: Revision) -> Watch {
        Watch::new(self.inner.shared.clone(), self.inner.applied.subscribe(), after)
    }

    /// Which node this is: another one at each opening.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Lists this node (whose id must be [`Registry::node`]) where nobody else can have the same registry.
    pub fn introduce(&self, node: NodeRecord) {
        self.inner.shared.update(|snapshot| snapshot.set_node(Arc::new(node)));
    }

    /// Tells the other nodes of the same registry of this one (whose id must be [`Registry::node`]) and of its connections
    /// from now on, and has what they tell in the snapshot: all in the background, however long the engine is down.
    pub fn join(&self, node: NodeRecord) {
        let Inner { engine, shared, sees_all, .. } = self.inner.as_ref();
        let (node, denied) = (Arc::new(node), Arc::new(watch::Sender::new(0)));
        sees_all.store(false, Ordering::Relaxed);
        shared.update(|snapshot| snapshot.set_node(node.clone()));
        let neighbours = Neighbours {
            engine: Arc::downgrade(engine),
            shared: shared.clone(),
            me: self.inner.node,
            is_current: sees_all.clone(),
            denied: denied.clone(),
        };
        let publisher = Publisher::new(Arc::downgrade(engine), shared.clone(), node, denied.subscribe());
        let (leave, leaving) = oneshot::channel();
        let leaving = async move {
            if leaving.await.is_err() {
                std::future::pending().await
            }
        };
        let membership = Membership {
            publisher: tokio::spawn(publisher.run(leaving)),
            neighbours: tokio::spawn(neighbours.run()).abort_handle(),
            leave: Some(leave),
        };
        *self.membership() = Some(membership);
    }

    /// Takes this node and its connections off the other nodes' lists, if they can be told; otherwise they find out when
    /// its lease ends.
    pub async fn leave(&self) {
        let Some(mut membership) = self.membership().take() else { return };
        if let Some(leave) = membership.leave.take() {
            let _ = leave.send(());
        }
        if tokio::time::timeout(FAREWELL, &mut membership.publisher).await.is_err() {
            tracing::info!("the other nodes have this one on their lists until its lease ends");
        }
    }

    fn membership(&self) -> MutexGuard<'_, Option<Membership>> {
        self.inner.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`Registry::snapshot`] has what all nodes say, and not what they said before they were last heard of.
    pub fn sees_all_nodes(&self) -> bool {
        self.inner.sees_all.load(Ordering::Relaxed)
    }

    /// Whether this node reads and writes secrets: others may have put a key in use that it does not have.
    ///
    /// # Errors
    /// It does not, and which key it lacks; it needs the others' key file and to be started anew.
    pub fn check_keys(&self) -> Result<(), EngineError> {
        self.inner.engine.locked_out().map_or(Ok(()), Err)
    }

    /// Lists a connection until the answer is dropped. Never waits, so it works with the engine down.
    pub fn connect(&self, connection: ConnectionRecord) -> Presence {
        Presence::new(self.inner.shared.clone(), connection)
    }

    /// Has all nodes know what this one finds out of a pool, instead of what it said before. Never waits.
    pub fn report_health(&self, report: PoolReport) {
        let me = self.inner.node;
        self.inner.shared.update_own(|snapshot| snapshot.set_report(me, report));
    }

    /// Takes back what this node said of a pool: it asks its members no more.
    pub fn withdraw_health(&self, pool: PoolId) {
        self.inner.shared.update_own(|snapshot| snapshot.remove_report(pool));
    }

    /// Tells when something of the live state was changed: connections, nodes or health, this node's or others'.
    pub fn live_changes(&self) -> watch::Receiver<()> {
        self.inner.shared.live_changes()
    }

    /// Decides on a change by the snapshot and carries it out; decides anew when another writer came first.
    pub(crate) async fn change<T, E: From<CommitError>>(
        &self,
        mut decide: impl FnMut(&Snapshot, &mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            let mut transaction = Transaction::new();
            let outcome = decide(&self.snapshot(), &mut transaction)?;
            if transaction.writes.is_empty() {
                return Ok(outcome);
            }
            match self.commit(transaction).await {
                Ok(_) => return Ok(outcome),
                Err(CommitError::Conflict { revision, .. }) if attempt < ATTEMPTS => self.caught_up(revision).await?,
                Err(error) => return Err(error.into()),
            }
            attempt += 1;
        }
    }

    #[cfg(test)]
    pub(crate) fn engine_for_tests(&self) -> Arc<dyn Engine> {
        self.inner.engine.clone()
    }

    /// Waits until the snapshot has this revision.
    pub(crate) async fn caught_up(&self, revision: Revision) -> Result<(), CommitError> {
        let mut applied = self.inner.applied.subscribe();
        patiently(applied.wait_for(|applied| *applied >= revision)).await?.expect("the sender is in self");
        Ok(())
    }
}

async fn patiently<T>(work: impl Future<Output = T>) -> Result<T, CommitError> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| EngineError::Slow.into())
}

/// Brings the engine's changes into the snapshot, in order.
struct Follower {
    /// Weak, so that dropping the registry closes the engine.
    engine: Weak<dyn Engine>,
    feed: Box<dyn Feed>,
    shared: Arc<Shared>,
    applied: Arc<watch::Sender<Revision>>,
}

impl Follower {
    async fn run(mut self) {
        let mut retry = Retry::default();
        loop {
            let outcome = match self.feed.next().await {
                Ok(batches) => {
                    self.apply(&batches).await;
                    Ok(())
                }
                Err(FeedError::Compacted) => self.resync().await,
                Err(FeedError::Engine(error)) => Err(error.into()),
            };
            match outcome {
                Ok(()) => retry.succeeded(),
                Err(OpenError::Engine(EngineError::Closed)) => return,
                Err(problem) => {
                    tracing::warn!(%problem, "the registry's changes cannot be followed; trying again");
                    tokio::time::sleep(retry.failed()).await;
                }
            }
        }
    }

    async fn apply(&mut self, batches: &[Batch]) {
        for piece in batches.chunks(PIECE) {
            self.shared.apply(piece);
            if let Some(last) = piece.last() {
                self.applied.send_replace(last.revision);
            }
            // Others go between.
            yield_now().await;
        }
    }

    /// Loads everything anew, since the log no longer reaches back to what the snapshot has.
    async fn resync(&mut self) -> Result<(), OpenError> {
        let engine = self.engine.upgrade().ok_or(EngineError::Closed)?;
        let state = engine.load().await?;
        let revision = state.revision;
        let shared = Arc::clone(&self.shared);
        // A million entries take seconds, and the tasks of visitors are on this thread.
        let replacing = tokio::task::spawn_blocking(move || shared.replace(&state));
        match replacing.await {
            Ok(replaced) => replaced?,
            Err(failed) if failed.is_panic() => panic::resume_unwind(failed.into_panic()),
            // The program ends.
            Err(_) => return Err(EngineError::Closed.into()),
        }
        self.feed = engine.follow(revision);
        self.applied.send_replace(revision);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::engine::{Guard, Live, State, Write};
    use crate::resource::{Account, Resource as _};
    use crate::{
        ConfigSource, Hostname, NewRecord, NewToken, NewTunnel, QuickName, Record, RecordContent, RecordEdit,
        RecordType, TunnelChange, TunnelName,
    };

    /// An engine whose disk never answers once the account is made.
    struct Stuck(Embedded);

    impl Engine for Stuck {
        fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
            self.0.load()
        }

        fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
            match writes.iter().any(|write| write.key.starts_with(Account::KIND)) {
                true => self.0.commit(guards, writes),
                false => Box::pin(std::future::pending()),
            }
        }

        fn follow(&self, after: Revision) -> Box<dyn Feed> {
            self.0.follow(after)
        }

        fn most_at_once(&self) -> Option<usize> {
            self.0.most_at_once()
        }

        fn live(&self) -> &dyn Live {
            self.0.live()
        }
    }

    #[tokio::test]
    async fn a_disk_that_never_answers_holds_nobody_for_ever() {
        let now = Timestamp::UNIX_EPOCH;
        let registry = Registry::open(Stuck(Embedded::in_memory().unwrap()), now).await.unwrap();
        tokio::time::pause();
        let waited = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await;
        assert!(matches!(waited, Err(CommitError::Engine(EngineError::Slow))), "{waited:?}");
    }

    /// A few records of two zones that lie in each other are made, changed or removed; sometimes more than one transaction
    /// takes, sometimes a whole zone.
    async fn edit_records(registry: &Registry, random: &mut StdRng, tunnel: Uuid) {
        let now = Timestamp::UNIX_EPOCH;
        let names = ["example.test", "a.example.test"].map(|name| Hostname::parse(name).unwrap());
        let [outer, inner] = [registry.ensure_zone(now, &names[0]).await, registry.ensure_zone(now, &names[1]).await];
        let zone = if random.random() { outer.unwrap() } else { inner.unwrap() };
        if random.random_range(0..8) == 0 {
            return drop(registry.delete_zone(now, zone.id).await);
        }
        let target = Record::tunnel_target(tunnel);
        let new = |random: &mut StdRng| {
            let label = ["a", "b", "*", "c"][random.random_range(0..4)];
            let kind = [RecordType::Cname, RecordType::Txt][random.random_range(0..2)];
            let content = RecordContent::parse(kind, &target, None, None).unwrap();
            let record = NewRecord::new(zone.name.child(label).unwrap_or_else(|_| zone.name.clone()), content);
            record.with_proxied(kind == RecordType::Cname && random.random()).unwrap()
        };
        let present: Vec<_> = registry.snapshot().records(zone.id).map(|(_, record)| record.id).collect();
        let many = if random.random_range(0..8) == 0 { 130 } else { 0 };
        let more = (0..many).map(|index| {
            let content = RecordContent::parse(RecordType::A, "192.0.2.1", None, None).unwrap();
            let name = zone.name.child(&format!("n{index}-{}", random.random_range(0..1000))).unwrap();
            RecordEdit::Create(NewRecord::new(name, content))
        });
        let mut edits: Vec<RecordEdit<'_>> = more.collect();
        for _ in 0..random.random_range(1..4) {
            let replacement = new(random);
            edits.push(match present.get(random.random_range(0..=present.len())) {
                Some(id) if random.random() => RecordEdit::Delete(*id),
                Some(id) => RecordEdit::Change(*id, Box::new(move |_, _| Ok(replacement.clone()))),
                None => RecordEdit::Create(replacement),
            });
        }
        drop(registry.edit_records(now, zone.id, &edits).await);
    }

    /// A monitor, a pool or a load balancer is made, changed or removed.
    async fn balance(registry: &Registry, random: &mut StdRng) {
        let now = Timestamp::UNIX_EPOCH;
        let snapshot = registry.snapshot();
        let monitors: Vec<_> = snapshot.monitors().map(|monitor| monitor.id).collect();
        let pools: Vec<_> = snapshot.pools().map(|pool| pool.id).collect();
        let balancers: Vec<_> = snapshot.load_balancers().map(|balancer| balancer.id).collect();
        let name = ["a", "b", "c"][random.random_range(0..3)];
        let monitor = monitors.get(random.random_range(0..=monitors.len()));
        let pool = pools.get(random.random_range(0..=pools.len()));
        let balancer = balancers.get(random.random_range(0..=balancers.len()));
        let terms = json!({ "name": name, "origins": [], "monitor": monitor });
        let pool_terms: crate::PoolTerms = serde_json::from_value(terms).unwrap();
        let name = format!("{name}.example.test");
        let terms = json!({ "name": name, "default_pools": [pool], "fallback_pool": pools.first() });
        let balancer_terms: Option<crate::LoadBalancerTerms> = serde_json::from_value(terms).ok();
        let zone = snapshot.zones().next().map(|zone| zone.id);
        match (random.random_range(0..8), monitor, pool, balancer, balancer_terms, zone) {
            (0, Some(id), ..) => drop(registry.delete_monitor(*id).await),
            (1, ..) => drop(registry.create_monitor(now, serde_json::from_value(json!({})).unwrap()).await),
            (2, _, Some(id), ..) => drop(registry.delete_pool(*id).await),
            (3, _, Some(id), ..) => drop(registry.change_pool(now, *id, |_| Ok(pool_terms.clone())).await),
            (4, _, _, Some(id), ..) => drop(registry.delete_load_balancer(*id).await),
            (5, _, _, Some(id), Some(terms), _) => {
                drop(registry.change_load_balancer(now, *id, |_| Ok(terms.clone())).await);
            }
            (6, _, _, _, Some(terms), Some(zone)) => drop(registry.create_load_balancer(now, zone, terms).await),
            _ => drop(registry.create_pool(now, pool_terms).await),
        }
    }

    /// Whatever is done, in whatever order, the snapshot that followed every change is the one that a restart would
    /// load.
    #[tokio::test]
    async fn following_every_change_leads_where_loading_leads() {
        for seed in 0..8 {
            let mut random = StdRng::seed_from_u64(seed);
            let now = Timestamp::UNIX_EPOCH;
            let registry = Registry::in_memory(now).await.unwrap();
            let domain = Hostname::parse("example.test").unwrap();
            let zone = registry.ensure_zone(now, &domain).await.unwrap();
            for step in 0..150 {
                let tunnels: Vec<Uuid> = registry.snapshot().tunnels().map(|tunnel| tunnel.id).collect();
                let tunnel = match tunnels.len() {
                    0 => Uuid::nil(),
                    count => tunnels[random.random_range(0..count)],
                };
                let name = TunnelName::parse(&format!("t{}", random.random_range(0..6))).unwrap();
                let label = ["a", "b", "*", "*.a", "c.a"][random.random_range(0..5)];
                let hostname = Hostname::parse(&format!("{label}.example.test")).unwrap();
                // Refusals are part of the game; only what they leave behind is looked at.
                match random.random_range(0..11) {
                    10 => balance(&registry, &mut random).await,
                    0 | 1 => {
                        let new = NewTunnel {
                            name,
                            secret: None,
                            config_source: ConfigSource::Local,
                            labels: Default::default(),
                        };
                        drop(registry.create_tunnel(now, new).await);
                    }
                    2 => drop(
                        registry
                            .change_tunnel(tunnel, TunnelChange { name: Some(name), ..TunnelChange::default() })
                            .await,
                    ),
                    3 => drop(registry.delete_tunnel(now, tunnel, true).await),
                    4 | 5 => drop(registry.put_route(now, zone.id, hostname, tunnel, random.random()).await),
                    6 if random.random() => drop(registry.delete_route(&hostname).await),
                    6 => edit_records(&registry, &mut random, tunnel).await,
                    7 => {
                        let document = json!(random.random_range(0..3));
                        drop(registry.put_configuration(now, tunnel, document, ConfigSource::Local, None).await);
                    }
                    8 => {
                        let headers = vec!["-cookie".parse().unwrap(); random.random_range(0..3)];
                        let rules = policy::Access { headers, ..policy::Access::default() };
                        drop(registry.put_access(tunnel, rules).await);
                    }
                    _ if random.random() => drop(registry.create_quick_tunnel(now, &domain, QuickName::Random).await),
                    _ => drop(registry.create_token(now, NewToken { name: "t".into(), expires_at: None }).await),
                }
                if step == 75 {
                    registry.sweep_quick_tunnels(now, jiff::SignedDuration::ZERO).await.unwrap();
                }
                if step % 10 == 0 {
                    let mut loaded = Snapshot::default();
                    loaded.load(&registry.inner.engine.load().await.unwrap()).unwrap();
                    assert!(*registry.snapshot() == loaded, "seed {seed}, step {step}");
                }
            }
        }
    }
}
