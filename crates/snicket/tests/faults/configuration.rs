//! Rules that change while requests are under way.

use harness::{Edge, LIMIT, Load, Origin, Process, until};
use serde_json::{Value, json};

use crate::rig::{Connector, TRANSPORTS, Tunnel, disconnected};

async fn outcome(process: &mut Process) -> Value {
    process.event("configuration").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_drops_nothing_and_a_wrong_one_changes_nothing() {
    let (origin, edge) = (Origin::start().await, Edge::start_with(&["--loglevel", "warn"]).await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let file = edge.home().join(format!("{transport}.yml"));
        let write = |status: &str| {
            let rules = format!(
                "tunnel: {}\ncredentials-file: {}\ningress:\n  - path: /code\n    service: http_status:{status}\n  - service: {}\n",
                tunnel.id,
                tunnel.credentials,
                origin.service()
            );
            std::fs::write(&file, rules).expect("the file can be written");
        };
        write("410");
        let path = file.display().to_string();
        let mut agent = tunnel.run(&["--protocol", transport, "--config", &path]).await;
        let code = async || edge.visitor().get(&tunnel.http("/code")).await.status;
        assert_eq!(code().await, 410);
        let load = Load::start(&edge.visitor(), "POST", &tunnel.http("/slow?ms=20"), 4);
        load.more(20).await;

        // Seen by itself.
        write("411");
        let applied = outcome(&mut agent.process).await;
        assert_eq!(applied["applied"], true, "{applied}");
        assert_eq!(code().await, 411);
        // Told by a signal, several times in a row.
        for status in ["412", "413", "414"] {
            write(status);
            agent.process.signal("HUP").await;
            let wanted: u16 = status.parse().expect("a number");
            until(LIMIT, "the new rules are in force", async || code().await == wanted).await;
        }
        // Wrong: every mistake is named, and what was in force stays.
        std::fs::write(&file, format!("tunnel: {}\ningress:\n  - service: nonsense\n    pahth: /x\n", tunnel.id))
            .expect("the file can be written");
        agent.process.signal("HUP").await;
        let refused = agent.process.event_where(|event| event["applied"] == false).await;
        let reason = refused["reason"].as_str().expect("a reason");
        assert!(reason.contains("nonsense") && reason.contains("pahth") && reason.contains('4'), "{reason}");
        assert_eq!(code().await, 414);
        load.more(20).await;
        let tally = load.stop().await;
        assert!(tally.failed.is_empty(), "{transport}: {tally:?}");
        assert_eq!(agent.process.terminate().await.code(), Some(0));
    }
}

async fn put(edge: &Edge, tunnel: &Tunnel, status: u16) {
    let (_, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    let account = accounts["result"][0]["id"].as_str().expect("there is one account").to_owned();
    let path = format!("/client/v4/accounts/{account}/cfd_tunnel/{}/configurations", tunnel.id);
    let rules = json!({ "config": { "ingress": [{ "service": format!("http_status:{status}") }] } });
    let (answered, answer) = edge.call("PUT", &path, Some(rules)).await;
    assert_eq!(answered, 200, "{answer}");
}

async fn version(agent: &Connector) -> Value {
    let answer = harness::Visitor::plain(agent.metrics()).get("/config").await;
    serde_json::from_slice::<Value>(&answer.body).expect("JSON")["version"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_is_given_reaches_the_agents_and_stays() {
    let mut edge = Edge::start().await;
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        put(&edge, &tunnel, 431).await;
        let mut agent = tunnel.run(&["--protocol", transport]).await;
        let code = async |wanted: u16| {
            until(LIMIT, &format!("the answer is {wanted}"), async || {
                edge.visitor().get(&tunnel.http("/")).await.status == wanted
            })
            .await;
        };
        code(431).await;
        put(&edge, &tunnel, 432).await;
        code(432).await;
        let before = version(&agent).await;
        assert!(before.as_i64() > Some(0), "{before}");

        // All connections go and come again, and the rules stay.
        let (status, out, error) = edge.command(&["tunnel", "cleanup", &tunnel.name]).await;
        assert_eq!(status, 0, "{out}{error}");
        disconnected(&mut agent.process).await;
        code(432).await;
        assert_eq!(version(&agent).await, before);

        // What was changed while the edge alone was there reaches a new agent.
        assert_eq!(agent.process.terminate().await.code(), Some(0));
        put(&edge, &tunnel, 433).await;
        let _agent = tunnel.run(&["--protocol", transport]).await;
        code(433).await;
    }
    // It outlives the edge.
    let tunnel = Tunnel::create(&edge, "kept").await;
    put(&edge, &tunnel, 434).await;
    edge.kill().await;
    edge.start_again().await;
    let _agent = tunnel.run(&[]).await;
    until(LIMIT, "the answer is 434", async || edge.visitor().get(&tunnel.http("/")).await.status == 434).await;
}
