use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use certs::Certificates;
use certs::acme::{AcmeClient, Answer, OrderError, Ordered, Way};
use jiff::{SignedDuration, Timestamp};
use registry::{
    AcmeAnswer, AcmeCertificate, AcmeError, AcmeFailure, AcmeHold, AcmeNotNow, AcmeStage, AcmeUrgency, Change, Event,
    Hostname, PrivateText, Registry, Snapshot, Watch,
};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::shelf::Ask;
use super::{Shelf, is_quick, ordered_as, wildcard_over};

/// Between two looks at all names, at the longest.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// And at the shortest.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// An attempt that takes longer is given up: less than the hold of five minutes, with time to tell of it.
const ATTEMPT: Duration = Duration::from_secs(120);

/// From when the answer is in the registry to when the authority is asked to look, if there are other nodes: it may ask
/// any, and all hear of changes within milliseconds.
const SETTLING: Duration = Duration::from_secs(1);

/// The same where other name servers answer for the name, too, which have to hear of it and to fetch it.
const TRANSFER: Duration = Duration::from_secs(8);

/// Between attempts to write down how an order goes. A certificate is worth it.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// After an order that could not begin, though it might at any moment, visitors ask for none for so long. One that is under
/// way takes three to ten seconds.
const CLOSED: SignedDuration = SignedDuration::from_secs(3);

/// More than may begin at once.
const AHEAD: usize = 32;

/// What has ended for so long, and nobody leads visitors to, is forgotten.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Orders under way are told to be over for so long at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Orders certificates, and keeps them from ending.
pub(crate) struct Keeper {
    orderer: Orderer,
    certificates: Arc<Certificates>,
    shelf: Arc<Shelf>,
    asked: mpsc::Receiver<Ask>,
    orders: JoinSet<()>,
}

/// What each order needs.
#[derive(Clone)]
struct Orderer {
    registry: Registry,
    client: Arc<AcmeClient>,
    shelf: Arc<Shelf>,
    /// The way by which the authority saw a name last is tried first. TLS before anything is known: visitors come by it.
    http_first: Arc<AtomicBool>,
    /// Held while an account is made, so that orders that begin together make one.
    account_turn: Arc<Mutex<()>>,
}

impl Keeper {
    /// Of this node. `asked` is what [`Shelf::new`] gave.
    pub(crate) fn new(
        registry: Registry,
        client: AcmeClient,
        certificates: Arc<Certificates>,
        (shelf, asked): (Arc<Shelf>, mpsc::Receiver<Ask>),
    ) -> Self {
        let http_first = Arc::default();
        let (client, account_turn) = (Arc::new(client), Arc::default());
        let orderer = Orderer { registry, client, shelf: Arc::clone(&shelf), http_first, account_turn };
        Self { orderer, certificates, shelf, asked, orders: JoinSet::new() }
    }

    /// Works until `stopping` ends.
    pub(crate) async fn run(mut self, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => (),
            () = self.work() => (),
        }
        self.orders.abort_all();
        let _ = timeout(FAREWELL, async { while self.orders.join_next().await.is_some() {} }).await;
        self.orderer.release_all().await;
    }

    async fn work(&mut self) {
        let registry = self.orderer.registry.clone();
        let mut changes = registry.watch(registry.snapshot().revision());
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                Some(ask) = self.asked.recv() => self.asked_for(ask).await,
                () = sleep_until(look_at) => look_at = Instant::now() + self.look().await,
                Some(names) = news(&mut changes, &registry) => self.consider(names).await,
                Some(ended) = self.orders.join_next(), if !self.orders.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "ordering a certificate failed");
                    }
                    // Its name, or one that had no place, may be due again soon.
                    look_at = look_at.min(Instant::now() + LOOK_PAUSE);
                }
            }
        }
    }

    /// Begins what a visitor waits for.
    async fn asked_for(&mut self, Ask { name, refused }: Ask) {
        let (snapshot, now) = (self.orderer.registry.snapshot(), Timestamp::now());
        let is_quick = is_quick(&snapshot, name.as_str());
        // Perhaps anybody may have such a name, and must not keep the others from theirs.
        let urgency = if is_quick { AcmeUrgency::Ahead } else { AcmeUrgency::Now };
        // What was asked for before it was known that nothing begins.
        if self.shelf.is_closed(&snapshot, name.as_str(), now) {
            let _ = refused.send(());
            return;
        }
        match self.begin(&name, urgency).await {
            Ok(()) | Err(AcmeError::NotNow(AcmeNotNow::Stage(_)) | AcmeError::Lost) => return,
            Err(AcmeError::NotNow(too_often @ AcmeNotNow::TooOften { until })) => {
                tracing::warn!(%name, refused = %too_often, "a visitor gets no public certificate");
                self.shelf.close_until(until, is_quick);
            }
            Err(AcmeError::NotNow(AcmeNotNow::TooMany) | AcmeError::Commit(_)) => {
                let until = Timestamp::now().saturating_add(CLOSED).unwrap_or(Timestamp::MAX);
                self.shelf.close_until(until, true);
                self.shelf.close_until(until, false);
            }
        }
        let _ = refused.send(());
    }

    /// Looks at every name, and answers when to look again.
    async fn look(&mut self) -> Duration {
        let now = Timestamp::now();
        self.clean_up(now).await;
        let (snapshot, domain) = (self.orderer.registry.snapshot(), self.shelf.domain().clone());
        let certificates = Arc::clone(&self.certificates);
        // With very many names it takes a while.
        let looking = tokio::task::spawn_blocking(move || {
            Plan::of(&snapshot, &domain, |name| certificates.covers(&example_of(name)), now)
        });
        let Ok(Plan { due, ahead, next }) = looking.await else { return LOOK_EVERY };
        let due = due.into_iter().map(|name| (name, AcmeUrgency::Now));
        for (name, urgency) in due.chain(ahead.into_iter().map(|name| (name, AcmeUrgency::Ahead))) {
            match self.begin(&name, urgency).await {
                Ok(()) | Err(AcmeError::NotNow(AcmeNotNow::Stage(_)) | AcmeError::Lost) => (),
                // The same would be said of all the others.
                Err(AcmeError::NotNow(AcmeNotNow::TooMany | AcmeNotNow::TooOften { .. }) | AcmeError::Commit(_)) => {
                    break;
                }
            }
        }
        Duration::try_from(next.duration_since(now)).unwrap_or_default().clamp(LOOK_PAUSE, LOOK_EVERY)
    }

    /// Begins what has become possible by changes of these names.
    async fn consider(&mut self, names: Vec<Hostname>) {
        for name in names {
            let (snapshot, now) = (self.orderer.registry.snapshot(), Timestamp::now());
            if self.certificates.covers(&example_of(&name)) || is_quick(&snapshot, name.as_str()) {
                continue;
            }
            let name = self.shelf.ordered_as(&snapshot, name.as_str(), now);
            if let Some(name) = name.filter(|name| stage(&snapshot, name, now) == AcmeStage::Absent) {
                let _ = self.begin(&name, AcmeUrgency::Ahead).await;
            }
        }
    }

    /// Begins an order, if the registry says that it may.
    async fn begin(&mut self, name: &Hostname, urgency: AcmeUrgency) -> Result<(), AcmeError> {
        let begun = self.orderer.registry.begin_acme_order(Timestamp::now(), name, urgency).await;
        match begun {
            Ok(hold) => {
                tracing::info!(%name, "ordering a certificate");
                self.orders.spawn(self.orderer.clone().carry_out(hold));
                Ok(())
            }
            Err(error) => {
                match error {
                    AcmeError::Commit(_) => tracing::warn!(%name, %error, "no certificate is ordered"),
                    _ => tracing::debug!(%name, %error, "no certificate is ordered"),
                }
                Err(error)
            }
        }
    }

    /// Frees names whose node has died while it ordered, and forgets what nobody needs any more.
    async fn clean_up(&self, now: Timestamp) {
        let registry = &self.orderer.registry;
        let snapshot = &registry.snapshot();
        let abandoned = |node| registry.sees_all_nodes() && snapshot.node(node).is_none();
        for order in snapshot.acme_orders() {
            if order.held.as_ref().is_some_and(|held| abandoned(held.node))
                && registry.free_acme_order(&order.name).await.is_err()
            {
                return;
            }
        }
        let ended = |end: Timestamp| end.saturating_add(FORGET_AFTER).is_ok_and(|then| then < now);
        let certificates = snapshot.acme_certificates().filter(|certificate| ended(certificate.not_after));
        let failures = snapshot
            .acme_orders()
            .filter(|order| order.held.is_none() && order.failure.as_ref().is_some_and(|failed| ended(failed.at)));
        let names = certificates.map(|certificate| &certificate.name).chain(failures.map(|order| &order.name));
        let is_wanted = |name: &Hostname| self.shelf.ordered_as(snapshot, name.as_str(), now).as_ref() == Some(name);
        for name in names.filter(|name| !is_wanted(name)) {
            if registry.forget_acme_name(now, name).await.is_err() {
                return;
            }
        }
    }
}

/// What is to be ordered.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Certificates to be renewed.
    due: Vec<Hostname>,
    /// Names that nobody waits for yet, as many as may begin at once; those first that have failed least often, so that the
    /// many that lead elsewhere, as far as an authority can see, keep nobody from the first attempt.
    ahead: Vec<Hostname>,
    /// Then there is more to do.
    next: Timestamp,
}

impl Plan {
    /// What follows from this snapshot.
    fn of(snapshot: &Snapshot, domain: &Hostname, covers: impl Fn(&Hostname) -> bool, now: Timestamp) -> Self {
        let routed = snapshot.routes().map(|route| &route.hostname).filter(|name| !is_quick(snapshot, name.as_str()));
        let held = snapshot.acme_certificates().map(|certificate| &certificate.name);
        let names = routed.chain(held).chain([domain]).filter(|name| !covers(name));
        let below = domain.child("a").ok();
        let of = |name: &Hostname| {
            let ordered = ordered_as(snapshot, domain, name.as_str(), now);
            // Also while it fails.
            ordered.into_iter().chain(wildcard_over(snapshot, domain, name.as_str()))
        };
        let names: BTreeSet<Hostname> = names.chain(&below).flat_map(of).collect();
        let is_needed = |name: &Hostname| ordered_as(snapshot, domain, name.as_str(), now).as_ref() == Some(name);
        let names: Vec<Hostname> = names.into_iter().filter(|name| is_needed(name) && !covers(name)).collect();
        let mut plan = Self { due: Vec::new(), ahead: Vec::new(), next: Timestamp::MAX };
        let mut absent = Vec::new();
        for name in &names {
            let stage = stage(snapshot, name, now);
            let has_had = snapshot.acme_certificate(name.as_str()).is_some();
            match stage {
                AcmeStage::Due => plan.due.push(name.clone()),
                AcmeStage::Absent if has_had => plan.due.push(name.clone()),
                AcmeStage::Absent => {
                    absent.push((snapshot.acme_order(name.as_str()).map_or(0, |order| order.failures), name));
                }
                AcmeStage::Ordering { until } | AcmeStage::Held { renew_at: until } | AcmeStage::Failed { until } => {
                    plan.next = plan.next.min(until);
                }
            }
        }
        absent.sort_unstable();
        plan.ahead = absent.into_iter().take(AHEAD).map(|(_, name)| name.clone()).collect();
        plan
    }
}

/// The names of the next change of the registry.
async fn news(changes: &mut Watch, registry: &Registry) -> Option<Vec<Hostname>> {
    let Event::Changes { changes, .. } = changes.next().await? else { return Some(Vec::new()) };
    let snapshot = registry.snapshot();
    let names = changes.iter().filter_map(|change| match change {
        Change::Records(zone, _, Some(set)) => Some(set.name(&snapshot.zone(*zone)?.name)),
        Change::Passthrough(name, None) => Some(name.clone()),
        _ => None,
    });
    Some(names.collect())
}

fn stage(snapshot: &Snapshot, name: &Hostname, now: Timestamp) -> AcmeStage {
    let certificate = snapshot.acme_certificate(name.as_str()).map(|certificate| &certificate.value);
    AcmeStage::of(certificate, snapshot.acme_order(name.as_str()).map(|order| &order.value), now)
}

impl Orderer {
    /// Carries an order out, and writes down how it has ended.
    async fn carry_out(self, hold: AcmeHold) {
        let name = hold.name();
        let outcome = timeout(ATTEMPT, self.order(&hold)).await.unwrap_or(Err(OrderError::Slow));
        let outcome = outcome.and_then(|ordered| certificate(name, ordered));
        self.shelf.count(outcome.is_ok());
        match &outcome {
            Ok(certificate) => {
                let (issuer, until) = (&certificate.issuer, certificate.not_after);
                tracing::info!(%name, %issuer, %until, "there is a new certificate");
            }
            Err(error) => {
                let has_old = self.registry.snapshot().acme_certificate(name.as_str()).is_some();
                tracing::warn!(%name, %error, has_old, "no certificate was issued; it is tried again later");
            }
        }
        if let Err(problem) = persistently(&hold, || self.write(&hold, &outcome)).await {
            tracing::warn!(%name, %problem, "how an order ended cannot be written down");
        }
    }

    async fn write(&self, hold: &AcmeHold, outcome: &Result<AcmeCertificate, OrderError>) -> Result<(), AcmeError> {
        match outcome {
            Ok(certificate) => self.registry.finish_acme_order(hold, certificate.clone()).await,
            Err(error) => {
                let kind = match error {
                    OrderError::RateLimited(_) => AcmeFailure::RateLimited,
                    OrderError::Unverified { .. } => AcmeFailure::Unseen,
                    _ => AcmeFailure::Usual,
                };
                self.registry.fail_acme_order(Timestamp::now(), hold, kind, &error.to_string()).await
            }
        }
    }

    /// One order, or a second one where the authority does not see the name in the first way.
    async fn order(&self, hold: &AcmeHold) -> Result<Ordered, OrderError> {
        if hold.name().wildcard_parent().is_some() {
            return self.order_by(hold, Way::Dns).await;
        }
        let first = if self.http_first.load(Ordering::Relaxed) { Way::Http } else { Way::Tls };
        // Once it has looked in vain one way at a time: authorities count that.
        let (first, second) = match hold.unseen() {
            0 => (first, Some(first.other())),
            odd if odd % 2 == 1 => (first.other(), None),
            _ => (first, None),
        };
        let ordered = self.order_by(hold, first).await;
        let (way, ordered) = match (ordered, second) {
            (Err(error @ (OrderError::Unverified { .. } | OrderError::NoSuchWay(_))), Some(second)) => {
                tracing::info!(name = %hold.name(), %error, "trying the other way");
                // Both reasons are worth knowing.
                let both = |second| match second {
                    OrderError::Unverified { way, problem } => {
                        OrderError::Unverified { way, problem: format!("{problem}; before: {error}") }
                    }
                    other => other,
                };
                (second, self.order_by(hold, second).await.map_err(both))
            }
            (ordered, _) => (first, ordered),
        };
        if ordered.is_ok() {
            self.http_first.store(way == Way::Http, Ordering::Relaxed);
        }
        ordered
    }

    async fn order_by(&self, hold: &AcmeHold, way: Way) -> Result<Ordered, OrderError> {
        let credentials = self.account().await?;
        match self.order_with(hold, way, &credentials).await {
            Err(OrderError::NoAccount(why)) => {
                tracing::warn!(why, "the authority has forgotten the account; making another one");
                let owner = (self.client.directory(), self.client.email());
                let forgotten = self.registry.forget_acme_account(owner, &credentials).await;
                forgotten.map_err(|error| OrderError::Unanswered(error.to_string()))?;
                self.order_with(hold, way, &self.account().await?).await
            }
            ordered => ordered,
        }
    }

    async fn order_with(&self, hold: &AcmeHold, way: Way, credentials: &PrivateText) -> Result<Ordered, OrderError> {
        let show = |Answer { token, key_authorization }| async move {
            let answer = AcmeAnswer { token: token.into(), key_authorization: key_authorization.into() };
            let shown = persistently(hold, || self.registry.answer_acme_order(hold, answer.clone())).await;
            shown.map_err(|error| error.to_string())?;
            let snapshot = self.registry.snapshot();
            if way == Way::Dns && is_transferred(&snapshot, hold.name()) {
                sleep(TRANSFER).await;
            } else if way == Way::Dns || snapshot.nodes().count() > 1 {
                sleep(SETTLING).await;
            }
            Ok(())
        };
        self.client.order(credentials.reveal(), hold.name().as_str(), way, show).await
    }

    /// What lets in to the account, which is made if there is none.
    async fn account(&self) -> Result<PrivateText, OrderError> {
        let owner = (self.client.directory(), self.client.email());
        let _turn = self.account_turn.lock().await;
        if let Some(account) = self.registry.snapshot().acme_account(owner.0, owner.1) {
            return Ok(account.credentials.clone());
        }
        let credentials = PrivateText::new(self.client.register().await?);
        let founded = self.registry.found_acme_account(Timestamp::now(), owner, credentials).await;
        founded.map_err(|error| OrderError::Unanswered(error.to_string()))
    }

    /// Gives the names back that this node was ordering, so that another one, or the next start, need not wait.
    async fn release_all(&self) {
        let (snapshot, me) = (self.registry.snapshot(), self.registry.node());
        for order in snapshot.acme_orders() {
            if order.held.as_ref().is_some_and(|held| held.node == me) {
                let released = self.registry.release_acme_order(&order.name);
                if timeout(FAREWELL, released).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Writes something of an order down, as often as it takes while the order is this node's: an engine that takes long is no reason
/// to give it up.
async fn persistently<F>(hold: &AcmeHold, write: impl Fn() -> F) -> Result<(), AcmeError>
where
    F: Future<Output = Result<(), AcmeError>>,
{
    loop {
        match write().await {
            Err(AcmeError::Commit(problem)) if Timestamp::now() < hold.until() => {
                tracing::debug!(name = %hold.name(), %problem, "an order is written down later");
            }
            outcome => return outcome,
        }
        sleep(WRITE_AGAIN).await;
    }
}

/// A name that is meant by this one: itself, unless it has a wildcard.
fn example_of(name: &Hostname) -> String {
    name.as_str().replacen('*', "a", 1)
}

/// Whether others than nodes answer for a name with a wildcard.
fn is_transferred(snapshot: &Snapshot, name: &Hostname) -> bool {
    let zone = name.wildcard_parent().and_then(|parent| snapshot.zone_of(parent));
    zone.is_some_and(|zone| snapshot.transfer_out(zone.id).is_some())
}

fn certificate(name: &Hostname, ordered: Ordered) -> Result<AcmeCertificate, OrderError> {
    let Ordered { chain, key, issuer, not_before, not_after } = ordered;
    let time = |time: SystemTime| {
        Timestamp::try_from(time).map_err(|error| OrderError::Useless(format!("its life is out of bounds: {error}")))
    };
    Ok(AcmeCertificate {
        name: name.clone(),
        chain: chain.into(),
        key: PrivateText::new(key),
        issuer: issuer.into(),
        not_before: time(not_before)?,
        not_after: time(not_after)?,
    })
}

#[cfg(test)]
mod tests;
