//! Certificates on demand, and both versions of TLS.

use std::sync::Arc;

use harness::Origin;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn any_name_of_the_domain_has_a_certificate_in_both_versions_of_tls() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    let versions: [(&'static SupportedProtocolVersion, _); 2] =
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)];
    for (version, negotiated) in versions {
        for name in [rig.agents[0].host(), rig.agents[1].host(), "never-seen-before.localhost".to_owned()] {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(rig.edge.ca()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
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
