use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Area, Hostname, RouteWrite, Snapshot, Zone};
use serde::Deserialize;
use serde_json::json;

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
}

/// Leads a host name to a tunnel (section 16.4 of the tunnel protocol).
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
            let problem =
                "type: this edge leads nobody by load balancers yet; lead a hostname to the tunnel (type dns)";
            return Err(ApiError::not_valid(problem));
        }
        _ => return Err(ApiError::not_valid("type: \"dns\" is wanted")),
    }
    let wanted = body.user_hostname.ok_or_else(|| ApiError::not_valid("user_hostname: a host name is wanted"))?;
    let (hostname, zone) = place(&snapshot, zone, &wanted)?;
    // It may lie in another zone than the path's.
    permission::check(&token.terms, Need::Zone(Area::Dns, zone.id), true, snapshot.account().id)?;
    let write =
        registry.put_route(Timestamp::now(), zone.id, hostname.clone(), tunnel, body.overwrite_existing).await?;
    let write = match write {
        RouteWrite::New => "new",
        RouteWrite::Updated => "updated",
        RouteWrite::Unchanged => "unchanged",
    };
    Ok(success(json!({ "cname": write, "name": hostname, "dns_tag": "" })))
}

/// The host name in full and its zone: a lone label is meant under the zone given, and a name in another zone of ours
/// is that one's, whatever zone the caller's credentials name.
fn place<'a>(snapshot: &'a Snapshot, zone: &'a Zone, wanted: &str) -> Result<(Hostname, &'a Zone), ApiError> {
    let bad = |problem: registry::BadName| ApiError::not_valid(format!("user_hostname: {problem}"));
    let hostname = Hostname::parse(wanted).map_err(bad)?;
    if let Some(zone) = snapshot.zone_of(hostname.as_str()) {
        return Ok((hostname, zone));
    }
    if hostname.as_str().contains('.') {
        return Ok((hostname, zone));
    }
    Ok((zone.name.child(hostname.as_str()).map_err(bad)?, zone))
}
