//! Searching among monitors, pools and load balancers.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::load_balancer::may_read;
use super::pool::referrers;
use super::{Parameters, Reference, check_path, monitor};
use crate::credential::Credential;
use crate::envelope::{Answer, success_of_part};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// What has the wanted text in its name or its id. What is found is wrapped twice, as clients expect it.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(path): Path<Parameters>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    check_path(&snapshot, &path)?;
    let wanted = query.one("query").unwrap_or_default().to_lowercase();
    let (up, down) = match query.one("references") {
        None => (false, false),
        Some("*") => (true, true),
        Some("referrer") => (true, false),
        Some("referral") => (false, true),
        Some(_) => return Err(ApiError::not_valid("references: *, referral or referrer is wanted")),
    };
    let fits = |id: &str, name: &str| id.contains(&wanted) || name.to_lowercase().contains(&wanted);
    let mut found = Vec::new();
    let mut add = |id: String, name: &str, kind: &str, references: &mut dyn FnMut() -> Vec<Reference>| {
        if fits(&id, name) {
            let resource = json!({
                "resource_id": id, "resource_name": name, "resource_type": kind, "references": references(),
            });
            found.push(resource);
        }
    };
    for monitor in snapshot.monitors() {
        let mut references = || {
            let referrers = snapshot.referrers_of_monitor(monitor.id).filter(|_| up);
            referrers.map(Reference::from).collect()
        };
        add(monitor.id.to_string(), &monitor.terms.description, "monitor", &mut references);
    }
    for pool in snapshot.pools() {
        let mut references = || {
            let monitor = pool.terms.monitor.filter(|_| down).and_then(|id| snapshot.monitor(id));
            let referrers = referrers(pool, &snapshot, &token.terms).filter(|_| up);
            monitor.map(|monitor| monitor::referral(monitor)).into_iter().chain(referrers).collect()
        };
        add(pool.id.to_string(), &pool.terms.name, "pool", &mut references);
    }
    for balancer in snapshot.load_balancers().filter(|balancer| may_read(&token.terms, &snapshot, balancer.zone)) {
        let mut references = || {
            let pools = balancer.terms.pools().into_iter().filter(|_| down);
            pools.filter_map(|id| snapshot.pool(id)).map(|pool| super::pool::referral(pool)).collect()
        };
        add(balancer.id.to_string(), balancer.terms.name.as_str(), "load_balancer", &mut references);
    }
    let page = query.page(20, 1000)?;
    let total = found.len();
    let resources: Vec<Value> = found.into_iter().skip(page.start()).take(page.size).collect();
    let count = resources.len();
    let items = if resources.is_empty() { json!([]) } else { json!([{ "resources": resources }]) };
    Ok(success_of_part(json!({ "items": items, "resources": resources }), page, count, total))
}
