//! Pools.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{BadTerms, LoadBalancer, MonitorId, Pool, PoolId, PoolTerms, Referrer, Snapshot, TokenTerms, Versioned};
use serde::Serialize;
use serde_json::json;

use super::load_balancer::may_read;
use super::{Members, Parameters, Reference, all, check_path, health, parameter, terms};
use crate::body;
use crate::credential::Credential;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    check_path(&snapshot, &path)?;
    let pools: Vec<_> = match query.one("monitor").map(str::parse::<MonitorId>) {
        Some(Ok(monitor)) => snapshot.pools_with(monitor).collect(),
        // What is no id, no pool has.
        Some(Err(_)) => Vec::new(),
        None => snapshot.pools().collect(),
    };
    all(&pools, &query, |pool| Shown::new(pool, &snapshot))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(Shown::new(find(&snapshot, &path)?, &snapshot)))
}

pub(crate) async fn create(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    check_path(&registry.snapshot(), &path)?;
    let body: Members = body::json(body, body::SMALL).await?;
    let terms: PoolTerms = terms(&body, None)?;
    let pool = registry.create_pool(Timestamp::now(), terms).await?;
    Ok(success(Shown::new(&pool, &registry.snapshot())))
}

/// Changes what all pools have in common: who is told of them.
pub(crate) async fn change_all(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    check_path(&registry.snapshot(), &path)?;
    let body: Members = body::json(body, body::SMALL).await?;
    let email = match body.get("notification_email") {
        Some(serde_json::Value::String(text)) => text.as_str(),
        Some(serde_json::Value::Null) => "",
        Some(_) | None => return Err(ApiError::not_valid("notification_email: e-mail addresses are wanted")),
    };
    registry.notify_of_pools(Timestamp::now(), email).await?;
    let snapshot = registry.snapshot();
    let pools: Vec<_> = snapshot.pools().collect();
    all(&pools, &Query::parse(""), |pool| Shown::new(pool, &snapshot))
}

pub(crate) async fn replace(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    write(&shared, &path, body, |body, _| terms(body, None)).await
}

pub(crate) async fn change(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    write(&shared, &path, body, |body, old| terms(body, Some(old))).await
}

async fn write(
    shared: &Shared,
    path: &Parameters,
    body: Body,
    read: impl Fn(&Members, &PoolTerms) -> Result<PoolTerms, BadTerms>,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), path)?.id;
    let body: Members = body::json(body, body::SMALL).await?;
    let pool = registry.change_pool(Timestamp::now(), id, |old| read(&body, old)).await?;
    Ok(success(Shown::new(&pool, &registry.snapshot())))
}

pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &path)?.id;
    registry.delete_pool(id).await?;
    Ok(success(json!({ "id": id })))
}

/// What is known of a pool's health, as each PoP finds it out.
pub(crate) async fn health(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let pool = find(&snapshot, &path)?;
    Ok(success(health::shown(pool, &snapshot, &shared.state.facts.location)))
}

/// What the pool refers to, and what refers to it as far as the caller may see it.
pub(crate) async fn references(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(path): Path<Parameters>,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let pool = find(&snapshot, &path)?;
    let monitor = pool.terms.monitor.and_then(|id| snapshot.monitor(id));
    let referral = monitor.map(|monitor| super::monitor::referral(monitor));
    let references: Vec<_> = referral.into_iter().chain(referrers(pool, &snapshot, &token.terms)).collect();
    Ok(success(references))
}

/// The load balancers that refer to a pool, of zones that whoever asks may look at.
pub(super) fn referrers(pool: &Pool, snapshot: &Snapshot, asking: &TokenTerms) -> impl Iterator<Item = Reference> {
    let balancers = snapshot.load_balancers_with(pool.id);
    let balancers = balancers.filter(|balancer| may_read(asking, snapshot, balancer.zone));
    let referrer = |balancer: &Arc<Versioned<LoadBalancer>>| Referrer::LoadBalancer {
        id: balancer.id,
        name: balancer.terms.name.clone(),
    };
    balancers.map(referrer).map(Reference::from)
}

/// How a pool shows as what something refers to.
pub(super) fn referral(pool: &Pool) -> Reference {
    Reference {
        reference_type: "referral",
        resource_id: pool.id.to_string(),
        resource_name: pool.terms.name.to_string(),
        resource_type: "pool",
    }
}

pub(super) fn find<'a>(snapshot: &'a Snapshot, path: &Parameters) -> Result<&'a Pool, ApiError> {
    let id = parameter(snapshot, path, "pool")?;
    let pool = id.parse().ok().and_then(|id| snapshot.pool(id));
    pool.map(|pool| &pool.value).ok_or_else(|| ApiError::no_object(&format!("/load_balancers/pools/{id}")))
}

/// A pool as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: PoolId,
    /// Whether visitors may be led there, as far as is known.
    healthy: bool,
    #[serde(flatten)]
    terms: &'a PoolTerms,
    created_on: Timestamp,
    modified_on: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<Timestamp>,
}

impl<'a> Shown<'a> {
    fn new(pool: &'a Pool, snapshot: &Snapshot) -> Self {
        Self {
            id: pool.id,
            healthy: snapshot.health(pool.id).is_some_and(|health| health.is_healthy),
            terms: &pool.terms,
            created_on: pool.created_at,
            modified_on: pool.modified_at,
            disabled_at: pool.disabled_at,
        }
    }
}
