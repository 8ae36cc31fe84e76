//! Load balancers, of a zone or of the account.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{
    Affinity, Area, BadTerms, LoadBalancer, LoadBalancerId, LoadBalancerTerms, Object, Permission, Snapshot, Steering,
    TokenTerms, ZoneId,
};
use serde::{Deserialize as _, Serialize};
use serde_json::json;

use super::{Members, Parameters, all, parameter, terms};
use crate::credential::Credential;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::permission::{self, Need};
use crate::query::Query;
use crate::state::Shared;
use crate::{body, zone};

type Asking = Extension<Credential>;

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Asking,
    Path(path): Path<Parameters>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let balancers: Vec<_> = match zone_of(&snapshot, &path)? {
        Some(zone) => snapshot.load_balancers_of(zone).collect(),
        None => snapshot.load_balancers().filter(|balancer| may_read(&token.terms, &snapshot, balancer.zone)).collect(),
    };
    all(&balancers, &query, |balancer| Shown::new(balancer, &snapshot))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Asking,
    Path(path): Path<Parameters>,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(Shown::new(find(&snapshot, &path, &token.terms, false)?, &snapshot)))
}

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Asking,
    Path(path): Path<Parameters>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    let zone = zone_of(&snapshot, &path)?;
    let body: Members = body::json(body, body::SMALL).await?;
    let terms = read(&body, None)?;
    let zone = match zone {
        Some(zone) => zone,
        // The closest one that the name lies in.
        None => {
            let zone = snapshot.zone_of(terms.name.as_str()).map(|zone| zone.id);
            let zone = zone.ok_or_else(|| ApiError::not_valid("name: it lies in no zone of the account"))?;
            check(&token.terms, &snapshot, zone, true)?;
            zone
        }
    };
    let balancer = registry.create_load_balancer(Timestamp::now(), zone, terms).await?;
    Ok(success(Shown::new(&balancer, &registry.snapshot())))
}

pub(crate) async fn replace(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Asking,
    Path(path): Path<Parameters>,
    body: Body,
) -> Answer {
    write(&shared, &path, &token.terms, body, |body, _| read(body, None)).await
}

pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Asking,
    Path(path): Path<Parameters>,
    body: Body,
) -> Answer {
    let over = |body: &Members, old: &LoadBalancerTerms| {
        let mut old = old.clone();
        let affinity = body.get("session_affinity").and_then(|affinity| Affinity::deserialize(affinity).ok());
        if affinity.is_some_and(|affinity| affinity != old.steering.session_affinity) {
            // How long other sessions last fits these no more.
            old.steering.session_affinity_ttl = None;
        }
        read(body, Some(&old))
    };
    write(&shared, &path, &token.terms, body, over).await
}

async fn write(
    shared: &Shared,
    path: &Parameters,
    asking: &TokenTerms,
    body: Body,
    read: impl Fn(&Members, &LoadBalancerTerms) -> Result<LoadBalancerTerms, BadTerms>,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), path, asking, true)?.id;
    let body: Members = body::json(body, body::SMALL).await?;
    let balancer = registry.change_load_balancer(Timestamp::now(), id, |old| read(&body, old)).await?;
    Ok(success(Shown::new(&balancer, &registry.snapshot())))
}

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Asking,
    Path(path): Path<Parameters>,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &path, &token.terms, true)?.id;
    registry.delete_load_balancer(id).await?;
    Ok(success(json!({ "id": id })))
}

/// What a body asks for. Steering is read first, alone, since only so an error says where in it it is.
fn read(body: &Members, old: Option<&LoadBalancerTerms>) -> Result<LoadBalancerTerms, BadTerms> {
    let _: Steering = terms(body, old.map(|old| &old.steering))?;
    terms(body, old)
}

/// The zone of a path that has one.
fn zone_of(snapshot: &Snapshot, path: &Parameters) -> Result<Option<ZoneId>, ApiError> {
    match parameter(snapshot, path, "zone")? {
        "" => Ok(None),
        id => Ok(Some(zone::find(snapshot, id)?.id)),
    }
}

/// The load balancer of a path. Below the account, it may be of a zone that the token may not touch.
fn find<'a>(
    snapshot: &'a Snapshot,
    path: &Parameters,
    asking: &TokenTerms,
    write: bool,
) -> Result<&'a LoadBalancer, ApiError> {
    let zone = zone_of(snapshot, path)?;
    let id = parameter(snapshot, path, "balancer")?;
    let none = || ApiError::no_object(&format!("/load_balancers/{id}"));
    let found = id.parse::<LoadBalancerId>().ok().and_then(|id| snapshot.load_balancer(id));
    let found = found.filter(|found| zone.is_none_or(|zone| zone == found.zone)).ok_or_else(none)?;
    if zone.is_none() {
        if !may_read(asking, snapshot, found.zone) {
            return Err(none());
        }
        check(asking, snapshot, found.zone, write)?;
    }
    Ok(found)
}

pub(super) fn may_read(asking: &TokenTerms, snapshot: &Snapshot, zone: ZoneId) -> bool {
    let permission = Permission { area: Area::LoadBalancers, write: false };
    asking.may(permission, Object::Zone(snapshot.account().id, zone))
}

fn check(asking: &TokenTerms, snapshot: &Snapshot, zone: ZoneId, write: bool) -> Result<(), ApiError> {
    permission::check(asking, Need::Zone(Area::LoadBalancers, zone), write, snapshot.account().id)
}

/// A load balancer as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: LoadBalancerId,
    #[serde(flatten)]
    terms: &'a LoadBalancerTerms,
    zone_id: ZoneId,
    zone_name: String,
    created_on: Timestamp,
    modified_on: Timestamp,
}

impl<'a> Shown<'a> {
    fn new(balancer: &'a LoadBalancer, snapshot: &Snapshot) -> Self {
        Self {
            id: balancer.id,
            terms: &balancer.terms,
            zone_id: balancer.zone,
            zone_name: snapshot.zone(balancer.zone).map(|zone| zone.name.to_string()).unwrap_or_default(),
            created_on: balancer.created_at,
            modified_on: balancer.modified_at,
        }
    }
}
