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
    fetch_trusting(url, proxies, system_roots).await
}

async fn fetch_trusting(url: &Url, proxies: &Proxies, roots: fn() -> RootCertStore) -> Result<Keys, FetchError> {
    timeout(LIMIT, attempt(url, proxies, roots)).await.unwrap_or(Err(FetchError::Late))
}

async fn attempt(url: &Url, proxies: &Proxies, roots: fn() -> RootCertStore) -> Result<Keys, FetchError> {
    let host = url.host_str().unwrap_or_default();
    let secure = url.scheme() == "https";
    let port = url.port_or_known_default().unwrap_or_default();
    let stream = connect(host, port, secure, proxies).await.map_err(FetchError::Connect)?;
    let answer = if secure {
        get(secured(host, stream, roots).await.map_err(FetchError::Tls)?, url).await?
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
    roots: fn() -> RootCertStore,
) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    // Made for each fetch, since fetches are rare and roots are large. Reads files.
    let settings = tokio::task::spawn_blocking(move || settings(roots())).await??;
    TlsConnector::from(Arc::new(settings)).connect(name, stream).await
}

/// What the system trusts, whatever a rule says of its origin's certificate.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn settings(roots: RootCertStore) -> std::io::Result<ClientConfig> {
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::access::refresh::tests::SET;

    static CERTIFICATE: LazyLock<CertifiedKey<KeyPair>> =
        LazyLock::new(|| generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap());

    fn roots() -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CERTIFICATE.cert.der().clone()).unwrap();
        roots
    }

    fn acceptor() -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(CERTIFICATE.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let settings = builder.with_no_client_auth().with_single_cert(vec![CERTIFICATE.cert.der().clone()], key);
        TlsAcceptor::from(Arc::new(settings.unwrap()))
    }

    /// Answers one request with this.
    async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        // Whoever has read enough leaves.
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    async fn fetched(answer: String) -> Result<Keys, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/certs", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { say(listener.accept().await.unwrap().0, answer).await });
        fetch(&url, &Proxies::none()).await
    }

    #[tokio::test]
    async fn keys_come_over_tls_from_whom_the_system_trusts() {
        for (trusted, fits) in [(roots as fn() -> RootCertStore, true), (system_roots, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let acceptor = acceptor();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await {
                    say(stream, answer("200 OK", SET)).await;
                }
            });
            let url = Url::parse(&format!("https://localhost:{port}/certs")).unwrap();
            let outcome = fetch_trusting(&url, &Proxies::none(), trusted).await;
            assert!(if fits { outcome.is_ok() } else { matches!(outcome, Err(FetchError::Tls(_))) }, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_set_of_keys_is_refused() {
        assert!(fetched(answer("200 OK", SET)).await.is_ok());
        let moved = "302 Found\r\nlocation: https://elsewhere.test/";
        assert!(matches!(fetched(answer(moved, "")).await, Err(FetchError::Status(StatusCode::FOUND))));
        assert!(matches!(fetched(answer("200 OK", "<html>")).await, Err(FetchError::Keys(KeysError::Json(_)))));
        let padded = format!("{SET}{}", " ".repeat(MAX_ANSWER));
        assert!(matches!(fetched(answer("200 OK", &padded)).await, Err(FetchError::Body(_))));
        let short = answer("200 OK", SET).split_at(200).0.to_owned();
        assert!(matches!(fetched(short).await, Err(FetchError::Body(_))));
        assert!(matches!(fetched("nonsense\r\n\r\n".to_owned()).await, Err(FetchError::Http(_))));
    }
}
