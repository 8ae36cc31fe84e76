//! Whether a zone's answers are signed, and with which key. A zone for which that is on is `pending` as long as no node answers
//! by DNS.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{KeyChange, Snapshot, Zone, ZoneKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::find;
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

#[derive(Deserialize)]
struct ChangeBody {
    status: Option<String>,
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(shown(find(&snapshot, &zone)?, &snapshot)))
}

pub(crate) async fn change(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &zone)?.id;
    let body: ChangeBody = body::json(body, body::SMALL).await?;
    let signed = match body.status.as_deref() {
        Some("active") => Some(true),
        Some("disabled") => Some(false),
        // Other members are of no use without keys, and `pending` is what we answer ourselves.
        Some("pending") | None => None,
        Some(_) => return Err(ApiError::not_valid("status: active or disabled is wanted")),
    };
    if let Some(signed) = signed {
        registry.sign_zone(Timestamp::now(), id, signed).await?;
    }
    let snapshot = registry.snapshot();
    Ok(success(shown(find(&snapshot, &zone)?, &snapshot)))
}

/// How far a change of the zone's key is.
pub(crate) async fn key(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    shown_key(find(&snapshot, &zone)?, &snapshot)
}

/// Does the next step of one.
pub(crate) async fn advance_key(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, query: Query) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &zone)?.id;
    let force = query.parsed("force")?.unwrap_or(false);
    registry.advance_zone_key(Timestamp::now(), id, force).await?;
    let snapshot = registry.snapshot();
    shown_key(find(&snapshot, &zone)?, &snapshot)
}

/// Gives one up.
pub(crate) async fn keep_key(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &zone)?.id;
    registry.keep_zone_key(Timestamp::now(), id).await?;
    let snapshot = registry.snapshot();
    shown_key(find(&snapshot, &zone)?, &snapshot)
}

fn shown_key(zone: &Zone, snapshot: &Snapshot) -> Answer {
    let key = snapshot.zone_key(zone.id).filter(|_| zone.traits.signed);
    let key = key.ok_or_else(|| ApiError::no_object("the key of this zone; it is not signed"))?;
    Ok(success(json!({
        "step": key.step(),
        "since": key.change.as_ref().map_or(key.created_at, |change| change.since),
        "next_step_from": key.change.as_ref().map(KeyChange::due),
        "key_tags": key.published().map(ZoneKey::tag).collect::<Vec<_>>(),
        "ds": ds_of(key.announced(), zone).1,
    })))
}

/// The digest that a delegation has, and the whole record.
fn ds_of(key: &ZoneKey, zone: &Zone) -> (String, String) {
    let digest: String = key.digest(&zone.name).iter().map(|byte| format!("{byte:02X}")).collect();
    let (tag, algorithm, digest_type) = (key.tag(), ZoneKey::ALGORITHM, ZoneKey::DIGEST_TYPE);
    let ds = format!("{}. 3600 IN DS {tag} {algorithm} {digest_type} {digest}", zone.name);
    (digest, ds)
}

fn shown(zone: &Zone, snapshot: &Snapshot) -> Value {
    let is_answered = snapshot.nodes().any(|node| node.addresses.dns.is_some());
    let key = snapshot.zone_key(zone.id).filter(|_| zone.traits.signed);
    let status = match (zone.traits.signed, key) {
        (false, _) => "disabled",
        (true, Some(_)) if is_answered => "active",
        (true, _) => "pending",
    };
    let shown = key.map(|key| {
        let key = key.announced();
        let (digest, ds) = ds_of(key, zone);
        (key.tag(), digest, ds, key.public().to_owned())
    });
    let (tag, digest, ds, public) = match shown {
        Some((tag, digest, ds, public)) => (Some(tag), Some(digest), Some(ds), Some(public)),
        None => (None, None, None, None),
    };
    let with_key = |value: Value| if key.is_some() { value } else { Value::Null };
    json!({
        "status": status,
        "flags": with_key(json!(ZoneKey::FLAGS)),
        "algorithm": with_key(json!(ZoneKey::ALGORITHM.to_string())),
        "key_type": with_key(json!("ECDSAP256SHA256")),
        "digest_type": with_key(json!(ZoneKey::DIGEST_TYPE.to_string())),
        "digest_algorithm": with_key(json!("SHA256")),
        "digest": digest,
        "ds": ds,
        "key_tag": tag,
        "public_key": public,
        "modified_on": zone.modified_at(),
    })
}
