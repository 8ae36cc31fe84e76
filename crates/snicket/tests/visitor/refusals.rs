//! What a visitor is told when there is no answer of the origin: status, page and code, whatever way the request took.

use harness::{Edge, FullListener, Identity, Origin, RawOrigin};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::{Rig, Ruled, TRANSPORTS, Way, rule};
use crate::visit::{Answer, Over, full, get};

/// Checks that an answer is this refusal in JSON, tagged with its ray, and that `snicket explain` knows it.
pub(crate) async fn assert_refused(edge: &Edge, answer: &Answer, status: u16, code: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    let page: Value =
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{what}: {error}: {answer:?}"));
    assert_eq!((&page["status"], &page["code"]), (&status.into(), &code.into()), "{what}: {page}");
    assert_eq!(page["ray"].as_str(), Some(answer.header("cf-ray")), "{what}: {page}");
    assert!(answer.header("cf-ray").len() > 10, "{what}: {answer:?}");
    for text in ["title", "what", "why", "todo"] {
        assert!(page[text].as_str().is_some_and(|text| text.len() > 10), "{what}: {page}");
    }
    let (exit, out, error) = edge.command(&["explain", &code.to_string(), "--json"]).await;
    assert_eq!(exit, 0, "{what}: {error}");
    let known: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((&known["status"], &known["todo"]), (&page["status"], &page["todo"]), "{what}");
}

/// Asks for pages that programs read.
pub(crate) const JSON: (&str, &[u8]) = ("accept", b"application/json");

/// A port where nobody listens, and nobody else will while this is kept.
fn closed_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_an_origin_has_its_own_status() {
    let ruled = Ruled::start().await;
    let edge = &ruled.edge;
    let busy = FullListener::start().await;
    let closed = closed_port();
    let hangs_up = RawOrigin::start(async |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 4096]).await;
    });
    let talks_nonsense = RawOrigin::start(async |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\nmore\r\n\r\n").await;
    });
    let talks_much = RawOrigin::start(async |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-many: 1\r\n".repeat(10_000));
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let (hangs_up, talks_nonsense, talks_much) = (hangs_up.await, talks_nonsense.await, talks_much.await);
    let (plain, secure) = (Origin::start().await, Origin::start_secure(&Identity::new(&["localhost"])).await);
    let cases = [
        ("refused", format!("http://{}", closed.local_addr().unwrap()), 521, 521),
        ("full", format!("http://{}", busy.address()), 522, 522),
        ("nowhere", "http://no-such-name.invalid:80".to_owned(), 523, 523),
        ("plain", format!("https://{}", plain.address()), 525, 525),
        ("untrusted", secure.service(), 526, 526),
        ("closing", hangs_up.service(), 502, 1052),
        ("nonsense", talks_nonsense.service(), 502, 1053),
        ("much", talks_much.service(), 502, 1053),
        ("other", "http_status:101".to_owned(), 502, 1056),
    ];
    let rules: String = cases.iter().map(|(name, service, ..)| rule(name, service, "")).collect();
    let config = format!("originRequest:\n  connectTimeout: 1s\ningress:\n{rules}  - service: http_status:418\n");
    for transport in TRANSPORTS {
        let mut agent = ruled.agent(transport, &config).await;
        for over in Over::ALL {
            for (name, _, status, code) in &cases {
                let what = format!("{name} over {over:?} through {transport}");
                let answer = get(edge, over, &format!("{name}.localhost"), "/", &[JSON]).await;
                assert_refused(edge, &answer, *status, *code, &what).await;
            }
        }
        agent.process.terminate().await;
    }
    let answer = get(edge, Over::Two, "refused.localhost", "/", &[JSON]).await;
    assert_refused(edge, &answer, 530, 1033, "no agent is left").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_comes_in_the_form_that_is_asked_for() {
    let edge = Edge::start().await;
    for over in Over::ALL {
        let answer = get(&edge, over, "nobody.localhost", "/", &[JSON]).await;
        assert_refused(&edge, &answer, 530, 1016, &format!("{over:?}")).await;
        for (accept, kind, part) in [
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8", "<!doctype html>"),
            ("application/json", "application/json", "\"code\": 1016"),
            ("text/plain", "text/plain; charset=utf-8", "code 1016"),
            ("*/*", "text/plain; charset=utf-8", "code 1016"),
        ] {
            let answer = get(&edge, over, "nobody.localhost", "/", &[("accept", accept.as_bytes())]).await;
            assert_eq!((answer.status, answer.header("content-type")), (530, kind), "{over:?} {accept}");
            let (text, ray) = (answer.text(), answer.header("cf-ray"));
            assert!(text.contains(part) && text.contains(ray) && text.contains("1016"), "{over:?} {accept}: {text}");
            assert_eq!(answer.header("cache-control"), "no-store", "{over:?} {accept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_whose_agent_has_stopped_is_530() {
    let origin = Origin::start().await;
    let mut rig = Rig::start(&origin.service()).await;
    for agent in &mut rig.agents {
        agent.process.terminate().await;
    }
    for way in rig.ways_over(&[Over::One, Over::Three]) {
        let answer = way.request("GET", "/", &[JSON], "").await;
        assert_refused(way.edge, &answer, 530, 1033, &way.to_string()).await;
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_agent_dies_is_502_and_is_not_repeated() {
    let origin = Origin::start().await;
    let mut rig = Rig::start(&origin.service()).await;
    let mut waiting = Vec::new();
    for way in rig.ways() {
        waiting.push((way.to_string(), way.open("POST", "/hang", &[JSON], full("once")).await));
    }
    origin.wait_for_hanging(waiting.len()).await;
    for agent in &mut rig.agents {
        agent.process.kill().await;
    }
    let seen = origin.requests();
    for (way, exchange) in waiting {
        let answer = exchange.answer().await.unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_refused(&rig.edge, &answer, 502, 1054, &way).await;
    }
    assert_eq!(origin.requests(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_does_not_begin_to_answer_is_524() {
    let origin = Origin::start().await;
    let rig = Rig::start_with(&["--response-timeout", "300ms"], &origin.service()).await;
    let mut readers = Vec::new();
    for way in rig.ways() {
        let answer = way.request("GET", "/hang", &[JSON], "").await;
        assert_refused(way.edge, &answer, 524, 524, &way.to_string()).await;
        origin.wait_for_hanging(0).await;
        // Once it has begun it may take as long as it likes.
        let mut reader = way.open("GET", "/events", &[], full("")).await;
        assert_eq!(reader.head().await.unwrap().1, 200, "{way}");
        let another = way.request("GET", "/hang", &[JSON], "").await;
        assert_eq!(another.status, 524, "{way}");
        readers.push((way.to_string(), reader));
    }
    origin.push(readers.len(), "later").await;
    for (way, reader) in &mut readers {
        assert_eq!(reader.piece().await, "data: later\n\n", "{way}");
    }
}

/// Sends bytes as they are without TLS, and reads until the edge closes.
pub(crate) async fn raw(edge: &Edge, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(edge.http()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends the answer as well.
    let _ = tokio::time::timeout(harness::LIMIT, stream.read_to_end(&mut answer)).await.expect("the edge closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_400_and_reach_no_origin() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for agent in &rig.agents {
        let host = agent.host();
        let with =
            |head: &str, rest: &str| format!("{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{rest}\r\n");
        let malformed: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(),
            b"GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n".to_vec(),
            b"GET / HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n".to_vec(),
            with("GET /", &format!("host: {host}\r\n")).into_bytes(),
            with("GET /", "host: other.localhost\r\n").into_bytes(),
            with("GET http://other.localhost/", "").into_bytes(),
            with("GET", "").into_bytes(),
            with("GET /a b", "").into_bytes(),
            with("GET /\u{1}", "").into_bytes(),
            with("G(T /", "").into_bytes(),
            with("GET /", "na me: x\r\n").into_bytes(),
            with("GET /", "name : x\r\n").into_bytes(),
            with("GET /", ": x\r\n").into_bytes(),
            with("GET /", "no colon\r\n").into_bytes(),
            with("GET /", "x: a\r\n folded\r\n").into_bytes(),
            with("GET /", "x: a\0b\r\n").into_bytes(),
            with("GET /", "x: a\rb\r\n").into_bytes(),
            with("POST /", "content-length: +5\r\n").into_bytes(),
            with("POST /", "content-length: 5, 6\r\n").into_bytes(),
            with("POST /", "content-length: 5\r\ncontent-length: 6\r\n").into_bytes(),
            with("POST /", "content-length: 99999999999999999999\r\n").into_bytes(),
            with("POST /", "transfer-encoding: xchunked\r\n").into_bytes(),
            with("POST /", "transfer-encoding: chunked, identity\r\n").into_bytes(),
            format!("GET / HTTP/9.9\r\nhost: {host}\r\n\r\n").into_bytes(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            b"hello\r\n\r\n".to_vec(),
        ];
        for request in malformed {
            let answer = raw(&rig.edge, &request).await;
            let request = String::from_utf8_lossy(&request).into_owned();
            assert!(
                answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
                "{request:?}: {answer:?}"
            );
        }
        assert_eq!(raw(&rig.edge, with("CONNECT x:80", "").as_bytes()).await.get(..12), Some("HTTP/1.1 501"));
        assert_eq!(
            raw(&rig.edge, with("GET /", "expect: miracles\r\n").as_bytes()).await.get(..12),
            Some("HTTP/1.1 417")
        );
        let address = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", rig.edge.http());
        assert_eq!(raw(&rig.edge, address.as_bytes()).await.get(..12), Some("HTTP/1.1 403"));
    }
    assert_eq!(origin.requests(), 0);
    for way in rig.ways() {
        assert_eq!(way.get("/").await.status, 200, "{way}: others are not disturbed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_its_framing_is_never_whole_at_the_origin() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for agent in &rig.agents {
        let head = format!("POST /hang HTTP/1.1\r\nhost: {}\r\n", agent.host());
        for body in [
            "transfer-encoding: chunked\r\n\r\n4\r\ndata\r\nzz\r\n",
            "transfer-encoding: chunked\r\n\r\n4\r\ndata--",
            "transfer-encoding: chunked\r\n\r\n-4\r\ndata\r\n0\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\ndata",
        ] {
            let answer = raw(&rig.edge, format!("{head}{body}").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
            // A whole body would leave it hanging.
            origin.wait_for_hanging(0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_count_where_a_length_contradicts_them() {
    let origin = crate::script::Recorder::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let rig = Rig::start(&origin.service()).await;
    for agent in &rig.agents {
        for fields in
            ["content-length: 99\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 99"]
        {
            let head = format!("POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{fields}\r\n\r\n", agent.host());
            let answer = raw(&rig.edge, format!("{head}4\r\ndata\r\n0\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{fields}: {answer}");
            let seen = origin.seen().await;
            assert!(seen.values("content-length").is_empty(), "{fields}: {}", seen.text());
            assert_eq!(seen.body, b"4\r\ndata\r\n0\r\n\r\n", "{fields}");
        }
    }
    assert!(origin.saw_no_more().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_up_to_the_limits_pass_and_beyond_are_refused() {
    let origin = crate::script::Recorder::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways() {
        let names: Vec<String> = (0..130).map(|number| format!("x-field-{number}")).collect();
        let fields = |count: usize| names[..count].iter().map(|name| (name.as_str(), &b"1"[..])).collect::<Vec<_>>();
        assert_eq!(status(&way, "/", &fields(120)).await, 200, "{way}: 120 fields");
        let seen = origin.seen().await;
        assert!(names[..120].iter().all(|name| seen.values(name) == ["1"]), "{way}: {}", seen.text());
        assert_eq!(status(&way, "/", &fields(130)).await, 431, "{way}: 130 fields");

        let value = vec![b'v'; 60_000];
        assert_eq!(status(&way, "/", &[("x-large", &value)]).await, 200, "{way}: 60 kB");
        assert_eq!(origin.seen().await.values("x-large")[0].len(), value.len(), "{way}");
        // Over HTTP/3 a visitor is told the limit and does not send more.
        if way.over != Over::Three {
            assert_eq!(status(&way, "/", &[("x-large", &vec![b'v'; 70_000])]).await, 431, "{way}: 70 kB");
        }

        let path = format!("/{}", "p".repeat(16_000));
        assert_eq!(status(&way, &path, &[]).await, 200, "{way}: a path of 16,000 bytes");
        assert_eq!(origin.seen().await.line(), format!("GET {path} HTTP/1.1"), "{way}");
        assert_eq!(status(&way, &format!("/{}", "p".repeat(17_000)), &[]).await, 414, "{way}: 17,000 bytes");
        assert!(origin.saw_no_more().await, "{way}");
    }
}

async fn status(way: &Way<'_>, path: &str, headers: &[(&str, &[u8])]) -> u16 {
    way.request("GET", path, headers, "").await.status
}
