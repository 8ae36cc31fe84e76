//! What an origin sees of a request, and an edge of the answer.

use std::sync::Arc;
use std::time::Duration;

use agent::Protocol;
use agent::file::FileConfig;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use wire::{Body, Interim, Kind};

use crate::edge::{Edge, text};
use crate::origin::{Origin, read_head};
use crate::{config, everything_to, request_told, serving, started, within};

const BOTH: [Protocol; 2] = [Protocol::Http2, Protocol::Quic];

/// Frames as the test sends them.
fn channel() -> (mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>, Body) {
    let (sender, receiver) = mpsc::channel(4);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, Body::wrap(StreamBody::new(stream)))
}

async fn described(edge: &Edge, request: Request<Body>) -> Value {
    let response = edge.exchange(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-origin"], "web");
    serde_json::from_str(&text(response.into_body()).await).unwrap()
}

#[tokio::test]
async fn the_origin_sees_what_the_visitor_sent() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let origin = Origin::web().await;
        let mut config = config(&[&edge], &everything_to(&origin.service(), ""));
        config.protocol = protocol;
        config.tags = vec!["color=blue".parse().unwrap()];
        let connector = config.connector.to_string();
        let _agent = started(config).await;

        let request = Request::builder()
            .method("PROPFIND")
            .uri("https://app.test:8443/a%20b//../c;d?q=%C3%A9&x=1")
            .header("accept-encoding", "br")
            .header("x-several", "1")
            .header("x-several", "2")
            .header("content-length", "5")
            .header("expect", "100-continue")
            .body(Body::full("hello"))
            .unwrap();
        let seen = described(&edge, request).await;
        assert_eq!(seen["method"], "PROPFIND");
        assert_eq!(seen["target"], "/a%20b//../c;d?q=%C3%A9&x=1");
        assert_eq!(seen["version"], "HTTP/1.1");
        assert_eq!(seen["body"], "hello");
        let headers = &seen["headers"];
        assert_eq!(headers["host"], "app.test:8443");
        assert_eq!(headers["accept-encoding"], "br");
        assert_eq!(headers["x-several"], "1, 2");
        assert_eq!(headers["content-length"], "5");
        assert_eq!(headers["cf-warp-tag-id"], connector);
        assert_eq!(headers["cf-warp-tag-color"], "blue");
        for absent in ["user-agent", "expect", "transfer-encoding", "x-forwarded-host", "cf-cloudflared-snicket"] {
            assert!(headers.get(absent).is_none(), "{protocol:?}: the origin sees {absent}: {headers}");
        }
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_through_chunk_by_chunk() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let origin = Origin::web().await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let (sender, body) = channel();
        let request = Request::post("https://app.test/echo").body(body).unwrap();
        let mut answer = edge.exchange(request).await.unwrap().into_body();
        // Each piece comes back before the next is sent, so nothing waits for more.
        for piece in ["one", "two", "three"] {
            sender.send(Ok(Frame::data(Bytes::from(piece)))).await.unwrap();
            let frame = within("the echo", answer.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(sender);
        assert!(within("the end", answer.frame()).await.is_none());
    }
}

#[tokio::test]
async fn interim_answers_and_trailers_pass() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let origin = Origin::raw(|mut stream| async move {
            let head = read_head(&mut stream).await;
            assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
            stream
                .write_all(
                    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n\
                      HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                      3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
                )
                .await
                .unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let agent = serving(&edge, protocol, &origin.service()).await;
        let mut events = agent.events();
        let (sender, body) = channel();
        let request = Request::post("https://app.test/").body(body).unwrap();
        let (interim, mut interims) = Interim::channel();
        let connection = edge.connection().await;
        let response = within("the answer", connection.exchange(Kind::Http, request, interim)).await.unwrap();
        let (status, headers) = within("the hint", interims.recv()).await.unwrap();
        assert_eq!((status.as_u16(), &headers["link"]), (103, &HeaderValue::from_static("</style.css>")));
        let collected = within("the body", response.into_body().collect()).await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "6", "{protocol:?}");
        assert_eq!(collected.to_bytes(), "abc");
        drop(sender);
        let outcome = request_told(&mut events).await.outcome;
        assert_eq!(outcome, agent::RequestOutcome::Answered(200), "{protocol:?}: trailers end an answer");
    }
}

#[tokio::test]
async fn request_trailers_reach_the_origin() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let origin = Origin::web().await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let (sender, body) = channel();
        let request = Request::post("https://app.test/").header("trailer", "x-sum").body(body).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("5"));
        sender.send(Ok(Frame::data(Bytes::from("hello")))).await.unwrap();
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(sender);
        let seen = described(&edge, request).await;
        assert_eq!(seen["body"], "hello");
        assert_eq!(seen["trailers"]["x-sum"], "5", "{protocol:?}: {seen}");
    }
}

#[tokio::test]
async fn options_of_a_rule_act() {
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let options = r#""httpHostHeader":"inner.test","disableChunkedEncoding":true"#;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), options))).await;
    let (sender, body) = channel();
    sender.send(Ok(Frame::data(Bytes::from("hello")))).await.unwrap();
    drop(sender);
    let seen = described(&edge, Request::post("https://app.test/").body(body).unwrap()).await;
    assert_eq!(seen["headers"]["host"], "inner.test");
    assert_eq!(seen["headers"]["x-forwarded-host"], "app.test");
    assert_eq!(seen["headers"]["content-length"], "5");
    assert!(seen["headers"].get("transfer-encoding").is_none());
}

#[tokio::test]
async fn connections_to_the_origin_are_used_again_as_configured() {
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), ""))).await;
    for _ in 0..5 {
        edge.get("/").await;
    }
    assert_eq!(origin.accepted(), 1);

    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), r#""keepAliveConnections":0"#))).await;
    for _ in 0..5 {
        edge.get("/").await;
    }
    assert_eq!(origin.accepted(), 5);
}

#[tokio::test]
async fn times_beyond_what_the_system_takes_are_bounded() {
    for document in [
        // Finer than a second, as only a file can say it.
        "ingress:\n  - service: {}\n    originRequest: {tcpKeepAlive: 500ms, keepAliveTimeout: 0s, connectTimeout: 0s}\n",
        "ingress:\n  - service: {}\n    originRequest: {tcpKeepAlive: 48h, connectTimeout: 100000h}\n",
    ] {
        let edge = Edge::start().await;
        let origin = Origin::web().await;
        let file = FileConfig::parse("config.yml", &document.replace("{}", &origin.service())).unwrap();
        let mut config = config(&[&edge], "{}");
        config.document = file.document.unwrap();
        let _agent = started(config).await;
        for _ in 0..2 {
            assert_eq!(edge.get("/").await.0, 200);
        }
        assert_eq!(origin.accepted(), 1, "the connection is used again");
    }
}

#[tokio::test]
async fn a_rule_is_chosen_by_host_and_path() {
    let edge = Edge::start().await;
    let document = r#"{"ingress":[
        {"hostname":"app.test","path":"^/teapot$","service":"http_status:418"},
        {"hostname":"*.test","service":"hello_world"},
        {"service":"http_status:404"}]}"#;
    let agent = started(config(&[&edge], document)).await;
    let mut events = agent.events();
    assert_eq!(edge.get("/teapot").await, (418, String::new()));
    let (status, page) = edge.get("/").await;
    assert!(status == 200 && page.contains("It works."), "{page}");
    let request = Request::get("https://elsewhere.example/").body(Body::empty()).unwrap();
    assert_eq!(edge.exchange(request).await.unwrap().status(), 404);
    let mut told = Vec::new();
    for _ in 0..3 {
        let request = request_told(&mut events).await;
        told.push((request.host.clone(), request.path.clone(), request.rule, request.outcome.clone()));
        assert_eq!(request.bytes, if request.rule == 1 { page.len() as u64 } else { 0 });
    }
    let answered = agent::RequestOutcome::Answered;
    assert_eq!(
        told,
        [
            ("app.test".to_owned(), "/teapot".to_owned(), 0, answered(418)),
            ("app.test".to_owned(), "/".to_owned(), 1, answered(200)),
            ("elsewhere.example".to_owned(), "/".to_owned(), 2, answered(404)),
        ]
    );
}

#[tokio::test]
async fn a_visitor_who_leaves_cancels_the_request_at_the_origin() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let (sender, mut ended) = mpsc::channel(1);
        let sender = Arc::new(sender);
        let origin = Origin::raw(move |mut stream| {
            let ended = Arc::clone(&sender);
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
                read_head(&mut stream).await;
                ended.send(()).await.unwrap();
            }
        })
        .await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
        let response = edge.exchange(request).await.unwrap();
        drop(response);
        within("the end of the origin's connection", ended.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_before_the_answer_cancels_the_request_too() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let (sender, mut told) = mpsc::channel(1);
        let sender = Arc::new(sender);
        let origin = Origin::raw(move |mut stream| {
            let told = Arc::clone(&sender);
            async move {
                read_head(&mut stream).await;
                told.send("asked").await.unwrap();
                read_head(&mut stream).await;
                told.send("left").await.unwrap();
            }
        })
        .await;
        let agent = serving(&edge, protocol, &origin.service()).await;
        let mut events = agent.events();
        let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
        tokio::select! {
            _ = edge.exchange(request) => panic!("{protocol:?}: an answer from nowhere"),
            asked = told.recv() => assert_eq!(asked, Some("asked")),
        }
        assert_eq!(within("the end of the origin's connection", told.recv()).await, Some("left"));
        assert_eq!(request_told(&mut events).await.outcome, agent::RequestOutcome::Left);
    }
}

#[tokio::test]
async fn grpc_reaches_the_origin_over_http2_with_its_trailers() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let origin = Origin::web().await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let call = |path: &str, kind: &'static str, body| {
            let uri = format!("https://app.test{path}");
            Request::post(uri).header("content-type", kind).header("te", "trailers").body(body).unwrap()
        };
        for kind in ["application/grpc", "application/grpc+proto"] {
            let seen = described(&edge, call("/", kind, Body::full("x"))).await;
            assert_eq!((&seen["version"], &seen["authority"]), (&"HTTP/2.0".into(), &"app.test".into()));
            assert_eq!(seen["headers"]["te"], "trailers", "{protocol:?}");
        }
        let seen = described(&edge, call("/", "application/grpc-web", Body::full("x"))).await;
        assert_eq!(seen["version"], "HTTP/1.1");

        let (sender, body) = channel();
        let mut answer = edge.exchange(call("/echo", "application/grpc", body)).await.unwrap().into_body();
        sender.send(Ok(Frame::data(Bytes::from("message")))).await.unwrap();
        let frame = within("the echo", answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "message");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(sender);
        let rest = within("the end", answer.collect()).await.unwrap();
        assert_eq!(rest.trailers().unwrap()["grpc-status"], "0", "{protocol:?}");
    }
}

/// What may be on its way between a visitor and an origin that do not read: the windows of the transport, and the
/// sockets' buffers.
const UNDER_WAY: usize = 24 << 20;
const PIECE: &[u8] = &[7; 64 << 10];

/// Nothing moves for so long: it has stalled.
const STILL: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn an_origin_that_does_not_read_stops_the_visitor() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let origin = Origin::raw(|mut stream| async move {
            read_head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let (sender, body) = channel();
        let connection = edge.connection().await;
        let request = Request::post("https://app.test/").body(body).unwrap();
        let exchange = tokio::spawn(async move { connection.exchange(Kind::Http, request, Interim::unwanted()).await });
        let mut sent = 0;
        while let Ok(room) = tokio::time::timeout(STILL, sender.send(Ok(Frame::data(Bytes::from_static(PIECE))))).await
        {
            room.unwrap();
            sent += PIECE.len();
            assert!(sent < UNDER_WAY, "{protocol:?}: nothing holds the visitor back");
        }
        assert!(sent > PIECE.len(), "{protocol:?}: the body flows at all");
        exchange.abort();
    }
}

#[tokio::test]
async fn a_visitor_who_does_not_read_stops_the_origin() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let (written, mut seen) = watch::channel(0);
        let count = Arc::new(written);
        let origin = Origin::raw(move |mut stream| {
            let count = Arc::clone(&count);
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n").await.unwrap();
                while stream.write_all(PIECE).await.is_ok() {
                    count.send_modify(|written| *written += PIECE.len());
                }
            }
        })
        .await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
        let _unread = edge.exchange(request).await.unwrap();
        within("the first piece", seen.changed()).await.unwrap();
        while let Ok(changed) = tokio::time::timeout(STILL, seen.changed()).await {
            changed.unwrap();
            assert!(*seen.borrow() < UNDER_WAY, "{protocol:?}: nothing holds the origin back");
        }
    }
}
