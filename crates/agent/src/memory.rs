//! What an agent remembers across runs: that QUIC did not get through, and until when.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a fallback is remembered: a person who moves to another network has QUIC again the same day.
const LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// How much longer QUIC is to be left alone. A file that is not there, or holds anything else, remembers nothing.
pub(crate) async fn load(path: &Path, now: SystemTime) -> Option<Duration> {
    let text = tokio::fs::read_to_string(path).await.ok()?;
    let until = UNIX_EPOCH.checked_add(Duration::from_secs(text.trim().parse().ok()?))?;
    until.duration_since(now).ok().filter(|left| !left.is_zero() && *left <= LIFETIME)
}

/// Remembers a fallback. A failure is told in the log only: the next run then finds out again.
pub(crate) async fn store(path: &Path, now: SystemTime) {
    let until = (now + LIFETIME).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let stored = async {
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        tokio::fs::write(path, format!("{until}\n")).await
    };
    if let Err(error) = stored.await {
        tracing::debug!(%error, "the choice of the transport cannot be remembered");
    }
}

/// Forgets it, since QUIC works.
pub(crate) async fn forget(path: &Path) {
    // Mostly there is nothing to forget.
    let _ = tokio::fs::remove_file(path).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fallback_is_remembered_for_some_hours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/transport");
        let now = SystemTime::now();
        assert_eq!(load(&path, now).await, None);
        store(&path, now).await;
        assert!(load(&path, now + Duration::from_secs(60)).await.unwrap() < LIFETIME);
        assert_eq!(load(&path, now + LIFETIME + Duration::from_secs(1)).await, None);
        assert_eq!(load(&path, now - Duration::from_secs(60)).await, None, "a clock that went back remembers nothing");
        forget(&path).await;
        assert_eq!(load(&path, now).await, None);
        tokio::fs::write(&path, "99999999999999999999999").await.unwrap();
        assert_eq!(load(&path, now).await, None);
    }
}
