//! One HTTP request and its whole answer, for the edge's API and the agent's metrics endpoint. Small by design: no
//! redirects, no cookies, no pool.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use certs::Fingerprint;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use crate::local::LocalEdge;
use crate::problem::Problem;
use crate::secret::Secret;

/// From the look-up of the name to the last byte; what the reference allows for its API.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Largest answer that is read: the zone file of a hundred thousand records is a fifth of it.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Whom to trust on `https`.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// The operating system's roots.
    System,
    /// The certificates in this PEM text, and no others.
    Pem(String),
    /// Nodes of the edge whose authority for nodes has this fingerprint, and nobody else.
    Node(Fingerprint),
}

impl Trust {
    /// Trusts what is in this file.
    pub(crate) fn file(path: &Path) -> anyhow::Result<Self> {
        let pem = crate::secret::read_file(path).with_context(|| {
            Problem::usage(
                format!("cannot read the CA in {}", path.display()),
                "give the edge's ca.pem (its data directory holds it)",
            )
        })?;
        Ok(Self::Pem(pem))
    }

    /// Trusts the file that was given, else the authority of the edge on this machine, else the operating system's
    /// roots.
    pub(crate) fn choose(given: Option<&Path>, local: Option<&LocalEdge>) -> anyhow::Result<Self> {
        given.or_else(|| local.map(|edge| edge.ca.as_path())).map_or(Ok(Self::System), Self::file)
    }

    /// How TLS is spoken to this host, and by which name it has to show a certificate.
    fn settings(&self, host: &str) -> anyhow::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        if let Self::Node(authority) = self {
            let name = ServerName::try_from(authority.join_name()).expect("it is a host name");
            return Ok((certs::tls::join_tls(*authority)?, name));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS settings")?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).context("the host is no name that a certificate can hold")?;
        Ok((Arc::new(config), name))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Self::Pem(pem) => {
                use rustls::pki_types::CertificateDer;
                use rustls::pki_types::pem::PemObject as _;
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots
                        .add(certificate.context("the CA file is not PEM")?)
                        .context("the CA file holds something else than certificates")?;
                }
            }
            // Known by what they show.
            Self::Node(_) => (),
        }
        if roots.is_empty() {
            bail!("there is no certificate to trust");
        }
        Ok(roots)
    }
}

/// What is sent with a request.
#[derive(Debug)]
pub(crate) enum Sent {
    /// As JSON.
    Json(serde_json::Value),
    /// As it is.
    Text(Bytes),
}

/// One request.
#[derive(Debug)]
pub(crate) struct Fetch<'a> {
    /// What to do.
    pub(crate) method: Method,
    /// Where: `http` or `https`.
    pub(crate) url: &'a Url,
    /// Proof of who asks, sent as a bearer token.
    pub(crate) token: Option<&'a Secret>,
    /// What goes with it.
    pub(crate) body: Option<Sent>,
    /// Whom to trust.
    pub(crate) trust: &'a Trust,
    /// From the look-up of the name to the last byte.
    pub(crate) limit: Duration,
}

impl Fetch<'_> {
    /// Does it. Whatever the status, the answer is the answer.
    pub(crate) async fn send(self) -> anyhow::Result<Response<Bytes>> {
        let (limit, url) = (self.limit, self.url.clone());
        match tokio::time::timeout(limit, self.attempt()).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow!("no answer from {} within {} s", origin_of(&url), limit.as_secs())),
        }
    }

    async fn attempt(self) -> anyhow::Result<Response<Bytes>> {
        let host = self.url.host_str().context("the URL has no host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().context("the URL has no port")?;
        let tcp = TcpStream::connect((bare, port)).await.with_context(|| format!("cannot connect to {host}:{port}"))?;
        let _ = tcp.set_nodelay(true);
        let request = self.request()?;
        if self.url.scheme() == "http" {
            return exchange(tcp, request).await;
        }
        let (config, name) = self.trust.settings(bare)?;
        let tls = tokio_rustls::TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .with_context(|| format!("TLS with {host}:{port} failed"))?;
        exchange(tls, request).await
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut path = self.url.path().to_owned();
        if let Some(query) = self.url.query() {
            path = format!("{path}?{query}");
        }
        let authority = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json;version=1")
            .header(header::USER_AGENT, concat!("snicket/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = self.token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", token.reveal()))
                .map_err(|_| anyhow!("the token holds characters that no token has"))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = match &self.body {
            Some(Sent::Json(json)) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(json.to_string())
            }
            Some(Sent::Text(text)) => {
                request = request.header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
                text.clone()
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).context("the request cannot be written")
    }
}

/// What a stranger says may come before the request is sent or after it, which the library tells apart and nobody else.
fn unanswered(error: hyper::Error) -> anyhow::Error {
    if error.is_parse() || error.is_canceled() {
        return anyhow!("what answers there does not speak HTTP; perhaps it is another port, or https:// is wanted");
    }
    error.into()
}

/// Scheme, host and port, for messages.
pub(crate) fn origin_of(url: &Url) -> &str {
    &url[..url::Position::AfterPort]
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Bytes>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(unanswered)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow!("reading the answer: {error}"))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
    .await;
    driver.abort();
    answer
}
