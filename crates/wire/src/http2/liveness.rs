//! Noticing that the other end has vanished.

use std::sync::Arc;
use std::time::Duration;

use ::http2::Handle;
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// Silence after which the other end is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(4);

/// Silence after which it is given up: it has had five seconds for an answer, and is found within ten in all.
const VANISHED: Duration = Duration::from_secs(9);

/// Who is asked has so long for an answer: enough for a ping that is lost twice.
const ANSWER: Duration = Duration::from_millis(1750);

/// Whether the other end of a connection is still there; clones share what they know.
#[derive(Clone)]
pub(super) struct Liveness {
    handle: Handle,
    /// Somebody wants to know now.
    wanted: Arc<Notify>,
}

impl Liveness {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, wanted: Arc::default() }
    }

    /// Changes with whatever is heard.
    pub(super) fn signs(&self) -> u64 {
        self.handle.signs()
    }

    /// Has the other end asked for a sign of life before it has been silent for long; answers how long one may take.
    pub(super) fn ask(&self) -> Duration {
        self.wanted.notify_one();
        ANSWER
    }

    /// Returns once the other end has vanished. Any byte counts as life, so a ping goes out only into silence; so does room
    /// for bytes that had to wait, because a ping and its answer wait behind them on a slow connection.
    pub(super) async fn vanished(&self) {
        let (mut asked, mut wanted) = (None, false);
        loop {
            let last = self.handle.heard();
            let silence = last.elapsed();
            if silence >= VANISHED {
                return;
            }
            // Once for each silence.
            if (wanted || silence >= SILENCE) && asked != Some(last) {
                self.handle.ping();
                asked = Some(last);
            }
            wanted = false;
            tokio::select! {
                () = self.wanted.notified() => wanted = true,
                () = sleep_until(last + if asked == Some(last) { VANISHED } else { SILENCE }) => {}
            }
        }
    }
}
