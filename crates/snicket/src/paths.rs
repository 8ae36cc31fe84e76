//! Where files live (XDG base directories).

use std::path::PathBuf;

/// What outlives a run and matters: an edge's registry, CA and token.
pub(crate) fn data() -> PathBuf {
    under("XDG_DATA_HOME", ".local/share", "/var/lib")
}

/// What outlives a run and can be made anew: the credentials that `snicket http` remembers.
pub(crate) fn state() -> PathBuf {
    under("XDG_STATE_HOME", ".local/state", "/var/lib")
}

/// The directory of an edge on this machine unless `--data` says otherwise. The variable counts for every command, so
/// that all of them find an edge that keeps its data elsewhere.
pub(crate) fn edge_data() -> PathBuf {
    let named = std::env::var_os("SNICKET_DATA").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.unwrap_or_else(|| data().join("edge"))
}

/// The directory that all `snicket try` share, so that a person trusts their CA once.
pub(crate) fn try_data() -> PathBuf {
    data().join("try")
}

/// A variable counts only when it holds an absolute path, as the XDG specification demands. Without a home (a service
/// started by systemd as root) the system's place is used.
fn under(variable: &str, in_home: &str, system: &str) -> PathBuf {
    let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(in_home)));
    base.unwrap_or_else(|| PathBuf::from(system)).join("snicket")
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
