//! The audit log (`audit_logs` of the v4 API).

use std::sync::Arc;

use axum::extract::{Path, State};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use policy::Network;
use registry::audit::{AuditEntry, Deed};
use registry::{AccountId, Snapshot, Versioned};
use serde_json::{Value, json};

use crate::account;
use crate::envelope::{Answer, part};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// Lists what was changed, the newest first unless `direction=asc`.
pub(crate) async fn list(State(shared): State<Arc<Shared>>, path: Option<Path<String>>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    if let Some(Path(id)) = path {
        account::check(&snapshot, &id)?;
    }
    let filter = Filter::read(&query, &snapshot)?;
    let page = query.page(100, 1000)?;
    let mut entries: Vec<_> = snapshot.audit().filter(|entry| filter.fits(entry)).collect();
    match query.one("direction") {
        None | Some("desc") => entries.reverse(),
        Some("asc") => (),
        Some(other) => return Err(ApiError::not_valid(format!("direction: asc or desc is wanted, not {other}"))),
    }
    let account = snapshot.account().id;
    let shown = entries.iter().skip(page.start()).take(page.size).map(|entry| shown(entry, account)).collect();
    Ok(part(shown, page, entries.len()))
}

/// Which entries are wanted: those that have all of these.
#[derive(Default)]
struct Filter {
    id: Option<String>,
    action: Option<String>,
    network: Option<Network>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
    /// What the paths of a zone's calls begin with; empty for a zone that there is not.
    zone: Option<Option<String>>,
}

impl Filter {
    fn read(query: &Query, snapshot: &Snapshot) -> Result<Self, ApiError> {
        Ok(Self {
            id: query.one("id").map(str::to_owned),
            action: query.one("action.type").map(str::to_owned),
            network: query.parsed("actor.ip")?,
            since: time(query, "since")?,
            before: time(query, "before")?,
            zone: query
                .one("zone.name")
                .map(|name| snapshot.zone_named(name).map(|zone| format!("/zones/{}", zone.id))),
        })
    }

    fn fits(&self, entry: &AuditEntry) -> bool {
        let Self { id, action, network, since, before, zone } = self;
        let actor = &entry.actor;
        id.as_ref().is_none_or(|id| *id == entry.id.to_string())
            && action.as_ref().is_none_or(|wanted| wanted == action_of(entry))
            && network.as_ref().is_none_or(|network| actor.address.is_some_and(|address| network.contains(address)))
            && since.is_none_or(|since| actor.at >= since)
            && before.is_none_or(|before| actor.at < before)
            && zone.as_ref().is_none_or(|zone| zone.as_ref().is_some_and(|zone| actor.path.starts_with(zone)))
    }
}

/// A time, or a day's beginning (UTC).
fn time(query: &Query, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = query.one(name) else { return Ok(None) };
    let day = || Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    let time = text.parse().ok().or_else(day);
    time.map(Some)
        .ok_or_else(|| ApiError::not_valid(format!("{name}: a time as 2026-01-31T12:00:00Z, or a day, is wanted")))
}

fn action_of(entry: &AuditEntry) -> &'static str {
    match entry.actor.method.as_str() {
        "POST" => "create",
        "DELETE" => "delete",
        _ => "update",
    }
}

/// The kind and the id of what a call was about: those of its path, or the id of what was made.
fn resource_of(entry: &AuditEntry) -> (&str, &str) {
    let is_id =
        |segment: &&str| segment.len() >= 32 && segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let segments = || entry.actor.path.rsplit('/');
    let kind = segments().find(|segment| !is_id(segment)).unwrap_or_default();
    let created = entry.changes.iter().filter(|change| change.deed == Deed::Created && entry.actor.method == "POST");
    // A key may name the owner before what it is about.
    let made = created.filter_map(|change| change.key.rsplit('/').next()).find(is_id);
    (kind, made.or_else(|| segments().find(is_id)).unwrap_or_default())
}

fn shown(entry: &Versioned<AuditEntry>, account: AccountId) -> Value {
    let actor = &entry.actor;
    let (token, name) = actor.token.as_ref().map(|(id, name)| (id, name.as_str())).unzip();
    let (kind, id) = resource_of(entry);
    json!({
        "id": entry.id,
        "when": actor.at,
        "action": { "type": action_of(entry), "result": true },
        "actor": { "id": token, "type": "user", "email": "", "ip": actor.address, "token_name": name },
        "interface": "API",
        "owner": { "id": account },
        "resource": { "type": kind, "id": id },
        "oldValue": "",
        "newValue": "",
        "metadata": {
            "method": actor.method,
            "path": actor.path,
            "ray": actor.ray,
            "revision": entry.revision,
            "changes": entry.changes,
            "total_changes": entry.total,
        },
    })
}
