//! What answers follow from besides the registry's snapshot: which nodes there are, and which change of its zone an answer
//! has seen.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use imbl::HashMap;
use registry::engine::Revision;
use registry::{Change, Event, ItemKind, NodeId, NodeRecord, Registry, Snapshot, ZoneId};
use tokio::time::MissedTickBehavior;

use crate::answer::CHALLENGE;

/// How often the list of nodes is looked at, which comes without a word.
const NODES_LOOK: Duration = Duration::from_millis(250);

/// As of one moment. Read before the snapshot that an answer is made of, it tells later whether that still holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Book {
    /// Counts the changes of this book.
    pub(crate) edition: u64,
    /// Counts those that any answer may follow from: a zone that came or went, and nodes.
    pub(crate) epoch: u64,
    /// Each zone's last change is at most this one, but for those below.
    base: Revision,
    changed: HashMap<ZoneId, Revision>,
    /// The nodes' addresses.
    pub(crate) nodes: Nodes,
}

/// Where the nodes are that run, each list in the same order at every node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Nodes {
    /// For visitors.
    pub(crate) visitors: Vec<IpAddr>,
    /// For questions.
    pub(crate) servers: Vec<IpAddr>,
    /// For agents: two parts that have no node in common, and no PoP where there are several.
    pub(crate) regions: [Vec<SocketAddr>; 2],
    /// Where this node is in the list of those for visitors.
    pub(crate) own: usize,
}

impl Book {
    /// The number of a zone's last change: that, or a later one of another zone. Never less than another node has seen
    /// with the same change.
    pub(crate) fn serial(&self, zone: ZoneId) -> u32 {
        let revision = self.changed.get(&zone).copied().unwrap_or_default().max(self.base);
        // Secondaries compare in a circle (RFC 1982).
        (revision & u64::from(u32::MAX)) as u32
    }

    fn of(snapshot: &Snapshot, own: NodeId) -> Self {
        Self { base: snapshot.revision(), nodes: Nodes::of(snapshot, own), ..Self::default() }
    }

    /// Takes a change of the registry in.
    fn note(&mut self, event: &Event, snapshot: &Snapshot, own: NodeId) {
        self.edition += 1;
        match event {
            Event::Changes { revision, changes } => {
                for change in changes.iter() {
                    match change {
                        Change::Records(zone, ..) => drop(self.changed.insert(*zone, *revision)),
                        Change::Zone(zone, _) => {
                            self.changed.insert(*zone, *revision);
                            self.epoch += 1;
                        }
                        // What transfers follow from, so that peers fetch it anew.
                        Change::Item(ItemKind::TransferOut | ItemKind::TransferView, Some(zone)) => {
                            self.changed.insert(*zone, *revision);
                        }
                        // Those of wildcards are answered by DNS, at a name that may be in a zone of its own.
                        Change::Order(name) => {
                            let place = name.wildcard_parent().map(|parent| format!("{CHALLENGE}.{parent}"));
                            let zone = place.and_then(|place| snapshot.zone_of(&place));
                            self.changed.extend(zone.map(|zone| (zone.id, *revision)));
                        }
                        // Rare enough to know no zone by.
                        Change::Balance => self.epoch += 1,
                        Change::Account(..)
                        | Change::Token(..)
                        | Change::Tunnel(..)
                        | Change::Configuration(..)
                        | Change::Access(..)
                        | Change::Port(..)
                        | Change::Passthrough(..)
                        | Change::Item(..)
                        | Change::Authority(..) => (),
                    }
                }
            }
            Event::Resync(snapshot) => {
                let (edition, epoch) = (self.edition, self.epoch + 1);
                *self = Self { edition, epoch, ..Self::of(snapshot, own) };
            }
        }
    }
}

impl Nodes {
    fn of(snapshot: &Snapshot, own: NodeId) -> Self {
        let mut nodes: Vec<_> = snapshot.nodes().collect();
        nodes.sort_by_key(|node| (&node.location, &node.name, node.addresses.https, node.id));
        let mut all = Self { regions: regions(&nodes), ..Self::default() };
        for node in nodes {
            let address = node.addresses.https.ip();
            if !all.visitors.contains(&address) {
                all.visitors.push(address);
            }
            if node.id == own {
                all.own = all.visitors.iter().position(|known| *known == address).unwrap_or_default();
            }
            let server = node.addresses.dns.map(|address| address.ip());
            all.servers.extend(server.filter(|server| !all.servers.contains(server)));
        }
        all
    }

    /// The addresses of one of so many name servers: each has its part, so that the failure of one leaves the others; all of
    /// them, where there are fewer than name servers.
    pub(crate) fn server(&self, place: usize, of: usize) -> impl Iterator<Item = IpAddr> {
        let is_enough = self.servers.len() >= of;
        let servers = self.servers.iter().enumerate();
        servers.filter(move |(at, _)| !is_enough || at % of.max(1) == place).map(|(_, address)| *address)
    }
}

/// Shares the nodes' addresses for agents out into two parts: PoP by PoP, else node by node, else address by address; a single
/// address is both.
fn regions(nodes: &[&Arc<NodeRecord>]) -> [Vec<SocketAddr>; 2] {
    let mut pops: Vec<&str> = nodes.iter().map(|node| &*node.location).collect();
    pops.dedup();
    let mut regions = [Vec::new(), Vec::new()];
    for (place, node) in nodes.iter().enumerate() {
        let pop = pops.iter().position(|pop| **pop == *node.location).unwrap_or_default();
        for (at, address) in node.addresses.tunnel.iter().enumerate() {
            let region = if pops.len() > 1 {
                pop
            } else if nodes.len() > 1 {
                place
            } else {
                at
            };
            regions[region % 2].push(*address);
        }
    }
    for region in &mut regions {
        // A service has one port for all its addresses.
        if let Some(port) = region.first().map(SocketAddr::port) {
            region.retain(|address| address.port() == port);
        }
        let mut known = Vec::new();
        region.retain(|address| {
            !known.contains(&address.ip()) && {
                known.push(address.ip());
                true
            }
        });
    }
    if regions[1].is_empty() {
        regions[1] = regions[0].clone();
    }
    regions
}

/// Keeps the book until it is dropped or the registry is gone.
pub(crate) async fn keep(registry: Registry, shelf: Arc<ArcSwap<Book>>) {
    let mut watch = registry.watch(shelf.load().base);
    let mut looks = tokio::time::interval(NODES_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = watch.next() => match event {
                Some(event) => Some(event),
                None => return,
            },
            _ = looks.tick() => None,
        };
        let mut book = Book::clone(&shelf.load());
        match event {
            Some(event) => book.note(&event, &registry.snapshot(), registry.node()),
            None => {
                let nodes = Nodes::of(&registry.snapshot(), registry.node());
                if nodes == book.nodes {
                    continue;
                }
                (book.edition, book.epoch, book.nodes) = (book.edition + 1, book.epoch + 1, nodes);
            }
        }
        shelf.store(Arc::new(book));
    }
}

/// The book as of now.
pub(crate) fn open(registry: &Registry) -> Arc<ArcSwap<Book>> {
    Arc::new(ArcSwap::from_pointee(Book::of(&registry.snapshot(), registry.node())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_share_the_nodes() {
        let addresses: Vec<IpAddr> = (1..=3).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let nodes = Nodes { servers: addresses.clone(), ..Nodes::default() };
        let of = |place, of| nodes.server(place, of).collect::<Vec<_>>();
        assert_eq!((of(0, 2), of(1, 2)), (vec![addresses[0], addresses[2]], vec![addresses[1]]));
        assert_eq!((of(0, 4), of(3, 4)), (addresses.clone(), addresses.clone()));
        assert_eq!(of(0, 1), addresses);
    }
}
