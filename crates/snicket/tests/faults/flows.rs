//! Flows of datagrams when the agent that carries them is gone.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Edge, LIMIT, Visitor, until};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::rig::{CONNECTIONS, Connector, TRANSPORTS, Tunnel, connections, said};

/// Between two datagrams of the visitor.
const PACE: Duration = Duration::from_millis(100);

/// Answers each datagram with itself.
async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let mut heard = [0; 2000];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut heard).await {
                let _ = socket.send_to(&heard[..length], from).await;
            }
        }
    });
    address
}

/// Says something at a steady pace until there is an answer to what was said now, and tells how long that took.
async fn ask(player: &UdpSocket, word: &str) -> Duration {
    let asked = Instant::now();
    let asking = async {
        loop {
            let _ = player.send(word.as_bytes()).await;
            let mut heard = [0; 100];
            while let Ok(Ok(length)) = timeout(PACE, player.recv(&mut heard)).await {
                if &heard[..length] == word.as_bytes() {
                    return;
                }
            }
        }
    };
    timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("no answer to {word}"));
    asked.elapsed()
}

/// Flows that an agent carries.
async fn flows(agent: &Connector) -> u64 {
    let metrics = Visitor::plain(agent.metrics()).get("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("cloudflared_udp_active_sessions "));
    line.expect("it is counted").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_goes_on_over_another_agent_when_its_own_is_killed() {
    let edge = Edge::start_with(&["--loglevel", "warn"]).await;
    let origin = echo().await;
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let name = format!("game.{transport}.test");
        let config = edge.home().join(format!("{transport}.yml"));
        let rules =
            format!("ingress:\n  - hostname: {name}\n    service: udp://{origin}\n  - service: http_status:404\n");
        std::fs::write(&config, rules).expect("the rules can be written");
        let config = config.display().to_string();
        let mut agents = Vec::new();
        for _ in 0..2 {
            agents.push(tunnel.run(&["--protocol", transport, "--config", &config]).await);
        }
        until(LIMIT, "both agents have all their connections", async || {
            connections(&edge, &tunnel.id).await.len() == 2 * CONNECTIONS
        })
        .await;
        let added = said(&edge, &["tunnel", "port", "add", transport, &format!("udp://{name}"), "--json"]).await;
        let added: serde_json::Value = serde_json::from_str(&added).expect("one event");
        let port = u16::try_from(added["port"].as_u64().expect("a port")).expect("a port");
        let player = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        player.connect((Ipv4Addr::LOCALHOST, port)).await.expect("UDP connects to anything");
        ask(&player, "before").await;
        let carrier = usize::from(flows(&agents[0]).await == 0);
        agents[carrier].process.kill().await;
        // The death shows at once over HTTP/2, and by five seconds of silence over QUIC.
        let gap = ask(&player, "after").await;
        assert!(gap < Duration::from_secs(15), "{transport}: {gap:?}");
        for word in ["on", "and", "on"] {
            ask(&player, word).await;
        }
        assert_eq!(flows(&agents[1 - carrier]).await, 1, "{transport}");
    }
}
