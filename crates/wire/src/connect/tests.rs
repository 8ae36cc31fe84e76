use super::*;

fn request(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().method(Method::POST).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("is a request").into_parts().0
}

fn sent(kind: Kind, uri: &str, headers: &[(&str, &str)], body: BodyForm, extensions: Extensions) -> RequestHead {
    let bytes = RequestHead::encode(kind, &request(uri, headers), body, extensions);
    let mut buffer = BytesMut::from(&bytes[..]);
    buffer.extend_from_slice(b"body");
    let head = exchange(Head::decode(&mut buffer).expect("is readable").expect("is whole"));
    assert_eq!(&buffer[..], b"body");
    head
}

fn exchange(head: Head) -> RequestHead {
    match head {
        Head::Exchange(head) => head,
        Head::Stream(..) => panic!("{head:?}"),
    }
}

/// A request head with this destination and these metadata entries, as a peer might make it.
fn raw(dest: &str, entries: &[(&str, &[u8])]) -> Result<RequestHead, HeadError> {
    let mut message = Builder::new_default();
    let mut root = message.init_root::<connect_request::Builder<'_>>();
    root.set_dest(dest);
    let mut list = root.init_metadata(entries.len() as u32);
    for (index, (key, value)) in (0..).zip(entries) {
        let mut entry = list.reborrow().get(index);
        entry.set_key(*key);
        entry.set_val(capnp::text::Reader(value));
    }
    let mut buffer = BytesMut::from(&stream::write(&PREAMBLE, &message)[..]);
    Head::decode(&mut buffer).map(|head| exchange(head.expect("is whole")))
}

fn pairs(head: &RequestHead) -> Vec<(&str, &[u8])> {
    head.request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

fn answered(kind: Option<Kind>, bytes: &[u8]) -> Result<ResponseHead, HeadError> {
    ResponseHead::decode(kind, &mut BytesMut::from(bytes)).map(|head| head.expect("is whole"))
}

#[test]
fn requests_lead_back() {
    let head = sent(
        Kind::Http,
        "https://app.example.test:8443/a?b=c",
        &[("host", "other"), ("cookie", "a=1"), ("cookie", "b=2"), ("content-length", "4"), ("cf-proxy-x", "y")],
        BodyForm::Bare,
        Extensions::default(),
    );
    assert_eq!((head.kind, head.body, head.extensions), (Kind::Http, BodyForm::Bare, Extensions::default()));
    assert_eq!(head.request.method(), Method::POST);
    assert_eq!(head.request.uri(), "https://app.example.test:8443/a?b=c");
    let headers = pairs(&head);
    assert_eq!(headers, [("cookie", &b"a=1"[..]), ("cookie", b"b=2"), ("content-length", b"4")]);
}

#[test]
fn the_form_of_the_body_leads_back() {
    for (headers, body) in [
        (&[][..], BodyForm::None),
        (&[("content-length", "0")], BodyForm::None),
        (&[], BodyForm::Bare),
        (&[("content-length", "7")], BodyForm::Bare),
        (&[("transfer-encoding", "gzip, chunked")], BodyForm::Bare),
        (&[], BodyForm::Framed),
        (&[("content-length", "7")], BodyForm::Framed),
    ] {
        let head = sent(Kind::Http, "https://a/", headers, body, Extensions::ALL);
        assert_eq!(head.body, body, "{headers:?}");
        assert_eq!(head.extensions.mark(), Extensions::ALL.mark());
        assert!(!head.request.headers().contains_key(header::TRANSFER_ENCODING));
    }
    assert_eq!(sent(Kind::WebSocket, "https://a/", &[], BodyForm::Bare, Extensions::ALL).body, BodyForm::Bare);
}

#[test]
fn byte_streams_lead_back() {
    let faults = Extensions { faults: true, ..Extensions::default() };
    for (destination, extensions) in [
        (Destination::Address("10.0.0.5:22".parse().expect("is an address")), faults),
        (Destination::Address("[2001:db8::7]:22".parse().expect("is an address")), Extensions::default()),
        (Destination::Service("db.example.test".into()), faults),
        (Destination::Service("db.example.test".into()), Extensions::default()),
    ] {
        let request = StreamRequest { destination, flow: "8a00".into() };
        let mut buffer = BytesMut::from(&encode_stream(&request, extensions)[..]);
        buffer.extend_from_slice(b"SSH-2.0");
        let head = Head::decode(&mut buffer).expect("is readable").expect("is whole");
        let Head::Stream(again, marked) = head else { panic!("{head:?}") };
        assert_eq!((again, marked), (request, extensions));
        assert_eq!(&buffer[..], b"SSH-2.0");
    }
}

#[test]
fn names_are_no_destinations_unless_they_are_marked() {
    let to = |dest: &str, mark: &[u8]| {
        let mut entries = Entries::with_capacity(1);
        entries.push(Entry::plain(Extensions::HEADER, mark));
        Head::decode(&mut BytesMut::from(&encode_request(ConnectionType::Tcp, dest, &entries)[..]))
    };
    for (dest, mark) in
        [("db.example.test:22", &b""[..]), ("db.example.test", b"services"), ("", b""), ("a b", b"service")]
    {
        assert_eq!(to(dest, mark).expect_err(dest), HeadError::Destination);
    }
    assert!(to("db.example.test", b"later,service").is_ok());
}

#[test]
fn where_a_request_goes() {
    let at = |dest: &str, entries: &[(&str, &[u8])]| raw(dest, entries).map(|head| head.request.uri().to_string());
    assert_eq!(at("https://a.test/x?y#z", &[]).as_deref(), Ok("https://a.test/x?y"));
    assert_eq!(at("https://a.test", &[]).as_deref(), Ok("https://a.test/"));
    assert_eq!(at("https://a.test/x", &[("HttpHost", b"b.test:80")]).as_deref(), Ok("https://b.test:80/x"));
    assert_eq!(at("/x", &[("HttpHost", b"b.test")]).as_deref(), Ok("https://b.test/x"));
    assert_eq!(at("/x", &[]).as_deref(), Ok("/x"));
    assert_eq!(at("https://a.test/é x", &[]).as_deref(), Ok("https://a.test/%C3%A9%20x"));
    assert_eq!(at("/%2f/..//x", &[]).as_deref(), Ok("/%2f/..//x"));
    assert_eq!(at("https://a.test/%zz/%?%", &[]).as_deref(), Ok("https://a.test/%zz/%?%"));
    for dest in ["", "https://", "nonsense", "https://a b/", "https://a.test@b.test/"] {
        assert!(matches!(at(dest, &[]), Err(HeadError::Malformed(_))), "{dest:?}: {:?}", at(dest, &[]));
    }
    assert_eq!(at("/", &[("HttpHost", b"a@b")]), Err(HeadError::Malformed("the host")));
    assert_eq!(at("/", &[("HttpHeader:Host", b"c.test")]).as_deref(), Ok("https://c.test/"));
    assert_eq!(at("http://a.test/", &[]).as_deref(), Ok("http://a.test/"));
    let head = raw("*", &[("HttpHost", b"b.test"), ("HttpMethod", b"OPTIONS")]).expect("is readable");
    assert_eq!(
        (head.request.uri().to_string().as_str(), &head.request.headers()["host"]),
        ("*", &HeaderValue::from_static("b.test"))
    );
}

#[test]
fn metadata_by_the_protocols_rules() {
    let head = raw(
        "/",
        &[
            ("xHttpHeader:X-Odd", b"\xff\xfe"),
            ("HttpHeader:Cf-Cloudflared-Proxy-Connection-Upgrade", b"websocket"),
            ("Unknown", b"ignored"),
            ("", b""),
        ],
    )
    .expect("is readable");
    assert_eq!((head.kind, head.request.method()), (Kind::Http, &Method::GET));
    let headers = pairs(&head);
    assert_eq!(headers, [("x-odd", &b"\xff\xfe"[..])]);

    for (key, value, what) in [
        ("HttpHeader", &b""[..], "a header's name"),
        ("HttpHeader:a:b", b"", "a header's name"),
        ("HttpHeader:", b"", "a header's name"),
        ("HttpHeader:a b", b"", "a header's name"),
        ("HttpHeader:X", b"a\r\nb: c", "a header's value"),
        ("HttpHeader:Content-Length", b"-1", "the content length"),
        ("HttpHeader:Content-Length", b"+1", "the content length"),
        ("HttpHeader:Content-Length", b"", "the content length"),
        ("HttpHeader:Content-Length", b"99999999999999999999", "the content length"),
        ("HttpMethod", b"GE T", "the method"),
        ("HttpHost", b"a/b", "the host"),
    ] {
        assert_eq!(raw("/", &[(key, value)]).expect_err(key), HeadError::Malformed(what), "{key}");
    }
    let lengths = |other: &[u8]| raw("/", &[("HttpHeader:Content-Length", b"7"), ("HttpHeader:Content-Length", other)]);
    assert_eq!(lengths(b"8").expect_err("differs"), HeadError::Malformed("the content length"));
    assert_eq!(lengths(b"7").expect("agrees").request.headers().len(), 1);
}

#[test]
fn chunked_beats_a_length() {
    let entries: [(&str, &[u8]); 2] =
        [("HttpHeader:Content-Length", b"7"), ("HttpHeader:Transfer-Encoding", b"Chunked")];
    let head = raw("/", &entries).expect("is readable");
    assert_eq!((head.body, head.request.headers().len()), (BodyForm::Bare, 0));
}

#[test]
fn answers_lead_back() {
    let headers = HeaderMap::from_iter([
        (header::SET_COOKIE, "a=1".parse().unwrap()),
        (header::SET_COOKIE, HeaderValue::from_bytes(b"b=\xff").unwrap()),
        ("cf-int-x".parse().unwrap(), "dropped".parse().unwrap()),
    ]);
    let mut kept = headers.clone();
    kept.remove("cf-int-x");
    for (kind, status, framed) in
        [(Kind::Http, 404, false), (Kind::Http, 200, true), (Kind::WebSocket, 101, false), (Kind::Http, 999, false)]
    {
        let status = StatusCode::from_u16(status).unwrap();
        let head = ResponseHead::Answer { status, headers: kept.clone(), framed };
        assert_eq!(answered(Some(kind), &ResponseHead::encode_answer(status, &headers, framed)), Ok(head));
    }
    let status = StatusCode::EARLY_HINTS;
    let head = ResponseHead::Interim { status, headers: kept };
    assert_eq!(answered(Some(Kind::Http), &ResponseHead::encode_answer(status, &headers, false)), Ok(head));

    let plain = ResponseHead::Answer { status: StatusCode::OK, headers: HeaderMap::new(), framed: false };
    let sent = ResponseHead::encode_connected();
    assert_eq!(answered(None, &sent), Ok(plain));
    assert_eq!(answered(Some(Kind::Http), &sent), Err(HeadError::Malformed("the status")));
}

#[test]
fn only_a_websocket_switches_protocols() {
    let sent = ResponseHead::encode_answer(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new(), false);
    assert_eq!(answered(Some(Kind::Http), &sent), Err(HeadError::Malformed("the status")));
}

#[test]
fn failures_lead_back() {
    let told = OriginError::new(OriginFault::TlsCertificate, "not trusted");
    let silent = OriginError { fault: OriginFault::Unknown, ..told.clone() };
    let read = |extensions| answered(Some(Kind::Http), &ResponseHead::encode_failure(&told, extensions));
    assert_eq!(read(Extensions::ALL), Ok(ResponseHead::Failed(told.clone())));
    assert_eq!(read(Extensions::default()), Ok(ResponseHead::Failed(silent)));

    let wordless = OriginError::new(OriginFault::Closed, "");
    let read = answered(None, &ResponseHead::encode_failure(&wordless, Extensions::ALL));
    assert_eq!(read, Ok(ResponseHead::Failed(OriginError::new(OriginFault::Closed, "closed"))));

    let limited = ResponseHead::FlowLimited("too many".into());
    assert_eq!(answered(None, &ResponseHead::encode_flow_limited("too many")), Ok(limited));
}

#[test]
fn a_head_may_come_in_pieces() {
    let whole = ResponseHead::encode_answer(StatusCode::OK, &HeaderMap::new(), false);
    for cut in 0..whole.len() {
        let mut buffer = BytesMut::from(&whole[..cut]);
        assert_eq!(ResponseHead::decode(Some(Kind::Http), &mut buffer), Ok(None), "{cut}");
        assert_eq!(buffer, whole[..cut]);
    }
}

#[test]
fn what_is_not_a_head_is_refused() {
    assert_eq!(answered(Some(Kind::Http), b"HTTP/1.1"), Err(HeadError::Signature));
    assert_eq!(answered(Some(Kind::Http), b"x"), Err(HeadError::Signature));
    let mut long = BytesMut::from(&PREAMBLE[..]);
    long.extend_from_slice(&[0, 0, 0, 0]);
    long.extend_from_slice(&(MAX_MESSAGE as u32 / 8).to_le_bytes());
    assert!(matches!(Head::decode(&mut long), Err(HeadError::TooLong(_))));

    let many: Vec<(String, &[u8])> =
        (0..=Limits::HEADERS.count).map(|n| (format!("HttpHeader:X{n}"), &b""[..])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(raw("/", &many).expect_err("is too many"), HeadError::HeaderCount(Limits::HEADERS.count));
    assert!(raw("/", &many[1..]).is_ok());
    let value = vec![b'x'; Limits::HEADERS.bytes - "X".len()];
    assert!(raw("/", &[("HttpHeader:X", &value)]).is_ok());
    // A failing assertion would print it whole.
    let refused = raw("/", &[("HttpHeader:XX", &value)]).map(drop).expect_err("is too long");
    assert_eq!(refused, HeadError::HeaderBytes(Limits::HEADERS.bytes));
}

#[test]
fn signatures() {
    assert_eq!(StreamType::peek(b""), Ok(None));
    assert_eq!(StreamType::peek(&DATA_SIGNATURE[..5]), Ok(None));
    assert_eq!(StreamType::peek(&PREAMBLE), Ok(Some(StreamType::Data)));
    assert_eq!(StreamType::peek(&RPC_SIGNATURE), Ok(Some(StreamType::Rpc)));
    assert_eq!(StreamType::peek(&[0x0a, 0xbb]), Err(HeadError::Signature));
}

#[test]
fn the_size_reckoned_is_enough() {
    let parts = request("https://app.example.test/", &[("x-a", "1"), ("user-agent", "test")]);
    let bytes = RequestHead::encode(Kind::Http, &parts, BodyForm::Framed, Extensions::ALL);
    assert_eq!(bytes[PREAMBLE.len()..][..4], [0; 4], "more than one segment");
}
