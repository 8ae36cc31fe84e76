//! Private networks and routes to them (section 10 of the API page): kept, checked and shown. Nothing is led by them
//! yet.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use jiff::Timestamp;
use policy::Network;
use registry::{Item, ItemId, ItemKind, Snapshot};
use serde_json::{Value, json};

use super::{Collection, Filter, Kind, Parameters, owner, parameter};
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::openapi::schema::{Schema, flag, may, must, text, time, uuid};
use crate::openapi::{Operation, get};
use crate::query::Query;
use crate::state::Shared;

/// On one page, since clients ask for no other.
pub(crate) static NETWORKS: Collection = Collection {
    page: (100_000, 100_000),
    is_replaced: false,
    read: |given| {
        // The name that it has elsewhere in the original.
        if let Some(value) = given.remove("is_default") {
            given.entry("is_default_network").or_insert(value);
        }
    },
    show: |item, _, shown| {
        shown["created_at"] = json!(item.created_at);
        shown["deleted_at"] = Value::Null;
    },
    taken: |schema| schema.with([may("is_default", flag().about("The same as is_default_network"))]),
    described: |schema| schema.with([must("created_at", time()), must("deleted_at", time().or_null())]),
    filter: networks_wanted,
    filters: &[
        ("id", Kind::Text),
        ("name", Kind::Text),
        ("is_default_network", Kind::Flag),
        ("is_default", Kind::Flag),
        ("is_deleted", Kind::Flag),
    ],
    shows_removed: true,
    ..Collection::new(ItemKind::VirtualNetwork)
};

pub(crate) static ROUTES: Collection = Collection {
    is_replaced: false,
    show: show_route,
    described: route_described,
    filter: routes_wanted,
    filters: &[
        ("comment", Kind::Text),
        ("tunnel_id", Kind::Text),
        ("virtual_network_id", Kind::Text),
        ("route_id", Kind::Text),
        ("network_subset", Kind::Text),
        ("network_superset", Kind::Text),
        ("existed_at", Kind::Time),
        ("tun_types", Kind::Text),
        ("is_deleted", Kind::Flag),
    ],
    shows_removed: true,
    ..Collection::new(ItemKind::PrivateRoute)
};

fn networks_wanted<'a>(query: &'a Query, _: &Snapshot) -> Result<Filter<'a>, ApiError> {
    let (id, name) = (query.one("id"), query.one("name"));
    let is_default: Option<bool> = match query.parsed("is_default_network")? {
        Some(is_default) => Some(is_default),
        None => query.parsed("is_default")?,
    };
    let is_deleted = query.parsed("is_deleted")?.unwrap_or(false);
    Ok(Box::new(move |item| {
        !is_deleted
            && id.is_none_or(|id| id == item.id_text())
            && name.is_none_or(|name| name == item.text("name"))
            && is_default.is_none_or(|is_default| item.terms["is_default_network"] == is_default)
    }))
}

fn routes_wanted<'a>(query: &'a Query, snapshot: &'a Snapshot) -> Result<Filter<'a>, ApiError> {
    let texts = ["comment", "tunnel_id", "virtual_network_id"].map(|name| (name, query.one(name)));
    let id = query.one("route_id");
    let within: Option<Network> = query.parsed("network_subset")?;
    let around: Option<Network> = query.parsed("network_superset")?;
    let existed_at: Option<Timestamp> = query.parsed("existed_at")?;
    let kinds = query.all("tun_types");
    // What is removed is not kept.
    let is_deleted =
        query.parsed("is_deleted")?.unwrap_or(false) || !(kinds.is_empty() || kinds.contains(&"cfd_tunnel"));
    Ok(Box::new(move |item| {
        let Some(route) = item.private_route().filter(|route| snapshot.live_tunnel(route.tunnel).is_some()) else {
            return false;
        };
        !is_deleted
            && texts.iter().all(|(member, wanted)| wanted.is_none_or(|wanted| wanted == item.text(member)))
            && id.is_none_or(|id| id == item.id_text())
            && within.is_none_or(|within| route.network.is_within(&within))
            && around.is_none_or(|around| around.is_within(&route.network))
            && existed_at.is_none_or(|at| item.created_at <= at)
    }))
}

fn show_route(item: &Item, snapshot: &Snapshot, shown: &mut Value) {
    let route = item.private_route();
    let network = route.and_then(|route| snapshot.item(ItemKind::VirtualNetwork, None, route.virtual_network));
    shown["tunnel_name"] = json!(route.and_then(|route| snapshot.tunnel(route.tunnel)).map(|tunnel| &tunnel.name));
    shown["virtual_network_name"] = json!(network.map(|network| network.text("name")));
    shown["tun_type"] = json!("cfd_tunnel");
    shown["created_at"] = json!(item.created_at);
    shown["deleted_at"] = Value::Null;
}

fn route_described(schema: Schema) -> Schema {
    schema.with([
        must("virtual_network_id", uuid()),
        must("tunnel_name", text().or_null()),
        must("virtual_network_name", text().or_null()),
        must("tun_type", text()),
        must("created_at", time()),
        must("deleted_at", time().or_null()),
    ])
}

/// What is done at the route of one address.
pub(crate) fn of_address() -> [Operation; 1] {
    let network = "In which network; absent, in the default one";
    [get("Find the private route of an address", by_address, move |it| {
        it.query("virtual_network_id", text(), network).answers(ROUTES.schema())
    })]
}

/// The route of one address: in the network that is asked for, or the default one.
async fn by_address(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    owner(&snapshot, &path)?;
    let text = parameter(&path, "ip");
    let address: IpAddr = text.parse().map_err(|_| ApiError::not_valid(format!("{text}: an IP address is wanted")))?;
    let network: Option<ItemId> = match query.one("virtual_network_id") {
        Some(id) => Some(
            ItemKind::VirtualNetwork
                .parse_id(id)
                .filter(|id| snapshot.item(ItemKind::VirtualNetwork, None, *id).is_some())
                .ok_or_else(|| ApiError::not_valid(format!("virtual_network_id: there is no virtual network {id}")))?,
        ),
        None => snapshot.default_network().map(|network| network.id),
    };
    let route = network.and_then(|network| snapshot.private_route_of(network, address));
    let route = route.ok_or_else(|| ApiError::no_object(&format!("/teamnet/routes/ip/{text}")))?;
    Ok(success(ROUTES.shown(route, &snapshot)))
}
