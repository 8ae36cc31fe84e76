//! The test vectors of the protocol page (section 20), which were recorded from a reference agent: what it sends is
//! understood, and what is sent here has the very bytes that it sends and understands.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use uuid::Uuid;
use wire::connect::{BodyForm, Head, RequestHead, ResponseHead, StreamType, encode_stream};
use wire::datagram::{DatagramError, v2, v3};
use wire::identity::TunnelSecret;
use wire::registration::{BASE_FEATURES, Registered, Registration};
use wire::rpc::{
    Answer, Call, Client, ClientEvent, Reply, Role, SHUTDOWN, Server, ServerCall, ServerEvent, UdpSession,
};
use wire::{Destination, Extensions, Kind, OriginError, OriginFault};

/// The bytes of a vector.
fn vector(name: &str) -> Vec<u8> {
    let block = include_str!("vectors.txt")
        .split("\n\n")
        .find(|block| block.split_whitespace().next() == Some(name))
        .unwrap_or_else(|| panic!("there is no vector {name}"));
    let hex: String = block.lines().skip(1).collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("is hex")).collect()
}

/// A vector about question 1 made one about question 0. The id is the first word of every message's own struct.
fn about_question_0(name: &str) -> Vec<u8> {
    const QUESTION: usize = 8 + 3 * 8;
    let mut bytes = vector(name);
    assert_eq!(bytes[QUESTION], 1);
    bytes[QUESTION] = 0;
    bytes
}

fn registration() -> Registration {
    Registration {
        account_tag: "acc0123456789abcdef".into(),
        secret: TunnelSecret::new((0..32).collect()),
        tunnel: uuid("11111111-2222-4333-8444-555555555555"),
        connection_index: 0,
        connector: uuid("1efd11b3-a34d-440c-9afc-4d6408a6cd9b"),
        features: BASE_FEATURES.map(String::from).into(),
        version: "DEV".into(),
        arch: "linux_amd64".into(),
        origin_local_ip: Some(Ipv4Addr::LOCALHOST.into()),
        previous_attempts: 0,
    }
}

fn registered() -> Registered {
    Registered {
        connection: uuid("4094b3fa-2d9c-420d-82b7-a6eb4e82c3ca"),
        location: "lab01".into(),
        remotely_managed: false,
        origin_ca: None,
    }
}

fn uuid(text: &str) -> Uuid {
    text.parse().expect("is a UUID")
}

#[track_caller]
fn assert_sends(sent: Option<Bytes>, name: &str) {
    let sent = sent.unwrap_or_else(|| panic!("nothing is sent instead of {name}"));
    assert_eq!(sent, vector(name), "{name}");
}

#[test]
fn an_agent_says_what_the_reference_says() {
    let mut client = Client::new();
    let question = client.call(Call::RegisterConnection(&registration())).expect("is a fresh stream");
    assert_sends(client.poll_transmit(), "bootstrap");
    assert_sends(client.poll_transmit(), "register_call");
    assert_eq!(client.poll_transmit(), None, "it waits for the answer");

    client.handle_input(&vector("bootstrap_return"));
    assert_eq!(client.poll_event(), Ok(None));
    assert_eq!(client.poll_transmit(), Some(about_question_0("finish").into()));
    client.handle_input(&vector("register_return"));
    let answer = ClientEvent::Answer(question, Ok(Answer::Registered(Ok(registered()))));
    assert_eq!(client.poll_event(), Ok(Some(answer)));
    assert_sends(client.poll_transmit(), "finish");

    let question = client.call(Call::UnregisterConnection).expect("is open");
    assert_sends(client.poll_transmit(), "unregister_call");
    client.handle_input(&vector("unregister_return"));
    assert_eq!(client.poll_event(), Ok(Some(ClientEvent::Answer(question, Ok(Answer::Done)))));
    assert_sends(client.poll_transmit(), "finish");

    client.shutdown();
    assert_sends(client.poll_transmit(), "release");
    // The reference's schema has an exception without the later field `trace`, so its bytes differ.
    let abort = client.poll_transmit().expect("the other end is told");
    let mut server = Server::new(Role::Edge);
    server.handle_input(&abort);
    assert_eq!(server.poll_event(), Ok(Some(ServerEvent::Ended(SHUTDOWN.into()))));
    assert_eq!(client.poll_transmit(), None);
}

#[test]
fn an_edge_answers_what_the_reference_asks() {
    let mut server = Server::new(Role::Edge);
    server.handle_input(&vector("bootstrap"));
    server.handle_input(&vector("register_call"));
    let Ok(Some(ServerEvent::Call(question, call))) = server.poll_event() else { panic!("there is no call") };
    assert_eq!(call, ServerCall::RegisterConnection(Box::new(registration())));
    assert_sends(server.poll_transmit(), "bootstrap_return");
    server.reply(question, Reply::Registered(&Ok(registered())));
    assert_sends(server.poll_transmit(), "register_return");

    server.handle_input(&about_question_0("finish"));
    server.handle_input(&vector("finish"));
    server.handle_input(&vector("unregister_call"));
    let Ok(Some(ServerEvent::Call(question, ServerCall::UnregisterConnection))) = server.poll_event() else {
        panic!("there is no call")
    };
    server.reply(question, Reply::Done);
    assert_sends(server.poll_transmit(), "unregister_return");

    for name in ["finish", "release", "abort"] {
        server.handle_input(&vector(name));
    }
    assert_eq!(server.poll_event(), Ok(Some(ServerEvent::Ended(SHUTDOWN.into()))));
    assert_eq!(server.poll_transmit(), None);
}

#[test]
fn the_conversation_is_the_same_byte_by_byte() {
    let mut server = Server::new(Role::Edge);
    let input: Vec<u8> = ["bootstrap", "register_call"].iter().flat_map(|name| vector(name)).collect();
    let (last, rest) = input.split_last().expect("is not empty");
    for byte in rest {
        server.handle_input(&[*byte]);
        assert_eq!(server.poll_event(), Ok(None));
    }
    server.handle_input(&[*last]);
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Call(..)))));
}

fn udp_session() -> UdpSession {
    UdpSession {
        id: uuid("b33e63ce-bb61-4998-86ef-940e3eb74eb7"),
        destination: "127.0.0.1:17999".parse().expect("is an address"),
        idle: Duration::from_secs(2),
    }
}

#[test]
fn an_edge_registers_a_udp_session() {
    let session = udp_session();
    let mut client = Client::new();
    // The vector is a call on the imported capability, so something was called before.
    client.call(Call::UnregisterUdpSession(Uuid::nil(), "")).expect("is a fresh stream");
    assert_sends(client.poll_transmit(), "bootstrap");
    client.poll_transmit().expect("the first call");
    client.handle_input(&vector("bootstrap_return"));
    assert_eq!(client.poll_event(), Ok(None));
    assert_eq!(client.poll_transmit().as_deref(), Some(&about_question_0("finish")[..]));
    let question = client.call(Call::RegisterUdpSession(&session)).expect("the capability is there");
    assert_sends(client.poll_transmit(), "udp_call");
    client.handle_input(&vector("udp_return"));
    assert_eq!(client.poll_event(), Ok(Some(ClientEvent::Answer(question, Ok(Answer::UdpSession(Ok(())))))));
}

#[test]
fn an_agent_takes_udp_sessions() {
    let mut server = Server::new(Role::Agent);
    for bytes in [vector("bootstrap"), about_question_0("finish"), vector("udp_call")] {
        server.handle_input(&bytes);
    }
    let Ok(Some(ServerEvent::Call(question, call))) = server.poll_event() else { panic!("no call") };
    assert_eq!(call, ServerCall::RegisterUdpSession(udp_session()));
    assert_sends(server.poll_transmit(), "bootstrap_return");
    server.reply(question, Reply::UdpSession(Ok(())));
    assert_sends(server.poll_transmit(), "udp_return");
}

#[test]
fn datagrams_of_version_2() {
    let session = udp_session().id;
    for (name, datagram) in [
        ("datagram_v2", v2::Datagram::Payload(session, Bytes::from_static(b"dgram2"))),
        ("datagram_v2_icmp", v2::Datagram::Packet(vector("datagram_v3_icmp").split_off(1).into())),
    ] {
        assert_eq!(v2::Datagram::decode(vector(name).into()), Ok(datagram.clone()));
        assert_eq!(datagram.encode(), vector(name));
    }
    let traced = v2::Datagram::TracedPacket(Bytes::from_static(b"packet"), [7; 25]);
    assert_eq!(v2::Datagram::decode(traced.encode()), Ok(traced));
    for (bytes, error) in [
        (&b""[..], DatagramError::TooShort),
        (&[0; 16], DatagramError::TooShort),
        (&[2; 25], DatagramError::TooShort),
        (b"x\x04", DatagramError::Unknown(4)),
    ] {
        assert_eq!(v2::Datagram::decode(Bytes::copy_from_slice(bytes)), Err(error), "{bytes:?}");
    }
}

#[test]
fn datagrams_of_version_3() {
    let session = Uuid::from_bytes(*b"0123456789abcdef");
    let registration = |destination: &str, bundled: Option<&'static [u8]>| {
        v3::Datagram::Registration(v3::Registration {
            session,
            destination: destination.parse().expect("is an address"),
            idle: Duration::from_secs(210),
            traced: false,
            bundled: bundled.map(Bytes::from_static),
        })
    };
    let response = |code| v3::Datagram::Response(v3::Response { session, code, text: Bytes::new() });
    for (name, datagram) in [
        ("datagram_v3_register", registration("192.0.2.7:53", None)),
        ("datagram_v3_register_bundled", registration("[2001:db8::7]:53", Some(b"hi"))),
        ("datagram_v3_payload", v3::Datagram::Payload(session, Bytes::from_static(b"dgram3"))),
        ("datagram_v3_ready", response(v3::Code::Ready)),
        ("datagram_v3_too_many", response(v3::Code::TooMany)),
        ("datagram_v3_icmp", v3::Datagram::Packet(vector("datagram_v3_icmp").split_off(1).into())),
    ] {
        assert_eq!(v3::Datagram::decode(vector(name).into()), Ok(datagram.clone()), "{name}");
        assert_eq!(datagram.encode(), vector(name), "{name}");
        let whole = vector(name);
        // Each has a fixed part, without any byte of which it is refused.
        let fixed = match datagram {
            v3::Datagram::Registration(_) if whole.len() > 30 => 38,
            v3::Datagram::Registration(_) => 26,
            v3::Datagram::Payload(..) => 17,
            v3::Datagram::Packet(_) => 1,
            v3::Datagram::Response(_) => 20,
        };
        for length in 0..fixed {
            let cut = Bytes::copy_from_slice(&whole[..length]);
            assert_eq!(v3::Datagram::decode(cut), Err(DatagramError::TooShort), "{name} cut to {length}");
        }
    }
    assert_eq!(v3::Datagram::decode(Bytes::from_static(b"\x04")), Err(DatagramError::Unknown(4)));
}

#[test]
fn connect_requests() {
    let bytes = vector("connect_http");
    assert_eq!(StreamType::peek(&bytes), Ok(Some(StreamType::Data)));
    let head = Head::decode(&mut BytesMut::from(&bytes[..])).expect("is readable").expect("is whole");
    let Head::Exchange(head) = head else { panic!("{head:?}") };
    assert_eq!((head.kind, head.body, head.extensions), (Kind::Http, BodyForm::None, Extensions::default()));
    assert_eq!(head.request.method(), Method::GET);
    assert_eq!(head.request.uri(), "https://app.example.test/echo?a=1");
    assert_eq!(head.request.headers().len(), 1);
    assert_eq!(head.request.headers()["cf-ray"], "8a00-LAB");
    let (parts, ()) = head.request.into_parts();
    assert_eq!(RequestHead::encode(Kind::Http, &parts, BodyForm::None, Extensions::default()), bytes);

    let bytes = vector("connect_tcp");
    let head = Head::decode(&mut BytesMut::from(&bytes[..])).expect("is readable").expect("is whole");
    let Head::Stream(request, extensions) = head else { panic!("{head:?}") };
    assert_eq!(request.destination, Destination::Address("10.0.0.5:22".parse().expect("is an address")));
    assert_eq!((request.flow.as_str(), extensions), ("f1", Extensions::default()));
    assert_eq!(encode_stream(&request, extensions), bytes);
}

#[test]
fn connect_responses() {
    let read = |kind, name| ResponseHead::decode(kind, &mut BytesMut::from(&vector(name)[..]));
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    let answer =
        |headers: &HeaderMap| ResponseHead::Answer { status: StatusCode::OK, headers: headers.clone(), framed: false };
    assert_eq!(read(Some(Kind::Http), "answer_http"), Ok(Some(answer(&headers))));
    assert_eq!(ResponseHead::encode_answer(StatusCode::OK, &headers, false), vector("answer_http"));
    assert_eq!(read(None, "answer_plain"), Ok(Some(answer(&HeaderMap::new()))));
    assert_eq!(ResponseHead::encode_connected(), vector("answer_plain"));
    let error = OriginError::new(OriginFault::Unknown, "boom");
    assert_eq!(read(Some(Kind::Http), "answer_error"), Ok(Some(ResponseHead::Failed(error.clone()))));
    assert_eq!(ResponseHead::encode_failure(&error, Extensions::default()), vector("answer_error"));
}
