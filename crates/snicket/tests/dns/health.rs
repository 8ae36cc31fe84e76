//! Who is not well is in no answer.

use std::time::{Duration, Instant};

use harness::{Edge, LIMIT, Origin, peer, until};
use serde_json::{Value, json};

use crate::{address, dig};

/// From the verdict until no answer has the member any more.
const SOON: Duration = Duration::from_secs(1);
/// On a busy machine most of a second may be what `dig` takes to start: one of so many times is to be as it should.
const TIMES: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_turns_out_not_to_be_well_is_in_no_answer_a_second_later() {
    let Some(program) = peer("dig", "install bind9-dnsutils") else { return };
    let edge =
        Edge::start_with(&["--dns", "127.0.0.1:0", "--domain", "example.test", "--origin-networks", "127.0.0.0/8"])
            .await;
    let server = address(&edge);
    let stays = Origin::start().await;
    let mut dies = Origin::start_on(([127, 0, 0, 2], 0).into()).await;
    let place = dies.address();
    let make = async |path: &str, body: Value| {
        let (status, made) = edge.call("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{made}");
        made["result"]["id"].as_str().expect("an id").to_owned()
    };
    let (_, zones) = edge.call("GET", "/client/v4/zones?name=example.test", None).await;
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let (zone, account) = (id(&zones["result"][0]), id(&zones["result"][0]["account"]));
    let base = format!("/client/v4/accounts/{account}/load_balancers");
    let monitor = json!({ "type": "http", "expected_codes": "200", "interval": 1, "timeout": 1, "retries": 0, "consecutive_down": 2 });
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
    let is_well = async || {
        let (_, health) = edge.call("GET", &format!("{base}/pools/{pool}/health"), None).await;
        let origins = health["result"]["pop_health"]["home"]["origins"].as_array().cloned().unwrap_or_default();
        let verdict = origins.iter().find_map(|origin| origin.get(place.ip().to_string()));
        verdict.and_then(|verdict| verdict["healthy"].as_bool())
    };

    let mut took = Vec::new();
    while took.len() < TIMES && took.iter().all(|took| *took > SOON) {
        until(LIMIT, "both are answered", async || answered().await == ["127.0.0.1", "127.0.0.2"]).await;
        until(LIMIT, "it is found to be well", async || is_well().await == Some(true)).await;
        drop(dies);
        until(LIMIT, "it is found not to be well", async || is_well().await == Some(false)).await;
        let found = Instant::now();
        until(LIMIT, "it is in no answer", async || answered().await == ["127.0.0.1"]).await;
        took.push(found.elapsed());
        dies = Origin::start_on(place).await;
    }
    assert!(took.iter().any(|took| *took <= SOON), "{took:?}");
}
