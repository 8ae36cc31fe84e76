//! The API's listener.

use std::sync::Arc;
use std::time::Duration;

use certs::tls;
use edge::Limits;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::node::{BOTH, Node, PATIENCE};
use crate::visitor::{Way, get};

impl Node {
    /// The metrics as the API shows them.
    pub(crate) async fn metrics(&self) -> String {
        plain(self, "/metrics").await
    }

    async fn api_over_tls(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.addresses().api).await.unwrap();
        let connector = TlsConnector::from(Arc::clone(&tls::agent_tls(&self.roots(), false).unwrap()));
        connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap()
    }
}

async fn plain(node: &Node, path: &str) -> String {
    let mut tcp = TcpStream::connect(node.addresses().api).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn answers_with_and_without_tls_on_one_port() {
    let node = Node::start().await;
    assert!(plain(&node, "/hello").await.ends_with("\r\n\r\nhello"));

    let stream = node.api_over_tls().await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let request =
        http::Request::builder().uri("/hello").header("host", "127.0.0.1").body(Empty::<bytes::Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    driving.abort();
}

#[tokio::test]
async fn callers_that_ask_nothing_are_sent_away() {
    let node = Node::with(Limits { idle: Duration::from_millis(300), ..Limits::default() }).await;
    for begun in ["P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut tcp = TcpStream::connect(node.addresses().api).await.unwrap();
        tcp.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.expect("it is kept").unwrap();
    }
    let mut tls = node.api_over_tls().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut rest)).await.expect("it is kept");
}

#[tokio::test]
async fn tells_what_happened() {
    let (node, _origin, _agent) = Node::with_app(BOTH[1]).await;
    let mut events = node.running.requests();
    assert_eq!(node.visit(Way::Http1, get("/hello?secret=1")).await.status, 200);
    assert_eq!(node.visit(Way::Http1, get("/fault/refused")).await.status, 521);
    let metrics = node.metrics().await;
    for line in [
        "snicket_edge_requests_total{status=\"200\"} 1",
        "snicket_edge_refusals_total{code=\"521\"} 1",
        "snicket_edge_tunnel_connections{transport=\"quic\"} 1",
        "snicket_edge_registrations_total{result=\"accepted\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let event = events.recv().await.unwrap();
    assert_eq!(
        (event.host.as_str(), event.path.as_str(), event.status, event.refusal),
        ("app.edge.test", "/hello", 200, None)
    );
    assert_eq!(events.recv().await.unwrap().refusal, Some(521));
}
