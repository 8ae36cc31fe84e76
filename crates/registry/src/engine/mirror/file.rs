use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable};

use crate::engine::embedded::tables::{ENTRIES, META, META_COMPACTED, META_REVISION, load};
use crate::engine::embedded::{open_file, set_up};
use crate::engine::{Batch, Revision, State};
use crate::{EngineError, OpenError};

/// Between two writes: what happens meanwhile goes into the next one, so that a busy etcd does not wear out this disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Seconds since 1970 at the latest write.
const META_SAVED: &str = "saved";
/// What it is a copy of.
const META_SOURCE: &str = "source";

/// A copy of an engine's entries: the same kind of file as the embedded engine's, without a log of changes.
///
/// A thread of its own writes what was noted, once a second at most, and the rest when the value goes.
pub(super) struct MirrorFile {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    source: u64,
    /// `None` after it failed: redb refuses everything on one that did. Locked before `pending`.
    database: Mutex<Option<Database>>,
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// What is not in the file yet: as much as the entries that have changed since it could last be written.
#[derive(Default)]
struct Pending {
    changes: BTreeMap<String, (Revision, Option<Vec<u8>>)>,
    revision: Revision,
    is_stopping: bool,
}

impl MirrorFile {
    /// Opens the file, or makes it. One that cannot be read, or is a copy of something else, is begun anew: it is only a
    /// copy.
    pub(super) fn open(path: &Path, source: u64) -> Result<Self, OpenError> {
        let database = match open(path) {
            Ok(database) => database,
            Err(error @ OpenError::InUse { .. }) => return Err(error),
            Err(problem) => {
                tracing::warn!(%problem, "the copy of the registry is begun anew");
                let file = |error: std::io::Error| OpenError::File { path: path.into(), problem: error.to_string() };
                std::fs::remove_file(path).map_err(file)?;
                open(path)?
            }
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            source,
            database: Mutex::new(Some(database)),
            pending: Mutex::default(),
            wake: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new().name("mirror".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| EngineError::Storage(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// When it was last written; `None` if there is nothing to start from.
    pub(super) fn saved_at(&self) -> Option<Timestamp> {
        let seconds = self.shared.with(|database| {
            let transaction = database.begin_read()?;
            let meta = transaction.open_table(META)?;
            let value = |key| -> Result<Option<u64>, redb::Error> { Ok(meta.get(key)?.map(|value| value.value())) };
            let is_ours = value(META_SOURCE)? == Some(self.shared.source) && value(META_REVISION)?.is_some();
            Ok(if is_ours { value(META_SAVED)? } else { None })
        });
        let seconds =
            seconds.inspect_err(|problem| tracing::warn!(%problem, "the copy of the registry cannot be read"));
        Timestamp::from_second(i64::try_from(seconds.ok()??).ok()?).ok()
    }

    /// Everything in it.
    pub(super) async fn load(&self) -> Result<State, EngineError> {
        let shared = self.shared.clone();
        let loaded = tokio::task::spawn_blocking(move || shared.with(load)).await;
        loaded.map_err(|_| EngineError::Closed)?
    }

    /// Brings the file to this state, which comes back.
    pub(super) async fn replace(&self, state: State) -> State {
        let shared = self.shared.clone();
        let work = move || {
            if let Err(problem) = shared.replace(&state) {
                tracing::error!(%problem, "the copy of the registry is not written");
            }
            state
        };
        tokio::task::spawn_blocking(work).await.expect("writing does not panic")
    }

    /// Has changes written, soon.
    pub(super) fn note(&self, batches: &[Batch]) {
        let Some(last) = batches.last() else { return };
        let mut pending = self.shared.pending();
        pending.revision = last.revision;
        for batch in batches {
            for write in &batch.writes {
                pending.changes.insert(write.key.clone(), (batch.revision, write.value.clone()));
            }
        }
        self.shared.wake.notify_one();
    }
}

impl Drop for MirrorFile {
    /// Waits until all of it is written.
    fn drop(&mut self) {
        self.shared.pending().is_stopping = true;
        self.shared.wake.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the registry's copy panicked");
        }
    }
}

fn open(path: &Path) -> Result<Database, OpenError> {
    let database = open_file(path)?;
    set_up(&database)?;
    Ok(database)
}

impl Shared {
    fn run(&self) {
        let mut is_failing = false;
        loop {
            let is_idle = |pending: &mut Pending| pending.revision == 0 && !pending.is_stopping;
            let waited = self.wake.wait_while(self.pending(), is_idle);
            let is_stopping = waited.unwrap_or_else(PoisonError::into_inner).is_stopping;
            let outcome = self.flush();
            if let Err(problem) = &outcome
                && (!is_failing || is_stopping)
            {
                tracing::error!(%problem, "the copy of the registry is not written; trying again");
            }
            is_failing = outcome.is_err();
            if is_stopping {
                return;
            }
            let pause = self.wake.wait_timeout_while(self.pending(), PAUSE, |pending| !pending.is_stopping);
            drop(pause);
        }
    }

    /// Writes what is pending.
    fn flush(&self) -> Result<(), EngineError> {
        let mut taken = Pending::default();
        let outcome = self.with(|database| {
            {
                let mut pending = self.pending();
                taken.revision = std::mem::take(&mut pending.revision);
                taken.changes = std::mem::take(&mut pending.changes);
            }
            if taken.revision == 0 {
                return Ok(());
            }
            self.write(database, taken.revision, |entries| {
                for (key, (revision, value)) in &taken.changes {
                    match value {
                        Some(value) => drop(entries.insert(key.as_str(), (*revision, value.as_slice()))?),
                        None => drop(entries.remove(key.as_str())?),
                    }
                }
                Ok(())
            })
        });
        if outcome.is_err() {
            let mut pending = self.pending();
            pending.revision = pending.revision.max(taken.revision);
            for (key, change) in taken.changes {
                pending.changes.entry(key).or_insert(change);
            }
        }
        outcome
    }

    /// Only what differs is written.
    fn replace(&self, state: &State) -> Result<(), EngineError> {
        self.with(|database| {
            self.write(database, state.revision, |table| {
                let mut is_there = vec![false; state.entries.len()];
                let mut gone = Vec::new();
                for entry in table.iter()? {
                    let (key, value) = entry?;
                    match state.entries.binary_search_by(|entry| entry.key.as_str().cmp(key.value())) {
                        // An etcd that was set back counts the same revisions once more.
                        Ok(index) => {
                            let entry = &state.entries[index];
                            is_there[index] = value.value() == (entry.revision, entry.value.as_slice());
                        }
                        Err(_) => gone.push(key.value().to_owned()),
                    }
                }
                for key in &gone {
                    table.remove(key.as_str())?;
                }
                for (entry, _) in state.entries.iter().zip(is_there).filter(|(_, is_there)| !is_there) {
                    table.insert(entry.key.as_str(), (entry.revision, entry.value.as_slice()))?;
                }
                Ok(())
            })?;
            let mut pending = self.pending();
            pending.changes.retain(|_, (revision, _)| *revision > state.revision);
            if pending.changes.is_empty() {
                pending.revision = 0;
            }
            Ok(())
        })
    }

    fn write(
        &self,
        database: &Database,
        revision: Revision,
        change: impl FnOnce(&mut redb::Table<'_, &str, (u64, &[u8])>) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        change(&mut transaction.open_table(ENTRIES)?)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_REVISION, revision)?;
            // There is no log.
            meta.insert(META_COMPACTED, revision)?;
            meta.insert(META_SOURCE, self.source)?;
            meta.insert(META_SAVED, u64::try_from(Timestamp::now().as_second()).unwrap_or_default())?;
        }
        Ok(transaction.commit()?)
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, EngineError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(open(&self.path).map_err(|error| EngineError::Storage(error.to_string()))?);
        }
        let outcome = work(database.as_ref().expect("opened above"));
        if outcome.is_err() {
            *database = None;
        }
        outcome.map_err(|error| EngineError::Storage(error.to_string()))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing in here leaves it half changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Entry, Write};

    fn entry(key: &str, value: &str, revision: Revision) -> Entry {
        Entry { key: key.into(), value: value.into(), revision }
    }

    fn batch(revision: Revision, key: &str, value: Option<&str>) -> Batch {
        Batch { revision, writes: vec![Write { key: key.into(), value: value.map(Into::into) }] }
    }

    #[tokio::test]
    async fn what_was_noted_is_there_after_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.redb");
        let file = MirrorFile::open(&path, 1).unwrap();
        assert_eq!(file.saved_at(), None, "there is nothing to start from");
        let state = State { revision: 7, entries: vec![entry("a", "1", 3), entry("b", "1", 5), entry("c", "1", 7)] };
        file.replace(state).await;
        let state = State { revision: 9, entries: vec![entry("a", "1", 3), entry("c", "2", 9), entry("d", "1", 8)] };
        file.replace(state.clone()).await;
        assert_eq!(file.load().await.unwrap(), state);
        for revision in 10..500 {
            file.note(&[batch(revision, "e", Some(&revision.to_string())), batch(revision, "a", None)]);
        }
        drop(file);

        let file = MirrorFile::open(&path, 1).unwrap();
        let expected = vec![entry("c", "2", 9), entry("d", "1", 8), entry("e", "499", 499)];
        assert_eq!(file.load().await.unwrap(), State { revision: 499, entries: expected });
        assert!(file.saved_at().is_some());
        assert!(matches!(MirrorFile::open(&path, 1), Err(OpenError::InUse { .. })));
        drop(file);
        assert_eq!(MirrorFile::open(&path, 2).unwrap().saved_at(), None, "it is a copy of something else");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[tokio::test]
    async fn what_is_no_copy_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.redb");
        std::fs::write(&path, b"no registry".repeat(1000)).unwrap();
        let file = MirrorFile::open(&path, 1).unwrap();
        assert_eq!(file.saved_at(), None);
        file.replace(State { revision: 1, entries: vec![entry("a", "1", 1)] }).await;
        assert_eq!(file.load().await.unwrap().entries.len(), 1);
    }

    #[test]
    fn the_disk_is_written_once_a_second_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let file = MirrorFile::open(&directory.path().join("copy.redb"), 1).unwrap();
        let start = std::time::Instant::now();
        for revision in 1..2_000 {
            file.note(&[batch(revision, "a", Some("x"))]);
        }
        let revision = |file: &MirrorFile| {
            file.shared
                .with(|database| Ok(database.begin_read()?.open_table(META)?.get(META_REVISION)?.map(|at| at.value())))
        };
        let mut seen = vec![revision(&file).unwrap()];
        while seen.last() != Some(&Some(1_999)) {
            assert!(start.elapsed() < Duration::from_secs(30), "{seen:?}");
            // The writer needs the database, too.
            thread::sleep(Duration::from_millis(5));
            let now = revision(&file).unwrap();
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        let most = 2 + start.elapsed().as_secs();
        assert!(u64::try_from(seen.len()).unwrap() <= 1 + most, "{seen:?}");
    }
}
