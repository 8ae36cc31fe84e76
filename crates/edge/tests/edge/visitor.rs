use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use certs::tls;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::Body;

use crate::node::{Node, PATIENCE};

/// How a visitor comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    PlainHttp2,
    Http1,
    Http2,
    Http3,
}

pub(crate) const ALL: [Way; 5] = [Way::Plain, Way::PlainHttp2, Way::Http1, Way::Http2, Way::Http3];

/// What a visitor sees of an answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
    /// Interim answers before it.
    pub(crate) interims: Vec<(u16, HeaderMap)>,
    /// The body ended visibly short.
    pub(crate) cut: bool,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::builder().uri(format!("https://app.edge.test{path}")).body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, body: Body) -> Request<Body> {
    Request::builder().method(Method::POST).uri(format!("https://app.edge.test{path}")).body(body).unwrap()
}

impl Node {
    /// Sends one request on a connection of its own.
    pub(crate) async fn visit(&self, way: Way, request: Request<Body>) -> Reply {
        let visiting = async {
            match way {
                Way::Plain => http1(TcpStream::connect(self.addresses().http).await.unwrap(), request).await,
                Way::Http1 => http1(self.tls(b"http/1.1").await, request).await,
                Way::PlainHttp2 => http2(TcpStream::connect(self.addresses().http).await.unwrap(), request).await,
                Way::Http2 => http2(self.tls(b"h2").await, request).await,
                Way::Http3 => self.http3(request).await,
            }
        };
        tokio::time::timeout(PATIENCE, visiting).await.unwrap_or_else(|_| panic!("no answer over {way:?}"))
    }

    pub(crate) async fn tls(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut config = (*tls::agent_tls(&self.roots(), false).unwrap()).clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let tcp = TcpStream::connect(self.addresses().https).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect("app.edge.test".try_into().unwrap(), tcp).await.unwrap()
    }

    /// A QUIC connection as visitors make it.
    pub(crate) async fn quic(&self) -> (quinn::Endpoint, quinn::Connection) {
        self.quic_with(quinn::TransportConfig::default()).await
    }

    /// The same with settings of one's own.
    pub(crate) async fn quic_with(&self, transport: quinn::TransportConfig) -> (quinn::Endpoint, quinn::Connection) {
        self.dial_with(self.addresses().https, "h3", transport).await.unwrap()
    }

    /// A QUIC connection to any address of the node.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        alpn: &str,
    ) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
        self.dial_with(address, alpn, quinn::TransportConfig::default()).await
    }

    async fn dial_with(
        &self,
        address: SocketAddr,
        alpn: &str,
        transport: quinn::TransportConfig,
    ) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
        let mut config = (*tls::agent_tls(&self.roots(), false).unwrap()).clone();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connection = endpoint.connect_with(config, address, "app.edge.test").unwrap().await?;
        Ok((endpoint, connection))
    }

    async fn http3(&self, request: Request<Body>) -> Reply {
        let (_endpoint, connection) = self.quic().await;
        let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
        let driving = tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
        let (head, mut body) = request.into_parts();
        let stream = requests.send_request(Request::from_parts(head, ())).await.unwrap();
        let (mut sending, mut receiving) = stream.split();
        let send = async move {
            while let Some(Ok(frame)) = body.frame().await {
                let sent = match frame.into_data() {
                    Ok(data) => sending.send_data(data).await,
                    Err(frame) => sending.send_trailers(frame.into_trailers().unwrap()).await,
                };
                if sent.is_err() {
                    return;
                }
            }
            let _ = sending.finish().await;
        };
        let receive = async {
            let mut reply = Reply::default();
            loop {
                let Ok(answer) = receiving.recv_response().await else {
                    return Reply { cut: true, ..reply };
                };
                if !answer.status().is_informational() {
                    reply.status = answer.status().as_u16();
                    reply.headers = answer.headers().clone();
                    break;
                }
                reply.interims.push((answer.status().as_u16(), answer.headers().clone()));
            }
            let mut body = BytesMut::new();
            loop {
                match receiving.recv_data().await {
                    Ok(Some(mut data)) => body.extend_from_slice(&data.copy_to_bytes(data.remaining())),
                    Ok(None) => break,
                    Err(_) => {
                        reply.cut = true;
                        break;
                    }
                }
            }
            reply.body = body.freeze();
            if !reply.cut {
                reply.trailers = receiving.recv_trailers().await.unwrap().unwrap_or_default();
            }
            reply
        };
        let sending = tokio::spawn(send);
        let reply = receive.await;
        sending.abort();
        driving.abort();
        reply
    }
}

async fn http1<IO>(io: IO, mut request: Request<Body>) -> Reply
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let driving = tokio::spawn(connection);
    let host = request.uri().authority().unwrap().as_str().parse().unwrap();
    request.headers_mut().insert("host", host);
    *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
    let (head, mut body) = sender.send_request(request).await.unwrap().into_parts();
    let mut reply = Reply { status: head.status.as_u16(), headers: head.headers, ..Reply::default() };
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(frame)) => reply.trailers = frame.into_trailers().unwrap(),
            Err(_) => {
                reply.cut = true;
                break;
            }
        }
    }
    reply.body = bytes.freeze();
    driving.abort();
    reply
}

async fn http2<IO>(io: IO, request: Request<Body>) -> Reply
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = h2::client::handshake(io).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let (head, mut body) = request.into_parts();
    let ends = http_body::Body::is_end_stream(&body);
    let (mut answer, mut stream) = requests.send_request(Request::from_parts(head, ()), ends).unwrap();
    let sending = tokio::spawn(async move {
        while let (false, Some(Ok(frame))) = (ends, body.frame().await) {
            match frame.into_data() {
                Ok(mut data) => {
                    while !data.is_empty() {
                        stream.reserve_capacity(data.len());
                        let Some(Ok(_)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
                        let part = data.split_to(stream.capacity().min(data.len()));
                        if stream.send_data(part, false).is_err() {
                            return;
                        }
                    }
                }
                Err(frame) => return stream.send_trailers(frame.into_trailers().unwrap()).unwrap(),
            }
        }
        if !ends {
            let _ = stream.send_data(Bytes::new(), true);
        }
        // Keeps the request from being given up.
        std::future::pending::<()>().await;
    });
    let mut reply = Reply::default();
    let answer = poll_fn(|context| {
        while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(context) {
            reply.interims.push((interim.status().as_u16(), interim.headers().clone()));
        }
        std::pin::Pin::new(&mut answer).poll(context)
    });
    let (head, mut body) = answer.await.unwrap().into_parts();
    reply.status = head.status.as_u16();
    reply.headers = head.headers;
    let mut bytes = BytesMut::new();
    loop {
        match body.data().await {
            None => break,
            Some(Ok(data)) => {
                let _ = body.flow_control().release_capacity(data.len());
                bytes.extend_from_slice(&data);
            }
            Some(Err(_)) => {
                reply.cut = true;
                break;
            }
        }
    }
    reply.body = bytes.freeze();
    if !reply.cut {
        reply.trailers = body.trailers().await.unwrap().unwrap_or_default();
    }
    sending.abort();
    driving.abort();
    reply
}

/// Sends bytes as they are over HTTP/1.1 without TLS, and reads until the edge closes.
pub(crate) async fn raw(node: &Node, bytes: impl AsRef<[u8]>) -> String {
    let mut tcp = TcpStream::connect(node.addresses().http).await.unwrap();
    tcp.write_all(bytes.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends the answer as well.
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the edge did not close");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer of [`raw`].
pub(crate) fn status(answer: &str) -> StatusCode {
    answer.get(9..12).unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap()
}
