//! The metrics endpoint, asked as a scraper asks.

use agent::{Agent, listen_metrics};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::Edge;
use crate::{config, everything_to, within};

async fn ask(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_endpoint_tells_what_people_chart() {
    let mut edge = Edge::start().await;
    edge.kill().await;
    let mut config = config(&[&edge], &everything_to("http_status:204", r#""connectTimeout":7"#));
    config.quick_hostname = Some("quick.test".to_owned());
    let connector = config.connector.to_string();
    let listener = listen_metrics(Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let agent = Agent::start(config, Some(listener)).await.unwrap();
    let address = agent.metrics_address().unwrap();
    let (status, body) = ask(address, "/ready").await;
    let ready = |status: u16, connections: u8| json!({ "status": status, "readyConnections": connections, "connectorId": connector });
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (503, ready(503, 0)));

    let edge = edge.restarted().await;
    assert!(within("a connection", agent.ready()).await);
    for _ in 0..3 {
        assert_eq!(edge.get("/").await.0, 204);
    }
    let (status, body) = ask(address, "/ready").await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, ready(200, 1)));
    assert_eq!(ask(address, "/healthcheck").await, (200, "OK\n".to_owned()));
    assert_eq!(ask(address, "/quicktunnel").await, (200, r#"{"hostname":"quick.test"}"#.to_owned()));
    let (_, config) = ask(address, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["version"], -1);
    assert_eq!(config["config"]["ingress"][0]["originRequest"]["connectTimeout"], 7);
    let (_, tunnel) = ask(address, "/diag/tunnel").await;
    let tunnel: Value = serde_json::from_str(&tunnel).unwrap();
    assert_eq!(tunnel["connections"][0]["protocol"], 1);
    assert_eq!(ask(address, "/elsewhere").await.0, 404);
    let mut keys: Vec<&String> =
        config.as_object().unwrap().keys().chain(config["config"].as_object().unwrap().keys()).collect();
    keys.sort();
    assert_eq!(keys, ["config", "ingress", "originRequest", "version", "warp-routing"]);

    let (_, metrics) = ask(address, "/metrics").await;
    for line in [
        "cloudflared_tunnel_ha_connections 1",
        "cloudflared_tunnel_total_requests 3",
        "cloudflared_tunnel_concurrent_requests_per_tunnel 0",
        "cloudflared_tunnel_request_errors 0",
        "cloudflared_tunnel_response_by_code{status_code=\"204\"} 3",
        "cloudflared_tunnel_server_locations{connection_id=\"0\",edge_location=\"tst1\"} 1",
        "cloudflared_tunnel_tunnel_register_success{rpcName=\"registerConnection\"} 1",
        "cloudflared_tunnel_user_hostnames_counts{userHostname=\"quick.test\"} 1",
        "cloudflared_orchestration_config_version -1",
        "quic_client_total_connections 1",
        "build_info{goversion=\"\",revision=\"\",type=\"\",version=\"test\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    assert!(metrics.contains("quic_client_smoothed_rtt{conn_index=\"0\"}"));
}
