//! Certificates of a public authority, as handshakes see them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use certs::acme::{Found, PublicCertificates, Tally, Waiting};
use certs::{Authority, Certificates, Names, tls};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A version, a chain and its key.
type Entry = (u64, String, String);

#[derive(Default)]
struct Shelf {
    certificates: Mutex<HashMap<String, Entry>>,
    questions: Mutex<HashMap<String, String>>,
}

impl PublicCertificates for Shelf {
    fn find(&self, name: &str, have: Option<u64>) -> Found {
        match self.certificates.lock().unwrap().get(name) {
            None => Found::Nothing,
            Some((version, ..)) if have == Some(*version) => Found::Same,
            Some((version, chain, key)) => {
                Found::New { version: *version, chain: chain.as_str().into(), key: key.as_str().into() }
            }
        }
    }

    fn key_authorization(&self, name: &str) -> Option<String> {
        self.questions.lock().unwrap().get(name).cloned()
    }

    fn awaited(&self, _name: &str) -> Option<Waiting> {
        None
    }

    fn tally(&self) -> Tally {
        Tally::default()
    }
}

struct Node {
    _directory: TempDir,
    certificates: Arc<Certificates>,
    shelf: Arc<Shelf>,
    authority: Issuer<'static, KeyPair>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(directory.path(), SystemTime::now()).unwrap());
        let names = Names { domains: vec!["example.test".into()], addresses: vec![] };
        let certificates = Certificates::new(authority, names).unwrap();
        let shelf = Arc::<Shelf>::default();
        certificates.use_public(shelf.clone());
        let authority = Issuer::new(CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
        Self { _directory: directory, certificates, shelf, authority }
    }

    /// Puts a certificate there that ends then, and answers it as DER.
    fn put(&self, name: &str, version: u64, not_after: SystemTime) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - 9 * DAY).into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let entry = (version, certificate.pem(), key.serialize_pem());
        self.shelf.certificates.lock().unwrap().insert(name.to_owned(), entry);
        certificate.der().to_vec()
    }

    /// What a visitor with this ALPN is shown, whoever signed it.
    async fn shown(&self, name: &str, alpn: &[&[u8]]) -> Option<Vec<u8>> {
        let provider = tls::provider();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let acceptor = TlsAcceptor::from(tls::visitor_tls(&self.certificates).unwrap());
        let (dialled, accepted) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let (dialled, _) = (dialled.ok()?, accepted.ok()?);
        let (_, connection) = dialled.get_ref();
        assert_eq!(connection.alpn_protocol(), alpn.last().copied());
        Some(connection.peer_certificates()?.first()?.to_vec())
    }
}

/// Not `certs::judged_by`, which has signatures verified: the library does so for no certificate with the critical extension that
/// authorities look for (RFC 8737 section 3).
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_public_certificate_is_shown_while_it_is_valid() {
    let node = Node::new();
    let now = SystemTime::now();
    let own = node.shown("a.example.test", &[b"h2"]).await.unwrap();

    let first = node.put("a.example.test", 1, now + DAY);
    assert_eq!(node.shown("A.example.test", &[b"h2"]).await.unwrap(), first);
    let second = node.put("a.example.test", 2, now + DAY);
    assert_eq!(node.shown("a.example.test", &[b"h2"]).await.unwrap(), second);
    // One that has ended is worse than the edge's own, which some trust.
    node.put("a.example.test", 3, now - DAY);
    assert_eq!(node.shown("a.example.test", &[b"h2"]).await.unwrap(), own);
    let elsewhere = node.put("elsewhere.test", 1, now + DAY);
    assert_eq!(node.shown("elsewhere.test", &[b"h2"]).await.unwrap(), elsewhere);
    assert!(node.shown("nowhere.test", &[b"h2"]).await.is_none());
}

#[tokio::test]
async fn one_that_cannot_be_read_is_none() {
    let node = Node::new();
    let now = SystemTime::now();
    let own = node.shown("a.example.test", &[b"h2"]).await.unwrap();
    node.put("a.example.test", 1, now + DAY);
    let key = node.shelf.certificates.lock().unwrap()["a.example.test"].2.clone();
    node.put("a.example.test", 2, now + DAY);
    let entries = [
        ("key of another", None, Some(key)),
        ("no chain", Some(String::new()), None),
        ("no PEM", Some("-----BEGIN CERTIFICATE-----\nx".into()), None),
        ("too large", Some("x".repeat(100_000)), None),
    ];
    let (_, chain, good) = node.shelf.certificates.lock().unwrap()["a.example.test"].clone();
    for (version, (what, bad_chain, bad_key)) in (3..).zip(entries) {
        let entry = (version, bad_chain.unwrap_or_else(|| chain.clone()), bad_key.unwrap_or_else(|| good.clone()));
        node.shelf.certificates.lock().unwrap().insert("a.example.test".into(), entry);
        assert_eq!(node.shown("a.example.test", &[b"h2"]).await.unwrap(), own, "{what}");
    }
}

#[tokio::test]
async fn who_looks_whether_a_name_is_ours_gets_the_answer_and_nobody_else() {
    let node = Node::new();
    node.shelf.questions.lock().unwrap().insert("a.example.test".into(), "token.thumb".into());
    let answer = node.shown("a.example.test", &[b"acme-tls/1"]).await.unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&answer).unwrap();
    let extension = parsed.extensions().iter().find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let extension = extension.expect("it has the answer");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"token.thumb");
    // An octet string of 32 bytes.
    assert_eq!((extension.critical, &extension.value[..2], &extension.value[2..]), (true, &[4, 32][..], hash.as_ref()));

    assert!(node.shown("b.example.test", &[b"acme-tls/1"]).await.is_none(), "nobody asked for it");
    let usual = node.shown("a.example.test", &[b"acme-tls/1", b"h2"]).await.unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&usual).unwrap();
    assert!(!parsed.extensions().iter().any(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31"));
}
