mod leases;
pub(super) mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use futures_util::future::BoxFuture;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError};
use tokio::sync::{mpsc, oneshot, watch};

use self::leases::Leases;
use self::tables::{changes, commit, load, read_or_make_tables};
use super::{Batch, Engine, Feed, FeedError, Guard, Live, Revision, SCHEMA, State, Write};
use crate::{CommitError, EngineError, OpenError};

/// The log of changes reaches back this many transactions: enough for any follower in the same process, and a few MB at
/// most.
const LOG_REVISIONS: u64 = 10_000;
/// Everything is in the snapshot anyway, so the file's own cache need not be large.
const CACHE_BYTES: usize = 8 << 20;
/// Transactions that share one write to the disk: what waits while the disk is busy.
const GROUP: usize = 64;
/// Commands under way; whoever comes then waits.
const QUEUE: usize = 256;

/// The engine for one node: one file, or none at all.
///
/// A thread of its own owns the database. Transactions that arrive while the disk is busy share the next write to it.
pub struct Embedded {
    commands: mpsc::Sender<Command>,
    head: watch::Receiver<Revision>,
    live: Leases,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the file, or makes it (mode 0600).
    ///
    /// # Errors
    /// The file is in use, unreadable, not a registry, or of a newer schema.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::start(Place::File(path.to_owned()), LOG_REVISIONS)
    }

    /// Keeps everything in memory, for as long as it lives.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn in_memory() -> Result<Self, OpenError> {
        Self::start(Place::Memory, LOG_REVISIONS)
    }

    fn start(place: Place, log_revisions: u64) -> Result<Self, OpenError> {
        let database = place.open()?;
        let mut owner = Owner { place, database: None, log_revisions };
        let revision = owner.adopt(database)?;
        let (head_sender, head) = watch::channel(revision);
        let (commands, receiver) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("registry".into())
            .spawn(move || owner.run(receiver, &head_sender))
            .map_err(|error| EngineError::Storage(format!("cannot start a thread: {error}")))?;
        Ok(Self { commands, head, live: Leases::new(), thread: Some(thread) })
    }
}

impl Drop for Embedded {
    /// Waits for what is under way, so that the file is free afterwards.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Followers may still hold senders, so closing ours would not end the thread. A full queue only means that the
        // thread is busy and will come to the end of it.
        while let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(Command::Stop) {
            thread::yield_now();
        }
        if thread.join().is_err() {
            tracing::error!("the registry's thread panicked");
        }
    }
}

impl Engine for Embedded {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(async {
            let (reply, answer) = oneshot::channel();
            self.commands.send(Command::Load(reply)).await.map_err(|_| EngineError::Closed)?;
            answer.await.map_err(|_| EngineError::Closed)?
        })
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async {
            let (reply, answer) = oneshot::channel();
            let order = Order { guards, writes, reply };
            self.commands.send(Command::Commit(order)).await.map_err(|_| EngineError::Closed)?;
            answer.await.map_err(|_| EngineError::Closed)?
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        Box::new(EmbeddedFeed { commands: self.commands.clone(), head: self.head.clone(), after })
    }

    fn most_at_once(&self) -> Option<usize> {
        None
    }

    fn live(&self) -> &dyn Live {
        &self.live
    }
}

struct EmbeddedFeed {
    commands: mpsc::Sender<Command>,
    head: watch::Receiver<Revision>,
    after: Revision,
}

impl Feed for EmbeddedFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(async {
            if self.after > *self.head.borrow() {
                return Err(FeedError::Compacted);
            }
            let after = self.after;
            self.head.wait_for(|head| *head > after).await.map_err(|_| EngineError::Closed)?;
            let (reply, answer) = oneshot::channel();
            self.commands.send(Command::Changes { after, reply }).await.map_err(|_| EngineError::Closed)?;
            let batches = answer.await.map_err(|_| EngineError::Closed)??;
            if let Some(last) = batches.last() {
                self.after = last.revision;
            }
            Ok(batches)
        })
    }
}

struct Order {
    guards: Vec<Guard>,
    writes: Vec<Write>,
    reply: oneshot::Sender<Result<Revision, CommitError>>,
}

enum Command {
    Load(oneshot::Sender<Result<State, EngineError>>),
    Commit(Order),
    Changes { after: Revision, reply: oneshot::Sender<Result<Vec<Batch>, FeedError>> },
    Stop,
}

enum Place {
    File(PathBuf),
    Memory,
    #[cfg(test)]
    Disk(tests::Disk),
}

impl Place {
    fn open(&self) -> Result<Database, OpenError> {
        let in_memory = |error: DatabaseError| EngineError::Storage(error.to_string()).into();
        match self {
            Self::File(path) => open_file(path),
            Self::Memory => builder().create_with_backend(InMemoryBackend::new()).map_err(in_memory),
            #[cfg(test)]
            Self::Disk(disk) => builder().create_with_backend(disk.clone()).map_err(in_memory),
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens the file, or makes it (mode 0600).
pub(super) fn open_file(path: &Path) -> Result<Database, OpenError> {
    let problem = |problem: String| OpenError::File { path: path.to_owned(), problem };
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| problem(error.to_string()))?;
    builder().create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        other => problem(format!("{other}; restore it from a copy, or move it away to start anew")),
    })
}

/// Owns the database. After a failed write the database is opened anew: redb refuses everything on one that failed.
struct Owner {
    place: Place,
    database: Option<Database>,
    log_revisions: u64,
}

impl Owner {
    /// Takes a database that was just opened, makes its tables at first, and answers its revision.
    fn adopt(&mut self, database: Database) -> Result<Revision, OpenError> {
        let revision = set_up(&database)?;
        self.database = Some(database);
        Ok(revision)
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>, head: &watch::Sender<Revision>) {
        let mut next = commands.blocking_recv();
        while let Some(command) = next.take() {
            match command {
                Command::Stop => return,
                Command::Load(reply) => {
                    let _ = reply.send(self.with_database(head, load));
                }
                Command::Changes { after, reply } => {
                    let batches = self.with_database(head, |database| changes(database, after));
                    let _ = reply.send(batches.map_err(FeedError::from).and_then(|batches| batches));
                }
                Command::Commit(order) => {
                    let mut group = vec![order];
                    while group.len() < GROUP && next.is_none() {
                        match commands.try_recv() {
                            Ok(Command::Commit(order)) => group.push(order),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.commit(group, head);
                }
            }
            if next.is_none() {
                next = commands.blocking_recv();
            }
        }
    }

    fn commit(&mut self, group: Vec<Order>, head: &watch::Sender<Revision>) {
        let log_revisions = self.log_revisions;
        let outcome = self.with_database(head, |database| commit(database, &group, log_revisions));
        match outcome {
            Ok((revision, verdicts)) => {
                head.send_replace(revision);
                for (order, verdict) in group.into_iter().zip(verdicts) {
                    let _ = order.reply.send(verdict);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the registry was not written");
                for order in group {
                    let _ = order.reply.send(Err(error.clone().into()));
                }
            }
        }
    }

    fn with_database<T>(
        &mut self,
        head: &watch::Sender<Revision>,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, EngineError> {
        if self.database.is_none() {
            let opened = self.place.open().and_then(|database| self.adopt(database));
            let revision = opened.map_err(|error| EngineError::Storage(error.to_string()))?;
            // A write whose outcome was unknown may have reached the disk after all.
            head.send_if_modified(|head| std::mem::replace(head, revision) != revision);
        }
        let database = self.database.as_ref().expect("opened above");
        work(database).map_err(|error| {
            if !matches!(self.place, Place::Memory) {
                self.database = None;
            }
            EngineError::Storage(error.to_string())
        })
    }
}

/// Makes the tables at first, and answers the revision.
pub(super) fn set_up(database: &Database) -> Result<Revision, OpenError> {
    let storage = |error: redb::Error| OpenError::Engine(EngineError::Storage(error.to_string()));
    let (schema, revision) = read_or_make_tables(database).map_err(storage)?;
    if schema > SCHEMA {
        return Err(OpenError::Schema { found: schema, known: SCHEMA });
    }
    Ok(revision)
}

/// What all engines have in common is tested in `tests/engines.rs`.
#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;

    use super::tables::{META, META_SCHEMA};
    use super::*;

    /// A disk that can be told to be full.
    #[derive(Debug, Clone)]
    pub(super) struct Disk {
        content: Arc<InMemoryBackend>,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.content.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.content.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.content.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.content.write(offset, data)
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_until_there_is_room_again() {
        let full = Arc::new(AtomicBool::new(false));
        let disk = Disk { content: Arc::new(InMemoryBackend::new()), full: full.clone() };
        let engine = Embedded::start(Place::Disk(disk), 100).unwrap();
        engine.commit(vec![], vec![put("a", "1")]).await.unwrap();
        full.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let refused = engine.commit(vec![], vec![put("a", "2")]).await;
            assert!(matches!(refused, Err(CommitError::Engine(EngineError::Storage(_)))), "{refused:?}");
        }
        full.store(false, Ordering::Relaxed);
        assert_eq!(engine.load().await.unwrap().entries[0].value, b"1");
        assert_eq!(engine.commit(vec![guard("a", 1)], vec![put("a", "3")]).await.unwrap(), 2);
        assert_eq!(engine.follow(1).next().await.unwrap().len(), 1);
    }

    fn put(key: &str, value: &str) -> Write {
        Write { key: key.to_owned(), value: Some(value.into()) }
    }

    fn guard(key: &str, revision: Revision) -> Guard {
        Guard { key: key.to_owned(), revision }
    }

    #[tokio::test]
    async fn a_follower_sees_every_batch_in_order_and_learns_of_compaction() {
        let engine = Embedded::start(Place::Memory, 5).unwrap();
        for value in ["1", "2", "3"] {
            engine.commit(vec![], vec![put("a", value), Write { key: "b".into(), value: None }]).await.unwrap();
        }
        let mut feed = engine.follow(1);
        let batches = feed.next().await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.revision).collect::<Vec<_>>(), [2, 3]);
        let gone = Write { key: "b".into(), value: None };
        assert_eq!(batches[0].writes, std::slice::from_ref(&gone), "the old value of a is in nobody's interest");
        assert_eq!(batches[1].writes, [put("a", "3"), gone]);

        let (later, batches) = tokio::join!(engine.commit(vec![], vec![put("c", "4")]), feed.next());
        assert_eq!((later.unwrap(), batches.unwrap()[0].revision), (4, 4));

        for value in ["5", "6", "7", "8", "9"] {
            engine.commit(vec![], vec![put("a", value)]).await.unwrap();
        }
        assert_eq!(feed.next().await.unwrap().len(), 5);
        assert!(matches!(engine.follow(3).next().await, Err(FeedError::Compacted)));
        assert!(matches!(engine.follow(10).next().await, Err(FeedError::Compacted)));
        assert_eq!(engine.follow(4).next().await.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn a_file_keeps_everything_and_belongs_to_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.redb");
        let engine = Embedded::open(&path).unwrap();
        engine.commit(vec![], vec![put("a", "1")]).await.unwrap();

        let second = Embedded::open(&path).err().unwrap();
        assert!(matches!(&second, OpenError::InUse { path: named } if *named == path), "{second}");

        drop(engine);
        let again = Embedded::open(&path).unwrap();
        assert_eq!(again.load().await.unwrap().entries[0].value, b"1");
        assert_eq!(again.commit(vec![guard("a", 1)], vec![put("a", "2")]).await.unwrap(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[tokio::test]
    async fn files_that_are_no_registry_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.redb");
        fs::write(&path, b"this is not a registry".repeat(1000)).unwrap();
        let refused = Embedded::open(&path).err().unwrap().to_string();
        assert!(refused.contains("registry.redb"), "{refused}");
        let refused = Embedded::open(&directory.path().join("none/registry.redb")).err().unwrap().to_string();
        assert!(refused.contains("none/registry.redb"), "{refused}");
    }

    #[tokio::test]
    async fn an_older_schema_is_brought_forward() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.redb");
        let engine = Embedded::open(&path).unwrap();
        engine.commit(vec![], vec![put("a", "1")]).await.unwrap();
        drop(engine);
        set_schema(&path, 1);
        assert_eq!(Embedded::open(&path).unwrap().load().await.unwrap().entries.len(), 1);
        let database = Database::open(&path).unwrap();
        let meta = redb::ReadableDatabase::begin_read(&database).unwrap().open_table(META).unwrap();
        assert_eq!(meta.get(META_SCHEMA).unwrap().unwrap().value(), SCHEMA);
    }

    fn set_schema(path: &Path, schema: u64) {
        let database = Database::open(path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(META_SCHEMA, schema).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.redb");
        drop(Embedded::open(&path).unwrap());
        set_schema(&path, SCHEMA + 1);
        assert!(matches!(Embedded::open(&path).err().unwrap(), OpenError::Schema { found: 3, known: 2 }));
    }
}
