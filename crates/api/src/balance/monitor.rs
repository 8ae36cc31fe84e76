//! Monitors.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{BadTerms, Monitor, MonitorId, MonitorTerms, MonitorType, Snapshot};
use serde::{Deserialize as _, Serialize};
use serde_json::json;

use super::{Members, Parameters, Reference, all, check_path, parameter, terms};
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    check_path(&snapshot, &path)?;
    let monitors: Vec<_> = snapshot.monitors().collect();
    all(&monitors, &query, |monitor| Shown::new(monitor))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let id = find(&snapshot, &path)?;
    let monitor = snapshot.monitor(id).ok_or_else(|| no_monitor(&id.to_string()))?;
    Ok(success(Shown::new(monitor)))
}

pub(crate) async fn create(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    check_path(&registry.snapshot(), &path)?;
    let body: Members = body::json(body, body::SMALL).await?;
    let terms: MonitorTerms = terms(&body, None)?;
    let monitor = registry.create_monitor(Timestamp::now(), terms).await?;
    Ok(success(Shown::new(&monitor)))
}

pub(crate) async fn replace(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    write(&shared, &path, body, |body, _| terms(body, None)).await
}

pub(crate) async fn change(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    let over = |body: &Members, old: &MonitorTerms| {
        let kind = body.get("type").and_then(|kind| MonitorType::deserialize(kind).ok());
        terms(body, Some(&old.as_type(kind.unwrap_or(old.kind))))
    };
    write(&shared, &path, body, over).await
}

async fn write(
    shared: &Shared,
    path: &Parameters,
    body: Body,
    read: impl Fn(&Members, &MonitorTerms) -> Result<MonitorTerms, BadTerms>,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), path)?;
    let body: Members = body::json(body, body::SMALL).await?;
    let monitor = registry.change_monitor(Timestamp::now(), id, |old| read(&body, old)).await?;
    Ok(success(Shown::new(&monitor)))
}

pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &path)?;
    registry.delete_monitor(id).await?;
    Ok(success(json!({ "id": id })))
}

/// What refers to the monitor.
pub(crate) async fn references(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let id = find(&snapshot, &path)?;
    let monitor = snapshot.monitor(id).ok_or_else(|| no_monitor(&id.to_string()))?;
    let references: Vec<Reference> = snapshot.referrers_of_monitor(monitor.id).map(Reference::from).collect();
    Ok(success(references))
}

/// How a monitor shows as what something refers to. It has no name of its own.
pub(super) fn referral(monitor: &Monitor) -> Reference {
    Reference {
        reference_type: "referral",
        resource_id: monitor.id.to_string(),
        resource_name: monitor.terms.description.to_string(),
        resource_type: "monitor",
    }
}

/// The id of a monitor in a path; whether there is one is another question.
fn find(snapshot: &Snapshot, path: &Parameters) -> Result<MonitorId, ApiError> {
    let id = parameter(snapshot, path, "monitor")?;
    id.parse().map_err(|_| no_monitor(id))
}

fn no_monitor(id: &str) -> ApiError {
    ApiError::no_object(&format!("/load_balancers/monitors/{id}"))
}

/// A monitor as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: MonitorId,
    #[serde(flatten)]
    terms: &'a MonitorTerms,
    created_on: Timestamp,
    modified_on: Timestamp,
}

impl<'a> Shown<'a> {
    fn new(monitor: &'a Monitor) -> Self {
        Self { id: monitor.id, terms: &monitor.terms, created_on: monitor.created_at, modified_on: monitor.modified_at }
    }
}
