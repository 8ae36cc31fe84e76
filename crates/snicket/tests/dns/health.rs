//! Who is not well is in no answer.

use std::time::{Duration, Instant};

use harness::{Edge, LIMIT, Origin, peer, until};
use serde_json::{Value, json};

use crate::{address, dig};

/// From the verdict until no answer has the member any more.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_turns_out_not_to_be_well_is_in_no_answer_a_second_later() {
    let Some(program) = peer("dig", "install bind9-dnsutils") else { return };
    let edge =
        Edge::start_with(&["--dns", "127.0.0.1:0", "--domain", "example.test", "--origin-networks", "127.0.0.0/8"])
            .await;
    let server = address(&edge);
    let (stays, dies) = (Origin::start().await, Origin::start_on(([127, 0, 0, 2], 0).into()).await);
    let make = async |path: &str, body: Value| {
        let (status, made) = edge.call("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{made}");
        made["result"]["id"].as_str().expect("an id").to_owned()
    };
    let (_, zones) = edge.call("GET", "/client/v4/zones?name=example.test", None).await;
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let (zone, account) = (id(&zones["result"][0]), id(&zones["result"][0]["account"]));
    let base = format!("/client/v4/accounts/{account}/load_balancers");
    let monitor = json!({ "type": "http", "expected_codes": "200", "interval": 1, "timeout": 1, "retries": 0 });
    let origins = [&stays, &dies].map(|origin| {
        let address = origin.address();
        json!({ "name": "", "address": address.ip(), "port": address.port() })
    });
    let monitor = make(&format!("{base}/monitors"), monitor).await;
    let pool = make(&format!("{base}/pools"), json!({ "name": "p", "origins": origins, "monitor": monitor })).await;
    let balancer = json!({ "name": "lb.example.test", "default_pools": [pool], "fallback_pool": pool });
    make(&format!("/client/v4/zones/{zone}/load_balancers"), balancer).await;
    let answered = async || {
        let answer = dig(&program, server, &["lb.example.test"]).await;
        let mut lines: Vec<_> = answer.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    until(LIMIT, "both are answered", async || answered().await == ["127.0.0.1", "127.0.0.2"]).await;
    let well = async || {
        let (_, health) = edge.call("GET", &format!("{base}/pools/{pool}/health"), None).await;
        health.to_string().matches("\"failure_reason\":\"No failures\"").count()
    };
    until(LIMIT, "both were asked", async || well().await == 2).await;

    drop(dies);
    until(LIMIT, "one is found not to be well", async || well().await == 1).await;
    let found = Instant::now();
    until(LIMIT, "it is in no answer", async || answered().await == ["127.0.0.1"]).await;
    assert!(found.elapsed() <= SOON, "{:?}", found.elapsed());
}
