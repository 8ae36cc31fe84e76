use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::Revision;
use crate::shared::{Behind, Shared};
use crate::{Change, Snapshot};

/// What a [`Watch`] tells.
#[derive(Debug, Clone)]
pub enum Event {
    /// One transaction. [`crate::Registry::snapshot`] has it already.
    Changes {
        /// Its revision.
        revision: Revision,
        /// What it wrote, in order.
        changes: Arc<[Change]>,
    },
    /// The watcher fell too far behind, or started from too long ago: this is everything; later events go on from it.
    Resync(Arc<Snapshot>),
}

/// Follows the registry's changes. A slow watcher costs nothing but its own place.
pub struct Watch {
    shared: Arc<Shared>,
    applied: watch::Receiver<Revision>,
    after: Revision,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>, applied: watch::Receiver<Revision>, after: Revision) -> Self {
        Self { shared, applied, after }
    }

    /// The next event, or `None` once the registry is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            // Marked as seen before looking, so that a change in between wakes us again.
            self.applied.borrow_and_update();
            match self.shared.after(self.after) {
                Behind::Changes(revision, changes) => {
                    self.after = revision;
                    return Some(Event::Changes { revision, changes });
                }
                Behind::TooFar(snapshot) => {
                    self.after = snapshot.revision();
                    return Some(Event::Resync(snapshot));
                }
                Behind::Nothing => self.applied.changed().await.ok()?,
            }
        }
    }
}
