//! Private networks, and which tunnel leads to which of their addresses. Pure but for what a new default changes.

use std::net::IpAddr;

use policy::Network;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::form::{Form, Member, Shape, flag, may, must, text};
use super::{Check, Item, ItemError, MOST, Members, Rules, bad};
use crate::resource::{Account, Resource as _, Versioned};
use crate::{ItemId, ItemKind, Snapshot, Transaction};

pub(super) static RULES: Rules = Rules {
    name: "virtual-networks",
    title: "virtual network",
    has_uuid: true,
    most: MOST,
    members: &MEMBERS,
    check,
    index,
};

pub(super) static ROUTE_RULES: Rules = Rules {
    name: "private-routes",
    title: "private route",
    has_uuid: true,
    most: MOST,
    members: &ROUTE_MEMBERS,
    check: check_route,
    index: |_| None,
};

/// As in the original.
const MAX_NAME_CHARS: usize = 256;
/// What people write about one.
const MAX_COMMENT_CHARS: usize = 500;
/// Routes that go with a network in one transaction; etcd takes 128 operations in one.
const SWEPT: usize = 50;

static MEMBERS: [Member; 3] = [
    must("name", Form::Word(MAX_NAME_CHARS)),
    text("comment", Form::Text(MAX_COMMENT_CHARS), ""),
    flag("is_default_network", false),
];

static ROUTE_MEMBERS: [Member; 4] = [
    must("network", Form::Own(Shape::Text, read_network)),
    must("tunnel_id", Form::Uuid),
    may("virtual_network_id", Form::Uuid),
    text("comment", Form::Text(MAX_COMMENT_CHARS), ""),
];

/// Private addresses that a tunnel leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrivateRoute {
    /// The addresses.
    pub network: Network,
    /// Where they lead.
    pub tunnel: Uuid,
    /// Whose addresses they are.
    pub virtual_network: ItemId,
}

impl Item {
    /// What a private route says; `None` for other kinds.
    pub fn private_route(&self) -> Option<PrivateRoute> {
        let virtual_network = self.text("virtual_network_id").parse().ok()?;
        Some(PrivateRoute {
            network: self.text("network").parse().ok()?,
            tunnel: self.text("tunnel_id").parse().ok()?,
            virtual_network: ItemId::of_uuid(virtual_network),
        })
    }

    /// The network that every account has from the beginning.
    pub(crate) fn first_network(account: &Account) -> Self {
        let digest: [u8; 32] = Sha256::digest(format!("{}/first network", account.id)).into();
        let random = digest.first_chunk().expect("a digest has 32 bytes");
        let millisecond = u64::try_from(account.created_at.as_millisecond()).unwrap_or_default();
        let id = uuid::Builder::from_unix_timestamp_millis(millisecond, random).into_uuid();
        let terms = json!({ "name": "default", "comment": "", "is_default_network": true });
        let Value::Object(terms) = terms else { unreachable!("written as an object") };
        Self {
            kind: ItemKind::VirtualNetwork,
            zone: None,
            id: ItemId::of_uuid(id),
            terms,
            created_at: account.created_at,
            modified_at: account.created_at,
        }
    }
}

impl Snapshot {
    /// The network that is meant where none is named.
    pub fn default_network(&self) -> Option<&Versioned<Item>> {
        let mut networks = self.items(ItemKind::VirtualNetwork, None);
        networks.find(|network| is_default(network)).map(AsRef::as_ref)
    }

    /// The private routes to tunnels that are there, the oldest first.
    pub fn private_routes(&self) -> impl Iterator<Item = (&Versioned<Item>, PrivateRoute)> {
        let routes = self.items(ItemKind::PrivateRoute, None);
        let routes = routes.filter_map(|item| Some((item.as_ref(), item.private_route()?)));
        routes.filter(|(_, route)| self.live_tunnel(route.tunnel).is_some())
    }

    /// The route of an address in a network: of several the one with the fewest addresses.
    pub fn private_route_of(&self, virtual_network: ItemId, address: IpAddr) -> Option<&Versioned<Item>> {
        let fits = |(_, route): &(_, PrivateRoute)| {
            route.virtual_network == virtual_network && route.network.contains(address)
        };
        self.private_routes().filter(fits).max_by_key(|(_, route)| route.network.prefix()).map(|(item, _)| item)
    }
}

fn read_network(value: &Value) -> Result<Value, String> {
    let network: Network = value.as_str().unwrap_or_default().parse().map_err(|problem| format!("{problem}"))?;
    Ok(network.to_string().into())
}

fn is_default(network: &Item) -> bool {
    network.terms.get("is_default_network") == Some(&Value::Bool(true))
}

fn index(terms: &Members) -> Option<&str> {
    terms.get("name")?.as_str()
}

/// There is always exactly one default.
fn check(check: &mut Check<'_>) -> Result<(), ItemError> {
    let Check { snapshot, transaction, old, new } = check;
    let name = new.text("name");
    if snapshot.items_named(ItemKind::VirtualNetwork, name).any(|other| other.id != new.id) {
        return Err(ItemError::Taken(format!("a virtual network named {name}")));
    }
    match (old.is_some_and(is_default), is_default(new)) {
        (true, false) => Err(bad("is_default_network", "make another network the default one instead")),
        (false, true) => {
            if let Some(present) = snapshot.default_network() {
                let mut other = present.value.clone();
                other.terms.insert("is_default_network".into(), false.into());
                other.modified_at = new.modified_at;
                transaction.expect(present).put(&other);
            }
            Ok(())
        }
        (true, true) | (false, false) => Ok(()),
    }
}

/// Refuses a network that is not there, where one is named.
pub(super) fn check_network(snapshot: &Snapshot, item: &Item) -> Result<(), ItemError> {
    let id = item.text("virtual_network_id");
    let found = ItemKind::VirtualNetwork.parse_id(id);
    let found = found.and_then(|id| snapshot.item(ItemKind::VirtualNetwork, None, id));
    if id.is_empty() || found.is_some() {
        return Ok(());
    }
    Err(bad("virtual_network_id", format_args!("there is no virtual network {id}")))
}

/// The addresses of one network lead to one tunnel each.
fn check_route(check: &mut Check<'_>) -> Result<(), ItemError> {
    let Check { snapshot, transaction, new, .. } = check;
    if !new.terms.contains_key("virtual_network_id") {
        let default = snapshot.default_network().map(|network| network.id_text());
        new.terms.insert("virtual_network_id".into(), default.unwrap_or_default().into());
    }
    check_network(snapshot, new)?;
    let route = new.private_route().ok_or_else(|| bad("network", "a network is wanted"))?;
    let no_tunnel = || bad("tunnel_id", format_args!("there is no tunnel {}", route.tunnel));
    transaction.expect(snapshot.live_tunnel(route.tunnel).ok_or_else(no_tunnel)?);
    let overlaps = |(item, other): &(&Versioned<Item>, PrivateRoute)| {
        let (one, other_one) = (&route.network, &other.network);
        item.id != new.id
            && other.virtual_network == route.virtual_network
            && (one.is_within(other_one) || other_one.is_within(one))
    };
    match snapshot.private_routes().find(overlaps) {
        Some((_, other)) => Err(ItemError::Taken(format!(
            "a route for {} in this virtual network, which {} overlaps with; remove that one, or \
             use another virtual network",
            other.network, route.network
        ))),
        None => Ok(()),
    }
}

/// Removes the routes of a network that is to be removed, and answers whether these were all.
pub(super) fn remove_routes(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    item: &Versioned<Item>,
    force: bool,
) -> Result<bool, ItemError> {
    if item.kind != ItemKind::VirtualNetwork {
        return Ok(true);
    }
    if is_default(item) {
        return Err(ItemError::InUse("it is the default network; make another one the default first".into()));
    }
    if item.id == Item::first_network(snapshot.account()).id {
        return Err(ItemError::InUse("the account's first network stays; give it another name instead".into()));
    }
    let id = item.id_text();
    if let Some(user) = snapshot.items_of_all(ItemKind::Application).find(|app| app.text("virtual_network_id") == id) {
        let problem = format!("the application {} is in it; change that one first", user.id_text());
        return Err(ItemError::InUse(problem));
    }
    let routes = snapshot.items(ItemKind::PrivateRoute, None);
    let routes = routes.filter(|route| route.private_route().is_none_or(|route| route.virtual_network == item.id));
    let routes: Vec<_> = routes.take(SWEPT + 1).collect();
    let live = |route: &Item| route.private_route().is_some_and(|route| snapshot.live_tunnel(route.tunnel).is_some());
    if !force && routes.iter().any(|route| live(route)) {
        return Err(ItemError::InUse("it has routes; remove these first, or remove it with force=true".into()));
    }
    for route in routes.iter().take(SWEPT) {
        transaction.expect(route).delete(&route.key());
    }
    Ok(routes.len() <= SWEPT)
}
