use std::time::Duration;

use tokio::sync::watch;

use crate::LIMIT;

/// How often something is looked at that nothing announces.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Nothing moves for so long: it has stalled.
const STILL: Duration = Duration::from_millis(500);

/// Waits until it is so. For what nothing announces: where there is an event, a line or a channel, wait for that.
///
/// # Panics
/// It does not come about within this time.
pub async fn until(limit: Duration, what: &str, so: impl AsyncFn() -> bool) {
    let looked = async {
        while !so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    assert!(tokio::time::timeout(limit, looked).await.is_ok(), "not within {limit:?}: {what}");
}

/// Waits until a count has begun to move and then stands still; answers it.
///
/// # Panics
/// It does neither within [`LIMIT`].
pub async fn still(count: &watch::Sender<u64>, what: &str) -> u64 {
    let mut seen = count.subscribe();
    let waiting = async {
        seen.wait_for(|count| *count > 0).await.expect("the sender is borrowed");
        while tokio::time::timeout(STILL, seen.changed()).await.is_ok() {}
        *seen.borrow_and_update()
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("{what} never stalls"))
}
