//! Fetching the keys of an issuer: one GET, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use super::{Keys, KeysError};
use crate::eyeballs;
use crate::proxy::Proxies;

/// From the look-up of the name to the last byte.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// The largest answer. Sets of keys, with the certificates that some issuers add, are a tenth of it.
const MAX_ANSWER: usize = 256 << 10;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {LIMIT:?}")]
    Late,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is no list of keys but status {0}")]
    Status(StatusCode),
    #[error("the answer breaks off, or is larger than {MAX_ANSWER} bytes: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Fetches the keys at this URL, `https` or `http`.
pub(super) async fn fetch(url: &Url, proxies: &Proxies) -> Result<Keys, FetchError> {
    timeout(LIMIT, attempt(url, proxies)).await.unwrap_or(Err(FetchError::Late))
}

async fn attempt(url: &Url, proxies: &Proxies) -> Result<Keys, FetchError> {
    let host = url.host_str().unwrap_or_default();
    let secure = url.scheme() == "https";
    let port = url.port_or_known_default().unwrap_or_default();
    let stream = connect(host, port, secure, proxies).await.map_err(FetchError::Connect)?;
    let answer = if secure {
        get(secured(host, stream).await.map_err(FetchError::Tls)?, url).await?
    } else {
        get(stream, url).await?
    };
    Ok(Keys::from_json(&answer)?)
}

async fn connect(host: &str, port: u16, secure: bool, proxies: &Proxies) -> std::io::Result<TcpStream> {
    match proxies.for_origin(secure, host) {
        Some(proxy) => proxy.connect(&format!("{host}:{port}"), None).await,
        None => {
            let addresses = eyeballs::resolve(host, port).await?;
            eyeballs::connect(&addresses, Some(eyeballs::STAGGER), TcpStream::connect).await
        }
    }
}

async fn secured(
    host: &str,
    stream: TcpStream,
) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    // Made for each fetch, since fetches are rare and roots are large. Reads files.
    let settings = tokio::task::spawn_blocking(settings).await??;
    TlsConnector::from(Arc::new(settings)).connect(name, stream).await
}

/// What the system trusts, whatever a rule says of its origin's certificate.
fn settings() -> std::io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(std::io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, url: &Url) -> Result<Bytes, FetchError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("snicket/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("a URL's path and host are fit for a request");
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(FetchError::Body)?;
        Ok(body.to_bytes())
    };
    // The answer may be whole before the connection has ended, or the connection end with it.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}
