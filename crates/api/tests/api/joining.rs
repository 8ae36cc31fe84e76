use std::str::FromStr;
use std::sync::Arc;

use api::{JoinKey, QuickTunnels};
use futures_util::future::join_all;
use http::Method;
use jiff::Timestamp;
use registry::{Embedded, Engine, Event, Keys, Registry, Sealed};
use serde_json::{Value, json};

use crate::edge::{Answer, Edge, handover};

impl Edge {
    async fn own(&self, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.send(Method::POST, &format!("/snicket/v1{path}"), &[("authorization", &bearer)], body.to_string()).await
    }

    async fn invited(&self, body: Value) -> JoinKey {
        let made = self.own("/invitations", body).await.result();
        JoinKey::from_str(made["key"].as_str().unwrap()).unwrap()
    }

    /// As a machine does that wants to join: without a token.
    async fn join(&self, secret: &str) -> Answer {
        self.send(Method::POST, "/snicket/v1/join", &[], json!({ "key": secret }).to_string()).await
    }
}

#[tokio::test]
async fn a_key_is_good_once_for_all_that_makes_a_node() {
    let edge = Edge::shared().await;
    let key = edge.invited(json!({})).await;
    let got = edge.join(&key.secret).await.result();
    assert_eq!(got, serde_json::to_value(handover()).unwrap());
    let log = edge.get(&format!("/accounts/{}/audit_logs", edge.account)).await;
    let latest = log.result()[0].clone();
    assert_eq!((&latest["actor"]["ip"], &latest["actor"]["id"]), (&json!("127.0.0.1"), &Value::Null), "{latest}");
    assert!(latest.to_string().contains("/join") && !log.text.contains(&key.secret), "{latest}");
    let message = edge.join(&key.secret).await.refused(403, 10000);
    assert!(message.contains("was used at"), "{message}");

    let key = edge.invited(json!({ "for_seconds": 60 })).await;
    let all = join_all((0..5).map(|_| edge.join(&key.secret))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 1);
}

#[tokio::test]
async fn the_key_names_the_authority_of_nodes() {
    let edge = Edge::shared().await;
    let made = edge.own("/invitations", json!({})).await.result();
    let until: Timestamp = made["expires_at"].as_str().unwrap().parse().unwrap();
    let seconds = until.as_second() - Timestamp::now().as_second();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    let again = edge.invited(json!({})).await;
    let first = JoinKey::from_str(made["key"].as_str().unwrap()).unwrap();
    assert_eq!(first.authority, again.authority);
    assert_ne!(first.secret, again.secret);
}

#[tokio::test]
async fn other_keys_and_too_many_attempts_are_refused() {
    let edge = Edge::shared().await;
    let good = edge.invited(json!({})).await;
    for wrong in ["", "x", &good.reveal(), &good.secret[1..]] {
        let message = edge.join(wrong).await.refused(403, 10000);
        assert!(message.contains("not one of this edge's"), "{message}");
    }
    edge.send(Method::POST, "/snicket/v1/join", &[], "{}").await.refused(400, 6007);
    edge.join(&"x".repeat(4096)).await.refused(413, 1413);
    edge.send(Method::GET, "/snicket/v1/join", &[], "").await.refused(405, 7001);
    for _ in 0..4 {
        edge.join("x").await.refused(403, 10000);
    }
    let told = edge.join(&good.secret).await;
    told.refused(429, 971);
    assert!(told.headers.contains_key("retry-after"));
    for seconds in [json!(0), json!(59), json!(604_801)] {
        edge.own("/invitations", json!({ "for_seconds": seconds })).await.refused(400, 1004);
    }
}

#[tokio::test]
async fn only_who_may_do_everything_invites() {
    let edge = Edge::shared().await;
    edge.send(Method::POST, "/snicket/v1/invitations", &[], "").await.refused(400, 9106);
    let scope = format!("com.cloudflare.api.account.{}", edge.account);
    let policies = json!([{
        "effect": "allow", "resources": { scope: "*" }, "permission_groups": [{ "name": "Cloudflare Tunnel Write" }],
    }]);
    let made = edge.post("/user/tokens", json!({ "name": "less", "policies": policies })).await.result();
    let bearer = format!("Bearer {}", made["value"].as_str().unwrap());
    edge.send(Method::POST, "/snicket/v1/invitations", &[("authorization", &bearer)], "").await.refused(403, 10000);
}

#[tokio::test]
async fn nobody_joins_an_edge_with_a_registry_of_its_own() {
    let edge = Edge::start().await;
    let message = edge.own("/invitations", json!({})).await.refused(409, 1409);
    assert!(message.contains("snicket registry export"), "{message}");
    edge.join("snj_x").await.refused(409, 1409);
}

#[tokio::test]
async fn nobody_joins_by_a_node_whose_keys_are_out_of_date() {
    let engine: Arc<dyn Engine> = Arc::new(Embedded::in_memory().unwrap());
    let (old, new) = (Keys::generate(), Keys::generate());
    let node = async |keys: &str| {
        let sealed = Sealed::open(engine.clone(), Keys::parse(keys).unwrap()).await.unwrap();
        Registry::open(sealed, Timestamp::now()).await.unwrap()
    };
    let registry = node(&old).await;
    let edge = Edge::over(registry.clone(), QuickTunnels::Loopback, true, true).await;
    let key = edge.invited(json!({})).await;
    assert_eq!(edge.send(Method::GET, "/ready", &[], "").await.status, 200);
    let mut changes = registry.watch(registry.snapshot().revision());
    let ahead = node(&format!("{new}{old}")).await;
    while registry.check_keys().is_ok() {
        assert!(matches!(changes.next().await, Some(Event::Changes { .. } | Event::Resync(_))));
    }
    for refused in [edge.join(&key.secret).await, edge.own("/invitations", json!({})).await] {
        let message = refused.refused(500, 1503);
        assert!(message.contains("give this node their key file"), "{message}");
    }
    assert_eq!(edge.send(Method::GET, "/ready", &[], "").await.status, 503);
    assert!(ahead.snapshot().invitation(&key.secret, Timestamp::now()).is_ok(), "it can be used at another node");
}
