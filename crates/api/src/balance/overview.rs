//! Pools as people look at them: members with their health, its history, and shares of visitors, wanted and served. Below
//! `/snicket/v1`, since the original API has no such thing; members are changed there one by one, whoever else changes the pool.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{
    Area, BadTerms, HealthChange, LabelWord, MemberHealth, MemberId, Object, Origin, OriginPolicy, Permission, Pool,
    PoolId, PoolTerms, Snapshot, TokenTerms, Versioned,
};
use serde_json::{Value, json};

use super::{Members, pool::referrers, terms};
use crate::body;
use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::{MemberHere, Shared};

/// Pools on a page unless the caller says how many, and at most.
const PAGE: (usize, usize) = (50, 1_000);

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let mut pools: Vec<_> = snapshot.pools().collect();
    pools.sort_by(|one, other| one.terms.name.cmp(&other.terms.name));
    Ok(page(&pools, query.page(PAGE.0, PAGE.1)?, |pool| shown(pool, &snapshot, &shared, &token.terms)))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(pool): Path<String>,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(shown(find(&snapshot, &pool)?, &snapshot, &shared, &token.terms)))
}

/// Adds an origin, in the members that the v4 API has for one.
pub(crate) async fn add_member(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(pool): Path<String>,
    body: Body,
) -> Answer {
    let id = find(&shared.state.registry.snapshot(), &pool)?.id;
    let body: Members = body::json(body, body::SMALL).await?;
    let origin: Origin = terms(&body, None)?;
    edit(&shared, &token.terms, id, |origins| {
        origins.push(origin.clone());
        Ok(())
    })
    .await
}

/// Changes an origin: whatever is said of it, all else stays.
pub(crate) async fn change_member(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path((pool, member)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let (pool, member) = find_member(&shared.state.registry.snapshot(), &pool, &member)?;
    let body: Members = body::json(body, body::SMALL).await?;
    edit(&shared, &token.terms, pool, |origins| {
        let Some(origin) = origins.iter_mut().find(|origin| MemberId::of(pool, origin) == member) else {
            return Err(gone(member));
        };
        *origin = terms(&body, Some(&*origin))?;
        Ok(())
    })
    .await
}

/// Takes an origin out of its pool.
pub(crate) async fn remove_member(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path((pool, member)): Path<(String, String)>,
) -> Answer {
    let (pool, member) = find_member(&shared.state.registry.snapshot(), &pool, &member)?;
    edit(&shared, &token.terms, pool, |origins| {
        origins.retain(|origin| MemberId::of(pool, origin) != member);
        Ok(())
    })
    .await
}

/// Changes the origins of a pool as it then is, so that nothing of another change is lost.
async fn edit(
    shared: &Shared,
    asking: &TokenTerms,
    pool: PoolId,
    change: impl Fn(&mut Vec<Origin>) -> Result<(), BadTerms>,
) -> Answer {
    let registry = &shared.state.registry;
    let changed = registry.change_pool(Timestamp::now(), pool, |old| {
        let mut terms: PoolTerms = old.clone();
        change(&mut terms.origins)?;
        Ok(terms)
    });
    let pool = changed.await?;
    Ok(success(shown(&pool, &registry.snapshot(), shared, asking)))
}

fn gone(member: MemberId) -> BadTerms {
    BadTerms::new(format_args!("member: {member} is no member of the pool any more"))
}

/// By its id or its name.
fn find<'a>(snapshot: &'a Snapshot, pool: &str) -> Result<&'a Arc<Versioned<Pool>>, ApiError> {
    let by_id = pool.parse().ok().and_then(|id| snapshot.pool(id));
    by_id.or_else(|| snapshot.pool_named(pool)).ok_or_else(|| ApiError::no_object(&format!("/pools/{pool}")))
}

fn find_member(snapshot: &Snapshot, pool: &str, member: &str) -> Result<(PoolId, MemberId), ApiError> {
    let pool = find(snapshot, pool)?;
    let found = member.parse().ok().filter(|wanted| pool.members().any(|(id, _)| id == *wanted));
    let found = found.ok_or_else(|| ApiError::no_object(&format!("/pools/{}/members/{member}", pool.id)))?;
    Ok((pool.id, found))
}

fn shown(pool: &Pool, snapshot: &Snapshot, shared: &Shared, asking: &TokenTerms) -> Value {
    let here = |member| shared.state.known_here.as_ref().map(|known| known(member)).unwrap_or_default();
    let health = snapshot.health(pool.id);
    let members: Vec<_> = pool.members().map(|(id, origin)| (origin, here(id))).collect();
    let sees_tunnels =
        asking.may(Permission { area: Area::Tunnels, write: false }, Object::Account(snapshot.account().id));
    let recent: u64 = members.iter().map(|(_, here)| here.recent).sum();
    let known = health.as_ref().map(|health| &*health.members).unwrap_or_default();
    let shown = members.into_iter().zip(known).map(|((origin, here), health)| {
        let mut shown = member(origin, health, &here);
        let tunnel = origin.tunnel().filter(|_| sees_tunnels).and_then(|tunnel| snapshot.tunnel(tunnel));
        shown["tunnel_name"] = json!(tunnel.map(|tunnel| tunnel.name.as_str()));
        let label = |origin: &Origin| snapshot.label(origin, &pool.terms.label_steering.as_ref()?.key).cloned();
        shown["label"] = json!(label(origin));
        shown["wanted_share"] = json!(wanted_share(&pool.terms, origin, label));
        shown["served_share"] = json!((recent > 0).then(|| rounded(here.recent as f64 / recent as f64)));
        shown
    });
    json!({
        "id": pool.id,
        "name": pool.terms.name,
        "enabled": pool.terms.enabled,
        "healthy": health.as_ref().is_some_and(|health| health.is_healthy),
        "minimum_origins": pool.terms.minimum_origins,
        "monitor": pool.terms.monitor,
        "policy": pool.terms.origin_steering.policy,
        "label_steering": pool.terms.label_steering.as_ref().map(|it| json!({ "key": it.key, "weights": it.weights })),
        "load_balancers": referrers(pool, snapshot, asking).map(|it| it.resource_name).collect::<Vec<_>>(),
        "counted_by": { "node": shared.state.registry.node(), "location": shared.state.facts.location },
        "members": shown.collect::<Vec<_>>(),
    })
}

fn member(origin: &Origin, health: &MemberHealth, here: &MemberHere) -> Value {
    let word = |is_up| if is_up { "up" } else { "down" };
    let probe = health.probe.as_ref();
    json!({
        "id": health.id,
        "name": origin.name,
        "address": origin.address,
        "port": origin.port,
        "host": origin.header.host.first(),
        "tunnel_id": origin.tunnel(),
        "enabled": origin.enabled,
        "disabled_at": origin.disabled_at,
        "weight": origin.weight,
        "healthy": health.is_well(),
        "reason": health.reason(),
        "since": health.since(),
        "link": health.link.map(|link| word(link.is_up)),
        "probe": probe.map(|probe| word(probe.is_up)),
        "response_code": probe.and_then(|probe| probe.code),
        "rtt_ms": probe.and_then(|probe| probe.time).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        "voices": probe.map(|probe| json!({ "agree": probe.voices.0, "of": probe.voices.1 })),
        "requests": here.requests,
        "recent_requests": here.recent,
        "history": here.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn change(change: &HealthChange) -> Value {
    json!({ "at": change.at, "healthy": change.is_well, "reason": change.reason })
}

/// The share of visitors without a session that an origin is to get while all that are enabled are well; `None`: it follows from how much
/// each has to do.
fn wanted_share(pool: &PoolTerms, origin: &Origin, label: impl Fn(&Origin) -> Option<LabelWord>) -> Option<f64> {
    match pool.origin_steering.policy {
        OriginPolicy::Random | OriginPolicy::Hash => (),
        OriginPolicy::LeastOutstandingRequests | OriginPolicy::LeastConnections => return None,
    }
    let enabled = || pool.origins.iter().filter(|origin| origin.enabled);
    // That of its value of the label, if shares go by one and somebody has any.
    let by_label = pool.label_steering.as_ref().and_then(|steering| {
        let weight = |value: &Option<LabelWord>| value.as_ref().and_then(|it| steering.weights.get(it)).unwrap_or(&0.0);
        let is_any = enabled().any(|origin| origin.weight > 0.0);
        let values: BTreeSet<_> = enabled().filter(|origin| !is_any || origin.weight > 0.0).map(&label).collect();
        let total: f64 = values.iter().map(weight).sum();
        let own = label(origin);
        (total > 0.0).then(|| if values.contains(&own) { weight(&own) / total } else { 0.0 })
    });
    let value = by_label.map(|_| label(origin));
    let alike = || enabled().filter(|other| value.as_ref().is_none_or(|value| label(other) == *value));
    let total: f64 = alike().map(|origin| origin.weight).sum();
    let share = match origin.enabled {
        false => 0.0,
        true if total > 0.0 => origin.weight / total,
        // Where none has a weight, all have the same.
        true => 1.0 / alike().count() as f64,
    };
    Some(rounded(share * by_label.unwrap_or(1.0)))
}

/// To a hundredth of a percent.
fn rounded(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_from_the_weights_of_those_that_are_enabled() {
        let shares = |policy: &str, origins: &[(f64, bool)]| -> Vec<Option<f64>> {
            let origins: Vec<_> = origins
                .iter()
                .enumerate()
                .map(|(at, (weight, enabled))| json!({ "address": format!("h{at}.test"), "weight": weight, "enabled": enabled }))
                .collect();
            let pool = json!({ "name": "a", "origins": origins, "origin_steering": { "policy": policy } });
            let pool: PoolTerms = serde_json::from_value(pool).unwrap();
            pool.origins.iter().map(|origin| wanted_share(&pool, origin, |_| None)).collect()
        };
        assert_eq!(
            shares("random", &[(1.0, true), (0.5, true), (1.0, false)]),
            [Some(0.6667), Some(0.3333), Some(0.0)]
        );
        assert_eq!(shares("hash", &[(0.0, true), (0.5, true)]), [Some(0.0), Some(1.0)]);
        assert_eq!(shares("random", &[(0.0, true), (0.0, true), (0.0, false)]), [Some(0.5), Some(0.5), Some(0.0)]);
        assert_eq!(shares("least_connections", &[(1.0, true)]), [None]);
    }

    #[test]
    fn a_label_has_its_share_however_many_have_it() {
        let shares = |weights: Value, origins: &[(&str, f64)]| -> Vec<Option<f64>> {
            let origins: Vec<_> = origins
                .iter()
                .enumerate()
                .map(|(at, (release, weight))| {
                    json!({ "address": format!("h{at}.test"), "weight": weight, "labels": { "release": release } })
                })
                .collect();
            let steering = json!({ "key": "release", "weights": weights });
            let pool = json!({ "name": "a", "origins": origins, "label_steering": steering });
            let pool: PoolTerms = serde_json::from_value(pool).unwrap();
            let label = |origin: &Origin| origin.labels.get(&"release".parse().unwrap()).cloned();
            pool.origins.iter().map(|origin| wanted_share(&pool, origin, label)).collect()
        };
        let three = [("stable", 1.0), ("stable", 0.5), ("canary", 1.0)];
        assert_eq!(shares(json!({ "stable": 90, "canary": 10 }), &three), [Some(0.6), Some(0.3), Some(0.1)]);
        assert_eq!(shares(json!({ "stable": 90, "canary": 0 }), &three), [Some(0.6667), Some(0.3333), Some(0.0)]);
        assert_eq!(shares(json!({ "canary": 1, "gone": 9 }), &three), [Some(0.0), Some(0.0), Some(1.0)]);
        let drained = [("stable", 1.0), ("canary", 0.0)];
        assert_eq!(shares(json!({ "stable": 90, "canary": 10 }), &drained), [Some(1.0), Some(0.0)]);
        assert_eq!(shares(json!({ "gone": 9 }), &three[1..]), [Some(0.3333), Some(0.6667)]);
    }
}
