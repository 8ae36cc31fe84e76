use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn login_hands_the_credentials_to_the_agent_that_waits() {
    let edge = Edge::start().await;
    let page =
        edge.send(Method::GET, &format!("/argotunnel?aud=&callback=https%3A%2F%2Fx.test%2F{KEY}"), &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains(KEY) && page.text.contains("example.test"), "{}", page.text);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    for bad in ["/argotunnel", "/argotunnel?callback=", "/argotunnel?callback=https://x.test/%3Cscript%3E"] {
        let page = edge.send(Method::GET, bad, &[], "").await;
        assert!(page.status == 400 && !page.text.contains("<script>"), "{}", page.text);
    }

    let submit = async |token: &str| {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        edge.send(Method::POST, "/argotunnel", &form, format!("key={KEY}&zone={}&token={token}", edge.zone)).await
    };
    assert_eq!(submit("wrong").await.status, 403);
    let key_path = format!("/{KEY}");
    let polling = edge.send(Method::GET, &key_path, &[], "");
    tokio::pin!(polling);
    let early = tokio::time::timeout(Duration::from_millis(50), polling.as_mut()).await;
    assert!(early.is_err(), "a refused token hands nothing over");
    assert_eq!(edge.send(Method::HEAD, &key_path, &[], "").await.status, 404);
    assert_eq!(submit(&edge.token).await.status, 200);
    let pem = tokio::time::timeout(Duration::from_secs(30), polling).await.unwrap();
    assert_eq!(pem.status, 200);
    let encoded: String = pem.text.lines().filter(|line| !line.starts_with('-')).collect();
    let content: Value = serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap();
    assert_eq!(content, json!({ "zoneID": edge.zone, "accountID": edge.account, "apiToken": edge.token }));
    assert!(pem.text.starts_with("-----BEGIN ARGO TUNNEL TOKEN-----\n"));

    let waiting = edge.send(Method::GET, &key_path, &[], "");
    let (waited, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(30), waiting), async {
        edge.draining.cancel();
    });
    waited.expect("a node that stops lets nobody wait").refused(404, 7003);

    for none in ["/favicon.ico", "/AAEC", "/%ff"] {
        edge.send(Method::GET, none, &[], "").await.refused(404, 7000);
    }
}

#[tokio::test]
async fn an_agent_learns_all_it_needs_from_the_address_of_the_api() {
    let edge = Edge::start().await;
    let facts = edge.send(Method::GET, "/.well-known/snicket", &[], "").await.json();
    let expected = json!({
        "api": "127.0.0.1:7000",
        "tunnel": ["127.0.0.1:7844", "192.0.2.1:7844"],
        "domain": "example.test",
        "https": "127.0.0.1:8443",
        "http": "127.0.0.1:8080",
        "ports": [20_000, 20_002],
        "ca": "PEM",
        "origin_ca": null,
        "version": "1.2.3",
        "location": "lab01",
    });
    assert_eq!(facts, expected);
    assert_eq!(edge.send(Method::GET, "/ready", &[], "").await.json()["status"], "ready");
}
