//! Byte streams: where they lead, their ends, and what cuts them.

use std::future::pending;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use wire::connect::ResponseHead;
use wire::{
    ByteStream, Destination, ExchangeError, Extensions, OriginFault, Relayed, StreamRefusal, StreamRequest, Transport,
};

use crate::rig::{Bell, Origin, Rig, both, no_answer, soon};

both!(
    a_byte_stream_carries_both_ways_and_each_end_by_itself,
    a_destination_arrives_as_it_was_named,
    an_origin_that_cannot_be_reached_is_told_by_kind,
    a_stock_agent_is_asked_for_addresses_only,
    too_many_flows_are_a_refusal,
    a_handler_that_carries_none_says_so,
    a_visitor_who_leaves_cuts_the_origins_stream,
    an_origin_that_is_cut_cuts_the_visitors_stream,
    giving_up_gives_the_origin_up,
    a_reader_that_stalls_holds_the_origin_back,
    a_stream_keeps_a_draining_connection,
);

fn to(address: &str) -> StreamRequest {
    StreamRequest { destination: Destination::Address(address.parse().unwrap()), flow: "8a00-LAB01".into() }
}

fn to_service(name: &str) -> StreamRequest {
    StreamRequest { destination: Destination::Service(name.into()), flow: String::new() }
}

/// Hands out the far end of each stream that it connects, and what was asked for.
fn recorder(buffer: usize) -> (std::sync::Arc<Origin>, mpsc::UnboundedReceiver<(StreamRequest, DuplexStream)>) {
    let (connected, connections) = mpsc::unbounded_channel();
    let origin = Origin::connecting(move |request| {
        let (near, far) = duplex(buffer);
        connected.send((request, far)).unwrap();
        async { Ok(ByteStream::wrap(near)) }
    });
    (origin, connections)
}

async fn connect(rig: &Rig, request: &StreamRequest) -> Result<ByteStream, ExchangeError> {
    soon(rig.edge.connect_stream(request)).await
}

async fn a_byte_stream_carries_both_ways_and_each_end_by_itself(transport: Transport) {
    let (origin, mut connections) = recorder(1 << 10);
    let rig = Rig::stock(transport, origin).await;
    let mut visitor = connect(&rig, &to("10.0.0.5:22")).await.unwrap();
    let (_, mut far) = soon(connections.recv()).await.unwrap();
    assert_eq!((rig.edge.in_flight(), rig.agent.in_flight()), (1, 1));

    far.write_all(b"SSH-2.0").await.unwrap();
    let mut banner = [0; 7];
    soon(visitor.read_exact(&mut banner)).await.unwrap();
    assert_eq!(&banner, b"SSH-2.0");

    // The visitor's end of the stream: the origin answers after it, more than any buffer holds.
    let sent: Vec<u8> = (0..4_u32 << 20).map(|index| (index % 251) as u8).collect();
    let asking = async {
        visitor.write_all(&sent).await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answering = async {
        let mut question = Vec::new();
        far.read_to_end(&mut question).await.unwrap();
        far.write_all(&question).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (answer, ()) = soon(async { tokio::join!(asking, answering) }).await;
    assert!(answer == sent);
    drop((visitor, far));
    rig.idle().await;
}

async fn a_destination_arrives_as_it_was_named(transport: Transport) {
    let (origin, mut connections) = recorder(1 << 10);
    let rig = Rig::new(transport, origin).await;
    for request in [to("10.0.0.5:22"), to("[2001:db8::7]:443"), to_service("db.example.test")] {
        let stream = connect(&rig, &request).await.unwrap();
        assert_eq!(soon(connections.recv()).await.unwrap().0, request);
        drop(stream);
    }
    rig.idle().await;
}

async fn fault(rig: &Rig, request: &StreamRequest) -> OriginFault {
    match connect(rig, request).await {
        Err(ExchangeError::Origin(error)) => error.fault,
        other => panic!("{other:?}"),
    }
}

async fn an_origin_that_cannot_be_reached_is_told_by_kind(transport: Transport) {
    let refusing = || Origin::connecting(|_| async { Err(no_answer().into()) });
    let ours = Rig::new(transport, refusing()).await;
    assert_eq!(fault(&ours, &to("10.0.0.5:22")).await, OriginFault::Refused);
    assert_eq!(fault(&ours, &to_service("a")).await, OriginFault::Refused);
    let stock = Rig::stock(transport, refusing()).await;
    assert_eq!(fault(&stock, &to("10.0.0.5:22")).await, OriginFault::Unknown);
    ours.idle().await;
    stock.idle().await;
}

async fn a_stock_agent_is_asked_for_addresses_only(transport: Transport) {
    let (origin, mut connections) = recorder(1 << 10);
    let rig = Rig::stock(transport, origin).await;
    assert_eq!(fault(&rig, &to_service("db.example.test")).await, OriginFault::Unsupported);
    assert!(connections.try_recv().is_err());
    rig.idle().await;
}

async fn too_many_flows_are_a_refusal(transport: Transport) {
    let rig = Rig::stock(transport, Origin::connecting(|_| async { Err(StreamRefusal::TooMany("full".into())) })).await;
    assert_eq!(fault(&rig, &to("10.0.0.5:22")).await, OriginFault::Unsupported);
    rig.idle().await;
}

async fn a_handler_that_carries_none_says_so(transport: Transport) {
    struct Plain;
    impl wire::Handler for Plain {
        async fn exchange(
            &self,
            _: wire::Kind,
            _: Request<wire::Body>,
            _: wire::Interim,
        ) -> Result<http::Response<wire::Body>, wire::OriginError> {
            pending().await
        }

        async fn update_configuration(&self, _: i32, _: Bytes) -> Result<i32, (i32, String)> {
            pending().await
        }
    }
    let refused = wire::Handler::stream(&Plain, to("10.0.0.5:22")).await.unwrap_err();
    let StreamRefusal::Origin(error) = refused else { panic!("{refused}") };
    let rig = Rig::new(
        transport,
        Origin::connecting(move |_| {
            let error = error.clone();
            async move { Err(error.into()) }
        }),
    )
    .await;
    assert_eq!(fault(&rig, &to("10.0.0.5:22")).await, OriginFault::Unsupported);
}

async fn a_visitor_who_leaves_cuts_the_origins_stream(transport: Transport) {
    let (origin, mut connections) = recorder(1 << 10);
    let rig = Rig::new(transport, origin).await;
    let mut visitor = connect(&rig, &to("10.0.0.5:22")).await.unwrap();
    let (_, mut far) = soon(connections.recv()).await.unwrap();
    visitor.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    soon(far.read_exact(&mut half)).await.unwrap();
    drop(visitor);
    assert_eq!(soon(far.read(&mut half)).await.unwrap(), 0);
    rig.idle().await;
    assert!(rig.edge.is_open());
}

async fn an_origin_that_is_cut_cuts_the_visitors_stream(transport: Transport) {
    /// Fails at the first read.
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
        }
    }
    let origin = Origin::connecting(|_| async { Ok(ByteStream::wrap(tokio::io::join(Broken, tokio::io::sink()))) });
    let rig = Rig::new(transport, origin).await;
    // A reset may take the word that it was connected with it.
    if let Ok(mut visitor) = connect(&rig, &to("10.0.0.5:22")).await {
        soon(visitor.read(&mut [0; 1])).await.unwrap_err();
    }
    rig.idle().await;
    assert!(rig.edge.is_open());
}

async fn giving_up_gives_the_origin_up(transport: Transport) {
    let (started, mut starts) = mpsc::unbounded_channel();
    let origin = Origin::connecting(move |_| {
        let (bell, rung) = tokio::sync::oneshot::channel();
        started.send(rung).unwrap();
        async move {
            let _bell = Bell(Some(bell));
            pending().await
        }
    });
    let rig = Rig::new(transport, origin).await;
    let edge = rig.edge.clone();
    let waiting = tokio::spawn(async move { edge.connect_stream(&to("10.0.0.5:22")).await.is_ok() });
    let rung = soon(starts.recv()).await.unwrap();
    waiting.abort();
    soon(rung).await.unwrap();
    rig.idle().await;
}

/// Twice what both ends and the kernel hold for a stream that nobody reads.
const BIG: u64 = 24 << 20;

async fn a_reader_that_stalls_holds_the_origin_back(transport: Transport) {
    let (origin, mut connections) = recorder(64 << 10);
    let rig = Rig::new(transport, origin).await;
    let mut visitor = connect(&rig, &to("10.0.0.5:22")).await.unwrap();
    let (_, mut far) = soon(connections.recv()).await.unwrap();
    let sending = tokio::spawn(async move { tokio::io::copy(&mut tokio::io::repeat(7).take(BIG), &mut far).await });
    // Others pass meanwhile, often enough for all that can move to have moved.
    for _ in 0..50 {
        rig.get("https://a.test/").await;
    }
    assert!(!sending.is_finished());
    let read = soon(tokio::io::copy(&mut visitor, &mut tokio::io::sink())).await.unwrap();
    assert_eq!(read, BIG);
    assert_eq!(soon(sending).await.unwrap().unwrap(), BIG);
    drop(visitor);
    rig.idle().await;
}

async fn a_stream_keeps_a_draining_connection(transport: Transport) {
    let (origin, mut connections) = recorder(1 << 10);
    let rig = Rig::new(transport, origin).await;
    let stream = connect(&rig, &to("10.0.0.5:22")).await.unwrap();
    let (_, mut far) = soon(connections.recv()).await.unwrap();
    rig.edge.drain();
    assert!(matches!(connect(&rig, &to("10.0.0.5:22")).await, Err(ExchangeError::NotSent(_))));
    let (near, mut visitor) = duplex(1 << 10);
    let relay = tokio::spawn(stream.relay(ByteStream::wrap(near)));
    visitor.write_all(b"bye").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut bye = Vec::new();
    soon(far.read_to_end(&mut bye)).await.unwrap();
    assert_eq!(bye, b"bye");
    far.write_all(b"see you").await.unwrap();
    drop(far);
    let mut last = Vec::new();
    soon(visitor.read_to_end(&mut last)).await.unwrap();
    assert_eq!(last, b"see you");
    assert_eq!(soon(relay).await.unwrap().unwrap(), Relayed { out: 7, back: 3 });
    assert_eq!(soon(rig.served).await.unwrap().reason, "the edge drained the connection");
}

#[tokio::test]
async fn over_http2_an_edge_that_names_a_host_is_refused() {
    let (origin, mut connections) = recorder(1 << 10);
    let mut edge = crate::http2::RawEdge::new(origin).await;
    for (authority, status) in [
        ("db.example.test:22", StatusCode::BAD_GATEWAY),
        ("10.0.0.5", StatusCode::BAD_GATEWAY),
        ("10.0.0.5:22", StatusCode::OK),
    ] {
        let mut request = Request::get(format!("https://{authority}/")).body(()).unwrap();
        request.headers_mut().insert("cf-cloudflared-proxy-src", HeaderValue::from_static("any"));
        let answer = edge.ask(request).await;
        assert_eq!(answer.status(), status, "{authority}");
        let src = if status == StatusCode::OK { r#"{"src":"origin"}"# } else { r#"{"src":"cloudflared"}"# };
        assert_eq!(answer.headers()["cf-cloudflared-response-meta"], src);
    }
    assert_eq!(connections.try_recv().unwrap().0.destination.to_string(), "10.0.0.5:22");
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn over_quic_an_edge_that_names_a_host_is_refused() {
    let (origin, mut connections) = recorder(1 << 10);
    let (edge, _agent) = crate::quic::raw_edge(origin).await;
    // The name's mark is what an edge of our own adds; an edge without it has sent nothing that is served.
    let marked = wire::connect::encode_stream(&to_service("db.example.test"), Extensions::default());
    let unmarked: Vec<u8> = {
        let mut bytes = marked.to_vec();
        let at = bytes.windows(7).rposition(|part| part == b"service").unwrap();
        bytes[at..at + 7].copy_from_slice(b"unknown");
        bytes
    };
    let answer = crate::quic::ask(&edge, &unmarked).await.unwrap();
    let head = ResponseHead::decode(None, &mut answer.as_slice().into()).unwrap().unwrap();
    assert!(matches!(head, ResponseHead::Failed(_)), "{head:?}");
    assert!(connections.try_recv().is_err());
}
