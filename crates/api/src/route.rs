//! Names that lead to tunnels: of our own, below `/snicket/v1`, since the original API has them only as DNS records.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use registry::{Area, Hostname, Object, Permission, Route, RouteError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// All names, or those of the tunnel in the query.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let account = snapshot.account().id;
    let tunnel = query.parsed::<Uuid>("tunnel")?;
    let wanted = |route: &&Arc<Route>| {
        tunnel.is_none_or(|tunnel| route.tunnel == tunnel)
            && token.terms.may(Permission { area: Area::Dns, write: false }, Object::Zone(account, route.zone))
    };
    let routes: Vec<_> = snapshot.routes().filter(wanted).collect();
    Ok(page(&routes, query.page(100, 1000)?, |route| shown(route)))
}

/// Takes a name from its tunnel.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(hostname): Path<String>,
) -> Answer {
    let name = Hostname::parse(&hostname).map_err(|problem| ApiError::not_valid(format!("hostname: {problem}")))?;
    let snapshot = shared.state.registry.snapshot();
    if let Some(route) = snapshot.route_exactly(&name) {
        let object = Object::Zone(snapshot.account().id, route.zone);
        if !token.terms.may(Permission { area: Area::Dns, write: true }, object) {
            // As if there were none.
            return Err(RouteError::NotFound(name).into());
        }
    }
    shared.state.registry.delete_route(&name).await?;
    Ok(success(json!({ "hostname": name })))
}

fn shown(route: &Route) -> Value {
    json!({ "hostname": route.hostname, "tunnel": route.tunnel, "created_at": route.created_at })
}
