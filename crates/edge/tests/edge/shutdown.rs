//! A node that stops lets finish what is under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::node::{BOTH, Node, PATIENCE, eventually};
use crate::visitor::{ALL, Way, get};

#[tokio::test]
async fn what_is_under_way_is_finished() {
    for transport in BOTH {
        for way in ALL {
            let (node, origin, agent) = Node::with_app(transport).await;
            let node = Arc::new(node);
            let under_way = tokio::spawn({
                let node = Arc::clone(&node);
                async move { node.visit(way, get("/gate")).await }
            });
            eventually("the request is under way", async || origin.count() == 1).await;
            let stopping = tokio::spawn({
                let node = Arc::clone(&node);
                async move { node.running.shutdown(PATIENCE).await }
            });
            eventually("nothing new is accepted", async || TcpStream::connect(node.addresses().http).await.is_err())
                .await;
            origin.gate.send_replace(true);
            let reply = under_way.await.unwrap();
            assert_eq!((reply.text(), reply.cut), ("open", false), "{way:?} {transport}");
            assert!(stopping.await.unwrap(), "{way:?} {transport}");
            agent.connection.closed().await;
        }
    }
}

#[tokio::test]
async fn newcomers_over_quic_are_refused_at_once() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let node = Arc::new(node);
    let under_way = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.visit(Way::Http1, get("/gate")).await }
    });
    eventually("the request is under way", async || origin.count() == 1).await;
    let draining = node.connections.draining();
    let stopping = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.running.shutdown(PATIENCE).await }
    });
    draining.cancelled().await;
    for (address, alpn) in [(node.addresses().https, "h3"), (node.addresses().tunnel[0], "argotunnel")] {
        // Without a refusal a visitor tries for 30 s.
        let refused = tokio::time::timeout(PATIENCE / 2, node.dial(address, alpn)).await.expect("it waits in vain");
        let Err(quinn::ConnectionError::ConnectionClosed(close)) = refused else { panic!("{alpn}: {refused:?}") };
        assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED, "{alpn}");
    }
    origin.gate.send_replace(true);
    assert_eq!(under_way.await.unwrap().text(), "open");
    assert!(stopping.await.unwrap());
}

#[tokio::test]
async fn what_does_not_finish_is_cut_off() {
    for transport in BOTH {
        let (node, origin, agent) = Node::with_app(transport).await;
        let node = Arc::new(node);
        let mut under_way = tokio::task::JoinSet::new();
        for (number, way) in ALL.into_iter().enumerate() {
            under_way.spawn({
                let node = Arc::clone(&node);
                async move { node.visit(way, get("/never")).await }
            });
            eventually("the request is under way", async || origin.count() > number).await;
        }
        let stopped = tokio::time::timeout(PATIENCE, node.running.shutdown(Duration::from_millis(100))).await;
        assert!(!stopped.expect("it does not stop"));
        agent.connection.closed().await;
        origin.given_up(ALL.len()).await;
        under_way.abort_all();
    }
}

#[tokio::test]
async fn what_has_not_begun_is_not_waited_for() {
    let node = Node::start().await;
    let addresses = node.addresses();
    let mut silent = Vec::new();
    for address in [addresses.http, addresses.https, addresses.api] {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let _http1 = node.tls(b"http/1.1").await;
    let _http2 = node.tls(b"h2").await;
    let (_endpoint, _http3) = node.quic().await;
    eventually("all are accepted", async || node.metrics().await.contains("snicket_edge_visitor_connections 5")).await;
    let stopped = tokio::time::timeout(PATIENCE / 2, node.running.shutdown(PATIENCE)).await;
    assert!(stopped.expect("somebody is waited for"));
}
