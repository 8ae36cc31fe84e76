//! Certificates of a public authority: a real ACME server looks at real edges.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::{Agent, Edge, Etcd, LIMIT, Origin, Pebble, Visitor, lasting_address, peer, until};
use serde_json::{Value, json};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// So short that a test can wait for two thirds of it, and long enough to see what happens in the last third.
const SHORT: Duration = Duration::from_secs(90);

async fn edge(pebble: &Pebble, arguments: &[&str]) -> Edge {
    let (directory, ca) = (pebble.directory(), pebble.ca());
    let ca = ca.to_str().expect("a name");
    let acme = ["--domain", "example.test", "--acme-email", "me@example.test", "--acme-directory", &directory];
    Edge::start_with(&[&acme[..], &["--acme-ca", ca], arguments].concat()).await
}

/// Somebody who trusts the authority, and not the edge's own.
fn stranger(edge: &Edge, root: &Path) -> Visitor {
    Visitor::new(edge.https(), edge.http(), root)
}

/// What `snicket status` says of a name.
async fn status(edge: &Edge, name: &str) -> Option<Value> {
    let said = edge.said(&["status", "--json"]).await;
    let said: Value = serde_json::from_str(&said).expect("an event");
    let list = said["certificates"]["list"].as_array().expect("a list");
    list.iter().find(|certificate| certificate["name"] == name).cloned()
}

/// Orders of this node that have ended, with and without a certificate.
async fn ended(edge: &Edge) -> (u64, u64) {
    let text = Visitor::plain(edge.api()).get("/metrics").await.text();
    let count = |result: &str| {
        let start = format!("snicket_edge_certificates_total{{result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect("it is counted");
        line.parse().expect("a number")
    };
    (count("issued"), count("failed"))
}

async fn is_valid(edge: &Edge, name: &str) -> bool {
    status(edge, name).await.is_some_and(|certificate| certificate["state"] == "valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_visitor_of_a_name_waits_for_its_certificate_by_tls_alone() {
    let Some(pebble) = Pebble::start(LONG).await else { return };
    let edge = edge(&pebble, &[]).await;
    pebble.look_at(&[], &[edge.https()]);
    let origin = Origin::start().await;
    // A quick tunnel's certificate is not ordered ahead.
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    assert!(status(&edge, &agent.host()).await.is_none());
    let visitor = stranger(&edge, &pebble.root().await);
    assert_eq!(visitor.get(&agent.url("/")).await.status, 200);
    let shown = status(&edge, &agent.host()).await.expect("it is told");
    assert_eq!((&shown["state"], &shown["last_error"]), (&json!("valid"), &json!(null)), "{shown}");
    assert!(shown["issuer"].as_str().is_some_and(|issuer| issuer.contains("Pebble")), "{shown}");
    assert!(shown["renew_at"].as_str() < shown["expires_at"].as_str(), "{shown}");
    let (_, said, _) = edge.command(&["status"]).await;
    assert!(said.contains(&agent.host()) && said.contains("Pebble"), "{said}");
    assert_eq!(pebble.looks().0, 0, "the first way was good enough");

    // The edge's own name has one without being asked for.
    until(LIMIT, "the domain has a certificate", async || is_valid(&edge, "example.test").await).await;
    visitor.certificate("example.test").await.expect("it is trusted");
    assert_eq!(ended(&edge).await, (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_seen_by_tls_is_seen_by_http() {
    let Some(pebble) = Pebble::start(LONG).await else { return };
    let edge = edge(&pebble, &[]).await;
    pebble.look_at(&[edge.http()], &[]);
    let origin = Origin::start().await;
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let visitor = stranger(&edge, &pebble.root().await);
    assert_eq!(visitor.get(&agent.url("/")).await.status, 200);
    let by_tls = pebble.looks().1;
    // What has worked is what is tried first from then on.
    edge.named_tunnel("site", "site.example.test").await;
    until(LIMIT, "a routed name has one ahead of its first visitor", async || {
        is_valid(&edge, "site.example.test").await
    })
    .await;
    assert!(pebble.looks().0 >= 2 && pebble.looks().1 <= by_tls + 1, "{:?} after {by_tls}", pebble.looks());
    // Other questions are the origin's.
    let asked = origin.requests();
    visitor.get(&agent.http_url("/.well-known/acme-challenge/of-the-origin")).await;
    assert_eq!(origin.requests(), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_routed_are_not_ordered() {
    let Some(pebble) = Pebble::start(LONG).await else { return };
    let edge = edge(&pebble, &[]).await;
    pebble.look_at(&[edge.http()], &[edge.https()]);
    edge.named_tunnel("all", "*.all.example.test").await;
    edge.named_tunnel("odd", "o_d.example.test").await;
    until(LIMIT, "the domain has a certificate", async || is_valid(&edge, "example.test").await).await;
    let (visitor, root) = (edge.visitor(), pebble.root().await);
    for name in ["nobody.example.test", "x.all.example.test", "all.example.test", "o_d.example.test"] {
        visitor.certificate(name).await.expect("the edge's own authority signs it");
        stranger(&edge, &root).certificate(name).await.expect_err("nobody else does");
    }
    stranger(&edge, &root).certificate("elsewhere.test").await.expect_err("it is not the edge's");
    let (_, status) = edge.call("GET", "/snicket/v1/status", None).await;
    assert_eq!(status["result"]["certificates"]["total"], 1, "{status}");
    assert_eq!(ended(&edge).await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_one_orders_and_both_answer_and_show_it() {
    let (Some(pebble), Some(etcd)) = (Pebble::start(LONG).await, Etcd::start(1).await) else { return };
    let keys = tempfile::tempdir().expect("a directory can be made");
    let (registry, key) = (format!("etcd://{}/test", etcd.addresses()), keys.path().join("registry.key"));
    let shared = ["--registry", &registry, "--secrets-key", key.to_str().expect("a name")];
    let here = edge(&pebble, &shared).await;
    let there = edge(&pebble, &shared).await;
    // Whoever orders, now one is asked and now the other.
    pebble.look_at(&[], &[here.https(), there.https()]);
    for name in ["a", "b", "c", "d"] {
        here.named_tunnel(name, &format!("{name}.example.test")).await;
    }
    let names = ["example.test", "a.example.test", "b.example.test", "c.example.test", "d.example.test"];
    let root = pebble.root().await;
    for name in names {
        for edge in [&here, &there] {
            until(LIMIT, "a node has the certificate", async || is_valid(edge, name).await).await;
        }
        let [one, other] = [&here, &there].map(|edge| stranger(edge, &root));
        let shown = one.certificate(name).await.expect("it is trusted");
        assert_eq!(shown, other.certificate(name).await.expect("it is trusted"), "{name}");
    }
    let (here, there) = (ended(&here).await, ended(&there).await);
    assert_eq!(here.0 + there.0, names.len() as u64, "each name is ordered once: {here:?} {there:?}");

    let whole = json!({ "key": BASE64_STANDARD.encode("\0"), "range_end": BASE64_STANDARD.encode("\0") });
    let entries = etcd.post("kv/range", &whole).await;
    let texts = |field: &str| {
        let entries = entries["kvs"].as_array().expect("there are entries").iter();
        let bytes = entries.map(|entry| BASE64_STANDARD.decode(entry[field].as_str().unwrap_or_default()));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.expect("it is base64")).into_owned()).collect::<Vec<_>>()
    };
    let kinds = ["acme-certificates/a.example.test", "acme-accounts/"];
    assert!(kinds.iter().all(|kind| texts("key").iter().any(|key| key.contains(kind))), "{:?}", texts("key"));
    let open = |value: &String| ["PRIVATE KEY", "BEGIN CERT", "key_pkcs8"].iter().any(|secret| value.contains(secret));
    assert!(!texts("value").iter().any(open), "secrets are encrypted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_takes_the_old_ones_place_while_visitors_come() {
    let Some(pebble) = Pebble::start(SHORT).await else { return };
    let edge = edge(&pebble, &[]).await;
    pebble.look_at(&[], &[edge.https()]);
    let visitor = stranger(&edge, &pebble.root().await);
    let first = visitor.certificate("example.test").await.expect("it is trusted");
    until(2 * SHORT, "there is another certificate, and always one", async || {
        visitor.certificate("example.test").await.expect("it is trusted") != first
    })
    .await;
    assert_eq!(ended(&edge).await, (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_down_costs_no_certificate() {
    let Some(mut pebble) = Pebble::start(SHORT).await else { return };
    let mut edge = edge(&pebble, &[]).await;
    pebble.look_at(&[], &[edge.https()]);
    let visitor = stranger(&edge, &pebble.root().await);
    let first = visitor.certificate("example.test").await.expect("it is trusted");
    pebble.kill().await;
    // Not even after another start: it is in the registry.
    edge.process.terminate().await;
    edge.start_again().await;
    // By the metrics, which may be asked as often as one likes.
    until(2 * SHORT, "the renewal has failed", async || ended(&edge).await.1 > 0).await;
    // It is counted a moment before it is written.
    let told = async || status(&edge, "example.test").await.expect("it is told")["last_error"].to_string();
    until(LIMIT, "the reason is told", async || told().await.contains("cannot be reached")).await;
    assert_eq!(visitor.certificate("example.test").await.expect("it is trusted"), first, "the old one stays");

    // It comes back and knows nobody.
    pebble.start_again().await;
    let visitor = stranger(&edge, &pebble.root().await);
    until(2 * SHORT, "the name is renewed", async || visitor.certificate("example.test").await.is_ok()).await;
    let told = status(&edge, "example.test").await.expect("it is told");
    assert_eq!((&told["state"], &told["last_error"]), (&json!("valid"), &json!(null)), "{told}");
}

async fn dig(program: &Path, server: SocketAddr, words: &[&str]) -> String {
    let mut command = tokio::process::Command::new(program);
    command.args(["+short", &format!("@{}", server.ip()), "-p", &server.port().to_string()]).args(words);
    let output = command.output().await.expect("dig starts");
    String::from_utf8(output.stdout).expect("is text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_by_dns_has_one_certificate_for_all_names_below_its_own() {
    let dns = lasting_address();
    let (Some(pebble), Some(program)) = (Pebble::start_asking(LONG, dns).await, peer("dig", "install bind9-dnsutils"))
    else {
        return;
    };
    let edge = edge(&pebble, &["--dns", &dns.to_string()]).await;
    pebble.look_at(&[], &[edge.https()]);
    for name in ["*.example.test", "example.test"] {
        until(LIMIT, "there is a certificate ahead of all visitors", async || is_valid(&edge, name).await).await;
    }
    let origin = Origin::start().await;
    let visitor = stranger(&edge, &pebble.root().await);
    let mut shown = Vec::new();
    for _ in 0..2 {
        let agent = Agent::start(&edge, &origin.service(), &[]).await;
        assert_eq!(visitor.get(&agent.url("/")).await.status, 200);
        shown.push(visitor.certificate(&agent.host()).await.expect("it is trusted"));
    }
    shown.push(visitor.certificate("nobody.example.test").await.expect("it covers what nobody has thought of"));
    assert!(shown.iter().all(|other| *other == shown[0]), "one for all of them");
    visitor.certificate("two.labels.example.test").await.expect_err("it covers one label");

    // A wildcard that leads to a tunnel has one, too; what others have put at the name stays there.
    let (_, zones) = edge.call("GET", "/client/v4/zones", None).await;
    let records = format!("/client/v4/zones/{}/dns_records", zones["result"][0]["id"].as_str().expect("an id"));
    let body = json!({ "name": "_acme-challenge.all", "type": "TXT", "content": "another's" });
    assert_eq!(edge.call("POST", &records, Some(body)).await.0, 200);
    edge.named_tunnel("all", "*.all.example.test").await;
    until(LIMIT, "the wildcard has a certificate", async || is_valid(&edge, "*.all.example.test").await).await;
    visitor.certificate("any.all.example.test").await.expect("it is trusted");
    assert_eq!(dig(&program, dns, &["_acme-challenge.all.example.test", "TXT"]).await, "\"another's\"");
    assert_eq!(dig(&program, dns, &["_acme-challenge.example.test", "TXT"]).await, "", "nothing is left of orders");
    assert_eq!(ended(&edge).await, (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_asks_the_edge_for_names_each_has_its_own() {
    let Some(pebble) = Pebble::start(LONG).await else { return };
    // It asks somebody else.
    let mut edge = edge(&pebble, &["--dns", "127.0.0.1:0"]).await;
    pebble.look_at(&[], &[edge.https()]);
    until(LIMIT, "the wildcard has been tried", async || ended(&edge).await.1 == 1).await;
    edge.named_tunnel("site", "site.example.test").await;
    until(LIMIT, "a name below it has a certificate", async || is_valid(&edge, "site.example.test").await).await;
    let visitor = stranger(&edge, &pebble.root().await);
    visitor.certificate("site.example.test").await.expect("it is trusted");
    let told = status(&edge, "*.example.test").await.expect("it is told");
    assert!(told["last_error"].as_str().is_some_and(|error| error.contains("by DNS")), "{told}");
    // A node that is killed in the middle of an order leaves nothing that the next one has to wait for.
    edge.kill().await;
    edge.start_again().await;
    assert!(is_valid(&edge, "site.example.test").await);
}
