use std::sync::Arc;

use axum::extract::{Path, State};
use registry::{Account, Snapshot, Versioned, Zone};
use serde_json::{Value, json};

use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let mut zones: Vec<_> = snapshot.zones().filter(|zone| matches(zone, &snapshot, &query)).collect();
    match query.one("order") {
        Some("name") => zones.sort_by(|a, b| a.name.cmp(&b.name)),
        _ => zones.sort_by_key(|zone| (zone.created_at, zone.id)),
    }
    if query.one("direction") == Some("desc") {
        zones.reverse();
    }
    let account = snapshot.account();
    Ok(page(&zones, query.page(20, 50)?, |zone| shown(zone, account)))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = find(&snapshot, &id)?;
    Ok(success(shown(zone, snapshot.account())))
}

pub(crate) fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<&'a Arc<Versioned<Zone>>, ApiError> {
    let zone = id.parse().ok().and_then(|id| snapshot.zone(id));
    zone.ok_or_else(|| ApiError::no_object(&format!("/zones/{id}")))
}

fn matches(zone: &Zone, snapshot: &Snapshot, query: &Query) -> bool {
    let account = snapshot.account();
    let mut conditions = Vec::new();
    conditions.extend(query.one("name").map(|wanted| matches_name(zone.name.as_str(), wanted)));
    conditions.extend(query.one("status").map(|wanted| wanted == "active"));
    conditions.extend(query.one("type").map(|wanted| wanted == "full"));
    conditions.extend(query.one("account.id").map(|wanted| wanted == account.id.to_string()));
    conditions.extend(query.one("account.name").map(|wanted| wanted == account.name));
    match query.one("match") {
        Some("any") => conditions.is_empty() || conditions.contains(&true),
        _ => !conditions.contains(&false),
    }
}

fn matches_name(name: &str, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    let (how, text) = wanted.split_once(':').unwrap_or(("equal", &wanted));
    match how {
        "equal" => registry::Hostname::parse(text).is_ok_and(|wanted| wanted.as_str() == name),
        "contains" => name.contains(text),
        "starts_with" => name.starts_with(text),
        "ends_with" => name.ends_with(text),
        _ => false,
    }
}

/// Section 7 of the API page; the fields that hold nothing are there for clients that insist on them.
fn shown(zone: &Zone, account: &Account) -> Value {
    json!({
        "id": zone.id,
        "name": zone.name,
        "account": { "id": account.id, "name": account.name },
        "owner": { "id": account.id, "type": "organization", "name": account.name },
        "plan": {
            "id": "enterprise",
            "name": "Own edge",
            "legacy_id": "enterprise",
            "price": 0,
            "currency": "USD",
            "frequency": "",
            "is_subscribed": true,
            "can_subscribe": false,
            "externally_managed": false,
            "legacy_discount": false,
        },
        "meta": {
            "step": 0,
            "page_rule_quota": 0,
            "custom_certificate_quota": 0,
            "phishing_detected": false,
            "cdn_only": false,
            "dns_only": false,
        },
        "name_servers": [],
        "original_name_servers": null,
        "original_registrar": null,
        "original_dnshost": null,
        "created_on": zone.created_at,
        "modified_on": zone.created_at,
        "activated_on": zone.created_at,
        "development_mode": 0,
        "status": "active",
        "paused": false,
        "type": "full",
        "permissions": [],
    })
}
