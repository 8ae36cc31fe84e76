use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{LIMIT, Visitor};

/// Visitors who ask again and again, each one request after the other, until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    answered: Arc<watch::Sender<usize>>,
    workers: JoinSet<Tally>,
}

/// An answer that began and did not end.
const CUT: &str = "cut";

/// What came of a load.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests made.
    pub tried: usize,
    /// How often each thing came other than a whole 200: a status, or why there was none.
    pub failed: BTreeMap<String, usize>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Tally {
    /// How often an answer began and did not end. That cannot be made good by asking another agent.
    pub fn cut(&self) -> usize {
        self.failed.get(CUT).copied().unwrap_or(0)
    }

    /// How often there was no answer of the origin's at all.
    pub fn unanswered(&self) -> usize {
        self.failed.values().sum::<usize>() - self.cut()
    }
}

impl Load {
    /// Starts `visitors` of them on a URL.
    pub fn start(visitor: &Visitor, method: &'static str, url: &str, visitors: usize) -> Self {
        let stop = watch::Sender::new(false);
        let answered = Arc::new(watch::Sender::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..visitors {
            workers.spawn(work(visitor.clone(), method, url.to_owned(), stop.subscribe(), Arc::clone(&answered)));
        }
        Self { stop, answered, workers }
    }

    /// Waits until so many more requests have ended, well or not.
    ///
    /// # Panics
    /// It takes longer than [`LIMIT`].
    pub async fn more(&self, count: usize) {
        let mut answered = self.answered.subscribe();
        let wanted = *answered.borrow() + count;
        let waited = tokio::time::timeout(LIMIT, answered.wait_for(|answered| *answered >= wanted)).await;
        assert!(waited.is_ok(), "the load does not go on");
    }

    /// Ends the load after the requests under way.
    ///
    /// # Panics
    /// One takes longer than [`LIMIT`].
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        let mut sum = Tally::default();
        let all = async {
            while let Some(tally) = self.workers.join_next().await {
                let tally = tally.expect("a visitor does not panic");
                sum.tried += tally.tried;
                sum.slowest = sum.slowest.max(tally.slowest);
                for (what, count) in tally.failed {
                    *sum.failed.entry(what).or_default() += count;
                }
            }
        };
        tokio::time::timeout(LIMIT, all).await.expect("the last requests end");
        sum
    }
}

async fn work(
    visitor: Visitor,
    method: &'static str,
    url: String,
    stop: watch::Receiver<bool>,
    answered: Arc<watch::Sender<usize>>,
) -> Tally {
    let mut tally = Tally::default();
    while !*stop.borrow() {
        let started = Instant::now();
        let outcome = one(&visitor, method, &url).await;
        tally.tried += 1;
        tally.slowest = tally.slowest.max(started.elapsed());
        if let Err(what) = outcome {
            *tally.failed.entry(what).or_default() += 1;
        }
        answered.send_modify(|answered| *answered += 1);
    }
    tally
}

async fn one(visitor: &Visitor, method: &'static str, url: &str) -> Result<(), String> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    let response =
        visitor.open(method, url, &[("accept", "text/plain")], body).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let collected = response.into_body().collect().await.map_err(|_| CUT.to_owned())?;
    match status {
        200 => Ok(()),
        _ => Err(format!("{status}: {}", String::from_utf8_lossy(&collected.to_bytes()).trim())),
    }
}
