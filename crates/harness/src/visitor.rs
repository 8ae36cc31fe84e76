use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::LIMIT;

/// The body of a request, of any kind.
pub type RequestBody = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// A version of HTTP that visitors speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// Somebody who opens URLs of an edge: `https` with the edge's CA trusted, `http` in plain. Whatever the name in the
/// URL, the edge under test is asked.
#[derive(Debug, Clone)]
pub struct Visitor {
    https: SocketAddr,
    http: SocketAddr,
    ca: Option<PathBuf>,
    version: Http,
}

/// An answer read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The version it came in.
    pub version: Version,
    /// The header.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers, empty if there were none.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value as text, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Visitor {
    /// A visitor with HTTP/1.1.
    pub fn new(https: SocketAddr, http: SocketAddr, ca: &Path) -> Self {
        Self { https, http, ca: Some(ca.to_owned()), version: Http::One }
    }

    /// Somebody who speaks HTTP/1.1 in plain to this address.
    pub fn plain(address: SocketAddr) -> Self {
        Self { https: address, http: address, ca: None, version: Http::One }
    }

    /// The same visitor with another version.
    pub fn over(&self, version: Http) -> Self {
        Self { version, ..self.clone() }
    }

    /// Where this visitor's TLS goes, and whom it trusts: for `curl --connect-to` and other real programs.
    pub fn https(&self) -> (SocketAddr, Option<&Path>) {
        (self.https, self.ca.as_deref())
    }

    /// Gets a URL.
    pub async fn get(&self, url: &str) -> Answer {
        self.request("GET", url, &[], "").await
    }

    /// Posts to a URL.
    pub async fn post(&self, url: &str, body: impl Into<Bytes>) -> Answer {
        self.request("POST", url, &[], body).await
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// There is none within [`LIMIT`].
    pub async fn request(&self, method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
        let exchange = async {
            let response = self.open(method, url, headers, body).await.expect("an answer comes");
            let (head, body) = response.into_parts();
            let collected = body.collect().await.expect("the answer's body is whole");
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Answer {
                status: head.status.as_u16(),
                version: head.version,
                headers: head.headers,
                body: collected.to_bytes(),
                trailers,
            }
        };
        tokio::time::timeout(LIMIT, exchange)
            .await
            .unwrap_or_else(|_| panic!("{method} {url}: no whole answer in time"))
    }

    /// Sends a request and answers once the answer's head is here; the body comes as it is read. On a connection of its
    /// own.
    pub async fn open(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: RequestBody,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let uri: Uri = if url.starts_with('/') { format!("http://{}{url}", self.http) } else { url.to_owned() }
            .parse()
            .expect("the test gives a URL");
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("the test gives a valid request");
        self.send(self.dial(&uri).await, request).await
    }

    /// Sends a request on a connection, and answers once the answer's head is here.
    ///
    /// # Errors
    /// The connection ends before that.
    pub async fn send(
        &self,
        stream: Box<dyn Stream>,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match self.version {
            Http::One => one(stream, request).await,
            Http::Two => two(stream, request).await,
        }
    }

    /// A connection to where this URI leads, with TLS for `https`.
    ///
    /// # Panics
    /// It cannot be had.
    pub async fn dial(&self, uri: &Uri) -> Box<dyn Stream> {
        self.try_dial(uri).await.expect("the edge takes connections and shows a certificate that its CA has signed")
    }

    /// The same, where the edge may be away.
    pub async fn try_dial(&self, uri: &Uri) -> io::Result<Box<dyn Stream>> {
        if uri.scheme_str() != Some("https") {
            return Ok(Box::new(TcpStream::connect(self.http).await?));
        }
        let tcp = TcpStream::connect(self.https).await?;
        let mut config = self.tls();
        config.alpn_protocols = vec![match self.version {
            Http::One => b"http/1.1".to_vec(),
            Http::Two => b"h2".to_vec(),
        }];
        let host = uri.host().expect("a URL has a host").trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).expect("a URL's host is a name");
        Ok(Box::new(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?))
    }

    /// The certificate that is shown for this name, as DER, or why it is not trusted.
    ///
    /// # Panics
    /// There is no answer within [`LIMIT`].
    pub async fn certificate(&self, name: &str) -> io::Result<Vec<u8>> {
        let shown = async {
            let tcp = TcpStream::connect(self.https).await?;
            let server = ServerName::try_from(name.to_owned()).expect("the test gives a name");
            let stream = tokio_rustls::TlsConnector::from(Arc::new(self.tls())).connect(server, tcp).await?;
            let shown = stream.get_ref().1.peer_certificates().expect("the handshake is done");
            Ok(shown.first().expect("there is one at least").to_vec())
        };
        tokio::time::timeout(LIMIT, shown).await.unwrap_or_else(|_| panic!("{name}: no certificate in time"))
    }

    /// TLS settings that trust the edge, without ALPN.
    ///
    /// # Panics
    /// The CA cannot be read.
    pub fn tls(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = self.ca.as_deref().expect("this visitor was given a CA");
        for certificate in CertificateDer::pem_file_iter(ca).expect("the CA's file can be read") {
            roots.add(certificate.expect("the CA's file is PEM")).expect("the CA is a certificate");
        }
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn one(stream: Box<dyn Stream>, mut request: Request<RequestBody>) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let authority = request.uri().authority().expect("the URL is absolute").to_string();
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    request.headers_mut().entry(header::HOST).or_insert(authority.try_into().expect("an authority is a header value"));
    *request.uri_mut() = path.parse().expect("a path is a URI");
    sender.send_request(request).await
}

async fn two(stream: Box<dyn Stream>, request: Request<RequestBody>) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}
