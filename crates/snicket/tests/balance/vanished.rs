//! A member that is gone without a word.

use std::time::Duration;

use harness::{LIMIT, Origin, Passing, Program, Relay, until};
use serde_json::json;

use crate::{Balanced, HERE, at};

/// Connections that an agent holds.
const CONNECTIONS: usize = 4;

/// Counts how often requests left an agent of which nothing was heard any more.
const SILENCES: &str = "snicket_edge_retries_total{why=\"silent\"}";

#[tokio::test(flavor = "multi_thread")]
async fn it_costs_its_visitor_one_wait_and_not_one_for_each_connection() {
    let balanced = Balanced::start(&HERE).await;
    let (gone, there) = (Origin::start().await, Origin::start().await);
    let token = balanced.edge.named_tunnel("gone", "gone.localhost").await;
    let path = format!("/client/v4/accounts/{}/cfd_tunnel?name=gone", balanced.account);
    let id = balanced.edge.call("GET", &path, None).await.1["result"][0]["id"].as_str().expect("an id").to_owned();
    // Whoever has no weight is there for when the others fail, so the first request goes to the other one.
    let mut spare = at(&there);
    spare["weight"] = json!(0);
    let pool = balanced.pool("web", &[json!({ "address": format!("{id}.cfargotunnel.com") }), spare]).await;
    balanced.balancer(&[&pool], json!({})).await;

    let relay = Relay::start(balanced.edge.tunnel(), Passing::All).await;
    let (home, ca) = (tempfile::tempdir().expect("a directory can be made"), balanced.edge.ca().display().to_string());
    let (address, service) = (relay.address().to_string(), gone.service());
    let token = token.display().to_string();
    let words = ["tunnel", "--edge", &address, "--cacert", &ca, "--metrics", "127.0.0.1:0", "--json"];
    // Over QUIC a connection is given up soon after it is doubted, which a busy machine cannot tell apart.
    let more = ["--protocol", "http2", "--url", &service, "run", "--token-file", &token];
    let _agent = Program::new(home.path(), &[&words[..], &more].concat()).start().await;
    let path = format!("/client/v4/accounts/{}/cfd_tunnel/{id}/connections", balanced.account);
    until(LIMIT, "all connections are there", async || {
        let (_, answer) = balanced.edge.call("GET", &path, None).await;
        answer["result"][0]["conns"].as_array().is_some_and(|all| all.len() == CONNECTIONS)
    })
    .await;
    assert_eq!(balanced.visits(1).await, [200]);
    assert_eq!(gone.requests(), 1);

    // A pause of a busy machine may have been taken for silence already.
    let (answered, silences) = (there.requests(), balanced.count(SILENCES).await);
    let since = async || (there.requests() - answered, balanced.count(SILENCES).await - silences);
    relay.pass(Passing::Nothing);
    let visit = tokio::time::timeout(Duration::from_secs(30), balanced.visits(1));
    assert_eq!(visit.await.expect("it is answered"), [200]);
    assert_eq!(since().await, (1, 1));
    // Nor does it cost others one for each.
    assert_eq!(balanced.visits(3).await, [200; 3]);
    assert_eq!(since().await, (4, 1));
}
