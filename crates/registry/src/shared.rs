use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::change::Change;
use crate::engine::{Batch, Revision, State};
use crate::{OpenError, Snapshot};

/// A watcher further behind than this many transactions starts over from a snapshot.
const WATCH_LOG: usize = 1024;
/// What the log keeps alive of values that are no longer in the snapshot, as bytes of JSON, at most.
const WATCH_BYTES: usize = 32 << 20;

/// What readers, watchers and the follower of the engine share.
pub(crate) struct Shared {
    current: ArcSwap<Snapshot>,
    /// Held while the snapshot is swapped, so that no swap undoes another.
    log: Mutex<Log>,
    /// Told when this node's own live state has changed.
    own: watch::Sender<()>,
    /// Told when anybody's has.
    live: watch::Sender<()>,
}

/// The latest transactions.
struct Log {
    /// Everything after this revision is in `recent`.
    floor: Revision,
    recent: VecDeque<Logged>,
    /// Of all in `recent`.
    bytes: usize,
}

struct Logged {
    revision: Revision,
    changes: Arc<[Change]>,
    bytes: usize,
}

impl Log {
    fn starting_at(floor: Revision) -> Self {
        Self { floor, recent: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, logged: Logged) {
        self.bytes += logged.bytes;
        self.recent.push_back(logged);
        while self.recent.len() > WATCH_LOG || self.bytes > WATCH_BYTES {
            let Some(oldest) = self.recent.pop_front() else { return };
            self.floor = oldest.revision;
            self.bytes -= oldest.bytes;
        }
    }
}

/// What a watcher at some revision is to be told.
pub(crate) enum Behind {
    Nothing,
    Changes(Revision, Arc<[Change]>),
    TooFar(Arc<Snapshot>),
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let log = Log::starting_at(snapshot.revision());
        let (own, live) = (watch::Sender::new(()), watch::Sender::new(()));
        Self { current: ArcSwap::from_pointee(snapshot), log: Mutex::new(log), own, live }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Swaps in a snapshot whose live state differs from the present one's by what `change` does.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let _log = self.lock();
        let mut snapshot = Snapshot::clone(&self.current.load());
        change(&mut snapshot);
        self.current.store(Arc::new(snapshot));
        self.live.send_replace(());
    }

    /// The same for what the other nodes are to be told.
    pub(crate) fn update_own(&self, change: impl FnOnce(&mut Snapshot)) {
        self.update(change);
        self.own.send_replace(());
    }

    pub(crate) fn live_changes(&self) -> watch::Receiver<()> {
        self.live.subscribe()
    }

    pub(crate) fn own_changes(&self) -> watch::Receiver<()> {
        self.own.subscribe()
    }

    pub(crate) fn apply(&self, batches: &[Batch]) {
        let mut log = self.lock();
        let mut snapshot = Snapshot::clone(&self.current.load());
        for batch in batches {
            let changes = snapshot.apply(batch);
            let bytes = batch.writes.iter().map(|write| write.value.as_ref().map_or(0, Vec::len)).sum();
            log.push(Logged { revision: batch.revision, changes, bytes });
        }
        self.current.store(Arc::new(snapshot));
    }

    /// Swaps in a snapshot of everything, which the log does not lead up to. It may take seconds; whoever connects meanwhile does
    /// not wait for it.
    pub(crate) fn replace(&self, state: &State) -> Result<(), OpenError> {
        let mut loaded = Snapshot::default();
        loaded.load(state)?;
        let mut log = self.lock();
        let snapshot = loaded.with_live_of(&self.current.load());
        *log = Log::starting_at(state.revision);
        let old = self.current.swap(Arc::new(snapshot));
        drop(log);
        drop(old);
        Ok(())
    }

    /// What comes after this revision.
    pub(crate) fn after(&self, revision: Revision) -> Behind {
        let log = self.lock();
        let snapshot = self.current.load();
        if revision == snapshot.revision() {
            return Behind::Nothing;
        }
        if revision < log.floor || revision > snapshot.revision() {
            return Behind::TooFar(snapshot.clone());
        }
        let next = log.recent.partition_point(|logged| logged.revision <= revision);
        match log.recent.get(next) {
            Some(logged) => Behind::Changes(logged.revision, logged.changes.clone()),
            None => Behind::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // Nothing in here leaves the log half written, so a panic elsewhere in a holder does no harm.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
