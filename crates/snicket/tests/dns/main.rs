//! `snicket up --dns`: zones that are made by the API are answered, as `dig` sees it.

mod health;
mod https;
mod transfer;

use std::net::SocketAddr;
use std::path::Path;

use harness::{Agent, Edge, LIMIT, Origin, Program, Visitor, peer, until};
use serde_json::json;
use tokio::process::Command;

/// What `dig +short` prints.
async fn dig(program: &Path, server: SocketAddr, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(["+short", &format!("@{}", server.ip()), "-p", &server.port().to_string()]).args(words);
    let output = command.output().await.expect("dig starts");
    String::from_utf8(output.stdout).expect("is text").trim().to_owned()
}

fn address(edge: &Edge) -> SocketAddr {
    edge.ready()["dns"].as_str().and_then(|text| text.parse().ok()).expect("the ready event says where")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_makes_is_answered() {
    let Some(program) = peer("dig", "install bind9-dnsutils") else { return };
    let edge = Edge::start_with(&["--dns", "127.0.0.1:0", "--domain", "tunnel.example.test"]).await;
    let server = address(&edge);
    let (status, made) = edge.call("POST", "/client/v4/zones", Some(json!({ "name": "example.test" }))).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["result"]["name_servers"], json!(["ns1.tunnel.example.test", "ns2.tunnel.example.test"]));
    let zone = made["result"]["id"].as_str().expect("a zone has an id");
    let records = format!("/client/v4/zones/{zone}/dns_records");
    for (name, kind, content) in [
        ("www", "A", "192.0.2.1"),
        ("@", "TXT", "v=1"),
        ("_acme-challenge", "TXT", "token"),
        ("*", "CNAME", "www.example.test"),
    ] {
        let (status, body) =
            edge.call("POST", &records, Some(json!({ "name": name, "type": kind, "content": content }))).await;
        assert_eq!(status, 200, "{body}");
    }
    until(LIMIT, "the last record is answered", async || {
        dig(&program, server, &["any.example.test"]).await == "www.example.test.\n192.0.2.1"
    })
    .await;
    assert_eq!(dig(&program, server, &["www.example.test"]).await, "192.0.2.1");
    assert_eq!(dig(&program, server, &["+tcp", "example.test", "TXT"]).await, "\"v=1\"");
    assert_eq!(dig(&program, server, &["_acme-challenge.example.test", "TXT"]).await, "\"token\"");
    let servers = "ns1.tunnel.example.test.\nns2.tunnel.example.test.";
    assert_eq!(dig(&program, server, &["example.test", "NS"]).await, servers);
    assert_eq!(dig(&program, server, &["ns2.tunnel.example.test"]).await, "127.0.0.1");
    let metrics = Visitor::plain(edge.api()).get("/metrics").await.text();
    assert!(metrics.contains("snicket_dns_questions_total{transport=\"tcp\"} 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_signed_when_asked_for() {
    let Some(program) = peer("dig", "install bind9-dnsutils") else { return };
    let mut edge = Edge::start_with(&["--dns", "127.0.0.1:0", "--domain", "example.test"]).await;
    let (_, zones) = edge.call("GET", "/client/v4/zones", None).await;
    let path = format!("/client/v4/zones/{}/dnssec", zones["result"][0]["id"].as_str().expect("a zone has an id"));
    let (status, signed) = edge.call("PATCH", &path, Some(json!({ "status": "active" }))).await;
    assert_eq!((status, &signed["result"]["status"]), (200, &json!("active")), "{signed}");
    let key = format!("257 3 13 {}", signed["result"]["public_key"].as_str().expect("a key"));
    let has_key = async |server| {
        dig(&program, server, &["example.test", "DNSKEY"]).await.replace(' ', "") == key.replace(' ', "")
    };
    let server = address(&edge);
    until(LIMIT, "the key is answered", async || has_key(server).await).await;
    assert!(dig(&program, server, &["+dnssec", "example.test", "SOA"]).await.contains("SOA 13 2 300 "));
    // The key is kept.
    edge.kill().await;
    edge.start_again().await;
    let server = address(&edge);
    until(LIMIT, "the key is still the same", async || has_key(server).await).await;
    let (_, shown) = edge.call("GET", &path, None).await;
    assert_eq!(shown["result"]["ds"], signed["result"]["ds"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_over_tls_are_answered() {
    let Some(program) = peer("kdig", "install knot-dnsutils") else { return };
    let edge =
        Edge::start_with(&["--dns", "127.0.0.1:0", "--dns-tls", "127.0.0.1:0", "--domain", "example.test"]).await;
    let server: SocketAddr = edge.ready()["dns_tls"].as_str().and_then(|text| text.parse().ok()).expect("it listens");
    let ask = async |name: &str| {
        let mut command = Command::new(&program);
        command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+keepopen"]);
        command.arg(format!("+tls-ca={}", edge.ca().display())).arg(format!("+tls-hostname={name}"));
        command.args(["example.test", "SOA", "example.test", "NS"]);
        String::from_utf8(command.output().await.expect("kdig starts").stdout).expect("is text")
    };
    let answer = ask("ns1.example.test").await;
    assert!(answer.contains("hostmaster.example.test.") && answer.contains("ns2.example.test."), "{answer}");
    assert!(answer.contains("TLS1.3"), "{answer}");
    assert!(!ask("ns1.elsewhere.test").await.contains("hostmaster"), "only under its names");
    let metrics = Visitor::plain(edge.api()).get("/metrics").await.text();
    assert!(metrics.contains("snicket_dns_questions_total{transport=\"tls\"} 2\n"), "{metrics}");

    let (code, _, said) = edge.command(&["up", "--dns-tls", "127.0.0.1:0"]).await;
    assert!(code == 2 && said.contains("--dns 53"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_tunnels_lead_to_the_edge() {
    let Some(program) = peer("dig", "install bind9-dnsutils") else { return };
    let edge = Edge::start_with(&["--dns", "127.0.0.1:0"]).await;
    let server = address(&edge);
    let origin = Origin::start().await;
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    until(LIMIT, "the new name is answered", async || dig(&program, server, &[&agent.host()]).await == "127.0.0.1")
        .await;
    assert_eq!(dig(&program, server, &[&format!("no-{}", agent.host())]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_unless_asked_to() {
    let edge = Edge::start().await;
    assert!(edge.ready().get("dns").is_none());
    let (_, zones) = edge.call("GET", "/client/v4/zones", None).await;
    assert_eq!(zones["result"][0]["name_servers"], json!([]));
    assert!(!Visitor::plain(edge.api()).get("/metrics").await.text().contains("snicket_dns"));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_agents_find_the_nodes_by_the_edge_s_domain() {
    // Its ports are by chance, so only DNS can tell them.
    let edge = Edge::start_with(&["--dns", "127.0.0.1:0", "--domain", "example.test"]).await;
    let token = edge.named_tunnel("site", "site.example.test").await;
    let origin = Origin::start().await;
    let home = tempfile::tempdir().expect("a directory can be made");
    let (resolver, ca) = (address(&edge).to_string(), edge.ca());
    let (ca, token, service) = (ca.to_str().expect("a name"), token.to_str().expect("a name"), origin.service());
    let words = ["tunnel", "--json", "--edge", "example.test", "--edge-resolver", &resolver, "--cacert", ca];
    let agent = Program::new(home.path(), &[&words[..], &["--url", &service, "run", "--token-file", token]].concat());
    let mut agent = agent.start().await;
    agent.event("ready").await;
    assert_eq!(edge.visitor().get("https://site.example.test/").await.status, 200);
    agent.terminate().await;
}
