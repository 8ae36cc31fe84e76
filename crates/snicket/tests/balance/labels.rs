//! Shares by label: some visitors for a new release, the rest for the old one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Agent, Origin};
use serde_json::{Value, json};

use crate::{Balanced, HERE, Login, at};

/// So many visitors at once.
const AT_ONCE: usize = 4;

impl Balanced {
    async fn change_pool(&self, pool: &str, change: Value) -> (u16, Value) {
        let path = format!("/client/v4/accounts/{}/load_balancers/pools/{pool}", self.account);
        self.edge.call("PATCH", &path, Some(change)).await
    }

    async fn split(&self, pool: &str, weights: Value) {
        let steering = json!({ "label_steering": { "key": "release", "weights": weights } });
        let (status, answer) = self.change_pool(pool, steering).await;
        assert_eq!(status, 200, "{answer}");
    }
}

/// Within six standard deviations: by chance in less than one run of ten million, a skewed share of a tenth included.
fn assert_share(count: usize, of: usize, share: f64) {
    let (count, of) = (count as f64, of as f64);
    let bound = 6.0 * (of * share * (1.0 - share)).sqrt();
    assert!((count - of * share).abs() <= bound, "{count} of {of}, and not {share}");
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_get_their_shares_which_change_under_load_and_fail_nobody() {
    let balanced = Balanced::start(&[]).await;
    let login = Login::of(&balanced.edge).await;
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let mut agents: Vec<Agent> = Vec::new();
    for (name, origin, label) in [
        ("one", &origins[0], "release=stable"),
        ("two", &origins[1], "release=stable"),
        ("new", &origins[2], "release=canary"),
    ] {
        agents.push(login.member(&balanced.edge, name, origin, &["--label", label]).await);
    }
    let (_, tunnels) =
        balanced.edge.call("GET", &format!("/client/v4/accounts/{}/cfd_tunnel", balanced.account), None).await;
    let labels: BTreeMap<_, _> = tunnels["result"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|tunnel| {
            (tunnel["name"].as_str().expect("a name"), tunnel["labels"]["release"].as_str().expect("a release"))
        })
        .collect();
    assert_eq!(labels, [("one", "stable"), ("two", "stable"), ("new", "canary")].into());

    let path = format!("/client/v4/accounts/{}/load_balancers/pools", balanced.account);
    let (_, pools) = balanced.edge.call("GET", &path, None).await;
    let pool = pools["result"][0]["id"].as_str().expect("an id").to_owned();
    let (status, refused) = balanced
        .change_pool(&pool, json!({ "label_steering": { "key": "release", "weights": { "canary": -1 } } }))
        .await;
    assert_eq!(status, 400);
    assert!(refused.to_string().contains("label_steering.weights.canary"), "{refused}");

    let seen = || origins.each_ref().map(Origin::requests);
    let shares = async |weights: Value, share: f64| {
        balanced.split(&pool, weights).await;
        let before = seen();
        assert_eq!(balanced.visits(300).await, [200; 300]);
        let after = seen();
        let counts: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_share(counts[2], 300, share);
        counts
    };
    let counts = shares(json!({ "stable": 90, "canary": 10 }), 0.1).await;
    assert!(counts[0] > 0 && counts[1] > 0, "both of a release share: {counts:?}");
    shares(json!({ "stable": 50, "canary": 50 }), 0.5).await;

    // Changed again and again while visitors come.
    let is_over = Arc::new(AtomicBool::new(false));
    let visits: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (visitor, url, is_over) = (balanced.visitor(), balanced.url("/"), is_over.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    statuses.push(visitor.get(&url).await.status);
                }
                statuses
            })
        })
        .collect();
    for round in 0..20 {
        let canary = [10, 90, 0, 50][round % 4];
        balanced.split(&pool, json!({ "stable": 100 - canary, "canary": canary })).await;
    }
    is_over.store(true, Ordering::SeqCst);
    for visit in visits {
        let statuses = visit.await.expect("it ends");
        assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }

    // Rolled back, and then the old release is switched off.
    shares(json!({ "stable": 100, "canary": 0 }), 0.0).await;
    shares(json!({ "stable": 0, "canary": 100 }), 1.0).await;
    for agent in agents.drain(..2) {
        agent.stop().await;
    }
    assert_eq!(balanced.visits(5).await, [200; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_cannot_be_reached_fails_nobody() {
    let balanced = Balanced::start(&HERE).await;
    let (old, new) = (Origin::start().await, Origin::start().await);
    let labelled = |origin: &Origin, release: &str| {
        let mut member = at(origin);
        member["labels"] = json!({ "release": release });
        member
    };
    let pool = balanced.pool("web", &[labelled(&old, "stable"), labelled(&new, "canary")]).await;
    balanced.balancer(&[&pool], json!({})).await;
    balanced.split(&pool, json!({ "stable": 50, "canary": 50 })).await;
    assert_eq!(balanced.visits(30).await, [200; 30]);
    let seen = new.requests();
    assert!(seen > 0 && old.requests() > 0);
    drop(new);
    assert_eq!(balanced.visits(30).await, [200; 30]);
}
