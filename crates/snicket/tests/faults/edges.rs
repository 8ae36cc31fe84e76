//! The edge dies and comes back.

use std::time::{Duration, Instant};

use harness::{Agent, Edge, LIMIT, Origin, Visitor, until};

use crate::rig::{CONNECTIONS, TRANSPORTS, Tunnel, connected, connections, shown};

/// An agent whose edge was away briefly is back this soon after it: five seconds until it notices the silence of QUIC, less than one
/// until it dials, and what a busy machine adds. The widest back-off is half a minute.
const BACK_WITHIN: Duration = Duration::from_secs(14);

async fn works_again_soon(visitor: &Visitor, url: &str, what: String) {
    let since = Instant::now();
    until(LIMIT, &what, async || {
        let answer = visitor.get(url).await;
        if answer.status != 200 {
            eprintln!("{what}: {}", shown(&answer));
        }
        answer.status == 200
    })
    .await;
    let took = since.elapsed();
    assert!(took <= BACK_WITHIN, "{what}: only after {took:?}");
    eprintln!("{what}: {took:?} after the edge was back");
}

async fn the_edge_is_killed(transport: &str) {
    let (origin, mut edge) = (Origin::start().await, Edge::start().await);
    let named = Tunnel::create(&edge, "named").await;
    let arguments = ["--protocol", transport, "--url", &origin.service()];
    let _agent = named.run(&arguments).await;
    let quick = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
    let urls = [named.https("/"), quick.url("/")];
    for url in &urls {
        assert_eq!(edge.visitor().get(url).await.status, 200);
    }
    for tunnel in [&named.id, quick.ready()["tunnel_id"].as_str().expect("an id")] {
        until(LIMIT, "the agent has all its connections", async || {
            connections(&edge, tunnel).await.len() == CONNECTIONS
        })
        .await;
    }
    edge.kill().await;
    let killed = Instant::now();
    edge.start_again().await;
    eprintln!("{transport}: up again after {:?}", killed.elapsed());
    let visitor = edge.visitor();
    tokio::join!(
        works_again_soon(&visitor, &urls[0], format!("named, {transport}")),
        works_again_soon(&visitor, &urls[1], format!("quick, {transport}")),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_come_back_to_a_killed_edge_over_quic() {
    the_edge_is_killed("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_come_back_to_a_killed_edge_over_http2() {
    the_edge_is_killed("http2").await;
}

/// An edge that was away for long is found this soon: five seconds between two looks, and what a busy machine adds. That
/// the other connections follow at once is tested in virtual time; here a starved handshake may cost one of them a pause.
const FOUND_WITHIN: Duration = Duration::from_secs(14);

async fn the_edge_is_away(transport: &str) {
    // By then the back-off of each connection has grown well beyond five seconds.
    const FAILURES: usize = 20;
    let (origin, mut edge) = (Origin::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "away").await;
    let mut agent = tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await;
    for _ in 0..CONNECTIONS {
        connected(&mut agent.process).await;
    }
    edge.kill().await;
    for _ in 0..FAILURES {
        agent.process.event_where(|event| event["event"] == "connection" && event["state"] == "failed").await;
    }
    edge.start_again().await;
    let since = Instant::now();
    connected(&mut agent.process).await;
    let took = since.elapsed();
    assert!(took < FOUND_WITHIN, "{transport}: {took:?}");
    for _ in 1..CONNECTIONS {
        connected(&mut agent.process).await;
    }
    eprintln!("away for long, {transport}: found {took:?} after it was back, all connections {:?}", since.elapsed());
    assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_was_away_for_long_is_found_soon_over_quic() {
    the_edge_is_away("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_was_away_for_long_is_found_soon_over_http2() {
    the_edge_is_away("http2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_tunnel_closes_its_connections() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let mut agent = tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await;
        assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 200);
        let (code, _, error) = edge.command(&["tunnel", "delete", &tunnel.name]).await;
        assert!(code == 1 && error.contains("connections"), "without -f it stays: {error}");
        let (code, out, error) = edge.command(&["tunnel", "delete", "-f", &tunnel.name]).await;
        assert_eq!(code, 0, "{out}{error}");
        crate::rig::disconnected(&mut agent.process).await;
        let answer = edge.visitor().get(&tunnel.https("/")).await;
        assert_eq!(answer.status, 530, "{}", shown(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_closes_connections_that_come_again() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let mut agent = tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await;
        let (code, out, error) = edge.command(&["tunnel", "cleanup", &tunnel.name]).await;
        assert_eq!(code, 0, "{out}{error}");
        crate::rig::disconnected(&mut agent.process).await;
        until(BACK_WITHIN, "the agent is back", async || edge.visitor().get(&tunnel.https("/")).await.status == 200)
            .await;
    }
}
