use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::event::{Event, Status};

/// Whether the agent is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// Requests under way have this long.
    Within(Duration),
}

/// A running agent. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Running {
    pub(super) events: broadcast::Sender<Event>,
    pub(super) since_start: Mutex<Option<broadcast::Receiver<Event>>>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) stop: watch::Sender<Stop>,
    pub(super) reload: mpsc::Sender<()>,
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) inspector_address: Option<SocketAddr>,
    pub(super) cut: CancellationToken,
    pub(super) _cut_when_dropped: DropGuard,
    pub(super) done: CancellationToken,
}

impl Running {
    /// What happens from now on; the first listener hears all since the start. One that falls behind loses the oldest
    /// events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let since_start = self.since_start.lock().unwrap_or_else(PoisonError::into_inner).take();
        since_start.unwrap_or_else(|| self.events.subscribe())
    }

    /// The connections that are registered, now and after each change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until a connection is registered; `false` when the agent stopped before.
    pub async fn ready(&self) -> bool {
        self.status.clone().wait_for(Status::is_ready).await.is_ok()
    }

    /// Where the metrics endpoint listens.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Where the inspector listens.
    pub fn inspector_address(&self) -> Option<SocketAddr> {
        self.inspector_address
    }

    /// Reads the configuration file again, as if it had changed; the outcome comes as an event. Without a file nothing
    /// happens.
    pub fn reload(&self) {
        // Full: a reload is about to happen anyway. Closed: there is no file.
        let _ = self.reload.try_send(());
    }

    /// Stops in order (section 10): the edge is asked to send nothing new, requests under way have `grace` to end, then
    /// all is closed. Returns when that is done; [`Running::cut`] hastens it.
    pub async fn shutdown(&self, grace: Duration) {
        self.stop.send_replace(Stop::Within(grace));
        self.done.cancelled().await;
    }

    /// Stops at once; requests under way fail.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until the agent has stopped.
    pub async fn stopped(&self) {
        self.done.cancelled().await;
    }
}
