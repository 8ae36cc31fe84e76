//! Peers that go silent without a word.

use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{Edge, LIMIT, Network, Origin, Passing, RawOrigin, Relay, Visitor, until};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use tokio::io::AsyncReadExt as _;

use crate::rig::{CONNECTIONS, Connector, Tunnel, connected, connections, disconnected};

/// A peer that vanished is found within this time: at most ten seconds after the last byte, which is tested in virtual time;
/// here buffers that were full are emptied first, and on a busy machine.
const FOUND_WITHIN: Duration = Duration::from_secs(14);

/// Waits until both ends have found out, and tells how long each took.
async fn both_find_out(edge: &Edge, tunnel: &Tunnel, agent: &mut Connector, what: &str) {
    let since = Instant::now();
    let by_agent = async {
        for _ in 0..CONNECTIONS {
            disconnected(&mut agent.process).await;
        }
        since.elapsed()
    };
    let by_edge = async {
        until(LIMIT, "the edge drops its connections", async || connections(edge, &tunnel.id).await.is_empty()).await;
        since.elapsed()
    };
    let (by_agent, by_edge) = tokio::join!(by_agent, by_edge);
    eprintln!("{what}: found by the agent after {by_agent:?}, by the edge after {by_edge:?}");
    assert!(by_agent <= FOUND_WITHIN && by_edge <= FOUND_WITHIN, "{what}: agent {by_agent:?}, edge {by_edge:?}");
}

async fn all_connected(edge: &Edge, tunnel: &Tunnel, agent: &mut Connector) {
    for _ in 0..CONNECTIONS {
        connected(&mut agent.process).await;
    }
    until(LIMIT, "all connections are listed", async || connections(edge, &tunnel.id).await.len() == CONNECTIONS).await;
}

async fn while_idle(transport: &str) {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "idle").await;
    let relay = Relay::start(edge.tunnel(), Passing::All).await;
    let arguments = ["--protocol", transport, "--url", &origin.service()];
    let mut agent = tunnel.run_through(relay.address(), &arguments).await;
    all_connected(&edge, &tunnel, &mut agent).await;
    relay.pass(Passing::Nothing);
    both_find_out(&edge, &tunnel, &mut agent, &format!("idle, {transport}")).await;

    relay.pass(Passing::All);
    until(LIMIT, "the agent is back", async || edge.visitor().get(&tunnel.https("/")).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_found_while_idle_over_quic() {
    while_idle("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_found_while_idle_over_http2() {
    while_idle("http2").await;
}

/// Uploads without end, as fast as it goes; ends when the edge gives up.
async fn upload(visitor: Visitor, url: String) {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let sending = async { while sender.send_data(piece.clone()).await.is_ok() {} };
    tokio::select! {
        _ = visitor.open("POST", &url, &[], body.boxed()) => {}
        () = async { sending.await; std::future::pending().await } => {}
    }
}

async fn while_saturated(transport: &str) {
    let read = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&read);
    let origin = RawOrigin::start(move |mut stream| {
        let count = std::sync::Arc::clone(&count);
        async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                count.fetch_add(length, std::sync::atomic::Ordering::SeqCst);
            }
        }
    })
    .await;
    let edge = Edge::start().await;
    let tunnel = Tunnel::create(&edge, "busy").await;
    let relay = Relay::start(edge.tunnel(), Passing::All).await;
    let arguments = ["--protocol", transport, "--url", &origin.service()];
    let mut agent = tunnel.run_through(relay.address(), &arguments).await;
    all_connected(&edge, &tunnel, &mut agent).await;
    // Least load spreads them, so that each connection has one.
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        uploads.spawn(upload(edge.visitor(), tunnel.http("/")));
    }
    until(LIMIT, "the uploads flow", async || read.load(std::sync::atomic::Ordering::SeqCst) > 16 << 20).await;
    relay.pass(Passing::Nothing);
    both_find_out(&edge, &tunnel, &mut agent, &format!("saturated, {transport}")).await;
    let ended = async { while uploads.join_next().await.is_some() {} };
    assert!(tokio::time::timeout(LIMIT, ended).await.is_ok(), "the visitors are told");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_found_while_saturated_over_quic() {
    while_saturated("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_found_while_saturated_over_http2() {
    while_saturated("http2").await;
}

/// Packets are lost by the kernel, so that TCP goes unacknowledged as well.
async fn behind_a_dead_wire(network: Network, transport: &str) {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "wire").await;
    let arguments = ["--protocol", transport, "--url", &origin.service()];
    let mut agent = tunnel.run(&arguments).await;
    all_connected(&edge, &tunnel, &mut agent).await;
    let port = edge.tunnel().port();
    network.lose(&format!("meta l4proto {{ tcp, udp }} th dport {port}"));
    network.lose(&format!("meta l4proto {{ tcp, udp }} th sport {port}"));
    both_find_out(&edge, &tunnel, &mut agent, &format!("a dead wire, {transport}")).await;
    network.heal();
    until(LIMIT, "the agent is back", async || edge.visitor().get(&tunnel.https("/")).await.status == 200).await;
}

#[test]
fn behind_a_dead_wire_is_found_over_quic() {
    Network::run("vanished::behind_a_dead_wire_is_found_over_quic", |network| behind_a_dead_wire(network, "quic"));
}

#[test]
fn behind_a_dead_wire_is_found_over_http2() {
    Network::run("vanished::behind_a_dead_wire_is_found_over_http2", |network| behind_a_dead_wire(network, "http2"));
}
