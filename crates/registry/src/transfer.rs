//! A whole registry as text, out of one engine and into another. Live state is no part of it.

mod document;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engine::sealed::is_check;
use crate::engine::{Engine, Guard, Revision, State, Write};
use crate::resource::Resource as _;
use crate::{CommitError, EngineError, Invitation, OpenError, Snapshot};

pub use document::{Document, DocumentError};

/// Is there as long as an import of several transactions is not done.
const MARKER: &str = "import/unfinished";
/// What etcd takes in one transaction is 1.5 MiB, unless it is told otherwise.
const BYTES: usize = 1 << 20;

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Entries that are new, or other than they were.
    pub written: usize,
    /// Entries that are no more.
    pub removed: usize,
}

/// Why nothing was imported, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing was written.
    #[error("the registry is not empty: it has {0} entries; with --replace they make way")]
    NotEmpty(usize),
    /// An entry of the document is none that this program can read. Nothing was written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The registry cannot be read. Nothing was written.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing was written.
    #[error("the registry was not changed: {0}")]
    Refused(CommitError),
    /// Some of it was written, and no node starts with that.
    #[error("the import was broken off half way: {0}; run it again, with --replace")]
    Broken(CommitError),
}

/// Whether an import was broken off.
pub(crate) fn is_half_imported(state: &State) -> bool {
    state.entries.iter().any(|entry| entry.key == MARKER)
}

/// Makes an engine's entries those of a document: all at once where the engine can, which the embedded one can. etcd
/// takes several transactions for more than some hundred changes: a mark, put first and removed last, keeps nodes from
/// starting in between, and one that runs already sees the changes come. Only what differs is written.
///
/// # Errors
/// The registry is not empty and `replace` is not said, the document is not readable, or the engine fails.
pub async fn import(engine: &dyn Engine, document: &Document, replace: bool) -> Result<Imported, ImportError> {
    check(document)?;
    let state = engine.load().await?;
    let present = state.entries.iter().filter(|entry| !is_check(&entry.key)).count();
    if !replace && present > 0 {
        return Err(ImportError::NotEmpty(present));
    }
    let changes = changes(&state, document);
    let mark = state.entries.iter().find(|entry| entry.key == MARKER);
    let removed = changes.iter().filter(|(_, write)| write.value.is_none()).count();
    let imported = Imported { written: changes.len() - removed, removed };

    let chunks = chunks(changes, engine.most_at_once());
    if let ([] | [_], None) = (&chunks[..], mark) {
        for chunk in chunks {
            commit(engine, chunk, None).await.map_err(ImportError::Refused)?;
        }
        return Ok(imported);
    }
    let put_mark = Write { key: MARKER.into(), value: Some(b"{}".to_vec()) };
    let guard = Guard { key: MARKER.into(), revision: mark.map_or(0, |mark| mark.revision) };
    let mut marked = engine.commit(vec![guard], vec![put_mark]).await.map_err(ImportError::Refused)?;
    for chunk in chunks {
        // Whoever takes over puts another mark.
        commit(engine, chunk, Some(marked)).await.map_err(ImportError::Broken)?;
    }
    let done = Write { key: MARKER.into(), value: None };
    let guard = Guard { key: MARKER.into(), revision: marked };
    marked = engine.commit(vec![guard], vec![done]).await.map_err(ImportError::Broken)?;
    tracing::debug!(revision = marked, "the import is done");
    Ok(imported)
}

/// Whether an entry is of this registry itself, and no configuration. Which keys for joining were spent is so, too: a
/// restore would make them good once more.
fn is_apart(key: &str) -> bool {
    key == MARKER || is_check(key) || key.split_once('/').is_some_and(|(kind, _)| kind == Invitation::KIND)
}

async fn commit(
    engine: &dyn Engine,
    chunk: Vec<(Revision, Write)>,
    marked: Option<Revision>,
) -> Result<Revision, CommitError> {
    let mark = marked.map(|revision| Guard { key: MARKER.into(), revision });
    let guards = chunk.iter().map(|(revision, write)| Guard { key: write.key.clone(), revision: *revision });
    let guards = guards.chain(mark).collect();
    engine.commit(guards, chunk.into_iter().map(|(_, write)| write).collect()).await
}

/// That this program can read every entry.
fn check(document: &Document) -> Result<(), DocumentError> {
    let problem = |error: OpenError| match error {
        OpenError::Entry { key, problem } => DocumentError::Entry { key, problem },
        other => DocumentError::Entry { key: "?".into(), problem: other.to_string() },
    };
    let mut snapshot = Snapshot::default();
    snapshot.load(&document.state()).map_err(problem)?;
    if snapshot.is_founded() { Ok(()) } else { Err(DocumentError::NoAccount) }
}

/// What has to be written, each with the revision that it replaces: new things first, so that what refers to them finds
/// them.
fn changes(state: &State, document: &Document) -> Vec<(Revision, Write)> {
    let present: BTreeMap<&str, _> = state.entries.iter().map(|entry| (entry.key.as_str(), entry)).collect();
    let put = document.entries.iter().filter_map(|(key, value)| {
        let old = present.get(key.as_str());
        let is_same = old.is_some_and(|old| serde_json::from_slice::<Value>(&old.value).is_ok_and(|old| old == *value));
        let write = Write { key: key.clone(), value: Some(value.to_string().into_bytes()) };
        (!is_same).then(|| (old.map_or(0, |old| old.revision), write))
    });
    let gone = present.iter().filter(|(key, _)| !is_apart(key) && !document.entries.contains_key(**key));
    let gone = gone.map(|(key, old)| (old.revision, Write { key: (*key).to_owned(), value: None }));
    put.chain(gone).collect()
}

/// Cuts into what fits into one transaction each.
pub(crate) fn chunks(changes: Vec<(Revision, Write)>, most: Option<usize>) -> Vec<Vec<(Revision, Write)>> {
    let Some(most) = most else { return if changes.is_empty() { Vec::new() } else { vec![changes] } };
    let mut chunks: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for change in changes {
        let size = change.1.key.len() + change.1.value.as_ref().map_or(0, Vec::len);
        let fits = |chunk: &&mut Vec<_>| chunk.len() < most && bytes + size <= BYTES;
        match chunks.last_mut().filter(fits) {
            Some(chunk) => {
                bytes += size;
                chunk.push(change);
            }
            None => {
                bytes = size;
                chunks.push(vec![change]);
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_bounds_and_lose_nothing() {
        let write = |index: usize, size: usize| (0, Write { key: index.to_string(), value: Some(vec![0; size]) });
        let changes: Vec<_> =
            (0..250).map(|index| write(index, if index % 10 == 0 { BYTES / 2 } else { 10 })).collect();
        let cut = chunks(changes.clone(), Some(100));
        assert!(cut.iter().all(|chunk| chunk.len() <= 100));
        let bytes =
            |chunk: &Vec<(Revision, Write)>| chunk.iter().map(|(_, write)| write.value.as_ref().unwrap().len()).sum();
        assert!(cut.iter().map(bytes).all(|bytes: usize| bytes <= BYTES));
        assert_eq!(cut.concat(), changes);
        assert_eq!(chunks(changes.clone(), None), [changes]);
        assert!(chunks(Vec::new(), None).is_empty());
    }
}
