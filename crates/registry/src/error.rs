use std::path::PathBuf;

use crate::engine::{BadEtcdSettings, Revision};

/// The engine could not do its work. Unless the variant says otherwise, what it was asked to write may have been kept
/// nevertheless: it failed while, or after, it was writing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The disk failed, is full, or the file is damaged.
    #[error("the registry could not be written or read: {0}")]
    Storage(String),
    /// The engine was shut down.
    #[error("the registry has been closed")]
    Closed,
    /// No answer came in time.
    #[error("the registry takes too long to write; its disk, or etcd, may be failing")]
    Slow,
    /// No member of etcd that knows a leader can be reached. Nothing was written.
    #[error(
        "etcd cannot be reached: {0}; nothing was changed. What is configured goes on working, and changes are possible \
         again as soon as a majority of its members runs"
    )]
    Unavailable(String),
    /// etcd broke off.
    #[error("etcd did not say whether it kept the change: {0}; look whether it is there before you try again")]
    Uncertain(String),
    /// An entry cannot be decrypted.
    #[error("{key} cannot be decrypted: {problem}")]
    Sealed {
        /// The entry.
        key: String,
        /// Why.
        problem: String,
    },
    /// etcd does not do it, and will not until somebody changes something. Nothing was written.
    #[error("etcd refuses: {0}")]
    Refused(String),
}

/// Why the registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the file.
    #[error("{path} is in use by another process; stop it, or choose another data directory", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened, or is not a registry.
    #[error("cannot open the registry {path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer version of this program wrote the file.
    #[error(
        "the registry has schema {found}, and this version knows {known} at most; use the newer program that wrote it"
    )]
    Schema {
        /// The file's schema.
        found: u64,
        /// The newest schema known here.
        known: u64,
    },
    /// An entry is not readable.
    #[error("the registry's entry {key} is damaged: {problem}")]
    Entry {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An import was broken off: what is there is partly old and partly new.
    #[error("an import into this registry was broken off half way; run it again, with --replace")]
    HalfImported,
    /// The settings for etcd are of no use.
    #[error(transparent)]
    Settings(#[from] BadEtcdSettings),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The first entries could not be written.
    #[error("cannot set up the registry: {0}")]
    Founding(#[from] CommitError),
}

/// Why a transaction was not carried out, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A guarded entry has changed since it was read: nothing was written; read again and decide anew.
    #[error("{key} has changed meanwhile")]
    Conflict {
        /// The entry's key.
        key: String,
        /// The latest revision at that time: a snapshot that has it shows the change.
        revision: Revision,
    },
    /// It is more than the engine takes at once. Nothing was written.
    #[error(
        "the change is too large for etcd ({operations} operations, {bytes} bytes); make it in smaller steps, or raise etcd's \
         --max-txn-ops (128 by default) and --max-request-bytes (1.5 MiB)"
    )]
    TooLarge {
        /// Entries that are compared, or written.
        operations: usize,
        /// The request.
        bytes: usize,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
