use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Area, Hostname, RouteWrite, Snapshot, Zone};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::tunnel_id;
use crate::credential::Credential;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::permission::{self, Need};
use crate::state::Shared;
use crate::{body, zone};

#[derive(Deserialize)]
struct PutBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    user_hostname: Option<String>,
    #[serde(default)]
    overwrite_existing: bool,
    lb_name: Option<String>,
    lb_pool: Option<String>,
}

/// Leads a host name to a tunnel, or to a pool of which it is a member (section 16.4 of the tunnel protocol).
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path((zone, tunnel)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    let zone = zone::find(&snapshot, &zone)?;
    let tunnel = tunnel_id(&tunnel).ok_or_else(|| ApiError::no_object(&format!("tunnel {tunnel}")))?;
    let body: PutBody = body::json(body, body::SMALL).await?;
    match body.kind.as_deref() {
        Some("dns") => (),
        Some("lb") => {
            let name = body.lb_name.ok_or_else(|| ApiError::not_valid("lb_name: a host name is wanted"))?;
            let pool = body.lb_pool.ok_or_else(|| ApiError::not_valid("lb_pool: the name of a pool is wanted"))?;
            let (name, zone) = place(&snapshot, zone, "lb_name", &name)?;
            let account = snapshot.account().id;
            permission::check(&token.terms, Need::Zone(Area::LoadBalancers, zone.id), true, account)?;
            permission::check(&token.terms, Need::Account(Area::Pools, None), true, account)?;
            let joined = registry.join_pool(Timestamp::now(), zone.id, name.clone(), &pool, tunnel).await?;
            let (load_balancer, pool) = (word(joined.load_balancer), word(joined.pool));
            return Ok(success(json!({ "load_balancer": load_balancer, "pool": pool, "name": name })));
        }
        _ => return Err(ApiError::not_valid("type: \"dns\" or \"lb\" is wanted")),
    }
    let wanted = body.user_hostname.ok_or_else(|| ApiError::not_valid("user_hostname: a host name is wanted"))?;
    let (hostname, zone) = place(&snapshot, zone, "user_hostname", &wanted)?;
    // It may lie in another zone than the path's.
    permission::check(&token.terms, Need::Zone(Area::Dns, zone.id), true, snapshot.account().id)?;
    let write =
        registry.put_route(Timestamp::now(), zone.id, hostname.clone(), tunnel, body.overwrite_existing).await?;
    Ok(success(json!({ "cname": word(write), "name": hostname, "dns_tag": "" })))
}

#[derive(Deserialize)]
struct DeleteBody {
    lb_pool: String,
    connector_id: Option<Uuid>,
}

/// Takes a tunnel out of a pool, as its agent wants it that ends; not while another connector serves it.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path((zone, tunnel)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    zone::find(&snapshot, &zone)?;
    let tunnel = tunnel_id(&tunnel).ok_or_else(|| ApiError::no_object(&format!("tunnel {tunnel}")))?;
    let body: DeleteBody = body::json(body, body::SMALL).await?;
    permission::check(&token.terms, Need::Account(Area::Pools, None), true, snapshot.account().id)?;
    let has_left = registry.leave_pool(Timestamp::now(), &body.lb_pool, tunnel, body.connector_id).await?;
    Ok(success(json!({ "pool": word(if has_left { RouteWrite::Updated } else { RouteWrite::Unchanged }) })))
}

fn word(write: RouteWrite) -> &'static str {
    match write {
        RouteWrite::New => "new",
        RouteWrite::Updated => "updated",
        RouteWrite::Unchanged => "unchanged",
    }
}

/// The host name in full and its zone: a lone label is meant under the zone given, and a name in another zone of ours
/// is that one's, whatever zone the caller's credentials name.
fn place<'a>(
    snapshot: &'a Snapshot,
    zone: &'a Zone,
    member: &str,
    wanted: &str,
) -> Result<(Hostname, &'a Zone), ApiError> {
    let bad = |problem: registry::BadName| ApiError::not_valid(format!("{member}: {problem}"));
    let hostname = Hostname::parse(wanted).map_err(bad)?;
    if let Some(zone) = snapshot.zone_of(hostname.as_str()) {
        return Ok((hostname, zone));
    }
    if hostname.as_str().contains('.') {
        return Ok((hostname, zone));
    }
    Ok((zone.name.child(hostname.as_str()).map_err(bad)?, zone))
}
