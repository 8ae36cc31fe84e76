//! Visitors and agents that attack: each ends alone, its reason is counted, and no origin sees anything of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use certs::tls;
use edge::{Limits, Rate};
use quinn::crypto::rustls::QuicClientConfig;
use registry::ConfigSource;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use wire::Transport;

use crate::node::{AMPLE, Agent, BOTH, Node, PATIENCE, eventually};
use crate::origin::Origin;
use crate::visitor::{Way, get};

const SHORT: Duration = Duration::from_millis(300);
const FEW: Rate = Rate { burst: 20, per_second: 1 };

// Kinds of frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

// Reasons (section 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A node with these limits, and a tunnel.
struct Besieged {
    node: Node,
    origin: Arc<Origin>,
    _agent: Agent,
}

impl Besieged {
    async fn with(limits: Limits) -> Self {
        let node = Node::with(limits).await;
        let origin = Origin::new();
        let tunnel = node.tunnel("app", ConfigSource::Local).await;
        let agent = node.agent(&tunnel, BOTH[0]).connect(&origin).await.unwrap();
        Self { node, origin, _agent: agent }
    }

    /// The counter of this reason.
    async fn count(&self, reason: &str) -> u64 {
        let metrics = self.node.metrics().await;
        let line = format!("snicket_edge_defences_total{{reason=\"{reason}\"}} ");
        let value = metrics.lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("no {line} in {metrics}")).parse().unwrap()
    }

    /// Sends these frames on a connection of HTTP/2, and answers what the edge sent until it closed.
    async fn attack(&self, frames: impl AsRef<[u8]>) -> Vec<Frame> {
        let tcp = TcpStream::connect(self.node.addresses().http).await.unwrap();
        let (mut reader, mut writer) = tcp.into_split();
        let attack = [PREFACE, frames.as_ref()].concat();
        let sending = tokio::spawn(async move {
            // The edge may hang up in the middle.
            let _ = writer.write_all(&attack).await;
            writer
        });
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut answer)).await;
        // A reset ends it as well.
        let _ = read.expect("the edge keeps the connection");
        sending.abort();
        Frame::all(&answer)
    }

    /// Everybody else is served as before.
    async fn still_stands(&self) {
        for way in [Way::Http1, Way::Http2, Way::Http3] {
            assert_eq!(self.node.visit(way, get("/hello")).await.status, 200, "{way:?}");
        }
    }
}

/// The preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header of a request, without the field that ends it.
fn header(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    let host = b"app.edge.test";
    block.extend([0x01, u8::try_from(host.len()).unwrap()]);
    block.extend(host);
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

#[derive(Debug)]
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = bytes {
            let length = (u32::from_be_bytes([0, *high, *middle, *low]) as usize).min(rest.len());
            frames.push(Self { kind: *kind, payload: rest[..length].to_vec() });
            bytes = &rest[length..];
        }
        frames
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The reason of the last GOAWAY, if it has got through.
fn goodbye(frames: &[Frame]) -> Option<u32> {
    frames.iter().rev().find(|frame| frame.kind == GOAWAY).map(|frame| frame.number(4))
}

/// A flood makes the kernel throw the last words away when it resets the connection; where they arrive, they are these.
#[track_caller]
fn ends_with(frames: &[Frame], reason: u32) {
    assert!(goodbye(frames).is_none_or(|found| found == reason), "{frames:?}");
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once() {
    let edge = Besieged::with(Limits { resets: FEW, ..Limits::default() }).await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        let stream = 2 * number + 1;
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &header(GET, "/never")));
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    let since = Instant::now();
    ends_with(&edge.attack(flood).await, ENHANCE_YOUR_CALM);
    assert_eq!(edge.count("resets").await, 1);
    let most = u64::from(FEW.burst) + u64::from(FEW.per_second) * since.elapsed().as_secs() + 1;
    assert!(edge.origin.count() as u64 <= most, "{} and not {most}", edge.origin.count());
    edge.still_stands().await;
}

/// The same so slowly that each request has reached the origin before it is taken back.
#[tokio::test]
async fn requests_that_are_taken_back_one_by_one() {
    let edge = Besieged::with(Limits { resets: FEW, ..Limits::default() }).await;
    let mut tcp = TcpStream::connect(edge.node.addresses().http).await.unwrap();
    tcp.write_all(PREFACE).await.unwrap();
    let is_ended = async || edge.count("resets").await == 1;
    // More than the burst when it takes longer than a second.
    let taking_back = async {
        for number in 0.. {
            let stream = 2 * number + 1;
            let before = edge.origin.count();
            let asked = frame(HEADERS, END_STREAM | END_HEADERS, stream, &header(GET, "/never"));
            // The edge may have hung up.
            let _ = tcp.write_all(&asked).await;
            eventually("the origin is asked", async || edge.origin.count() > before || is_ended().await).await;
            if is_ended().await {
                break;
            }
            let _ = tcp.write_all(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).await;
        }
    };
    tokio::time::timeout(PATIENCE, taking_back).await.expect("it goes on for ever");
    assert!(edge.origin.count() > FEW.burst as usize, "{}", edge.origin.count());
    edge.origin.given_up(edge.origin.count()).await;
    edge.still_stands().await;
}

#[tokio::test]
async fn frames_that_carry_nothing() {
    let floods = [
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings with a value", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])),
        ("unknown frames", frame(0xfa, 0, 0, b"anything")),
    ];
    for (what, one) in floods {
        let edge = Besieged::with(Limits { idle_frames: FEW, ..Limits::default() }).await;
        ends_with(&edge.attack(one.repeat(5000)).await, ENHANCE_YOUR_CALM);
        assert_eq!(edge.count("idle_frames").await, 1, "{what}");
        assert_eq!(edge.origin.count(), 0, "{what}");
        edge.still_stands().await;
    }
}

#[tokio::test]
async fn an_upload_of_nothing() {
    let edge = Besieged::with(Limits { idle_frames: FEW, ..Limits::default() }).await;
    let mut flood = frame(HEADERS, END_HEADERS, 1, &header(POST, "/echo"));
    flood.extend(frame(DATA, 0, 1, &[]).repeat(1000));
    ends_with(&edge.attack(flood).await, ENHANCE_YOUR_CALM);
    assert_eq!(edge.count("idle_frames").await, 1);
    edge.still_stands().await;
}

#[tokio::test]
async fn a_header_without_end() {
    let edge = Besieged::with(Limits::default()).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &header(GET, "/hello"));
    // A field each, or nothing at all.
    for piece in [&[0, 1, b'x', 1, b'y'][..], &[]] {
        flood.extend(frame(CONTINUATION, 0, 1, piece).repeat(50_000));
        ends_with(&edge.attack(&flood).await, ENHANCE_YOUR_CALM);
    }
    assert_eq!(edge.count("header_bomb").await, 2);
    assert_eq!(edge.origin.count(), 0);
    edge.still_stands().await;
}

/// A field of four thousand bytes in the table, and one byte for each time that it is meant: 64 MB in one frame.
#[tokio::test]
async fn a_header_that_grows_when_it_is_unpacked() {
    let edge = Besieged::with(Limits::default()).await;
    let mut block = header(GET, "/hello");
    let value = [b'v'; 4000];
    // The length 4000 with a prefix of seven bits (RFC 7541 section 5.1).
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend(value);
    block.extend([0xbe; 12_000]);
    let frames = edge.attack(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
    ends_with(&frames, ENHANCE_YOUR_CALM);
    assert_eq!(edge.count("header_bomb").await, 1);
    assert_eq!(edge.origin.count(), 0);
    edge.still_stands().await;
}

/// Small in sum, so that only their number is too much.
#[tokio::test]
async fn a_header_of_very_many_fields() {
    let edge = Besieged::with(Limits { idle: AMPLE, ..Limits::default() }).await;
    let mut block = header(GET, "/hello");
    block.extend([0x40, 1, b'x', 0]);
    block.extend([0xbe; 1000]);
    let frames = edge.attack(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
    let refusal = frames.iter().find(|frame| frame.kind == HEADERS).expect("it is answered");
    // A literal of `:status`, which no table has: 431.
    assert!(refusal.payload.windows(3).any(|bytes| bytes == b"431") || !refusal.payload.contains(&0x88), "{refusal:?}");
    assert_eq!(edge.origin.count(), 0);
    assert!(edge.node.metrics().await.contains("snicket_edge_refusals_total{code=\"431\"} 1"));
}

#[tokio::test]
async fn streams_that_the_edge_is_made_to_reset() {
    let edge = Besieged::with(Limits::default()).await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        let stream = 2 * number + 1;
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &header(GET, "/never")));
        // No room is no update (RFC 9113 section 6.9).
        flood.extend(frame(WINDOW_UPDATE, 0, stream, &[0; 4]));
    }
    let frames = edge.attack(flood).await;
    assert!(goodbye(&frames).is_none_or(|reason| [ENHANCE_YOUR_CALM, PROTOCOL_ERROR].contains(&reason)));
    assert_eq!(edge.count("made_reset").await, 1);
    assert!(edge.origin.count() <= 65, "{}", edge.origin.count());
    edge.still_stands().await;
}

#[tokio::test]
async fn windows_that_cannot_be() {
    let edge = Besieged::with(Limits::default()).await;
    let most = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    ends_with(&edge.attack(most).await, FLOW_CONTROL_ERROR);
    let too_large = frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]);
    edge.attack(too_large).await;
    let mut overrun = frame(HEADERS, END_HEADERS, 1, &header(POST, "/never"));
    overrun.extend(frame(DATA, 0, 1, &[0; 16_384]).repeat(200));
    edge.attack(overrun).await;
    assert_eq!(edge.count("http2_malformed").await, 3);
    edge.still_stands().await;
}

/// No attack: what comes on a stream whose exchange has ended keeps the connection from being idle.
#[tokio::test]
async fn an_upload_behind_its_answer() {
    const IDLE: Duration = Duration::from_secs(5);
    const PIECES: usize = 12;
    let edge = Besieged::with(Limits { idle: IDLE, ..Limits::default() }).await;
    let mut tcp = TcpStream::connect(edge.node.addresses().http).await.unwrap();
    let asked = frame(HEADERS, END_HEADERS, 1, &header(POST, "/reads-on"));
    tcp.write_all(&[PREFACE, &asked].concat()).await.unwrap();
    // Longer than an idle connection would be kept and, once it was told to leave, awaited.
    let mut pace = tokio::time::interval(IDLE / 5);
    for _ in 0..PIECES {
        pace.tick().await;
        tcp.write_all(&frame(DATA, 0, 1, b"x")).await.unwrap();
    }
    eventually("all of it arrives", async || edge.origin.pieces.load(Ordering::SeqCst) == PIECES).await;
    let idle = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut Vec::new())).await;
    assert!(idle.is_ok(), "and then it is closed");
}

#[tokio::test]
async fn an_answer_that_nobody_takes() {
    let edge = Besieged::with(Limits { stall: SHORT, idle: AMPLE, ..Limits::default() }).await;
    let mut frames = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &header(GET, "/hello")));
    let sent = edge.attack(frames).await;
    let reset = sent.iter().find(|frame| frame.kind == RST_STREAM).expect("it is cut");
    assert_eq!(reset.number(0), CANCEL);
    assert_eq!(edge.count("stalled").await, 1);

    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(16_u32.into()).keep_alive_interval(Some(SHORT));
    let (_endpoint, connection) = edge.node.quic_with(transport).await;
    let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
    let driving = tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    let (head, _) = get("/endless").into_parts();
    let mut stream = requests.send_request(http::Request::from_parts(head, ())).await.unwrap();
    stream.finish().await.unwrap();
    eventually("it is cut", async || edge.count("stalled").await == 2).await;
    driving.abort();
}

#[tokio::test]
async fn requests_over_http3_that_are_taken_back() {
    let edge = Besieged::with(Limits { resets: FEW, ..Limits::default() }).await;
    let (_endpoint, connection) = edge.node.quic().await;
    let quic = connection.clone();
    let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
    let driving = tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    let attacking = async {
        loop {
            let (head, _) = get("/never").into_parts();
            let Ok(mut stream) = requests.send_request(http::Request::from_parts(head, ())).await else { return };
            stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
            stream.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
        }
    };
    tokio::time::timeout(PATIENCE, attacking).await.expect("it goes on for ever");
    let quinn::ConnectionError::ApplicationClosed(close) = quic.closed().await else { panic!("it ends otherwise") };
    assert_eq!(close.error_code, 0x107_u32.into(), "H3_EXCESSIVE_LOAD");
    assert_eq!(edge.count("resets").await, 1);
    edge.still_stands().await;
    driving.abort();
}

#[tokio::test]
async fn an_upload_of_nothing_over_http3() {
    let edge = Besieged::with(Limits::default()).await;
    let (_endpoint, connection) = edge.node.quic().await;
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    let (mut sending, _receiving) = connection.open_bi().await.unwrap();
    // `POST https`, authority and path by name.
    let mut block = vec![0, 0, 0xc0 | 20, 0xc0 | 23, 0x50, 13];
    block.extend(b"app.edge.test\x51\x05/echo");
    sending.write_all(&[&[1, u8::try_from(block.len()).unwrap()], &block[..]].concat()).await.unwrap();
    // Ends with the connection.
    let flooding = async { while sending.write_all(&[0, 0].repeat(100)).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flooding).await.expect("it goes on for ever");
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("it ends otherwise")
    };
    assert_eq!(close.error_code, 0x107_u32.into(), "H3_EXCESSIVE_LOAD");
    assert_eq!(edge.count("idle_frames").await, 1);
    edge.still_stands().await;
}

/// Each under its name.
#[tokio::test]
async fn floods_are_told_apart() {
    let edge = Besieged::with(Limits::default()).await;
    let requests = |what: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        let one = |number: u32| {
            let stream = 2 * number + 1;
            let asked = frame(HEADERS, END_STREAM | END_HEADERS, stream, &header(GET, "/never"));
            [asked, what(stream)].concat()
        };
        (0..1000).flat_map(one).collect()
    };
    edge.attack(requests(&|stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()))).await;
    eventually("resets", async || edge.count("resets").await == 1).await;
    let mut upload = frame(HEADERS, END_HEADERS, 1, &header(POST, "/echo"));
    upload.extend(frame(CONTINUATION, 0, 1, b""));
    edge.attack(upload).await;
    eventually("malformed", async || edge.count("http2_malformed").await == 1).await;
    assert_eq!(edge.count("header_bomb").await, 0);
    edge.still_stands().await;
}

/// A stream with something behind what is said on it next.
struct Flooding<IO> {
    io: IO,
    flood: Arc<Mutex<Vec<u8>>>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Flooding<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Flooding<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    /// Between two frames.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, flood } = self.get_mut();
        let mut flood = flood.lock().unwrap();
        while !flood.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(context, &flood))?;
            flood.drain(..written);
        }
        Pin::new(io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[tokio::test]
async fn agents_that_attack_are_ended_and_told_apart() {
    let edge = Besieged::with(Limits::default()).await;
    let tunnel = edge.node.tunnel("hostile", ConfigSource::Local).await;
    let attacks = [
        ("idle_frames", frame(PING, 0, 0, &[7; 8]).repeat(40_000)),
        ("http2_malformed", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("header_bomb", [frame(HEADERS, 0, 1, &[0x88]), frame(CONTINUATION, 0, 1, &[]).repeat(100)].concat()),
    ];
    for (reason, attack) in attacks {
        let dial = edge.node.agent(&tunnel, Transport::Http2);
        let flood = Arc::<Mutex<Vec<u8>>>::default();
        let stream = Flooding { io: dial.tls().await.unwrap(), flood: Arc::clone(&flood) };
        let connected = wire::http2::agent::connect(stream, &dial.registration, Origin::new(), PATIENCE).await;
        let (_, connection) = connected.unwrap();
        *flood.lock().unwrap() = attack;
        // Whatever it says takes the flood with it.
        let _ = connection.update_local_configuration("{}".into()).await;
        tokio::time::timeout(PATIENCE, connection.closed()).await.expect("the edge keeps the connection");
        eventually(reason, async || edge.count(reason).await == 1).await;
    }
    edge.still_stands().await;
}

/// What follows a request that may have been meant otherwise is not believed.
#[tokio::test]
async fn a_malformed_request_is_the_last_of_its_connection() {
    let edge = Besieged::with(Limits::default()).await;
    let asked = "GET app.edge.test:80 HTTP/1.1\r\nhost: app.edge.test:80\r\naccept: application/json\r\n\r\n\
                 GET /hello HTTP/1.1\r\nhost: app.edge.test\r\n\r\n";
    let answer = crate::visitor::raw(&edge.node, asked).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\": 1065"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(edge.origin.count(), 0);
    edge.still_stands().await;
}

/// Connects from this address of the loopback network.
async fn from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(address), 0))).unwrap();
    socket.connect(to).await.unwrap()
}

async fn is_closed(mut tcp: TcpStream) -> bool {
    let read = tokio::time::timeout(PATIENCE, tcp.read(&mut [0])).await.expect("the edge keeps it open");
    matches!(read, Ok(0) | Err(_))
}

#[tokio::test]
async fn many_connections_from_one_address() {
    let limits = Limits { connections_per_address: 2, exempt_loopback: false, ..Limits::default() };
    let edge = Besieged::with(limits).await;
    let http = edge.node.addresses().http;
    let kept = [from([127, 0, 0, 2], http).await, from([127, 0, 0, 2], http).await];
    assert!(is_closed(from([127, 0, 0, 2], http).await).await);
    assert_eq!(edge.count("connections_per_address").await, 1);
    // Others are served, over every protocol.
    edge.still_stands().await;
    drop(kept);
    eventually("there is room again", async || {
        let mut tcp = from([127, 0, 0, 2], http).await;
        let asked = b"GET /hello HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        tcp.write_all(asked).await.is_ok()
            && tcp.read_to_end(&mut answer).await.is_ok()
            && answer.starts_with(b"HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn beginnings_that_lead_nowhere_are_counted() {
    let limits = Limits { idle: AMPLE, handshake: AMPLE, connections: 1, ..Limits::default() };
    let edge = Besieged::with(limits).await;
    let addresses = edge.node.addresses().clone();
    let expected = [
        (addresses.http, &b""[..], "slow_header"),
        (addresses.http, b"GET / HTTP/1.1\r\nhost: a", "slow_header"),
        (addresses.http, b"\x00\x01\x02 / HTTP/1.1\r\n\r\n", "http1_malformed"),
        (addresses.https, b"", "slow_handshake"),
        (addresses.https, b"GET / HTTP/1.1\r\n\r\n", "bad_handshake"),
    ];
    for (address, sent, reason) in expected {
        let before = edge.count(reason).await;
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(sent).await.unwrap();
        let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut Vec::new())).await.expect("it is kept");
        eventually("it is counted", async || edge.count(reason).await == before + 1).await;
        eventually("its place is free", async || {
            edge.node.metrics().await.contains("snicket_edge_visitor_connections 0")
        })
        .await;
    }
    let kept = TcpStream::connect(addresses.http).await.unwrap();
    eventually("it has the place", async || edge.node.metrics().await.contains("snicket_edge_visitor_connections 1"))
        .await;
    assert!(is_closed(TcpStream::connect(addresses.http).await.unwrap()).await);
    assert_eq!(edge.count("connections").await, 1);
    assert_eq!(edge.origin.count(), 0);
    drop(kept);
}

/// A flood of first packets over QUIC, each of another connection and from where nobody answers; sent until the edge answers with
/// a RETRY packet (RFC 9000 section 17.2.5). Answers how many had been sent.
async fn first_packets(edge: &Besieged, to: SocketAddr, config: &quinn::ClientConfig, name: &str) -> usize {
    /// A long header of the type of Retry.
    const RETRY: u8 = 0xf0;
    // They are dialled to a trap, and what arrives there goes on to the edge.
    let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let forger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut dialling = Vec::new();
    let mut packet = [0; 2048];
    for sent in 1..1000 {
        let dialled = endpoint.connect_with(config.clone(), trap.local_addr().unwrap(), name).unwrap();
        let length = tokio::time::timeout(PATIENCE, trap.recv(&mut packet)).await.unwrap().unwrap();
        dialling.push(dialled);
        forger.send_to(&packet[..length], to).await.unwrap();
        let mut answer = [0; 2048];
        while let Ok(Ok(_)) = tokio::time::timeout(SHORT / 100, forger.recv(&mut answer)).await {
            if answer[0] & RETRY == RETRY {
                assert!(edge.count("unproven_address").await > 0);
                return sent;
            }
        }
    }
    panic!("no address is asked for a proof");
}

#[tokio::test]
async fn a_flood_of_first_packets_keeps_nobody_out() {
    let edge = Besieged::with(Limits::default()).await;
    let roots = edge.node.roots();
    let mut visitors = (*tls::agent_tls(&roots, false).unwrap()).clone();
    visitors.alpn_protocols = vec![b"h3".to_vec()];
    let visitors = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(visitors).unwrap()));
    let agents = quinn::ClientConfig::new(tls::agent_quic(&roots, false).unwrap());
    let addresses = edge.node.addresses().clone();
    for (to, config, name) in
        [(addresses.https, visitors, "app.edge.test"), (addresses.tunnel[0], agents, tls::TUNNEL_QUIC_NAME)]
    {
        let sent = first_packets(&edge, to, &config, name).await;
        assert!(sent > 90, "few from forged addresses are no reason to make everybody wait: {sent}");
    }
    edge.still_stands().await;
    let tunnel = edge.node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
    let _agent = edge.node.agent(&tunnel, BOTH[1]).connect(&edge.origin).await.expect("it proves its address");
}

#[tokio::test]
async fn agents_of_one_address_do_not_take_every_place() {
    let edge = Besieged::with(Limits { unregistered: 16, ..Limits::default() }).await;
    let port = edge.node.addresses().tunnel[0];
    let kept = [from([127, 0, 0, 2], port).await, from([127, 0, 0, 2], port).await];
    assert!(is_closed(from([127, 0, 0, 2], port).await).await);
    assert_eq!(edge.count("unregistered").await, 1);
    let tunnel = edge.node.registry.snapshot().tunnel_named("app").unwrap().value.clone();
    let _agent = edge.node.agent(&tunnel, BOTH[0]).connect(&edge.origin).await.expect("others have places");
    drop(kept);
}
