//! The bodies of the fuzz targets: every decoder of outside bytes in `wire`, and what must hold of it whatever comes.
//!
//! `cargo +nightly fuzz run <target>` feeds them with the fuzzer; `tests/corpus.rs` of `wire` feeds them with the corpus
//! and its mutations on a stable compiler.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use uuid::Uuid;
use wire::connect::framing::{self, Decoder, Frame};
use wire::connect::{Head, HeadError, RequestHead, ResponseHead, StreamType, encode_stream};
use wire::datagram::{v2, v3};
use wire::header::{self, Limits, ResponseMeta};
use wire::identity::{Credentials, OriginCert, TunnelSecret};
use wire::registration::{Registered, Registration};
use wire::rpc::{Call, Client, ClientEvent, Reply, Role, Server, ServerCall, ServerEvent, UdpSession};
use wire::{Extensions, Kind, StreamRequest};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const ALL: [(&str, Target); 7] = [
    ("rpc_server", rpc_server),
    ("rpc_client", rpc_client),
    ("headers", headers),
    ("connect", connect),
    ("framed", framed),
    ("identity", identity),
    ("datagrams", datagrams),
];

/// The serving end of an RPC stream. The first byte says which end, and how the rest is cut.
pub fn rpc_server(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut server = Server::new(match *first {
        u8::MAX => Role::Sessions,
        first if first & 1 == 0 => Role::Edge,
        _ => Role::Agent,
    });
    let registered = Ok(Registered {
        connection: Uuid::from_u128(1),
        location: "ams1".into(),
        remotely_managed: true,
        origin_ca: None,
    });
    let mut sent = 0;
    let mut over = false;
    for piece in data.chunks(usize::from(first / 2) + 1) {
        server.handle_input(piece);
        loop {
            match server.poll_event() {
                Ok(Some(ServerEvent::Call(question, call))) => {
                    assert!(!over, "a call after the end");
                    let reply = match call {
                        ServerCall::RegisterConnection(registration) => {
                            let texts = [&registration.account_tag, &registration.version, &registration.arch];
                            assert!(texts.iter().all(|text| !text.contains(char::is_control)));
                            Reply::Registered(&registered)
                        }
                        ServerCall::UpdateConfiguration(version, _) => Reply::Configuration(&Ok(version)),
                        ServerCall::UpdateLocalConfiguration(_) => Reply::Exception("no"),
                        ServerCall::RegisterUdpSession(session) => {
                            assert_ne!(session.destination.port(), 0);
                            Reply::UdpSession(Ok(()))
                        }
                        ServerCall::UnregisterUdpSession(_, message) => {
                            assert!(!message.contains(char::is_control));
                            Reply::Done
                        }
                        ServerCall::UnregisterConnection => Reply::Done,
                    };
                    server.reply(question, reply);
                }
                Ok(Some(ServerEvent::Ended(_))) | Err(_) => {
                    assert!(!over, "a second end");
                    over = true;
                }
                Ok(None) => break,
            }
        }
        while let Some(bytes) = server.poll_transmit() {
            sent += bytes.len();
        }
    }
    assert!(sent <= data.len() * 16 + 4096, "{sent} bytes are sent for {} received", data.len());
}

/// The calling end of an RPC stream, with every kind of call under way. The first byte says how the rest is cut.
pub fn rpc_client(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let registration = Registration {
        account_tag: "account".into(),
        secret: TunnelSecret::new(vec![0; 32]),
        tunnel: Uuid::from_u128(2),
        connection_index: 0,
        connector: Uuid::from_u128(3),
        features: vec!["feature".into()],
        version: "0".into(),
        arch: "linux_amd64".into(),
        origin_local_ip: None,
        previous_attempts: 0,
    };
    let session = UdpSession {
        id: Uuid::from_u128(4),
        destination: (Ipv4Addr::LOCALHOST, 53).into(),
        idle: Duration::from_secs(2),
    };
    let mut client = Client::new();
    for call in [
        Call::RegisterConnection(&registration),
        Call::UpdateLocalConfiguration(b"{}"),
        Call::UpdateConfiguration(1, b"{}"),
        Call::RegisterUdpSession(&session),
        Call::UnregisterUdpSession(session.id, "idle"),
        Call::UnregisterConnection,
    ] {
        client.call(call).expect("a fresh stream takes some calls");
    }
    let (mut answers, mut over) = (0, false);
    for piece in data.chunks(usize::from(*first) + 1) {
        client.handle_input(piece);
        loop {
            match client.poll_event() {
                Ok(Some(ClientEvent::Answer(..))) => answers += 1,
                Ok(Some(ClientEvent::Ended(_))) | Err(_) => {
                    assert!(!over, "a second end");
                    over = true;
                }
                Ok(None) => break,
            }
        }
        while client.poll_transmit().is_some() {}
    }
    assert!(answers <= 6, "{answers} answers to 6 calls");
    client.shutdown();
}

/// The serialized header set and the meta header.
pub fn headers(data: &[u8]) {
    if let Ok(headers) = header::deserialize(data, Limits::HEADERS) {
        assert_presentable(&headers);
        let again = header::deserialize(header::serialize(&headers).as_bytes(), Limits::HEADERS);
        assert_eq!(again, Ok(headers));
    }
    if let Ok(meta) = ResponseMeta::parse(data) {
        assert_eq!(ResponseMeta::parse(meta.to_value(Extensions::ALL).as_bytes()), Ok(meta));
    }
}

/// What a data stream over QUIC begins with, in both directions.
pub fn connect(data: &[u8]) {
    // Signatures cannot be guessed, so the rest also goes in behind a right one.
    let mut signed = b"\x0a\x36\xcd\x12\xa1\x3e01".to_vec();
    signed.extend_from_slice(data);
    for input in [data, &signed] {
        let _ = StreamType::peek(input);
        let mut buffer = BytesMut::from(input);
        if let Ok(Some(head)) = Head::decode(&mut buffer) {
            assert!(input.ends_with(&buffer), "what is left is the end of what came");
            match head {
                Head::Exchange(head) => check_request(head),
                Head::Stream(request, extensions) => check_stream(&request, extensions),
            }
        }
        for kind in [Some(Kind::Http), Some(Kind::WebSocket), None] {
            let mut buffer = BytesMut::from(input);
            if let Ok(Some(head)) = ResponseHead::decode(kind, &mut buffer) {
                assert!(input.ends_with(&buffer), "what is left is the end of what came");
                check_response(kind, head);
            }
        }
    }
}

fn check_request(head: RequestHead) {
    let RequestHead { kind, request, extensions, body } = head;
    assert_presentable(request.headers());
    let (parts, ()) = request.into_parts();
    let sent = RequestHead::encode(kind, &parts, body, extensions);
    match Head::decode(&mut BytesMut::from(&sent[..])) {
        // Written out, with what was left out before, it may just be too much.
        Err(HeadError::HeaderBytes(_) | HeadError::HeaderCount(_) | HeadError::TooLong(_)) => {}
        Ok(Some(Head::Exchange(again))) => {
            assert_eq!((again.kind, again.extensions.mark(), again.body), (kind, extensions.mark(), body));
            assert_eq!(again.request.method(), parts.method);
            assert_eq!(again.request.uri(), &parts.uri);
            assert_eq!(again.request.headers(), &parts.headers);
        }
        other => panic!("{parts:?} is not understood: {other:?}"),
    }
}

fn check_stream(request: &StreamRequest, extensions: Extensions) {
    assert!(!request.flow.contains(char::is_control));
    let sent = encode_stream(request, extensions);
    match Head::decode(&mut BytesMut::from(&sent[..])) {
        Ok(Some(Head::Stream(again, marked))) => {
            assert_eq!(again.destination, request.destination);
            // The mark of a stream holds no more than those that change an answer.
            assert_eq!(marked.mark(), extensions.mark());
        }
        other => panic!("{request:?} is not understood: {other:?}"),
    }
}

fn check_response(kind: Option<Kind>, head: ResponseHead) {
    let sent = match &head {
        ResponseHead::Interim { status, headers } => {
            assert_presentable(headers);
            ResponseHead::encode_answer(*status, headers, false)
        }
        ResponseHead::Answer { status, headers, framed } => {
            assert_presentable(headers);
            match kind {
                Some(_) => ResponseHead::encode_answer(*status, headers, *framed),
                None => ResponseHead::encode_connected(),
            }
        }
        ResponseHead::Failed(error) => ResponseHead::encode_failure(error, Extensions::ALL),
        ResponseHead::FlowLimited(text) => ResponseHead::encode_flow_limited(text),
    };
    match ResponseHead::decode(kind, &mut BytesMut::from(&sent[..])) {
        Err(HeadError::HeaderBytes(_) | HeadError::HeaderCount(_) | HeadError::TooLong(_)) => {}
        again => assert_eq!(again, Ok(Some(head))),
    }
}

/// A framed body. The first byte says how the rest is cut, which must not matter.
pub fn framed(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let whole = read_framed(data, data.len().max(1));
    assert_eq!(read_framed(data, usize::from(*first) + 1), whole);
    if let (body, Some(trailers), true) = whole {
        let mut again = framing::data_head(u32::try_from(body.len()).expect("is no longer than the input")).to_vec();
        again.extend_from_slice(&body);
        again.extend_from_slice(&framing::end(trailers.as_ref()));
        assert_eq!(read_framed(&again, again.len()), (body, Some(trailers), true));
    }
}

/// The body, its end if it came, and whether all was well.
fn read_framed(data: &[u8], size: usize) -> (Vec<u8>, Option<Option<HeaderMap>>, bool) {
    let (mut decoder, mut body, mut end) = (Decoder::default(), Vec::new(), None);
    for piece in data.chunks(size) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Frame::Data(bytes))) => {
                    assert!(!bytes.is_empty() && end.is_none());
                    body.extend_from_slice(&bytes);
                }
                Ok(Some(Frame::End(trailers))) => {
                    trailers.iter().for_each(assert_presentable);
                    end = Some(trailers);
                }
                Ok(None) => break,
                Err(_) => return (body, end, false),
            }
        }
        assert!(input.is_empty(), "the decoder asks for more but leaves some");
    }
    assert_eq!(decoder.is_finished(), end.is_some());
    (body, end, true)
}

/// Datagrams of both versions.
pub fn datagrams(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    if let Ok(datagram) = v2::Datagram::decode(data.clone()) {
        assert_eq!(datagram.encode(), data, "nothing is added or lost");
    }
    if let Ok(datagram) = v3::Datagram::decode(data.clone()) {
        let again = datagram.encode();
        assert!(again.len() <= data.len(), "{datagram:?} has grown");
        // A mapped address is told as the IPv4 address that it is, and what nobody asked for is left out.
        assert_eq!(v3::Datagram::decode(again), Ok(datagram));
    }
}

/// Tokens, credentials files and `cert.pem`.
pub fn identity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(credentials) = Credentials::from_token(&text) {
        assert_eq!(Credentials::from_token(&credentials.to_token()), Ok(credentials));
    }
    if let Ok(credentials) = Credentials::from_json(data) {
        assert_eq!(Credentials::from_json(credentials.to_json().as_bytes()), Ok(credentials));
    }
    if let Ok(cert) = OriginCert::parse(data) {
        assert_eq!(OriginCert::parse(cert.to_pem().as_bytes()), Ok(cert));
    }
}

/// Nothing in a header may end it, and no protocol header may come from outside.
fn assert_presentable(headers: &HeaderMap) {
    assert!(headers.len() <= Limits::HEADERS.count);
    for (name, value) in headers {
        assert!(!header::is_reserved(name), "{name} is the protocol's own");
        let control = value.as_bytes().iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        assert!(!control, "{name}: {value:?} holds a control character");
    }
}
