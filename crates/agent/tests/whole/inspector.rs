//! The inspector, asked as its page and other programs ask.

use std::net::SocketAddr;

use agent::{Agent, Running, listen_inspector};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use wire::{Body, Interim, Kind};

use crate::edge::{Edge, text};
use crate::origin::{Origin, read_head};
use crate::{config, everything_to, within};

/// An agent with an inspector, before this service.
async fn inspected(edge: &Edge, service: &str) -> (Running, SocketAddr) {
    let listener = listen_inspector(Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let config = config(&[edge], &everything_to(service, ""));
    let agent = Agent::start_with_inspector(config, None, Some(listener)).await.unwrap();
    assert!(within("the first connection", agent.ready()).await);
    let address = agent.inspector_address().unwrap();
    (agent, address)
}

/// Sends one request with these header lines and answers status, head and body.
async fn call(address: SocketAddr, line: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

/// As the page does it.
async fn ask(address: SocketAddr, line: &str, body: &str) -> (u16, Value) {
    let headers = format!(
        "Host: {address}\r\nSec-Fetch-Site: same-origin\r\nX-Snicket-Inspector: 1\r\nContent-Type: application/json\r\n"
    );
    let (status, _, body) = call(address, line, &headers, body).await;
    (status, serde_json::from_str(&body).unwrap())
}

/// Waits until the stream of changes tells of a request like this.
async fn told(address: SocketAddr, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let request = format!("GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    within("the change", async {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the stream of changes ended");
            let Some(event) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(event).unwrap();
            if let Some(found) = event["requests"].as_array().unwrap().iter().find(|request| wanted(request)) {
                return found.clone();
            }
        }
    })
    .await
}

async fn over(address: SocketAddr, id: u64) -> Value {
    told(address, |request| request["id"] == id && request["outcome"] != "open").await
}

fn login() -> Request<Body> {
    Request::post("https://app.test/login?page=1&token=hunter2")
        .header("authorization", "Bearer hunter2")
        .header("content-type", "application/json")
        .body(Body::full(r#"{"user":"me","password":"hunter2"}"#))
        .unwrap()
}

#[tokio::test]
async fn a_request_is_listed_and_shown_without_its_secrets() {
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let (_agent, address) = inspected(&edge, &origin.service()).await;
    let response = edge.exchange(login()).await.unwrap();
    let answer = text(response.into_body()).await;
    assert!(answer.contains("hunter2"), "the origin gets all: {answer}");

    let line = over(address, 1).await;
    assert_eq!(
        (&line["method"], &line["target"], &line["status"], &line["outcome"]),
        (&json!("POST"), &json!("/login?page=1&token=••••••"), &json!(200), &json!("answered"))
    );
    let (status, list) = ask(address, "GET /api/requests", "").await;
    assert_eq!((status, list["requests"].as_array().unwrap().len()), (200, 1));
    assert_eq!(ask(address, "GET /api/requests?q=status:5xx", "").await.1["requests"], json!([]));
    let (_, shown) = ask(address, "GET /api/requests/1", "").await;
    assert!(!shown.to_string().contains(r#"hunter2\"}"#), "{shown}");
    assert!(!shown["request"].to_string().contains("hunter2"), "{shown}");
    assert_eq!(shown["request"]["body"]["text"], r#"{"user":"me","password":"••••••"}"#);
    assert_eq!(shown["answer"]["body"]["bytes"], answer.len());
    let phases: Vec<&str> =
        shown["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(phases, ["connect", "request body", "wait", "answer"]);

    let (status, revealed) = ask(address, "GET /api/requests/1?reveal=1", "").await;
    assert_eq!((status, revealed["request"]["body"]["text"].as_str().unwrap().contains("hunter2")), (200, true));
    // A link or a typed address cannot say that it is meant.
    let (status, _, body) = call(address, "GET /api/requests/1?reveal=1", &format!("Host: {address}\r\n"), "").await;
    assert!(status == 403 && !body.contains("hunter2"), "{status} {body}");

    assert_eq!(ask(address, "GET /api/requests/2", "").await.0, 404);
    assert_eq!(ask(address, "DELETE /api/requests", "").await.0, 200);
    assert_eq!(ask(address, "GET /api/requests", "").await.1["requests"], json!([]));
}

#[tokio::test]
async fn replays_go_to_the_origin_as_requests_do() {
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let (_agent, address) = inspected(&edge, &origin.service()).await;
    edge.exchange(login()).await.unwrap().into_body().collect().await.unwrap();
    over(address, 1).await;

    let (status, made) = ask(address, "POST /api/requests/1/replay", "{}").await;
    assert_eq!((status, &made["id"], &made["replay_of"]), (201, &json!(2), &json!(1)));
    let line = over(address, 2).await;
    assert_eq!((&line["status"], &line["replay_of"]), (&json!(200), &json!(1)));
    let seen = answer_of(address, 2).await;
    assert_eq!(seen["body"], r#"{"user":"me","password":"hunter2"}"#);
    assert_eq!(seen["headers"]["authorization"], "Bearer hunter2");
    assert!(seen["headers"]["cf-warp-tag-id"].is_string(), "{seen}");

    let edit = json!({
        "method": "PUT",
        "target": "/other?x=1",
        "headers": [["authorization", "Bearer ••••••"], ["x-new", "yes"]],
        "body": "another body",
    });
    let (status, made) = ask(address, "POST /api/requests/1/replay", &edit.to_string()).await;
    assert_eq!((status, &made["id"]), (201, &json!(3)));
    over(address, 3).await;
    let seen = answer_of(address, 3).await;
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["body"], &seen["headers"]["x-new"], &seen["headers"]["authorization"]),
        (&json!("PUT"), &json!("/other?x=1"), &json!("another body"), &json!("yes"), &json!("Bearer hunter2"))
    );
    assert_eq!(seen["headers"]["host"], "app.test");

    for (edit, expected) in [("{\"methd\":\"x\"}", 400), ("nonsense", 400), ("{\"target\":\"http://x/\"}", 422)] {
        let (status, refused) = ask(address, "POST /api/requests/1/replay", edit).await;
        assert_eq!((status, refused["error"].is_string()), (expected, true), "{edit}: {refused}");
    }
    assert_eq!(ask(address, "POST /api/requests/99/replay", "{}").await.0, 404);
}

/// What the origin said that it saw.
async fn answer_of(address: SocketAddr, id: u64) -> Value {
    let (_, shown) = ask(address, &format!("GET /api/requests/{id}?reveal=1"), "").await;
    serde_json::from_str(shown["answer"]["body"]["text"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_large_body_passes_whole_and_is_not_replayed() {
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let (_agent, address) = inspected(&edge, &origin.service()).await;
    let large = "x".repeat(300 * 1024);
    let request = Request::post("https://app.test/echo").body(Body::full(large.clone())).unwrap();
    assert_eq!(text(edge.exchange(request).await.unwrap().into_body()).await, large);
    over(address, 1).await;
    let (_, shown) = ask(address, "GET /api/requests/1", "").await;
    for side in ["request", "answer"] {
        let body = &shown[side]["body"];
        assert_eq!(
            (&body["bytes"], &body["kept"], &body["whole"]),
            (&json!(300 * 1024), &json!(256 * 1024), &json!(false)),
            "{side}"
        );
    }
    let (status, refused) = ask(address, "POST /api/requests/1/replay", "{}").await;
    assert!(status == 409 && refused["error"].as_str().unwrap().contains("262144 bytes"), "{status} {refused}");
    assert_eq!(refused["error"], shown["replay_refused"]);
    assert_eq!(ask(address, "POST /api/requests/1/replay", "{\"body\":\"small\"}").await.0, 201);
    assert_eq!(over(address, 2).await["request_bytes"], 5);
}

#[tokio::test]
async fn nobody_gets_in_from_elsewhere() {
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let (_agent, address) = inspected(&edge, &origin.service()).await;
    let own = format!("Host: {address}\r\n");
    let (status, head, page) = call(address, "GET /", &own, "").await;
    assert_eq!(status, 200);
    assert!(page.contains("<title>Inspector</title>") && !page.contains("{{nonce}}"));
    for said in ["frame-ancestors 'none'", "cache-control: no-store", "cross-origin-resource-policy: same-origin"] {
        assert!(head.contains(said), "{said} in {head}");
    }
    assert!(!head.contains("access-control-allow"), "{head}");
    assert!(!page.contains("http://") && !page.contains("https://a") && !page.contains("src=\"/"), "nothing is loaded");

    let json = "Content-Type: application/json\r\nX-Snicket-Inspector: 1\r\n";
    for (line, headers, expected) in [
        ("GET /", "Host: rebound.example:4040\r\n".to_owned(), 421),
        ("GET /", format!("{own}CF-Ray: 1\r\n"), 403),
        ("GET /api/requests", format!("{own}Sec-Fetch-Site: cross-site\r\n"), 403),
        ("GET /api/events", format!("{own}Sec-Fetch-Site: same-site\r\n"), 403),
        ("GET /api/requests", format!("{own}Origin: http://localhost:3000\r\n"), 403),
        ("DELETE /api/requests", own.clone(), 403),
        ("DELETE /api/requests", format!("{own}{json}Sec-Fetch-Site: same-site\r\n"), 403),
        ("POST /api/requests/1/replay", format!("{own}X-Snicket-Inspector: 1\r\n"), 415),
        ("POST /api/requests/1/replay", format!("{own}{json}Origin: null\r\n"), 403),
        ("OPTIONS /api/requests", format!("{own}Sec-Fetch-Site: cross-site\r\n"), 403),
        ("PUT /api/requests", own.clone(), 405),
        ("GET /elsewhere", own.clone(), 404),
    ] {
        let (status, head, body) = call(address, line, &headers, "").await;
        assert_eq!(status, expected, "{line} {headers}: {body}");
        assert!(!head.contains("access-control-allow"), "{head}");
    }
    let refused = listen_inspector(Some("0.0.0.0:0".parse().unwrap())).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_inspector_as_origin_answers_nobody() {
    let edge = Edge::start().await;
    let listener = listen_inspector(Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Even with the host that the inspector wants.
    let document = everything_to(&format!("http://{address}"), &format!(r#""httpHostHeader":"{address}""#));
    let agent = Agent::start_with_inspector(config(&[&edge], &document), None, Some(listener)).await.unwrap();
    assert!(within("the first connection", agent.ready()).await);
    assert_eq!(edge.get("/").await.0, 403);
}

#[tokio::test]
async fn websocket_messages_are_counted_both_ways() {
    let edge = Edge::start().await;
    let origin = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let accepted = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(accepted).await.unwrap();
        let mut frame = [0; 8];
        stream.read_exact(&mut frame).await.unwrap();
        stream.write_all(b"\x81\x02hi\x81\x03you\x88\x00").await.unwrap();
        let _ = stream.read(&mut frame).await;
    })
    .await;
    let (_agent, address) = inspected(&edge, &origin.service()).await;
    let (sender, receiver) = mpsc::channel::<&'static [u8]>(4);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(bytes))), receiver))
    });
    let request = Request::get("https://app.test/chat").body(Body::wrap(StreamBody::new(frames))).unwrap();
    let connection = edge.connection().await;
    let response = connection.exchange(Kind::WebSocket, request, Interim::unwanted()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    sender.send(b"\x82\x82\x01\x02\x03\x04ab").await.unwrap();
    let line = told(address, |line| line["answer_messages"] == 2 && line["request_messages"] == 1).await;
    assert_eq!((&line["kind"], &line["status"]), (&json!("websocket"), &json!(101)));
    drop((sender, response));
    over(address, 1).await;
    let (_, shown) = ask(address, "GET /api/requests/1", "").await;
    assert_eq!(
        shown["answer"]["messages"],
        json!({ "messages": 2, "controls": 1, "bytes": 5, "broken": false }),
        "{shown}"
    );
    assert_eq!(ask(address, "POST /api/requests/1/replay", "{}").await.0, 409);
}

#[tokio::test]
async fn failures_and_open_requests_are_told_as_such() {
    let edge = Edge::start().await;
    let origin = Origin::saying("nonsense\r\n\r\n").await;
    let (_agent, address) = inspected(&edge, &origin.service()).await;
    let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
    assert!(edge.exchange(request).await.is_err());
    let line = over(address, 1).await;
    assert_eq!((&line["outcome"], &line["status"]), (&json!("failed"), &Value::Null));
    assert!(line["remark"].as_str().is_some_and(|remark| !remark.is_empty()), "{line}");

    let (waiting, go, arrived) = crate::origin::slow().await;
    let edge = Edge::start().await;
    let (_agent, address) = inspected(&edge, &waiting.service()).await;
    let asked = tokio::spawn(async move { edge.get("/slow").await });
    within("the request", arrived).await.unwrap();
    let line = told(address, |line| line["id"] == 1).await;
    assert_eq!((&line["outcome"], &line["status"]), (&json!("open"), &Value::Null));
    go.send(()).unwrap();
    assert_eq!(asked.await.unwrap().0, 200);
    over(address, 1).await;
}

#[tokio::test]
async fn without_a_listener_nothing_listens() {
    let edge = Edge::start().await;
    let agent = crate::started(config(&[&edge], &everything_to("http_status:204", ""))).await;
    assert_eq!(agent.inspector_address(), None);
}
