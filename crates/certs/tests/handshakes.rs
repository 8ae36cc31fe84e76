//! Every kind of handshake that the edge answers and that an agent makes, against real TLS and QUIC peers.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{Authority, Certificates, Fingerprint, Names, NewSharedAuthority, NodeCertificate, SharedAuthority, tls};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{CipherSuite, ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};

struct Node {
    directory: TempDir,
    authority: Arc<Authority>,
    certificates: Arc<Certificates>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(directory.path(), SystemTime::now()).unwrap());
        let names = Names { domains: vec!["example.test".into()], addresses: vec!["192.0.2.7".parse().unwrap()] };
        let certificates = Certificates::new(authority.clone(), names).unwrap();
        Self { directory, authority, certificates }
    }

    fn roots(&self) -> tls::Roots {
        tls::Roots::Pem(self.authority.certificate_pem().into())
    }

    /// A visitor that offers these key exchange groups and protocols.
    fn visitor(&self, groups: &[&'static dyn SupportedKxGroup], alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

type Stream = TlsStream<tokio::io::DuplexStream>;

async fn shake(
    server: &Arc<ServerConfig>,
    client: impl Into<Arc<ClientConfig>>,
    name: &str,
) -> std::io::Result<Stream> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(client.into());
    let acceptor = TlsAcceptor::from(server.clone());
    let (dialled, _accepted) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    dialled
}

fn group(stream: &Stream) -> NamedGroup {
    stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
}

#[tokio::test]
async fn visitors_get_the_best_that_they_offer() {
    let node = Node::new();
    let server = tls::visitor_tls(&node.certificates).unwrap();

    let offers_h2 = node.visitor(&[X25519MLKEM768, X25519], &[b"h2", b"http/1.1"]);
    let modern = shake(&server, offers_h2, "a.example.test").await.unwrap();
    assert_eq!(modern.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(group(&modern), NamedGroup::X25519MLKEM768);

    let plain = shake(&server, node.visitor(&[X25519], &[b"http/1.1"]), "deep.a.example.test").await.unwrap();
    assert_eq!((group(&plain), plain.get_ref().1.alpn_protocol()), (NamedGroup::X25519, Some(&b"http/1.1"[..])));
    let p256 = shake(&server, node.visitor(&[SECP256R1], &[]), "example.test").await.unwrap();
    assert_eq!((group(&p256), p256.get_ref().1.alpn_protocol()), (NamedGroup::secp256r1, None));
}

/// A node whose own certificate was made then, by this authority.
fn node_of(authority: &SharedAuthority, now: SystemTime) -> Node {
    let node = Node::new();
    node.certificates.use_node(NodeCertificate::issue(authority, "0123", now).unwrap(), None);
    node
}

fn authority() -> SharedAuthority {
    let made = NewSharedAuthority::generate("test", SystemTime::now()).unwrap();
    SharedAuthority::load(&made.certificate, &made.key).unwrap()
}

#[tokio::test]
async fn a_machine_that_wants_to_join_trusts_the_authority_it_was_told_of_alone() {
    let now = SystemTime::now();
    let (ours, other) = (authority(), authority());
    let known = Fingerprint::of(ours.certificate());
    let (joiner, name) = (tls::join_tls(known).unwrap(), known.join_name());
    let good = tls::api_tls(&node_of(&ours, now).certificates).unwrap();
    shake(&good, joiner.clone(), &name).await.unwrap();

    let refused = |outcome: std::io::Result<Stream>| outcome.err().map(|error| error.to_string()).unwrap();
    let foreign = tls::api_tls(&node_of(&other, now).certificates).unwrap();
    assert!(refused(shake(&foreign, joiner.clone(), &name).await).contains("UnknownIssuer"));
    let old = tls::api_tls(&node_of(&ours, now - Duration::from_secs(4 * 24 * 3600)).certificates).unwrap();
    assert!(refused(shake(&old, joiner.clone(), &name).await).contains("expired"));
    assert!(shake(&good, joiner.clone(), "4567.node.snicket.internal").await.is_err());
    let none_yet = tls::api_tls(&Node::new().certificates).unwrap();
    assert!(shake(&none_yet, joiner.clone(), &name).await.is_err());
    // The API's usual certificate is none, and visitors' listeners do not show the node's.
    assert!(shake(&good, joiner.clone(), "example.test").await.is_err());
    let visitors = tls::visitor_tls(&node_of(&ours, now).certificates).unwrap();
    assert!(shake(&visitors, joiner, &name).await.is_err());
}

#[tokio::test]
async fn a_former_authority_is_shown_to_whoever_knows_that_one() {
    let now = SystemTime::now();
    let [former, own, other] = [authority(), authority(), authority()];
    let issue = |authority: &SharedAuthority| NodeCertificate::issue(authority, "0123", now).unwrap();
    let node = Node::new();
    let server = tls::api_tls(&node.certificates).unwrap();
    let asks = async |authority: &SharedAuthority| {
        let known = Fingerprint::of(authority.certificate());
        shake(&server, tls::join_tls(known).unwrap(), &known.join_name()).await.map(drop).map_err(|e| e.to_string())
    };
    node.certificates.use_node(issue(&own), Some(issue(&former)));
    assert_eq!((asks(&own).await, asks(&former).await), (Ok(()), Ok(())));
    node.certificates.use_node(issue(&own), None);
    assert_eq!(asks(&own).await, Ok(()));
    for stranger in [&former, &other] {
        assert!(asks(stranger).await.unwrap_err().contains("UnknownIssuer"));
    }
}

/// Whoever has seen the authority's certificate, which is no secret, may show it behind one of his own.
#[tokio::test]
async fn a_stranger_who_shows_the_right_authority_beside_his_own_certificate_is_not_trusted() {
    let (ours, other) = (authority(), authority());
    let known = Fingerprint::of(ours.certificate());
    let (joiner, name) = (tls::join_tls(known).unwrap(), known.join_name());
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec![name.clone()];
    let leaf = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    for authority in [ours.certificate(), other.certificate()] {
        let private = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let server = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), authority.clone()], private.into())
            .unwrap();
        assert!(shake(&Arc::new(server), joiner.clone(), &name).await.is_err());
    }
}

#[tokio::test]
async fn old_visitors_and_visitors_by_address_are_served() {
    let node = Node::new();
    let server = tls::visitor_tls(&node.certificates).unwrap();
    for address in ["127.0.0.1", "::1", "192.0.2.7"] {
        shake(&server, node.visitor(&[X25519], &[]), address).await.unwrap();
    }
    assert!(shake(&server, node.visitor(&[X25519], &[]), "192.0.2.8").await.is_err());

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(node.authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let old = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = shake(&server, old, "a.example.test").await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn foreign_names_are_refused() {
    let node = Node::new();
    let visitor = || node.visitor(&[X25519], &[]);
    let for_visitors = tls::visitor_tls(&node.certificates).unwrap();
    let for_agents = tls::tunnel_tls(&node.certificates).unwrap();
    for name in ["example.com", "notexample.test", "test", "h2.cftunnel.com"] {
        let error = shake(&for_visitors, visitor(), name).await.unwrap_err();
        assert!(error.to_string().contains("alert"), "{name}: {error}");
    }
    assert!(shake(&for_agents, visitor(), "www.cftunnel.com").await.is_err());
}

#[tokio::test]
async fn agents_are_served_without_alpn_under_their_three_names() {
    let node = Node::new();
    let server = tls::tunnel_tls(&node.certificates).unwrap();
    for name in [tls::TUNNEL_HTTP2_NAME, tls::TUNNEL_QUIC_NAME, tls::TUNNEL_PROBE_NAME, "edge.example.test"] {
        for post_quantum in [false, true] {
            let stream = shake(&server, tls::agent_tls(&node.roots(), post_quantum).unwrap(), name).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), None);
            assert_eq!(group(&stream), NamedGroup::X25519MLKEM768);
            let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        }
    }
    let p256 = shake(&server, node.visitor(&[SECP256R1], &[]), tls::TUNNEL_HTTP2_NAME).await.unwrap();
    assert_eq!(group(&p256), NamedGroup::secp256r1);
    let offers_h2 = shake(&server, node.visitor(&[SECP256R1], &[b"h2"]), tls::TUNNEL_HTTP2_NAME).await.unwrap();
    assert_eq!(offers_h2.get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn an_agent_refuses_an_edge_that_its_roots_do_not_vouch_for() {
    let (node, stranger) = (Node::new(), Node::new());
    let server = tls::tunnel_tls(&node.certificates).unwrap();
    let name = tls::TUNNEL_HTTP2_NAME;
    let error = shake(&server, tls::agent_tls(&stranger.roots(), false).unwrap(), name).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    let p256_only = {
        let provider = CryptoProvider { kx_groups: vec![SECP256R1], ..aws_lc_rs::default_provider() };
        let mut config = ServerConfig::clone(&server);
        config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(config.cert_resolver);
        Arc::new(config)
    };
    shake(&p256_only, tls::agent_tls(&node.roots(), false).unwrap(), name).await.unwrap();
    assert!(shake(&p256_only, tls::agent_tls(&node.roots(), true).unwrap(), name).await.is_err());
}

#[test]
fn roots_that_are_none_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("roots.pem");
    let refused = |roots: &tls::Roots| tls::agent_tls(roots, false).unwrap_err().to_string();
    assert!(refused(&tls::Roots::File(path.clone())).contains("roots.pem"));
    fs::write(&path, "nothing of that kind").unwrap();
    assert!(refused(&tls::Roots::File(path.clone())).contains("no certificate in it"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refused(&tls::Roots::File(path)).contains("cannot be used as a root"));
    assert!(refused(&tls::Roots::Pem(String::new())).contains("no certificate in it"));
}

#[tokio::test]
async fn a_returning_visitor_resumes_its_session() {
    let node = Node::new();
    let server = tls::visitor_tls(&node.certificates).unwrap();
    let client = Arc::new(node.visitor(&[X25519], &[]));
    for expected in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = TlsConnector::from(client.clone());
        let acceptor = TlsAcceptor::from(server.clone());
        let name = ServerName::try_from("a.example.test").unwrap();
        let (mut dialled, mut accepted) =
            tokio::try_join!(connector.connect(name, near), acceptor.accept(far)).unwrap();
        // The ticket comes with the first bytes after the handshake.
        tokio::io::AsyncWriteExt::write_all(&mut accepted, b"x").await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut dialled, &mut [0]).await.unwrap();
        assert_eq!(dialled.get_ref().1.handshake_kind(), Some(expected));
    }
}

async fn quic(
    server: Arc<quinn::crypto::rustls::QuicServerConfig>,
    client: Arc<QuicClientConfig>,
    name: &str,
) -> Result<Option<Vec<u8>>, quinn::ConnectionError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let edge = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(server), loopback).unwrap();
    let agent = quinn::Endpoint::client(loopback).unwrap();
    let connecting = agent.connect_with(quinn::ClientConfig::new(client), edge.local_addr().unwrap(), name).unwrap();
    let accepting = async { edge.accept().await.unwrap().await };
    let (dialled, _accepted) = tokio::join!(connecting, accepting);
    let data = dialled?.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
    Ok(data.protocol)
}

#[tokio::test]
async fn agents_and_visitors_are_served_over_quic() {
    let node = Node::new();
    let tunnel = tls::tunnel_quic(&node.certificates).unwrap();
    for post_quantum in [false, true] {
        let agent = tls::agent_quic(&node.roots(), post_quantum).unwrap();
        let protocol = quic(tunnel.clone(), agent, tls::TUNNEL_QUIC_NAME).await.unwrap();
        assert_eq!(protocol.as_deref(), Some(tls::TUNNEL_ALPN));
    }
    let visitor = |alpn: &[u8]| Arc::new(QuicClientConfig::try_from(node.visitor(&[X25519], &[alpn])).unwrap());
    let visitors = tls::visitor_quic(&node.certificates).unwrap();
    let protocol = quic(visitors.clone(), visitor(b"h3"), "a.example.test").await.unwrap();
    assert_eq!(protocol.as_deref(), Some(&b"h3"[..]));
    assert!(quic(visitors.clone(), visitor(b"h3"), "example.com").await.is_err());
    assert!(quic(visitors, visitor(b"argotunnel"), "a.example.test").await.is_err());
    assert!(quic(tunnel, visitor(b"h3"), tls::TUNNEL_QUIC_NAME).await.is_err());
}

/// Writes a certificate of its own making for these names, and its key.
fn write_own(directory: &Path, names: &[&str]) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    let own = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(directory.join("own.pem"), own.cert.pem()).unwrap();
    fs::write(directory.join("own.key"), own.signing_key.serialize_pem()).unwrap();
    own
}

async fn shown(server: &Arc<ServerConfig>, name: &str, authority: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    shake(server, client, name).await.is_ok()
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_shown_where_it_fits_and_reloaded() {
    let node = Node::new();
    let directory = node.directory.path();
    let (chain, key) = (directory.join("own.pem"), directory.join("own.key"));
    let server = tls::visitor_tls(&node.certificates).unwrap();
    let ca = CertificateDer::from_pem_slice(node.authority.certificate_pem().as_bytes()).unwrap();

    let first = write_own(directory, &["www.example.test", "*.example.org"]);
    node.certificates.use_own(&chain, &key).unwrap();
    assert!(shown(&server, "www.example.test", first.cert.der()).await);
    assert!(shown(&server, "a.example.org", first.cert.der()).await);
    assert!(shown(&server, "other.example.test", &ca).await, "the rest is still made on demand");

    assert!(!node.certificates.reload_own().unwrap(), "nothing has changed");
    let second = write_own(directory, &["www.example.test", "a-longer-name-so-that-the-length-differs.example.test"]);
    assert!(node.certificates.reload_own().unwrap());
    assert!(shown(&server, "www.example.test", second.cert.der()).await);

    fs::write(&key, "half a k").unwrap();
    assert!(node.certificates.reload_own().unwrap_err().to_string().contains("own.key"));
    assert!(shown(&server, "www.example.test", second.cert.der()).await, "what was in force stays so");
}

#[test]
fn a_certificate_of_ones_own_that_cannot_be_used_is_refused_by_name() {
    let node = Node::new();
    let directory = node.directory.path();
    let (chain, key) = (directory.join("own.pem"), directory.join("own.key"));
    let refused = || node.certificates.use_own(&chain, &key).unwrap_err().to_string();
    assert!(refused().contains("own.pem"));

    write_own(directory, &["www.example.test"]);
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(&key, other.serialize_pem()).unwrap();
    let mismatch = refused();
    assert!(mismatch.contains("does not belong") && mismatch.contains("own.key"), "{mismatch}");
    fs::write(&chain, other.serialize_pem()).unwrap();
    assert!(refused().contains("no certificate in it"));

    let mut params = rcgen::CertificateParams::new(vec!["www.example.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    fs::write(&chain, params.self_signed(&other).unwrap().pem()).unwrap();
    assert!(refused().contains("expired"));
}

/// The chain as another implementation of TLS sees it. Passed over where the `openssl` command is not installed.
#[tokio::test]
async fn openssl_trusts_what_we_show() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let node = Node::new();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(tls::tunnel_tls(&node.certificates).unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // The peer says no more than hello.
            let _ = acceptor.accept(stream).await;
        }
    });
    for (name, groups) in [("h2.cftunnel.com", "P-256"), ("deep.a.example.test", "X25519")] {
        let authority = node.authority.certificate_path().to_owned();
        let address = address.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new("openssl")
                .args(["s_client", "-connect", &address, "-servername", name, "-verify_hostname", name])
                .args(["-verify_return_error", "-x509_strict", "-groups", groups, "-no-CApath", "-no-CAstore"])
                .arg("-CAfile")
                .arg(authority)
                .stdin(Stdio::null())
                .output()
        });
        let output = output.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    serving.abort();
}
