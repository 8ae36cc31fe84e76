//! etcd with a copy of it on this node's disk, from which the node starts while etcd cannot be reached.

mod file;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;

use self::file::MirrorFile;
use super::etcd::feed::start_over;
use super::{Batch, Engine, Etcd, EtcdSettings, Feed, FeedError, Guard, Live, Revision, State, Write};
use crate::retry::Retry;
use crate::{CommitError, EngineError, OpenError};

/// [`Etcd`], whose latest state is kept in a file as well: what etcd has, entry by entry, but for live entries.
///
/// While etcd cannot be reached at the start, the file stands in for it: everything is there as it was known last, changes
/// are refused, and the feed begins with everything anew once etcd is back.
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    etcd: Etcd,
    file: MirrorFile,
    /// etcd was reached, and what is there is ours to understand.
    is_checked: watch::Sender<bool>,
    stand_in: Option<StandIn>,
    /// The first load is answered from the file.
    is_standing_in: AtomicBool,
}

/// That a node started from what it knew.
#[derive(Debug, Clone)]
pub struct StandIn {
    /// When that was written.
    pub saved_at: Timestamp,
    /// Why etcd was not asked.
    pub problem: EngineError,
}

impl Mirror {
    /// Reaches etcd, or has the file stand in for it if it can.
    ///
    /// # Errors
    /// As [`Etcd::open`], unless etcd cannot be reached and the file has something; the file is in use.
    pub async fn open(settings: &EtcdSettings, path: &Path) -> Result<Self, OpenError> {
        let etcd = Etcd::unchecked(settings)?;
        let file = MirrorFile::open(path, source(settings))?;
        let stand_in = match etcd.check().await {
            Ok(()) => None,
            Err(OpenError::Engine(problem @ (EngineError::Unavailable(_) | EngineError::Uncertain(_)))) => {
                let Some(saved_at) = file.saved_at() else { return Err(problem.into()) };
                Some(StandIn { saved_at, problem })
            }
            Err(error) => return Err(error),
        };
        let is_checked = watch::Sender::new(stand_in.is_none());
        let is_standing_in = AtomicBool::new(stand_in.is_some());
        Ok(Self { inner: Arc::new(Inner { etcd, file, is_checked, stand_in, is_standing_in }) })
    }

    /// That the file stood in for etcd at the start, and why.
    pub fn stand_in(&self) -> Option<&StandIn> {
        self.inner.stand_in.as_ref()
    }
}

/// What the file is a copy of. Members come and go; the prefix says whose registry it is.
fn source(settings: &EtcdSettings) -> u64 {
    let digest: [u8; 32] = Sha256::digest(&settings.prefix).into();
    let (head, _) = digest.split_at(8);
    u64::from_be_bytes(head.try_into().expect("8 bytes were split off"))
}

impl Inner {
    async fn check(&self) -> Result<(), EngineError> {
        if *self.is_checked.borrow() {
            return Ok(());
        }
        self.etcd.check().await.map_err(|error| match error {
            OpenError::Engine(error) => error,
            error => EngineError::Refused(error.to_string()),
        })?;
        self.is_checked.send_replace(true);
        Ok(())
    }
}

impl Engine for Mirror {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(async {
            if self.inner.is_standing_in.swap(false, Ordering::AcqRel) {
                return self.inner.file.load().await;
            }
            self.inner.check().await?;
            Ok(self.inner.file.replace(self.inner.etcd.load().await?).await)
        })
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async {
            self.inner.check().await?;
            self.inner.etcd.commit(guards, writes).await
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        let is_checked = *self.inner.is_checked.borrow();
        let feed = is_checked.then(|| self.inner.etcd.follow(after));
        Box::new(MirrorFeed { inner: self.inner.clone(), feed, retry: Retry::default() })
    }

    fn most_at_once(&self) -> Option<usize> {
        self.inner.etcd.most_at_once()
    }

    fn live(&self) -> &dyn Live {
        self.inner.etcd.live()
    }
}

struct MirrorFeed {
    inner: Arc<Inner>,
    /// `None`: of what the file said there is no following.
    feed: Option<Box<dyn Feed>>,
    retry: Retry,
}

impl Feed for MirrorFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(async {
            let Some(feed) = &mut self.feed else {
                while let Err(error) = self.inner.check().await {
                    // Somebody who changes something may find out first.
                    let mut checked = self.inner.is_checked.subscribe();
                    let _ = timeout(self.retry.failed(), checked.wait_for(|is_checked| *is_checked)).await;
                    if !matches!(error, EngineError::Unavailable(_) | EngineError::Uncertain(_)) {
                        return Err(error.into());
                    }
                }
                tracing::info!("etcd is back; everything is read anew");
                return Err(start_over().await);
            };
            let batches = feed.next().await?;
            self.inner.file.note(&batches);
            Ok(batches)
        })
    }
}
