//! Registration, choice of connections, retries, configurations.

use std::sync::Arc;
use std::time::Duration;

use certs::tls;
use jiff::Timestamp;
use registry::{ConfigSource, Secret};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use uuid::Uuid;
use wire::identity::TunnelSecret;
use wire::{Body, ConnectError, Transport};

use crate::node::{BOTH, Node, eventually};
use crate::origin::Origin;
use crate::visitor::{Way, get, post};

#[tokio::test]
async fn only_the_right_secret_lets_in() {
    for transport in BOTH {
        let node = Node::start().await;
        let tunnel = node.tunnel("app", ConfigSource::Local).await;
        let origin = Origin::new();
        let right = node.agent(&tunnel, transport);

        let mut wrong = right.clone();
        wrong.registration.secret = TunnelSecret::new(Secret::random().as_bytes().to_vec());
        let mut unknown = right.clone();
        unknown.registration.tunnel = Uuid::new_v4();
        let mut foreign = right.clone();
        foreign.registration.account_tag = "0".repeat(32);
        for dial in [wrong, unknown, foreign] {
            match dial.connect(&origin).await {
                Err(ConnectError::Refused(refused)) => {
                    assert!(refused.is_unauthorized(), "{refused:?}");
                    assert!(refused.retry_after.is_some(), "{refused:?}");
                }
                Err(other) => panic!("{transport}: {other}"),
                Ok(_) => panic!("{transport}: let in"),
            }
        }
        assert!(!node.registry.snapshot().is_connected(tunnel.id));

        let agent = right.connect(&origin).await.unwrap();
        assert_eq!((agent.registered.location.as_str(), agent.registered.remotely_managed), ("lab01", false));
        let snapshot = node.registry.snapshot();
        let record = snapshot.connections(tunnel.id).next().unwrap();
        assert_eq!(
            (record.id, record.transport.as_str()),
            (agent.registered.connection, transport.to_string().as_str())
        );
    }
}

#[tokio::test]
async fn probes_pass_without_a_trace() {
    let node = Node::start().await;
    let tcp = TcpStream::connect(node.addresses().tunnel[0]).await.unwrap();
    let connector = TlsConnector::from(tls::agent_tls(&node.roots(), false).unwrap());
    let mut stream = connector.connect(tls::TUNNEL_PROBE_NAME.try_into().unwrap(), tcp).await.unwrap();
    let mut rest = Vec::new();
    // Either kind of end will do.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    assert!(rest.is_empty());

    let tunnel = node.tunnel("app", ConfigSource::Local).await;
    let (_endpoint, connection) = node.agent(&tunnel, Transport::Quic).quic(tls::TUNNEL_PROBE_NAME).await;
    assert!(matches!(connection.closed().await, quinn::ConnectionError::ApplicationClosed(_)));
}

#[tokio::test]
async fn connections_share_the_load() {
    let node = Node::start().await;
    let tunnel = node.tunnel("app", ConfigSource::Local).await;
    let origins = [Origin::new(), Origin::new()];
    let mut agents = Vec::new();
    for origin in &origins {
        for transport in BOTH {
            agents.push(node.agent(&tunnel, transport).connect(origin).await.unwrap());
        }
    }
    let node = Arc::new(node);
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..8 {
        let node = Arc::clone(&node);
        requests.spawn(async move { node.visit(Way::Http1, get("/gate")).await });
        eventually("the request is under way", async || origins[0].count() + origins[1].count() > number).await;
    }
    // Four connections, eight requests: each has two, so each origin has four.
    assert_eq!((origins[0].count(), origins[1].count()), (4, 4));
    for origin in &origins {
        origin.gate.send_replace(true);
    }
    while let Some(reply) = requests.join_next().await {
        assert_eq!(reply.unwrap().text(), "open");
    }
}

#[tokio::test]
async fn the_same_connection_made_anew_replaces_the_old_one() {
    for transport in BOTH {
        let node = Node::start().await;
        let tunnel = node.tunnel("app", ConfigSource::Local).await;
        let dial = node.agent(&tunnel, transport);
        let (old, new) = (Origin::new(), Origin::new());
        let first = dial.connect(&old).await.unwrap();
        let second = dial.connect(&new).await.unwrap();
        first.connection.closed().await;
        for _ in 0..4 {
            assert_eq!(node.visit(Way::Http1, get("/hello")).await.status, 200);
        }
        assert_eq!((old.count(), new.count()), (0, 4));
        let ids: Vec<Uuid> = node.registry.snapshot().connections(tunnel.id).map(|record| record.id).collect();
        assert_eq!(ids, [second.registered.connection]);
    }
}

#[tokio::test]
async fn a_request_lost_with_its_connection_goes_out_again_if_it_may() {
    for transport in BOTH {
        let node = Arc::new(Node::start().await);
        let tunnel = node.tunnel("app", ConfigSource::Local).await;
        let (first, second) = (Origin::new(), Origin::new());
        let lost = node.agent(&tunnel, transport).connect(&first).await.unwrap();
        let request = |request| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.visit(Way::Http2, request).await })
        };
        let harmless = request(get("/gate"));
        let harmful = request(post("/gate", Body::full("x")));
        eventually("both are under way", async || first.count() == 2).await;
        second.gate.send_replace(true);
        let _other = node.agent(&tunnel, transport).connect(&second).await.unwrap();
        lost.connection.close();
        assert_eq!(harmless.await.unwrap().text(), "open", "{transport}");
        assert_eq!(harmful.await.unwrap().status, 502, "{transport}");
        assert_eq!(second.count(), 1);
    }
}

#[tokio::test]
async fn a_connection_that_is_coming_back_is_waited_for() {
    let (node, origin, agent) = Node::with_app(Transport::Http2).await;
    let node = Arc::new(node);
    let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
    agent.connection.close();
    eventually("the connection is gone", async || !node.registry.snapshot().is_connected(tunnel.id)).await;
    let waiting = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.visit(Way::Http1, get("/hello")).await }
    });
    eventually("the request waits", async || node.metrics().await.contains("snicket_edge_requests_under_way 1")).await;
    assert!(!waiting.is_finished());
    let _again = node.agent(&tunnel, Transport::Quic).connect(&origin).await.unwrap();
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn configurations_are_pushed_when_they_change() {
    for transport in BOTH {
        let node = Node::start().await;
        let tunnel = node.tunnel("app", ConfigSource::Cloudflare).await;
        let document = |service: &str| serde_json::json!({ "ingress": [{ "service": service }] });
        let put = async |service: &str| {
            let now = Timestamp::now();
            node.registry
                .put_configuration(now, tunnel.id, document(service), ConfigSource::Cloudflare, None)
                .await
                .unwrap()
        };
        put("http://localhost:1").await;
        let origin = Origin::new();
        let agent = node.agent(&tunnel, transport).connect(&origin).await.unwrap();
        assert!(agent.registered.remotely_managed);
        let mut seen = origin.configurations.subscribe();
        let first = seen.wait_for(|seen| !seen.is_empty()).await.unwrap()[0].clone();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&first.1).unwrap(), document("http://localhost:1"));
        let second = put("http://localhost:2").await.configuration.version;
        let pushed = seen.wait_for(|seen| seen.len() > 1).await.unwrap()[1].clone();
        assert_eq!(pushed.0, second);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&pushed.1).unwrap(), document("http://localhost:2"));
        eventually("the record has the version", async || {
            node.registry.snapshot().connections(tunnel.id).all(|record| record.config_version == Some(second))
        })
        .await;
    }
}

#[tokio::test]
async fn local_configurations_are_noted() {
    for transport in BOTH {
        let (node, _origin, agent) = Node::with_app(transport).await;
        agent.connection.update_local_configuration(r#"{"ingress":[]}"#.into()).await.unwrap();
        let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().id;
        let snapshot = node.registry.snapshot();
        let noted = snapshot.configuration(tunnel).unwrap();
        assert_eq!((noted.source, &noted.document), (ConfigSource::Local, &serde_json::json!({ "ingress": [] })));
        assert!(agent.connection.update_local_configuration("{".into()).await.is_err());
    }
}

#[tokio::test]
async fn a_deleted_tunnel_loses_its_connections() {
    for transport in BOTH {
        let (node, origin, agent) = Node::with_app(transport).await;
        let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
        node.registry.delete_tunnel(Timestamp::now(), tunnel.id, true).await.unwrap();
        agent.connection.closed().await;
        assert_eq!(node.visit(Way::Http1, get("/hello")).await.status, 530);
        match node.agent(&tunnel, transport).connect(&origin).await {
            Err(ConnectError::Refused(refused)) => assert!(refused.is_unauthorized() && refused.retry_after.is_none()),
            other => panic!("{transport}: {:?}", other.map(|_| ()).map_err(|error| error.to_string())),
        }
    }
}

#[tokio::test]
async fn the_api_can_close_connections() {
    let (node, origin, agent) = Node::with_app(Transport::Quic).await;
    let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
    let dial = node.agent(&tunnel, Transport::Http2);
    let other = dial.connect(&origin).await.unwrap();
    assert_eq!(node.connections.close(tunnel.id, Some(dial.registration.connector)), 1);
    other.connection.closed().await;
    eventually("the closed one is off the list", async || node.registry.snapshot().connections(tunnel.id).count() == 1)
        .await;
    assert_eq!(node.connections.close(tunnel.id, None), 1);
    agent.connection.closed().await;
}

#[tokio::test]
async fn an_agent_that_unregisters_gets_nothing_new_and_finishes_what_it_has() {
    for transport in BOTH {
        let (node, origin, agent) = Node::with_app(transport).await;
        let node = Arc::new(node);
        let under_way = tokio::spawn({
            let node = Arc::clone(&node);
            async move { node.visit(Way::Http1, get("/gate")).await }
        });
        eventually("the request is under way", async || origin.count() == 1).await;
        agent.connection.unregister(Duration::from_secs(5)).await.unwrap();
        let other = Origin::new();
        let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
        let _other = node.agent(&tunnel, transport).connect(&other).await.unwrap();
        assert_eq!(node.visit(Way::Http1, get("/hello")).await.status, 200);
        assert_eq!((origin.count(), other.count()), (1, 1));
        origin.gate.send_replace(true);
        assert_eq!(under_way.await.unwrap().text(), "open", "{transport}");
        agent.connection.closed().await;
    }
}
