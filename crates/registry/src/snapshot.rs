use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};
use jiff::Timestamp;
use uuid::Uuid;

use crate::change::Change;
use crate::engine::{Batch, Revision, State};
use crate::live::{Activity, ConnectionRecord};
use crate::resource::{
    Account, ApiToken, Configuration, NameClaim, Passthrough, Port, Resource, Route, TokenHash, Tunnel, TunnelAccess,
    Versioned, Zone,
};
use crate::{AccountId, Hostname, OpenError, PortId, TokenId, TunnelName, ZoneId};

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
    tunnels: HashMap<Uuid, Arc<Versioned<Tunnel>>>,
    tunnels_by_age: OrdSet<(Timestamp, Uuid)>,
    claims: HashMap<TunnelName, Arc<Versioned<NameClaim>>>,
    routes: OrdMap<Hostname, Arc<Versioned<Route>>>,
    exact: HashMap<Box<str>, Arc<Versioned<Route>>>,
    wildcards: HashMap<Box<str>, Arc<Versioned<Route>>>,
    tunnel_routes: OrdSet<(Uuid, Hostname)>,
    configurations: HashMap<Uuid, Arc<Versioned<Configuration>>>,
    access: HashMap<Uuid, Arc<Versioned<TunnelAccess>>>,
    ports: OrdMap<PortId, Arc<Versioned<Port>>>,
    passthrough: HashMap<Hostname, Arc<Versioned<Passthrough>>>,
    quick: OrdSet<Uuid>,
    live: Live,
}

/// The part that no engine keeps.
#[derive(Debug, Clone, Default, PartialEq)]
struct Live {
    /// By tunnel and connection.
    connections: OrdMap<(Uuid, Uuid), Arc<ConnectionRecord>>,
    activity: HashMap<Uuid, Activity>,
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
        self.zones.get(&id)
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

    /// All zones.
    pub fn zones(&self) -> impl Iterator<Item = &Arc<Versioned<Zone>>> {
        self.zones.values()
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

    /// The route that a visitor's host name takes: its own, else that of the closest wildcard above it. The name must
    /// be in the form that [`Hostname`] has (lower case, no port, no trailing dot); anything else simply has no route.
    pub fn route(&self, hostname: &str) -> Option<&Arc<Versioned<Route>>> {
        self.exact.get(hostname).or_else(|| parents(hostname).find_map(|parent| self.wildcards.get(parent)))
    }

    /// The route of exactly this name or wildcard.
    pub fn route_exactly(&self, hostname: &Hostname) -> Option<&Arc<Versioned<Route>>> {
        self.routes.get(hostname)
    }

    /// All routes, by host name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Versioned<Route>>> {
        self.routes.values()
    }

    /// The routes that lead to a tunnel.
    pub fn routes_of(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<Versioned<Route>>> {
        // No host name is empty or sorts below "-", so this is in front of the tunnel's first route.
        self.tunnel_routes
            .range((tunnel, Hostname::lowest())..)
            .take_while(move |(id, _)| *id == tunnel)
            .filter_map(|(_, hostname)| self.routes.get(hostname))
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
            self.exact.get(name).is_some_and(|route| route.tunnel == passthrough.tunnel)
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

    /// The connections that a tunnel has right now.
    pub fn connections(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<ConnectionRecord>> {
        self.live
            .connections
            .range((tunnel, Uuid::nil())..)
            .take_while(move |((id, _), _)| *id == tunnel)
            .map(|(_, connection)| connection)
    }

    /// Whether a tunnel has a connection right now.
    pub fn is_connected(&self, tunnel: Uuid) -> bool {
        self.connections(tunnel).next().is_some()
    }

    /// When a tunnel last had connections; `None` if it had none since this process started.
    pub fn activity(&self, tunnel: Uuid) -> Option<Activity> {
        self.live.activity.get(&tunnel).copied()
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

    /// Who has this tunnel name.
    pub(crate) fn claim_of(&self, name: &str) -> Option<&Arc<Versioned<NameClaim>>> {
        self.claims.get(name)
    }
}

// How a snapshot comes about: each engine entry is decoded once, and every index follows from it.
impl Snapshot {
    /// One with the live state of this one, and nothing else yet.
    pub(crate) fn live_part(&self) -> Self {
        Self { live: self.live.clone(), ..Self::default() }
    }

    /// Takes in everything that an engine has.
    pub(crate) fn load(&mut self, state: &State) -> Result<(), OpenError> {
        for entry in &state.entries {
            self.write(&entry.key, Some(&entry.value), entry.revision)
                .map_err(|problem| OpenError::Entry { key: entry.key.clone(), problem })?;
        }
        self.revision = state.revision;
        Ok(())
    }

    /// Takes in one transaction, and answers what it changed.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Arc<[Change]> {
        let mut changes = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            match self.write(&write.key, write.value.as_deref(), batch.revision) {
                Ok(change) => changes.extend(change),
                // The rest is still worth having; at the next start, the damage is an error.
                Err(problem) => tracing::error!(key = write.key, problem, "an entry of the registry is damaged"),
            }
        }
        self.revision = batch.revision;
        changes.into()
    }

    fn write(&mut self, key: &str, value: Option<&[u8]>, revision: Revision) -> Result<Option<Change>, String> {
        let (kind, id) = key.split_once('/').ok_or("the key has no kind")?;
        Ok(Some(match kind {
            Account::KIND => {
                let (id, account) = (parse(id)?, decode(value, revision)?);
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
            Tunnel::KIND => {
                let (id, tunnel) = (parse(id)?, decode(value, revision)?);
                self.set_tunnel(id, tunnel.clone());
                Change::Tunnel(id, tunnel)
            }
            Route::KIND => {
                let (hostname, route) = (parse(id)?, decode(value, revision)?);
                self.set_route(&hostname, route.clone());
                Change::Route(hostname, route)
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
                return Ok(None);
            }
            // A later version of this program may keep more in the same file.
            _ => return Ok(None),
        }))
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
        if let Some(old) = self.zones.get(&id) {
            self.zone_names.remove(&old.name);
        }
        if let Some(new) = &zone {
            self.zone_names.insert(new.name.clone(), id);
        }
        set_ordered(&mut self.zones, id, zone);
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
            None => drop(self.live.activity.remove(&id)),
        }
        set(&mut self.tunnels, id, tunnel);
    }

    fn set_route(&mut self, hostname: &Hostname, route: Option<Arc<Versioned<Route>>>) {
        if let Some(old) = self.routes.get(hostname) {
            self.tunnel_routes.remove(&(old.tunnel, hostname.clone()));
        }
        if let Some(new) = &route {
            self.tunnel_routes.insert((new.tunnel, hostname.clone()));
        }
        match hostname.wildcard_parent() {
            Some(parent) => set(&mut self.wildcards, parent.into(), route.clone()),
            None => set(&mut self.exact, hostname.as_str().into(), route.clone()),
        }
        set_ordered(&mut self.routes, hostname.clone(), route);
    }

    pub(crate) fn add_connection(&mut self, connection: ConnectionRecord) {
        let (tunnel, opened_at) = (connection.tunnel, connection.opened_at);
        if !self.is_connected(tunnel) {
            self.live.activity.insert(tunnel, Activity { active_at: opened_at, inactive_at: None });
        }
        self.live.connections.insert((tunnel, connection.id), Arc::new(connection));
    }

    pub(crate) fn set_config_version(&mut self, tunnel: Uuid, id: Uuid, version: i32) {
        if let Some(connection) = self.live.connections.get_mut(&(tunnel, id)) {
            Arc::make_mut(connection).config_version = Some(version);
        }
    }

    pub(crate) fn remove_connection(&mut self, tunnel: Uuid, id: Uuid, now: Timestamp) {
        self.live.connections.remove(&(tunnel, id));
        if self.is_connected(tunnel) {
            return;
        }
        if self.tunnels.contains_key(&tunnel) {
            if let Some(activity) = self.live.activity.get_mut(&tunnel) {
                activity.inactive_at = Some(now);
            }
        } else {
            self.live.activity.remove(&tunnel);
        }
    }
}

fn parse<T: FromStr<Err: Display>>(id: &str) -> Result<T, String> {
    id.parse().map_err(|error| format!("the key is not valid: {error}"))
}

fn decode<R: Resource>(value: Option<&[u8]>, revision: Revision) -> Result<Option<Arc<Versioned<R>>>, String> {
    let Some(bytes) = value else { return Ok(None) };
    let value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(Versioned { revision, value })))
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
