//! Limits of time, crossed with the values that the program has. All of it is waiting, so it is waited for at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{Http, Origin};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http3;
use crate::refusals::{JSON, assert_refused};
use crate::rig::Rig;
use crate::visit::{Answer, streamed};

/// From the first byte of a connection to the end of its handshake, and from there to an agent's registration.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection without a request, and a header on its way.
const IDLE: Duration = Duration::from_secs(60);

/// A pause in the body of a request.
const PAUSE: Duration = Duration::from_secs(100);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_silent_is_sent_away_after_its_time() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    tokio::join!(handshakes(&rig), registrations(&rig), headers(&rig), idle(&rig), bodies(&rig, &origin));
    for way in rig.ways() {
        assert_eq!(way.get("/").await.status, 200, "{way}: others are not disturbed");
    }
}

/// Checks that what ends took as long as it may.
async fn lasts<T>(limit: Duration, what: &str, ending: impl Future<Output = T>) -> T {
    let since = Instant::now();
    let end = tokio::time::timeout(limit + SLACK, ending).await;
    let took = since.elapsed();
    // Clocks of two processes that began one after the other.
    assert!(took + Duration::from_secs(2) > limit, "{what} ends after {took:?}, not {limit:?}");
    end.unwrap_or_else(|_| panic!("{what} goes on after {took:?}"))
}

/// Reads until the edge closes.
async fn closes(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // A reset ends it as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn handshakes(rig: &Rig) {
    let ports = [("https", rig.edge.https()), ("tunnel", rig.edge.tunnel()), ("api", rig.edge.api())];
    let all = ports.map(async |(what, address)| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The beginning of a ClientHello.
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        assert_eq!(lasts(HANDSHAKE, what, closes(stream)).await, "", "{what}");
    });
    futures_util::future::join_all(all).await;
}

async fn registrations(rig: &Rig) {
    let stream = TcpStream::connect(rig.edge.tunnel()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(rig.edge.visitor().tls()));
    let name = ServerName::try_from("h2.cftunnel.com").unwrap();
    let stream = connector.connect(name, stream).await.expect("the edge takes agents");
    lasts(HANDSHAKE, "an agent that does not register", closes(stream)).await;
}

async fn headers(rig: &Rig) {
    let begun = ["", "G", "GET / HTTP/1.1\r\nhost: x.localhost\r\n"].map(async |begun| {
        let mut stream = TcpStream::connect(rig.edge.http()).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let answer = lasts(IDLE, begun, closes(stream)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{begun:?}: {answer}");
    });
    futures_util::future::join_all(begun).await;
}

async fn idle(rig: &Rig) {
    let way = rig.ways().next().unwrap();
    let uri = way.agent.url("/").parse().unwrap();
    let second = async {
        let stream = rig.edge.visitor().over(Http::Two).dial(&uri).await;
        let (_requests, connection) = h2::client::handshake(stream).await.unwrap();
        // What the library still writes may meet the closed socket before the edge's goodbye is read.
        let end = lasts(IDLE, "HTTP/2", connection).await;
        assert!(end.as_ref().err().is_none_or(h2::Error::is_io), "{end:?}");
    };
    let third = async {
        let (_endpoint, connection) = http3::dial(rig.edge.https(), &way.agent.host(), &rig.edge.ca()).await;
        let reason = lasts(IDLE, "HTTP/3", connection.closed()).await;
        assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
    };
    tokio::join!(second, third);
}

async fn bodies(rig: &Rig, origin: &Origin) {
    let all = rig.ways().map(async |way| {
        let (pieces, body) = streamed();
        let mut exchange = way.open("POST", "/hang", &[JSON], body).await;
        pieces.send(Bytes::from("some")).await.unwrap();
        let what = way.to_string();
        let (status, headers) = lasts(PAUSE, &what, exchange.wait_for_head()).await.unwrap();
        let (body, trailers) = exchange.rest().await.unwrap();
        let answer = Answer { interim: Vec::new(), status, headers, body, trailers };
        assert_refused(&rig.edge, &answer, 408, 408, &what).await;
    });
    futures_util::future::join_all(all).await;
    origin.wait_for_hanging(0).await;
}
