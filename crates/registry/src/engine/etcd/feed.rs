use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::assembly::Assembly;
use super::fault::Fault;
use super::members::{Watching, jitter};
use super::message::{WatchCreateRequest, WatchOrder, WatchProgressRequest, WatchRequest, WatchResponse};
use super::transaction::{signed, unsigned};
use super::{Cluster, unavailable};
use crate::EngineError;
use crate::engine::{Batch, Feed, FeedError};

/// A watch that says nothing for so long is asked whether it is still there: an etcd without a majority, or one that is
/// stuck, keeps its connections.
const QUIET: Duration = Duration::from_secs(4);
/// Then it is given up, and another member asked.
const ANSWER: Duration = Duration::from_secs(4);
/// After every member refused; grows to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Over twice this time nodes that have to load everything spread.
const LOADING: Duration = Duration::from_secs(1);

/// Follows the changes by a watch, which goes from member to member when one fails.
pub(super) struct EtcdFeed {
    cluster: Arc<Cluster>,
    /// Which history the revisions are of.
    history: u64,
    assembly: Assembly,
    watching: Option<Watching>,
    /// How often in a row no member would do.
    failures: u32,
}

impl EtcdFeed {
    pub(super) fn new(cluster: Arc<Cluster>, history: u64, assembly: Assembly) -> Self {
        Self { cluster, history, assembly, watching: None, failures: 0 }
    }

    /// Cancel-safe: what was taken up is kept.
    async fn batches(&mut self) -> Result<Vec<Batch>, FeedError> {
        loop {
            if self.watching.is_none() {
                let watching = self.open().await?;
                self.watching = Some(watching);
            }
            let watching = self.watching.as_mut().expect("opened above");
            match next(watching).await {
                Ok(answer) if answer.canceled => {
                    self.close();
                    return Err(self.ended(&answer).await);
                }
                Ok(answer) => {
                    let batches = self.assembly.take(answer);
                    if !batches.is_empty() {
                        return Ok(batches);
                    }
                }
                Err(problem) => {
                    let member = watching.member.clone();
                    tracing::info!(%member, problem, "following the registry at another member of etcd");
                    self.cluster.members.avoid(&member);
                    self.close();
                }
            }
        }
    }

    fn close(&mut self) {
        self.watching = None;
        self.assembly.interrupt();
    }

    async fn open(&mut self) -> Result<Watching, FeedError> {
        if self.failures > 0 {
            let (first, longest) = PAUSES;
            tokio::time::sleep(jitter((first * 2_u32.pow(self.failures.min(10))).min(longest))).await;
        }
        let outcome = self.watch().await;
        self.failures = if outcome.is_ok() { 0 } else { self.failures.saturating_add(1) };
        outcome
    }

    async fn watch(&self) -> Result<Watching, FeedError> {
        let (key, range_end) = self.assembly.range();
        let after = self.assembly.after();
        let create = WatchOrder::Create(WatchCreateRequest {
            key,
            range_end,
            start_revision: signed(after).saturating_add(1),
            progress_notify: true,
            fragment: true,
        });
        let watching = self.cluster.members.watch("/etcdserverpb.Watch/Watch", &create).await.map_err(unavailable)?;
        if watching.created.canceled {
            return Err(self.ended(&watching.created).await);
        }
        let header = watching.created.header.clone().unwrap_or_default();
        if header.cluster_id != self.history {
            return Err(start_over().await);
        }
        // A member that lags knows less than we do, and catches up. A store that as a whole knows less was set back to a
        // copy, and would let us wait until it comes by here again.
        if unsigned(header.revision) < after && self.cluster.revision().await.map_err(unavailable)? < after {
            return Err(start_over().await);
        }
        Ok(watching)
    }

    async fn ended(&self, answer: &WatchResponse) -> FeedError {
        match canceled(answer) {
            FeedError::Compacted => start_over().await,
            error => error,
        }
    }
}

/// Nodes that were away together would otherwise load everything at the same instant.
pub(in crate::engine) async fn start_over() -> FeedError {
    tokio::time::sleep(jitter(LOADING)).await;
    FeedError::Compacted
}

impl Feed for EtcdFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(self.batches())
    }
}

/// The next answer of the watch, or what is wrong with it.
async fn next(watching: &mut Watching) -> Result<WatchResponse, String> {
    let answer = match timeout(QUIET, watching.answers.message()).await {
        Ok(answer) => answer,
        Err(_) => {
            let order = WatchRequest { order: Some(WatchOrder::Progress(WatchProgressRequest {})) };
            watching.orders.try_send(order).map_err(|_| "it takes no more questions".to_owned())?;
            let late = |_| "it has nothing to say though asked".to_owned();
            timeout(ANSWER, watching.answers.message()).await.map_err(late)?
        }
    };
    match answer {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("it ended the watch".to_owned()),
        Err(status) => Err(super::fault::explain(&status)),
    }
}

fn canceled(answer: &WatchResponse) -> FeedError {
    match answer {
        WatchResponse { compact_revision: 1.., .. } => FeedError::Compacted,
        WatchResponse { cancel_reason, .. } if cancel_reason.contains("compacted") => FeedError::Compacted,
        WatchResponse { cancel_reason, .. } => match Fault::of(&tonic::Status::unavailable(cancel_reason.as_str())) {
            Fault::Compacted => FeedError::Compacted,
            Fault::Refused(why) => EngineError::Refused(why).into(),
            _ => EngineError::Unavailable(format!("it ended the watch: {cancel_reason}")).into(),
        },
    }
}
