use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::engine::{Batch, Embedded, Engine, Feed, FeedError, Revision};
use crate::presence::Presence;
use crate::resource::{Account, Resource};
use crate::shared::Shared;
use crate::{AccountId, CommitError, ConnectionRecord, EngineError, OpenError, Snapshot, Transaction, Watch};

/// Pause before the engine is asked again for changes after it failed.
const FEED_RETRY: Duration = Duration::from_millis(250);
/// A change waits this long for the engine, and as long again for the snapshot: a disk that takes longer has failed, and
/// callers are to know.
const PATIENCE: Duration = Duration::from_secs(10);
/// A change that meets another writer each time gives up after so many attempts; with that many writers on one entry,
/// the caller should know.
const ATTEMPTS: usize = 32;

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
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Registry {
    /// Opens the registry that this engine keeps, and makes the account at first start.
    ///
    /// # Errors
    /// The engine fails, or an entry is damaged.
    pub async fn open(engine: impl Engine, now: Timestamp) -> Result<Self, OpenError> {
        let engine: Arc<dyn Engine> = Arc::new(engine);
        let mut snapshot = Snapshot::default();
        snapshot.load(&engine.load().await?)?;
        let revision = snapshot.revision();
        let founded = snapshot.is_founded();

        let shared = Arc::new(Shared::new(snapshot));
        let applied = Arc::new(watch::Sender::new(revision));
        let follower = Follower {
            engine: Arc::downgrade(&engine),
            feed: engine.follow(revision),
            shared: shared.clone(),
            applied: applied.clone(),
        };
        let follower = tokio::spawn(follower.run()).abort_handle();
        let registry = Self { inner: Arc::new(Inner { engine, shared, applied, follower, opened_at: now }) };
        if !founded {
            let account = Account { id: AccountId::random(), name: "Snicket".into(), created_at: now };
            let mut transaction = Transaction::new();
            transaction.expect_absent(&account.key()).put(&account);
            registry.commit(transaction).await?;
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
    pub async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let revision = patiently(self.inner.engine.commit(transaction.guards, transaction.writes)).await??;
        self.caught_up(revision).await?;
        Ok(revision)
    }

    /// Follows the changes after this revision.
    pub fn watch(&self, after: Revision) -> Watch {
        Watch::new(self.inner.shared.clone(), self.inner.applied.subscribe(), after)
    }

    /// Lists a connection until the answer is dropped. Never waits, so it works with the engine down.
    pub fn connect(&self, connection: ConnectionRecord) -> Presence {
        Presence::new(self.inner.shared.clone(), connection)
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

    /// Waits until the snapshot has this revision.
    async fn caught_up(&self, revision: Revision) -> Result<(), CommitError> {
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
        loop {
            let outcome = match self.feed.next().await {
                Ok(batches) => {
                    self.apply(&batches);
                    continue;
                }
                Err(FeedError::Compacted) => self.resync().await,
                Err(FeedError::Engine(error)) => Err(error.into()),
            };
            match outcome {
                Ok(()) => (),
                Err(OpenError::Engine(EngineError::Closed)) => return,
                Err(problem) => {
                    tracing::warn!(%problem, "the registry's changes cannot be followed; trying again");
                    tokio::time::sleep(FEED_RETRY).await;
                }
            }
        }
    }

    fn apply(&self, batches: &[Batch]) {
        self.shared.apply(batches);
        if let Some(last) = batches.last() {
            self.applied.send_replace(last.revision);
        }
    }

    /// Loads everything anew, since the log no longer reaches back to what the snapshot has.
    async fn resync(&mut self) -> Result<(), OpenError> {
        let engine = self.engine.upgrade().ok_or(EngineError::Closed)?;
        let state = engine.load().await?;
        self.shared.replace(&state)?;
        self.feed = engine.follow(state.revision);
        self.applied.send_replace(state.revision);
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
    use crate::engine::{Guard, State, Write};
    use crate::{ConfigSource, Hostname, NewToken, NewTunnel, QuickName, TunnelName};

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
    }

    #[tokio::test]
    async fn a_disk_that_never_answers_holds_nobody_for_ever() {
        let now = Timestamp::UNIX_EPOCH;
        let registry = Registry::open(Stuck(Embedded::in_memory().unwrap()), now).await.unwrap();
        tokio::time::pause();
        let waited = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await;
        assert!(matches!(waited, Err(CommitError::Engine(EngineError::Slow))), "{waited:?}");
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
                match random.random_range(0..10) {
                    0 | 1 => {
                        let new = NewTunnel { name, secret: None, config_source: ConfigSource::Local };
                        drop(registry.create_tunnel(now, new).await);
                    }
                    2 => drop(registry.change_tunnel(tunnel, Some(name), None).await),
                    3 => drop(registry.delete_tunnel(now, tunnel, true).await),
                    4 | 5 => drop(registry.put_route(now, zone.id, hostname, tunnel, random.random()).await),
                    6 => drop(registry.delete_route(&hostname).await),
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
                    assert_eq!(*registry.snapshot(), loaded, "seed {seed}, step {step}");
                }
            }
        }
    }
}
