//! `snicket tcp`: public ports, with visitors that know nothing of us.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use harness::{Agent, Edge, Http, Identity, LIMIT, Origin, RawOrigin, Visitor, still, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

const TRANSPORTS: [&str; 2] = ["http2", "quic"];

/// Larger than what all buffers on the way hold together, twice over.
const LARGE: u64 = 64 << 20;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

async fn visit(address: SocketAddr) -> TcpStream {
    within("the connection", TcpStream::connect(address)).await.unwrap()
}

/// An origin that says everything again, and ends when the visitor has.
async fn echo() -> RawOrigin {
    RawOrigin::start(|mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
            let _ = writer.shutdown().await;
        }
    })
    .await
}

/// Its `host:port`.
fn place(origin: &RawOrigin) -> String {
    origin.service().trim_start_matches("http://").to_owned()
}

/// All that comes until the end; an error is no end.
async fn all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    within("the end", stream.read_to_end(&mut heard)).await?;
    Ok(heard)
}

/// A visitor is reset as soon as it comes, which it may notice before it is connected.
async fn assert_no_entry(address: SocketAddr) {
    match within("the connection", TcpStream::connect(address)).await {
        Ok(visitor) => assert_reset(visitor).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// The connection is reset, and not ended.
async fn assert_reset(mut stream: TcpStream) {
    let error = all(&mut stream).await.expect_err("the connection ended as if it had been whole");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_ends_by_itself() {
    for transport in TRANSPORTS {
        let (edge, origin) = (Edge::start().await, echo().await);
        let mut agent = Agent::tcp(&edge, &place(&origin), &["--protocol", transport]).await;
        assert_eq!(agent.ready()["address"], format!("localhost:{}", agent.port().port()));
        let mut visitor = visit(agent.port()).await;
        let from = visitor.local_addr().unwrap();
        visitor.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        within("the echo", visitor.read_exact(&mut heard)).await.unwrap();
        visitor.write_all(b" world").await.unwrap();
        visitor.shutdown().await.unwrap();
        assert_eq!(all(&mut visitor).await.unwrap(), b" world");
        let told = agent.process.event("stream").await;
        assert_eq!((&told["outcome"], &told["visitor"]), (&"ended".into(), &from.to_string().into()), "{told}");
        assert_eq!((&told["received"], &told["sent"]), (&11.into(), &11.into()), "{told}");

        // The other way round: the origin ends first, and the visitor goes on.
        let origin = RawOrigin::start(|mut stream| async move {
            stream.write_all(b"go on").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"I do");
        })
        .await;
        let mut agent = Agent::tcp(&edge, &place(&origin), &["--protocol", transport]).await;
        let mut visitor = visit(agent.port()).await;
        assert_eq!(all(&mut visitor).await.unwrap(), b"go on");
        visitor.write_all(b"I do").await.unwrap();
        visitor.shutdown().await.unwrap();
        let told = agent.process.event("stream").await;
        assert_eq!((&told["outcome"], &told["received"]), (&"ended".into(), &4.into()), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_visitor_holds_the_origin_back_and_gets_everything() {
    for transport in TRANSPORTS {
        let (sent, _) = watch::channel(0_u64);
        let sent = Arc::new(sent);
        let counting = Arc::clone(&sent);
        let origin = RawOrigin::start(move |mut stream| {
            let sent = Arc::clone(&counting);
            async move {
                let chunk = vec![7; 64 << 10];
                while *sent.borrow() < LARGE {
                    stream.write_all(&chunk).await.unwrap();
                    sent.send_modify(|sent| *sent += chunk.len() as u64);
                }
                stream.shutdown().await.unwrap();
                let _ = stream.read(&mut [0]).await;
            }
        })
        .await;
        let edge = Edge::start().await;
        let agent = Agent::tcp(&edge, &place(&origin), &["--protocol", transport]).await;
        let mut visitor = visit(agent.port()).await;
        let stalled = still(&sent, "the origin").await;
        assert!(stalled < LARGE / 2, "{transport}: {stalled} bytes found room on the way");
        let mut heard = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match within("more", visitor.read(&mut buffer)).await.unwrap() {
                0 => break,
                read => {
                    assert!(buffer[..read].iter().all(|byte| *byte == 7));
                    heard += read as u64;
                }
            }
        }
        assert_eq!(heard, LARGE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_down_or_breaks_off_resets_the_visitor() {
    for transport in TRANSPORTS {
        let edge = Edge::start().await;
        // Bound, so that nobody else takes the port, but not listening.
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let closed = bound.local_addr().unwrap().to_string();
        let mut agent = Agent::tcp(&edge, &closed, &["--protocol", transport]).await;
        assert_no_entry(agent.port()).await;
        let told = agent.process.event("stream").await;
        assert!(told["outcome"] == "failed" && told["remark"].as_str().unwrap().contains("nobody listens"), "{told}");

        let origin = RawOrigin::start(|mut stream| async move {
            stream.write_all(b"half of wh").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            stream.set_zero_linger().unwrap();
        })
        .await;
        let mut agent = Agent::tcp(&edge, &place(&origin), &["--protocol", transport]).await;
        let mut visitor = visit(agent.port()).await;
        within("the beginning", visitor.read_exact(&mut [0; 10])).await.unwrap();
        visitor.write_all(b"!").await.unwrap();
        assert_reset(visitor).await;
        assert_eq!(agent.process.event("stream").await["outcome"], "cut");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_goes_with_its_connector_and_comes_again_with_it() {
    for transport in TRANSPORTS {
        let (edge, origin) = (Edge::start().await, echo().await);
        let address = place(&origin);
        let agent = Agent::tcp(&edge, &address, &["--protocol", transport]).await;
        let port = agent.port();
        let mut visitor = visit(port).await;
        visitor.write_all(b"x").await.unwrap();
        within("the echo", visitor.read_exact(&mut [0])).await.unwrap();
        let home = agent.kill().await;
        assert_reset(visitor).await;
        let closed =
            async || TcpStream::connect(port).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        // It waits for a connector that comes back.
        until(2 * LIMIT, "the port closes", closed).await;
        let agent = Agent::tcp_at(&edge, &address, &["--protocol", transport], home).await;
        assert_eq!(agent.port(), port);
        let mut visitor = visit(port).await;
        visitor.shutdown().await.unwrap();
        assert_eq!(all(&mut visitor).await.unwrap(), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_comes_back_opens_the_same_ports() {
    let (mut edge, origin) = (Edge::start().await, echo().await);
    let agent = Agent::tcp(&edge, &place(&origin), &[]).await;
    edge.kill().await;
    edge.start_again().await;
    until(LIMIT, "the port is open again", async || TcpStream::connect(agent.port()).await.is_ok()).await;
    let mut visitor = visit(agent.port()).await;
    visitor.write_all(b"again").await.unwrap();
    visitor.shutdown().await.unwrap();
    assert_eq!(all(&mut visitor).await.unwrap(), b"again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_holds_is_refused_or_passed_over() {
    // Two neighbours, one of them held.
    let (held, free) = loop {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let next = held.local_addr().unwrap().port().wrapping_add(1);
        if next > 1024 && TcpListener::bind((Ipv4Addr::LOCALHOST, next)).await.is_ok() {
            break (held, next);
        }
    };
    let taken = held.local_addr().unwrap().port();
    let range = format!("{taken}-{free}");
    let (edge, origin) = (Edge::start_with(&["--ports", &range]).await, echo().await);
    let address = place(&origin);
    let api = edge.api().to_string();
    let ca = edge.ca().display().to_string();
    let refused = async |port: &str| {
        let words = ["tcp", &address, "--edge", &api, "--ca", &ca, "--name", "other", "--port", port];
        let (code, _, error) = edge.command(&words).await;
        assert_eq!(code, 1, "{error}");
        error
    };
    let error = refused(&taken.to_string()).await;
    assert!(error.contains(&format!("port {taken} cannot be opened")) && error.contains("--port"), "{error}");
    let agent = Agent::tcp(&edge, &address, &["--port", &range]).await;
    assert_eq!(agent.port().port(), free);
    let error = refused(&free.to_string()).await;
    assert!(error.contains("another tunnel"), "{error}");
    let error = refused("1").await;
    assert!(error.contains(&format!("{taken} to {free}")), "{error}");

    let closed = Edge::start_with(&["--ports", "off"]).await;
    let api = closed.api().to_string();
    let ca = closed.ca().display().to_string();
    let (code, _, error) = closed.command(&["tcp", &address, "--edge", &api, "--ca", &ca]).await;
    assert!(code == 1 && error.contains("no public ports"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_is_told_who_its_visitor_is() {
    let (edge, origin) = (Edge::start().await, echo().await);
    let address = place(&origin);
    for version in ["v1", "v2"] {
        let agent = Agent::tcp(&edge, &address, &["--proxy-protocol", version, "--name", version]).await;
        let mut visitor = visit(agent.port()).await;
        let (from, to) = (visitor.local_addr().unwrap().port(), agent.port().port());
        visitor.write_all(b"hello").await.unwrap();
        visitor.shutdown().await.unwrap();
        let heard = all(&mut visitor).await.unwrap();
        let expected = if version == "v1" {
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").into_bytes()
        } else {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
            header.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
            header
        };
        assert_eq!(heard, [&expected[..], b"hello"].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_are_counted() {
    let (edge, origin) = (Edge::start().await, echo().await);
    let address = place(&origin);
    let full = Agent::tcp(&edge, &address, &["--max-connections", "1"]).await;
    let mut first = visit(full.port()).await;
    first.write_all(b"x").await.unwrap();
    within("the echo", first.read_exact(&mut [0])).await.unwrap();
    assert_no_entry(full.port()).await;
    first.write_all(b"y").await.unwrap();
    within("the echo", first.read_exact(&mut [0])).await.unwrap();
    let idle = Agent::tcp(&edge, &address, &["--name", "idle", "--idle-timeout", "1s"]).await;
    assert_reset(visit(idle.port()).await).await;
    let outside = Agent::tcp(&edge, &address, &["--name", "outside", "--allow", "192.0.2.0/24"]).await;
    assert_no_entry(outside.port()).await;
    for line in [
        "snicket_edge_defences_total{reason=\"connections_per_port\"} 1",
        "snicket_edge_defences_total{reason=\"not_allowed\"} 1",
        "snicket_edge_streams_total{end=\"idle\"} 1",
    ] {
        // The visitor is reset before it is counted.
        until(LIMIT, line, async || {
            Visitor::plain(edge.api()).get("/metrics").await.text().lines().any(|found| found == line)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_service_is_reached_inside_a_websocket() {
    for transport in TRANSPORTS {
        let (edge, origin) = (Edge::start().await, echo().await);
        let address = place(&origin);
        Agent::tcp(&edge, &address, &["--name", "db", "--protocol", transport]).await.stop().await;
        let agent = Agent::tcp(&edge, &address, &["--name", "socket", "--protocol", transport]).await;
        let tcp = visit(edge.http()).await;
        let url = format!("ws://socket.localhost:{}/", edge.http().port());
        let (mut socket, _) = within("the handshake", tokio_tungstenite::client_async(url, tcp)).await.unwrap();
        let large = vec![9; 300_000];
        socket.send(Message::Binary(large.clone().into())).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < large.len() {
            match within("a message", socket.next()).await.unwrap().unwrap() {
                Message::Binary(bytes) => heard.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(heard == large);
        socket.close(None).await.unwrap();
        assert!(within("the end", socket.next()).await.is_none_or(|end| end.is_ok_and(|end| end.is_close())));
        drop(agent);
    }
}

/// An origin of HTTPS with a certificate of its own for this name, and the file to trust.
async fn secured(name: &str, home: &Path) -> (Origin, PathBuf) {
    let identity = Identity::new(&[name]);
    let ca = home.join("own.pem");
    std::fs::write(&ca, identity.certificate()).unwrap();
    (Origin::start_secure(&identity).await, ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_passes_to_an_origin_that_keeps_its_certificate() {
    let home = tempfile::tempdir().unwrap();
    for transport in TRANSPORTS {
        let (edge, (origin, own)) = (Edge::start().await, secured("own.localhost", home.path()).await);
        let place = origin.service().trim_start_matches("https://").to_owned();
        let agent = Agent::tcp(&edge, &place, &["--tls", "--name", "own", "--protocol", transport]).await;
        let trusting = Visitor::new(edge.https(), edge.http(), &own);
        for version in [Http::One, Http::Two] {
            let answer = trusting.over(version).get(&agent.url("/")).await;
            assert_eq!((answer.status, answer.text()), (200, "hello from the origin".to_owned()), "{version:?}");
            assert!(answer.headers.get("cf-ray").is_none(), "the edge has seen nothing of it");
        }
        // Its neighbours are served as ever, by the edge's certificate.
        let plain = Origin::start().await;
        let beside = Agent::start(&edge, &plain.service(), &["--name", "beside"]).await;
        assert_eq!(edge.visitor().get(&beside.url("/")).await.status, 200);

        // In pieces as small as can be, and then something that is no TLS at all.
        let mut visitor = visit(edge.https()).await;
        let hello = client_hello("own.localhost");
        for byte in &hello {
            visitor.write_all(std::slice::from_ref(byte)).await.unwrap();
            visitor.flush().await.unwrap();
        }
        let mut head = [0; 3];
        within("the origin's hello", visitor.read_exact(&mut head)).await.unwrap();
        assert_eq!(head, [0x16, 3, 3]);
        drop(visitor);
        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &hello[..hello.len() - 1]] {
            let mut visitor = visit(edge.https()).await;
            visitor.write_all(nonsense).await.unwrap();
            visitor.shutdown().await.unwrap();
            let heard = all(&mut visitor).await.unwrap_or_default();
            assert!(heard.is_empty() || heard[0] == 0x15, "an alert at most: {heard:?}");
        }

        // The edge ends TLS again once that is wished for.
        let state = agent.stop().await;
        let agent = Agent::start_at(&edge, &plain.service(), &["--name", "own"], state).await;
        assert_eq!(edge.visitor().get(&agent.url("/")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_leads_nowhere_is_reset() {
    let home = tempfile::tempdir().unwrap();
    let (edge, (origin, _)) = (Edge::start().await, secured("own.localhost", home.path()).await);
    let place = origin.service().trim_start_matches("https://").to_owned();
    let words = ["--tls", "--name", "own", "--allow", "192.0.2.0/24"];
    let agent = Agent::tcp(&edge, &place, &words).await;
    let hello = client_hello("own.localhost");
    let mut visitor = visit(edge.https()).await;
    visitor.write_all(&hello).await.unwrap();
    assert_reset(visitor).await;
    let state = agent.stop().await;
    let agent = Agent::tcp_at(&edge, &place, &words[..3], state).await;
    drop(origin);
    let mut visitor = visit(edge.https()).await;
    visitor.write_all(&hello).await.unwrap();
    assert_reset(visitor).await;
    drop(agent);
}

/// What a visitor of this name says first.
fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut visitor = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    visitor.write_tls(&mut hello).unwrap();
    hello
}
