//! Names that lead to tunnels: of our own, below `/snicket/v1`, since the original API has them only as DNS records.

use std::sync::Arc;

use axum::extract::{Path, State};
use registry::{Hostname, Route};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// All names, or those of the tunnel in the query.
pub(crate) async fn list(State(shared): State<Arc<Shared>>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let tunnel = query.parsed::<Uuid>("tunnel")?;
    let routes: Vec<_> = snapshot.routes().filter(|route| tunnel.is_none_or(|tunnel| route.tunnel == tunnel)).collect();
    Ok(page(&routes, query.page(100, 1000)?, |route| shown(route)))
}

/// Takes a name from its tunnel.
pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Path(hostname): Path<String>) -> Answer {
    let name = Hostname::parse(&hostname).map_err(|problem| ApiError::not_valid(format!("hostname: {problem}")))?;
    shared.state.registry.delete_route(&name).await?;
    Ok(success(json!({ "hostname": name })))
}

fn shown(route: &Route) -> Value {
    json!({ "hostname": route.hostname, "tunnel": route.tunnel, "created_at": route.created_at })
}
