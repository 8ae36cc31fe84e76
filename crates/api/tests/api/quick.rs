use api::QuickTunnels;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::edge::Edge;

#[tokio::test]
async fn a_quick_tunnel_is_made_without_an_account() {
    let edge = Edge::start().await;
    let post = async |body: &str| {
        edge.send(Method::POST, "/tunnel", &[("content-type", "application/json")], body.to_owned()).await
    };
    let quick = post("").await.result();
    let hostname = quick["hostname"].as_str().unwrap();
    assert!(hostname.ends_with(".example.test"), "{hostname}");
    assert_eq!(quick["url"], format!("https://{hostname}:8443"));
    let id: Uuid = quick["id"].as_str().unwrap().parse().unwrap();
    let secret = STANDARD.decode(quick["secret"].as_str().unwrap()).unwrap();
    let snapshot = edge.registry.snapshot();
    assert!(snapshot.authenticate(quick["account_tag"].as_str().unwrap(), id, &secret).is_ok());
    assert_eq!(snapshot.route(hostname).unwrap().tunnel, id);

    let own = STANDARD.encode([9; 32]);
    let named = post(&json!({ "name": "demo", "secret": own }).to_string()).await.result();
    assert_eq!(named["hostname"], "demo.example.test");
    post(r#"{"name":"demo"}"#).await.refused(409, 1013);
    assert_eq!(post(&json!({ "name": "demo", "secret": own }).to_string()).await.result(), named);
    for body in [r#"{"name":"a.b"}"#, r#"{"name":"*"}"#, r#"{"name":""}"#, r#"{"name":"a","secret":"x"}"#] {
        post(body).await.refused(400, 1004);
    }
    post(r#"{"name":1}"#).await.refused(400, 6007);
    for (name, value) in [
        ("origin", "https://elsewhere.test"),
        ("origin", "null"),
        ("sec-fetch-site", "same-origin"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
        ("cf-connecting-ip", "192.0.2.1"),
    ] {
        edge.send(Method::POST, "/tunnel", &[(name, value)], "").await.refused(403, 10000);
    }
    let with_token = [("origin", "https://elsewhere.test"), ("authorization", &format!("Bearer {}", edge.token))];
    edge.send(Method::POST, "/tunnel", &with_token, "").await.result();
}

#[tokio::test]
async fn what_is_made_with_a_token_is_in_the_audit_log() {
    let edge = Edge::start().await;
    let log = format!("/accounts/{}/audit_logs", edge.account);
    edge.send(Method::POST, "/tunnel", &[], "").await.result();
    assert_eq!(edge.get(&log).await.result(), json!([]), "nobody showed who he is");
    let quick = edge.send(Method::POST, "/tunnel", &[("authorization", &format!("Bearer {}", edge.token))], "").await;
    let entries = edge.get(&log).await.result();
    let made = entries.as_array().unwrap().last().expect("it is there");
    assert_eq!((&made["actor"]["token_name"], &made["metadata"]["path"]), (&json!("test"), &json!("/tunnel")));
    assert_eq!(made["resource"]["id"], quick.result()["id"]);
}

#[tokio::test]
async fn an_open_edge_makes_so_many_quick_tunnels_for_one_caller() {
    for tells_callers in [false, true] {
        let edge = Edge::with(QuickTunnels::Open, tells_callers).await;
        let proxied = [("x-forwarded-for", "192.0.2.1")];
        for _ in 0..30 {
            edge.send(Method::POST, "/tunnel", &proxied, "").await.result();
        }
        edge.send(Method::POST, "/tunnel", &proxied, "").await.refused(429, 971);
    }
}

#[tokio::test]
async fn quick_tunnels_are_for_those_whom_the_policy_names() {
    for (policy, tells_callers, without, with_token) in [
        (QuickTunnels::Loopback, false, 403, 200),
        (QuickTunnels::Token, true, 403, 200),
        (QuickTunnels::Off, true, 403, 403),
        (QuickTunnels::Open, false, 200, 200),
    ] {
        let edge = Edge::with(policy, tells_callers).await;
        let bearer = format!("Bearer {}", edge.token);
        let without_token = edge.send(Method::POST, "/tunnel", &[], "").await;
        assert_eq!(without_token.status, without, "{policy:?}: {}", without_token.text);
        let answer = edge.send(Method::POST, "/tunnel", &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, with_token, "{policy:?}: {}", answer.text);
        let wrong = edge.send(Method::POST, "/tunnel", &[("authorization", "Bearer wrong")], "").await;
        assert_eq!(wrong.status, 403, "{policy:?}");
    }
}

#[tokio::test]
async fn a_quick_tunnel_has_its_rules_before_its_agent_comes() {
    let edge = Edge::start().await;
    let access = json!({ "version": 1, "allow": ["192.0.2.0/24"] });
    let made = edge.send(Method::POST, "/tunnel", &[], json!({ "access": access }).to_string()).await.result();
    assert_eq!(made["access"]["allow"], json!(["192.0.2.0/24"]));
    let id: Uuid = made["id"].as_str().unwrap().parse().unwrap();
    assert!(!edge.registry.snapshot().access(id).unwrap().allows([198, 51, 100, 1].into()));
    let again = json!({ "name": made["hostname"].as_str().unwrap().split('.').next(), "secret": made["secret"] });
    edge.send(Method::POST, "/tunnel", &[], again.to_string()).await.result();
    assert!(edge.registry.snapshot().access(id).is_none(), "without rules everybody may come");
}
