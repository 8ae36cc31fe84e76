//! WebSockets: accepted, refused, ended by either side.

use agent::Protocol;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wire::{Body, Interim, Kind};

use crate::edge::{Edge, text};
use crate::origin::{Origin, read_head};
use crate::{config, everything_to, serving, started, within};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request() -> (mpsc::Sender<&'static [u8]>, Request<Body>) {
    let (sender, receiver) = mpsc::channel(4);
    let frames = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<&'static [u8]>| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(bytes))), receiver))
    });
    let request = Request::get("https://app.test/chat")
        .header("sec-websocket-key", KEY)
        .header("sec-websocket-protocol", "chat")
        .body(Body::wrap(StreamBody::new(frames)))
        .unwrap();
    (sender, request)
}

/// Accepts and then echoes raw bytes until the other side ends.
async fn echo() -> Origin {
    Origin::raw(|mut stream| async move {
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        let upgrade = ["connection: upgrade", "upgrade: websocket"];
        for line in upgrade.into_iter().chain(["sec-websocket-version: 13", "sec-websocket-protocol: chat"]) {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
        }
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )
            .await
            .unwrap();
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(read) if &bytes[..read] == b"bye" => break,
                Ok(read) => stream.write_all(&bytes[..read]).await.unwrap(),
            }
        }
        let _ = stream.write_all(b"last words").await;
    })
    .await
}

#[tokio::test]
async fn bytes_go_both_ways_until_either_side_ends() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        for by_origin in [true, false] {
            let edge = Edge::start().await;
            let origin = echo().await;
            let _agent = serving(&edge, protocol, &origin.service()).await;
            let (sender, request) = request();
            let connection = edge.connection().await;
            let answer = connection.exchange(Kind::WebSocket, request, Interim::unwanted());
            let response = within("the answer", answer).await.unwrap();
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(response.headers()["upgrade"], "websocket");
            let mut body = response.into_body();
            sender.send(b"hello").await.unwrap();
            let frame = within("the echo", body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "hello");
            if by_origin {
                sender.send(b"bye").await.unwrap();
                let rest = within("the end", body.collect()).await.unwrap().to_bytes();
                assert_eq!(rest, "last words");
            } else {
                // The protocol has no half close: what comes after the visitor's end may be lost, but the end comes.
                drop(sender);
                let _ = within("the end", body.collect()).await;
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_is_the_origins_answer() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::start().await;
        let origin = Origin::saying("HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nno!\n").await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let (_sender, request) = request();
        let connection = edge.connection().await;
        let answer = connection.exchange(Kind::WebSocket, request, Interim::unwanted());
        let response = within("the answer", answer).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(text(response.into_body()).await, "no!\n");
    }
}

#[tokio::test]
async fn the_built_in_origin_echoes() {
    let edge = Edge::start().await;
    let _agent = started(config(&[&edge], &everything_to("hello_world", ""))).await;
    let (sender, request) = request();
    let connection = edge.connection().await;
    let answer = connection.exchange(Kind::WebSocket, request, Interim::unwanted());
    let response = within("the answer", answer).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut body = response.into_body();
    sender.send(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let frame = within("the echo", body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), &[0x81, 2, b'h', b'i'][..]);
}
