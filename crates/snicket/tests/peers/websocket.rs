//! WebSocket by `tungstenite`, origin and visitor; the visitor over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441). HTTP/3 is in
//! [`super::http3::websocket`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, tungstenite};

/// A WebSocket origin that sends every message back, and answers `/refuse` with 403.
pub struct Origin {
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        Self { address, task }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(stream: TcpStream) {
    #[expect(clippy::result_large_err, reason = "the library's callback type")]
    let refuse = |request: &tungstenite::handshake::server::Request, answer| {
        if request.uri().path() == "/refuse" {
            return Err(refusal());
        }
        Ok(answer)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, refuse).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn refusal() -> tungstenite::handshake::server::ErrorResponse {
    http::Response::builder().status(403).body(Some("no sockets here".to_owned())).unwrap()
}

/// TLS to the edge with this ALPN, trusting only the authority in this file.
pub async fn tls(edge: SocketAddr, name: &str, ca: &Path, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("the authority's certificate")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(edge).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a TLS handshake with the edge")
}

/// A WebSocket over HTTP/1.1; the error holds the answer when the origin refused.
#[expect(clippy::result_large_err, reason = "the library's error type")]
pub async fn over_http1(
    edge: SocketAddr,
    name: &str,
    ca: &Path,
    path: &str,
) -> Result<WebSocketStream<TlsStream<TcpStream>>, tungstenite::Error> {
    let stream = tls(edge, name, ca, b"http/1.1").await;
    let (socket, _) = tokio_tungstenite::client_async(format!("wss://{name}{path}"), stream).await?;
    Ok(socket)
}

/// A WebSocket over HTTP/2 by extended CONNECT.
pub async fn over_http2(edge: SocketAddr, name: &str, ca: &Path, path: &str) -> WebSocketStream<DuplexStream> {
    let stream = tls(edge, name, ca, b"h2").await;
    let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
    // The edge's SETTINGS say whether extended CONNECT may be used, so they have to be read first.
    while !client.is_extended_connect_protocol_enabled() {
        std::future::poll_fn(|context| match std::future::Future::poll(std::pin::Pin::new(&mut connection), context) {
            std::task::Poll::Ready(end) => panic!("the connection ended before its settings: {end:?}"),
            std::task::Poll::Pending if client.is_extended_connect_protocol_enabled() => std::task::Poll::Ready(()),
            std::task::Poll::Pending => std::task::Poll::Pending,
        })
        .await;
    }
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut request = Request::builder()
        .method("CONNECT")
        .uri(format!("https://{name}{path}"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, mut send) = client.send_request(request, false).unwrap();
    let answer = answer.await.expect("an answer to the extended CONNECT");
    assert_eq!(answer.status(), 200, "the edge accepts the WebSocket");
    let mut receive = answer.into_body();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_near, mut to_near) = tokio::io::split(far);
    tokio::spawn(async move {
        let _client = client;
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_near.read(&mut buffer).await {
            if send.send_data(Bytes::copy_from_slice(&buffer[..length]), false).is_err() {
                return;
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    });
    tokio::spawn(async move {
        while let Some(Ok(data)) = receive.data().await {
            let _ = receive.flow_control().release_capacity(data.len());
            if to_near.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = to_near.shutdown().await;
    });
    socket(near).await
}

/// WebSocket messages over raw bytes whose handshake is done.
pub async fn socket(bytes: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(bytes, Role::Client, None).await
}
