//! An engine for each of many nodes of one process, all over one store, that counts what etcd would send.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use registry::engine::{Batch, Feed, FeedError, Guard, Lease, LeaseError, Live, State, Write};
use registry::{CommitError, Embedded, Engine, EngineError, Revision};

use crate::traffic::{Traffic, Written};

/// What all nodes share.
pub(crate) struct Store {
    pub(crate) engine: Embedded,
    pub(crate) traffic: Mutex<Traffic>,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { engine: Embedded::in_memory().unwrap(), traffic: Mutex::default() })
    }
}

/// One node's way to the store.
pub(crate) struct Pop {
    store: Arc<Store>,
    /// What it is shown instead of everything: such a node says what all others do, and takes in nothing. What it would be sent
    /// is counted; 330 copies of everything would not fit into one machine.
    blind: Option<State>,
    /// The machine has no power.
    dead: Arc<AtomicBool>,
    /// What is listed under its lease.
    listed: Mutex<BTreeMap<String, ()>>,
}

impl Pop {
    pub(crate) fn new(store: &Arc<Store>, blind: Option<State>) -> Arc<Self> {
        Arc::new(Self { store: Arc::clone(store), blind, dead: Arc::default(), listed: Mutex::default() })
    }

    /// Takes its power. What is listed under its lease goes with that, in one transaction.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.unlist();
    }

    fn unlist(&self) {
        let gone = std::mem::take(&mut *self.listed.lock().unwrap());
        self.count(|traffic| traffic.live_transaction(gone.keys().map(|key| Written { key: key.len(), value: None })));
    }

    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        count(&mut self.store.traffic.lock().unwrap());
    }

    async fn powered(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }
}

fn written(writes: &[Write]) -> impl Iterator<Item = Written> {
    writes.iter().map(|write| Written { key: write.key.len(), value: write.value.as_ref().map(Vec::len) })
}

impl Engine for Pop {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        match &self.blind {
            Some(state) => Box::pin(async { Ok(state.clone()) }),
            None => self.store.engine.load(),
        }
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async move {
            let revision = self.store.engine.commit(guards, writes.clone()).await?;
            self.count(|traffic| traffic.transaction(written(&writes)));
            Ok(revision)
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        if self.blind.is_some() { Box::new(Silence) } else { self.store.engine.follow(after) }
    }

    fn most_at_once(&self) -> Option<usize> {
        self.store.engine.most_at_once()
    }

    fn live(&self) -> &dyn Live {
        self
    }
}

impl Live for Pop {
    fn grant(&self, life: Duration) -> BoxFuture<'_, Result<Lease, EngineError>> {
        self.store.engine.live().grant(life)
    }

    fn renew(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            self.powered().await;
            self.count(|traffic| traffic.renewals += 1);
            self.store.engine.live().renew(lease).await
        })
    }

    fn revoke(&self, lease: Lease) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            self.powered().await;
            self.store.engine.live().revoke(lease).await?;
            self.unlist();
            Ok(())
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        match self.blind {
            Some(_) => Box::pin(async { Ok(State::default()) }),
            None => self.store.engine.live().load(),
        }
    }

    fn commit(
        &self,
        lease: Lease,
        guards: Vec<Guard>,
        writes: Vec<Write>,
    ) -> BoxFuture<'_, Result<Revision, LeaseError>> {
        Box::pin(async move {
            self.powered().await;
            let revision = self.store.engine.live().commit(lease, guards, writes.clone()).await?;
            let mut listed = self.listed.lock().unwrap();
            for write in &writes {
                match write.value {
                    Some(_) => drop(listed.insert(write.key.clone(), ())),
                    None => drop(listed.remove(&write.key)),
                }
            }
            drop(listed);
            self.count(|traffic| traffic.live_transaction(written(&writes)));
            Ok(revision)
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        if self.blind.is_some() { Box::new(Silence) } else { self.store.engine.live().follow(after) }
    }
}

/// Nothing ever changes.
struct Silence;

impl Feed for Silence {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(std::future::pending())
    }
}
