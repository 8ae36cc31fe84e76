use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};
use jiff::Timestamp;
use uuid::Uuid;

use crate::engine::{Entry, Revision, Write};
use crate::live::{Activity, ConnectionRecord};
use crate::resource::{
    Account, ApiToken, Configuration, NameClaim, Resource, Route, TokenHash, Tunnel, Versioned, Zone,
};
use crate::watch::Change;
use crate::{Hostname, TokenId, TunnelName, ZoneId};

/// Everything the registry knows, as of one moment. Immutable; cheap to hold, but a long hold keeps old values in memory.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    revision: Revision,
    accounts: OrdMap<String, Arc<Versioned<Account>>>,
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

    /// The route that a visitor's host name takes: its own, else that of the closest wildcard above it. The name must be in the form
    /// that [`Hostname`] has (lower case, no port, no trailing dot); anything else simply has no route.
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

    /// The connections that a tunnel has right now.
    pub fn connections(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<ConnectionRecord>> {
        self.connections
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
        self.activity.get(&tunnel).copied()
    }

    pub(crate) fn claim(&self, name: &TunnelName) -> Option<&Arc<Versioned<NameClaim>>> {
        self.claims.get(name)
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
