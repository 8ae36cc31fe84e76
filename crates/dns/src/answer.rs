//! From a question to its answer, by the registry's snapshot. Pure.

mod leading;
mod lookup;
mod own;
mod sign;
mod whole;

use std::net::IpAddr;
use std::sync::Arc;

use registry::{
    Hostname, LoadBalancer, Record as Kept, RecordSet, RecordSettings, RecordType, Snapshot, Zone, ZoneId, ZoneType,
};

use crate::book::Book;
use crate::message::{Body, Owner, Record, SOA};
use crate::name::{Name, to_wire};
use crate::query::Code;
use lookup::Found;

pub use leading::{Asker, Lead, Member, Members, Unchecked};
pub(crate) use own::CHALLENGE;
pub(crate) use sign::{Signers, Signing};
pub(crate) use whole::Whole;

/// Of what leaves the time to the edge, and of all that is the edge's own.
pub(crate) const AUTOMATIC_TTL: u32 = 300;
/// Aliases that lead to each other; longer chains are a loop, or as good as one.
const MAX_CHAIN: usize = 8;
/// Addresses of the edge in one answer: they fit where nobody speaks EDNS.
const MAX_ADDRESSES: usize = 16;
/// How deep flattened aliases lead to flattened aliases.
const MAX_DEPTH: usize = 2;
/// Seconds that secondaries wait before they look, look again, and give up (RFC 1912, section 2.2).
const REFRESH_RETRY_EXPIRE: [u32; 3] = [3_600, 600, 1_209_600];

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const HINFO: u16 = 13;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const DS: u16 = 43;
const ANY: u16 = 255;

/// What answers are made of.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) book: &'a Book,
    /// The domain of the edge.
    pub(crate) domain: &'a Hostname,
    pub(crate) members: &'a dyn Members,
    pub(crate) outside: &'a dyn Outside,
    pub(crate) asker: &'a Asker,
    /// For those who want signatures.
    pub(crate) signing: Option<Signing<'a>>,
}

/// What names outside of our zones lead to, of those that flattened aliases lead to.
pub(crate) trait Outside: Send + Sync {
    /// The addresses of a name; `None`: they are not known yet.
    fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>>;
}

/// Who else gets the same answer. Of several things that an answer is made of, the least holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lasts {
    /// Nobody.
    Once,
    /// Whoever asks in the same moment.
    Moment,
    /// Everybody, until one of its zones changes.
    Unchanged,
}

/// An answer, and how long it holds.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None`: it is larger than any message.
    pub(crate) body: Option<Body>,
    /// The zones that it was made of, the one that was asked first.
    pub(crate) zones: Vec<ZoneId>,
    /// For whom and for how long it holds.
    pub(crate) lasts: Lasts,
    /// It is that of one name, and not of any number of them.
    pub(crate) is_of_name: bool,
    /// For how many bits of the asker's subnet it is the same.
    pub(crate) scope: Option<u8>,
    /// When its signatures are to be made anew, in seconds since 1970, in a circle.
    pub(crate) until: Option<u32>,
}

/// Answers a question for the records of a type.
pub(crate) fn answer(world: World<'_>, name: &Name, kind: u16) -> Answer {
    let mut making = Making::new(world, kind, 0);
    making.asked = name.as_wire().into();
    making.follow(&name.to_text());
    let Making { code, is_authoritative, sections, zones, lasts, is_wild, scope, until, .. } = making;
    let [answers, authorities, additionals] = &sections;
    let body = Body::write(code, is_authoritative, name.as_wire(), [answers, authorities, additionals]);
    let is_of_name = !is_wild && !answers.is_empty();
    Answer { body, zones, lasts, is_of_name, scope, until }
}

/// An answer in the making.
struct Making<'a> {
    world: World<'a>,
    kind: u16,
    depth: usize,
    code: Code,
    is_authoritative: bool,
    sections: [Vec<Record>; 3],
    zones: Vec<ZoneId>,
    lasts: Lasts,
    /// A wildcard stands behind it.
    is_wild: bool,
    scope: Option<u8>,
    until: Option<u32>,
    /// As on the wire, in lower case.
    asked: Box<[u8]>,
    /// The last name has nothing of what was asked for.
    denies: bool,
    /// The name at which an alias leads out of our zones.
    leads_out: Option<Box<str>>,
}

/// Where an alias leads on.
type Onwards = Option<Box<str>>;

impl<'a> Making<'a> {
    fn new(world: World<'a>, kind: u16, depth: usize) -> Self {
        Self {
            world,
            kind,
            depth,
            code: Code::NoError,
            is_authoritative: true,
            sections: Default::default(),
            zones: Vec::new(),
            lasts: Lasts::Unchanged,
            is_wild: false,
            scope: None,
            until: None,
            asked: Box::default(),
            denies: false,
            leads_out: None,
        }
    }

    /// Answers for a name, and for those that it is an alias of.
    fn follow(&mut self, asked: &str) {
        let mut owner = Owner::Asked;
        let mut name: Box<str> = asked.into();
        for step in 0..=MAX_CHAIN {
            let Some(zone) = self.zone_of(&name, step) else {
                if step == 0 {
                    (self.code, self.is_authoritative) = (Code::Refused, false);
                }
                self.leads_out = Some(name);
                return;
            };
            if !self.zones.contains(&zone.id) {
                self.zones.push(zone.id);
            }
            let Some(next) = self.in_zone(zone, &owner, &name, step) else { return };
            let is_loop =
                *next == *asked || self.sections[0].iter().any(|past| past.owner == Owner::Named(next.clone()));
            if is_loop {
                return;
            }
            owner = Owner::Named(next.clone());
            name = next;
        }
    }

    /// The zone that answers for a name; a delegation's keys are the outer zone's (RFC 4035, section 3.1.4.1).
    fn zone_of(&self, name: &str, step: usize) -> Option<&'a Zone> {
        let snapshot = self.world.snapshot;
        let zone = snapshot.zone_of(name)?;
        let outer = (self.kind == DS && step == 0 && zone.name.as_str() == name)
            .then(|| snapshot.zone_of(name.split_once('.')?.1))
            .flatten();
        let zone: &Zone = outer.unwrap_or(zone);
        matches!(zone.traits.kind, ZoneType::Full | ZoneType::Secondary).then_some(zone)
    }

    fn in_zone(&mut self, zone: &'a Zone, owner: &Owner, name: &str, step: usize) -> Onwards {
        let world = self.world;
        let host = lookup::host_within(name, &zone.name)?;
        let found = lookup::look_up(&world, zone, host, self.kind == DS);
        let signer = self.signer(zone);
        let types = signer.as_ref().map(|_| self.types(&found, zone, host)).unwrap_or_default();
        let before = [self.sections[0].len(), self.sections[1].len()];
        let next = self.of_found(found, zone, owner, (host, name), step);
        if let Some(signer) = signer {
            self.sign(zone, &signer, types, owner, before);
        }
        next
    }

    /// Answers with what is at a name.
    fn of_found(
        &mut self,
        found: Found<'_>,
        zone: &'a Zone,
        owner: &Owner,
        (host, name): (&str, &str),
        step: usize,
    ) -> Onwards {
        match found {
            Found::Cut { host, set } => {
                self.refer(zone, host, set);
                self.is_authoritative = step > 0;
                None
            }
            Found::Balancer(balancer, set) => {
                self.is_wild |= balancer.terms.name.as_str() != name;
                let has =
                    |kind: RecordType| set.is_some_and(|set| set.records.iter().any(|it| it.content.kind() == kind));
                match self.kind {
                    SRV if has(RecordType::Srv) => self.of_records(zone, owner, host, set),
                    A | AAAA | CNAME | SRV => self.lead(zone, owner, host, balancer),
                    // The load balancer is in the alias's place.
                    _ => self.of_records(zone, owner, host, set.filter(|_| !has(RecordType::Cname))),
                }
            }
            Found::Records(set) => {
                self.is_wild |= *set.host != *host;
                self.of_records(zone, owner, host, Some(set))
            }
            Found::Empty => self.of_records(zone, owner, host, None),
            Found::Own(_) if self.kind == ANY => self.of_records(zone, owner, host, None),
            Found::Own(own) => {
                for data in own.data(self.kind) {
                    self.push(0, owner, self.kind, own::TTL, &data);
                }
                self.or_no_data(zone, owner)
            }
            Found::Nothing => {
                let is_a_zone = self.world.snapshot.zone_named(name).is_some();
                self.code = if is_a_zone { Code::NoError } else { Code::NxDomain };
                // Whoever floods us with names that are not there asks for each once.
                self.lasts = if is_a_zone { self.lasts } else { Lasts::Once };
                self.deny(zone, owner);
                None
            }
        }
    }

    /// Answers for a name of the zone that is there, with these records.
    fn of_records(&mut self, zone: &'a Zone, owner: &Owner, host: &str, set: Option<&RecordSet>) -> Onwards {
        let records = set.map_or(&[][..], |set| &set.records);
        if self.kind == ANY {
            // The least that RFC 8482 lets one answer.
            self.push(0, owner, HINFO, AUTOMATIC_TTL, b"\x07RFC8482\0");
            return None;
        }
        let is_apex = host == lookup::APEX;
        if is_apex && self.kind == SOA {
            let soa = self.soa(zone);
            self.push(0, owner, SOA, AUTOMATIC_TTL, &soa);
            return None;
        }
        for data in if is_apex { self.key_data(zone) } else { Vec::new() } {
            self.push(0, owner, self.kind, AUTOMATIC_TTL, &data);
        }
        let proxied = records.iter().find(|record| record.proxied && !zone.traits.paused);
        if let Some(proxied) = proxied.filter(|_| matches!(self.kind, A | AAAA | CNAME)) {
            self.push_edge(owner, proxied.notes.as_ref().map(|notes| notes.settings).unwrap_or_default());
            return self.or_no_data(zone, owner);
        }
        let alias = records.iter().find(|record| record.content.kind() == RecordType::Cname);
        let alias = alias.filter(|_| proxied.is_none());
        let is_flattened = |alias: &Kept| {
            // An alias is alone at its name, or it is none (RFC 1034, section 3.6.2).
            is_apex
                || records.len() > 1
                || alias.notes.as_ref().is_some_and(|it| it.settings.flatten_cname == Some(true))
        };
        match alias {
            Some(alias) if !is_flattened(alias) => {
                let data = alias.content.to_wire()?;
                self.push(0, owner, CNAME, ttl_of(alias), &data);
                return (self.kind != CNAME).then(|| alias.content.text().into());
            }
            Some(alias) if matches!(self.kind, A | AAAA) => self.flatten(owner, alias.content.text(), ttl_of(alias)),
            Some(_) if self.kind == CNAME => (),
            Some(_) | None => self.push_all(owner, records),
        }
        let is_of_edge = is_apex && zone.name == *self.world.domain && !zone.traits.paused;
        let has_address =
            |record: &Kept| matches!(record.content.kind(), RecordType::A | RecordType::Aaaa | RecordType::Cname);
        if is_of_edge && matches!(self.kind, A | AAAA) && !records.iter().any(has_address) {
            // Where its tunnels' names lead, too.
            self.push_edge(owner, RecordSettings::default());
        }
        let challenge =
            (self.kind == TXT).then(|| own::challenge(self.world.snapshot, &lookup::whole(host, &zone.name)));
        if let Some(text) = challenge.flatten().filter(|_| set.is_none_or(|set| *set.host == *host)) {
            // Beside others, which somebody has put there for a certificate of his own.
            self.push(0, owner, TXT, own::TTL, &text);
            for record in self.sections[0].iter_mut().filter(|record| record.kind == TXT && record.owner == *owner) {
                record.ttl = record.ttl.min(own::TTL);
            }
        }
        if is_apex && self.kind == NS && self.sections[0].is_empty() {
            for server in zone.name_servers(self.world.domain) {
                self.push(0, owner, NS, AUTOMATIC_TTL, &to_wire(server.as_str()));
            }
        }
        self.or_no_data(zone, owner)
    }

    /// Adds those records that are asked for. All of one type have the same time to live (RFC 2181, section 5.2).
    fn push_all(&mut self, owner: &Owner, records: &[Kept]) {
        let wanted = || records.iter().filter(|record| record.content.kind().code() == self.kind);
        let ttl = wanted().map(ttl_of).min().unwrap_or(AUTOMATIC_TTL);
        let data: Vec<_> = wanted().filter_map(|record| record.content.to_wire()).collect();
        for data in data {
            self.push(0, owner, self.kind, ttl, &data);
        }
    }

    /// The addresses of the edge, which visitors of proxied names come to.
    fn push_edge(&mut self, owner: &Owner, settings: RecordSettings) {
        let unwanted = match self.kind {
            A => settings.ipv6_only,
            _ => settings.ipv4_only,
        };
        if unwanted != Some(true) {
            let nodes = &self.world.book.nodes;
            // Where there are more than an answer holds, each node begins with itself.
            let (after, before) = nodes.visitors.split_at_checked(nodes.own).unwrap_or_default();
            self.push_addresses(owner, AUTOMATIC_TTL, before.iter().chain(after).copied());
        }
    }

    /// Adds those of the family that is asked for.
    fn push_addresses(&mut self, owner: &Owner, ttl: u32, addresses: impl Iterator<Item = IpAddr>) {
        let kind = self.kind;
        let data = addresses.filter_map(|address| match (kind, address) {
            (A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
            (AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
            _ => None,
        });
        for data in data.take(MAX_ADDRESSES) {
            self.push(0, owner, kind, ttl, &data);
        }
    }

    /// Gives an alias's name the addresses that it leads to.
    fn flatten(&mut self, owner: &Owner, target: &str, ttl: u32) {
        if self.depth == MAX_DEPTH {
            self.code = Code::ServFail;
            return;
        }
        // What comes of it is this zone's to sign.
        let mut inner = Making::new(World { signing: None, ..self.world }, self.kind, self.depth + 1);
        inner.follow(target);
        self.zones.append(&mut inner.zones);
        self.lasts = self.lasts.min(inner.lasts);
        self.scope = inner.scope.or(self.scope);
        let ttl = inner.sections[0].iter().map(|record| record.ttl).min().unwrap_or(ttl).min(ttl);
        if let Some(host) = inner.leads_out {
            self.lasts = self.lasts.min(Lasts::Moment);
            match self.world.outside.addresses(&host) {
                Some(addresses) => self.push_addresses(owner, ttl, addresses.iter().copied()),
                None => self.code = Code::ServFail,
            }
            return;
        }
        if inner.code == Code::ServFail {
            self.code = Code::ServFail;
        }
        let [answers, ..] = inner.sections;
        let kind = self.kind;
        for record in answers.into_iter().filter(|record| record.kind == kind) {
            self.push(0, owner, kind, ttl, &record.data);
        }
    }

    /// Where a load balancer leads now.
    fn lead(&mut self, zone: &'a Zone, owner: &Owner, host: &str, balancer: &LoadBalancer) -> Onwards {
        let is_proxied = balancer.terms.proxied && !zone.traits.paused;
        if is_proxied {
            self.push_edge(owner, RecordSettings::default());
            return self.or_no_data(zone, owner);
        }
        let lead = self.world.members.lead(balancer, self.world.snapshot, self.world.asker);
        self.lasts = self.lasts.min(if lead.is_for_all { Lasts::Moment } else { Lasts::Once });
        self.scope = lead.scope.filter(|_| self.world.asker.subnet.is_some());
        for data in lead.data(self.kind, &balancer.terms.name) {
            self.push(0, owner, self.kind, lead.ttl, &data);
        }
        match lead.alias().filter(|_| self.sections[0].is_empty() && self.kind != SRV) {
            Some(target) if host != lookup::APEX => {
                self.push(0, owner, CNAME, lead.ttl, &to_wire(target));
                (self.kind != CNAME).then(|| target.into())
            }
            Some(target) if matches!(self.kind, A | AAAA) => {
                self.flatten(owner, target, lead.ttl);
                self.or_no_data(zone, owner)
            }
            Some(_) | None => self.or_no_data(zone, owner),
        }
    }

    /// Leads to those who answer for a part of the zone, with the addresses of those who are in the zone themselves.
    fn refer(&mut self, zone: &Zone, host: &str, set: &RecordSet) {
        let snapshot = self.world.snapshot;
        let cut = Owner::Named(lookup::whole(host, &zone.name));
        let servers = || set.records.iter().filter(|record| record.content.kind() == RecordType::Ns);
        let is_signed = self.signer(zone).is_some();
        let ttl = servers().map(ttl_of).min().unwrap_or(AUTOMATIC_TTL);
        for server in servers() {
            let Some(data) = server.content.to_wire() else { continue };
            self.push(1, &cut, NS, ttl, &data);
            let glue = snapshot.records_named(zone, server.content.text());
            for record in glue.iter().flat_map(|set| &set.records) {
                let kind = record.content.kind();
                if let (RecordType::A | RecordType::Aaaa, Some(data)) = (kind, record.content.to_wire()) {
                    self.push(2, &Owner::Named(server.content.text().into()), kind.code(), ttl_of(record), &data);
                }
            }
        }
        if is_signed {
            self.push_delegation_keys(&cut, set);
        }
    }

    /// Denies the type, if there is nothing of it.
    fn or_no_data(&mut self, zone: &Zone, owner: &Owner) -> Onwards {
        let is_answered = self.sections[0].iter().any(|record| record.owner == *owner);
        if !is_answered && self.code == Code::NoError {
            self.deny(zone, owner);
        }
        None
    }

    /// Says how long a denial holds (RFC 2308, section 3).
    fn deny(&mut self, zone: &Zone, owner: &Owner) {
        self.denies = true;
        let soa = self.soa(zone);
        let apex = match owner {
            Owner::Named(name) if **name == *zone.name.as_str() => owner.clone(),
            Owner::Named(_) | Owner::Asked => Owner::Named(zone.name.as_str().into()),
        };
        self.push(1, &apex, SOA, AUTOMATIC_TTL, &soa);
    }

    fn soa(&self, zone: &Zone) -> Vec<u8> {
        let servers = zone.name_servers(self.world.domain);
        let mut data = to_wire(servers.first().unwrap_or(&zone.name).as_str());
        // A zone's own name is long enough to leave no room for it only where nobody could write to it.
        data.extend(zone.name.child("hostmaster").map_or_else(|_| vec![0], |mailbox| to_wire(mailbox.as_str())));
        let [refresh, retry, expire] = REFRESH_RETRY_EXPIRE;
        for number in [self.world.book.serial(zone.id), refresh, retry, expire, AUTOMATIC_TTL] {
            data.extend(number.to_be_bytes());
        }
        data
    }

    fn push(&mut self, section: usize, owner: &Owner, kind: u16, ttl: u32, data: &[u8]) {
        self.sections[section].push(Record { owner: owner.clone(), kind, ttl, data: data.into() });
    }
}

fn ttl_of(record: &Kept) -> u32 {
    if record.ttl == Kept::AUTOMATIC { AUTOMATIC_TTL } else { record.ttl }
}
