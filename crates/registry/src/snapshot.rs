mod acme;
mod audit;
mod balance;
mod certificates;
mod contents;
mod health;
mod items;
mod names;

use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};
use jiff::Timestamp;
use uuid::Uuid;

use crate::audit::AuditEntry;
use crate::certificate::{CertificateAuthority, OriginCertificate};
use crate::change::Change;
use crate::engine::{Batch, Entry, Revision, State};
use crate::invitation::Invitation;
use crate::live::Live;
use crate::resource::{
    Account, ApiToken, Configuration, NameClaim, Passthrough, Port, Resource, TokenHash, Tunnel, TunnelAccess,
    Versioned,
};
use crate::schema::{FirstRoute, Schema};
use crate::zone::LargeChange;
use crate::{
    AccountId, AcmeOrder, Hostname, Item, ItemKind, OpenError, PortId, RecordSet, TokenId, TunnelName, Zone, ZoneId,
    ZoneKey,
};
use acme::Acme;
use audit::AuditLog;
use balance::Balance;
use certificates::Certificates;
use items::Items;
use names::Names;

/// How the keys of large changes begin.
const LARGE: &str = "large-changes/";

/// Everything the registry knows, as of one moment. Immutable; cheap to hold, but a long hold keeps old values in
/// memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    revision: Revision,
    accounts: OrdMap<AccountId, Arc<Versioned<Account>>>,
    tokens: OrdMap<TokenId, Arc<Versioned<ApiToken>>>,
    token_hashes: HashMap<TokenHash, TokenId>,
    zones: OrdMap<ZoneId, Arc<Versioned<Zone>>>,
    zone_names: HashMap<Hostname, ZoneId>,
    zones_by_age: OrdMap<(Timestamp, ZoneId), Arc<Versioned<Zone>>>,
    zone_keys: OrdMap<ZoneId, Arc<Versioned<ZoneKey>>>,
    tunnels: HashMap<Uuid, Arc<Versioned<Tunnel>>>,
    tunnels_by_age: OrdSet<(Timestamp, Uuid)>,
    claims: HashMap<TunnelName, Arc<Versioned<NameClaim>>>,
    names: Names,
    large_changes: HashMap<ZoneId, Arc<Versioned<LargeChange>>>,
    schema: Option<Arc<Versioned<Schema>>>,
    first_routes: OrdMap<Hostname, Arc<Versioned<FirstRoute>>>,
    configurations: HashMap<Uuid, Arc<Versioned<Configuration>>>,
    access: HashMap<Uuid, Arc<Versioned<TunnelAccess>>>,
    ports: OrdMap<PortId, Arc<Versioned<Port>>>,
    passthrough: HashMap<Hostname, Arc<Versioned<Passthrough>>>,
    quick: OrdSet<Uuid>,
    balance: Balance,
    audit: AuditLog,
    items: Items,
    pub(crate) certificates: Certificates,
    acme: Acme,
    pub(crate) live: Live,
}

impl Snapshot {
    /// The latest change in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The one account. There is always one in a registry that was opened.
    pub fn account(&self) -> &Arc<Versioned<Account>> {
        self.accounts.values().next().expect("opening a registry makes the account")
    }

    /// An API token by its id.
    pub fn token(&self, id: TokenId) -> Option<&Arc<Versioned<ApiToken>>> {
        self.tokens.get(&id)
    }

    /// The API token whose secret has this hash.
    pub fn token_by_hash(&self, hash: &TokenHash) -> Option<&Arc<Versioned<ApiToken>>> {
        self.tokens.get(self.token_hashes.get(hash)?)
    }

    /// All API tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<Versioned<ApiToken>>> {
        self.tokens.values()
    }

    /// A zone by its id.
    pub fn zone(&self, id: ZoneId) -> Option<&Arc<Versioned<Zone>>> {
        self.zone_entry(id).filter(|zone| zone.deleted_at.is_none())
    }

    /// A zone by its id, or what is left of it.
    pub(crate) fn zone_entry(&self, id: ZoneId) -> Option<&Arc<Versioned<Zone>>> {
        self.zones.get(&id)
    }

    /// The zones of which something is left.
    pub(crate) fn deleted_zones(&self) -> impl Iterator<Item = ZoneId> {
        self.zones.iter().filter(|(_, zone)| zone.deleted_at.is_some()).map(|(id, _)| *id)
    }

    /// The zone of exactly this name.
    pub fn zone_named(&self, name: &str) -> Option<&Arc<Versioned<Zone>>> {
        self.zones.get(self.zone_names.get(name)?)
    }

    /// The zone that a host name lies in: the closest one at or above it.
    pub fn zone_of(&self, hostname: &str) -> Option<&Arc<Versioned<Zone>>> {
        let hostname = hostname.strip_prefix("*.").unwrap_or(hostname);
        self.zone_named(hostname).or_else(|| parents(hostname).find_map(|name| self.zone_named(name)))
    }

    /// The key by which a zone's answers are signed, if one was made.
    pub fn zone_key(&self, id: ZoneId) -> Option<&Arc<Versioned<ZoneKey>>> {
        self.zone_keys.get(&id)
    }

    /// All zones, the oldest first.
    pub fn zones(&self) -> impl DoubleEndedIterator<Item = &Arc<Versioned<Zone>>> {
        self.zones_by_age.iter().map(|(_, zone)| zone)
    }

    /// How many zones there are.
    pub fn zone_count(&self) -> usize {
        self.zones_by_age.len()
    }

    /// A tunnel by its id, deleted ones included.
    pub fn tunnel(&self, id: Uuid) -> Option<&Arc<Versioned<Tunnel>>> {
        self.tunnels.get(&id)
    }

    /// The tunnel of this name; never a deleted one.
    pub fn tunnel_named(&self, name: &str) -> Option<&Arc<Versioned<Tunnel>>> {
        self.tunnels.get(&self.claims.get(name)?.tunnel)
    }

    /// All tunnels, deleted ones included, the oldest first.
    pub fn tunnels(&self) -> impl Iterator<Item = &Arc<Versioned<Tunnel>>> {
        self.tunnels_by_age.iter().filter_map(|(_, id)| self.tunnels.get(id))
    }

    /// The configuration of a tunnel.
    pub fn configuration(&self, tunnel: Uuid) -> Option<&Arc<Versioned<Configuration>>> {
        self.configurations.get(&tunnel)
    }

    /// Who may visit a tunnel; everybody, if there is nothing.
    pub fn access(&self, tunnel: Uuid) -> Option<&policy::Access> {
        self.access.get(&tunnel).map(|access| &access.rules)
    }

    pub(crate) fn access_entry(&self, tunnel: Uuid) -> Option<&Arc<Versioned<TunnelAccess>>> {
        self.access.get(&tunnel)
    }

    /// A public port.
    pub fn port(&self, id: PortId) -> Option<&Arc<Versioned<Port>>> {
        self.ports.get(&id)
    }

    /// All public ports, those of TCP first, by number.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<Versioned<Port>>> {
        self.ports.values()
    }

    /// The tunnel that ends the TLS of visitors for this name (lower case) by itself.
    pub fn passthrough(&self, name: &str) -> Option<&Arc<Versioned<Passthrough>>> {
        let leads_there = |passthrough: &&Arc<Versioned<Passthrough>>| {
            self.exact_route(name).is_some_and(|route| route.tunnel == passthrough.tunnel)
        };
        // A route that was overwritten since leads elsewhere, and the edge ends its TLS.
        self.passthrough.get(name).filter(leads_there)
    }

    pub(crate) fn passthrough_entry(&self, hostname: &Hostname) -> Option<&Arc<Versioned<Passthrough>>> {
        self.passthrough.get(hostname)
    }

    /// Whether there is any name whose TLS is the origin's own.
    pub fn passes_any(&self) -> bool {
        !self.passthrough.is_empty()
    }

    pub(crate) fn passthrough_of(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<Versioned<Passthrough>>> {
        self.passthrough.values().filter(move |name| name.tunnel == tunnel)
    }

    /// The quick tunnels.
    pub(crate) fn quick_tunnels(&self) -> impl Iterator<Item = Uuid> {
        self.quick.iter().copied()
    }

    pub(crate) fn quick_count(&self) -> usize {
        self.quick.len()
    }

    /// Whether the account was made.
    pub(crate) fn is_founded(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// The version of what the entries mean; `None` before it was written down.
    pub(crate) fn schema(&self) -> Option<&Arc<Versioned<Schema>>> {
        self.schema.as_ref()
    }

    /// What the first version left.
    pub(crate) fn first_routes(&self) -> impl Iterator<Item = &Arc<Versioned<FirstRoute>>> {
        self.first_routes.values()
    }

    /// Who has this tunnel name.
    pub(crate) fn claim_of(&self, name: &str) -> Option<&Arc<Versioned<NameClaim>>> {
        self.claims.get(name)
    }
}

// How a snapshot comes about: each engine entry is decoded once, and every index follows from it.
impl Snapshot {
    /// This one with another one's live state.
    pub(crate) fn with_live_of(self, other: &Self) -> Self {
        Self { live: other.live.clone(), ..self }
    }

    /// Takes in everything that an engine has.
    pub(crate) fn load(&mut self, state: &State) -> Result<(), OpenError> {
        // A large change says what other entries are taken for, so these must be there.
        let is_large = |entry: &&Entry| entry.key.starts_with(LARGE);
        let (last, first) = state.entries.iter().partition::<Vec<_>, _>(is_large);
        let mut changes = Vec::new();
        for entry in first.into_iter().chain(last) {
            self.write(&entry.key, Some(&entry.value), entry.revision, &mut changes)
                .map_err(|problem| OpenError::Entry { key: entry.key.clone(), problem })?;
            changes.clear();
        }
        self.revision = state.revision;
        Ok(())
    }

    /// That this version can read an entry, whatever else there is.
    pub(crate) fn check_entry(key: &str, value: &[u8]) -> Result<(), String> {
        Self::default().write(key, Some(value), 0, &mut Vec::new())
    }

    /// Takes in one transaction, and answers what it changed.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Arc<[Change]> {
        let mut changes = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            // The rest is still worth having; at the next start, the damage is an error.
            if let Err(problem) = self.write(&write.key, write.value.as_deref(), batch.revision, &mut changes) {
                tracing::error!(key = write.key, problem, "an entry of the registry is damaged");
            }
        }
        self.revision = batch.revision;
        changes.into()
    }

    fn write(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        revision: Revision,
        changes: &mut Vec<Change>,
    ) -> Result<(), String> {
        let (kind, id) = key.split_once('/').ok_or("the key has no kind")?;
        changes.push(match kind {
            Account::KIND => {
                let (id, account) = (parse(id)?, decode(value, revision)?);
                if let Some(account) = &account {
                    self.items.set_account(account);
                }
                set_ordered(&mut self.accounts, id, account.clone());
                Change::Account(id, account)
            }
            ApiToken::KIND => {
                let (id, token) = (parse(id)?, decode(value, revision)?);
                self.set_token(id, token.clone());
                Change::Token(id, token)
            }
            Zone::KIND => {
                let (id, zone) = (parse(id)?, decode(value, revision)?);
                self.set_zone(id, zone.clone());
                Change::Zone(id, zone)
            }
            ZoneKey::KIND => {
                // Whoever makes or removes one writes the zone, too.
                set_ordered(&mut self.zone_keys, parse(id)?, decode(value, revision)?);
                return Ok(());
            }
            Tunnel::KIND => {
                let (id, tunnel) = (parse(id)?, decode(value, revision)?);
                self.set_tunnel(id, tunnel.clone());
                Change::Tunnel(id, tunnel)
            }
            RecordSet::KIND => {
                let (zone, host) = id.split_once('/').ok_or("the key has no name")?;
                let (zone, records) = (parse(zone)?, decode(value, revision)?);
                self.set_records(zone, host, records.clone());
                Change::Records(zone, host.into(), records)
            }
            LargeChange::KIND => {
                let (zone, large) = (parse(id)?, decode(value, revision)?);
                self.set_large_change(zone, large, changes);
                return Ok(());
            }
            Schema::KIND => {
                self.schema = decode(value, revision)?;
                return Ok(());
            }
            FirstRoute::KIND => {
                set_ordered(&mut self.first_routes, parse(id)?, decode(value, revision)?);
                return Ok(());
            }
            Configuration::KIND => {
                let (id, configuration) = (parse(id)?, decode(value, revision)?);
                set(&mut self.configurations, id, configuration.clone());
                Change::Configuration(id, configuration)
            }
            TunnelAccess::KIND => {
                let (id, access) = (parse(id)?, decode(value, revision)?);
                set(&mut self.access, id, access.clone());
                Change::Access(id, access)
            }
            Port::KIND => {
                let (id, port) = (parse(id)?, decode(value, revision)?);
                set_ordered(&mut self.ports, id, port.clone());
                Change::Port(id, port)
            }
            Passthrough::KIND => {
                let (hostname, passthrough): (Hostname, _) = (parse(id)?, decode(value, revision)?);
                set(&mut self.passthrough, hostname.clone(), passthrough.clone());
                Change::Passthrough(hostname, passthrough)
            }
            NameClaim::KIND => {
                set(&mut self.claims, parse(id)?, decode(value, revision)?);
                return Ok(());
            }
            AuditEntry::KIND => {
                self.audit.set(parse(id)?, decode(value, revision)?);
                return Ok(());
            }
            CertificateAuthority::KIND => {
                self.certificates.write(kind, id, value, revision)?;
                let Ok(purpose) = id.parse() else { return Ok(()) };
                Change::Authority(purpose)
            }
            OriginCertificate::KIND | Invitation::KIND => {
                return self.certificates.write(kind, id, value, revision);
            }
            // Nobody acts on changes of these but of the last ones yet.
            kind => {
                if self.acme.write(kind, id, value, revision)? {
                    let order = (kind == AcmeOrder::KIND).then(|| id.parse().ok()).flatten();
                    changes.extend(order.map(Change::Order));
                    return Ok(());
                }
                if self.items.write(kind, id, value, revision)? {
                    let item = ItemKind::parse_key(id).filter(|_| kind == Item::KIND);
                    changes.extend(item.map(|(kind, zone, _)| Change::Item(kind, zone)));
                    return Ok(());
                }
                self.balance.write(kind, id, value, revision)?;
                Change::Balance
            }
        });
        Ok(())
    }

    fn set_token(&mut self, id: TokenId, token: Option<Arc<Versioned<ApiToken>>>) {
        if let Some(old) = self.tokens.get(&id) {
            self.token_hashes.remove(&old.hash);
        }
        if let Some(new) = &token {
            self.token_hashes.insert(new.hash, id);
        }
        set_ordered(&mut self.tokens, id, token);
    }

    fn set_zone(&mut self, id: ZoneId, zone: Option<Arc<Versioned<Zone>>>) {
        let old = self.zone(id).cloned();
        if let Some(old) = &old {
            // By an import, the name may be that of another zone by now.
            if self.zone_names.get(&old.name) == Some(&id) {
                self.zone_names.remove(&old.name);
            }
            self.zones_by_age.remove(&(old.created_at, id));
        }
        let new = zone.clone().filter(|zone| zone.deleted_at.is_none());
        if let Some(new) = &new {
            self.zone_names.insert(new.name.clone(), id);
            self.zones_by_age.insert((new.created_at, id), new.clone());
        }
        set_ordered(&mut self.zones, id, zone);
        match (old, new) {
            (Some(zone), None) | (None, Some(zone)) => self.reroute_zone(id, &zone.name),
            (Some(_), Some(_)) | (None, None) => (),
        }
    }

    /// From the revision of a large change on, its names are what it says, but for those that were written since.
    fn set_large_change(
        &mut self,
        zone: ZoneId,
        large: Option<Arc<Versioned<LargeChange>>>,
        changes: &mut Vec<Change>,
    ) {
        for names in large.iter().flat_map(|large| &large.sets) {
            let revision = large.as_ref().map_or(0, |large| large.revision);
            if self.record_set(zone, &names.host).is_some_and(|present| present.revision > revision) {
                continue;
            }
            let records = (!names.records.is_empty()).then(|| Arc::new(Versioned { revision, value: names.clone() }));
            self.set_records(zone, &names.host, records.clone());
            changes.push(Change::Records(zone, names.host.clone(), records));
        }
        set(&mut self.large_changes, zone, large);
    }

    fn set_tunnel(&mut self, id: Uuid, tunnel: Option<Arc<Versioned<Tunnel>>>) {
        if let Some(old) = self.tunnels.get(&id) {
            self.tunnels_by_age.remove(&(old.created_at, id));
        }
        self.quick.remove(&id);
        match &tunnel {
            Some(new) => {
                self.tunnels_by_age.insert((new.created_at, id));
                if new.quick.is_some() {
                    self.quick.insert(id);
                }
            }
            None => self.live.forget(id),
        }
        set(&mut self.tunnels, id, tunnel);
    }
}

fn parse<T: FromStr<Err: Display>>(id: &str) -> Result<T, String> {
    id.parse().map_err(|error| format!("the key is not valid: {error}"))
}

fn decode<R: Resource>(value: Option<&[u8]>, revision: Revision) -> Result<Option<Arc<Versioned<R>>>, String> {
    decode_with(value, revision, Ok)
}

/// The same for what is more than its members.
fn decode_with<R: Resource>(
    value: Option<&[u8]>,
    revision: Revision,
    check: impl FnOnce(R) -> Result<R, String>,
) -> Result<Option<Arc<Versioned<R>>>, String> {
    let Some(bytes) = value else { return Ok(None) };
    let value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(Versioned { revision, value: check(value)? })))
}

fn set<K: Hash + Eq + Clone, V: Clone>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn set_ordered<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// The names above this one, the closest first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        rest = rest.split_once('.')?.1;
        Some(rest)
    })
}
