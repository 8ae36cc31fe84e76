//! Telling whoever started us: systemd's readiness datagram and the pid file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::problem::Problem;

/// Tells systemd that the service is up, or is going down (`sd_notify(3)`). Without `NOTIFY_SOCKET` nothing happens;
/// a manager that does not listen is no reason to fail.
#[cfg(target_os = "linux")]
pub(crate) fn systemd(state: &str) {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(state.as_bytes(), &address)));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot tell systemd about {state}");
    }
}

/// Only Linux has systemd.
#[cfg(not(target_os = "linux"))]
pub(crate) fn systemd(_state: &str) {}

/// Signs of life for systemd while this lives (`WatchdogSec=`). They come from a task among all others, so that they
/// stop when tasks are not run any more.
#[derive(Debug)]
pub(crate) struct Watchdog(Option<tokio::task::JoinHandle<()>>);

impl Watchdog {
    /// Starts, if systemd asks for it.
    pub(crate) fn start() -> Self {
        let variable = |name| std::env::var(name).ok();
        let interval =
            sign_of_life(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id());
        Self(interval.map(|interval| {
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(interval);
                loop {
                    ticks.tick().await;
                    systemd("WATCHDOG=1");
                }
            })
        }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// How often a sign is due: half the limit, as `sd_watchdog_enabled(3)` advises. `None` if it is not asked of us.
fn sign_of_life(limit: Option<&str>, asked: Option<&str>, own: u32) -> Option<Duration> {
    let limit = Duration::from_micros(limit?.parse().ok().filter(|limit| *limit > 0)?);
    let meant = asked.is_none_or(|pid| pid.parse() == Ok(own));
    meant.then_some(limit / 2)
}

/// A file that holds our process id, removed when dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file.
    pub(crate) fn write(path: &Path) -> anyhow::Result<Self> {
        std::fs::write(path, format!("{}\n", std::process::id())).with_context(|| {
            Problem::new(
                format!("cannot write the pid file {}", path.display()),
                "check that the directory exists and is writable, or leave --pidfile out",
            )
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_come_twice_as_often_as_asked() {
        let half = Some(Duration::from_secs(30));
        assert_eq!(sign_of_life(Some("60000000"), None, 7), half);
        assert_eq!(sign_of_life(Some("60000000"), Some("7"), 7), half);
        assert_eq!(sign_of_life(Some("60000000"), Some("8"), 7), None, "meant for another process");
        for nothing in [None, Some(""), Some("0"), Some("soon")] {
            assert_eq!(sign_of_life(nothing, None, 7), None, "{nothing:?}");
        }
    }
}
