//! Every limit, crossed.

use std::net::Ipv4Addr;
use std::time::Duration;

use edge::Limits;
use http::Request;
use registry::ConfigSource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use wire::Body;

use crate::node::{AMPLE, BOTH, Node, PATIENCE, eventually};
use crate::origin::Origin;
use crate::visitor::{Way, get, raw, status};

const SHORT: Duration = Duration::from_millis(300);

async fn limited(limits: Limits) -> (Node, std::sync::Arc<Origin>, crate::node::Agent) {
    let node = Node::with(limits).await;
    let origin = Origin::new();
    let tunnel = node.tunnel("app", ConfigSource::Local).await;
    let agent = node.agent(&tunnel, BOTH[0]).connect(&origin).await.unwrap();
    (node, origin, agent)
}

/// The edge closes a connection on which nothing more comes.
async fn closes(mut tcp: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the edge keeps it open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn header_and_address() {
    let (node, origin, _agent) =
        limited(Limits { header_count: 30, header_bytes: 16 * 1024, uri_bytes: 1000, ..Limits::default() }).await;
    for way in [Way::Plain, Way::PlainHttp2, Way::Http2, Way::Http3] {
        let mut many = get("/hello");
        for number in 0..31 {
            many.headers_mut().insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), "1".parse().unwrap());
        }
        assert_eq!(node.visit(way, many).await.status, 431, "{way:?}");
        let long = get(&format!("/{}", "a".repeat(1000)));
        assert_eq!(node.visit(way, long).await.status, 414, "{way:?}");
        let fits = get(&format!("/{}", "a".repeat(999)));
        assert_eq!(node.visit(way, fits).await.status, 404, "{way:?}");
    }
    for way in [Way::PlainHttp2, Way::Http3] {
        let mut large = get("/hello");
        large.headers_mut().insert("x-large", "x".repeat(16 * 1024).parse().unwrap());
        // The compressed block may be refused by itself, as a reset.
        let outcome = tokio::time::timeout(PATIENCE, visit_status(&node, way, large)).await.expect("no answer");
        assert_ne!(outcome, 200, "{way:?}");
    }
    let large = format!("GET / HTTP/1.1\r\nhost: app.edge.test\r\nx-large: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(status(&raw(&node, large).await), 431);
    let before = origin.count();
    assert_eq!(node.visit(Way::Http1, get("/hello")).await.status, 200);
    assert_eq!(origin.count(), before + 1);
}

/// Others wait for those who are known, so that it must not be had for nothing.
#[tokio::test]
async fn only_an_origins_answer_makes_a_network_known() {
    let (node, _origin, _agent) = limited(Limits::default()).await;
    let known = async || {
        let metrics = node.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("snicket_edge_known_networks "));
        line.unwrap_or_else(|| panic!("{metrics}")).parse::<usize>().unwrap()
    };
    eventually("the agent's network is known", async || known().await == 1).await;
    let ask = async |network: u8, host: &str, path: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 9, network, 1), 0).into()).unwrap();
        let mut tcp = socket.connect(node.addresses().http).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        status(&closes(tcp).await)
    };
    assert_eq!(ask(1, "app.edge.test", "/cdn-cgi/trace").await, 200);
    assert_eq!(ask(2, "nobody.edge.test", "/").await, 530);
    assert_eq!(ask(3, "app.edge.test", "/there-is-no-such-path").await, 404);
    assert_eq!(known().await, 1);
    for _ in 0..2 {
        assert_eq!(ask(4, "app.edge.test", "/hello").await, 200);
        assert_eq!(known().await, 2);
    }
}

/// The status, or 0 for a reset.
async fn visit_status(node: &Node, way: Way, request: Request<Body>) -> u16 {
    match way {
        Way::PlainHttp2 => {
            let tcp = TcpStream::connect(node.addresses().http).await.unwrap();
            let (requests, connection) = h2::client::handshake(tcp).await.unwrap();
            tokio::spawn(connection);
            let mut requests = requests.ready().await.unwrap();
            let (head, _) = request.into_parts();
            let (answer, _) = requests.send_request(Request::from_parts(head, ()), true).unwrap();
            answer.await.map(|answer| answer.status().as_u16()).unwrap_or(0)
        }
        _ => {
            let (_endpoint, connection) = node.quic().await;
            let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
            let driving = tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
            let (head, _) = request.into_parts();
            let mut stream = requests.send_request(Request::from_parts(head, ())).await;
            let status = match &mut stream {
                Ok(stream) => stream.recv_response().await.map(|answer| answer.status().as_u16()).unwrap_or(0),
                Err(_) => 0,
            };
            driving.abort();
            status
        }
    }
}

#[tokio::test]
async fn connections_of_visitors() {
    let (node, _origin, _agent) = limited(Limits { connections: 2, ..Limits::default() }).await;
    let kept = [
        TcpStream::connect(node.addresses().http).await.unwrap(),
        TcpStream::connect(node.addresses().https).await.unwrap(),
    ];
    // Both are accepted before the third, which gets nothing.
    eventually("both are accepted", async || node.metrics().await.contains("snicket_edge_visitor_connections 2")).await;
    let third = TcpStream::connect(node.addresses().http).await.unwrap();
    assert_eq!(closes(third).await, "");
    drop(kept);
    eventually("there is room again", async || {
        let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
        let _ = tcp.write_all(b"GET /hello HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\n\r\n").await;
        closes(tcp).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn a_websocket_keeps_its_place() {
    let (node, _origin, _agent) = limited(Limits { connections: 1, ..Limits::default() }).await;
    let mut websocket = TcpStream::connect(node.addresses().http).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nhost: app.edge.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\necho";
    websocket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"echo") {
        assert_ne!(websocket.read_buf(&mut answer).await.unwrap(), 0);
    }
    let second = TcpStream::connect(node.addresses().http).await.unwrap();
    assert_eq!(closes(second).await, "");
}

#[tokio::test]
async fn requests_on_one_connection() {
    let (node, origin, _agent) = limited(Limits { streams: 3, ..Limits::default() }).await;
    let (requests, connection) = h2::client::handshake(node.tls(b"h2").await).await.unwrap();
    let driving = tokio::spawn(connection);
    eventually("the settings have come", async || requests.current_max_send_streams() == 3).await;
    let (_endpoint, quic) = node.quic().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(quic.open_bi().await.unwrap());
    }
    assert!(tokio::time::timeout(SHORT, quic.open_bi()).await.is_err());
    assert_eq!(origin.count(), 0);
    driving.abort();
}

#[tokio::test]
async fn time_for_a_header() {
    let (node, _origin, _agent) = limited(Limits { idle: SHORT, ..Limits::default() }).await;
    for begun in ["", "P", "GET / HTTP/1.1\r\nhost: app.edge.test\r\n"] {
        let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
        tcp.write_all(begun.as_bytes()).await.unwrap();
        let answer = closes(tcp).await;
        assert!(answer.is_empty() || status(&answer) == 408, "{begun:?}: {answer}");
    }
}

#[tokio::test]
async fn time_without_a_request() {
    let (node, _origin, _agent) = limited(Limits { idle: AMPLE, ..Limits::default() }).await;
    let (mut requests, connection) = h2::client::handshake(node.tls(b"h2").await).await.unwrap();
    let (answer, _) = requests.send_request(Request::from_parts(get("/hello").into_parts().0, ()), true).unwrap();
    let ended = tokio::spawn(connection);
    assert_eq!(answer.await.unwrap().status(), 200);
    tokio::time::timeout(PATIENCE, ended).await.expect("HTTP/2 is kept open").unwrap().unwrap();

    let (_endpoint, quic) = node.quic().await;
    let reason = tokio::time::timeout(PATIENCE, quic.closed()).await.expect("HTTP/3 is kept open");
    assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
}

#[tokio::test]
async fn a_visitor_that_does_not_heed_the_end() {
    let (node, _origin, _agent) = limited(Limits { idle: SHORT, handshake: AMPLE, ..Limits::default() }).await;
    let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
    // An HTTP/2 connection whose visitor acknowledges nothing.
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closes(tcp).await;
    // An HTTP/3 connection whose visitor lets the edge open no control stream.
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(0_u32.into());
    transport.keep_alive_interval(Some(SHORT));
    let (_endpoint, quic) = node.quic_with(transport).await;
    tokio::time::timeout(PATIENCE, quic.closed()).await.expect("HTTP/3 is kept open");
}

#[tokio::test]
async fn time_for_a_handshake() {
    let (node, _origin, _agent) = limited(Limits { handshake: AMPLE, ..Limits::default() }).await;
    let mut begun = Vec::new();
    for address in [node.addresses().https, node.addresses().tunnel[0], node.addresses().api] {
        for said in [&[][..], &[0x16, 3, 1]] {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(said).await.unwrap();
            begun.push(tcp);
        }
    }
    for tcp in begun {
        assert_eq!(closes(tcp).await, "");
    }
}

#[tokio::test]
async fn handshakes_that_fail_disturb_nobody() {
    let (node, _origin, _agent) = limited(Limits::default()).await;
    for address in [node.addresses().https, node.addresses().tunnel[0]] {
        for _ in 0..20 {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: app.edge.test\r\n\r\n").await.unwrap();
            closes(tcp).await;
        }
    }
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for address in [node.addresses().https, node.addresses().tunnel[0]] {
        for length in 0..1500 {
            udp.send_to(&vec![0xc5; length], address).await.unwrap();
        }
    }
    for way in [Way::Http1, Way::Http2, Way::Http3] {
        assert_eq!(node.visit(way, get("/hello")).await.status, 200, "{way:?}");
    }
}

#[tokio::test]
async fn agents_that_do_not_register() {
    let limits = Limits { registration: AMPLE, unregistered: 1, ..Limits::default() };
    let (node, origin, _agent) = limited(limits).await;
    let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
    // The place of the first agent is free again once it is registered.
    let dial = node.agent(&tunnel, BOTH[0]);
    let mut silent = dial.tls().await.unwrap();
    let second = TcpStream::connect(node.addresses().tunnel[0]).await.unwrap();
    assert_eq!(closes(second).await, "", "there is one place");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("it may wait for ever");
    // A connection that is let in takes the place, and gives it back as it is dropped here.
    eventually("the place is free", async || dial.tls().await.is_ok()).await;
    eventually("an agent registers", async || dial.connect(&origin).await.is_ok()).await;
}

#[tokio::test]
async fn connections_of_one_tunnel() {
    let (node, origin, _agent) = limited(Limits { tunnel_connections: 2, ..Limits::default() }).await;
    let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
    let second = node.agent(&tunnel, BOTH[1]);
    let _connected = second.connect(&origin).await.unwrap();
    let refused = node.agent(&tunnel, BOTH[0]).connect(&origin).await.err().expect("there is no room");
    assert!(refused.to_string().contains("too many connections"), "{refused}");
    let _again = second.connect(&origin).await.expect("it takes its own place");
    let other = node.tunnel("other", ConfigSource::Local).await;
    let _other = node.agent(&other, BOTH[0]).connect(&origin).await.expect("another tunnel has room of its own");
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let (node, _origin, _agent) = limited(Limits::default()).await;
    let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut flood = Vec::new();
    for number in 0..2000_u32 {
        let stream = (2 * number + 1).to_be_bytes();
        // `GET https://` without an authority, and a reset at once.
        flood.extend([0, 0, 3, 1, 5]);
        flood.extend(stream);
        flood.extend([0x82, 0x87, 0x84]);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(stream);
        flood.extend(8_u32.to_be_bytes());
    }
    // The edge may hang up in the middle.
    let _ = tcp.write_all(&flood).await;
    closes(tcp).await;
    assert_eq!(node.visit(Way::Http2, get("/hello")).await.status, 200);
}
