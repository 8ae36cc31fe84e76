//! What keeps the registry's entries: keys and values under one counting revision, with guarded transactions and a log
//! of changes to follow; beside them live entries, which last as long as a lease. The terms are those of etcd, so that one suite of tests can run against any engine.

mod embedded;
mod etcd;
mod live;
mod mirror;
pub(crate) mod sealed;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{CommitError, EngineError};

pub use embedded::Embedded;
pub use etcd::{BadEtcdSettings, Etcd, EtcdIdentity, EtcdLogin, EtcdSettings, EtcdTls};
pub use live::{Lease, LeaseError, Live};
pub use mirror::{Mirror, StandIn};
pub use sealed::{BadKeys, Keys, Sealed};

/// The meaning of keys and values. Grows when it changes, so that an older program leaves alone what it cannot read.
///
/// 1: values are JSON. 2: those that hold secrets may be encrypted.
pub(crate) const SCHEMA: u64 = 2;

/// Grows with each transaction, by one or more. 0 is before everything: as a guard it means "no such entry".
pub type Revision = u64;

/// A condition of a transaction: the entry was last written at this revision (0: there is none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The entry.
    pub key: String,
    /// Its revision.
    pub revision: Revision,
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The entry.
    pub key: String,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// One entry as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The transaction that wrote it last.
    pub revision: Revision,
}

/// Every entry, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The latest transaction in it.
    pub revision: Revision,
    /// All entries, in the order of their keys.
    pub entries: Vec<Entry>,
}

/// What one transaction wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The transaction.
    pub revision: Revision,
    /// Its changes in order.
    pub writes: Vec<Write>,
}

/// Why a feed gave no further batch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedError {
    /// The log no longer reaches back to where the follower is: load everything again.
    #[error("the log of changes no longer reaches back that far")]
    Compacted,
    /// The engine failed; the feed may be asked again.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Keeps entries.
pub trait Engine: Send + Sync + 'static {
    /// Everything, as of now.
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>>;

    /// Carries out a transaction, durably, if every guard holds. Followers see every one that writes, in whatever state
    /// its entries were; one that does not answers the latest revision.
    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>>;

    /// Follows the changes after this revision, which [`Engine::load`] or [`Engine::commit`] gave.
    fn follow(&self, after: Revision) -> Box<dyn Feed>;

    /// So many entries, in all, one transaction may compare and write; `None`: as many as it likes.
    fn most_at_once(&self) -> Option<usize>;

    /// The entries that last as long as a lease.
    fn live(&self) -> &dyn Live;

    /// Why this node neither reads nor writes secrets any more, if so.
    fn locked_out(&self) -> Option<EngineError> {
        None
    }
}

impl<E: Engine + ?Sized> Engine for Arc<E> {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        E::load(self)
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        E::commit(self, guards, writes)
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        E::follow(self, after)
    }

    fn most_at_once(&self) -> Option<usize> {
        E::most_at_once(self)
    }

    fn live(&self) -> &dyn Live {
        E::live(self)
    }

    fn locked_out(&self) -> Option<EngineError> {
        E::locked_out(self)
    }
}

/// The changes, in order and without gaps.
pub trait Feed: Send {
    /// Waits for the next changes: at least one batch.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>>;
}
