use api::QuickTunnels;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;

#[tokio::test]
async fn public_ports_are_given_kept_and_refused() {
    let edge = Edge::with(QuickTunnels::Open, true).await;
    let secret = STANDARD.encode([7; 32]);
    let ask = |wish: Value| {
        let edge = &edge;
        async move { edge.send(Method::POST, "/tunnel", &[], wish.to_string()).await }
    };
    let first = ask(json!({ "name": "one", "secret": secret, "port": { "proxy_protocol": "v2" } })).await.result();
    let number = first["port"].as_u64().unwrap();
    assert!([20_000, 20_002].contains(&number), "20001 is held by somebody else: {first}");
    let again = ask(json!({ "name": "one", "secret": secret, "port": {} })).await.result();
    assert_eq!(again["port"], number, "the same name has the same port again");
    let other = 40_002 - number;
    let second = ask(json!({ "name": "two", "port": { "prefer": other } })).await.result();
    assert_eq!(second["port"], other);
    let passed = ask(json!({ "name": "three", "tls": { "max_connections": 5_001 } })).await;
    assert!(passed.status.is_client_error() && passed.text.contains("at most 5000"), "{}", passed.text);
    for (wish, said) in [
        (json!({}), "20000 to 20002"),
        (json!({ "first": 20_001, "last": 20_001 }), "cannot be opened"),
        (json!({ "first": number, "last": number }), "belongs to another tunnel"),
        (json!({ "first": 1, "last": 20_001 }), "public ports 20000 to 20002"),
        (json!({ "first": 20_002, "last": 20_000 }), "public ports 20000 to 20002"),
        (json!({ "max_connections": 0 }), "at least 1"),
        (json!({ "max_connections": 5_001 }), "at most 5000, which is half of what this edge serves at once"),
        (json!({ "proxy_protocol": "v3" }), "v3"),
    ] {
        let refused = ask(json!({ "name": "three", "secret": secret, "port": wish })).await;
        assert!(refused.status.is_client_error() && refused.text.contains(said), "{wish}: {}", refused.text);
    }
    let bearer = format!("Bearer {}", edge.token);
    let listed = edge.send(Method::GET, "/snicket/v1/ports", &[("authorization", &bearer)], "").await.result();
    let numbers: Vec<_> = listed.as_array().unwrap().iter().map(|port| port["port"].clone()).collect();
    assert_eq!(numbers, [20_000, 20_002]);
}

#[tokio::test]
async fn tunnels_that_are_there_have_ports_given_and_taken_away() {
    let edge = Edge::with(QuickTunnels::Open, true).await;
    let bearer = format!("Bearer {}", edge.token);
    let send = |method: Method, path: String, body: Value| {
        let (edge, bearer) = (&edge, &bearer);
        async move {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            edge.send(method, &path, &[("authorization", bearer)], body).await
        }
    };
    let made = edge.send(Method::POST, "/tunnel", &[], json!({ "name": "one" }).to_string()).await.result();
    let ports = format!("/snicket/v1/tunnels/{}/ports", made["id"].as_str().unwrap());
    let udp = json!({ "protocol": "udp", "service": "192.0.2.7:53", "first": 20_000, "last": 20_000 });
    let given = send(Method::POST, ports.clone(), udp.clone()).await.result();
    assert_eq!((&given["port"], &given["protocol"]), (&json!(20_000), &json!("udp")));
    assert_eq!((&given["service"], &given["idle_seconds"]), (&json!("192.0.2.7:53"), &json!(120)));
    // The same number of TCP is another port, and the first stays.
    let tcp = json!({ "service": "db.example.test", "first": 20_000, "last": 20_000 });
    assert_eq!(send(Method::POST, ports.clone(), tcp).await.result()["idle_seconds"], 3600);
    for (wish, said) in [
        (udp, "belongs to another tunnel"),
        (json!({ "service": "a b" }), "service"),
        (json!({ "service": "192.0.2.7:53", "protocol": "udp", "idle_seconds": 0 }), "idle_seconds"),
        (json!({ "service": "192.0.2.7:53", "protocol": "udp", "proxy_protocol": "v1" }), "only v2"),
        (json!({ "service": "192.0.2.7:53", "count": 2 }), "count"),
        (json!({}), "service"),
    ] {
        let refused = send(Method::POST, ports.clone(), wish.clone()).await;
        assert!(refused.status.is_client_error() && refused.text.contains(said), "{wish}: {}", refused.text);
    }
    let listed = async || {
        let ports = send(Method::GET, "/snicket/v1/ports".to_owned(), Value::Null).await.result();
        ports.as_array().unwrap().iter().map(|port| port["protocol"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, ["tcp", "udp"]);
    send(Method::DELETE, format!("{ports}/udp/20000"), Value::Null).await.result();
    assert_eq!(listed().await, ["tcp"]);
    assert!(send(Method::DELETE, format!("{ports}/udp/20000"), Value::Null).await.status.is_client_error());
}
