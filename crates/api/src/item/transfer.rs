//! Transfers of zones to other name servers, as the original calls it: `secondary_dns`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Item, ItemError, ItemId, ItemKind, Members, Snapshot, Which, ZoneId};
use serde_json::{Value, json};

use super::{Collection, Parameters, owner};
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::openapi::schema::{Schema, id, list, may, must, object, one_of, text, time};
use crate::openapi::{Routes, delete, get, post, put};
use crate::state::Shared;

/// Who may read keys can take part in transfers, so that takes the permission to change (`permission`).
pub(crate) static KEYS: Collection = Collection { is_changed: false, ..Collection::new(ItemKind::TransferKey) };
pub(crate) static PEERS: Collection = Collection { is_changed: false, ..Collection::new(ItemKind::TransferPeer) };
pub(crate) static ACLS: Collection = Collection { is_changed: false, ..Collection::new(ItemKind::TransferAcl) };

type Shares = State<Arc<Shared>>;
type At = Path<Parameters>;

/// What serves to whom a zone is transferred.
pub(crate) fn outgoing(path: &str) -> Routes {
    let status = || one_of(&["Enabled", "Disabled"]);
    let below = |rest: &str| format!("{path}/{rest}");
    let all = [
        get("Show to whom a zone is transferred", one, |it| it.answers(described())),
        post("Say to whom a zone is transferred", create, |it| it.takes(taken()).answers(described()).fails([409])),
        put("Replace to whom a zone is transferred", replace, |it| it.takes(taken()).answers(described()).fails([409])),
        delete("Transfer a zone to nobody any more", remove, |it| it.answers(object([must("id", id())])).fails([412])),
    ];
    let on = |summary: &str, enabled: bool| {
        post(
            summary,
            async move |State(shared): Shares, Path(path): At| enable(&shared, &path, enabled).await,
            move |it| it.answers(status()).fails([409]),
        )
    };
    Routes::new()
        .at(path, all)
        .at(&below("enable"), [on("Transfer a zone from now on, and tell its peers", true)])
        .at(&below("disable"), [on("Transfer a zone no more until it is enabled again", false)])
        .at(&below("status"), [get("Show whether a zone is transferred", state, move |it| it.answers(status()))])
        .at(
            &below("force_notify"),
            [post("Tell a zone's peers that it has changed", force_notify, |it| {
                it.answers(one_of(&["OK"])).fails([409])
            })],
        )
}

fn taken() -> Schema {
    Schema::of_items(ItemKind::TransferOut).with([may("peers", list(id()))]).named("OutgoingTransfer")
}

fn described() -> Schema {
    Schema::of_items(ItemKind::TransferOut)
        .with([
            must("id", id()),
            must("peers", list(id())),
            must("created_time", time()),
            must("checked_time", text().or_null().about("Nobody keeps it")),
            must("last_transferred_time", text().or_null().about("Nobody keeps it")),
        ])
        .named("ShownOutgoingTransfer")
}

fn shown(item: &Item) -> Value {
    let mut shown = Value::Object(item.terms.clone());
    shown["id"] = item.id_text().into();
    shown["created_time"] = json!(item.created_at);
    shown["checked_time"] = Value::Null;
    shown["last_transferred_time"] = Value::Null;
    shown
}

async fn one(State(shared): Shares, Path(path): At) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(shown(find(&snapshot, owner(&snapshot, &path)?)?)))
}

async fn create(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = owner(&snapshot, &path)?;
    if find(&snapshot, zone).is_ok() {
        return Err(ItemError::Taken("an outgoing transfer of this zone".into()).into());
    }
    let given: Members = body::json(body, body::SMALL).await?;
    write(&shared, zone, Which::New, &mut |_| Ok(given.clone())).await.map(|item| success(shown(&item)))
}

async fn replace(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let (zone, id) = place(&shared, &path)?;
    let given: Members = body::json(body, body::SMALL).await?;
    let mut read = |old: Option<&Item>| {
        let mut terms = given.clone();
        // Which the original's bodies do not say.
        let enabled = old.and_then(|old| old.terms.get("enabled")).cloned();
        terms.entry("enabled").or_insert(enabled.unwrap_or_default());
        Ok(terms)
    };
    write(&shared, zone, Which::One(id), &mut read).await.map(|item| success(shown(&item)))
}

async fn remove(State(shared): Shares, Path(path): At) -> Answer {
    let (zone, id) = place(&shared, &path)?;
    let item = shared.state.registry.delete_item(ItemKind::TransferOut, zone, id, false).await?;
    Ok(success(json!({ "id": item.id_text() })))
}

async fn enable(shared: &Shared, path: &Parameters, enabled: bool) -> Answer {
    let (zone, id) = place(shared, path)?;
    let mut read = |old: Option<&Item>| {
        let mut terms = old.map(|old| old.terms.clone()).unwrap_or_default();
        terms.insert("enabled".into(), enabled.into());
        Ok(terms)
    };
    write(shared, zone, Which::One(id), &mut read).await.map(|item| success(status(&item)))
}

async fn state(State(shared): Shares, Path(path): At) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(status(find(&snapshot, owner(&snapshot, &path)?)?)))
}

/// Every node tells the peers of a zone that was changed: so this is a change of its own, without any other.
async fn force_notify(State(shared): Shares, Path(path): At) -> Answer {
    let (zone, id) = place(&shared, &path)?;
    let registry = &shared.state.registry;
    let zone = zone.ok_or_else(|| ApiError::no_object("the zone"))?;
    registry.touch_transfer(Timestamp::now(), zone, id).await?;
    Ok(success(json!("OK")))
}

async fn write(
    shared: &Shared,
    zone: Option<ZoneId>,
    which: Which<'_>,
    read: &mut (dyn FnMut(Option<&Item>) -> Result<Members, ItemError> + Send),
) -> Result<Item, ApiError> {
    Ok(shared.state.registry.write_item(Timestamp::now(), ItemKind::TransferOut, zone, which, read).await?)
}

fn place(shared: &Shared, path: &Parameters) -> Result<(Option<ZoneId>, ItemId), ApiError> {
    let snapshot = shared.state.registry.snapshot();
    let zone = owner(&snapshot, path)?;
    Ok((zone, find(&snapshot, zone)?.id))
}

fn find(snapshot: &Snapshot, zone: Option<ZoneId>) -> Result<&Item, ApiError> {
    let found = snapshot.items(ItemKind::TransferOut, zone).next();
    found.map(|found| &found.value).ok_or_else(|| ApiError::no_object("the outgoing transfer of this zone"))
}

fn status(item: &Item) -> Value {
    json!(if item.terms["enabled"] == true { "Enabled" } else { "Disabled" })
}
