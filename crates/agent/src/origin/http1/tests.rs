use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request};
use wire::Body;

use super::coding::{BadBody, Outgoing, Part, Rest};
use super::head::{self, BadHead, Head, Then};

fn decoded(head: &str, method: &Method) -> Result<Head, BadHead> {
    let bytes = Bytes::copy_from_slice(head.as_bytes());
    let end = head::end(&bytes, 0).unwrap();
    assert_eq!(end, bytes.len(), "{head:?}");
    head::decode(&bytes, method)
}

fn with(fields: &str) -> Result<Head, BadHead> {
    decoded(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), &Method::GET)
}

#[test]
fn a_head_ends_at_its_first_empty_line_however_it_comes() {
    for (text, end) in [
        ("HTTP/1.1 200 OK\r\n\r\nbody\r\n\r\n", Some(19)),
        ("HTTP/1.1 200 OK\nA: b\n\nbody", Some(22)),
        ("HTTP/1.1 200 OK\n\r\nbody", Some(18)),
        ("\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n", Some(29)),
        ("\n\n\nHTTP/1.1 200 OK\r\n\r\n", Some(22)),
        ("\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", None),
        ("", None),
    ] {
        assert_eq!(head::end(text.as_bytes(), 0), end, "{text:?}");
        // Whatever was searched before.
        for first in 0..text.len() {
            if head::end(&text.as_bytes()[..first], 0).is_none() {
                assert_eq!(head::end(text.as_bytes(), first), end, "{text:?} after {first}");
            }
        }
    }
}

#[test]
fn an_answers_framing_is_read_in_one_way() {
    let framing = |fields: &str| with(fields).map(|head| (head.then, head.keeps));
    let length = |length| Then::Body(Rest::Length(length));
    assert_eq!(framing("Content-Length: 5\r\n"), Ok((length(5), true)));
    assert_eq!(framing("Content-Length: 5\r\ncontent-length: 5\r\n"), Ok((length(5), true)));
    assert_eq!(framing("Content-Length: 5\r\nConnection: x, Close\r\n"), Ok((length(5), false)));
    assert_eq!(framing("Connection: close\r\nConnection: keep-alive\r\nContent-Length: 5\r\n"), Ok((length(5), false)));
    assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Ok((Then::Body(Rest::chunks()), true)));
    assert_eq!(framing("Transfer-Encoding: chunked, gzip\r\n"), Ok((Then::Body(Rest::UntilEnd), false)));
    assert_eq!(framing(""), Ok((Then::Body(Rest::UntilEnd), false)));
    for lengths in ["5, 5", "+5", "-5", "0x5", "", "18446744073709551616", "5\r\nContent-Length: 6"] {
        assert_eq!(framing(&format!("Content-Length: {lengths}\r\n")), Err(BadHead::Length), "{lengths}");
    }
    // Both: the length does not go on, and the connection serves nobody else.
    let both = with("Content-Length: 7\r\nTransfer-Encoding: chunked\r\n").unwrap();
    assert_eq!((both.then, both.keeps), (Then::Body(Rest::chunks()), false));
    assert!(!both.headers.contains_key("content-length"));
    let old = |fields: &str| decoded(&format!("HTTP/1.0 200 OK\r\n{fields}\r\n"), &Method::GET);
    assert_eq!(old("Transfer-Encoding: chunked\r\n").err(), Some(BadHead::Encoding));
    assert!(!old("Content-Length: 5\r\n").unwrap().keeps);
    assert!(old("Content-Length: 5\r\nConnection: keep-alive\r\n").unwrap().keeps);
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
    let fields = "Content-Length: 5\r\n\r\n";
    let then = |status: &str, method| decoded(&format!("HTTP/1.1 {status}\r\n{fields}"), &method).unwrap().then;
    for status in ["204 No Content", "304 Not Modified"] {
        assert_eq!(then(status, Method::GET), Then::Body(Rest::Length(0)));
    }
    assert_eq!(then("200 OK", Method::HEAD), Then::Body(Rest::Length(0)));
    assert_eq!(then("103 Early Hints", Method::GET), Then::Head);
    assert_eq!(then("101 Switching Protocols", Method::GET), Then::Switch);
}

#[test]
fn what_is_no_answer_is_refused() {
    for fields in ["A : b\r\n", "A\r\n", "A: b\x07\r\n", "A: b\rc\r\n", "A\0: b\r\n", "\x7f: b\r\n", "A: \x7f\r\n"] {
        assert!(with(fields).is_err(), "{fields:?}");
    }
    let many = "A: b\r\n".repeat(head::MAX_FIELDS + 1);
    assert_eq!(with(&many).err(), Some(BadHead::Grammar(httparse::Error::TooManyHeaders)));
    for line in ["HTTP/2.0 200 OK", "ICY 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 000 OK", "hello"] {
        assert!(decoded(&format!("{line}\r\n\r\n"), &Method::GET).is_err(), "{line}");
    }
    assert!(head::check(b"220 mail.example ESMTP").is_err(), "before its end");
    assert!(head::check(b"\r\nHTTP/1.1 20").is_ok());
    assert_eq!(with("A: b\r\n c\r\n\td\r\nContent-Length: 0\r\n").unwrap().headers["a"], "b   c  \td");
}

fn encoded(request: Request<Body>) -> (String, Outgoing) {
    let mut out = Vec::new();
    let outgoing = head::encode(&mut out, &request, request.body());
    (String::from_utf8(out).unwrap(), outgoing)
}

fn unknown() -> Body {
    let endless = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
    Body::wrap(http_body_util::StreamBody::new(endless))
}

#[test]
fn a_request_goes_out_with_one_framing() {
    let get = Request::get("/a?b").header("x-some-name", "c").header("cookie", "d").body(Body::empty()).unwrap();
    let (text, outgoing) = encoded(get);
    assert_eq!(text, "GET /a?b HTTP/1.1\r\nX-Some-Name: c\r\nCookie: d\r\n\r\n");
    assert_eq!(outgoing, Outgoing::Length(0));
    let post = |body| encoded(Request::post("/").body(body).unwrap());
    assert_eq!(post(Body::full("hello")).0, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n");
    let (text, outgoing) = post(unknown());
    assert_eq!((text.as_str(), outgoing), ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Outgoing::Chunks));
    assert_eq!(encoded(Request::get("/").body(unknown()).unwrap()).1, Outgoing::Nothing);
    let (text, outgoing) = encoded(Request::put("/").header("content-length", "9").body(unknown()).unwrap());
    assert_eq!((text.as_str(), outgoing), ("PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Outgoing::Length(9)));
}

/// Reads a body that comes in pieces of this size.
fn read(mut rest: Rest, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, HeaderMap, usize), BadBody> {
    let (mut body, mut trailers, mut left) = (Vec::new(), HeaderMap::new(), bytes.len());
    let mut input = BytesMut::new();
    for piece in bytes.chunks(piece) {
        input.extend_from_slice(piece);
        let mut here = input.split().freeze();
        loop {
            match rest.take(&mut here)? {
                Part::Data(data) => body.extend_from_slice(&data),
                Part::Trailers(fields) => trailers = fields,
                Part::Missing => break,
                Part::End => return Ok((body, trailers, left - piece.len() + here.len())),
            }
        }
        left -= piece.len();
        assert!(here.is_empty(), "what cannot be read waits nowhere");
    }
    rest.end().map(|()| (body, trailers, 0))
}

#[test]
fn bodies_are_read_however_they_come() {
    let chunks = b"5\r\nhello\r\n00A;ext=1\r\n, world...\r\n0\r\nX-Sum: 15\r\n\r\nnext";
    for piece in 1..=chunks.len() {
        let (body, trailers, left) = read(Rest::chunks(), chunks, piece).unwrap();
        assert_eq!((body.as_slice(), left), (b"hello, world...".as_slice(), 4), "{piece}");
        assert_eq!(trailers["x-sum"], HeaderValue::from_static("15"));
        let (body, _, left) = read(Rest::Length(5), b"hellonext", piece).unwrap();
        assert_eq!((body.as_slice(), left), (b"hello".as_slice(), 4));
    }
    assert_eq!(read(Rest::UntilEnd, b"hello", 2).unwrap().0, b"hello");
    let mut whole = Rest::chunks();
    assert!(matches!(whole.take(&mut Bytes::from_static(b"2\r\nhi\r\n0\r\n\r\n")), Ok(Part::Data(_))));
    assert!(whole.is_over(), "the last data is known to be the last");
}

#[test]
fn bodies_that_are_not_framed_break_off() {
    for (text, error) in [
        ("0x2\r\nhi\r\n0\r\n\r\n", BadBody::Size),
        ("\r\nhi", BadBody::Size),
        ("g\r\n", BadBody::Size),
        ("2\nhi", BadBody::Size),
        ("10000000000000002\r\nhi", BadBody::Size),
        ("2\r\nhi!!0\r\n\r\n", BadBody::Chunk),
        ("2\r\nhi\r\n0\r\nA : b\r\n\r\n", BadBody::Trailers),
        ("2\r\nhi\r\n0\r\nA: b\n\nHTTP/1.1 200 OK\r\n\r\n", BadBody::Trailers),
        ("2;a\nb\r\nhi\r\n", BadBody::Extensions),
        ("2\r\nhi\r\n", BadBody::Short),
        ("2\r\nhi\r\n0\r\n", BadBody::Short),
    ] {
        for piece in 1..=text.len() {
            assert_eq!(read(Rest::chunks(), text.as_bytes(), piece), Err(error), "{text:?} by {piece}");
        }
    }
    let long = |part: &str, many: usize| [part.repeat(many), String::new()].concat();
    let extensions = format!("2;{}", long("x", 20_000));
    assert_eq!(read(Rest::chunks(), extensions.as_bytes(), 1000), Err(BadBody::Extensions));
    let trailers = format!("0\r\n{}", long("X-More: x\r\n", 2000));
    assert_eq!(read(Rest::chunks(), trailers.as_bytes(), 1000), Err(BadBody::Trailers));
    assert_eq!(read(Rest::Length(9), b"hi", 2), Err(BadBody::Short));
}

#[test]
fn whatever_comes_is_read_to_an_end_or_refused() {
    let heads =
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\n";
    let chunks = b"5\r\nhello\r\n00A;ext=1\r\n, world...\r\n0\r\nX-Sum: 15\r\n\r\n";
    let mut state: u64 = 7;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % limit.max(1)
    };
    for _ in 0..20_000 {
        let mut inputs = [heads.to_vec(), chunks.to_vec()];
        for input in &mut inputs {
            for _ in 0..=below(4) {
                let at = below(input.len());
                match below(3) {
                    0 => input.truncate(at),
                    1 => input.insert(at, u8::try_from(below(256)).unwrap()),
                    _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
                }
            }
        }
        let [heads, chunks] = inputs.map(Bytes::from);
        let mut rest = heads;
        while let Some(end) = head::end(&rest, 0) {
            assert!(0 < end && end <= rest.len());
            if head::decode(&rest.split_to(end), &Method::GET).is_err() {
                break;
            }
        }
        if let Ok((body, ..)) = read(Rest::chunks(), &chunks, 1 + below(50)) {
            assert!(body.len() <= chunks.len());
        }
    }
}
