//! How the other nodes hear of this one and its connections.

mod ledger;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use self::ledger::Ledger;
use crate::engine::{Engine, Lease, LeaseError, Revision};
use crate::retry::Retry;
use crate::shared::Shared;
use crate::{CommitError, EngineError, NodeRecord};

/// A node that is not heard of for so long is taken for gone, with its connections. Longer than an election in etcd (1 to
/// 3 s) and a call that has to try all of its members; whoever wants to know sooner asks the node itself.
const LEASE: Duration = Duration::from_secs(15);
/// Three times within a lease.
const RENEWAL: Duration = Duration::from_secs(4);
/// Between two transactions of one node: what happens meanwhile goes into the next one. etcd syncs its disk for each, and
/// tells every node.
const GATHERING: Duration = Duration::from_millis(100);

/// Tells the other nodes, in the background.
pub(crate) struct Publisher {
    /// Weak, so that dropping the registry closes the engine.
    engine: Weak<dyn Engine>,
    shared: Arc<Shared>,
    me: Arc<NodeRecord>,
    /// The latest transaction that took something of this node's own off the list.
    denied: watch::Receiver<Revision>,
    held: Option<Held>,
}

/// A lease, and what was told under it.
struct Held {
    lease: Lease,
    renew_at: Instant,
    /// No transaction before.
    write_at: Instant,
    /// Its latest transaction. Whatever took something off the list before does not matter any more.
    told_at: Revision,
    ledger: Ledger,
}

impl Publisher {
    pub(crate) fn new(
        engine: Weak<dyn Engine>,
        shared: Arc<Shared>,
        me: Arc<NodeRecord>,
        denied: watch::Receiver<Revision>,
    ) -> Self {
        Self { engine, shared, me, denied, held: None }
    }

    /// Tells until `leaving`, and then takes everything back.
    pub(crate) async fn run(mut self, leaving: impl Future<Output = ()>) {
        tokio::select! {
            () = self.tell() => return,
            () = leaving => (),
        }
        let (Some(held), Some(engine)) = (self.held, self.engine.upgrade()) else { return };
        if let Err(problem) = engine.live().revoke(held.lease).await {
            tracing::info!(%problem, "the other nodes have this one on their lists until its lease ends");
        }
    }

    /// Ends with the engine.
    async fn tell(&mut self) {
        let mut changes = self.shared.own_changes();
        let mut retry = Retry::default();
        loop {
            match self.turn(&mut changes).await {
                Ok(()) => retry.succeeded(),
                Err(LeaseError::Ended) => {
                    tracing::warn!("this node was taken for gone; its connections are listed anew");
                    self.held = None;
                }
                Err(LeaseError::Commit(CommitError::Engine(EngineError::Closed))) => return,
                Err(LeaseError::Commit(problem)) => {
                    if retry.is_first() {
                        tracing::warn!(%problem, "the other nodes are not told of this one; trying again");
                    }
                    sleep(retry.failed()).await;
                }
            }
        }
    }

    /// One step: whatever is due first.
    async fn turn(&mut self, changes: &mut watch::Receiver<()>) -> Result<(), LeaseError> {
        let Some(held) = &mut self.held else {
            let lease = engine(&self.engine)?.live().grant(LEASE).await?;
            let now = Instant::now();
            self.held =
                Some(Held { lease, renew_at: now + RENEWAL, write_at: now, told_at: 0, ledger: Ledger::default() });
            return Ok(());
        };
        // First of all: after a pause, nothing is known to be there any more.
        if held.renew_at <= Instant::now() {
            let asked = Instant::now();
            engine(&self.engine)?.live().renew(held.lease).await?;
            held.renew_at = asked + RENEWAL;
            return Ok(());
        }
        changes.borrow_and_update();
        let sayings = held.ledger.due(self.shared.snapshot().own());
        if sayings.is_empty() {
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| EngineError::Closed)?,
                () = sleep_until(held.renew_at) => (),
                () = denied(&mut self.denied, held.told_at) => {
                    let lease = held.lease;
                    self.held = None;
                    // Whatever is left of it, all of it is told anew.
                    engine(&self.engine)?.live().revoke(lease).await?;
                }
            }
        } else if Instant::now() < held.write_at {
            sleep_until(held.write_at.min(held.renew_at)).await;
        } else {
            held.write_at = Instant::now() + GATHERING;
            let writes = sayings.iter().map(|saying| saying.write(&self.me)).collect();
            let outcome = engine(&self.engine)?.live().commit(held.lease, Vec::new(), writes).await;
            match &outcome {
                Ok(revision) => {
                    held.told_at = *revision;
                    held.ledger.heard(&sayings);
                }
                Err(_) => held.ledger.unsure(&sayings),
            }
            outcome?;
        }
        Ok(())
    }
}

/// Waits until something that was told is gone: taken off the list by a transaction after this one.
async fn denied(denied: &mut watch::Receiver<Revision>, told_at: Revision) {
    if denied.wait_for(|revision| *revision > told_at).await.is_err() {
        std::future::pending().await
    }
}

fn engine(engine: &Weak<dyn Engine>) -> Result<Arc<dyn Engine>, EngineError> {
    engine.upgrade().ok_or(EngineError::Closed)
}
