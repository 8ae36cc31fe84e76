use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How everything that runs in a node ends: first nothing new begins, then what is left is cut off.
///
/// Owns every task of the node, so that [`Stop::finish`] returns only when none is left.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    draining: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Stop {
    /// Runs a task until it ends or is cut off.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        // A future that holds another one in place has room for it twice: as what it was given and as what it waits for.
        let mut task = Box::pin(task);
        self.tasks.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => (),
                () = &mut task => (),
            }
        });
    }

    /// From when on nothing new begins.
    pub(crate) async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// What this brings, unless the node begins to drain first.
    pub(crate) async fn unless_drained<T>(&self, beginning: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.drained() => None,
            brought = beginning => Some(brought),
        }
    }

    /// Cancelled from when on nothing new begins. Cancelling it does not drain.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.draining.child_token()
    }

    /// Nothing new begins any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Begins to drain.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
    }

    /// Drains, gives what is under way this long, cuts off the rest, and waits until nothing is left. Answers whether
    /// all ended by themselves.
    pub(crate) async fn finish(&self, grace: Duration) -> bool {
        self.drain();
        let ended = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        // Somebody with less patience may have cut meanwhile.
        let in_time = ended && !self.cut.is_cancelled();
        self.cut.cancel();
        self.tasks.wait().await;
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_ends_by_itself() {
        let stop = Stop::default();
        stop.spawn({
            let stop = stop.clone();
            async move { stop.drained().await }
        });
        assert!(stop.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_patient_decides() {
        let stop = Stop::default();
        stop.spawn(std::future::pending());
        let (patient, hasty) = tokio::join!(stop.finish(Duration::from_secs(3600)), stop.finish(Duration::ZERO));
        assert_eq!((patient, hasty), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_is_cut_off() {
        let stop = Stop::default();
        stop.spawn(std::future::pending());
        assert!(!stop.finish(Duration::from_secs(5)).await);
    }
}
