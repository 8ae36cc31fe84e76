//! What nodes find out of pools, and that all of them have it.

use harness::{LIMIT, until};
use registry::{MemberId, MemberReport, PoolId, PoolReport, Registry};
use serde_json::json;

use crate::node::{at, connection, named};
use crate::together::Pair;

fn report(pool: PoolId, told: &[(MemberId, bool)]) -> PoolReport {
    let member = |(member, is_up): &(MemberId, bool)| MemberReport {
        member: *member,
        is_up: *is_up,
        since: at(5),
        reason: (!is_up).then(|| "HTTP 500 instead of 200".into()),
        code: Some(if *is_up { 200 } else { 500 }),
        millis: Some(12),
        is_unasked: false,
    };
    PoolReport { pool, members: told.iter().map(member).collect() }
}

fn well(registry: &Registry, pool: PoolId) -> (bool, Vec<bool>) {
    let health = registry.snapshot().health(pool).unwrap();
    (health.is_healthy, health.members.iter().map(|member| member.is_well()).collect())
}

pub(crate) async fn what_a_node_finds_out_of_a_pool_all_know(pair: Pair) {
    let Pair { here, there, .. } = &pair;
    let monitor = here.create_monitor(at(0), serde_json::from_value(json!({})).unwrap()).await.unwrap().id;
    let tunnel = here.create_tunnel(at(0), named("app")).await.unwrap().id;
    let behind = format!("{tunnel}.cfargotunnel.com");
    let terms = json!({ "name": "shop", "monitor": monitor, "minimum_origins": 2,
        "origins": [{ "address": "192.0.2.1" }, { "address": "192.0.2.2" }, { "address": behind }] });
    let pool = here.create_pool(at(0), serde_json::from_value(terms).unwrap()).await.unwrap();
    let members: Vec<_> = pool.members().map(|(id, _)| id).collect();
    until(LIMIT, "the pool is there", async || there.snapshot().pool(pool.id).is_some()).await;

    // Nobody has asked yet; the tunnel has no connection.
    assert_eq!(well(here, pool.id), (true, vec![true, true, false]));
    let link = here.connect(connection(tunnel, at(1)));
    here.report_health(report(pool.id, &[(members[0], false), (members[1], true)]));
    let expected = (true, vec![false, true, true]);
    assert_eq!(well(here, pool.id), expected, "one's own is there at once");
    until(LIMIT, "the other one knows", async || well(there, pool.id) == expected).await;
    let health = there.snapshot().health(pool.id).unwrap();
    assert_eq!((health.members[0].reason(), health.members[0].since()), (Some("HTTP 500 instead of 200"), Some(at(5))));
    assert_eq!((health.members[2].since(), health.members[2].link.unwrap().is_up), (Some(at(1)), true));

    assert_eq!(there.snapshot().health_reports(pool.id).next().map(|(node, _)| node), Some(here.node()));

    // One against one: it answers somebody.
    there.report_health(report(pool.id, &[(members[0], true), (members[1], true)]));
    until(LIMIT, "both count", async || well(here, pool.id) == (true, vec![true, true, true])).await;
    assert!(here.snapshot().health_at(pool.id, "lab01").unwrap().members[0].is_well());
    assert_eq!(here.snapshot().health_at(pool.id, "ams1").unwrap().members[0].probe, None);
    drop(link);
    there.report_health(report(pool.id, &[(members[0], false), (members[1], true)]));
    for registry in [here, there] {
        until(LIMIT, "too few are well", async || well(registry, pool.id) == (false, vec![false, true, false])).await;
    }

    here.withdraw_health(pool.id);
    there.leave().await;
    let nobody = async || here.snapshot().health_reports(pool.id).next().is_none();
    until(LIMIT, "what a node said goes with it", nobody).await;
    assert_eq!(well(here, pool.id), (true, vec![true, true, false]));
}
