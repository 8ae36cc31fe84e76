//! What outlives a change of what is configured, and what a request keeps that begins anew.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::IpAddr;
use std::sync::Arc;

use balance::{Board, Budget, COOKIE, Failure, Member, Plan, Standing, Target, Visitor};
use http::header::COOKIE as COOKIES;
use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use registry::{
    ConfigSource, ConnectionRecord, Features, Hostname, LoadBalancerId, NewTunnel, PoolId, PoolTerms, Registry,
    TunnelName,
};
use serde_json::{Value, json};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

struct Rig {
    registry: Registry,
    board: Board,
    pools: Vec<PoolId>,
    balancer: LoadBalancerId,
}

impl Rig {
    /// A load balancer of pools with these origins.
    async fn start(registry: Registry, pools: &[Value], mut terms: Value) -> Self {
        let zone = registry.ensure_zone(NOW, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
        let mut ids = Vec::new();
        for (at, origins) in pools.iter().enumerate() {
            let pool = json!({ "name": format!("p{at}"), "origins": origins });
            ids.push(registry.create_pool(NOW, serde_json::from_value(pool).unwrap()).await.unwrap().id);
        }
        (terms["name"], terms["default_pools"]) = (json!("a.example.test"), json!(ids));
        terms["fallback_pool"] = json!(ids.last());
        let balancer = registry.create_load_balancer(NOW, zone, serde_json::from_value(terms).unwrap()).await.unwrap();
        Self { registry, board: Board::default(), pools: ids, balancer: balancer.id }
    }

    fn plan(&self, now: Timestamp) -> Arc<Plan> {
        let snapshot = self.registry.snapshot();
        self.board.plan(&snapshot, snapshot.load_balancer(self.balancer).unwrap(), now)
    }

    /// Changes something that leads nobody elsewhere.
    async fn change(&self, description: &str) {
        let change = |terms: &PoolTerms| Ok(PoolTerms { description: description.into(), ..terms.clone() });
        self.registry.change_pool(NOW, self.pools[0], change).await.unwrap();
    }
}

async fn registry() -> Registry {
    Registry::in_memory(NOW).await.unwrap()
}

fn after(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

fn origins(pool: u8, count: u8) -> Value {
    json!((0..count).map(|at| json!({ "address": format!("10.0.{pool}.{at}") })).collect::<Vec<_>>())
}

fn visitor(headers: &HeaderMap) -> Visitor<'_> {
    Visitor { address: [192, 0, 2, 1].into(), pop: "ams1", country: None, region: None, place: None, headers }
}

fn suspect(member: &Member) {
    (0..3).for_each(|_| member.begin().failed(Failure::Connect, NOW));
}

/// A plan of which nothing is known yet.
fn fresh(rig: &Rig) -> Arc<Plan> {
    let snapshot = rig.registry.snapshot();
    Board::default().plan(&snapshot, snapshot.load_balancer(rig.balancer).unwrap(), NOW)
}

/// The pool's number, as [`origins`] has it.
fn pool(member: &Member) -> u8 {
    let Target::Address(IpAddr::V4(address), _) = member.target else { panic!("{:?}", member.target) };
    address.octets()[2]
}

#[tokio::test]
async fn a_change_leaves_no_more_requests_to_go_again() {
    let rig = Rig::start(registry().await, &[origins(0, 2)], json!({})).await;
    let before = rig.plan(NOW);
    let granted = (0..100).filter(|_| before.may_retry(NOW)).count();
    assert_eq!(granted, Budget::FLOOR as usize);
    for number in 0..3 {
        rig.change(&format!("change {number}")).await;
        let plan = rig.plan(NOW);
        assert!(!Arc::ptr_eq(&before, &plan) && !plan.may_retry(NOW), "change {number}");
    }
    assert!(rig.plan(after(20)).may_retry(after(20)), "what was long ago counts no more");
    let text = rig.board.news().text();
    assert!(text.contains("retries_total{verdict=\"granted\"} 11\n"), "{text}");
    assert!(text.contains("retries_total{verdict=\"refused\"} 93\n"), "{text}");
}

#[tokio::test]
async fn who_comes_back_at_a_change_comes_back_slowly_too() {
    let registry = registry().await;
    let name = TunnelName::parse("t").unwrap();
    let new = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
    let tunnel = registry.create_tunnel(NOW, new).await.unwrap().id;
    let behind = json!([{ "address": format!("{tunnel}.cfargotunnel.com") }]);
    let rig = Rig::start(registry, &[behind], json!({})).await;
    let standing = |now: Timestamp| rig.plan(now).members().next().unwrap().vitals().standing(now);
    assert_eq!(standing(NOW), Standing::Down);
    let _connection = rig.registry.connect(ConnectionRecord {
        tunnel,
        connector: Uuid::new_v4(),
        id: Uuid::new_v4(),
        index: 0,
        transport: "quic".into(),
        location: "lab01".into(),
        origin_ip: [127, 0, 0, 1].into(),
        opened_at: NOW,
        features: Features::default(),
        version: "1".into(),
        arch: "linux_amd64".into(),
        config_version: None,
    });
    rig.change("while it comes back").await;
    assert_eq!(standing(after(5)), Standing::Well(0.1));
}

#[tokio::test]
async fn a_request_that_begins_anew_goes_nowhere_that_it_may_not_go() {
    // In its pool alone.
    let rig = Rig::start(registry().await, &[origins(0, 2), origins(1, 2)], json!({})).await;
    let headers = HeaderMap::new();
    for random in 0..50 {
        let plan = fresh(&rig);
        let mut walk = plan.walk(&visitor(&headers), NOW, random);
        assert_eq!(pool(walk.next(|_| true).unwrap()), 0);
        assert_eq!(pool(walk.next(|_| true).unwrap()), 0);
        assert!(walk.next(|_| true).is_none());
        // Others would be better now.
        plan.members().filter(|member| pool(member) == 0).for_each(|member| suspect(member));
        walk.again();
        let led: Vec<_> = std::iter::from_fn(|| walk.next(|_| true)).map(|member| pool(member)).collect();
        assert_eq!(led, [0, 0], "and four times in all");
    }
    // With its session's member alone, which other sessions may leave.
    let rig = Rig::start(registry().await, &[origins(0, 5)], json!({ "session_affinity": "cookie" })).await;
    let home = rig.plan(NOW).members().nth(3).unwrap().id;
    let value = HeaderValue::try_from(format!("{COOKIE}={home}")).unwrap();
    let headers = HeaderMap::from_iter([(COOKIES, value)]);
    for random in 0..50 {
        let plan = fresh(&rig);
        let mut walk = plan.walk(&visitor(&headers), NOW, random);
        assert!(walk.is_bound() && !plan.walk(&visitor(&HeaderMap::new()), NOW, random).is_bound());
        assert_eq!(walk.next(|_| true).unwrap().id, home);
        assert!(walk.next(|_| true).is_none());
        suspect(plan.members().nth(3).unwrap());
        walk.again();
        assert_eq!(walk.next(|_| true).unwrap().id, home);
        assert!(walk.next(|_| true).is_none());
    }
    for failover in ["temporary", "sticky"] {
        let terms = json!({
            "session_affinity": "cookie", "session_affinity_attributes": { "zero_downtime_failover": failover },
        });
        let rig = Rig::start(registry().await, &[origins(0, 5)], terms).await;
        let plan = rig.plan(NOW);
        let value = HeaderValue::try_from(format!("{COOKIE}={}", plan.members().next().unwrap().id)).unwrap();
        let headers = HeaderMap::from_iter([(COOKIES, value)]);
        assert!(!plan.walk(&visitor(&headers), NOW, 1).is_bound(), "{failover}");
    }
}
