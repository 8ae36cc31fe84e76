//! Certificates on demand or of one's own, both versions of TLS, and what keys are agreed by.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use harness::{Agent, Edge, Identity, Origin, Visitor};
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::Rig;

/// Settings with these versions and groups, which trust this edge only.
fn settings(edge: &Edge, versions: &[&'static SupportedProtocolVersion], groups: &[Group]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(edge.ca()).unwrap()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = groups.to_vec();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

type Group = &'static dyn SupportedKxGroup;

#[tokio::test(flavor = "multi_thread")]
async fn any_name_of_the_domain_has_a_certificate_in_both_versions_of_tls() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    let versions: [(&'static SupportedProtocolVersion, _); 2] =
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)];
    for (version, negotiated) in versions {
        for name in [rig.agents[0].host(), rig.agents[1].host(), "never-seen-before.localhost".to_owned()] {
            let config = settings(&rig.edge, &[version], &[X25519]);
            let tcp = TcpStream::connect(rig.edge.https()).await.unwrap();
            let server = ServerName::try_from(name.clone()).unwrap();
            let mut stream =
                tokio_rustls::TlsConnector::from(Arc::new(config)).connect(server, tcp).await.expect(&name);
            assert_eq!(stream.get_ref().1.protocol_version(), Some(negotiated));
            stream
                .write_all(format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let status = if name.starts_with("never") { "HTTP/1.1 530 " } else { "HTTP/1.1 200 OK" };
            assert!(answer.starts_with(status.as_bytes()), "{name}: {}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_outside_the_domain_gets_no_certificate() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    let tcp = TcpStream::connect(rig.edge.https()).await.unwrap();
    let name = ServerName::try_from("www.example.com").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(rig.edge.visitor().tls()));
    assert!(connector.connect(name, tcp).await.is_err());
    assert_eq!(rig.ways().next().unwrap().get("/").await.status, 200, "others are not disturbed");
}

/// A handshake over TCP; the group that was agreed on.
async fn over_tcp(address: SocketAddr, name: &str, config: ClientConfig) -> NamedGroup {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
}

/// A handshake over QUIC.
async fn over_quic(address: SocketAddr, name: &str, config: ClientConfig) {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connecting = endpoint.connect(address, name).unwrap();
    tokio::time::timeout(harness::LIMIT, connecting).await.expect("an answer comes").expect(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_agreed_post_quantum_or_by_p256_on_every_port() {
    let edge = Edge::start().await;
    let with = |groups: &[Group], alpn: &[u8]| {
        let mut config = settings(&edge, &[&rustls::version::TLS13], groups);
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    };
    // Names and protocols by which agents say that they are agents.
    let tcp = [(edge.https(), "any.localhost", &b"h2"[..]), (edge.tunnel(), "h2.cftunnel.com", b"h2")];
    let udp = [(edge.https(), "any.localhost", &b"h3"[..]), (edge.tunnel(), "quic.cftunnel.com", b"argotunnel")];
    for (address, name, alpn) in tcp {
        let hybrid = NamedGroup::X25519MLKEM768;
        assert_eq!(over_tcp(address, name, with(&[X25519MLKEM768, X25519, SECP256R1], alpn)).await, hybrid, "{name}");
        assert_eq!(over_tcp(address, name, with(&[X25519MLKEM768], alpn)).await, hybrid, "{name}");
        assert_eq!(over_tcp(address, name, with(&[SECP256R1], alpn)).await, NamedGroup::secp256r1, "{name}");
    }
    for (address, name, alpn) in udp {
        for group in [X25519MLKEM768, SECP256R1] {
            over_quic(address, name, with(&[group], alpn)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ones_own_is_shown_for_its_names() {
    let files = tempfile::tempdir().unwrap();
    let identity = Identity::new(&["own.localhost"]);
    let (cert, key) = (files.path().join("own.pem"), files.path().join("own.key"));
    std::fs::write(&cert, identity.certificate()).unwrap();
    std::fs::write(&key, identity.key()).unwrap();
    let edge = Edge::start_with(&["--cert", &cert.display().to_string(), "--key", &key.display().to_string()]).await;
    let origin = Origin::start().await;
    let own = Agent::start(&edge, &origin.service(), &["--name", "own"]).await;
    let other = Agent::start(&edge, &origin.service(), &["--name", "other"]).await;
    let only_own = Visitor::new(edge.https(), edge.http(), &cert);
    assert_eq!(only_own.get(&own.url("/")).await.status, 200);
    assert_eq!(edge.visitor().get(&other.url("/")).await.status, 200, "the CA's for any other name");
}
