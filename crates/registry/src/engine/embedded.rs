use std::path::Path;

use futures_util::future::BoxFuture;

use super::{Engine, Feed, Guard, Revision, State, Write};
use crate::{CommitError, EngineError, OpenError};

/// The engine for one node: one file, or none at all.
pub struct Embedded {}

impl Embedded {
    /// Opens the file, or makes it (mode 0600).
    ///
    /// # Errors
    /// The file is in use, unreadable, not a registry, or of a newer schema.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let _ = path;
        todo!()
    }

    /// Keeps everything in memory, for as long as it lives.
    ///
    /// # Errors
    /// None that a person could cause; the signature is that of [`Embedded::open`].
    pub fn in_memory() -> Result<Self, OpenError> {
        todo!()
    }
}

impl Engine for Embedded {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        todo!()
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        let _ = (guards, writes);
        todo!()
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        let _ = after;
        todo!()
    }
}
