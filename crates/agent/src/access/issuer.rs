//! The issuers of a configuration's assertions, and their keys as they are at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::Keys;
use super::fetch::{self, FetchError, fetch};
use super::refresh::{Cache, PAUSE, Step};
use crate::proxy::Proxies;

/// Where an issuer publishes its keys, below its own URL.
const CERTS: &str = "/cdn-cgi/access/certs";
/// A fetch bounds itself; this bounds a wait for one that has died.
const WAIT: Duration = fetch::LIMIT.saturating_add(Duration::from_secs(2));

/// The issuers that rules name. One that a rule of the next configuration names as well keeps its keys.
pub(crate) struct Issuers {
    known: Mutex<HashMap<String, Weak<Issuer>>>,
    proxies: Proxies,
}

impl Issuers {
    /// `proxies`: on the way to issuers.
    pub(crate) fn new(proxies: Proxies) -> Self {
        Self { known: Mutex::default(), proxies }
    }

    /// The issuer with this URL; `None` when it is no URL to fetch anything below.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Issuer>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, issuer| issuer.strong_count() > 0);
        if let Some(issuer) = known.get(name).and_then(Weak::upgrade) {
            return Some(issuer);
        }
        let issuer = Arc::new(Issuer {
            name: name.to_owned(),
            certs: Url::parse(&format!("{name}{CERTS}")).ok()?,
            proxies: self.proxies.clone(),
            state: Mutex::default(),
            attempts: watch::Sender::new(()),
        });
        known.insert(name.to_owned(), Arc::downgrade(&issuer));
        Some(issuer)
    }

    /// Those that some rule names, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Issuer>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(Weak::upgrade).collect::<Vec<_>>().into_iter()
    }
}

/// Somebody who makes out assertions.
pub(super) struct Issuer {
    /// As `iss` has it.
    pub(super) name: String,
    certs: Url,
    proxies: Proxies,
    state: Mutex<State>,
    /// Changes when an attempt to fetch has ended.
    attempts: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    /// One at a time; it ends with the issuer.
    fetching: Option<AbortOnDropHandle<()>>,
}

impl Issuer {
    /// The keys to verify a token with that names this one, or none; waits for them if need be. `None`: they cannot be
    /// had.
    pub(super) async fn keys(self: &Arc<Self>, key_id: Option<&str>) -> Option<Arc<Keys>> {
        let mut attempts = {
            let mut state = self.state();
            match state.cache.step(key_id, Instant::now()) {
                Step::Use(keys) => return Some(keys),
                Step::UseAndFetch(keys) => {
                    self.fetch(&mut state);
                    return Some(keys);
                }
                Step::Nothing => return None,
                Step::Fetch => {
                    // Before the attempt can end.
                    let attempts = self.attempts.subscribe();
                    self.fetch(&mut state);
                    attempts
                }
            }
        };
        let _ = timeout(WAIT, attempts.changed()).await;
        match self.state().cache.step(key_id, Instant::now()) {
            Step::Use(keys) | Step::UseAndFetch(keys) => Some(keys),
            Step::Fetch | Step::Nothing => None,
        }
    }

    /// Fetches the keys if there are none, so that what is wrong is told before the first visitor.
    pub(super) fn prepare(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.cache.holds_keys(Instant::now()) {
            self.fetch(&mut state);
        }
    }

    fn fetch(self: &Arc<Self>, state: &mut State) {
        if state.fetching.as_ref().is_some_and(|fetching| !fetching.is_finished()) {
            return;
        }
        let attempt = attempt(Arc::downgrade(self), self.certs.clone(), self.proxies.clone());
        state.fetching = Some(AbortOnDropHandle::new(tokio::spawn(attempt)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn attempt(issuer: Weak<Issuer>, url: Url, proxies: Proxies) {
    let outcome = fetch(&url, &proxies).await;
    let Some(issuer) = issuer.upgrade() else { return };
    let now = Instant::now();
    let mut state = issuer.state();
    if let Err(error) = &outcome {
        tell(&url, error, state.cache.holds_keys(now));
    }
    state.cache.tried(outcome.ok(), now);
    drop(state);
    issuer.attempts.send_replace(());
}

fn tell(url: &Url, error: &FetchError, keys_at_hand: bool) {
    let meanwhile = if keys_at_hand {
        "the keys at hand are used meanwhile"
    } else {
        "rules with access.required refuse everybody meanwhile"
    };
    tracing::warn!(
        %url, %error,
        "the keys of an identity issuer cannot be fetched, {meanwhile}; check access.teamName, and that this machine \
         reaches the address (through a proxy: HTTPS_PROXY) and trusts its certificate (others than the system's: \
         SSL_CERT_FILE); tried again after {PAUSE:?} when asked"
    );
}
