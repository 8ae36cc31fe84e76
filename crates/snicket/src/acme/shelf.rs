use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use certs::acme::{Found, PublicCertificates, Tally, Waiting};
use jiff::Timestamp;
use registry::{AcmeStage, Hostname, Registry, Snapshot};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{is_quick, ordered_as};

/// A visitor waits so long at the most for a certificate that is being ordered. Authorities take three to ten seconds, and
/// browsers give up after half a minute.
const PATIENCE: Duration = Duration::from_secs(15);

/// Visitors who wait at once. Each has a connection and hears of every change of the registry.
const WAITING: usize = 256;

/// Names that were asked for and that nobody has looked at yet. A name that finds no room is asked for again by its next
/// visitor.
const ASKED: usize = 64;

/// A name that a visitor waits for.
pub(crate) struct Ask {
    pub(super) name: Hostname,
    /// Told once it turns out that no order begins, so that the visitor does not wait for one.
    pub(super) refused: oneshot::Sender<()>,
}

/// What handshakes see of the public certificates.
pub(crate) struct Shelf {
    registry: Registry,
    domain: Hostname,
    asks: mpsc::Sender<Ask>,
    waiting: Arc<Semaphore>,
    /// No order begins before these seconds, so nobody has to wait for one: of names that were given by somebody, and of
    /// quick tunnels.
    closed_until: [AtomicI64; 2],
    issued: AtomicU64,
    failed: AtomicU64,
}

impl Shelf {
    /// Over this registry, and what is asked for.
    pub(crate) fn new(registry: Registry, domain: Hostname) -> (Arc<Self>, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(ASKED);
        let waiting = Arc::new(Semaphore::new(WAITING));
        let closed_until = [AtomicI64::new(i64::MIN), AtomicI64::new(i64::MIN)];
        let (issued, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        (Arc::new(Self { registry, domain, asks, waiting, closed_until, issued, failed }), asked)
    }

    /// Under which name a certificate may be ordered for visitors of this one.
    pub(super) fn ordered_as(&self, snapshot: &Snapshot, name: &str, now: Timestamp) -> Option<Hostname> {
        ordered_as(snapshot, &self.domain, name, now)
    }

    /// The edge's own name.
    pub(super) fn domain(&self) -> &Hostname {
        &self.domain
    }

    /// No order of such names begins before.
    pub(super) fn close_until(&self, time: Timestamp, are_quick: bool) {
        self.closed_until[usize::from(are_quick)].fetch_max(time.as_second(), Ordering::Relaxed);
    }

    /// Whether nobody has to wait for an order of this name, since none begins.
    pub(super) fn is_closed(&self, snapshot: &Snapshot, name: &str, now: Timestamp) -> bool {
        let closed_until = &self.closed_until[usize::from(is_quick(snapshot, name))];
        now.as_second() < closed_until.load(Ordering::Relaxed)
    }

    /// An order has ended.
    pub(super) fn count(&self, is_issued: bool) {
        let counter = if is_issued { &self.issued } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn stage(snapshot: &Snapshot, name: &str, now: Timestamp) -> AcmeStage {
    let certificate = snapshot.acme_certificate(name).map(|certificate| &certificate.value);
    AcmeStage::of(certificate, snapshot.acme_order(name).map(|order| &order.value), now)
}

fn is_valid(snapshot: &Snapshot, name: &str, now: Timestamp) -> bool {
    snapshot.acme_certificate(name).is_some_and(|certificate| now < certificate.not_after)
}

impl PublicCertificates for Shelf {
    fn wildcard(&self, name: &str) -> Option<String> {
        let (snapshot, now) = (self.registry.snapshot(), Timestamp::now());
        let wildcard = format!("*.{}", name.split_once('.')?.1);
        (!is_valid(&snapshot, name, now) && is_valid(&snapshot, &wildcard, now)).then_some(wildcard)
    }

    fn find(&self, name: &str, have: Option<u64>) -> Found {
        let snapshot = self.registry.snapshot();
        let Some(certificate) = snapshot.acme_certificate(name) else { return Found::Nothing };
        if have == Some(certificate.revision) {
            return Found::Same;
        }
        let (chain, key) = (Arc::from(&*certificate.chain), Arc::from(certificate.key.reveal()));
        Found::New { version: certificate.revision, chain, key }
    }

    fn key_authorization(&self, name: &str) -> Option<String> {
        let snapshot = self.registry.snapshot();
        Some(snapshot.acme_order(name)?.answer.as_ref()?.key_authorization.to_string())
    }

    fn awaited(&self, name: &str) -> Option<Waiting> {
        let (snapshot, now) = (self.registry.snapshot(), Timestamp::now());
        if is_valid(&snapshot, name, now) {
            return None;
        }
        let name = self.ordered_as(&snapshot, name, now).filter(|name| !is_valid(&snapshot, name.as_str(), now))?;
        let name = name.as_str();
        // Without etcd no order begins, and nobody hears how one ends.
        if !self.registry.sees_all_nodes() {
            return None;
        }
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        let (refused, refusal) = oneshot::channel();
        match stage(&snapshot, name, now) {
            AcmeStage::Ordering { .. } => (),
            AcmeStage::Absent if !self.is_closed(&snapshot, name, now) => {
                self.asks.try_send(Ask { name: Hostname::parse(name).ok()?, refused }).ok()?;
            }
            AcmeStage::Absent | AcmeStage::Held { .. } | AcmeStage::Due | AcmeStage::Failed { .. } => return None,
        }
        let (registry, name) = (self.registry.clone(), name.to_owned());
        let mut changes = registry.watch(snapshot.revision());
        Some(Box::pin(async move {
            let _place = place;
            let waiting = async {
                while changes.next().await.is_some() {
                    match stage(&registry.snapshot(), &name, Timestamp::now()) {
                        AcmeStage::Absent | AcmeStage::Ordering { .. } => (),
                        AcmeStage::Held { .. } | AcmeStage::Due | AcmeStage::Failed { .. } => return,
                    }
                }
            };
            let refused = async {
                // An order that has begun, or is another's, is not refused.
                if refusal.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = waiting => (),
                () = refused => (),
                () = tokio::time::sleep(PATIENCE) => (),
            }
        }))
    }

    fn tally(&self) -> Tally {
        Tally { issued: self.issued.load(Ordering::Relaxed), failed: self.failed.load(Ordering::Relaxed) }
    }
}
