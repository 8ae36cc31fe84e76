//! The agent's own endpoint, and `health`.

use harness::{Agent, Edge, LIMIT, Origin, Program, Visitor, until};
use serde_json::Value;

use crate::rig::{CONNECTIONS, Tunnel, connections, home};

async fn json(visitor: &Visitor, path: &str) -> (u16, Value) {
    let answer = visitor.get(path).await;
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_tools_expect_over_quic() {
    let metrics = answers_as_tools_expect("quic").await;
    for line in ["quic_client_total_connections 4", "# TYPE quic_client_lost_packets counter"] {
        assert!(metrics.lines().any(|other| other == line), "{line} in\n{metrics}");
    }
    for name in [
        "quic_client_smoothed_rtt{conn_index=\"3\"}",
        "quic_client_receive_bytes{conn_index=\"0\"}",
        "quic_client_sent_frames{conn_index=\"0\",frame_type=\"Stream\"}",
    ] {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_tools_expect_over_http2() {
    let metrics = answers_as_tools_expect("http2").await;
    assert!(!metrics.contains("quic_client_total_connections 4"), "{metrics}");
}

/// Checks the endpoint, and answers the metrics.
async fn answers_as_tools_expect(transport: &str) -> String {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
    let tunnel = agent.ready()["tunnel_id"].as_str().expect("an id").to_owned();
    until(LIMIT, "all are connected", async || connections(&edge, &tunnel).await.len() == CONNECTIONS).await;
    assert_eq!(edge.visitor().get(&agent.url("/")).await.status, 200);
    assert_eq!(edge.visitor().get(&agent.url("/status/404")).await.status, 404);
    let visitor = Visitor::plain(agent.metrics());

    until(LIMIT, "four are ready", async || json(&visitor, "/ready").await.1["readyConnections"] == CONNECTIONS).await;
    let (status, ready) = json(&visitor, "/ready").await;
    assert_eq!((status, &ready["status"]), (200, &200.into()));
    assert_eq!(ready["connectorId"], agent.ready()["connector_id"]);
    let health = visitor.get("/healthcheck").await;
    assert_eq!((health.status, health.text().trim()), (200, "OK"));
    assert_eq!(json(&visitor, "/quicktunnel").await, (200, serde_json::json!({ "hostname": agent.host() })));
    let (status, config) = json(&visitor, "/config").await;
    assert_eq!(status, 200);
    assert_eq!(config["config"]["ingress"][0]["service"], origin.service(), "{config}");
    let metrics = visitor.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"), "{metrics:?}");
    let metrics = metrics.text();
    for line in [
        "cloudflared_tunnel_ha_connections 4",
        "cloudflared_tunnel_total_requests 2",
        "cloudflared_tunnel_request_errors 0",
        "cloudflared_tunnel_response_by_code{status_code=\"200\"} 1",
        "cloudflared_tunnel_response_by_code{status_code=\"404\"} 1",
        "cloudflared_tunnel_server_locations{connection_id=\"0\",edge_location=\"home\"} 1",
        "cloudflared_tunnel_tunnel_register_success{rpcName=\"registerConnection\"} 4",
        "cloudflared_rpc_client_operations{handler=\"registration\",method=\"register_connection\"} 4",
        "cloudflared_rpc_client_latency_secs_count{handler=\"registration\",method=\"register_connection\"} 4",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in\n{metrics}");
    }
    assert_eq!(visitor.get("/elsewhere").await.status, 404);
    assert_eq!(visitor.post("/ready", "").await.status, 405);
    metrics
}

async fn health(words: &[&str]) -> (i32, String) {
    let home = home();
    let (code, out, error) = Program::new(home.path(), &[&["health"], words].concat()).run().await;
    (code, out + &error)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_an_exit_code() {
    let mut edge = Edge::start().await;
    let tunnel = Tunnel::create(&edge, "health").await;
    let mut agent = tunnel.run(&["--hello-world"]).await;
    let (metrics, api) = (agent.metrics().to_string(), edge.api().to_string());
    let (code, said) = health(&["--metrics", &metrics]).await;
    assert!(code == 0 && said.contains("ready"), "{code} {said}");
    let (code, said) = health(&["--api", &api]).await;
    assert!(code == 0 && said.contains("ready"), "{code} {said}");

    edge.kill().await;
    until(LIMIT, "the agent is not ready", async || health(&["--metrics", &metrics]).await.0 == 1).await;
    let (code, said) = health(&["--metrics", &metrics]).await;
    assert!(code == 1 && said.contains("not ready"), "{code} {said}");
    let (code, said) = health(&["--api", &api]).await;
    assert!(code == 1 && said.contains(&api), "{code} {said}");
    assert_eq!(agent.process.terminate().await.code(), Some(0));
    let (code, said) = health(&["--metrics", &metrics]).await;
    assert!(code == 1 && said.contains("no agent answers"), "{code} {said}");
    let (code, said) = health(&["--metrics", "not an address"]).await;
    assert!(code == 2, "{code} {said}");
}
