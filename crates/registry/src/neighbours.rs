use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::yield_now;

use crate::engine::{Engine, Feed, FeedError, Revision, State, Write};
use crate::retry::Retry;
use crate::shared::Shared;
use crate::{EngineError, NodeId};

/// Entries that are taken in at once: whoever connects waits meanwhile, for about a millisecond. There may be hundreds of
/// thousands.
const PIECE: usize = 100;

/// Brings what the other nodes say of themselves into the snapshot.
pub(crate) struct Neighbours {
    /// Weak, so that dropping the registry closes the engine.
    pub(crate) engine: Weak<dyn Engine>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: NodeId,
    /// Whether the snapshot has what they say now.
    pub(crate) is_current: Arc<AtomicBool>,
    /// The latest transaction that took something of this node's own off the list.
    pub(crate) denied: Arc<watch::Sender<Revision>>,
}

impl Neighbours {
    /// Ends with the engine.
    pub(crate) async fn run(self) {
        let mut retry = Retry::default();
        loop {
            let outcome = self.follow(&mut retry).await;
            self.is_current.store(false, Ordering::Relaxed);
            match outcome {
                FeedError::Engine(EngineError::Closed) => return,
                FeedError::Engine(problem) if retry.is_first() => {
                    tracing::warn!(%problem, "what the other nodes say cannot be followed; trying again");
                }
                FeedError::Engine(_) | FeedError::Compacted => (),
            }
            tokio::time::sleep(retry.failed()).await;
        }
    }

    /// Loads everything and follows it until that fails. What was known until then stays known: it is the best there is.
    async fn follow(&self, retry: &mut Retry) -> FeedError {
        let mut feed = match self.load().await {
            Ok(feed) => feed,
            Err(error) => return error.into(),
        };
        retry.succeeded();
        self.is_current.store(true, Ordering::Relaxed);
        loop {
            match feed.next().await {
                Ok(batches) => {
                    for batch in &batches {
                        self.apply(batch.revision, &batch.writes).await;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn apply(&self, revision: Revision, writes: &[Write]) {
        for piece in writes.chunks(PIECE) {
            // The clock is read here since others' changes come when they come; the time is for display, and for ending quick
            // tunnels that were left.
            let now = Timestamp::now();
            let mut is_denied = false;
            self.shared.update(|snapshot| is_denied = snapshot.apply_live(self.me, piece, now));
            if is_denied {
                self.denied.send_replace(revision);
            }
            // Others go between.
            yield_now().await;
        }
    }

    async fn load(&self) -> Result<Box<dyn Feed>, EngineError> {
        let engine = self.engine.upgrade().ok_or(EngineError::Closed)?;
        let state = engine.live().load().await?;
        let State { revision, entries } = state;
        let gone = self.shared.snapshot().not_among(self.me, &entries);
        let gone = gone.into_iter().map(|key| Write { key: key.to_string(), value: None });
        let there = entries.into_iter().map(|entry| Write { key: entry.key, value: Some(entry.value) });
        let writes: Vec<Write> = gone.chain(there).collect();
        self.apply(revision, &writes).await;
        Ok(engine.live().follow(revision))
    }
}
