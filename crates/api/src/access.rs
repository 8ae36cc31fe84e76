//! Who may visit a tunnel: of our own, below `/snicket/v1`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use policy::Access;
use registry::Snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;
use crate::tunnel::tunnel_id;

/// The rules of a tunnel, without the hashes of its passwords.
pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(tunnel): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let id = find(&snapshot, &tunnel)?;
    Ok(success(shown(&snapshot.access(id).cloned().unwrap_or_default())))
}

/// Replaces the rules of a tunnel.
pub(crate) async fn put(State(shared): State<Arc<Shared>>, Path(tunnel): Path<String>, body: Body) -> Answer {
    let id = find(&shared.state.registry.snapshot(), &tunnel)?;
    let rules: Access = body::json(body, body::SMALL).await?;
    shared.state.registry.put_access(id, rules.clone()).await?;
    Ok(success(shown(&rules)))
}

/// Lets everybody visit a tunnel again.
pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Path(tunnel): Path<String>) -> Answer {
    let id = find(&shared.state.registry.snapshot(), &tunnel)?;
    shared.state.registry.put_access(id, Access::default()).await?;
    Ok(success(shown(&Access::default())))
}

/// A tunnel that is not deleted, by its id in the path.
pub(crate) fn find(snapshot: &Snapshot, tunnel: &str) -> Result<Uuid, ApiError> {
    let found = tunnel_id(tunnel).and_then(|id| snapshot.live_tunnel(id));
    found.map(|tunnel| tunnel.id).ok_or_else(|| ApiError::no_object(&format!("/tunnels/{tunnel}")))
}

/// The rules as anybody with a token may see them.
pub(crate) fn shown(rules: &Access) -> Value {
    json!({
        "allow": rules.allow,
        "pin": rules.pin.is_some(),
        "basic": rules.basic.iter().map(|basic| &basic.user).collect::<Vec<_>>(),
        "headers": rules.headers,
        "rewrite": rules.rewrite,
    })
}
