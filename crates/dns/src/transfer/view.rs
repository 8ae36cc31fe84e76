//! What transfers of a zone follow from besides its records: where the edge's nodes are, what names outside of the zones lead
//! to, load balancers, and other zones. All of these change without a change of the zone, and so of its serial number. So one
//! node writes them into the registry, of the latter two a digest; transfers follow from what is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use registry::{ItemKind, Registry, Snapshot, TransferView, Which, ZoneId};
use tokio::time::{Instant, MissedTickBehavior};

use crate::answer::{Asker, Outside, Unchecked, Whole, World};
use crate::book::{Book, Nodes};
use crate::desk::Sources;
use crate::message::{Owner, Record};

/// Names outside of the zones that one zone's transfers follow from; those beyond are left out of them.
const NAMES: usize = 256;
/// How often it is looked whether something is otherwise.
const LOOK: Duration = Duration::from_secs(1);
/// Looking through all zones that are transferred takes no more of the time than one part in so many.
const SHARE: u32 = 10;
/// For how long a name that cannot be looked up holds transfers back; then it leads nowhere.
const PATIENCE: SignedDuration = SignedDuration::from_secs(15);
/// For how long nodes have to be the same before they are written: one that starts again is gone for a moment only.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);
/// What names outside lead to is another thing each time at some; it is written no more often.
const OUTSIDE_AGE: SignedDuration = SignedDuration::from_mins(5);

/// What names outside of the zones lead to, as it is written; those of which nothing is written yet, as it is known here.
pub(super) struct Written {
    names: BTreeMap<Box<str>, Vec<IpAddr>>,
    live: Arc<dyn Outside>,
    /// A name was asked for of which nothing is known at all.
    lacks: AtomicBool,
}

impl Written {
    /// Whether it could not answer: what was made of it is not what the zone is.
    pub(super) fn lacks(&self) -> bool {
        self.lacks.load(Ordering::Relaxed)
    }
}

impl Outside for Written {
    fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        if let Some(addresses) = self.names.get(host) {
            return Some(addresses.as_slice().into());
        }
        if self.names.len() >= NAMES {
            return None;
        }
        let known = self.live.addresses(host);
        self.lacks.fetch_or(known.is_none(), Ordering::Relaxed);
        known
    }
}

/// The book with the nodes that are written for a zone, and the addresses of names outside; those of this moment, as long as
/// nothing is.
pub(super) fn of_zone(sources: &Sources, snapshot: &Snapshot, book: &Book, zone: ZoneId) -> (Book, Written) {
    let mut book = book.clone();
    let mut names = BTreeMap::new();
    if let Some((_, view)) = snapshot.transfer_view(zone) {
        book.nodes = Nodes { visitors: view.visitors, servers: view.servers, ..Nodes::default() };
        names = view.outside;
    }
    (book, Written { names, live: Arc::clone(&sources.outside), lacks: AtomicBool::new(false) })
}

/// Notes which names somebody asks for. Each of them leads to an address of its own, so that it shows where they are.
#[derive(Default)]
struct Asked(Mutex<BTreeSet<Box<str>>>);

impl Outside for Asked {
    fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES {
            names.insert(host.into());
        }
        let hash = digest(&SHA256, host.as_bytes());
        let address = hash.as_ref().first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into());
        Some(address.into_iter().collect())
    }
}

/// What is known of a zone.
#[derive(Default)]
struct Seen {
    /// As of which edition of the book.
    edition: Option<u64>,
    survey: Survey,
    nodes: Nodes,
    /// Since when the nodes are these.
    since: Timestamp,
    /// Names of which nothing is known, and since when they are wanted.
    unknown: BTreeMap<Box<str>, Timestamp>,
}

/// What a zone's transfers follow from.
#[derive(Default)]
struct Survey {
    /// To which names outside its aliases lead.
    names: BTreeSet<Box<str>>,
    /// A digest of what follows from load balancers and other zones.
    elsewhere: u64,
}

/// Writes, for each zone that is transferred, what its transfers follow from, as long as this is the node that does so. Never
/// ends.
pub(crate) async fn keep(sources: Arc<Sources>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: HashMap<ZoneId, Seen> = HashMap::new();
    loop {
        looks.tick().await;
        let began = Instant::now();
        let book = sources.book.load_full();
        let snapshot = sources.registry.snapshot();
        if !writes(&snapshot, &sources.registry) {
            seen.clear();
            continue;
        }
        seen.retain(|zone, _| snapshot.transfer_out(*zone).is_some());
        forget(&sources.registry, &snapshot).await;
        for (zone, _) in snapshot.transfers_out() {
            let seen = seen.entry(zone).or_default();
            if seen.edition.replace(book.edition) != Some(book.edition) {
                let (sources, snapshot, book) = (Arc::clone(&sources), Arc::clone(&snapshot), Arc::clone(&book));
                let survey = tokio::task::spawn_blocking(move || survey(&sources, &snapshot, &book, zone));
                let Ok(survey) = survey.await else { continue };
                seen.survey = survey;
            }
            look(&sources, &snapshot, &book, zone, seen).await;
        }
        looks.reset_after(LOOK.max(began.elapsed() * SHARE));
    }
}

/// Removes what is written of zones that are transferred no more, so that it is not outdated when they are again.
async fn forget(registry: &Registry, snapshot: &Snapshot) {
    for (zone, item) in snapshot.transfer_views().filter(|(zone, _)| snapshot.transfer_out(*zone).is_none()) {
        if let Err(problem) = registry.delete_item(ItemKind::TransferView, Some(zone), item, false).await {
            tracing::warn!(%problem, "what transfers of a zone followed from cannot be removed; it is tried again");
        }
    }
}

async fn look(sources: &Sources, snapshot: &Snapshot, book: &Book, zone: ZoneId, seen: &mut Seen) {
    let now = Timestamp::now();
    let stored = snapshot.transfer_view(zone);
    let (which, stored) = match stored {
        Some((item, view)) => (Which::One(item.id), Some((view, item.modified_at))),
        None => (Which::New, None),
    };
    let known = |host: &str| {
        let known = sources.outside.addresses(host).map(|addresses| addresses.to_vec());
        known.or_else(|| stored.as_ref()?.0.outside.get(host).cloned())
    };
    let outside = addresses(&seen.survey.names, &mut seen.unknown, now, known);
    if seen.nodes != book.nodes {
        (seen.nodes, seen.since) = (book.nodes.clone(), now);
    }
    let wanted = TransferView {
        visitors: book.nodes.visitors.clone(),
        servers: book.nodes.servers.clone(),
        outside,
        elsewhere: seen.survey.elsewhere,
    };
    if !is_due(stored.as_ref(), &wanted, seen.since, now) {
        return;
    }
    let terms = wanted.terms();
    let mut read = |_: Option<&_>| Ok(terms.clone());
    let written = sources.registry.write_item(now, ItemKind::TransferView, Some(zone), which, &mut read).await;
    if let Err(problem) = written {
        tracing::warn!(%problem, "what transfers of a zone follow from cannot be written; they stay as they were");
    }
}

/// What of these names is to be written, by what is known of them; those that wait are noted.
fn addresses(
    names: &BTreeSet<Box<str>>,
    unknown: &mut BTreeMap<Box<str>, Timestamp>,
    now: Timestamp,
    known: impl Fn(&str) -> Option<Vec<IpAddr>>,
) -> BTreeMap<Box<str>, Vec<IpAddr>> {
    unknown.retain(|host, _| names.contains(host));
    let mut all = BTreeMap::new();
    for host in names {
        if let Some(addresses) = known(host) {
            unknown.remove(host);
            all.insert(host.clone(), addresses);
        } else if now.duration_since(*unknown.entry(host.clone()).or_insert(now)) >= PATIENCE {
            all.insert(host.clone(), Vec::new());
        }
    }
    all
}

/// Whether what is written is to be written anew.
fn is_due(stored: Option<&(TransferView, Timestamp)>, wanted: &TransferView, since: Timestamp, now: Timestamp) -> bool {
    let Some((stored, at)) = stored else { return true };
    let has_same_nodes = (&stored.visitors, &stored.servers) == (&wanted.visitors, &wanted.servers);
    // A name that leads somewhere at last is as good as a new one.
    let names = |view: &TransferView| -> Vec<_> {
        view.outside.iter().map(|(host, addresses)| (host.clone(), addresses.is_empty())).collect()
    };
    let has_same_names = names(stored) == names(wanted);
    if !has_same_names || stored.elsewhere != wanted.elsewhere {
        return true;
    }
    !has_same_nodes && now.duration_since(since) >= SETTLED
        || *stored != *wanted && now.duration_since(*at) >= OUTSIDE_AGE
}

/// One node of those that answer.
fn writes(snapshot: &Snapshot, registry: &Registry) -> bool {
    let first = snapshot.nodes().filter(|node| node.addresses.dns.is_some()).map(|node| node.id).min();
    first.is_none_or(|first| first == registry.node())
}

/// Looks through all of a zone.
fn survey(sources: &Sources, snapshot: &Snapshot, book: &Book, zone: ZoneId) -> Survey {
    let Some(zone) = snapshot.zone(zone) else { return Survey::default() };
    let asked = Asked::default();
    // The nodes are written themselves.
    let mut book = book.clone();
    book.nodes = Nodes::default();
    let world = World {
        snapshot,
        book: &book,
        domain: &sources.domain,
        members: &Unchecked,
        outside: &asked,
        asker: &Asker { address: Ipv4Addr::UNSPECIFIED.into(), subnet: None },
        signing: None,
    };
    let records = Whole::new(world, zone).elsewhere();
    // The same in whichever order they are.
    let elsewhere = records.iter().map(hash).fold(0, u64::wrapping_add);
    Survey { names: asked.0.into_inner().unwrap_or_else(PoisonError::into_inner), elsewhere }
}

/// The same at each node and each version.
fn hash(record: &Record) -> u64 {
    let mut hash = Context::new(&SHA256);
    if let Owner::Named(name) = &record.owner {
        hash.update(name.as_bytes());
    }
    hash.update(&[0]);
    hash.update(&record.kind.to_be_bytes());
    hash.update(&record.ttl.to_be_bytes());
    hash.update(&record.data);
    hash.finish().as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(visitor: [u8; 4], outside: &[(&str, [u8; 4])]) -> TransferView {
        let outside = outside.iter().map(|(host, address)| ((*host).into(), vec![(*address).into()]));
        TransferView { visitors: vec![visitor.into()], servers: Vec::new(), outside: outside.collect(), elsewhere: 7 }
    }

    #[test]
    fn what_changes_all_the_time_is_written_now_and_then() {
        let (start, wanted) = (Timestamp::UNIX_EPOCH, view([192, 0, 2, 1], &[("a", [192, 0, 2, 9])]));
        let (soon, settled, late) = (start + LOOK, start + SETTLED, start + OUTSIDE_AGE);
        assert!(is_due(None, &wanted, start, start));
        for (stored, now, expected) in [
            (wanted.clone(), late, false),
            // Another node has to be there for a while, a new name is wanted at once.
            (view([192, 0, 2, 2], &[("a", [192, 0, 2, 9])]), soon, false),
            (view([192, 0, 2, 2], &[("a", [192, 0, 2, 9])]), settled, true),
            (view([192, 0, 2, 1], &[]), soon, true),
            (TransferView { outside: [("a".into(), Vec::new())].into(), ..wanted.clone() }, soon, true),
            (view([192, 0, 2, 1], &[("a", [192, 0, 2, 8])]), settled, false),
            (view([192, 0, 2, 1], &[("a", [192, 0, 2, 8])]), late, true),
            (TransferView { elsewhere: 8, ..wanted.clone() }, soon, true),
        ] {
            assert_eq!(is_due(Some(&(stored.clone(), start)), &wanted, start, now), expected, "{stored:?}");
        }
    }

    #[test]
    fn a_name_that_leads_nowhere_is_written_after_a_while() {
        let (names, start) = ([Box::from("a"), Box::from("b")].into(), Timestamp::UNIX_EPOCH);
        let mut unknown = BTreeMap::new();
        let mut at = |seconds: i64, has_both: bool| {
            let known = |host: &str| (has_both || host == "a").then(|| vec![[192, 0, 2, 9].into()]);
            let all = addresses(&names, &mut unknown, start + SignedDuration::from_secs(seconds), known);
            all.into_iter().map(|(host, addresses)| (host, addresses.len())).collect::<Vec<_>>()
        };
        assert_eq!(at(0, false), [("a".into(), 1)]);
        assert_eq!(at(PATIENCE.as_secs() - 1, false), [("a".into(), 1)]);
        assert_eq!(at(PATIENCE.as_secs(), false), [("a".into(), 1), ("b".into(), 0)]);
        assert_eq!(at(PATIENCE.as_secs() + 1, true), [("a".into(), 1), ("b".into(), 1)]);
        assert_eq!(at(PATIENCE.as_secs() + 2, false), [("a".into(), 1)], "it has to wait anew");
    }
}
