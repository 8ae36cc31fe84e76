//! Custom hostnames: kept, checked and shown. They stay pending, since nothing looks whether they lead here yet.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Hostname, Item, ItemKind, Snapshot, ZoneSetting};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Collection, Filter, Kind};
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::openapi::schema::{Schema, hostname, list, must, object, text, time, uuid};
use crate::openapi::{Operation, delete, get, put};
use crate::query::Query;
use crate::state::Shared;
use crate::{body, zone};

pub(crate) static CUSTOM_HOSTNAMES: Collection = Collection {
    page: (20, 1000),
    is_replaced: false,
    show,
    described,
    filter: wanted,
    filters: &[
        ("id", Kind::Text),
        ("hostname", Kind::Text),
        ("hostname.contain", Kind::Text),
        ("hostname.exact", Kind::Text),
        ("hostname.startsWith", Kind::Text),
        ("custom_origin_server", Kind::Text),
        ("ssl", Kind::Digit),
        ("wildcard", Kind::Flag),
        ("hostname_status", Kind::Text),
        ("ssl_status", Kind::Text),
        ("certificate_authority", Kind::Text),
    ],
    orders: &[
        ("ssl", |item| item.terms.contains_key("ssl").to_string()),
        ("ssl_status", |item| item.terms.contains_key("ssl").to_string()),
    ],
    ..Collection::new(ItemKind::CustomHostname)
};

/// Until somebody looks.
const STATUS: &str = "pending";
const SSL_STATUS: &str = "initializing";

fn show(item: &Item, _: &Snapshot, shown: &mut Value) {
    let hostname = item.text("hostname");
    let token = item.ownership_token();
    shown["status"] = json!(STATUS);
    shown["verification_errors"] = json!([]);
    shown["ownership_verification"] =
        json!({ "type": "txt", "name": format!("_cf-custom-hostname.{hostname}"), "value": token });
    shown["ownership_verification_http"] = json!({
        "http_url": format!("http://{hostname}/.well-known/cf-custom-hostname-challenge/{}", item.id_text()),
        "http_body": token,
    });
    shown["created_at"] = json!(item.created_at);
    if let Some(Value::Object(ssl)) = shown.get_mut("ssl") {
        ssl.insert("id".into(), item.id_text().into());
        ssl.insert("status".into(), SSL_STATUS.into());
        ssl.insert("hosts".into(), json!([hostname]));
    } else {
        shown["ssl"] = Value::Null;
    }
}

/// In which setting of a zone the fallback origin is kept.
const FALLBACK: &str = "custom_hostnames_fallback_origin";

#[derive(Deserialize)]
struct FallbackBody {
    origin: Option<String>,
}

/// What serves where the visitors of custom hostnames go that name no origin of their own.
pub(crate) fn fallback_origin() -> [Operation; 3] {
    let body = || object([must("origin", hostname().about("A name of the zone"))]).named("FallbackOrigin");
    [
        get("Show where visitors of custom hostnames go that name no origin", show_fallback, |it| {
            it.answers(fallback_described())
        }),
        put("Say where they go", put_fallback, move |it| it.takes(body()).answers(fallback_described())),
        delete("Say it no more", delete_fallback, |it| it.answers(fallback_described())),
    ]
}

fn fallback_described() -> Schema {
    let shown = object([
        must("origin", hostname()),
        must("status", text()),
        must("errors", list(text())),
        must("created_at", time()),
        must("updated_at", time()),
    ]);
    shown.named("FallbackOrigin")
}

/// What is shown of one beside what is kept.
fn described(schema: Schema) -> Schema {
    let records = object([must("type", text()), must("name", text()), must("value", text())]);
    let page = object([must("http_url", text()), must("http_body", text())]);
    let ssl = schema.member("ssl").with([must("id", uuid()), must("status", text()), must("hosts", list(hostname()))]);
    schema.with([
        must("ssl", ssl.or_null()),
        must("status", text()),
        must("verification_errors", list(text())),
        must("ownership_verification", records),
        must("ownership_verification_http", page),
        must("created_at", time()),
    ])
}

async fn show_fallback(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let setting = zone::find(&snapshot, &zone)?.settings.get(FALLBACK);
    Ok(success(shown_fallback(setting.ok_or_else(|| no_fallback(&zone))?)))
}

async fn put_fallback(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    let zone = zone::find(&snapshot, &zone)?;
    let body: FallbackBody = body::json(body, body::SMALL).await?;
    let bad = |problem: String| ApiError::not_valid(format!("origin: {problem}"));
    let origin = body.origin.ok_or_else(|| bad("a host name of the zone is wanted".into()))?;
    let origin = Hostname::parse(&origin).map_err(|problem| bad(problem.to_string()))?;
    if !origin.is_within(&zone.name) {
        return Err(bad(format!("{origin} does not lie in the zone {}", zone.name)));
    }
    let now = Timestamp::now();
    let wanted = ZoneSetting { value: origin.as_str().into(), modified_at: now };
    let changed = registry.change_zone(now, zone.id, |_, settings| {
        if settings.get(FALLBACK).is_none_or(|present| present.value != wanted.value) {
            settings.insert(FALLBACK.into(), wanted.clone());
        }
    });
    Ok(success(shown_fallback(changed.await?.settings.get(FALLBACK).unwrap_or(&wanted))))
}

async fn delete_fallback(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    let zone = zone::find(&snapshot, &zone)?;
    let old = zone.settings.get(FALLBACK).ok_or_else(|| no_fallback(&zone.id.to_string()))?;
    registry.change_zone(Timestamp::now(), zone.id, |_, settings| drop(settings.remove(FALLBACK))).await?;
    Ok(success(shown_fallback(old)))
}

fn shown_fallback(setting: &ZoneSetting) -> Value {
    json!({
        "origin": setting.value,
        "status": SSL_STATUS,
        "errors": [],
        "created_at": setting.modified_at,
        "updated_at": setting.modified_at,
    })
}

fn no_fallback(zone: &str) -> ApiError {
    ApiError::no_object(&format!("/zones/{zone}/custom_hostnames/fallback_origin"))
}

fn wanted<'a>(query: &'a Query, _: &Snapshot) -> Result<Filter<'a>, ApiError> {
    let id = query.one("id");
    let contains = query.one("hostname.contain").or_else(|| query.one("hostname")).map(str::to_lowercase);
    let exact = query.one("hostname.exact").map(|name| name.trim_end_matches('.').to_lowercase());
    let begins = query.one("hostname.startsWith").map(str::to_lowercase);
    let origin = query.one("custom_origin_server");
    let has_ssl = match query.one("ssl") {
        None => None,
        Some("1" | "true") => Some(true),
        Some("0" | "false") => Some(false),
        Some(_) => return Err(ApiError::not_valid("ssl: 0 or 1 is wanted")),
    };
    let is_wildcard: Option<bool> = query.parsed("wildcard")?;
    let (status, ssl_status) = (query.one("hostname_status"), query.one("ssl_status"));
    let authority = query.one("certificate_authority");
    Ok(Box::new(move |item| {
        let (name, ssl) = (item.text("hostname"), item.terms.get("ssl"));
        id.is_none_or(|id| id == item.id_text())
            && contains.as_ref().is_none_or(|part| name.contains(part.as_str()))
            && exact.as_ref().is_none_or(|exact| name == exact)
            && begins.as_ref().is_none_or(|start| name.starts_with(start.as_str()))
            && origin.is_none_or(|origin| origin == item.text("custom_origin_server"))
            && has_ssl.is_none_or(|has_ssl| has_ssl == ssl.is_some())
            && is_wildcard.is_none_or(|is_wildcard| ssl.is_some_and(|ssl| ssl["wildcard"] == is_wildcard))
            && status.is_none_or(|status| status == STATUS)
            && ssl_status.is_none_or(|status| ssl.is_some() && status == SSL_STATUS)
            && authority.is_none_or(|authority| ssl.is_some_and(|ssl| ssl["certificate_authority"] == authority))
    }))
}
