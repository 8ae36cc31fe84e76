//! Origins behind TLS and Unix sockets.

use std::sync::Arc;

use http::Request;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use wire::{Body, ExchangeError, OriginFault};

use crate::edge::{Edge, text};
use crate::origin::{Origin, serve};
use crate::{config, everything_to, started};

/// Accepts TLS with a certificate for these names, which is answered in PEM form too.
pub(crate) fn acceptor(names: &[&str], http2: bool) -> (TlsAcceptor, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    if http2 {
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    (TlsAcceptor::from(Arc::new(settings)), cert.pem())
}

/// An HTTPS origin whose certificate is for these names; answers its certificate in PEM form too. The description that
/// it gives of a request tells the version of HTTP.
async fn https(names: &[&str], http2: bool) -> (Origin, String) {
    let (acceptor, pem) = acceptor(names, http2);
    let origin = Origin::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    })
    .await;
    (origin, pem)
}

/// The origin's description of a request to `host`, or the fault.
async fn visit(service: &str, options: &str, host: &str) -> Result<Value, OriginFault> {
    let edge = Edge::start().await;
    let _agent = started(config(&[&edge], &everything_to(service, options))).await;
    let request = Request::get(format!("https://{host}/")).body(Body::empty()).unwrap();
    match edge.exchange(request).await {
        Ok(response) => Ok(serde_json::from_str(&text(response.into_body()).await).unwrap()),
        Err(ExchangeError::Origin(error)) => Err(error.fault),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn certificates_are_checked_as_the_rule_says() {
    let (origin, pem) = https(&["localhost", "inner.test", "app.test"], false).await;
    let directory = tempfile::tempdir().unwrap();
    let pool = directory.path().join("pool.pem");
    std::fs::write(&pool, pem).unwrap();
    let pool = format!(r#""caPool":"{}""#, pool.display());
    let by_name = format!("https://localhost:{}", origin.address.port());
    let by_address = format!("https://{}", origin.address);

    assert_eq!(visit(&by_name, "", "app.test").await.unwrap_err(), OriginFault::TlsCertificate);
    assert!(visit(&by_name, r#""noTLSVerify":true"#, "app.test").await.is_ok());
    assert!(visit(&by_name, &pool, "app.test").await.is_ok());
    let wrong_name = visit(&by_address, &pool, "app.test").await;
    assert_eq!(wrong_name.unwrap_err(), OriginFault::TlsCertificate);
    assert!(visit(&by_address, &format!(r#"{pool},"originServerName":"inner.test""#), "app.test").await.is_ok());
    assert!(visit(&by_address, &format!(r#"{pool},"matchSNItoHost":true"#), "app.test").await.is_ok());
    let other_host = visit(&by_address, &format!(r#"{pool},"matchSNItoHost":true"#), "other.test").await;
    assert_eq!(other_host.unwrap_err(), OriginFault::TlsCertificate);
}

#[tokio::test]
async fn http2_is_spoken_only_where_both_want_it() {
    for (offered, wanted, spoken) in
        [(true, true, "HTTP/2.0"), (true, false, "HTTP/1.1"), (false, true, "HTTP/1.1"), (false, false, "HTTP/1.1")]
    {
        let (origin, _) = https(&["localhost"], offered).await;
        let service = format!("https://{}", origin.address);
        let options = format!(r#""noTLSVerify":true,"http2Origin":{wanted}"#);
        let seen = visit(&service, &options, "app.test").await.unwrap();
        assert_eq!(seen["version"], spoken, "offered {offered}, wanted {wanted}");
        let authority = if spoken == "HTTP/2.0" { &seen["authority"] } else { &seen["headers"]["host"] };
        assert_eq!(authority, "app.test");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_serve_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let seen = visit(&format!("unix:{}", path.display()), "", "app.test").await.unwrap();
    assert_eq!(seen["headers"]["host"], "app.test");
    serving.abort();
}

#[cfg(unix)]
#[tokio::test]
async fn tls_is_spoken_over_unix_sockets_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let pool = directory.path().join("pool.pem");
    let (acceptor, pem) = acceptor(&["localhost"], false);
    std::fs::write(&pool, pem).unwrap();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream));
            }
        }
    });
    let service = format!("unix+tls:{}", path.display());
    let seen = visit(&service, &format!(r#""caPool":"{}""#, pool.display()), "app.test").await.unwrap();
    assert_eq!(seen["headers"]["host"], "app.test");
    assert_eq!(visit(&service, "", "app.test").await.unwrap_err(), OriginFault::TlsCertificate);
    serving.abort();
}
