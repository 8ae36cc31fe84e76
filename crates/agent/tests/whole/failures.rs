//! Origins that are down, silent, untrusted or confused.

use std::sync::Arc;

use agent::Protocol;
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use wire::{Body, ExchangeError, OriginFault};

use crate::edge::Edge;
use crate::origin::{Origin, read_head};
use crate::{config, everything_to, serving, started, within};

async fn fault(service: &str, options: &str, request: Request<Body>) -> (OriginFault, String) {
    let edge = Edge::start().await;
    let _agent = started(config(&[&edge], &everything_to(service, options))).await;
    match edge.exchange(request).await {
        Err(ExchangeError::Origin(error)) => (error.fault, error.text),
        other => panic!("{service} gave {:?}", other.map(|response| response.status())),
    }
}

fn get() -> Request<Body> {
    Request::get("https://app.test/").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn an_origin_that_is_not_there() {
    // Bound, so that nobody else takes the port, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let (fault_kind, text) = fault(&format!("http://{address}"), "", get()).await;
    assert_eq!(fault_kind, OriginFault::Refused);
    assert!(text.contains(&address.to_string()), "{text}");
    assert_eq!(fault("http://no-such-host.invalid:80", "", get()).await.0, OriginFault::Unreachable);
    assert_eq!(fault("unix:/nonexistent/socket", "", get()).await.0, OriginFault::Refused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_origin_that_does_not_answer_the_attempt_to_connect() {
    let full = harness::FullListener::start().await;
    let (kind, text) = fault(&format!("http://{}", full.address()), r#""connectTimeout":1"#, get()).await;
    assert_eq!(kind, OriginFault::ConnectTimeout, "{text}");
    assert!(text.contains("within 1s"), "{text}");
}

#[tokio::test]
async fn an_origin_that_closes_or_talks_nonsense() {
    let origin = Origin::saying("").await;
    assert_eq!(fault(&origin.service(), "", get()).await.0, OriginFault::Closed);
    let origin = Origin::saying("220 mail.example ESMTP\r\n").await;
    assert_eq!(fault(&origin.service(), "", get()).await.0, OriginFault::Nonsense);
    let origin = Origin::saying("HTTP/1.1 101 Switching Protocols\r\nupgrade: other\r\n\r\n").await;
    assert_eq!(fault(&origin.service(), "", get()).await.0, OriginFault::Nonsense);
    let origin = Origin::saying("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").await;
    assert_eq!(fault(&origin.service(), "", get()).await.0, OriginFault::Nonsense);
}

#[tokio::test]
async fn an_origin_with_more_headers_than_are_taken() {
    let origin = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let mut head = "HTTP/1.1 200 OK\r\n".to_owned();
        for index in 0..300 {
            head.push_str(&format!("x-{index}: y\r\n"));
        }
        head.push_str("content-length: 0\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        read_head(&mut stream).await;
    })
    .await;
    assert_eq!(fault(&origin.service(), "", get()).await.0, OriginFault::Nonsense);
}

#[tokio::test]
async fn tls_that_cannot_be() {
    let origin = Origin::saying("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let (kind, text) = fault(&origin.service().replace("http", "https"), "", get()).await;
    assert_eq!(kind, OriginFault::TlsHandshake, "{text}");
    let origin = Origin::raw(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let (kind, text) = fault(&origin.service().replace("http", "https"), r#""tlsTimeout":1"#, get()).await;
    assert_eq!(kind, OriginFault::TlsHandshake, "{text}");
    assert!(text.contains("within 1s"), "{text}");
}

#[tokio::test]
async fn a_body_too_large_to_learn_its_length() {
    let origin = Origin::web().await;
    let endless = StreamBody::new(futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0; 64 << 10])))
    }));
    let request = Request::post("https://app.test/").body(Body::wrap(endless)).unwrap();
    let (kind, text) = fault(&origin.service(), r#""disableChunkedEncoding":true"#, request).await;
    assert_eq!(kind, OriginFault::Unsupported, "{text}");
    assert!(text.contains("disableChunkedEncoding") && text.contains("1048576"), "{text}");
    assert_eq!(origin.accepted(), 0);
}

#[tokio::test]
async fn a_status_that_is_no_answer_says_so() {
    let (kind, text) = fault("http_status:150", "", get()).await;
    assert_eq!(kind, OriginFault::Unsupported, "{text}");
    assert!(text.contains("http_status:150"), "{text}");
}

#[tokio::test]
async fn an_origin_that_dies_in_the_middle_of_a_body() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            let edge = Edge::start().await;
            let dying = Arc::new(Notify::new());
            let death = Arc::clone(&dying);
            let origin = Origin::raw(move |mut stream| {
                let dying = Arc::clone(&dying);
                async move {
                    read_head(&mut stream).await;
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    dying.notified().await;
                }
            })
            .await;
            let _agent = serving(&edge, protocol, &origin.service()).await;
            let mut body = edge.exchange(get()).await.unwrap().into_body();
            let frame = within("the beginning of the body", body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "abc");
            death.notify_one();
            let rest = within("the end of the body", body.collect()).await;
            assert!(rest.is_err(), "{protocol:?}: a truncated body must not look whole");
        }
    }
}

/// Answers the first request of each connection, then closes as soon as a second one arrives.
async fn forgetful() -> Origin {
    Origin::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        read_head(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_request_on_a_stale_connection_is_repeated_if_it_may_be() {
    let edge = Edge::start().await;
    let origin = forgetful().await;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), ""))).await;
    assert_eq!(edge.get("/").await.0, 200);
    assert_eq!(edge.get("/").await.0, 200);
    assert_eq!(origin.accepted(), 2, "the second request came again on a new connection");

    let post = Request::post("https://app.test/").header("content-length", "1").body(Body::full("x")).unwrap();
    match edge.exchange(post).await {
        Err(ExchangeError::Origin(error)) => assert_eq!(error.fault, OriginFault::Closed),
        other => {
            panic!("a request that may have been done was repeated: {:?}", other.map(|response| response.status()))
        }
    }
}
