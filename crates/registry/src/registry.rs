use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::engine::{Embedded, Engine, Revision};
use crate::{CommitError, ConnectionRecord, OpenError, Presence, Snapshot, Transaction, Watch};

/// The typed state of the edge. Cheap to clone; the last clone closes the engine.
#[derive(Clone)]
pub struct Registry {}

impl Registry {
    /// Opens the registry that this engine keeps, and makes the account at first start.
    ///
    /// # Errors
    /// The engine fails, or an entry is damaged.
    pub async fn open(engine: impl Engine, now: Timestamp) -> Result<Self, OpenError> {
        let _ = (engine, now);
        todo!()
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
        todo!()
    }

    /// Carries out a transaction, and answers its revision once [`Registry::snapshot`] has it.
    ///
    /// # Errors
    /// A guard does not hold any more, or the engine fails; nothing was written then.
    pub async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let _ = transaction;
        todo!()
    }

    /// Follows the changes after this revision.
    pub fn watch(&self, after: Revision) -> Watch {
        let _ = after;
        todo!()
    }

    /// Lists a connection until the answer is dropped. Never waits, so it works with the engine down.
    pub fn connect(&self, connection: ConnectionRecord) -> Presence {
        let _ = connection;
        todo!()
    }
}
