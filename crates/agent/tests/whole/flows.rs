//! Flows of datagrams to services and to addresses, and byte streams to addresses.

use std::net::SocketAddr;
use std::time::Duration;

use agent::{Event, FlowEvent, FlowOutcome, Protocol};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::broadcast;
use wire::{Destination, ExchangeError, Flow, FlowRequest, OriginFault, StreamRequest};

use crate::edge::Edge;
use crate::{config, event, everything_to, serving, started, within};

const BOTH: [Protocol; 2] = [Protocol::Http2, Protocol::Quic];

/// Rules without a service for anybody, and private networks.
const PRIVATE: &str =
    r#"{"ingress":[{"service":"http_status:404"}],"warp-routing":{"enabled":true,"maxActiveFlows":2}}"#;

async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut heard = [0; 2000];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut heard).await else { continue };
            let _ = socket.send_to(&heard[..length], from).await;
        }
    });
    address
}

fn to(destination: Destination) -> FlowRequest {
    FlowRequest { destination, flow: "192.0.2.1:4711".to_owned(), idle: Some(Duration::from_secs(30)) }
}

fn service() -> FlowRequest {
    to(Destination::Service("app.test".to_owned()))
}

/// Says it until it comes back: datagrams may be lost. What was said before may come back once more.
async fn ask(flow: &mut Flow, payload: &'static [u8]) {
    let comes_back = async |flow: &mut Flow| while flow.recv().await.expect("the flow goes on") != payload {};
    within("the echo", async {
        loop {
            flow.send(Bytes::from_static(payload)).unwrap();
            if tokio::time::timeout(Duration::from_millis(500), comes_back(flow)).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

async fn told(events: &mut broadcast::Receiver<Event>) -> FlowEvent {
    event(events, |event| match event {
        Event::Flow(flow) => Some(*flow),
        _ => None,
    })
    .await
}

fn unsupported<T: std::fmt::Debug>(answer: Result<T, ExchangeError>) {
    match answer {
        Err(ExchangeError::Origin(error)) => assert_ne!(error.fault, OriginFault::Refused),
        other => panic!("it is served: {other:?}"),
    }
}

#[tokio::test]
async fn a_flow_leads_to_the_service_of_its_rule_and_is_told() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let agent = serving(&edge, protocol, &format!("udp://{}", echo().await)).await;
        let mut events = agent.events();
        let connection = edge.connection().await;
        let mut flow = within("the flow", connection.open_flow(&service())).await.unwrap();
        ask(&mut flow, b"hello").await;
        ask(&mut flow, b"").await;
        drop(flow);
        let told = told(&mut events).await;
        assert_eq!((told.service.as_str(), told.flow.as_str(), told.rule), ("app.test", "192.0.2.1:4711", Some(0)));
        assert_eq!(told.outcome, FlowOutcome::Ended);
        assert!(told.received >= 2 && told.sent >= 2, "{told:?}");

        // Datagrams are for no stream, and an address is nobody's business.
        let stream = StreamRequest { destination: Destination::Service("app.test".to_owned()), flow: String::new() };
        unsupported(within("the answer", connection.connect_stream(&stream)).await);
        if protocol == Protocol::Quic {
            let address = to(Destination::Address("127.0.0.1:9".parse().unwrap()));
            unsupported(within("the answer", connection.open_flow(&address)).await);
        }
    }
}

#[tokio::test]
async fn rules_for_other_services_take_no_flow() {
    let edge = Edge::start().await;
    let access = r#""access":{"required":true,"teamName":"team","audTag":["tag"]}"#;
    for document in [everything_to("tcp://127.0.0.1:9", ""), everything_to("udp://127.0.0.1:9", access)] {
        let agent = started(config(&[&edge], &document)).await;
        let connection = edge.connection().await;
        unsupported(within("the answer", connection.open_flow(&service())).await);
        agent.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_told_and_ends_nothing() {
    let edge = Edge::start().await;
    let closed = harness::lasting_address();
    let agent = serving(&edge, Protocol::Quic, &format!("udp://{closed}")).await;
    let mut events = agent.events();
    let mut flow = within("the flow", edge.connection().await.open_flow(&service())).await.unwrap();
    for _ in 0..3 {
        flow.send(Bytes::from_static(b"anybody?")).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(200), flow.recv()).await.is_err(), "it goes on");
    }
    let socket = UdpSocket::bind(closed).await.unwrap();
    let answering = async {
        let mut heard = [0; 100];
        loop {
            let (length, from) = socket.recv_from(&mut heard).await.unwrap();
            socket.send_to(&heard[..length], from).await.unwrap();
        }
    };
    tokio::select! {
        () = ask(&mut flow, b"now?") => {}
        () = answering => {}
    }
    drop(flow);
    assert_eq!(told(&mut events).await.outcome, FlowOutcome::Refused);
}

#[tokio::test]
async fn sessions_of_either_version_lead_to_addresses_if_wanted() {
    for version in ["", "support_datagram_v3_2"] {
        let edge = Edge::start().await;
        let mut settings = config(&[&edge], PRIVATE);
        settings.protocol = Protocol::Quic;
        settings.features = Some(version.to_owned()).into_iter().filter(|version| !version.is_empty()).collect();
        let _agent = started(settings).await;
        let connection = edge.connection().await;
        let address = echo().await;
        let mut flows = Vec::new();
        for _ in 0..2 {
            let request = to(Destination::Address(address));
            let mut flow = within("the flow", connection.open_flow(&request)).await.unwrap();
            ask(&mut flow, b"who?").await;
            flows.push(flow);
        }
        unsupported(within("the answer", connection.open_flow(&to(Destination::Address(address)))).await);
    }
}

#[tokio::test]
async fn an_idle_session_ends_at_both_ends() {
    let edge = Edge::start().await;
    let mut settings = config(&[&edge], PRIVATE);
    settings.protocol = Protocol::Quic;
    let agent = started(settings).await;
    let mut events = agent.events();
    let idle = Some(Duration::from_millis(300));
    let request = FlowRequest { idle, ..to(Destination::Address(echo().await)) };
    let mut flow = within("the flow", edge.connection().await.open_flow(&request)).await.unwrap();
    assert_eq!(within("the end", flow.recv()).await, None);
    assert_eq!(told(&mut events).await.outcome, FlowOutcome::Ended);
}

#[tokio::test]
async fn streams_lead_to_addresses_if_wanted() {
    for protocol in BOTH {
        let edge = Edge::start().await;
        let mut settings = config(&[&edge], PRIVATE);
        settings.protocol = protocol;
        let _agent = started(settings).await;
        let connection = edge.connection().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let destination = Destination::Address(listener.local_addr().unwrap());
        let request = StreamRequest { destination, flow: "f1".to_owned() };
        let mut stream = within("the stream", connection.connect_stream(&request)).await.unwrap();
        let (mut origin, _) = within("the visitor", listener.accept()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        within("it", origin.read_exact(&mut [0; 5])).await.unwrap();
        origin.write_all(b"there").await.unwrap();
        within("it", stream.read_exact(&mut [0; 5])).await.unwrap();
        drop(listener);
        match within("the answer", connection.connect_stream(&request)).await {
            Err(ExchangeError::Origin(error)) => assert_eq!(error.fault, OriginFault::Refused),
            other => panic!("{other:?}"),
        }
    }
}
