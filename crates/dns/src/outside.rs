//! What names outside of our zones lead to, for aliases that are flattened: the system's resolver is asked, beside the way of
//! questions.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::answer::Outside;

/// Names that are known at once.
const NAMES: NonZeroUsize = NonZeroUsize::new(4_096).expect("is not zero");
/// Names that wait to be looked up; others are asked for again soon.
const QUEUE: usize = 256;
/// Names that are looked up at once.
const LOOKUPS: usize = 16;
/// How long what a name leads to is taken for current. Its own time to live is not told by the system.
const FRESH: Duration = Duration::from_secs(30);
/// How long one lookup may take, and how long after one that failed the next one comes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Knows what was looked up.
pub(crate) struct Resolver {
    known: Mutex<LruCache<Box<str>, Known>>,
    queue: mpsc::Sender<Box<str>>,
}

struct Known {
    /// The latest that is known, however old: better than nothing.
    addresses: Option<Arc<[IpAddr]>>,
    /// When it is to be looked up again.
    until: Instant,
}

impl Resolver {
    /// And what does its lookups, to be polled until it is dropped.
    pub(crate) fn new() -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let (queue, names) = mpsc::channel(QUEUE);
        let resolver = Arc::new(Self { known: Mutex::new(LruCache::new(NAMES)), queue });
        (Arc::clone(&resolver), resolver.look_up_all(names))
    }

    async fn look_up_all(self: Arc<Self>, mut names: mpsc::Receiver<Box<str>>) {
        let places = Arc::new(Semaphore::new(LOOKUPS));
        while let Some(host) = names.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let resolver = Arc::clone(&self);
            tokio::spawn(async move {
                let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((&*host, 0))).await;
                let addresses =
                    found.ok().and_then(Result::ok).map(|found| found.map(|it| it.ip()).collect::<Vec<_>>());
                resolver.learn(&host, addresses);
                drop(place);
            });
        }
    }

    fn learn(&self, host: &str, addresses: Option<Vec<IpAddr>>) {
        let Some(mut addresses) = addresses else { return };
        addresses.sort_unstable();
        addresses.dedup();
        let known = Known { addresses: Some(addresses.into()), until: Instant::now() + FRESH };
        self.known().put(host.into(), known);
    }

    fn known(&self) -> MutexGuard<'_, LruCache<Box<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outside for Resolver {
    fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let now = Instant::now();
        let mut all = self.known();
        let known = all.get_or_insert_mut(host.into(), || Known { addresses: None, until: now });
        if known.until <= now && self.queue.try_send(host.into()).is_ok() {
            known.until = now + PATIENCE;
        }
        known.addresses.clone()
    }
}
