//! Transfers of zones to other name servers.

use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;
use crate::items::below;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

impl Edge {
    fn secondary(&self, rest: &str) -> String {
        format!("/accounts/{}/secondary_dns/{rest}", self.registry.snapshot().account().id)
    }

    fn outgoing(&self, rest: &str) -> String {
        format!("/zones/{}/secondary_dns/outgoing{rest}", self.zone)
    }

    async fn peer(&self) -> Value {
        let key = json!({ "name": "Key.Example.Test.", "algo": "hmac-sha512.", "secret": SECRET });
        let key = self.post(&self.secondary("tsigs"), key).await.result();
        let peer = json!({ "name": "second", "ip": "2001:DB8::1", "tsig_id": key["id"], "ixfr_enable": true });
        self.post(&self.secondary("peers"), peer).await.result()
    }
}

#[tokio::test]
async fn keys_peers_and_ranges_are_kept() {
    let edge = Edge::start().await;
    let peer = edge.peer().await;
    assert_eq!((&peer["ip"], &peer["port"]), (&json!("2001:db8::1"), &json!(53)));
    let keys = edge.get(&edge.secondary("tsigs")).await.result();
    let key = &keys[0];
    assert_eq!((&key["name"], &key["algo"]), (&json!("key.example.test."), &json!("hmac-sha512.")));
    assert_eq!(key["secret"], SECRET, "tools compare it with theirs");
    let path = below(&edge.secondary("tsigs"), key);
    let revision = edge.latest();
    assert_eq!(edge.put(&path, key.clone()).await.result(), *key);
    assert_eq!(edge.latest(), revision, "the same again is no change");
    let range = json!({ "name": "all of them", "ip_range": "192.0.2.0/24" });
    let range = edge.post(&edge.secondary("acls"), range).await.result();
    assert_eq!(range["ip_range"], "192.0.2.0/24");

    for (list, body, said) in [
        ("tsigs", json!({ "name": "key.example.test", "algo": "hmac-sha256", "secret": SECRET }), "key named"),
        ("tsigs", json!({ "name": "a b", "algo": "hmac-sha256", "secret": SECRET }), "name: "),
        ("tsigs", json!({ "name": "a", "algo": "hmac-md5.sig-alg.reg.int", "secret": SECRET }), "algo: one of"),
        ("tsigs", json!({ "name": "a", "algo": "hmac-sha256", "secret": "c2hvcnQ=" }), "secret: the base64 text"),
        ("tsigs", json!({ "name": "a", "algo": "hmac-sha256", "secret": "?" }), "secret: the base64 text"),
        ("peers", json!({ "name": "a", "ip": "192.0.2.1/24" }), "ip: an IP address"),
        ("peers", json!({ "name": "a", "port": 0 }), "port: "),
        ("peers", json!({ "name": "a", "tsig_id": "0".repeat(32) }), "tsig_id: there is no"),
        ("acls", json!({ "name": "a", "ip_range": "here" }), "ip_range: "),
    ] {
        let answer = edge.post(&edge.secondary(list), body.clone()).await;
        let message = answer.json()["errors"][0]["message"].to_string();
        assert!(answer.status.is_client_error() && message.contains(said), "{body}: {message}");
        assert!(!message.contains(SECRET), "{message}");
    }
    edge.remove(&path).await.refused(412, 2412);
    edge.remove(&below(&edge.secondary("peers"), &peer)).await.result();
    edge.remove(&path).await.result();
}

#[tokio::test]
async fn a_zone_is_transferred_once_that_is_enabled() {
    let edge = Edge::start().await;
    let peer = edge.peer().await;
    let (out, enable) = (edge.outgoing(""), edge.outgoing("/enable"));
    edge.get(&out).await.refused(404, 7003);
    edge.call(Method::POST, &enable, "{}").await.refused(404, 7003);
    let none = json!({ "name": "example.test", "peers": ["0".repeat(32)] });
    let said = edge.post(&out, none).await.json()["errors"][0]["message"].to_string();
    assert!(said.contains("peers: there is no"), "{said}");
    let body = json!({ "name": "example.test", "peers": [peer["id"]] });
    let made = edge.post(&out, body.clone()).await.result();
    assert_eq!((&made["enabled"], &made["peers"]), (&json!(false), &json!([peer["id"]])));
    assert_eq!(edge.post(&out, body.clone()).await.status, 409);
    edge.remove(&below(&edge.secondary("peers"), &peer)).await.refused(412, 2412);

    let status = async || edge.get(&edge.outgoing("/status")).await.result();
    assert_eq!(status().await, "Disabled");
    assert_eq!(edge.call(Method::POST, &enable, "").await.result(), "Enabled");
    assert_eq!(status().await, "Enabled");
    // Bodies of the original do not say it.
    assert_eq!(edge.put(&out, body).await.result()["enabled"], true);
    let revision = edge.latest();
    assert_eq!(edge.call(Method::POST, &edge.outgoing("/force_notify"), "{}").await.result(), "OK");
    assert!(edge.latest() > revision, "nodes hear of it");

    let dnssec = format!("/zones/{}/dnssec", edge.zone);
    let said = edge.patch(&dnssec, json!({ "status": "active" })).await;
    assert!(said.status == 400 && said.json()["errors"][0]["message"].to_string().contains("disable its outgoing"));
    assert_eq!(edge.call(Method::POST, &edge.outgoing("/disable"), "").await.result(), "Disabled");
    edge.patch(&dnssec, json!({ "status": "active" })).await.result();
    let said = edge.call(Method::POST, &enable, "").await;
    assert!(said.status == 400 && said.json()["errors"][0]["message"].to_string().contains("the zone is signed"));
    assert_eq!(edge.remove(&out).await.result(), json!({ "id": made["id"] }));
    edge.remove(&out).await.refused(404, 7003);
}
