//! What the edge itself answers.

use std::time::Duration;

use bytes::Bytes;
use edge::Limits;
use http::{Request, Response};
use registry::ConfigSource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::Body;
use wire::rpc::{CALL_TIMEOUT, ControlClient};

use crate::node::{BOTH, Node};
use crate::origin::{Origin, streamed};
use crate::visitor::{ALL, Way, get, post, raw, status};

fn code(json: &str) -> u64 {
    let object: serde_json::Value = serde_json::from_str(json).unwrap();
    object["code"].as_u64().unwrap()
}

fn json(host: &str, path: &str) -> Request<Body> {
    let uri = format!("https://{host}{path}");
    Request::builder().uri(uri).header("accept", "application/json").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn unknown_names_and_lonely_tunnels_have_their_page() {
    let node = Node::start().await;
    node.tunnel("lonely", ConfigSource::Local).await;
    for way in ALL {
        for (host, status, expected) in [
            ("nobody.edge.test", 530, 1016),
            ("lonely.edge.test", 530, 1033),
            ("127.0.0.1", 403, 1003),
            ("management.argotunnel.com", 403, 1014),
        ] {
            let reply = node.visit(way, json(host, "/")).await;
            assert_eq!((reply.status, code(reply.text())), (status, expected), "{way:?} {host}");
            assert!(reply.text().contains(reply.headers["cf-ray"].to_str().unwrap()));
        }
    }
}

#[tokio::test]
async fn a_caller_of_grpc_learns_it_in_its_own_way() {
    let node = Node::start().await;
    node.tunnel("app", ConfigSource::Local).await;
    for way in [Way::Http2, Way::Http3] {
        let mut request = post("/service/Method", Body::full("call"));
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let reply = node.visit(way, request).await;
        assert_eq!((reply.status, &reply.headers["grpc-status"]), (200, &"14".parse().unwrap()), "{way:?}");
    }
}

#[tokio::test]
async fn each_failure_of_the_origin_has_its_own_status() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        for (fault, status, expected) in [
            ("refused", 521, 521),
            ("connect-timeout", 522, 522),
            ("unreachable", 523, 523),
            ("response-timeout", 524, 524),
            ("tls", 525, 525),
            ("certificate", 526, 526),
            ("closed", 502, 1052),
            ("nonsense", 502, 1053),
            ("unsupported", 502, 1056),
            ("unknown", 502, 502),
        ] {
            let before = origin.count();
            let reply = node.visit(Way::Http2, json("app.edge.test", &format!("/fault/{fault}"))).await;
            assert_eq!((reply.status, code(reply.text())), (status, expected), "{transport} {fault}");
            assert_eq!(origin.count(), before + 1, "it was asked more than once");
        }
        let mut request = get("/fault/refused");
        request.headers_mut().insert("accept", "text/html".parse().unwrap());
        let page = node.visit(Way::Http1, request).await;
        assert!(page.text().contains("refused &lt;b&gt;"), "{}", page.text());
    }
}

/// A stream of HTTP/2 as a pipe, for RPC.
fn piped(mut send: h2::SendStream<Bytes>, mut receive: h2::RecvStream) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if send.send_data(Bytes::copy_from_slice(&buffer[..length]), false).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(bytes)) = receive.data().await {
            let _ = receive.flow_control().release_capacity(bytes.len());
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    near
}

#[tokio::test]
async fn an_agent_that_breaks_the_protocol_is_told_from_its_origin() {
    let node = Node::start().await;
    let tunnel = node.tunnel("app", ConfigSource::Local).await;
    // An agent made by hand: it registers as it should, and its answers say nothing of where they come from.
    let dial = node.agent(&tunnel, BOTH[0]);
    let mut agent = h2::server::handshake(dial.tls().await.unwrap()).await.unwrap();
    let (request, mut respond) = agent.accept().await.unwrap().unwrap();
    let control = piped(respond.send_response(Response::new(()), false).unwrap(), request.into_body());
    let agent = tokio::spawn(async move {
        while let Some(Ok((_, mut respond))) = agent.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    });
    let mut control = ControlClient::new(control, CALL_TIMEOUT);
    control.register(&dial.registration).await.unwrap();
    for way in ALL {
        let reply = node.visit(way, json("app.edge.test", "/")).await;
        assert_eq!((reply.status, code(reply.text())), (502, 1055), "{way:?}");
    }
    agent.abort();
}

#[tokio::test]
async fn a_silent_origin_is_given_up() {
    for transport in BOTH {
        let limits = Limits { response: Duration::from_millis(300), ..Limits::default() };
        let node = Node::with(limits).await;
        let origin = Origin::new();
        let tunnel = node.tunnel("app", ConfigSource::Local).await;
        let _agent = node.agent(&tunnel, transport).connect(&origin).await.unwrap();
        for (number, way) in [Way::Http1, Way::Http2, Way::Http3].into_iter().enumerate() {
            let reply = node.visit(way, get("/never")).await;
            assert_eq!(reply.status, 524, "{way:?} {transport}");
            origin.given_up(number + 1).await;
        }
    }
}

#[tokio::test]
async fn a_stalled_upload_is_given_up() {
    let limits = Limits { body_pause: Duration::from_millis(300), ..Limits::default() };
    let node = Node::with(limits).await;
    let origin = Origin::new();
    let tunnel = node.tunnel("app", ConfigSource::Local).await;
    let _agent = node.agent(&tunnel, BOTH[0]).connect(&origin).await.unwrap();
    let begun = "POST /count HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf";
    let answer = raw(&node, begun).await;
    assert_eq!(status(&answer), 408, "{answer}");
    for way in [Way::Http2, Way::Http3] {
        let (_sender, body) = streamed();
        assert_eq!(node.visit(way, post("/count", body)).await.status, 408, "{way:?}");
    }
}

#[tokio::test]
async fn malformed_requests_stay_at_the_edge() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: app.edge.test\r\nhost: app.edge.test\r\n\r\n", 400),
        ("GET http://other.edge.test/ HTTP/1.1\r\nhost: app.edge.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: app edge\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: app.edge.test\r\nbad header\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: app.edge.test\r\n folded: x\r\n\r\n", 400),
        ("GET /\0 HTTP/1.1\r\nhost: app.edge.test\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\nhost: app.edge.test\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        ("POST / HTTP/1.1\r\nhost: app.edge.test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", 400),
        ("POST / HTTP/1.1\r\nhost: app.edge.test\r\ncontent-length: +1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nhost: app.edge.test\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        ("CONNECT app.edge.test:443 HTTP/1.1\r\nhost: app.edge.test:443\r\n\r\n", 501),
        ("OPTIONS * HTTP/1.1\r\nhost: app.edge.test\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nhost: app.edge.test\r\nexpect: miracles\r\n\r\n", 417),
    ] {
        let closing = request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let answer = raw(&node, &closing).await;
        assert_eq!(status(&answer), expected, "{request:?}: {answer}");
    }
    assert_eq!(origin.count(), 0, "{:?}", origin.seen.lock().unwrap());
    assert_eq!(node.visit(Way::Http1, get("/hello")).await.status, 200);
}

#[tokio::test]
async fn a_second_request_cannot_be_smuggled() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let answer = raw(
        &node,
        "POST /count HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\ncontent-length: 4\r\n\
         transfer-encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: app.edge.test\r\n\r\n",
    )
    .await;
    // The chunks decide, and the length goes no further.
    assert!(answer.contains("\r\n0 \r\n"), "{answer}");
    assert_eq!(origin.count(), 1);
    assert!(!origin.last().headers.contains_key("content-length"));
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_an_error() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        for announced in ["4", "6"] {
            let mut request = post("/count", Body::wrap(streamed_bytes("12345")));
            request.headers_mut().insert("content-length", announced.parse().unwrap());
            let reply = node.visit(Way::Http3, request).await;
            assert_ne!(reply.status, 200, "{transport}: {} announced", announced);
        }
    }
}

fn streamed_bytes(text: &'static str) -> Body {
    let (sender, body) = streamed();
    tokio::spawn(async move {
        let _ = sender.send(Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))).await;
    });
    body
}
