use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use http::header::COOKIE;
use http::{HeaderMap, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use registry::{Hostname, PoolId, Registry};
use serde_json::{Value, json};

use super::*;
use crate::{Board, Failure, Target};

const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

/// A plan over these pools, each with the members that are given; `terms` gets the pools' ids and says the rest.
async fn plan(pools: &[Value], terms: impl FnOnce(&[PoolId]) -> Value) -> Arc<Plan> {
    let registry = Registry::in_memory(NOW).await.unwrap();
    let zone = registry.ensure_zone(NOW, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
    let mut ids = Vec::new();
    for (at, pool) in pools.iter().enumerate() {
        let mut pool = pool.clone();
        pool["name"] = json!(format!("p{at}"));
        ids.push(registry.create_pool(NOW, serde_json::from_value(pool).unwrap()).await.unwrap().id);
    }
    let mut whole =
        json!({ "name": "a.example.test", "proxied": true, "default_pools": ids, "fallback_pool": ids.last() });
    let Value::Object(terms) = terms(&ids) else { panic!("no object") };
    whole.as_object_mut().unwrap().extend(terms);
    let balancer = registry.create_load_balancer(NOW, zone, serde_json::from_value(whole).unwrap()).await.unwrap();
    let snapshot = registry.snapshot();
    Board::default().plan(&snapshot, snapshot.load_balancer(balancer.id).unwrap(), NOW)
}

/// A pool of so many members, whose addresses end with 0 and on, and begin with the pool's number.
fn pool(number: u8, members: u8) -> Value {
    let origins: Vec<_> = (0..members).map(|at| json!({ "address": format!("10.0.{number}.{at}") })).collect();
    json!({ "origins": origins })
}

fn with(mut value: Value, member: &str, other: Value) -> Value {
    value[member] = other;
    value
}

fn visitor(address: u32, headers: &HeaderMap) -> Visitor<'_> {
    let address = IpAddr::V4(Ipv4Addr::from_bits(address));
    Visitor { address, pop: "ams1", country: None, region: None, place: None, headers }
}

/// Pool and member, as [`pool`] numbers them.
fn place(member: &Member) -> (u8, u8) {
    let Target::Address(IpAddr::V4(address), _) = member.target else { panic!("{:?}", member.target) };
    let [.., pool, member] = address.octets();
    (pool, member)
}

fn first(plan: &Plan, visitor: &Visitor<'_>, random: u64) -> (u8, u8) {
    place(plan.walk(visitor, NOW, random).next(|_| true).unwrap())
}

/// All that a walk gives, as if each failed.
fn all(plan: &Plan, visitor: &Visitor<'_>, random: u64) -> Vec<(u8, u8)> {
    let mut walk = plan.walk(visitor, NOW, random);
    std::iter::from_fn(|| walk.next(|_| true)).map(|member| place(member)).collect()
}

fn down(plan: &Plan, wanted: (u8, u8), is_down: bool) {
    let member = plan.members().find(|member| place(member) == wanted).unwrap();
    // Long ago, so that who comes back has all of its weight.
    let _ = member.vitals.set_answering(!is_down, Timestamp::UNIX_EPOCH);
}

fn suspect(plan: &Plan, wanted: (u8, u8)) {
    let member = plan.members().find(|member| place(member) == wanted).unwrap();
    (0..3).for_each(|_| member.begin().failed(Failure::Connect, NOW));
}

/// Within five standard deviations.
fn assert_share(count: usize, of: usize, share: f64) {
    let (of, count) = (of as f64, count as f64);
    let bound = 5.0 * (of * share * (1.0 - share)).sqrt();
    assert!((count - of * share).abs() <= bound, "{count} of {of}, and not {share}");
}

#[tokio::test]
async fn the_first_healthy_pool_serves_and_the_fallback_when_none_is() {
    let pools = [pool(0, 2), with(pool(1, 2), "minimum_origins", json!(2)), pool(2, 1)];
    let plan = plan(&pools, |ids| json!({ "default_pools": ids[..2] })).await;
    let headers = HeaderMap::new();
    let pool_of =
        |plan: &Plan| (0..50).map(|random| first(plan, &visitor(1, &headers), random).0).collect::<HashSet<_>>();
    assert_eq!(pool_of(&plan), [0].into());
    down(&plan, (0, 0), true);
    assert_eq!(pool_of(&plan), [0].into());
    down(&plan, (0, 1), true);
    assert_eq!(pool_of(&plan), [1].into());
    // One is fewer than it has to have.
    down(&plan, (1, 0), true);
    assert_eq!(pool_of(&plan), [2].into());
    // But better than nobody.
    down(&plan, (2, 0), true);
    assert_eq!(
        (0..50).map(|random| first(&plan, &visitor(1, &headers), random)).collect::<HashSet<_>>(),
        [(1, 1)].into()
    );
    down(&plan, (1, 1), true);
    assert_eq!(pool_of(&plan), [2].into());
}

#[tokio::test]
async fn members_and_pools_get_the_shares_of_their_weights() {
    let weighted = |number: u8, weights: &[f64]| {
        let origins = weights.iter().enumerate();
        let origins = origins.map(|(at, weight)| json!({ "address": format!("10.0.{number}.{at}"), "weight": weight }));
        json!({ "origins": origins.collect::<Vec<_>>() })
    };
    let pools = [weighted(0, &[0.9, 0.1]), weighted(1, &[0.5, 0.0, 0.25])];
    let steering = |ids: &[PoolId]| json!({ "steering_policy": "random", "random_steering": { "pool_weights": { ids[0].to_string(): 0.3 }, "default_weight": 0.1 } });
    let plan = plan(&pools, steering).await;
    let headers = HeaderMap::new();
    let mut counts = BTreeMap::<_, usize>::new();
    const DRAWS: usize = 40_000;
    for random in 0..DRAWS {
        *counts.entry(first(&plan, &visitor(1, &headers), random as u64)).or_default() += 1;
    }
    for (wanted, share) in [((0, 0), 0.675), ((0, 1), 0.075), ((1, 0), 1.0 / 6.0), ((1, 2), 1.0 / 12.0)] {
        assert_share(counts[&wanted], DRAWS, share);
    }
    assert_eq!(counts.get(&(1, 1)), None);
    // Who has no weight is there for when the others fail.
    assert!(all(&plan, &visitor(1, &headers), 1).len() >= 2);
    down(&plan, (1, 0), true);
    down(&plan, (1, 2), true);
    down(&plan, (0, 0), true);
    down(&plan, (0, 1), true);
    assert_eq!(first(&plan, &visitor(1, &headers), 1), (1, 1));
}

#[tokio::test]
async fn by_hash_only_the_visitors_of_one_that_leaves_move_and_they_return() {
    let plan = plan(&[with(pool(0, 8), "origin_steering", json!({ "policy": "hash" }))], |_| json!({})).await;
    let headers = HeaderMap::new();
    const VISITORS: usize = 8_000;
    let everybody = |plan: &Plan| -> Vec<_> {
        (0..VISITORS as u32).map(|address| first(plan, &visitor(address, &headers), rand::random())).collect()
    };
    let before = everybody(&plan);
    for gone in 0..8 {
        assert_share(before.iter().filter(|place| **place == (0, gone)).count(), VISITORS, 1.0 / 8.0);
        down(&plan, (0, gone), true);
        for (before, after) in before.iter().zip(everybody(&plan)) {
            assert!(*before == after || *before == (0, gone));
            assert_ne!(after, (0, gone));
        }
        down(&plan, (0, gone), false);
        assert_eq!(everybody(&plan), before);
    }
}

#[tokio::test]
async fn who_has_less_to_do_gets_more() {
    for (policy, is_answered) in [("least_outstanding_requests", false), ("least_connections", true)] {
        let pool = with(pool(0, 2), "origin_steering", json!({ "policy": policy }));
        let plan = plan(&[pool], |_| json!({})).await;
        let busy: Vec<_> = (0..3).map(|_| plan.members().next().unwrap().begin()).collect();
        let headers = HeaderMap::new();
        let count =
            |plan: &Plan| (0..10_000).filter(|random| first(plan, &visitor(1, &headers), *random) == (0, 0)).count();
        assert_share(count(&plan), 10_000, 0.2);
        let mut busy = busy;
        busy.iter_mut().for_each(|one| one.answered(StatusCode::OK, NOW));
        assert_share(count(&plan), 10_000, if is_answered { 0.2 } else { 0.5 });
        drop(busy);
        assert_share(count(&plan), 10_000, 0.5);
    }
}

#[tokio::test]
async fn pools_are_chosen_by_what_is_under_way_latency_and_distance() {
    let placed = |number, latitude, longitude| {
        with(with(pool(number, 1), "latitude", json!(latitude)), "longitude", json!(longitude))
    };
    let pools = [placed(0, 52, 5), placed(1, 40, -74), placed(2, 35, 139)];
    let headers = HeaderMap::new();
    let near = |latitude, longitude| Visitor { place: Some(Place { latitude, longitude }), ..visitor(1, &headers) };
    let by_distance = plan(&pools, |_| json!({ "steering_policy": "proximity" })).await;
    for (visitor, pool) in
        [(near(51.0, 0.0), 0), (near(45.0, -90.0), 1), (near(60.0, -179.0), 2), (visitor(1, &headers), 0)]
    {
        assert_eq!(first(&by_distance, &visitor, 1).0, pool);
    }
    down(&by_distance, (1, 0), true);
    assert_eq!(first(&by_distance, &near(45.0, -90.0), 1).0, 0);

    let by_latency = plan(&pools, |_| json!({ "steering_policy": "dynamic_latency" })).await;
    assert_eq!(first(&by_latency, &visitor(1, &headers), 1).0, 0);
    // Their order in the plan is that of their ids.
    let set = |number: u8, millis| {
        let pool = by_latency.pools.iter().find(|pool| place(&pool.members[0]).0 == number).unwrap();
        pool.vitals.set_latency(Some(std::time::Duration::from_millis(millis)));
    };
    set(2, 30);
    assert_eq!(first(&by_latency, &visitor(1, &headers), 1).0, 2);
    set(1, 20);
    assert_eq!(first(&by_latency, &visitor(1, &headers), 1).0, 1);

    let by_load = plan(&pools[..2], |_| json!({ "steering_policy": "least_outstanding_requests" })).await;
    let busy = by_load.members().find(|member| place(member) == (0, 0)).unwrap();
    let _busy: Vec<_> = (0..4).map(|_| busy.begin()).collect();
    let count = (0..10_000).filter(|random| first(&by_load, &visitor(1, &headers), *random).0 == 0).count();
    assert_share(count, 10_000, 1.0 / 6.0);
}

#[tokio::test]
async fn places_have_their_pools_and_nobody_elses() {
    let pools: Vec<_> = (0..6).map(|number| pool(number, 1)).collect();
    let steering = |ids: &[PoolId]| {
        json!({ "default_pools": [ids[0]], "fallback_pool": ids[5], "pop_pools": { "AMS": [ids[1]], "LHR2": [ids[2]] },
            "country_pools": { "DE": [ids[3]] }, "region_pools": { "WEU": [ids[4], ids[3]] } })
    };
    let plan = plan(&pools, steering).await;
    let headers = HeaderMap::new();
    let from = |pop, country, region| Visitor { pop, country, region, ..visitor(1, &headers) };
    for (visitor, pool) in [
        (from("ams1", Some("DE"), Some("WEU")), 1),
        (from("lhr2", Some("DE"), Some("WEU")), 2),
        (from("lhr1", Some("DE"), Some("WEU")), 3),
        (from("lhr1", Some("FR"), Some("WEU")), 4),
        (from("lhr1", Some("US"), Some("ENAM")), 0),
        (from("lhr1", None, None), 0),
    ] {
        assert_eq!(first(&plan, &visitor, 1).0, pool, "{visitor:?}");
    }
    down(&plan, (3, 0), true);
    assert_eq!(first(&plan, &from("lhr1", Some("DE"), None), 1).0, 5);
    down(&plan, (4, 0), true);
    assert_eq!(first(&plan, &from("lhr1", Some("FR"), Some("WEU")), 1).0, 5);
}

/// The headers of a visitor with what a cookie field said.
fn returning(cookie: &HeaderValue) -> HeaderMap {
    let text = cookie.to_str().unwrap().split(';').next().unwrap();
    HeaderMap::from_iter([(COOKIE, format!("a=b; {text}; c=d").parse().unwrap())])
}

#[tokio::test]
async fn a_session_stays_where_it_is_while_that_is_well() {
    for (failover, sets_another) in [("none", true), ("temporary", false), ("sticky", true)] {
        let terms = json!({ "session_affinity": "cookie", "session_affinity_ttl": 3600,
            "session_affinity_attributes": { "zero_downtime_failover": failover } });
        let plan = plan(&[pool(0, 5), pool(1, 1)], |_| terms).await;
        let none = HeaderMap::new();
        let mut walk = plan.walk(&visitor(1, &none), NOW, 1);
        let home = place(walk.next(|_| true).unwrap());
        let cookie = walk.cookie(true).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(
            text.starts_with("__cflb=") && text.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=None; Secure")
        );
        assert!(walk.cookie(false).unwrap().to_str().unwrap().ends_with("; HttpOnly; SameSite=Lax"));

        let headers = returning(&cookie);
        for random in 0..100 {
            let mut walk = plan.walk(&visitor(1, &headers), NOW, random);
            assert_eq!(place(walk.next(|_| true).unwrap()), home);
            assert_eq!(walk.cookie(true), None);
            // It fails: the terms say whether another one may serve, and keep the session.
            let other = walk.next(|_| true).map(|member| place(member));
            assert_eq!(other.is_some(), failover != "none");
            assert_eq!(walk.cookie(true).is_some(), failover == "sticky");
            assert_ne!(other, Some(home));
        }
        down(&plan, home, true);
        let mut walk = plan.walk(&visitor(1, &headers), NOW, 1);
        assert_ne!(place(walk.next(|_| true).unwrap()), home);
        assert_eq!(walk.cookie(true).is_some(), sets_another, "{failover}");
        if failover == "temporary" {
            // Meanwhile it is in one place.
            let places: HashSet<_> = (0..50).map(|random| first(&plan, &visitor(1, &headers), random)).collect();
            assert_eq!(places.len(), 1);
        }
    }
}

#[tokio::test]
async fn forged_and_foreign_cookies_lead_nowhere_else() {
    let closed = json!({ "origins": [{ "address": "10.0.0.0" }, { "address": "10.0.0.1", "enabled": false }] });
    let plan = plan(&[closed], |_| json!({ "session_affinity": "cookie" })).await;
    let ids: Vec<_> = plan.members().map(|member| member.id.to_string()).collect();
    for value in ["", "x", "0123456789abcdef", &ids[1], &"f".repeat(5000), "\u{e4}"] {
        let Ok(header) = HeaderValue::from_bytes(format!("__cflb={value}").as_bytes()) else { continue };
        let headers = HeaderMap::from_iter([(COOKIE, header)]);
        assert_eq!(first(&plan, &visitor(1, &headers), 1), (0, 0), "{value}");
    }
}

#[tokio::test]
async fn who_is_switched_off_keeps_its_sessions_for_a_while() {
    let origins = json!({ "origins": [{ "address": "10.0.0.0" }, { "address": "10.0.0.1", "enabled": false }] });
    let attributes = json!({ "drain_duration": 60, "zero_downtime_failover": "temporary" });
    let terms = json!({ "session_affinity": "cookie", "session_affinity_attributes": attributes });
    let plan = plan(&[origins], |_| terms).await;
    let id = plan.members().find(|member| place(member) == (0, 1)).unwrap().id;
    let headers = HeaderMap::from_iter([(COOKIE, format!("__cflb={id}").parse().unwrap())]);
    let at = |seconds| {
        let mut walk = plan.walk(&visitor(1, &headers), NOW + jiff::SignedDuration::from_secs(seconds), 1);
        place(walk.next(|_| true).unwrap())
    };
    assert_eq!([at(0), at(59), at(60)], [(0, 1), (0, 1), (0, 0)]);
    // It is not for a time that it is gone.
    let mut walk = plan.walk(&visitor(1, &headers), NOW + jiff::SignedDuration::from_secs(60), 1);
    walk.next(|_| true).unwrap();
    assert!(walk.cookie(true).is_some());
    let none = HeaderMap::new();
    assert!((0..50).all(|random| first(&plan, &visitor(1, &none), random) == (0, 0)));
    down(&plan, (0, 1), true);
    assert_eq!(at(0), (0, 0));
}

#[tokio::test]
async fn sessions_by_header_or_address_need_no_cookie() {
    let terms = json!({ "session_affinity": "header", "steering_policy": "random",
        "session_affinity_attributes": { "headers": ["x-user", "cookie:sid"], "require_all_headers": true } });
    let by_header = plan(&[pool(0, 5), pool(1, 5)], |_| terms).await;
    let of = |user: &str, sid: &str| {
        HeaderMap::from_iter([
            ("x-user".parse().unwrap(), user.parse().unwrap()),
            (COOKIE, format!("sid={sid}").parse().unwrap()),
        ])
    };
    let places = |headers: &HeaderMap| -> HashSet<_> {
        (0..50).map(|random| first(&by_header, &visitor(random as u32, headers), random)).collect()
    };
    let users: Vec<_> = (0..40).map(|user| of(&user.to_string(), "s")).collect();
    assert!(users.iter().all(|headers| places(headers).len() == 1));
    assert!(users.iter().flat_map(places).collect::<HashSet<_>>().len() > 5);
    assert_ne!(
        by_header.sessions.of(&visitor(1, &of("ab", "c"))).key,
        by_header.sessions.of(&visitor(1, &of("a", "bc"))).key
    );
    let mut lacking = of("1", "s");
    lacking.remove(COOKIE);
    assert!(places(&lacking).len() > 5);

    let by_address = plan(&[pool(0, 5)], |_| json!({ "session_affinity": "ip_cookie" })).await;
    let none = HeaderMap::new();
    for address in 0..20 {
        let places: HashSet<_> = (0..20).map(|random| first(&by_address, &visitor(address, &none), random)).collect();
        assert_eq!(places.len(), 1);
    }
    assert!(by_address.walk(&visitor(1, &none), NOW, 1).cookie(true).is_none());
}

#[tokio::test]
async fn a_pool_sheds_the_share_that_it_is_to() {
    for policy in ["random", "hash"] {
        let shedding = json!({ "default_percent": 25, "default_policy": policy, "session_percent": 10 });
        let pools = [with(pool(0, 1), "load_shedding", shedding), pool(1, 1)];
        let plan = plan(&pools, |_| json!({ "session_affinity": "cookie" })).await;
        let none = HeaderMap::new();
        let shed = |address: u32, random| first(&plan, &visitor(address, &none), random).0 == 1;
        let count = (0..20_000).filter(|number| shed(*number, u64::from(*number))).count();
        assert_share(count, 20_000, 0.25);
        if policy == "hash" {
            assert!((0..500).all(|address| shed(address, 1) == shed(address, 2)));
        }
        let id = plan.members().find(|member| place(member) == (0, 0)).unwrap().id;
        let headers = HeaderMap::from_iter([(COOKIE, format!("__cflb={id}").parse().unwrap())]);
        let gone = |address: &u32| first(&plan, &visitor(*address, &headers), 1).0 == 1;
        // Who is shed of those with a session is then one without.
        let bound = (0..20_000).filter(gone).count();
        assert!(bound <= 20_000 * 12 / 100, "{bound}");
        // Nobody is shed to where nobody is well.
        down(&plan, (1, 0), true);
        assert!((0..500).all(|address| !shed(address, u64::from(address))));
    }
}

#[tokio::test]
async fn a_request_goes_on_in_its_pool_and_to_others_only_if_it_may() {
    let headers = HeaderMap::new();
    for (is_across, expected) in [(false, 2), (true, 4)] {
        let terms = json!({ "adaptive_routing": { "failover_across_pools": is_across } });
        let plan = plan(&[pool(0, 2), pool(1, 1), pool(2, 3)], |_| terms).await;
        for random in 0..50 {
            let tried = all(&plan, &visitor(1, &headers), random);
            assert_eq!(tried.len(), expected);
            assert!(tried[..2].iter().all(|(pool, _)| *pool == 0));
            assert!(tried.iter().skip(2).zip([1, 2]).all(|((pool, _), wanted)| *pool == wanted));
        }
    }
}

#[tokio::test]
async fn tunnels_without_a_connection_are_passed_over() {
    let tunnels = [1, 2, 3].map(Uuid::from_u128);
    let origins: Vec<_> = tunnels
        .iter()
        .map(|tunnel| json!({ "address": format!("{tunnel}.cfargotunnel.com"), "header": { "Host": ["a.test"] } }))
        .collect();
    let plan = plan(&[json!({ "origins": origins })], |_| json!({})).await;
    // As the node's own table says; the snapshot has none of them.
    plan.members().for_each(|member| member.vitals.set_linked(true, Timestamp::UNIX_EPOCH));
    let headers = HeaderMap::new();
    for random in 0..50 {
        let mut walk = plan.walk(&visitor(1, &headers), NOW, random);
        assert_eq!(walk.next(|tunnel| tunnel == tunnels[2]).unwrap().target, Target::Tunnel(tunnels[2]));
        assert!(walk.next(|tunnel| tunnel == tunnels[2]).is_none());
        assert!(plan.walk(&visitor(1, &headers), NOW, random).next(|_| false).is_none());
    }
}

/// Whatever is configured and however the members are: nobody who is not well comes first while somebody is; nobody comes twice;
/// what is closed never comes; and it ends.
#[tokio::test]
async fn nobody_unwell_serves_while_somebody_well_could() {
    let policies =
        ["off", "random", "least_outstanding_requests", "least_connections", "dynamic_latency", "proximity", "geo"];
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..5);
        let pools: Vec<_> = (0..count)
            .map(|number| {
                let origins: Vec<_> = (0..random.random_range(0..6))
                    .map(|at| {
                        let weight = [0.0, 0.1, 1.0][random.random_range(0..3)];
                        let is_enabled = random.random_bool(0.8);
                        json!({ "address": format!("10.0.{number}.{at}"), "weight": weight, "enabled": is_enabled })
                    })
                    .collect();
                let shed = [0, 50, 100][random.random_range(0..3)];
                let policy = ["random", "hash", "least_connections"][random.random_range(0..3)];
                json!({ "origins": origins, "enabled": random.random_bool(0.8), "minimum_origins": random.random_range(1..4),
                    "latitude": number, "longitude": 0, "load_shedding": { "default_percent": shed },
                    "origin_steering": { "policy": policy } })
            })
            .collect();
        let affinity = ["none", "cookie", "ip_cookie"][random.random_range(0..3)];
        let policy = policies[random.random_range(0..policies.len())];
        let across: bool = random.random();
        let terms = json!({ "steering_policy": policy, "session_affinity": affinity,
            "adaptive_routing": { "failover_across_pools": across } });
        let plan = plan(&pools, |_| terms).await;
        for round in 0..60u32 {
            for member in plan.members().map(|member| place(member)).collect::<Vec<_>>() {
                down(&plan, member, random.random_bool(0.5));
                if random.random_bool(0.1) {
                    suspect(&plan, member);
                }
            }
            let candidates = plan.pools.iter().filter(|pool| pool.is_enabled).flat_map(|pool| &pool.members);
            let candidates: Vec<_> = candidates.filter(|member| member.admission == Admission::Open).collect();
            let is_well = |member: &Member| matches!(member.vitals.standing(NOW), Standing::Well(_));
            let mut headers = HeaderMap::new();
            if let Some(member) = plan.members().nth(random.random_range(0..6)) {
                headers.insert(COOKIE, format!("__cflb={}", member.id).parse().unwrap());
            }
            let visitor = visitor(round, &headers);
            let mut walk = plan.walk(&visitor, NOW, random.random());
            let mut seen = Vec::new();
            while let Some(member) = walk.next(|_| true) {
                assert!(seen.len() < Walk::MOST_TRIES, "seed {seed}");
                assert!(!seen.contains(&member.id) && member.admission == Admission::Open, "seed {seed}");
                if (seen.is_empty() || across) && !is_well(member) {
                    let better = candidates.iter().find(|other| is_well(other) && !seen.contains(&other.id));
                    assert!(better.is_none(), "seed {seed}, round {round}: {member:?} before {better:?}");
                }
                seen.push(member.id);
            }
            // Somebody who is not down is found.
            let is_up = candidates.iter().any(|member| member.vitals.standing(NOW) != Standing::Down);
            assert!(!is_up || !seen.is_empty(), "seed {seed}, round {round}");
        }
    }
}
