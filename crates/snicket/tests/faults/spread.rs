//! Several addresses of an edge, several connections, and who gets the requests.

use std::collections::BTreeSet;

use harness::{Agent, Edge, LIMIT, Mood, Origin, Visitor, until};
use tokio::task::JoinSet;

use crate::rig::{CONNECTIONS, TRANSPORTS, connections};

/// Where each connection of an agent landed.
async fn diagnosis(agent: &Agent) -> serde_json::Value {
    let answer = Visitor::plain(agent.metrics()).get("/diag/tunnel").await;
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn four_connections_go_to_four_addresses() {
    let four = "127.0.0.1:0,127.0.0.2:0,127.0.0.3:0,127.0.0.4:0";
    let (origin, edge) = (Origin::start().await, Edge::start_with(&["--tunnel", four]).await);
    for transport in TRANSPORTS {
        let agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
        let tunnel = agent.ready()["tunnel_id"].as_str().expect("an id").to_owned();
        until(LIMIT, "four connections", async || connections(&edge, &tunnel).await.len() == CONNECTIONS).await;
        let shown = diagnosis(&agent).await;
        let places: BTreeSet<&str> = shown["connections"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|connection| connection["edgeAddress"].as_str())
            .collect();
        assert_eq!(places.len(), CONNECTIONS, "{transport}: {shown}");
        assert_eq!(edge.visitor().get(&agent.url("/")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_the_connectors_with_the_least_to_do() {
    let edge = Edge::start().await;
    for transport in TRANSPORTS {
        let origins = [Origin::start().await, Origin::start().await];
        let tunnel = crate::rig::Tunnel::create(&edge, transport).await;
        // Two connectors, each with an origin of its own, so that it shows who was asked.
        let mut agents = Vec::new();
        for origin in &origins {
            agents.push(tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await);
        }
        until(LIMIT, "both agents are connected", async || {
            connections(&edge, &tunnel.id).await.len() == 2 * CONNECTIONS
        })
        .await;
        let fare = |mood| origins.iter().for_each(|origin| origin.fare(mood));
        fare(Mood::Stalls);
        let asked = || origins.each_ref().map(Origin::requests);
        let mut requests = JoinSet::new();
        for number in 1..=8 * CONNECTIONS {
            // What an origin may have seen is not sent again.
            let (visitor, url) = (edge.visitor(), tunnel.http("/"));
            requests.spawn(async move { visitor.post(&url, "").await.status });
            until(LIMIT, "an origin has it", async || asked().iter().sum::<usize>() == number).await;
        }
        // All are under way, so least load gives each connection as many as every other.
        assert_eq!(asked(), [4 * CONNECTIONS; 2], "{transport}");
        fare(Mood::Well);
        assert_eq!(requests.join_all().await, [200; 8 * CONNECTIONS], "{transport}");
    }
}
