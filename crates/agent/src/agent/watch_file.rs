//! The local file, read again when it changes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::Reload;
use crate::event::ConfigurationSource;
use crate::handler::Configuration;

/// How often the file is looked at. One look is one system call; it works on every file system, and for files that are
/// replaced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
type Stamp = Option<(SystemTime, u64)>;

/// Applies the file whenever it has changed and then been left alone for one look, so that no half-written file is
/// read, and at once when asked to.
pub(super) async fn watch(reload: Reload, mut asked: mpsc::Receiver<()>, configuration: Arc<Configuration>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut applied = stamp(&reload.path).await;
    let mut seen = applied;
    let mut may_be_asked = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let now = stamp(&reload.path).await;
                let settled = now == seen;
                seen = now;
                // A file that is gone is being replaced, or was removed by mistake; the rules in force stay.
                if !settled || now == applied || now.is_none() {
                    continue;
                }
            }
            ask = asked.recv(), if may_be_asked => {
                may_be_asked = ask.is_some();
                if ask.is_none() {
                    continue;
                }
                seen = stamp(&reload.path).await;
            }
        }
        applied = seen;
        apply(&reload, &configuration).await;
    }
}

async fn stamp(path: &Path) -> Stamp {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

async fn apply(reload: &Reload, configuration: &Arc<Configuration>) {
    let load = Arc::clone(&reload.load);
    let applying = Arc::clone(configuration);
    let outcome = tokio::task::spawn_blocking(move || load().and_then(|document| applying.apply_local(document))).await;
    let outcome = outcome.unwrap_or_else(|_| Err("reading the file failed unexpectedly".to_owned()));
    if let Err(reason) = outcome {
        tracing::warn!(%reason, "the changed configuration is not used");
        configuration.refused(ConfigurationSource::File, reason);
    }
}
