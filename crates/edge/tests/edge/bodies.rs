//! Bodies pass as they come, end as they end, and are given up as soon as nobody wants them.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use wire::{Body, Transport};

use crate::node::{BOTH, Node, PATIENCE};
use crate::origin::streamed;
use crate::visitor::{ALL, Way, get, post};

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        let body: Bytes = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for way in ALL {
            let reply = node.visit(way, post("/echo", Body::full(body.clone()))).await;
            assert!(reply.body == body && !reply.cut, "{way:?} {transport}: {} bytes came back", reply.body.len());
        }
    }
}

#[tokio::test]
async fn bodies_of_unknown_length_pass_with_their_trailers() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        for way in ALL {
            let (sender, body) = streamed();
            let mut request = post("/count", body);
            request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            let feeding = tokio::spawn(async move {
                for _ in 0..3 {
                    sender.send(Ok(Frame::data(Bytes::from_static(b"12345")))).await.unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("15"));
                sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
            });
            let reply = node.visit(way, request).await;
            assert_eq!(reply.text(), "15 15", "{way:?} {transport}");
            feeding.await.unwrap();
        }
    }
}

#[tokio::test]
async fn trailers_of_answers_arrive() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        for way in ALL {
            let mut request = get("/trailers");
            request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            let reply = node.visit(way, request).await;
            assert_eq!(reply.text(), "message");
            // HTTP/1.1 has room for announced trailers only.
            if !matches!(way, Way::Plain | Way::Http1) {
                assert_eq!(reply.trailers.get("grpc-status").unwrap(), "0", "{way:?} {transport}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        let mut events = node.running.requests();
        for way in ALL {
            for path in ["/truncated", "/truncated-length"] {
                origin.gate.send_replace(false);
                // Over QUIC a reset may overtake what was sent before it, even the answer's head.
                let break_off = async {
                    events.recv().await.unwrap();
                    origin.gate.send_replace(true);
                };
                let (reply, ()) = tokio::join!(node.visit(way, get(path)), break_off);
                assert!(reply.cut, "{way:?} {transport} {path}: {reply:?}");
            }
        }
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
        tcp.write_all(b"GET /events HTTP/1.1\r\nhost: app.edge.test\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        let first = async {
            while !read.ends_with(b"data: 1\n\n\r\n") {
                tcp.read_buf(&mut read).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, first).await.expect("the first event is held back");
        origin.gate.send_replace(true);
        let mut rest = String::new();
        let end = async {
            while !rest.contains("0\r\n\r\n") {
                let mut part = [0; 256];
                let length = tcp.read(&mut part).await.unwrap();
                rest.push_str(std::str::from_utf8(&part[..length]).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("the rest does not come");
        assert!(rest.contains("data: 2"));
    }
}

/// Begins a request, and leaves when it is time. Over HTTP/3 the connection stays while it is answered, so that only the
/// request is given up.
async fn leave(node: &Node, way: Way, path: &str, is_time: impl AsyncFn()) -> Option<Staying> {
    match way {
        Way::Plain | Way::PlainHttp2 | Way::Http1 => {
            let mut stream = node.tls(b"http/1.1").await;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: app.edge.test\r\n\r\n").as_bytes()).await.unwrap();
            is_time().await;
            None
        }
        Way::Http2 => {
            let (requests, connection) = h2::client::handshake(node.tls(b"h2").await).await.unwrap();
            let driving = tokio::spawn(connection);
            let (head, _) = get(path).into_parts();
            let mut requests = requests.ready().await.unwrap();
            let (answer, mut stream) = requests.send_request(Request::from_parts(head, ()), true).unwrap();
            is_time().await;
            stream.send_reset(h2::Reason::CANCEL);
            drop((answer, stream, requests));
            // Ends once everything is sent.
            let _ = driving.await;
            None
        }
        Way::Http3 => {
            let (endpoint, connection) = node.quic().await;
            let stays = connection.clone();
            let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
            let mut driving = tokio::task::JoinSet::new();
            driving.spawn(async move {
                poll_fn(|context| driver.poll_close(context)).await;
            });
            let (head, _) = get(path).into_parts();
            let mut stream = requests.send_request(Request::from_parts(head, ())).await.unwrap();
            stream.finish().await.unwrap();
            is_time().await;
            stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
            Some(Staying { connection: stays, _requests: requests, _driving: driving, _endpoint: endpoint })
        }
    }
}

/// An HTTP/3 connection without requests.
struct Staying {
    connection: quinn::Connection,
    _requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    _driving: tokio::task::JoinSet<()>,
    _endpoint: quinn::Endpoint,
}

/// The request was given up, and not the connection.
fn still_there(staying: Option<Staying>) {
    if let Some(staying) = staying {
        assert_eq!(staying.connection.close_reason(), None);
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_before_the_answer_cancels_the_request() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        let mut events = node.running.requests();
        for (number, way) in [Way::Http1, Way::Http2, Way::Http3].into_iter().enumerate() {
            let staying = leave(&node, way, "/never", async || {
                crate::node::eventually("the origin has the request", async || origin.count() > number).await;
            })
            .await;
            origin.given_up(number + 1).await;
            still_there(staying);
            assert_eq!(events.recv().await.unwrap().status, 499, "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_in_the_middle_cancels_the_answer() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        for (number, way) in [Way::Http1, Way::Http2, Way::Http3].into_iter().enumerate() {
            origin.pieces.store(0, Ordering::SeqCst);
            let staying = leave(&node, way, "/endless", async || {
                let flows = async || origin.pieces.load(Ordering::SeqCst) > 0;
                crate::node::eventually("the answer flows", flows).await;
            })
            .await;
            origin.given_up(number + 1).await;
            still_there(staying);
        }
    }
}

/// Nothing moves for so long: it has stalled.
const STILL: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_slow_reader_slows_the_origin_down() {
    const TOTAL: usize = 64 << 20;
    for transport in [Transport::Http2, Transport::Quic] {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        let (sender, body) = streamed();
        let (fed, mut seen) = watch::channel(0);
        let feeding = tokio::spawn(async move {
            let piece = Bytes::from(vec![7; 64 << 10]);
            while *fed.borrow() < TOTAL {
                if sender.send(Ok(Frame::data(piece.clone()))).await.is_err() {
                    break;
                }
                fed.send_modify(|fed| *fed += piece.len());
            }
            // What was fed stays to be read.
            fed.closed().await;
        });
        // The origin echoes, and nobody reads what it echoes.
        let (requests, connection) = h2::client::handshake(node.tls(b"h2").await).await.unwrap();
        let driving = tokio::spawn(connection);
        let (head, mut body) = post("/echo", body).into_parts();
        let mut requests = requests.ready().await.unwrap();
        let (answer, mut stream) = requests.send_request(Request::from_parts(head, ()), false).unwrap();
        let sending = tokio::spawn(async move {
            use http_body_util::BodyExt as _;
            while let Some(Ok(frame)) = body.frame().await {
                let mut data = frame.into_data().unwrap();
                while !data.is_empty() {
                    stream.reserve_capacity(data.len());
                    let Some(Ok(_)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
                    stream.send_data(data.split_to(stream.capacity().min(data.len())), false).unwrap();
                }
            }
        });
        let _answer = answer.await.unwrap();
        // It stands still once every window on the way is full.
        while let Ok(fed) = tokio::time::timeout(STILL, seen.changed()).await {
            fed.unwrap();
        }
        let last = *seen.borrow();
        assert!(last < TOTAL / 2, "{transport}: {last} bytes are somewhere on the way");
        feeding.abort();
        sending.abort();
        driving.abort();
    }
}

/// Sends a request that is answered before its body is there, and reads the answer.
async fn answered_early(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str, end: &str) {
    let head = format!("POST {path} HTTP/1.1\r\nhost: app.edge.test\r\ncontent-length: 1000000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let whole = async {
        while !answer.ends_with(end.as_bytes()) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("the answer comes");
}

/// Sends what nobody wants any more, piece by piece.
async fn goes_on(stream: &mut (impl AsyncWrite + Unpin), pieces: usize) -> std::io::Result<()> {
    for _ in 0..pieces {
        stream.write_all(&[b'x'; 64 << 10]).await?;
        stream.flush().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_visitor_who_still_sends_is_not_hung_up_on_at_once() {
    let (node, _origin, _agent) = Node::with_app(BOTH[1]).await;
    // More than the system keeps for somebody who does not read.
    const PIECES: usize = 256;
    let answer = "too much\r\n0\r\n\r\n";
    let mut plain = TcpStream::connect(node.addresses().http).await.unwrap();
    answered_early(&mut plain, "/unread", answer).await;
    goes_on(&mut plain, PIECES).await.expect("the edge hears it out");
    let mut secure = node.tls(b"http/1.1").await;
    answered_early(&mut secure, "/unread", answer).await;
    goes_on(&mut secure, PIECES).await.expect("the edge hears it out over TLS");
    let mut api = TcpStream::connect(node.addresses().api).await.unwrap();
    answered_early(&mut api, "/hello", "\r\n\r\n").await;
    goes_on(&mut api, PIECES).await.expect("the API hears it out");

    // But not for ever.
    hung_up(&mut plain, PATIENCE).await;
}

async fn hung_up(stream: &mut (impl AsyncWrite + Unpin), limit: Duration) {
    let hung_up = async { while goes_on(stream, 1).await.is_ok() {} };
    tokio::time::timeout(limit, hung_up).await.expect("the edge has hung up");
}

#[tokio::test]
async fn nobody_is_heard_out_whose_requests_were_none_or_had_come_whole() {
    let (node, _origin, _agent) = Node::with_app(BOTH[1]).await;
    for said in [
        "GET /hello HTTP/1.1\r\nhost: app.edge.test\r\nno header\r\n\r\n",
        "GET /hello HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
    ] {
        let mut visitor = TcpStream::connect(node.addresses().http).await.unwrap();
        visitor.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, visitor.read_to_end(&mut answer)).await.expect("it is answered").unwrap();
        // Sooner than whoever is heard out, for five seconds.
        hung_up(&mut visitor, Duration::from_secs(4)).await;
    }
}
