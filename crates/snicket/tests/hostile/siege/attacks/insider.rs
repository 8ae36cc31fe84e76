//! The attackers within: agents with a tunnel of their own, registered as is right, and what they do from then on to the edge.
//! Half of the workers are visitors of that tunnel, who ask and upload all the time.

use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::client::TlsStream;
use uuid::Uuid;
use wire::Extensions;
use wire::connect::{DATA_SIGNATURE, RPC_SIGNATURE, ResponseHead};
use wire::identity::TunnelSecret;
use wire::registration::{BASE_FEATURES, Registration};
use wire::rpc::ControlClient;

use super::{Target, arrive, handshake, quic_config};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};

/// How long an attacker waits for anything that the edge owes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a visitor waits for an answer that may have no end.
const VISIT: Duration = Duration::from_secs(1);
/// The largest frame that an edge takes from an agent.
const LARGEST: usize = 64 << 10;

/// `:status: 200` of the static table.
const OK: u8 = 0x88;
const ORIGIN: &str = r#"{"src":"origin"}"#;
const META: &str = "cf-cloudflared-response-meta";
const PACKED: &str = "cf-cloudflared-response-headers";

/// The attacker's own tunnel.
pub(super) struct Tunnel {
    id: Uuid,
    account: String,
    secret: String,
    host: String,
}

impl Tunnel {
    /// What the edge told of a quick tunnel.
    pub(super) fn read(told: &Value) -> Option<Self> {
        let text = |key: &str| told[key].as_str().map(str::to_owned);
        Some(Self {
            id: text("id")?.parse().ok()?,
            account: text("account_tag")?,
            secret: text("secret")?,
            host: text("hostname")?,
        })
    }

    /// One more connector, whose first connection this is.
    fn registration(&self) -> Registration {
        let features = BASE_FEATURES.iter().map(|name| (*name).to_owned()).chain(Extensions::ALL.features());
        Registration {
            account_tag: self.account.clone(),
            secret: TunnelSecret::from_base64(&self.secret).expect("the edge made it"),
            tunnel: self.id,
            connection_index: 0,
            connector: Uuid::new_v4(),
            features: features.collect(),
            version: "0.0.0".to_owned(),
            arch: "linux_amd64".to_owned(),
            origin_local_ip: None,
            previous_attempts: 0,
        }
    }
}

fn own(target: &Target) -> Arc<Tunnel> {
    Arc::clone(target.own.as_ref().expect("an insider has a tunnel"))
}

/// Asks for what the attacker's agents answer, and uploads what they do not read.
async fn visit(target: &Target, number: usize) -> Result<()> {
    let host = &own(target).host;
    let visiting = async {
        let (mut reader, mut writer) = arrive(target.http).await?.into_split();
        let reading = async { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await };
        let writing = async {
            if number.is_multiple_of(2) {
                let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                return writer.write_all(head.as_bytes()).await;
            }
            let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000000\r\n\r\n");
            writer.write_all(head.as_bytes()).await?;
            let piece = [b'x'; 16 << 10];
            loop {
                writer.write_all(&piece).await?;
            }
        };
        let (_, written) = tokio::join!(reading, writing);
        written
    };
    // A visitor who has waited for long enough leaves.
    timeout(VISIT, visiting).await.unwrap_or(Ok(()))
}

/// What the edge sends, frame by frame.
struct Frames {
    reader: ReadHalf<TlsStream<TcpStream>>,
    buffer: BytesMut,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Bytes,
}

impl Frames {
    /// So many bytes of the beginning.
    async fn take(&mut self, count: usize) -> Result<Bytes> {
        while self.buffer.len() < count {
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::other("the edge has closed the connection"));
            }
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// The next frame. Whoever stops waiting has lost nothing.
    async fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some(mut head) = self.buffer.get(..9) {
                let length = usize::try_from(head.get_uint(3)).unwrap();
                let (kind, flags, stream) = (head.get_u8(), head.get_u8(), head.get_u32());
                if self.buffer.len() >= 9 + length {
                    let payload = self.buffer.split_to(9 + length).freeze().slice(9..);
                    return Ok(Frame { kind, flags, stream, payload });
                }
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::other("the edge has closed the connection"));
            }
        }
    }
}

type Writer = WriteHalf<TlsStream<TcpStream>>;

/// A connection over HTTP/2 that is registered, with windows as wide as can be.
async fn over_http2(target: &Target) -> Result<(Frames, Writer)> {
    let stream = handshake(target, target.tunnel, certs::tls::TUNNEL_HTTP2_NAME, &[]).await?;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut frames = Frames { reader, buffer: BytesMut::new() };
    // INITIAL_WINDOW_SIZE and MAX_CONCURRENT_STREAMS.
    let wishes = [0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1, 0, 0];
    writer.write_all(&frame(SETTINGS, 0, 0, &wishes)).await?;
    writer.write_all(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())).await?;
    frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()).await?;
    let control = loop {
        let asked = frames.next().await?;
        match asked.kind {
            SETTINGS if asked.flags & ACK == 0 => writer.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            HEADERS => break asked.stream,
            _ => (),
        }
    };
    writer.write_all(&frame(HEADERS, END_HEADERS, control, &[OK])).await?;
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut said, mut heard) = tokio::io::split(far);
    let mut client = ControlClient::new(near, PATIENCE);
    let registration = own(target).registration();
    let speaking = async {
        let mut piece = vec![0; 8 << 10];
        loop {
            let length = said.read(&mut piece).await?;
            writer.write_all(&frame(DATA, 0, control, &piece[..length])).await?;
        }
    };
    let hearing = async {
        loop {
            let answered = frames.next().await?;
            if answered.kind == DATA {
                heard.write_all(&answered.payload).await?;
            }
        }
    };
    let ended: Result<()> = tokio::select! {
        registered = client.register(&registration) => registered.map(drop).map_err(Error::other),
        ended = speaking => ended,
        ended = hearing => ended,
    };
    ended?;
    Ok((frames, writer))
}

/// A number with a prefix of seven bits behind the flag for Huffman coding (RFC 7541 section 5.1).
fn length(number: usize) -> Vec<u8> {
    let Some(mut rest) = number.checked_sub(127) else { return vec![u8::try_from(number).unwrap()] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name.len()), name, &length(value.len()), value].concat()
}

/// A header or trailers in as many frames as it takes.
fn head(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(LARGEST).peekable();
    let (mut bytes, mut kind) = (Vec::new(), HEADERS);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let flags = if kind == HEADERS { flags | last } else { last };
        bytes.extend(frame(kind, flags, stream, piece));
        kind = CONTINUATION;
    }
    bytes
}

/// An answer whose packed header this is.
fn packed(stream: u32, flags: u8, packed: &[u8]) -> Vec<u8> {
    head(
        stream,
        flags,
        &[&[OK][..], &field(META.as_bytes(), ORIGIN.as_bytes()), &field(PACKED.as_bytes(), packed)].concat(),
    )
}

/// Answers whatever is asked with what `make` says; keeps the connection alive.
async fn answers(target: Target, number: usize, mut make: impl FnMut(u32, usize) -> Vec<u8>) -> Result<()> {
    let (mut frames, mut writer) = over_http2(&target).await?;
    let mut round = number;
    loop {
        let asked = frames.next().await?;
        let answer = match asked.kind {
            HEADERS => {
                round += 1;
                make(asked.stream, round)
            }
            PING if asked.flags & ACK == 0 => frame(PING, ACK, 0, &asked.payload),
            SETTINGS if asked.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            _ => continue,
        };
        timeout(PATIENCE, writer.write_all(&answer)).await??;
    }
}

/// Every other worker visits.
macro_rules! with_visitors {
    ($target:ident, $number:ident) => {
        if $number % 2 == 1 {
            return visit(&$target, $number / 2).await;
        }
    };
}

/// Says now and then that it lives, and reads nothing more.
pub(super) async fn agent_deaf(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    let (_frames, mut writer) = over_http2(&target).await?;
    let mut life = interval(VISIT);
    loop {
        life.tick().await;
        timeout(PATIENCE, writer.write_all(&frame(PING, ACK, 0, &[0; 8]))).await??;
    }
}

/// Headers of answers that are too much, or none.
pub(super) async fn agent_headers(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    // A name and a value of one byte each, unpadded.
    let pairs = b"eA:eQ;".repeat(5000);
    let long = [&b"eA:"[..], &b"eHh4".repeat(90_000)].concat();
    answers(target, number, move |stream, round| match round % 8 {
        0 => packed(stream, END_STREAM, &long.repeat(10)),
        1 => packed(stream, END_STREAM, &long),
        2 => packed(stream, END_STREAM, &pairs),
        3 => packed(stream, END_STREAM, b"====:\xff\xff;;;:::;eA"),
        // A line's end and a NUL in a value, a name of nothing, and the protocol's own names.
        4 => packed(stream, END_STREAM, b"eA:DQo;eA:AA;:eQ;OnN0YXR1cw:MjAw"),
        // Two framings.
        5 => packed(stream, END_STREAM, b"Y29udGVudC1sZW5ndGg:OQ;dHJhbnNmZXItZW5jb2Rpbmc:Y2h1bmtlZA"),
        // As many fields as a frame takes, not packed.
        6 => head(stream, END_STREAM, &[&[OK][..], &field(b"x", b"y").repeat(5000)].concat()),
        // Small on the wire, and large once it is unpacked: the same field of the dynamic table again and again.
        _ => {
            let mut block = [&[OK, 0x40][..], &field(b"x", &[b'v'; 3900])[1..]].concat();
            block.extend([0xbe].repeat(LARGEST / 2));
            head(stream, END_STREAM, &block)
        }
    })
    .await
}

/// What no peer may send, once on each connection.
pub(super) async fn agent_frames(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    answers(target, number, |stream, round| {
        let whole = [OK, 0];
        match round % 16 {
            0 => frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82]),
            1 => frame(HEADERS, END_HEADERS, stream + 2, &[OK]),
            2 => frame(HEADERS, END_HEADERS, 2, &[OK]),
            3 => frame(DATA, END_STREAM, stream, b"before its header"),
            4 => frame(CONTINUATION, END_HEADERS, stream, &[OK]),
            5 => frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
            6 => frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            7 => frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
            8 => frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            9 => frame(HEADERS, END_HEADERS, stream, &whole),
            10 => frame(HEADERS, END_HEADERS, stream, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            11 => frame(GOAWAY, 0, 0, &[0xff; 8]),
            12 => vec![0xff; 32 << 10],
            13 => frame(RST_STREAM, 0, 0, &[0; 4]),
            14 => frame(DATA, END_STREAM | 8, stream, &[255, 0]),
            _ => [frame(HEADERS, 0, stream, &[OK]), frame(CONTINUATION, 0, stream, &[]).repeat(10_000)].concat(),
        }
    })
    .await
}

/// Interim answers, bodies and trailers without an end that anybody would wait for.
pub(super) async fn agent_endless(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    let origin = field(META.as_bytes(), ORIGIN.as_bytes());
    // `:status: 103`, its name indexed.
    let early = [&[0x08, 3][..], b"103", &field(b"link", b"</a>; rel=preload")].concat();
    let answer = [&[OK][..], &origin].concat();
    answers(target, number, move |stream, round| {
        let begun = head(stream, 0, &answer);
        match round % 4 {
            0 => head(stream, 0, &early).repeat(10_000),
            1 => [begun, frame(DATA, 0, stream, &[b'x'; 8 << 10]).repeat(120)].concat(),
            2 => [begun, frame(DATA, 0, stream, &[]).repeat(50_000)].concat(),
            _ => [begun, head(stream, END_STREAM, &field(b"x", &[b'y'; 4000]).repeat(1000))].concat(),
        }
    })
    .await
}

/// Every stream is broken off, and windows and settings change all the time.
pub(super) async fn agent_floods(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    let window = |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    answers(target, number, move |stream, round| {
        let broken = frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes());
        match round % 6 {
            0 => broken.repeat(20_000),
            1 => [window(0), window(0x7fff_ffff)].concat().repeat(20_000),
            2 => frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).repeat(20_000),
            3 => frame(PING, 0, 0, &[7; 8]).repeat(20_000),
            // No room for a stream, then for all; and a header table of nothing, then of everything.
            4 => frame(
                SETTINGS,
                0,
                0,
                &[0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
            )
            .repeat(10_000),
            _ => [frame(HEADERS, END_HEADERS, stream, &[OK]), broken].concat(),
        }
    })
    .await
}

/// A registered connection over QUIC, and its control stream.
async fn over_quic(
    target: &Target,
) -> Result<(quinn::Endpoint, quinn::Connection, ControlClient<tokio::io::Join<quinn::RecvStream, quinn::SendStream>>)>
{
    let (endpoint, connection) = dial(target).await?;
    let (send, recv) = connection.open_bi().await.map_err(Error::other)?;
    let mut client = ControlClient::new(tokio::io::join(recv, send), PATIENCE);
    client.register(&own(target).registration()).await.map_err(Error::other)?;
    Ok((endpoint, connection, client))
}

async fn dial(target: &Target) -> Result<(quinn::Endpoint, quinn::Connection)> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(VISIT))
        .max_concurrent_bidi_streams(10_000_u32.into())
        .stream_receive_window(u32::MAX.into())
        .receive_window(u32::MAX.into());
    let mut config = quic_config(target, certs::tls::TUNNEL_ALPN);
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let connecting =
        endpoint.connect_with(config, target.tunnel, certs::tls::TUNNEL_QUIC_NAME).map_err(Error::other)?;
    let connection = connecting.await.map_err(Error::other)?;
    Ok((endpoint, connection))
}

/// An answer's head over QUIC that holds this.
fn answer(status: StatusCode, fields: usize, size: usize) -> Vec<u8> {
    let mut headers = HeaderMap::new();
    for field in 0..fields {
        let name = HeaderName::try_from(format!("x-{field}")).unwrap();
        headers.insert(name, HeaderValue::try_from("y".repeat(size)).unwrap());
    }
    ResponseHead::encode_answer(status, &headers, false).to_vec()
}

/// Odd heads, and heads that are too much.
pub(super) async fn agent_quic_heads(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    let (_endpoint, connection, _control) = over_quic(&target).await?;
    let (many, long) = (answer(StatusCode::OK, 5000, 1), answer(StatusCode::OK, 10, 400_000));
    let early = answer(StatusCode::EARLY_HINTS, 1, 100);
    let preamble = [&DATA_SIGNATURE[..], b"01"].concat();
    let mut round = number;
    loop {
        let (mut send, mut recv) = connection.accept_bi().await.map_err(Error::other)?;
        round += 1;
        let said = match round % 10 {
            0 => many.clone(),
            1 => long.clone(),
            2 => early.repeat(5000),
            3 => vec![0xff; 100_000],
            4 => RPC_SIGNATURE.to_vec(),
            // Segments: 2^32 of them, one of 2^32 - 1 words, one of nothing.
            5 => [&preamble[..], &[0xff; 8]].concat(),
            6 => [&preamble[..], &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat(),
            7 => [&preamble[..], &[0; 8]].concat(),
            // A pointer that leads back to itself.
            8 => [&preamble[..], &[0, 0, 0, 0, 1, 0, 0, 0], &[0xfd, 0xff, 0xff, 0xff, 0, 0, 1, 0]].concat(),
            _ => [answer(StatusCode::OK, 1, 1), vec![b'x'; 1 << 20]].concat(),
        };
        // Those of the second half neither end nor read; the edge's visitors leave them.
        let _ = timeout(PATIENCE, send.write_all(&said)).await?;
        if round % 20 < 10 {
            let _ = send.finish();
            let _ = recv.stop(7_u32.into());
        } else if round.is_multiple_of(3) {
            let _ = send.reset(7_u32.into());
        }
    }
}

/// Opens streams towards the edge as long as there is room, with garbage and RPC that does not end, and sends datagrams.
pub(super) async fn agent_quic_streams(target: Target, number: usize) -> Result<()> {
    with_visitors!(target, number);
    let (_endpoint, connection, _control) = over_quic(&target).await?;
    let datagrams = async {
        let mut said = 0_usize;
        loop {
            // What it is stands at the end in version 2, and at the beginning in version 3.
            let mut datagram = vec![(said % 5) as u8; 30 + said % 1000];
            datagram[1..20].fill((said % 251) as u8);
            connection.send_datagram_wait(datagram.into()).await.map_err(Error::other)?;
            said += 1;
        }
    };
    let streams = open_streams(&connection);
    // Never answered; what the visitors ask is taken all the same.
    let kept = async {
        let mut asked = Vec::new();
        loop {
            asked.push(connection.accept_bi().await.map_err(Error::other)?);
        }
    };
    let ended: Result<()> = tokio::select! {
        ended = datagrams => ended,
        ended = streams => ended,
        ended = kept => ended,
    };
    ended
}

/// Streams of garbage and of RPC that is none, as many as there is room for, for ever.
async fn open_streams(connection: &quinn::Connection) -> Result<()> {
    // One segment of 60 MiB is announced, and begins.
    let huge = [&0_u32.to_le_bytes()[..], &(60_u32 << 17).to_le_bytes(), &[1; 100_000]].concat();
    let mut round = 0_usize;
    loop {
        let (mut send, recv) = connection.open_bi().await.map_err(Error::other)?;
        round += 1;
        let signature = if round.is_multiple_of(2) { &RPC_SIGNATURE[..] } else { &[] };
        let junk: Vec<u8> = (0..1000).map(|at| (at * 31 + round * 7) as u8).collect();
        let said = [signature, if round % 4 < 2 { &huge } else { &junk }].concat();
        let _ = timeout(VISIT, send.write_all(&said)).await;
        drop((send, recv));
    }
}

/// Nobody's agent: RPC over QUIC that is none, and streams before a registration.
pub(super) async fn tunnel_quic_rpc(target: Target, number: usize) -> Result<()> {
    let (_endpoint, connection) = dial(&target).await?;
    if number.is_multiple_of(2) {
        // The first stream is the one for registrations; what begins on it does not go on.
        let (mut send, recv) = connection.open_bi().await.map_err(Error::other)?;
        send.write_all(&[0; 4]).await?;
        let ended = open_streams(&connection).await;
        drop((send, recv));
        return ended;
    }
    open_streams(&connection).await
}
