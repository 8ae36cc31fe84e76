//! The records of all zones, and what follows from them: which name leads to which tunnel.

use std::cmp::Ordering;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::{HashMap, OrdMap, OrdSet};
use uuid::Uuid;

use super::contents::Contents;
use super::{parents, set, set_ordered};
use crate::record::{APEX, Record, RecordSet, host_within};
use crate::resource::{Passthrough, Versioned};
use crate::zone::LargeChange;
use crate::{Hostname, RecordId, Route, Snapshot, Zone, ZoneId};

/// By zone; and by name for those that lead to tunnels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Names {
    zones: OrdMap<ZoneId, ZoneNames>,
    pub(super) contents: Contents,
    routes: OrdMap<Hostname, Arc<Route>>,
    exact: HashMap<Box<str>, Arc<Route>>,
    wildcards: HashMap<Box<str>, Arc<Route>>,
    tunnel_routes: OrdSet<(Uuid, Hostname)>,
}

/// The records of a zone. Nothing is held twice: a million of them must fit.
#[derive(Debug, Clone, Default, PartialEq)]
struct ZoneNames {
    by_host: OrdSet<ByHost>,
    /// Ids begin with the time, so this is the order in which records were made.
    by_id: OrdMap<RecordId, Arc<Versioned<RecordSet>>>,
}

/// Ordered and found by the name within the zone, in the order of DNS (RFC 4034, section 6.1): label by label from the last
/// one, so that whatever lies under a name follows it at once.
#[derive(Debug, Clone)]
struct ByHost(Arc<Versioned<RecordSet>>);

/// Finds one by its name.
struct Host<'a>(&'a str);

impl Equivalent<ByHost> for Host<'_> {
    fn equivalent(&self, set: &ByHost) -> bool {
        *self.0 == *set.0.host
    }
}

impl Comparable<ByHost> for Host<'_> {
    fn compare(&self, set: &ByHost) -> Ordering {
        labels_from_last(self.0).cmp(labels_from_last(&set.0.host))
    }
}

impl PartialEq for ByHost {
    fn eq(&self, other: &Self) -> bool {
        self.0.host == other.0.host
    }
}

impl Eq for ByHost {}

impl PartialOrd for ByHost {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByHost {
    fn cmp(&self, other: &Self) -> Ordering {
        labels_from_last(&self.0.host).cmp(labels_from_last(&other.0.host))
    }
}

/// The labels of a name within a zone. The zone itself has none there, and so is in front of all others.
fn labels_from_last(host: &str) -> impl Iterator<Item = &[u8]> {
    let is_apex = host == APEX;
    let labels = (!is_apex).then(|| host.as_bytes().rsplit(|byte| *byte == b'.'));
    labels.into_iter().flatten()
}

impl Snapshot {
    /// The route that a visitor's host name takes: its own, else that of the closest wildcard above it. The name must
    /// be in the form that [`Hostname`] has (lower case, no port, no trailing dot); anything else simply has no route.
    pub fn route(&self, hostname: &str) -> Option<&Arc<Route>> {
        let names = &self.names;
        if let Some(route) = names.exact.get(hostname) {
            return Some(route);
        }
        let mut name = hostname;
        // What lies beyond the name of its zone says nothing about this one.
        while self.zone_named(name).is_none() {
            name = name.split_once('.')?.1;
            if let Some(route) = names.wildcards.get(name) {
                return Some(route);
            }
        }
        None
    }

    /// The route of exactly this name or wildcard.
    pub fn route_exactly(&self, hostname: &Hostname) -> Option<&Arc<Route>> {
        self.names.routes.get(hostname)
    }

    /// The route of exactly this name, no wildcard.
    pub(super) fn exact_route(&self, name: &str) -> Option<&Arc<Route>> {
        self.names.exact.get(name)
    }

    /// The route of the wildcard below exactly this name.
    pub(super) fn wildcard_route(&self, parent: &str) -> Option<&Arc<Route>> {
        self.names.wildcards.get(parent)
    }

    /// All routes, by host name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.names.routes.values()
    }

    /// The routes that lead to a tunnel.
    pub fn routes_of(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<Route>> {
        // No host name is empty or sorts below "-", so this is in front of the tunnel's first route.
        self.names
            .tunnel_routes
            .range((tunnel, Hostname::lowest())..)
            .take_while(move |(id, _)| *id == tunnel)
            .filter_map(|(_, hostname)| self.names.routes.get(hostname))
    }

    /// How many records a zone has.
    pub fn record_count(&self, zone: ZoneId) -> usize {
        self.names.zones.get(&zone).map_or(0, |names| names.by_id.len())
    }

    /// The records of a zone in the order in which they were made, each with those of its name.
    pub fn records(&self, zone: ZoneId) -> impl DoubleEndedIterator<Item = (&Arc<Versioned<RecordSet>>, &Record)> {
        let names = self.names.zones.get(&zone).into_iter();
        names.flat_map(|names| names.by_id.iter()).filter_map(|(id, set)| Some((set, set.record(*id)?)))
    }

    /// So many records of a zone in the order in which they were made, after the first so many; or backwards. Those before
    /// are not looked at.
    pub fn record_page(
        &self,
        zone: ZoneId,
        start: usize,
        count: usize,
        backwards: bool,
    ) -> Vec<(&Arc<Versioned<RecordSet>>, &Record)> {
        let Some(names) = self.names.zones.get(&zone) else { return Vec::new() };
        let all = names.by_id.len();
        let (from, until) = (start.min(all), start.saturating_add(count).min(all));
        // From the nearer end.
        let (first, last) = if backwards { (all - until, all - from) } else { (from, until) };
        let mut page: Vec<_> = match first <= all / 2 {
            true => names.by_id.iter().skip(first).take(last - first).collect(),
            false => {
                let mut page: Vec<_> = names.by_id.iter().rev().skip(all - last).take(last - first).collect();
                page.reverse();
                page
            }
        };
        if backwards {
            page.reverse();
        }
        page.into_iter().filter_map(|(id, set)| Some((set, set.record(*id)?))).collect()
    }

    /// The record of a zone with this id, with those of its name.
    pub fn record(&self, zone: ZoneId, id: RecordId) -> Option<(&Arc<Versioned<RecordSet>>, &Record)> {
        let set = self.record_set_with(zone, id)?;
        Some((set, set.record(id)?))
    }

    /// The records of a zone's names, in the order of DNS. The zone's own name is `@` here.
    pub fn record_sets(&self, zone: ZoneId) -> impl Iterator<Item = &Arc<Versioned<RecordSet>>> {
        self.names.zones.get(&zone).into_iter().flat_map(|names| names.by_host.iter()).map(|ByHost(set)| set)
    }

    /// The records of a name in this zone.
    pub fn records_named(&self, zone: &Zone, name: &str) -> Option<&Arc<Versioned<RecordSet>>> {
        self.record_set(zone.id, host_within(name, &zone.name)?)
    }

    /// Those of this name within a zone, or else of the next one in the order of DNS: if anything lies under a name that has
    /// no records itself, then it is that.
    pub fn records_from(&self, zone: ZoneId, host: &str) -> Option<&Arc<Versioned<RecordSet>>> {
        self.names.zones.get(&zone)?.by_host.get_next(&Host(host)).map(|ByHost(set)| set)
    }

    /// Whether records say where a name leads; to a tunnel that is gone does not count.
    pub(crate) fn has_addresses(&self, zone: &Zone, name: &Hostname) -> bool {
        let leads = |record: &Record| match record.tunnel() {
            Some(tunnel) => self.live_tunnel(tunnel).is_some(),
            None => record.content.kind().is_address(),
        };
        self.records_named(zone, name.as_str()).is_some_and(|set| set.records.iter().any(leads))
    }

    pub(crate) fn record_set(&self, zone: ZoneId, host: &str) -> Option<&Arc<Versioned<RecordSet>>> {
        self.names.zones.get(&zone)?.by_host.get(&Host(host)).map(|ByHost(set)| set)
    }

    pub(crate) fn record_set_with(&self, zone: ZoneId, id: RecordId) -> Option<&Arc<Versioned<RecordSet>>> {
        self.names.zones.get(&zone)?.by_id.get(&id)
    }

    /// The names within a zone whose TLS is left to an origin.
    pub(crate) fn passthrough_within(&self, zone: &Zone) -> impl Iterator<Item = &Arc<Versioned<Passthrough>>> {
        // Zones that lie in it keep theirs.
        let is_inner =
            |name: &Hostname| self.zone_of(name.as_str()).is_some_and(|other| other.name.is_within(&zone.name));
        let names = self.passthrough.values();
        names.filter(move |name| name.hostname.is_within(&zone.name) && !is_inner(&name.hostname))
    }

    pub(crate) fn large_change(&self, zone: ZoneId) -> Option<&Arc<Versioned<LargeChange>>> {
        self.large_changes.get(&zone)
    }
}

impl Snapshot {
    /// Takes in the records of a name; none, if there are to be none.
    pub(super) fn set_records(&mut self, zone: ZoneId, host: &str, new: Option<Arc<Versioned<RecordSet>>>) {
        let Names { zones, contents, .. } = &mut self.names;
        let names = zones.entry(zone).or_default();
        let old = names.by_host.get(&Host(host)).map(|ByHost(set)| set.clone());
        for record in old.iter().flat_map(|old| &old.records) {
            // One that moved to another name of the same transaction is that one's already.
            if names.by_id.get(&record.id).is_some_and(|set| *set.host == *host) {
                names.by_id.remove(&record.id);
                contents.remove(zone, record);
            }
        }
        match &new {
            Some(new) => {
                for record in &new.records {
                    let elsewhere = names.by_id.insert(record.id, new.clone());
                    if let Some(moved) = elsewhere.as_ref().and_then(|set| set.record(record.id)) {
                        contents.remove(zone, moved);
                    }
                    contents.insert(zone, record);
                }
                // An equal one would be left as it is.
                names.by_host.remove(&Host(host));
                names.by_host.insert(ByHost(new.clone()));
            }
            None => drop(names.by_host.remove(&Host(host))),
        }
        if names.by_host.is_empty() {
            zones.remove(&zone);
        }

        let leads = |set: &Option<Arc<Versioned<RecordSet>>>| set.as_ref().is_some_and(|set| set.tunnel().is_some());
        if !leads(&old) && !leads(&new) {
            return;
        }
        let (Some(zone), Some(set)) = (self.zone(zone), new.or(old)) else { return };
        let hostname = set.name(&zone.name);
        self.reroute(hostname);
    }

    /// Takes in a zone that came or went with all its names, and what the zones around it say of names within it.
    pub(super) fn reroute_zone(&mut self, zone: ZoneId, name: &Hostname) {
        let around = parents(name.as_str()).filter_map(|parent| self.zone_named(parent));
        let around = around.map(|around| (around.id, &around.name));
        let names = std::iter::once((zone, name)).chain(around).flat_map(|(zone, zone_name)| {
            let leading = self.record_sets(zone).filter(|set| set.tunnel().is_some());
            leading.map(|set| set.name(zone_name)).filter(|hostname| hostname.is_within(name))
        });
        let hostnames: Vec<Hostname> = names.collect();
        for hostname in hostnames {
            self.reroute(hostname);
        }
    }

    /// Finds out anew where a name leads. Of several zones in which it lies, the closest says so, and nobody else: whoever has
    /// an outer one does not get an inner one's visitors.
    fn reroute(&mut self, hostname: Hostname) {
        let route = self.zone_of(hostname.as_str()).and_then(|zone| {
            let (record, tunnel) = self.records_named(zone, hostname.as_str())?.tunnel()?;
            let (zone, record, created_at) = (zone.id, record.id, record.created_at);
            Some(Arc::new(Route { hostname: hostname.clone(), tunnel, zone, record, created_at }))
        });
        let names = &mut self.names;
        if let Some(old) = names.routes.get(&hostname) {
            names.tunnel_routes.remove(&(old.tunnel, hostname.clone()));
        }
        if let Some(new) = &route {
            names.tunnel_routes.insert((new.tunnel, hostname.clone()));
        }
        match hostname.wildcard_parent() {
            Some(parent) => set(&mut names.wildcards, parent.into(), route.clone()),
            None => set(&mut names.exact, hostname.as_str().into(), route.clone()),
        }
        set_ordered(&mut names.routes, hostname, route);
    }
}
