//! Bodies pass as they come, and end as they end: piece by piece, cut short, or given up.

use std::sync::Arc;

use bytes::Bytes;
use harness::{LIMIT, Origin, RawOrigin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

use crate::rig::Rig;
use crate::script::read_head;
use crate::visit::{full, streamed};

/// The test's hold on what an origin does: it sees each connection's events and lets the next step go.
struct Steps {
    steps: mpsc::Sender<Vec<u8>>,
    events: mpsc::Receiver<&'static str>,
    origin: RawOrigin,
}

impl Steps {
    /// An origin that writes what the test sends it, and says when its connection ends. An empty step closes.
    async fn start() -> Self {
        let (steps, receiver) = mpsc::channel::<Vec<u8>>(1);
        let (sender, events) = mpsc::channel(16);
        let receiver = Arc::new(Mutex::new(receiver));
        let origin = RawOrigin::start(move |mut stream| {
            let (receiver, sender) = (Arc::clone(&receiver), sender.clone());
            async move {
                if read_head(&mut stream).await.is_none() {
                    return;
                }
                sender.send("request").await.unwrap();
                let ended = follow(&mut stream, &receiver).await;
                let _ = sender.send(if ended { "gone" } else { "closed" }).await;
            }
        });
        Self { steps, events, origin: origin.await }
    }

    async fn step(&self, bytes: impl Into<Vec<u8>>) {
        tokio::time::timeout(LIMIT, self.steps.send(bytes.into())).await.expect("the origin takes the step").unwrap();
    }

    async fn event(&mut self) -> &'static str {
        tokio::time::timeout(LIMIT, self.events.recv()).await.expect("the origin tells of itself").unwrap()
    }
}

/// Answers whether the other side ended the connection.
async fn follow(stream: &mut TcpStream, steps: &Mutex<mpsc::Receiver<Vec<u8>>>) -> bool {
    let mut steps = steps.lock().await;
    let mut rest = [0; 1024];
    loop {
        tokio::select! {
            step = steps.recv() => match step {
                Some(bytes) if !bytes.is_empty() => stream.write_all(&bytes).await.unwrap(),
                _ => return false,
            },
            read = stream.read(&mut rest) => if !matches!(read, Ok(1..)) {
                return true;
            },
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_piece_of_an_answer_arrives_before_the_next_is_sent() {
    let mut origin = Steps::start().await;
    let rig = Rig::start(&origin.origin.service()).await;
    let heads = [
        "content-type: text/event-stream\r\ntransfer-encoding: chunked",
        "content-type: image/png\r\ntransfer-encoding: chunked",
        "content-type: text/html\r\ncontent-length: 18",
        "content-type: application/json",
    ];
    for way in rig.ways() {
        for head in heads {
            let mut exchange = way.open("GET", "/", &[], full("")).await;
            assert_eq!(origin.event().await, "request");
            origin.step(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n\r\n")).await;
            let (_, status, headers) = exchange.head().await.unwrap();
            assert_eq!(status, 200, "{way} {head}");
            assert_eq!(headers.contains_key("content-length"), head.contains("length"), "{way} {head}");
            for number in 0..3 {
                let piece = format!("piece{number}");
                origin.step(if head.contains("chunked") { chunk(&piece) } else { piece.clone() }).await;
                assert_eq!(exchange.piece().await, piece, "{way} {head}");
            }
            if head.contains("chunked") {
                origin.step("0\r\n\r\n").await;
            }
            if !head.contains("chunked") && !head.contains("length") {
                origin.step("").await;
            }
            assert_eq!(exchange.piece().await, "", "{way} {head}: the end");
            if head.contains("chunked") || head.contains("length") {
                assert_eq!(origin.event().await, "gone", "{way} {head}");
            } else {
                assert_eq!(origin.event().await, "closed", "{way} {head}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_every_reader_as_they_happen() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    let mut readers = Vec::new();
    for way in rig.ways() {
        let mut reader = way.open("GET", "/events", &[("accept", b"text/event-stream")], full("")).await;
        assert_eq!(reader.head().await.unwrap().1, 200, "{way}");
        readers.push((way.to_string(), reader));
    }
    for event in ["one", "two", "three"] {
        origin.push(readers.len(), event).await;
        for (way, reader) in &mut readers {
            assert_eq!(reader.piece().await, format!("data: {event}\n\n"), "{way}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_piece_of_a_request_arrives_before_the_next_is_sent() {
    // Sends back each piece at once, while the request is still under way.
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways() {
        let (pieces, body) = streamed();
        let mut exchange = way.open("POST", "/echo", &[], body).await;
        assert_eq!(exchange.head().await.unwrap().1, 200, "{way}: the answer begins before the request ends");
        for piece in ["one", "two", "three"] {
            pieces.send(Bytes::from(piece)).await.unwrap();
            assert_eq!(exchange.piece().await, piece, "{way}");
        }
        drop(pieces);
        assert_eq!(exchange.piece().await, "", "{way}: the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_leaves_cancels_the_origins_request() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways() {
        let before_the_answer = way.open("GET", "/hang", &[], full("")).await;
        origin.wait_for_hanging(1).await;
        let _kept = before_the_answer.reset();
        origin.wait_for_hanging(0).await;

        let (pieces, body) = streamed();
        let in_the_request = way.open("POST", "/hang", &[], body).await;
        pieces.send(Bytes::from("some")).await.unwrap();
        origin.wait_for_hanging(1).await;
        let _kept = in_the_request.reset();
        origin.wait_for_hanging(0).await;
        assert_eq!(way.get("/").await.status, 200, "{way}: others go on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_leaves_in_the_answer_cancels_it_too() {
    let mut origin = Steps::start().await;
    let rig = Rig::start(&origin.origin.service()).await;
    for way in rig.ways() {
        let mut exchange = way.open("GET", "/", &[], full("")).await;
        assert_eq!(origin.event().await, "request");
        origin.step("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n").await;
        assert_eq!(exchange.head().await.unwrap().1, 200, "{way}");
        assert_eq!(exchange.piece().await, "some", "{way}");
        let _kept = exchange.reset();
        assert_eq!(origin.event().await, "gone", "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_in_its_answer_is_seen_by_the_visitor() {
    let mut origin = Steps::start().await;
    let rig = Rig::start(&origin.origin.service()).await;
    for way in rig.ways() {
        for head in ["content-length: 100\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
            let mut exchange = way.open("GET", "/", &[], full("")).await;
            assert_eq!(origin.event().await, "request");
            origin.step(format!("HTTP/1.1 200 OK\r\n{head}")).await;
            assert_eq!(exchange.head().await.unwrap().1, 200, "{way}");
            assert_eq!(exchange.piece().await, "half", "{way}");
            origin.step("").await;
            assert_eq!(origin.event().await, "closed", "{way}");
            let rest = exchange.rest().await;
            assert!(rest.is_err(), "{way}: half an answer looks whole: {rest:?}");
        }
    }
}
