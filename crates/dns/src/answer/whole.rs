//! A whole zone, for those who answer for it without us: each name with what an ordinary asker would get now, where that is not
//! another name's. Pure.

use std::collections::BTreeSet;

use registry::{Hostname, LoadBalancer, RecordSet, RecordType, Snapshot, Zone};

use super::lookup::{self, APEX, Found};
use super::own::{self, Own};
use super::{A, AAAA, AUTOMATIC_TTL, CNAME, DS, Making, NS, SRV, TXT, World, ttl_of};
use crate::message::{Owner, Record, SOA};
use crate::name::to_wire;

/// Reads a zone out, name by name.
pub(crate) struct Whole<'a> {
    world: World<'a>,
    zone: &'a Zone,
    /// Zones of their own within it, as it calls them.
    inner: Vec<Box<str>>,
    /// The last name below which others answer: what lies under it follows at once.
    cut: Option<Box<str>>,
}

impl<'a> Whole<'a> {
    /// Looks through all zones, for those that lie in this one.
    pub(crate) fn new(world: World<'a>, zone: &'a Zone) -> Self {
        let within = |other: &Zone| {
            let host = lookup::host_within(other.name.as_str(), &zone.name)?;
            (host != APEX).then(|| host.into())
        };
        let mut inner: Vec<Box<str>> = world.snapshot.zones().filter_map(|other| within(other)).collect();
        inner.sort_by_key(|host| host.len());
        let mut outermost: Vec<Box<str>> = Vec::new();
        for host in inner {
            if !outermost.iter().any(|outer| is_under(&host, outer)) {
                outermost.push(host);
            }
        }
        Self { world, zone, inner: outermost, cut: None }
    }

    /// Its start of authority, with which a transfer begins and ends.
    pub(crate) fn start(&self) -> Record {
        let data = Making::new(self.world, SOA, 0).soa(self.zone).into();
        Record { owner: self.owner(APEX), kind: SOA, ttl: AUTOMATIC_TTL, data }
    }

    /// The names of all that has records, in the order in which [`Self::of_set`] has to see them.
    pub(crate) fn sets(snapshot: &'a Snapshot, zone: &Zone) -> impl Iterator<Item = &'a RecordSet> {
        snapshot.record_sets(zone.id).map(|set| &set.value)
    }

    /// What goes to others of the records of a name; not those of the zone's own name, which [`Self::others`] has.
    pub(crate) fn of_set(&mut self, set: &RecordSet) -> Vec<Record> {
        let host = &*set.host;
        if host == APEX || self.inner.iter().any(|inner| host == &**inner || is_under(host, inner)) {
            return Vec::new();
        }
        if self.cut.as_ref().is_some_and(|cut| is_under(host, cut)) {
            return self.plain(set, &[RecordType::A, RecordType::Aaaa]);
        }
        let is_cut = !host.starts_with('*') && set.records.iter().any(|record| record.content.kind() == RecordType::Ns);
        if is_cut {
            self.cut = Some(host.into());
            return self.plain(set, &[RecordType::Ns, RecordType::Ds, RecordType::A, RecordType::Aaaa]);
        }
        self.answered(host)
    }

    /// What goes to others of names that have no records, and of the zone's own.
    pub(crate) fn others(&self) -> Vec<Record> {
        let World { snapshot, domain, .. } = self.world;
        let mut records = self.answered(APEX);
        for inner in &self.inner {
            records.extend(self.delegation(inner));
        }
        let has_set = |host: &str| snapshot.records_from(self.zone.id, host).is_some_and(|set| *set.host == *host);
        for balancer in snapshot.load_balancers_of(self.zone.id).filter(|balancer| balancer.terms.enabled) {
            let host = lookup::host_within(balancer.terms.name.as_str(), &self.zone.name);
            if let Some(host) = host.filter(|host| *host != APEX && !has_set(host)) {
                records.extend(self.answered(host));
            }
        }
        for order in snapshot.acme_orders() {
            let Some(parent) = order.name.wildcard_parent() else { continue };
            let name = format!("{}.{parent}", own::CHALLENGE);
            let is_here = snapshot.zone_of(&name).is_some_and(|zone| zone.id == self.zone.id);
            let host = lookup::host_within(&name, &self.zone.name).filter(|host| is_here && !has_set(host));
            let data = host.and_then(|_| own::challenge(snapshot, &name));
            records.extend(host.zip(data).map(|(host, data)| Record {
                owner: self.owner(host),
                kind: TXT,
                ttl: own::TTL,
                data: data.into(),
            }));
        }
        // Of the edge's own names only those by which it is asked; its agents ask it itself.
        for server in self.zone.name_servers(domain) {
            records.extend(self.server(&server));
        }
        records
    }

    /// What of all this becomes another without a change of the zone's own records: it follows from load balancers, from other
    /// zones, or from names outside of them.
    pub(crate) fn elsewhere(&mut self) -> Vec<Record> {
        let (snapshot, zone) = (self.world.snapshot, self.zone);
        let balancers = snapshot.load_balancers_of(zone.id);
        let balanced: BTreeSet<_> =
            balancers.filter_map(|it| lookup::host_within(it.terms.name.as_str(), &zone.name)).collect();
        let mut records = self.others();
        for set in Self::sets(snapshot, zone) {
            let has = |kind| set.records.iter().any(|record| record.content.kind() == kind);
            if has(RecordType::Ns) {
                // Is the zone's own, and has to be seen for the sake of what lies below it.
                self.of_set(set);
            } else if balanced.contains(&*set.host) || set.records.len() > 1 && has(RecordType::Cname) {
                records.append(&mut self.of_set(set));
            }
        }
        self.cut = None;
        records.retain(|record| matches!(record.kind, A | AAAA | CNAME | NS | SRV));
        records
    }

    /// The addresses of one of the edge's name servers, if they are this zone's to tell.
    fn server(&self, server: &Hostname) -> Vec<Record> {
        let Some(host) = lookup::host_within(server.as_str(), &self.zone.name).filter(|host| *host != APEX) else {
            return Vec::new();
        };
        let found = match lookup::look_up(&self.world, self.zone, host, false) {
            Found::Own(own) => Some(own),
            // Under a delegation it is glue.
            Found::Cut { .. } => None,
            Found::Nothing | Found::Empty | Found::Records(_) | Found::Balancer(..) => None,
        };
        let Some(own @ Own::Addresses(_)) = found else { return Vec::new() };
        let of_kind = |kind| own.data(kind).into_iter().map(move |data| (kind, data));
        let data = [A, AAAA].into_iter().flat_map(of_kind);
        data.map(|(kind, data)| Record { owner: self.owner(host), kind, ttl: own::TTL, data: data.into() }).collect()
    }

    /// Who answers for a zone within this one, with the addresses of those who are in that one: nobody finds it without.
    fn delegation(&self, host: &str) -> Vec<Record> {
        let World { snapshot, domain, .. } = self.world;
        let cut = lookup::whole(host, &self.zone.name);
        let set = snapshot.records_from(self.zone.id, host).filter(|set| *set.host == *host);
        let named = set.iter().flat_map(|set| &set.records).filter(|it| it.content.kind() == RecordType::Ns);
        let mut servers: Vec<Box<str>> = named.map(|record| record.content.text().into()).collect();
        let mut records = set.map_or_else(Vec::new, |set| self.plain(set, &[RecordType::Ns, RecordType::Ds]));
        if servers.is_empty() {
            let Some(inner) = snapshot.zone_named(&cut) else { return Vec::new() };
            servers = inner.name_servers(domain).iter().map(|server| server.as_str().into()).collect();
            let data = servers.iter().map(|server| to_wire(server).into());
            records = data.map(|data| Record { owner: self.owner(host), kind: NS, ttl: AUTOMATIC_TTL, data }).collect();
        }
        for server in servers.iter().filter(|server| **server == cut || is_under(server, &cut)) {
            for kind in [A, AAAA] {
                let mut making = Making::new(self.world, kind, 0);
                making.follow(server);
                let [answers, ..] = making.sections;
                let own = answers.into_iter().filter(|it| it.kind == kind && it.owner == Owner::Asked);
                records.extend(own.map(|record| Record { owner: Owner::Named(server.clone()), ..record }));
            }
        }
        records
    }

    /// The records of these types, as they are.
    fn plain(&self, set: &RecordSet, kinds: &[RecordType]) -> Vec<Record> {
        let mut records = Vec::new();
        for kind in kinds {
            let of_kind = || set.records.iter().filter(|record| record.content.kind() == *kind && !record.proxied);
            let ttl = of_kind().map(ttl_of).min().unwrap_or(AUTOMATIC_TTL);
            let data = of_kind().filter_map(|record| record.content.to_wire());
            records.extend(data.map(|data| Record {
                owner: self.owner(&set.host),
                kind: kind.code(),
                ttl,
                data: data.into(),
            }));
        }
        records
    }

    /// What an asker gets at this name, of each type that it has.
    fn answered(&self, host: &str) -> Vec<Record> {
        let found = || lookup::look_up(&self.world, self.zone, host, false);
        let (set, balancer) = match found() {
            Found::Records(set) => (Some(set), None),
            Found::Balancer(balancer, set) => (set, Some(balancer)),
            Found::Cut { .. } | Found::Empty | Found::Own(_) | Found::Nothing => (None, None),
        };
        let stored = set.map_or(&[][..], |set| &set.records);
        let mut kinds: BTreeSet<u16> = stored.iter().map(|record| record.content.kind().code()).collect();
        let is_proxied = stored.iter().any(|record| record.proxied) && !self.zone.traits.paused;
        if let [alias] = stored
            && alias.content.kind() == RecordType::Cname
            && !is_proxied
            && balancer.is_none()
            && host != APEX
        {
            // Whoever asks others follows it himself, as they would for a flattened one.
            return self.plain_alias(host, alias);
        }
        if is_proxied || balancer.is_some() || kinds.contains(&CNAME) {
            kinds.extend([A, AAAA, CNAME]);
        }
        if balancer.is_some() {
            kinds.insert(SRV);
        }
        if host == APEX {
            kinds.extend([NS, A, AAAA]);
        }
        if own::challenge(self.world.snapshot, &lookup::whole(host, &self.zone.name)).is_some() {
            kinds.insert(TXT);
        }
        kinds.remove(&SOA);
        kinds.remove(&DS);
        let owner = self.owner(host);
        let name = lookup::whole(host, &self.zone.name);
        let mut records = Vec::new();
        for kind in kinds {
            let mut making = Making::new(self.world, kind, 0);
            making.of_found(found(), self.zone, &owner, (host, &name), 0);
            let [answers, ..] = making.sections;
            records.extend(answers.into_iter().filter(|record| record.kind == kind && record.owner == owner));
        }
        // An alias has nothing beside it, or others refuse the whole zone.
        let is_alias = records.iter().any(|record| record.kind == CNAME);
        if is_alias && records.iter().any(|record| record.kind != CNAME) {
            records.retain(|record| record.kind != CNAME);
            if let Some(balancer) = balancer {
                self.flatten(balancer, &owner, &mut records);
            }
        }
        records
    }

    /// Adds the addresses of the host name that a load balancer leads to.
    fn flatten(&self, balancer: &LoadBalancer, owner: &Owner, records: &mut Vec<Record>) {
        let lead = self.world.members.lead(balancer, self.world.snapshot, self.world.asker);
        let Some(target) = lead.alias() else { return };
        for kind in [A, AAAA] {
            if !records.iter().any(|record| record.kind == kind) {
                let mut making = Making::new(self.world, kind, 0);
                making.flatten(owner, target, lead.ttl);
                let [answers, ..] = making.sections;
                records.extend(answers);
            }
        }
    }

    fn plain_alias(&self, host: &str, alias: &registry::Record) -> Vec<Record> {
        let data = alias.content.to_wire();
        let record =
            |data: Vec<u8>| Record { owner: self.owner(host), kind: CNAME, ttl: ttl_of(alias), data: data.into() };
        data.map(record).into_iter().collect()
    }

    fn owner(&self, host: &str) -> Owner {
        Owner::Named(lookup::whole(host, &self.zone.name))
    }
}

fn is_under(host: &str, above: &str) -> bool {
    host.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'))
}
