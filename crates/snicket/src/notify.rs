//! Telling whoever started us: systemd's readiness datagram and the pid file.

use std::path::{Path, PathBuf};

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
