//! WebSockets over every version of HTTP. The bytes are opaque to the edge, so the tests send any.

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::Kind;

use crate::node::{BOTH, Node, PATIENCE};

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: app.edge.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: chat\r\n\r\n"
    )
}

/// Sends a handshake and the first bytes behind it, and reads the answer's head.
async fn open<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, path: &str) -> String {
    io.write_all(handshake(path).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(io.read_buf(&mut (&mut head).limit_to(1)).await.unwrap(), 0, "the edge hung up");
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("no answer");
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Reads no further than the head.
trait LimitTo {
    fn limit_to(&mut self, length: usize) -> bytes::buf::Limit<&mut Vec<u8>>;
}

impl LimitTo for &mut Vec<u8> {
    fn limit_to(&mut self, length: usize) -> bytes::buf::Limit<&mut Vec<u8>> {
        bytes::BufMut::limit(&mut **self, length)
    }
}

async fn echo<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) {
    for size in [1, 100, 100_000] {
        let sent = vec![0xa5; size];
        let mut received = vec![0; size];
        let (mut reader, mut writer) = tokio::io::split(&mut *io);
        let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received)) };
        let (written, read) = tokio::time::timeout(PATIENCE, both).await.expect("no echo");
        written.unwrap();
        read.unwrap();
        assert!(sent == received);
    }
}

#[tokio::test]
async fn over_http1() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        for secure in [false, true] {
            let mut io: Box<dyn Io> = if secure {
                Box::new(node.tls(b"http/1.1").await)
            } else {
                Box::new(TcpStream::connect(node.addresses().http).await.unwrap())
            };
            let head = open(&mut io, "/ws").await;
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            for field in [
                "connection: upgrade",
                "upgrade: websocket",
                "sec-websocket-accept: made-up",
                "sec-websocket-protocol: chat",
            ] {
                assert!(head.contains(field), "{head}");
            }
            let seen = origin.last();
            assert_eq!(seen.kind, Kind::WebSocket);
            assert_eq!(seen.headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
            echo(&mut io).await;
            io.shutdown().await.unwrap();
            // The visitor's end ends both.
            let mut rest = Vec::new();
            tokio::time::timeout(PATIENCE, io.read_to_end(&mut rest)).await.expect("it stays open").unwrap_or_default();
            assert!(rest.is_empty());
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

#[tokio::test]
async fn an_origin_that_ends_it_ends_both() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
        assert!(open(&mut tcp, "/ws-bye").await.starts_with("http/1.1 101 "));
        let mut rest = String::new();
        tokio::time::timeout(PATIENCE, tcp.read_to_string(&mut rest)).await.expect("it stays open").unwrap();
        assert_eq!(rest, "bye", "{transport}");
    }
}

#[tokio::test]
async fn refusals_are_ordinary_answers() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
        assert!(open(&mut tcp, "/ws-no").await.starts_with("http/1.1 403 "));
        let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
        assert!(open(&mut tcp, "/fault/refused").await.starts_with("http/1.1 521 "));
    }
}

#[tokio::test]
async fn an_upgrade_to_anything_else_is_an_ordinary_request() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let request = "GET /hello HTTP/1.1\r\nhost: app.edge.test\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n";
    let answer = crate::visitor::raw(&node, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(origin.last().kind, Kind::Http);
    assert!(!origin.last().headers.contains_key("upgrade"));
}

#[tokio::test]
async fn over_http2() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        let (requests, connection) = h2::client::handshake(node.tls(b"h2").await).await.unwrap();
        let driving = tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let mut request = Request::builder().method(Method::CONNECT).uri("https://app.edge.test/ws").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        // The settings that allow it may still be on their way.
        crate::node::eventually("extended CONNECT is allowed", async || {
            requests.is_extended_connect_protocol_enabled()
        })
        .await;
        let (answer, mut stream) = requests.send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        let seen = origin.last();
        assert_eq!((seen.kind, seen.method), (Kind::WebSocket, Method::GET));
        assert!(seen.headers.contains_key("sec-websocket-key"));
        let mut body = answer.into_body();
        stream.send_data(Bytes::from_static(b"\x81\x05frame"), false).unwrap();
        let mut echoed = BytesMut::new();
        while echoed.len() < 7 {
            echoed.extend_from_slice(&body.data().await.unwrap().unwrap());
        }
        assert_eq!(echoed, &b"\x81\x05frame"[..]);
        stream.send_data(Bytes::new(), true).unwrap();
        while let Some(rest) = body.data().await {
            assert_eq!(rest.unwrap(), "", "{transport}");
        }
        driving.abort();
    }
}

/// A HEADERS frame of an extended CONNECT, without the Huffman code and with every line spelt out.
fn extended_connect(protocol: &str) -> Vec<u8> {
    let mut block = vec![0, 0];
    let lines = [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "app.edge.test"),
        (":path", "/ws"),
        (":protocol", protocol),
        ("sec-websocket-version", "13"),
    ];
    for (name, value) in lines {
        // A literal name has three bits for its length (RFC 9204 section 4.5.6).
        if name.len() < 7 {
            block.push(0x20 | u8::try_from(name.len()).unwrap());
        } else {
            block.extend([0x27, u8::try_from(name.len() - 7).unwrap()]);
        }
        block.extend_from_slice(name.as_bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![1, 0x40, u8::try_from(block.len()).unwrap()];
    frame.extend(block);
    frame
}

#[tokio::test]
async fn over_http3() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        let (_endpoint, connection) = node.quic().await;
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&[0, 4, 0]).await.unwrap();

        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&extended_connect("websocket")).await.unwrap();
        let mut head = [0; 2];
        tokio::time::timeout(PATIENCE, receive.read_exact(&mut head)).await.expect("no answer").unwrap();
        assert_eq!(head[0], 1, "a HEADERS frame");
        let mut rest = vec![0; usize::from(head[1] & 0x3f)];
        if head[1] & 0x40 != 0 {
            let mut low = [0];
            receive.read_exact(&mut low).await.unwrap();
            rest = vec![0; usize::from(head[1] & 0x3f) << 8 | usize::from(low[0])];
        }
        receive.read_exact(&mut rest).await.unwrap();
        // `:status: 200` is line 25 of the static table.
        assert_eq!(rest[..3], [0, 0, 0xc0 | 25]);
        let seen = origin.last();
        assert_eq!((seen.kind, seen.method, seen.uri.path()), (Kind::WebSocket, Method::GET, "/ws"));

        send.write_all(b"\0\x07\x81\x05frame").await.unwrap();
        let mut echoed = [0; 9];
        tokio::time::timeout(PATIENCE, receive.read_exact(&mut echoed)).await.expect("no echo").unwrap();
        assert_eq!(&echoed, b"\0\x07\x81\x05frame");
        send.finish().unwrap();
        let end = tokio::time::timeout(PATIENCE, receive.read_to_end(100)).await.expect("it stays open");
        assert_eq!(end.unwrap(), [0; 0], "{transport}");
    }
}

#[tokio::test]
async fn a_handshake_with_a_body_is_an_ordinary_request() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let request = handshake("/hello").replace("\r\n\r\n", "\r\ncontent-length: 5\r\n\r\nbytes");
    let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("hello") {
        assert_ne!(tcp.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
    let seen = origin.last();
    assert_eq!((seen.kind, &seen.headers["content-length"]), (Kind::Http, &"5".parse().unwrap()));
    assert!(!seen.headers.contains_key("upgrade"));
}

#[tokio::test]
async fn other_protocols_over_http2_are_refused() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let (requests, connection) = h2::client::handshake(node.tls(b"h2").await).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let is_allowed = async || requests.is_extended_connect_protocol_enabled();
    crate::node::eventually("extended CONNECT is allowed", is_allowed).await;
    let mut request = Request::builder().method(Method::CONNECT).uri("https://app.edge.test/ws").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("miracles"));
    let (answer, _stream) = requests.send_request(request, false).unwrap();
    // A refused stream would be tried again.
    assert_eq!(answer.await.unwrap().status(), 501);
    assert_eq!(origin.count(), 0);
    driving.abort();
}

#[tokio::test]
async fn other_protocols_over_http3_are_refused() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let (_endpoint, connection) = node.quic().await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&extended_connect("miracles!")).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, receive.read_to_end(1000)).await.expect("no answer");
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(origin.count(), 0);
}
