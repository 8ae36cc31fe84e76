//! Connections to an origin over HTTP/1.1: when one serves again, and when it goes.

use std::sync::Arc;
use std::time::Duration;

use agent::file::FileConfig;
use agent::{Config, Running};
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Notify, mpsc};
use wire::Body;

use crate::edge::{Edge, text};
use crate::origin::{Origin, read_head, serve};
use crate::secure::acceptor;
use crate::{config, everything_to, started, within};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An agent whose options are written as in a file, which knows times finer than a second.
async fn with_options(edge: &Edge, origin: &Origin, options: &str) -> Running {
    let file = format!("ingress:\n  - service: {}\n    originRequest: {{{options}}}\n", origin.service());
    let document = FileConfig::parse("config.yml", &file).unwrap().document.unwrap();
    started(Config { document, ..config(&[edge], "{}") }).await
}

async fn post(edge: &Edge, body: &'static str) -> (u16, String) {
    let request =
        Request::post("https://app.test/").header("content-length", body.len()).body(Body::full(body)).unwrap();
    let response = edge.exchange(request).await.unwrap();
    (response.status().as_u16(), text(response.into_body()).await)
}

/// Answers one request head with `OK`; `false` at the end of the connection.
async fn answer_one(stream: &mut TcpStream) -> bool {
    !read_head(stream).await.is_empty() && stream.write_all(OK).await.is_ok()
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_meanwhile_costs_no_request() {
    let edge = Edge::start().await;
    let close = Arc::new(Notify::new());
    let (told, mut closed) = mpsc::channel(1);
    let go = Arc::clone(&close);
    let origin = Origin::raw(move |mut stream| {
        let (go, told) = (Arc::clone(&go), told.clone());
        async move {
            let head = read_head(&mut stream).await;
            if head.starts_with("POST") {
                let mut body = [0; 5];
                stream.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"hello");
            }
            stream.write_all(OK).await.unwrap();
            go.notified().await;
            drop(stream);
            told.send(()).await.unwrap();
        }
    })
    .await;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), ""))).await;
    assert_eq!(edge.get("/").await.0, 200);
    for connections in 2..=4 {
        close.notify_one();
        within("the end of the connection", closed.recv()).await.unwrap();
        assert_eq!(post(&edge, "hello").await, (200, "ok".to_owned()), "a body that nobody read goes again");
        assert_eq!(origin.accepted(), connections);
    }
}

#[tokio::test]
async fn a_connection_that_waited_too_long_serves_no_more() {
    let edge = Edge::start().await;
    let (told, mut closed) = mpsc::channel(2);
    let origin = Origin::raw(move |mut stream| {
        let told = told.clone();
        async move {
            while answer_one(&mut stream).await {}
            told.send(()).await.unwrap();
        }
    })
    .await;
    let _agent = with_options(&edge, &origin, "keepAliveTimeout: 50ms").await;
    assert_eq!(edge.get("/").await.0, 200);
    // Its age, and not a wait for something that happens.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(edge.get("/").await.0, 200);
    assert_eq!(origin.accepted(), 2, "the first had waited longer than it may");
    for _ in 0..2 {
        within("the end of a connection that nobody uses", closed.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn no_more_connections_wait_than_are_allowed() {
    let edge = Edge::start().await;
    let both = Arc::new(Barrier::new(2));
    let (told, mut closed) = mpsc::channel(2);
    let origin = Origin::raw(move |mut stream| {
        let (both, told) = (Arc::clone(&both), told.clone());
        async move {
            // Neither is answered before the other has arrived.
            read_head(&mut stream).await;
            both.wait().await;
            stream.write_all(OK).await.unwrap();
            while answer_one(&mut stream).await {}
            told.send(()).await.unwrap();
        }
    })
    .await;
    let _agent = with_options(&edge, &origin, "keepAliveConnections: 1").await;
    let (first, second) = tokio::join!(edge.get("/"), edge.get("/"));
    assert_eq!((first.0, second.0), (200, 200));
    within("the end of the second connection", closed.recv()).await.unwrap();
    assert_eq!(edge.get("/").await.0, 200);
    assert_eq!(origin.accepted(), 2, "the other one waited, and served again");
    assert!(closed.try_recv().is_err());
}

#[tokio::test]
async fn connections_of_hosts_that_visitors_choose_are_bounded_together() {
    let edge = Edge::start().await;
    let (acceptor, _) = acceptor(&["a.test", "b.test"], false);
    let (told, mut closed) = mpsc::channel(2);
    let origin = Origin::raw(move |stream| {
        let (acceptor, told) = (acceptor.clone(), told.clone());
        async move {
            serve(acceptor.accept(stream).await.unwrap()).await;
            told.send(()).await.unwrap();
        }
    })
    .await;
    let options = r#""noTLSVerify":true,"matchSNItoHost":true,"keepAliveConnections":1"#;
    let service = origin.service().replace("http", "https");
    let _agent = started(config(&[&edge], &everything_to(&service, options))).await;
    for host in ["a.test", "b.test", "b.test"] {
        let request = Request::get(format!("https://{host}/")).body(Body::empty()).unwrap();
        assert!(text(edge.exchange(request).await.unwrap().into_body()).await.contains(host));
    }
    assert_eq!(origin.accepted(), 2, "the latest waited, and served again");
    within("the end of the other host's connection", closed.recv()).await.unwrap();
    assert!(closed.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_lets_the_upload_go_on() {
    let edge = Edge::start().await;
    let (told, mut read) = mpsc::channel(1);
    let origin = Origin::raw(move |mut stream| {
        let told = told.clone();
        async move {
            let head = read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            if head.starts_with("POST") {
                let mut body = [0; 8];
                let whole = stream.read_exact(&mut body).await.is_ok();
                told.send(whole.then_some(body)).await.unwrap();
            }
        }
    })
    .await;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), ""))).await;
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    let body = Body::wrap(StreamBody::new(frames));
    let request = Request::post("https://app.test/").header("content-length", "8").body(body).unwrap();
    let answer = edge.exchange(request).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "ok");
    // A connection with half a request on it is for nobody else.
    assert_eq!(edge.get("/").await, (200, "ok".to_owned()));
    assert_eq!(origin.accepted(), 2);
    for half in ["left", "over"] {
        sender.send(Ok(Frame::data(Bytes::from(half)))).await.unwrap();
    }
    assert_eq!(within("the rest of the upload", read.recv()).await, Some(Some(*b"leftover")));
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_the_answer() {
    const FRAME: usize = 256 << 10;
    const FRAMES: usize = 32;
    let edge = Edge::start().await;
    let (told, mut read) = mpsc::channel(1);
    let origin = Origin::raw(move |mut stream| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let (mut reader, mut writer) = stream.split();
            let answer = async {
                writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                while writer.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
            };
            let upload = async {
                let mut rest = FRAME * FRAMES;
                let mut buffer = vec![0; FRAME];
                while rest > 0 {
                    rest -= reader.read(&mut buffer).await.unwrap();
                }
                told.send(()).await.unwrap();
            };
            tokio::join!(answer, upload);
        }
    })
    .await;
    let _agent = started(config(&[&edge], &everything_to(&origin.service(), ""))).await;
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    let length = FRAME * FRAMES;
    let request = Request::post("https://app.test/").header("content-length", length);
    let answer = edge.exchange(request.body(Body::wrap(StreamBody::new(frames))).unwrap()).await.unwrap();
    for _ in 0..FRAMES {
        within("room for more of the upload", sender.send(Ok(Frame::data(vec![0; FRAME].into())))).await.unwrap();
    }
    within("the whole upload", read.recv()).await.unwrap();
    drop(answer);
}
