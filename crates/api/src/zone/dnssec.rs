//! Whether a zone's answers are to be signed: the wish is kept, and nothing is signed yet. So a zone for which it is on is
//! `pending`, without keys, which is what tools show while a key is not published.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::Zone;
use serde::Deserialize;
use serde_json::{Value, json};

use super::find;
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

#[derive(Deserialize)]
struct ChangeBody {
    status: Option<String>,
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(shown(find(&snapshot, &zone)?)))
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
    let changed = registry.change_zone(Timestamp::now(), id, |traits, _| {
        traits.signed = signed.unwrap_or(traits.signed);
    });
    Ok(success(shown(&changed.await?)))
}

fn shown(zone: &Zone) -> Value {
    json!({
        "status": if zone.traits.signed { "pending" } else { "disabled" },
        "flags": null,
        "algorithm": null,
        "key_type": null,
        "digest_type": null,
        "digest_algorithm": null,
        "digest": null,
        "ds": null,
        "key_tag": null,
        "public_key": null,
        "modified_on": zone.modified_at(),
    })
}
