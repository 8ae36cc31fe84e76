//! The inspector: the latest requests in memory, and a local page that lists, shows and repeats them.
//!
//! A [`store::Store`] (pure) keeps what [`capture`] sees on the request path; [`serve`] shows it, as far as [`guard`]
//! lets somebody in and [`mask`] leaves it readable. Without an inspector the request path has one look at an empty
//! option more.

mod capture;
mod entry;
mod fields;
mod filter;
mod guard;
pub mod mask;
pub mod messages;
mod replay;
mod serve;
mod store;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::Request;
use tokio::sync::watch;
use wire::{Body, Kind};

use crate::origin::host_of;
use capture::Recording;
pub(crate) use capture::reached;
pub use serve::listen;
pub(crate) use serve::{Site, serve};
pub(crate) use store::Stage;
use store::{Beginning, Limits, Store};

/// What one agent records.
pub(crate) struct Inspector {
    store: Mutex<Store>,
    changed: watch::Sender<()>,
    began: Instant,
}

impl Inspector {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Limits::DEFAULT)
    }

    fn with(limits: Limits) -> Arc<Self> {
        Arc::new(Self { store: Mutex::new(Store::new(limits)), changed: watch::Sender::new(()), began: Instant::now() })
    }

    /// Records a request that begins, and answers its id; `None` when there are too many.
    pub(crate) fn begin(
        self: &Arc<Self>,
        kind: Kind,
        request: &Request<Body>,
        replay_of: Option<u64>,
    ) -> Option<(u64, Recording)> {
        let host = host_of(request.uri(), request.headers());
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let beginning = Beginning {
            kind,
            method: request.method(),
            host: host.unwrap_or_default(),
            target: request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
            headers: request.headers(),
            unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            replay_of,
        };
        let begun = self.store().begin(self.now(), &beginning);
        self.changed();
        begun.map(|id| (id, Recording::new(Arc::clone(self), id)))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Wakes the pages that are open.
    fn changed(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }
}
