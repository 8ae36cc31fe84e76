//! Signals: the first SIGINT or SIGTERM drains, the second cuts, SIGHUP reloads.

use tokio::sync::watch;

/// How far the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serve.
    Running,
    /// Take nothing new, finish what is under way.
    Draining,
    /// Close everything now.
    Cut,
}

/// The process's signals as values that change.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    phase: watch::Receiver<Phase>,
    reloads: watch::Receiver<u64>,
}

impl Signals {
    /// Takes the signals over from their default action. The task that watches them lives as long as the runtime.
    pub(crate) fn install() -> std::io::Result<Self> {
        let (phase_sender, phase) = watch::channel(Phase::Running);
        let (reload_sender, reloads) = watch::channel(0);
        imp::spawn(phase_sender, reload_sender)?;
        Ok(Self { phase, reloads })
    }

    /// Waits for the first signal to end.
    pub(crate) async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits for the second signal to end.
    pub(crate) async fn cut(&self) {
        self.reached(Phase::Cut).await;
    }

    /// Waits for the next SIGHUP after the last one that this value has seen.
    pub(crate) async fn reload(&mut self) {
        if self.reloads.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn reached(&self, phase: Phase) {
        if self.phase.clone().wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
mod imp {
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::sync::watch;

    use super::Phase;

    pub(super) fn spawn(phase: watch::Sender<Phase>, reloads: watch::Sender<u64>) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => advance(&phase),
                    _ = terminate.recv() => advance(&phase),
                    _ = hangup.recv() => reloads.send_modify(|count| *count += 1),
                }
            }
        });
        Ok(())
    }

    fn advance(phase: &watch::Sender<Phase>) {
        phase.send_modify(|now| {
            *now = match *now {
                Phase::Running => Phase::Draining,
                Phase::Draining | Phase::Cut => Phase::Cut,
            }
        });
    }
}

#[cfg(not(unix))]
mod imp {
    use tokio::sync::watch;

    use super::Phase;

    pub(super) fn spawn(phase: watch::Sender<Phase>, reloads: watch::Sender<u64>) -> std::io::Result<()> {
        tokio::spawn(async move {
            for next in [Phase::Draining, Phase::Cut] {
                if tokio::signal::ctrl_c().await.is_ok() {
                    phase.send_replace(next);
                }
            }
            drop(reloads);
        });
        Ok(())
    }
}
