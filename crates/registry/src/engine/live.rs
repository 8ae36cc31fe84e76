use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Feed, Guard, Revision, State, Write};
use crate::{CommitError, EngineError};

/// A promise to be heard of again in time. One for each node, not for each entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(pub(crate) u64);

/// Why something under a lease was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// The lease has ended, and everything under it is gone: take another one, and write all of it again.
    #[error("the lease has ended, and everything under it is gone")]
    Ended,
    /// The same that may become of any change.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<EngineError> for LeaseError {
    fn from(error: EngineError) -> Self {
        Self::Commit(error.into())
    }
}

/// Keeps entries that last no longer than the lease that they were written under. They have keys, revisions and
/// followers of their own: what is configured does not hear of them.
pub trait Live: Send + Sync {
    /// Begins a lease. It ends when it has not been renewed for this long; engines may be more patient than that.
    fn grant(&self, life: Duration) -> BoxFuture<'_, Result<Lease, EngineError>>;

    /// Lets the lease's time begin anew, or tells that it has ended: to be asked after any pause, too, before one's own
    /// entries are believed in.
    fn renew(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Ends a lease, and everything under it in one transaction. Of one that has ended it does nothing.
    fn revoke(&self, lease: Lease) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Every live entry, as of now.
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>>;

    /// Carries out a transaction if the lease lasts and every guard holds. What it writes is under the lease from then
    /// on, whoever wrote it before.
    fn commit(
        &self,
        lease: Lease,
        guards: Vec<Guard>,
        writes: Vec<Write>,
    ) -> BoxFuture<'_, Result<Revision, LeaseError>>;

    /// Follows the changes after this revision, which [`Live::load`] or [`Live::commit`] gave: those of transactions, and
    /// those of leases that end.
    fn follow(&self, after: Revision) -> Box<dyn Feed>;
}
