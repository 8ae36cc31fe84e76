//! A visitor over HTTP/3: the `h3` crate's own end, and for WebSockets (RFC 9220), which that crate does not know, bare frames on
//! a QUIC stream.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h3::client::RequestStream;
use http::{HeaderMap, Request};
use http_body::Frame;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// Sends a request's body.
pub(crate) type Send = RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

/// A QUIC connection to the edge with ALPN `h3`, trusting only the authority in this file.
pub(crate) async fn dial(edge: SocketAddr, name: &str, ca: &Path) -> (quinn::Endpoint, quinn::Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("the authority's certificate")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut transport = quinn::TransportConfig::default();
    // How long nothing may happen is the edge's decision.
    transport.max_idle_timeout(None).keep_alive_interval(Some(Duration::from_secs(5)));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(edge, name).unwrap().await.expect("a QUIC connection to the edge");
    (endpoint, connection)
}

/// One visitor over HTTP/3.
pub(crate) struct Visitor {
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    driver: tokio::task::JoinHandle<()>,
    _endpoint: quinn::Endpoint,
}

impl Visitor {
    pub(crate) async fn connect(edge: SocketAddr, name: &str, ca: &Path) -> Self {
        let (endpoint, connection) = dial(edge, name, ca).await;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
        let driver = tokio::spawn(async move {
            driver.wait_idle().await;
        });
        Self { requests, driver, _endpoint: endpoint }
    }

    /// Sends a request's head.
    pub(crate) async fn request(&mut self, head: Request<()>) -> (Send, Receive) {
        let stream = self.requests.send_request(head).await.expect("the edge takes requests");
        let (send, receive) = stream.split();
        (send, Receive { stream: receive, ended: false })
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The answer's side of a request.
pub(crate) struct Receive {
    stream: RequestStream<h3_quinn::RecvStream, Bytes>,
    ended: bool,
}

impl Receive {
    /// The next head, interim or final.
    pub(crate) async fn head(&mut self) -> Result<(u16, HeaderMap), String> {
        let (head, ()) = self.stream.recv_response().await.map_err(|error| error.to_string())?.into_parts();
        Ok((head.status.as_u16(), head.headers))
    }

    /// The next piece of the body, or its trailers.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        if self.ended {
            return None;
        }
        let frame = match self.stream.recv_data().await {
            Ok(Some(mut data)) => return Some(Ok(Frame::data(data.copy_to_bytes(data.remaining())))),
            Ok(None) => match self.stream.recv_trailers().await {
                Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
                Err(error) => Some(Err(error.to_string())),
            },
            Err(error) => Some(Err(error.to_string())),
        };
        self.ended = true;
        frame
    }
}

/// Frame types of RFC 9114 section 7.2.
const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;

/// Opens a WebSocket by extended CONNECT; gives the answer's first header block as it came, and the raw WebSocket bytes as a
/// stream.
///
/// The caller holds the endpoint and connection for as long as the stream is used.
pub(crate) async fn websocket(connection: &quinn::Connection, authority: &str, path: &str) -> (Vec<u8>, DuplexStream) {
    let mut control = connection.open_uni().await.unwrap();
    // Stream type 0 (control), then an empty SETTINGS frame.
    control.write_all(&[0x00, 0x04, 0x00]).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&frame(
        HEADERS,
        &block(&[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", authority),
            (":path", path),
            ("sec-websocket-version", "13"),
        ]),
    ))
    .await
    .unwrap();
    let head = loop {
        let (kind, payload) = read_frame(&mut receive).await.expect("an answer to the extended CONNECT");
        if kind == HEADERS {
            break payload;
        }
    };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_near, mut to_near) = tokio::io::split(far);
    tokio::spawn(async move {
        let _control = control; // Closing a control stream ends the connection.
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_near.read(&mut buffer).await {
            if send.write_all(&frame(DATA, &buffer[..length])).await.is_err() {
                return;
            }
        }
        let _ = send.finish();
        let _ = send.stopped().await;
    });
    tokio::spawn(async move {
        while let Some((kind, payload)) = read_frame(&mut receive).await {
            if kind == DATA && to_near.write_all(&payload).await.is_err() {
                return;
            }
        }
        let _ = to_near.shutdown().await;
    });
    (head, near)
}

/// A header block of literal lines only (RFC 9204 section 4.5.6), without Huffman coding.
fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in lines {
        prefixed(&mut block, 0x20, 3, name.len());
        block.extend_from_slice(name.as_bytes());
        prefixed(&mut block, 0x00, 7, value.len());
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// An integer behind a prefix of so many bits (RFC 7541 section 5.1).
fn prefixed(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let limit = (1 << bits) - 1;
    if value < limit {
        out.push(first | value as u8);
        return;
    }
    out.push(first | limit as u8);
    let mut rest = value - limit;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind as u8];
    // Two-byte form of a variable-length integer, or four (RFC 9000 section 16).
    if payload.len() < 1 << 14 {
        frame.extend_from_slice(&(payload.len() as u16 | 0x4000).to_be_bytes());
    } else {
        frame.extend_from_slice(&(payload.len() as u32 | 0x8000_0000).to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

async fn read_frame(receive: &mut quinn::RecvStream) -> Option<(u64, Vec<u8>)> {
    let kind = read_integer(receive).await?;
    let length = read_integer(receive).await?;
    let mut payload = vec![0; length as usize];
    receive.read_exact(&mut payload).await.ok()?;
    Some((kind, payload))
}

async fn read_integer(receive: &mut quinn::RecvStream) -> Option<u64> {
    let mut first = [0];
    receive.read_exact(&mut first).await.ok()?;
    let mut value = u64::from(first[0] & 0x3f);
    for _ in 1..1 << (first[0] >> 6) {
        let mut next = [0];
        receive.read_exact(&mut next).await.ok()?;
        value = value << 8 | u64::from(next[0]);
    }
    Some(value)
}
