//! Agents that are registered and hostile: what they send beside and instead of answers harms their own tunnel at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use certs::tls;
use http::{HeaderValue, Request, Response};
use registry::{ConfigSource, Hostname};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire::{AgentConnection, Body, Handler, Interim, Kind, OriginError, Transport};

use crate::node::{Agent, BOTH, Node, PATIENCE, eventually};
use crate::origin::Origin;
use crate::visitor::{Way, get};

/// Answers with headers that no visitor should have to take.
#[derive(Default)]
struct Giant(AtomicUsize);

impl Handler for Giant {
    async fn exchange(&self, _: Kind, _: Request<Body>, _: Interim) -> Result<Response<Body>, OriginError> {
        let mut answer = Response::new(Body::full("giant"));
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        // By count, by size, and both.
        let (fields, bytes) = [(5000, 1), (3, 400_000), (400, 4000)][number % 3];
        for field in 0..fields {
            let name = http::HeaderName::try_from(format!("x-{field}")).unwrap();
            answer.headers_mut().insert(name, HeaderValue::from_str(&"x".repeat(bytes)).unwrap());
        }
        Ok(answer)
    }

    async fn update_configuration(&self, version: i32, _: Bytes) -> Result<i32, (i32, String)> {
        Ok(version)
    }
}

/// A node with an honest tunnel called `app`, and the hostile agent's connection for a tunnel called `odd`.
struct Scene {
    node: Node,
    odd: Odd,
    _honest: Agent,
}

struct Odd {
    _connection: AgentConnection,
    quic: Option<(quinn::Endpoint, quinn::Connection)>,
}

impl Scene {
    async fn with<H: Handler>(transport: Transport, handler: H) -> Self {
        let node = Node::start().await;
        let honest = node.tunnel("app", ConfigSource::Local).await;
        let honest = node.agent(&honest, BOTH[0]).connect(&Origin::new()).await.unwrap();
        let tunnel = node.tunnel("odd", ConfigSource::Local).await;
        assert!(node.registry.snapshot().route(Hostname::parse("odd.edge.test").unwrap().as_str()).is_some());
        let dial = node.agent(&tunnel, transport);
        let (handler, registration) = (Arc::new(handler), &dial.registration);
        let (connected, quic) = match transport {
            Transport::Quic => {
                let (endpoint, connection) = dial.quic(tls::TUNNEL_QUIC_NAME).await;
                let connected = wire::quic::agent::connect(connection.clone(), registration, handler, PATIENCE).await;
                (connected, Some((endpoint, connection)))
            }
            Transport::Http2 => {
                let tcp = TcpStream::connect(dial.address).await.unwrap();
                let tls = TlsConnector::from(tls::agent_tls(&dial.roots, false).unwrap());
                let stream = tls.connect(tls::TUNNEL_HTTP2_NAME.try_into().unwrap(), tcp).await.unwrap();
                (wire::http2::agent::connect(stream, registration, handler, PATIENCE).await, None)
            }
        };
        let (_, connection) = connected.unwrap();
        Self { node, odd: Odd { _connection: connection, quic }, _honest: honest }
    }

    async fn asks_odd(&self, way: Way) -> u16 {
        let request = Request::builder().uri("https://odd.edge.test/").body(Body::empty()).unwrap();
        self.node.visit(way, request).await.status
    }

    async fn others_are_served(&self) {
        for way in [Way::Http1, Way::Http2, Way::Http3] {
            assert_eq!(self.node.visit(way, get("/hello")).await.status, 200, "{way:?}");
        }
    }
}

#[tokio::test]
async fn giant_headers_are_an_error_of_their_own_tunnel() {
    for transport in BOTH {
        let scene = Scene::with(transport, Giant::default()).await;
        for way in [Way::Http1, Way::Http2, Way::Http3] {
            for _ in 0..3 {
                let status = scene.asks_odd(way).await;
                assert!([200, 502, 530].contains(&status), "{way:?} {transport}: {status}");
            }
            scene.others_are_served().await;
        }
    }
}

#[tokio::test]
async fn streams_and_datagrams_that_nobody_asked_for_are_dropped() {
    let scene = Scene::with(Transport::Quic, Giant::default()).await;
    let (_, quic) = scene.odd.quic.as_ref().unwrap();
    // The beginnings of streams for data and for calls, whole and broken off, and nothing of either kind.
    let junk: [&[u8]; 6] = [
        b"",
        b"\x0a",
        b"\x0a\x36\xcd\x12\xa1\x3e01\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x52\xbb\x82\x5c\xdb\x6501\xff\xff\xff\x7f\xff\xff\xff\x7f",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 2000],
    ];
    for bytes in junk {
        // The edge may end the connection at any of them.
        let Ok((mut sending, _receiving)) = quic.open_bi().await else { break };
        let _ = sending.write_all(bytes).await;
        let _ = sending.finish();
    }
    for number in 0..2000_usize {
        let _ = quic.send_datagram(Bytes::from(vec![u8::try_from(number % 256).unwrap(); number % 1000]));
    }
    scene.others_are_served().await;
    quic.close(0_u32.into(), b"");
    eventually("its connection is forgotten", async || {
        scene.node.metrics().await.contains("snicket_edge_tunnel_connections{transport=\"quic\"} 0")
    })
    .await;
}

/// After the handshake, where the edge speaks HTTP/2 as a client and waits for settings and a registration.
#[tokio::test]
async fn whoever_does_not_register_is_let_go() {
    let (node, _origin, _agent) = Node::with_app(BOTH[0]).await;
    let junk: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x04\0\0\0\x01\x88\x88\x88\x88\x88",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
        b"\0\xff\xff\0\0\0\0\0\x01garbage",
        &[0xff; 4000],
    ];
    for bytes in junk {
        let tcp = TcpStream::connect(node.addresses().tunnel[0]).await.unwrap();
        let tls = TlsConnector::from(tls::agent_tls(&node.roots(), false).unwrap());
        let mut stream = tls.connect(tls::TUNNEL_HTTP2_NAME.try_into().unwrap(), tcp).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut sink = tokio::io::sink();
        let closed = tokio::io::copy(&mut stream, &mut sink);
        let _ = tokio::time::timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("{bytes:?} is kept"));
    }
    assert_eq!(node.visit(Way::Http2, get("/hello")).await.status, 200);
    assert!(node.metrics().await.contains("snicket_edge_registrations_total{result=\"accepted\"} 1"));
}
