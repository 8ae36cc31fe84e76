//! The same over HTTP/2 and HTTP/3, frame by frame: what HTTP/1.1 behind the edge would read as an end of line, a second
//! request or another length.

use std::net::Ipv4Addr;
use std::sync::Arc;

use harness::{Agent, Edge, LIMIT};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::framing::{Fate, Judge};
use crate::strict::Strict;
use Fate::{Cut, OneThing, Refused, Seen};

type Fields = &'static [(&'static str, &'static str)];

/// `~` is the number of the attack, `%` the host. Without a pseudo-header among the fields they are those of a GET, or of
/// a POST if there is a body. Each piece of the body is a frame.
struct Attack {
    name: &'static str,
    fields: Fields,
    body: &'static [&'static str],
    trailers: Fields,
    fate: Fate,
}

const fn attack(name: &'static str, fields: Fields, fate: Fate) -> Attack {
    Attack { name, fields, body: &[], trailers: &[], fate }
}

const fn upload(name: &'static str, fields: Fields, body: &'static [&'static str], fate: Fate) -> Attack {
    Attack { name, fields, body, trailers: &[], fate }
}

const fn trailed(name: &'static str, trailers: Fields, fate: Fate) -> Attack {
    Attack { name, fields: &[], body: &["hi"], trailers, fate }
}

const GET: (&str, &str) = (":method", "GET");
const HTTPS: (&str, &str) = (":scheme", "https");
const HOST: (&str, &str) = (":authority", "%");
const PATH: (&str, &str) = (":path", "/~/a");

const HONEST: Fate = Seen(&["GET /~/a"]);

const ATTACKS: &[Attack] = &[
    attack("honest", &[("x", "y")], HONEST),
    upload("honest upload", &[("content-length", "5")], &["he", "llo"], Seen(&["POST /~/a hello"])),
    upload("an empty piece", &[("content-length", "5")], &["he", "", "llo"], Seen(&["POST /~/a hello"])),
    trailed("honest trailers", &[("x", "y")], Seen(&["POST /~/a hi"])),
    // Fields of a connection (RFC 9113 section 8.2.2).
    attack("transfer-encoding", &[("transfer-encoding", "chunked")], Refused),
    attack("connection", &[("connection", "x-private")], Refused),
    attack("keep-alive", &[("keep-alive", "timeout=5")], Refused),
    attack("proxy-connection", &[("proxy-connection", "keep-alive")], Refused),
    attack("upgrade", &[("upgrade", "h2c")], Refused),
    upload(
        "transfer-encoding with a body",
        &[("transfer-encoding", "chunked")],
        &["0\r\n\r\nGET /~/b HTTP/1.1\r\n\r\n"],
        Refused,
    ),
    // Values that end a line.
    attack("CR LF in a value", &[("x", "y\r\nhost: other")], Refused),
    attack("CR LF CR LF in a value", &[("x", "y\r\n\r\nGET /~/b HTTP/1.1\r\nhost: %\r\n\r\n")], Refused),
    attack("LF in a value", &[("x", "y\nz: a")], Refused),
    attack("CR in a value", &[("x", "y\rz: a")], Refused),
    attack("NUL in a value", &[("x", "y\0z")], Refused),
    attack("bell in a value", &[("x", "y\x07z")], Refused),
    attack("DEL in a value", &[("x", "y\x7fz")], Refused),
    // Names that do.
    attack("CR LF in a name", &[("x: y\r\nz", "a")], Refused),
    attack("LF in a name", &[("x\nz", "a")], Refused),
    attack("colon in a name", &[("transfer-encoding: chunked", "a")], Refused),
    attack("space in a name", &[("x y", "a")], Refused),
    attack("capital in a name", &[("Transfer-Encoding", "chunked")], Refused),
    attack("capital in an honest name", &[("X", "y")], Refused),
    attack("NUL in a name", &[("x\0", "a")], Refused),
    attack("empty name", &[("", "a")], Refused),
    attack("a letter beyond ASCII in a name", &[("x\u{e9}", "a")], Refused),
    // Pseudo-headers.
    attack("space in the path", &[GET, HTTPS, HOST, (":path", "/~/a HTTP/1.1")], Refused),
    attack("CR LF in the path", &[GET, HTTPS, HOST, (":path", "/~/a HTTP/1.1\r\nx: y")], Refused),
    attack("tab in the path", &[GET, HTTPS, HOST, (":path", "/~/a\tb")], Refused),
    attack("NUL in the path", &[GET, HTTPS, HOST, (":path", "/~/a\0")], Refused),
    attack("DEL in the path", &[GET, HTTPS, HOST, (":path", "/~/a\x7f")], Refused),
    attack("path without a slash", &[GET, HTTPS, HOST, (":path", "~/a")], Refused),
    attack("path is absolute", &[GET, HTTPS, HOST, (":path", "http://other.localhost/~/a")], Refused),
    attack("path is empty", &[GET, HTTPS, HOST, (":path", ""), ("x", "~/a")], Refused),
    attack("path is a star", &[GET, HTTPS, HOST, (":path", "*"), ("x", "~/a")], Refused),
    attack("path twice", &[GET, HTTPS, HOST, PATH, (":path", "/~/b")], Refused),
    attack("no path", &[GET, HTTPS, HOST, ("x", "~/a")], Refused),
    attack("no method", &[HTTPS, HOST, PATH], Refused),
    attack("method twice", &[GET, (":method", "POST"), HTTPS, HOST, PATH], Refused),
    attack(
        "space in the method",
        &[(":method", "GET /~/b HTTP/1.1\r\nhost: %\r\n\r\nGET"), HTTPS, HOST, PATH],
        Refused,
    ),
    attack("method is empty", &[(":method", ""), HTTPS, HOST, PATH], Refused),
    attack("scheme with a line", &[GET, (":scheme", "https\r\nx: y"), HOST, PATH], Refused),
    attack("scheme is a URL", &[GET, (":scheme", "https://other.localhost/?"), HOST, PATH], Refused),
    attack("authority with a line", &[GET, HTTPS, (":authority", "%\r\nx: y"), PATH], Refused),
    attack("authority with a user", &[GET, HTTPS, (":authority", "x@%"), PATH], Refused),
    attack("authority with a path", &[GET, HTTPS, (":authority", "%/x"), PATH], Refused),
    attack("authority is empty", &[GET, HTTPS, (":authority", ""), PATH], Refused),
    attack("authority twice", &[GET, HTTPS, HOST, (":authority", "other.localhost"), PATH], Refused),
    attack("authority and another host", &[GET, HTTPS, HOST, PATH, ("host", "other.localhost")], Refused),
    attack("host twice", &[GET, HTTPS, HOST, PATH, ("host", "%"), ("host", "%")], Refused),
    attack("neither authority nor host", &[GET, HTTPS, PATH], Refused),
    attack("host alone", &[GET, HTTPS, PATH, ("host", "%")], HONEST),
    attack("a status", &[GET, HTTPS, HOST, PATH, (":status", "200")], Refused),
    attack("an unknown pseudo-header", &[GET, HTTPS, HOST, PATH, (":x", "y")], Refused),
    attack("a pseudo-header too late", &[GET, HTTPS, HOST, ("x", "y"), PATH], Refused),
    attack("CONNECT", &[(":method", "CONNECT"), HOST, ("x", "/~/a")], Refused),
    attack("CONNECT with a path", &[(":method", "CONNECT"), HTTPS, HOST, PATH], Refused),
    attack(
        "CONNECT for another protocol",
        &[(":method", "CONNECT"), (":protocol", "connect-udp"), HTTPS, HOST, PATH],
        Refused,
    ),
    attack("a protocol without CONNECT", &[GET, (":protocol", "websocket"), HTTPS, HOST, PATH], Refused),
    attack("TRACE", &[(":method", "TRACE"), HTTPS, HOST, PATH], Refused),
    // Lengths.
    upload("shorter than announced", &[("content-length", "9")], &["hello"], Cut),
    upload("longer than announced", &[("content-length", "3")], &["hello"], Cut),
    upload(
        "longer in a second frame",
        &[("content-length", "5")],
        &["hello", "GET /~/b HTTP/1.1\r\nhost: %\r\n\r\n"],
        // What was announced may have been answered before the rest comes.
        OneThing("POST /~/a hello"),
    ),
    upload("announced as nothing", &[("content-length", "0")], &["GET /~/b HTTP/1.1\r\nhost: %\r\n\r\n"], Cut),
    attack("announced, and there is none", &[("content-length", "5")], Cut),
    upload("length twice", &[("content-length", "5"), ("content-length", "5")], &["hello"], Refused),
    upload("length twice, different", &[("content-length", "5"), ("content-length", "0")], &["hello"], Refused),
    upload("length with plus", &[("content-length", "+5")], &["hello"], Refused),
    upload("length is a list", &[("content-length", "5, 5")], &["hello"], Refused),
    upload("length beyond 64 bits", &[("content-length", "18446744073709551621")], &["hello"], Refused),
    upload(
        "length in disguise",
        &[("content_length", "50"), ("transfer_encoding", "chunked")],
        &["hello"],
        Seen(&["POST /~/a hello"]),
    ),
    // Trailers.
    trailed("trailers that frame", &[("content-length", "50"), ("host", "other")], Seen(&["POST /~/a hi"])),
    trailed("transfer-encoding as a trailer", &[("transfer-encoding", "chunked")], OneThing("POST /~/a hi")),
    trailed("CR LF in a trailer", &[("x", "y\r\n\r\nGET /~/b HTTP/1.1")], Cut),
    trailed("a pseudo-header as a trailer", &[(":path", "/~/b")], OneThing("POST /~/a hi")),
];

/// Each letter is one byte.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|letter| letter as u8).collect()
}

impl Attack {
    /// The fields of the header in full.
    fn header(&self, fill: &impl Fn(&str) -> String) -> Vec<(Vec<u8>, Vec<u8>)> {
        let method = if self.body.is_empty() { GET } else { (":method", "POST") };
        let usual = [method, HTTPS, HOST, PATH];
        let own = self.fields.iter().any(|(name, _)| name.starts_with(':'));
        let usual = if own { &[][..] } else { &usual[..] };
        filled(usual.iter().chain(self.fields), fill)
    }
}

fn filled<'a>(
    fields: impl IntoIterator<Item = &'a (&'static str, &'static str)>,
    fill: &impl Fn(&str) -> String,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.into_iter().map(|(name, value)| (bytes(&fill(name)), bytes(&fill(value)))).collect()
}

/// An integer behind a prefix of so many bits (RFC 7541 section 5.1).
fn prefixed(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let limit = (1 << bits) - 1;
    if value < limit {
        return out.push(first | u8::try_from(value).unwrap());
    }
    out.push(first | u8::try_from(limit).unwrap());
    let mut rest = value - limit;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// Literal fields, never indexed and without Huffman coding (RFC 7541 section 6.2.2).
fn hpack(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            prefixed(&mut block, 0, 7, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// The same for HTTP/3 (RFC 9204 section 4.5.6).
fn qpack(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in fields {
        prefixed(&mut block, 0x20, 3, name.len());
        block.extend_from_slice(name);
        prefixed(&mut block, 0, 7, value.len());
        block.extend_from_slice(value);
    }
    block
}

fn http2_frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = u32::from(kind != 4).to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// Sends it as the first request of a connection, and tells whether it was answered with 200.
async fn over_http2(edge: &Edge, attack: &Attack, fill: &impl Fn(&str) -> String) -> String {
    let (no_body, no_trailers) = (attack.body.is_empty(), attack.trailers.is_empty());
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(http2_frame(4, 0, &[]));
    sent.extend(http2_frame(1, 4 | u8::from(no_body), &hpack(&attack.header(fill))));
    for (number, piece) in attack.body.iter().enumerate() {
        let last = number + 1 == attack.body.len() && no_trailers;
        sent.extend(http2_frame(0, u8::from(last), &bytes(&fill(piece))));
    }
    if !no_trailers {
        sent.extend(http2_frame(1, 5, &hpack(&filled(attack.trailers, fill))));
    }
    let mut stream = TcpStream::connect(edge.http()).await.unwrap();
    let _ = stream.write_all(&sent).await;
    let mut answered = "";
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return format!("{answered} closed");
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        let _ = stream.read_exact(&mut payload).await;
        match (head[3], head[4]) {
            // The whole field `:status: 200` of the static table.
            (1, _) if payload.first() == Some(&0x88) => answered = "200",
            (3, _) => return format!("{answered} reset {payload:?}"),
            (7, _) => return format!("{answered} goaway {payload:?}"),
            _ => (),
        }
        if matches!(head[3], 0 | 1) && head[4] & 1 != 0 {
            return if answered.is_empty() { "another status".to_owned() } else { answered.to_owned() };
        }
    }
}

fn http3_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    // The length in its form of four bytes (RFC 9000 section 16).
    let length = (u32::try_from(payload.len()).unwrap() | 0x8000_0000).to_be_bytes();
    [&[kind], &length[..], payload].concat()
}

/// A QUIC connection as visitors make it.
async fn dial(edge: &Edge, name: &str) -> (quinn::Endpoint, quinn::Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(edge.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(config, edge.https(), name).unwrap().await.unwrap();
    (endpoint, connection)
}

/// Sends it as the only request of a connection, and tells whether it was answered with 200.
async fn over_http3(edge: &Edge, name: &str, attack: &Attack, fill: &impl Fn(&str) -> String) -> String {
    let (_endpoint, connection) = dial(edge, name).await;
    let mut control = connection.open_uni().await.unwrap();
    // The stream's type, and settings that are empty.
    control.write_all(&[0, 4, 0]).await.unwrap();
    let (mut sending, mut receiving) = connection.open_bi().await.unwrap();
    let mut sent = http3_frame(1, &qpack(&attack.header(fill)));
    for piece in attack.body {
        sent.extend(http3_frame(0, &bytes(&fill(piece))));
    }
    if !attack.trailers.is_empty() {
        sent.extend(http3_frame(1, &qpack(&filled(attack.trailers, fill))));
    }
    // The edge may have closed it in the middle.
    let _ = sending.write_all(&sent).await;
    let _ = sending.finish();
    match receiving.read_to_end(1 << 20).await {
        // HEADERS, a length of one or two bytes, an empty prefix, `:status: 200` of the static table.
        Ok(answer) if answer[..8.min(answer.len())].windows(3).any(|bytes| bytes == [0, 0, 0xd9]) => "200".to_owned(),
        Ok(answer) if answer.is_empty() => "nothing".to_owned(),
        Ok(_) => "another status".to_owned(),
        Err(error) => format!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_refused_or_mean_one_thing() {
    let origin = Strict::start().await;
    let edge = Edge::start().await;
    let mut judge = Judge::default();
    for transport in ["http2", "quic"] {
        let mut agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
        let host = agent.host();
        for (number, attack) in ATTACKS.iter().enumerate() {
            for version in [2, 3] {
                let tag = format!("{transport}-{version}-{number}");
                let fill = |text: &str| text.replace('~', &tag).replace('%', &host);
                let asking = async {
                    match version {
                        2 => over_http2(&edge, attack, &fill).await,
                        _ => over_http3(&edge, &host, attack, &fill).await,
                    }
                };
                let answer = tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| "silence".to_owned());
                let fits = match attack.fate {
                    Refused | Cut => !answer.starts_with("200") && answer != "silence",
                    Seen(_) => answer == "200",
                    OneThing(_) => answer != "silence",
                };
                let name = format!("{} over HTTP/{version}", attack.name);
                if !fits {
                    judge.problem(format!("{name}: the visitor gets {answer}"));
                }
                judge.expect(name, attack.fate, &tag, fill);
            }
        }
        agent.process.terminate().await;
    }
    judge.judge(&origin.seen().await);
}
