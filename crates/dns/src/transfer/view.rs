//! What transfers of a zone follow from besides records: where the edge's nodes are, and what names outside of the zones lead
//! to. Both change without a change of the zone, and so of its serial number. So one node writes them into the registry, and
//! transfers follow from what is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use registry::{ItemKind, Registry, Snapshot, TransferView, Which, ZoneId};
use tokio::time::MissedTickBehavior;

use crate::answer::{Asker, Outside, Unchecked, Whole, World};
use crate::book::{Book, Nodes};
use crate::desk::Sources;

/// Names outside of the zones that one zone's transfers follow from; those beyond are left out of them.
const NAMES: usize = 256;
/// How often it is looked whether something is otherwise.
const LOOK: Duration = Duration::from_secs(5);
/// What names outside lead to is another thing each time at some; it is written no more often.
const OUTSIDE_AGE: SignedDuration = SignedDuration::from_mins(5);

/// What names outside of the zones lead to, as it is written.
pub(super) struct Written(BTreeMap<Box<str>, Vec<IpAddr>>);

impl Outside for Written {
    fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        self.0.get(host).map(|addresses| addresses.as_slice().into())
    }
}

/// The book with the nodes that are written for a zone, and the addresses of names outside; those of this moment, as long as
/// nothing is.
pub(super) fn of_zone(snapshot: &Snapshot, book: &Book, zone: ZoneId) -> (Book, Option<Written>) {
    let Some((_, view)) = snapshot.transfer_view(zone) else { return (book.clone(), None) };
    let nodes = Nodes { visitors: view.visitors, servers: view.servers, ..Nodes::default() };
    let mut book = book.clone();
    book.nodes = nodes;
    (book, Some(Written(view.outside)))
}

/// Notes which names somebody asks for.
#[derive(Default)]
struct Asked(Mutex<BTreeSet<Box<str>>>);

impl Outside for Asked {
    fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES {
            names.insert(host.into());
        }
        None
    }
}

/// What is known of a zone.
#[derive(Default)]
struct Seen {
    /// As of which change.
    serial: Option<u32>,
    /// Which names outside its aliases lead to.
    names: BTreeSet<Box<str>>,
    /// What should have been written the last time.
    wanted: TransferView,
}

/// Writes, for each zone that is transferred, what its transfers follow from, as long as this is the node that does so. Never
/// ends.
pub(crate) async fn keep(sources: Arc<Sources>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: HashMap<ZoneId, Seen> = HashMap::new();
    loop {
        looks.tick().await;
        let book = sources.book.load_full();
        let snapshot = sources.registry.snapshot();
        if !writes(&snapshot, &sources.registry) {
            seen.clear();
            continue;
        }
        seen.retain(|zone, _| snapshot.transfer_out(*zone).is_some());
        for (zone, _) in snapshot.transfers_out() {
            let seen = seen.entry(zone).or_default();
            let serial = book.serial(zone);
            if seen.serial != Some(serial) {
                let (sources, snapshot, book) = (Arc::clone(&sources), Arc::clone(&snapshot), Arc::clone(&book));
                let names = tokio::task::spawn_blocking(move || names_outside(&sources, &snapshot, &book, zone));
                seen.names = names.await.unwrap_or_default();
                seen.serial = Some(serial);
            }
            look(&sources, &snapshot, &book, zone, seen).await;
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
    let address = |host: &str| {
        let known = sources.outside.addresses(host).map(|addresses| addresses.to_vec());
        let known = known.or_else(|| stored.as_ref()?.0.outside.get(host).cloned());
        Some((Box::from(host), known?))
    };
    let wanted = TransferView {
        visitors: book.nodes.visitors.clone(),
        servers: book.nodes.servers.clone(),
        outside: seen.names.iter().filter_map(|host| address(host)).collect(),
    };
    let is_settled = seen.wanted == wanted;
    seen.wanted = wanted;
    if !is_due(stored.as_ref(), &seen.wanted, is_settled, now) {
        return;
    }
    let terms = seen.wanted.terms();
    let mut read = |_: Option<&_>| Ok(terms.clone());
    let written = sources.registry.write_item(now, ItemKind::TransferView, Some(zone), which, &mut read).await;
    if let Err(problem) = written {
        tracing::warn!(%problem, "what transfers of a zone follow from cannot be written; they stay as they were");
    }
}

/// Whether what is written is to be written anew.
fn is_due(stored: Option<&(TransferView, Timestamp)>, wanted: &TransferView, is_settled: bool, now: Timestamp) -> bool {
    let Some((stored, at)) = stored else { return true };
    let has_same_nodes = (&stored.visitors, &stored.servers) == (&wanted.visitors, &wanted.servers);
    let has_same_names = stored.outside.keys().eq(wanted.outside.keys());
    if !has_same_names {
        return true;
    }
    // A node that starts again is gone for a moment only.
    !has_same_nodes && is_settled || *stored != *wanted && now.duration_since(*at) >= OUTSIDE_AGE
}

/// One node of those that answer.
fn writes(snapshot: &Snapshot, registry: &Registry) -> bool {
    let first = snapshot.nodes().filter(|node| node.addresses.dns.is_some()).map(|node| node.id).min();
    first.is_none_or(|first| first == registry.node())
}

/// Which names outside of the zones a zone's transfers follow from. Looks through all of it.
fn names_outside(sources: &Sources, snapshot: &Snapshot, book: &Book, zone: ZoneId) -> BTreeSet<Box<str>> {
    let Some(zone) = snapshot.zone(zone) else { return BTreeSet::new() };
    let asked = Asked::default();
    let world = World {
        snapshot,
        book,
        domain: &sources.domain,
        members: &Unchecked,
        outside: &asked,
        asker: &Asker { address: Ipv4Addr::UNSPECIFIED.into(), subnet: None },
        signing: None,
    };
    let mut whole = Whole::new(world, zone);
    whole.others();
    for set in Whole::sets(snapshot, zone) {
        whole.of_set(set);
    }
    asked.0.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(visitor: [u8; 4], outside: &[(&str, [u8; 4])]) -> TransferView {
        let outside = outside.iter().map(|(host, address)| ((*host).into(), vec![(*address).into()]));
        TransferView { visitors: vec![visitor.into()], servers: Vec::new(), outside: outside.collect() }
    }

    #[test]
    fn what_changes_all_the_time_is_written_now_and_then() {
        let (start, wanted) = (Timestamp::UNIX_EPOCH, view([192, 0, 2, 1], &[("a", [192, 0, 2, 9])]));
        let (soon, late) = (start + LOOK, start + OUTSIDE_AGE);
        assert!(is_due(None, &wanted, false, start));
        for (stored, is_settled, now, expected) in [
            (wanted.clone(), true, late, false),
            // Another node has to be seen twice, a new name is wanted at once.
            (view([192, 0, 2, 2], &[("a", [192, 0, 2, 9])]), false, soon, false),
            (view([192, 0, 2, 2], &[("a", [192, 0, 2, 9])]), true, soon, true),
            (view([192, 0, 2, 1], &[]), false, soon, true),
            (view([192, 0, 2, 1], &[("a", [192, 0, 2, 8])]), true, soon, false),
            (view([192, 0, 2, 1], &[("a", [192, 0, 2, 8])]), true, late, true),
        ] {
            assert_eq!(is_due(Some(&(stored.clone(), start)), &wanted, is_settled, now), expected, "{stored:?}");
        }
    }
}
