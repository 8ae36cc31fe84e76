//! Byte streams: inside a visitor's WebSocket, and as they are.

use std::net::SocketAddr;

use agent::{Event, Protocol, Running, StreamOutcome};
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use wire::{Body, Destination, ExchangeError, Interim, Kind, OriginFault, StreamRequest};

use crate::edge::Edge;
use crate::{config, event, everything_to, started, within};

const BOTH: [Protocol; 2] = [Protocol::Http2, Protocol::Quic];

async fn agent_for(edge: &Edge, protocol: Protocol, document: &str) -> Running {
    let mut config = config(&[edge], document);
    config.protocol = protocol;
    started(config).await
}

/// Hears everything, says it again behind a greeting, and ends.
async fn parrot() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

async fn repeat(mut stream: TcpStream) {
    stream.write_all(b"hello ").await.unwrap();
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    writer.shutdown().await.unwrap();
}

/// One end of a WebSocket, in frames.
struct Visitor {
    sender: mpsc::Sender<Bytes>,
    answer: Body,
    input: BytesMut,
}

impl Visitor {
    async fn arrive(edge: &Edge, headers: &[(&str, &str)]) -> Result<Self, ExchangeError> {
        let (sender, receiver) = mpsc::channel(4);
        let frames = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
            Some((Ok::<_, std::io::Error>(Frame::data(receiver.recv().await?)), receiver))
        });
        let mut request = Request::get("https://app.test/").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::wrap(StreamBody::new(Box::pin(frames)))).unwrap();
        let connection = edge.connection().await;
        let answer = connection.exchange(Kind::WebSocket, request, Interim::unwanted());
        let response = within("the answer", answer).await?;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        Ok(Self { sender, answer: response.into_body(), input: BytesMut::new() })
    }

    /// Sends one frame, masked with zeros.
    async fn say(&self, opcode: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).unwrap();
        let frame = [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat();
        self.sender.send(frame.into()).await.unwrap();
    }

    /// The next `length` bytes of payload of the frames that come.
    async fn hear(&mut self, length: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < length {
            let (opcode, payload) = self.frame().await.expect("the stream goes on");
            assert_eq!(opcode, 0x82);
            heard.extend_from_slice(&payload);
        }
        heard
    }

    /// The next frame; `None`: the end.
    async fn frame(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let [first, short, rest @ ..] = &self.input[..] {
                assert!(*short < 127, "an agent masks nothing, and sends no larger frames than 16 KiB");
                let (length, head) = match (*short, rest) {
                    (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
                    (126, _) => (usize::MAX, 4),
                    (short, _) => (usize::from(short), 2),
                };
                if self.input.len().saturating_sub(head) >= length {
                    let first = *first;
                    let _ = self.input.split_to(head);
                    return Some((first, self.input.split_to(length).freeze()));
                }
            }
            let more = within("a frame", self.answer.frame()).await?;
            self.input.extend_from_slice(&more.unwrap().into_data().unwrap());
        }
    }
}

#[tokio::test]
async fn a_websocket_leads_to_a_tcp_service() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let (address, origin) = parrot().await;
        let _agent = agent_for(&edge, protocol, &everything_to(&format!("tcp://{address}"), "")).await;
        let mut visitor = Visitor::arrive(&edge, &[]).await.unwrap();
        tokio::spawn(async move { repeat(origin.accept().await.unwrap().0).await });
        visitor.say(2, b"wor").await;
        visitor.say(9, b"there?").await;
        visitor.say(2, b"ld").await;
        // The agent answers by itself, before what the origin says or after.
        let mut heard = Vec::new();
        let mut ponged = false;
        while heard.len() < 11 || !ponged {
            match visitor.frame().await.unwrap() {
                (0x82, payload) => heard.extend_from_slice(&payload),
                (opcode, payload) => {
                    assert_eq!((opcode, &payload[..]), (0x8a, &b"there?"[..]));
                    ponged = true;
                }
            }
        }
        assert_eq!(heard, b"hello world");
        visitor.say(8, &[3, 232]).await;
        assert_eq!(visitor.frame().await.unwrap(), (0x88, Bytes::from_static(&[3, 232])));
        assert_eq!(visitor.frame().await, None);
    }
}

#[tokio::test]
async fn a_jump_host_leads_where_the_visitor_says() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let (address, origin) = parrot().await;
        let _agent = agent_for(&edge, protocol, &everything_to("bastion", "")).await;
        let destination = format!("ssh://{address}/x");
        let mut visitor = Visitor::arrive(&edge, &[("cf-access-jump-destination", &destination)]).await.unwrap();
        tokio::spawn(async move { repeat(origin.accept().await.unwrap().0).await });
        assert_eq!(visitor.hear(6).await, b"hello ");
        match Visitor::arrive(&edge, &[]).await {
            Err(ExchangeError::Origin(error)) => assert_eq!(error.fault, OriginFault::Unsupported),
            other => panic!("nobody said where to: {:?}", other.map(|_| ())),
        }
    }
}

#[tokio::test]
async fn socks_leads_where_the_rules_allow() {
    let edge = Edge::start().await;
    let (address, origin) = parrot().await;
    let port = address.port();
    let rules = format!(r#""ipRules":[{{"prefix":"127.0.0.0/8","ports":[{port}],"allow":true}}]"#);
    let _agent = agent_for(&edge, Protocol::Auto, &everything_to("socks-proxy", &rules)).await;
    tokio::spawn(async move { repeat(origin.accept().await.unwrap().0).await });
    for (port, reply) in [(port, 0), (port ^ 1, 2)] {
        let mut visitor = Visitor::arrive(&edge, &[]).await.unwrap();
        visitor.say(2, &[5, 1, 0]).await;
        assert_eq!(visitor.hear(2).await, [5, 0]);
        let [high, low] = port.to_be_bytes();
        visitor.say(2, &[5, 1, 0, 1, 127, 0, 0, 1, high, low]).await;
        assert_eq!(visitor.hear(10).await[..2], [5, reply]);
        if reply == 0 {
            assert_eq!(visitor.hear(6).await, b"hello ");
        } else {
            assert!(visitor.frame().await.is_none_or(|(opcode, _)| opcode == 0x88), "nothing follows a refusal");
        }
    }
}

#[tokio::test]
async fn a_tcp_service_with_nobody_behind_it() {
    let edge = Edge::start().await;
    // Bound, so that nobody else takes the port, but not listening.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let _agent = agent_for(&edge, Protocol::Auto, &everything_to(&format!("tcp://{address}"), "")).await;
    match Visitor::arrive(&edge, &[]).await {
        Err(ExchangeError::Origin(error)) => assert_eq!(error.fault, OriginFault::Refused),
        other => panic!("nobody listens: {:?}", other.map(|_| ())),
    }
    let connection = edge.connection().await;
    match within("the answer", connection.connect_stream(&to("app.test"))).await {
        Err(ExchangeError::Origin(error)) => assert_eq!(error.fault, OriginFault::Refused),
        other => panic!("nobody listens: {other:?}"),
    }
    let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
    assert_eq!(edge.exchange(request).await.unwrap().status(), StatusCode::UPGRADE_REQUIRED);
}

fn to(service: &str) -> StreamRequest {
    StreamRequest { destination: Destination::Service(service.to_owned()), flow: "192.0.2.1:4711".to_owned() }
}

#[tokio::test]
async fn a_byte_stream_ends_each_way_by_itself_and_is_told() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let (address, origin) = parrot().await;
        let document = format!(
            r#"{{"ingress":[{{"hostname":"db.test","service":"tcp://{address}"}},{{"service":"http_status:404"}}]}}"#
        );
        let agent = agent_for(&edge, protocol, &document).await;
        let mut events = agent.events();
        let connection = edge.connection().await;
        let mut stream = within("the stream", connection.connect_stream(&to("db.test"))).await.unwrap();
        tokio::spawn(async move { repeat(origin.accept().await.unwrap().0).await });
        let talk = async {
            stream.write_all(b"world").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            heard
        };
        assert_eq!(within("the talk", talk).await, "hello world");
        drop(stream);
        let told = event(&mut events, |event| match event {
            Event::Stream(stream) => Some(*stream),
            _ => None,
        });
        let told = told.await;
        assert_eq!((told.service.as_str(), told.flow.as_str(), told.rule), ("db.test", "192.0.2.1:4711", Some(0)));
        assert_eq!((told.outcome, told.received, told.sent), (StreamOutcome::Ended, 5, 11));

        for destination in [Destination::Service("other.test".to_owned()), Destination::Address(address)] {
            let request = StreamRequest { destination, flow: String::new() };
            match within("the answer", connection.connect_stream(&request)).await {
                Err(ExchangeError::Origin(error)) => assert_eq!(error.fault, OriginFault::Unsupported),
                other => panic!("{request:?} is not served: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_visitor_that_breaks_off_resets_the_origin() {
    for protocol in BOTH {
        for inside_a_websocket in [false, true] {
            let edge = Edge::start().await;
            let (address, origin) = parrot().await;
            let _agent = agent_for(&edge, protocol, &everything_to(&format!("tcp://{address}"), "")).await;
            let connection = edge.connection().await;
            let broken = async {
                if inside_a_websocket {
                    let visitor = Visitor::arrive(&edge, &[]).await.unwrap();
                    visitor.say(2, b"half of wh").await;
                    let (mut heard, _) = within("the visitor", origin.accept()).await.unwrap();
                    within("the beginning", heard.read_exact(&mut [0; 10])).await.unwrap();
                    drop(visitor.answer);
                    heard
                } else {
                    let mut stream = within("the stream", connection.connect_stream(&to("app.test"))).await.unwrap();
                    stream.write_all(b"half of wh").await.unwrap();
                    let (mut heard, _) = within("the visitor", origin.accept()).await.unwrap();
                    within("the beginning", heard.read_exact(&mut [0; 10])).await.unwrap();
                    drop(stream);
                    heard
                }
            };
            let mut heard = broken.await;
            let end = within("the end", heard.read(&mut [0])).await;
            assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{protocol:?}");
        }
    }
}
