//! Shares by label: whatever is configured, they hold, move no more visitors than they have to, and lead to nobody who is not well.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use balance::{Board, COOKIE, Failure, Member, Plan, Standing, Target, Visitor};
use http::header::COOKIE as COOKIES;
use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use registry::{Hostname, Labels, LoadBalancerId, NewTunnel, PoolId, PoolTerms, Registry, TunnelChange, TunnelName};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

/// A load balancer of one pool, which can be changed.
struct Rig {
    registry: Registry,
    board: Board,
    pool: PoolId,
    balancer: LoadBalancerId,
}

impl Rig {
    /// So many members for each value; those of no name have none.
    async fn start(counts: &[(&str, u8)], pool: Value, balancer: Value) -> Self {
        let origins = counts.iter().zip(0u8..).flat_map(|((value, count), group)| {
            let labels = if value.is_empty() { json!({}) } else { json!({ "release": value }) };
            (0..*count).map(move |at| json!({ "address": format!("10.0.{group}.{at}"), "labels": labels }))
        });
        Self::of(json!(origins.collect::<Vec<_>>()), pool, balancer).await
    }

    async fn of(origins: Value, mut pool: Value, mut balancer: Value) -> Self {
        let registry = Registry::in_memory(NOW).await.unwrap();
        let zone = registry.ensure_zone(NOW, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
        (pool["name"], pool["origins"]) = (json!("p"), origins);
        let pool = registry.create_pool(NOW, serde_json::from_value(pool).unwrap()).await.unwrap().id;
        balancer["name"] = json!("a.example.test");
        (balancer["default_pools"], balancer["fallback_pool"]) = (json!([pool]), json!(pool));
        let terms = serde_json::from_value(balancer).unwrap();
        let balancer = registry.create_load_balancer(NOW, zone, terms).await.unwrap().id;
        Self { registry, board: Board::default(), pool, balancer }
    }

    /// Says who gets which share from then on.
    async fn split(&self, now: Timestamp, weights: &Value) {
        let steering = json!({ "key": "release", "weights": weights });
        let change = |terms: &PoolTerms| {
            let label_steering = Some(serde_json::from_value(steering.clone()).unwrap());
            Ok(PoolTerms { label_steering, ..terms.clone() })
        };
        self.registry.change_pool(now, self.pool, change).await.unwrap();
    }

    fn plan(&self) -> Arc<Plan> {
        let snapshot = self.registry.snapshot();
        self.board.plan(&snapshot, snapshot.load_balancer(self.balancer).unwrap(), NOW)
    }
}

fn visitor(address: u32, headers: &HeaderMap) -> Visitor<'_> {
    let address = IpAddr::V4(Ipv4Addr::from_bits(address));
    Visitor { address, pop: "ams1", country: None, region: None, place: None, headers }
}

fn value(member: &Member) -> &str {
    member.value.as_ref().map_or("", |value| value.as_str())
}

/// To which member this visitor is led first.
fn first(plan: &Plan, address: u32, random: u64) -> Arc<Member> {
    let headers = HeaderMap::new();
    plan.walk(&visitor(address, &headers), NOW, random).next(|_| true).unwrap().clone()
}

/// How many of so many visitors are led to each value.
fn counts(plan: &Plan, visitors: u32) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for number in 0..visitors {
        *counts.entry(value(&first(plan, number, number.into())).to_owned()).or_default() += 1;
    }
    counts
}

/// Within five standard deviations.
fn assert_share(count: u32, of: u32, share: f64) {
    let (of, count) = (f64::from(of), f64::from(count));
    let bound = 5.0 * (of * share * (1.0 - share)).sqrt();
    assert!((count - of * share).abs() <= bound, "{count} of {of}, and not {share}");
}

fn suspect(member: &Member) {
    (0..3).for_each(|_| member.begin().failed(Failure::Connect, NOW));
}

fn is_well(member: &Member) -> bool {
    matches!(member.vitals().standing(NOW), Standing::Well(_))
}

const VISITORS: u32 = 20_000;

#[tokio::test]
async fn shares_hold_however_many_members_each_value_has() {
    for policy in ["random", "hash", "least_connections"] {
        for (stable, canary) in [(1, 1), (7, 1), (2, 9)] {
            let pool = json!({ "origin_steering": { "policy": policy } });
            let rig = Rig::start(&[("stable", stable), ("canary", canary), ("", 3)], pool, json!({})).await;
            for (weight, share) in [(json!([90, 10]), 0.1), (json!([0.5, 0.5]), 0.5), (json!([0, 1]), 1.0)] {
                rig.split(NOW, &json!({ "stable": weight[0], "canary": weight[1] })).await;
                let counts = counts(&rig.plan(), VISITORS);
                assert_share(counts.get("canary").copied().unwrap_or_default(), VISITORS, share);
                assert_eq!(counts.get(""), None, "members without a listed value get nobody");
            }
        }
    }
}

#[tokio::test]
async fn within_a_value_members_have_the_shares_of_their_weights() {
    let origin = |at: u8, release, weight| json!({ "address": format!("10.0.0.{at}"), "weight": weight, "labels": { "release": release } });
    let origins = json!([origin(0, "stable", 0.75), origin(1, "stable", 0.25), origin(2, "canary", 0.01)]);
    let rig = Rig::of(origins, json!({}), json!({})).await;
    rig.split(NOW, &json!({ "stable": 80, "canary": 20 })).await;
    let plan = rig.plan();
    let mut counts = [0; 3];
    for number in 0..VISITORS {
        let Target::Address(IpAddr::V4(address), _) = first(&plan, 1, number.into()).target else {
            panic!("no address")
        };
        counts[usize::from(address.octets()[3])] += 1;
    }
    for (count, share) in counts.into_iter().zip([0.6, 0.2, 0.2]) {
        assert_share(count, VISITORS, share);
    }
}

#[tokio::test]
async fn a_drained_member_gets_nobody_whatever_its_value_has() {
    let origin = |at: u8, release, weight| json!({ "address": format!("10.0.0.{at}"), "weight": weight, "labels": { "release": release } });
    let origins = json!([origin(0, "stable", 1), origin(1, "canary", 0)]);
    let rig = Rig::of(origins, json!({}), json!({})).await;
    rig.split(NOW, &json!({ "stable": 90, "canary": 10 })).await;
    let plan = rig.plan();
    assert_eq!(counts(&plan, 1_000), BTreeMap::from([("stable".to_owned(), 1_000)]));
    suspect(&first(&plan, 1, 1));
    assert_eq!(counts(&plan, 10), BTreeMap::from([("canary".to_owned(), 10)]), "until nobody else is well");
}

#[tokio::test]
async fn by_hash_a_change_of_two_shares_moves_the_difference_and_of_more_at_most_twice_that() {
    let pool = json!({ "origin_steering": { "policy": "hash" } });
    let rig = Rig::start(&[("a", 3), ("b", 1), ("c", 2)], pool, json!({})).await;
    let everybody = |plan: &Plan| -> Vec<_> {
        (0..VISITORS).map(|address| first(plan, address, rand::random())).collect::<Vec<_>>()
    };
    rig.split(NOW, &json!({ "a": 90, "b": 10 })).await;
    let before = everybody(&rig.plan());
    rig.split(NOW, &json!({ "a": 75, "b": 25 })).await;
    let after = everybody(&rig.plan());
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before.id != after.id).collect();
    assert_share(moved.len() as u32, VISITORS, 0.15);
    assert!(moved.iter().all(|(before, after)| (value(before), value(after)) == ("a", "b")), "nobody moves back");
    rig.split(NOW, &json!({ "a": 90, "b": 10 })).await;
    let ids = |members: &[Arc<Member>]| members.iter().map(|member| member.id).collect::<Vec<_>>();
    assert_eq!(ids(&everybody(&rig.plan())), ids(&before), "the same shares are the same visitors");

    let mut random = StdRng::seed_from_u64(1);
    let mut old: Option<([f64; 3], Vec<Arc<Member>>)> = None;
    for _ in 0..12 {
        let weights = [(); 3].map(|()| f64::from(random.random_range(1..100)));
        rig.split(NOW, &json!({ "a": weights[0], "b": weights[1], "c": weights[2] })).await;
        let shares = weights.map(|weight| weight / weights.iter().sum::<f64>());
        let members = everybody(&rig.plan());
        if let Some((former, before)) = old {
            let shifted: f64 = former.iter().zip(&shares).map(|(old, new)| (old - new).max(0.0)).sum();
            let moved = before.iter().zip(&members).filter(|(before, after)| before.id != after.id).count() as f64;
            let most = 2.0 * shifted / (1.0 + shifted);
            let bound = f64::from(VISITORS) * most + 5.0 * (f64::from(VISITORS) * most).sqrt();
            assert!(moved <= bound, "{former:?} to {shares:?}: {moved} moved, {shifted} shifted");
        }
        old = Some((shares, members));
    }
}

#[tokio::test]
async fn who_fails_at_a_value_goes_on_at_another_and_only_its_visitors_move() {
    let pool = json!({ "origin_steering": { "policy": "hash" } });
    let rig = Rig::start(&[("stable", 2), ("canary", 1)], pool, json!({})).await;
    rig.split(NOW, &json!({ "stable": 70, "canary": 30 })).await;
    let plan = rig.plan();
    let before: Vec<_> = (0..1000).map(|address| first(&plan, address, 1)).collect();
    for address in 0..1000 {
        let headers = HeaderMap::new();
        let mut walk = plan.walk(&visitor(address, &headers), NOW, 1);
        let met: Vec<_> = std::iter::from_fn(|| walk.next(|_| true)).map(|member| value(member)).collect();
        assert_eq!(met.len(), 3, "each is asked in the end");
    }
    let canary = plan.members().find(|member| value(member) == "canary").unwrap();
    suspect(canary);
    for (address, before) in (0..1000).zip(&before) {
        let after = first(&plan, address, 1);
        assert_eq!(value(&after), "stable");
        assert!(after.id == before.id || before.id == canary.id);
    }
}

/// The headers of a visitor who has a session with this member.
fn session(member: &Member) -> HeaderMap {
    HeaderMap::from_iter([(COOKIES, HeaderValue::try_from(format!("{COOKIE}={}", member.id)).unwrap())])
}

#[tokio::test]
async fn without_weight_nobody_comes_and_sessions_end_unless_they_may_drain() {
    for drain in [0, 60] {
        let balancer =
            json!({ "session_affinity": "cookie", "session_affinity_attributes": { "drain_duration": drain } });
        let rig = Rig::start(&[("stable", 2), ("canary", 1)], json!({}), balancer).await;
        rig.split(NOW, &json!({ "stable": 99, "canary": 1 })).await;
        let plan = rig.plan();
        let canary = plan.members().find(|member| value(member) == "canary").unwrap().clone();
        let headers = session(&canary);
        let led = |after: i64| {
            let plan = rig.plan();
            let now = NOW + SignedDuration::from_secs(after);
            let mut walk = plan.walk(&visitor(1, &headers), now, rand::random());
            let (member, is_new) = (walk.next(|_| true).unwrap().id, walk.cookie(true).is_some());
            (member == canary.id, is_new)
        };
        assert!((0..50).all(|_| led(0) == (true, false)), "a small share has its sessions");
        rig.split(NOW, &json!({ "stable": 1, "canary": 0 })).await;
        let stays = (true, false);
        let leaves = (false, true);
        assert_eq!(led(59), if drain > 0 { stays } else { leaves });
        assert_eq!(led(61), leaves);
        assert_eq!(counts(&rig.plan(), 500).get("canary"), None);
        // A change of something else leaves the time as it is.
        rig.split(NOW + SignedDuration::from_secs(50), &json!({ "stable": 2, "canary": 0 })).await;
        assert_eq!(led(61), leaves);
        rig.plan().members().filter(|member| value(member) == "stable").for_each(|member| suspect(member));
        assert_eq!(led(1), stays, "nobody else is well");
        assert_eq!(counts(&rig.plan(), 500).get("canary"), Some(&500));
    }
}

#[tokio::test]
async fn members_behind_tunnels_have_the_labels_of_these_unless_they_say_otherwise() {
    let rig = Rig::start(&[], json!({}), json!({})).await;
    rig.split(NOW, &json!({ "stable": 1, "canary": 1 })).await;
    let name = TunnelName::parse("t").unwrap();
    let labels = Labels::parse(["release=stable"]).unwrap();
    let new = NewTunnel { name, secret: None, config_source: registry::ConfigSource::Local, labels };
    let tunnel = rig.registry.create_tunnel(NOW, new).await.unwrap().id;
    let address = format!("{tunnel}.cfargotunnel.com");
    let own = json!({ "address": address, "header": { "Host": ["a.test"] }, "labels": { "release": "canary" } });
    let origins = json!([{ "address": address }, own, { "address": "10.0.0.1" }]);
    let change = |terms: &PoolTerms| {
        Ok(PoolTerms { origins: serde_json::from_value(origins.clone()).unwrap(), ..terms.clone() })
    };
    rig.registry.change_pool(NOW, rig.pool, change).await.unwrap();
    let values = || rig.plan().members().map(|member| value(member).to_owned()).collect::<Vec<_>>();
    assert_eq!(values(), ["stable", "canary", ""]);
    let labels = Some(Labels::parse(["release=old"]).unwrap());
    rig.registry.change_tunnel(tunnel, TunnelChange { labels, ..TunnelChange::default() }).await.unwrap();
    assert_eq!(values(), ["old", "canary", ""], "it is seen at once");
}

#[tokio::test]
async fn nobody_unwell_or_without_a_share_serves_while_somebody_better_could() {
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..80 {
        let counts =
            [("a", random.random_range(0..4)), ("b", random.random_range(0..4)), ("", random.random_range(0..3))];
        let policy = ["random", "hash", "least_outstanding_requests"][random.random_range(0..3)];
        let affinity = ["none", "cookie", "ip_cookie"][random.random_range(0..3)];
        let pool = json!({ "origin_steering": { "policy": policy } });
        let rig = Rig::start(&counts, pool, json!({ "session_affinity": affinity })).await;
        let weight = [0, 1, 50][random.random_range(0..3)];
        rig.split(NOW, &json!({ "a": 50, "b": weight })).await;
        let plan = rig.plan();
        plan.members().filter(|_| random.random_bool(0.4)).for_each(|member| suspect(member));
        let has_share = |member: &Member| value(member) == "a" || (value(member) == "b" && weight > 0);
        let members: Vec<_> = plan.members().cloned().collect();
        for address in 0..40 {
            let headers = match members.get(random.random_range(0..8)) {
                Some(member) => session(member),
                None => HeaderMap::new(),
            };
            let visitor = visitor(address, &headers);
            let Some(led) = plan.walk(&visitor, NOW, random.random()).next(|_| true) else {
                assert!(members.is_empty());
                continue;
            };
            let better = |other: &Arc<Member>| {
                (is_well(other) && !is_well(led))
                    || (is_well(other) == is_well(led) && has_share(other) && !has_share(led))
            };
            assert!(!members.iter().any(better), "round {round}: {led:?}");
        }
    }
}
