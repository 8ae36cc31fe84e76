//! TLS towards origins: whom a rule trusts. Whatever else it trusts, it trusts the edge's authority for origins, too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use certs::{Judge, Shown, judged_by};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::PrepareError;
use crate::ingress::OriginOptions;

/// The largest file of roots: ten times what systems ship.
const MAX_CA_POOL: u64 = 4 << 20;

/// The system's roots, read at most once for all rules of a configuration, and the settings made of them, which rules
/// share.
pub(super) struct Trust {
    edge: EdgeAuthority,
    system: Option<RootCertStore>,
    made: HashMap<(Trusted, bool), Arc<ClientConfig>>,
}

/// Whom a rule trusts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Trusted {
    Anyone,
    System { and: Option<PathBuf> },
}

/// The edge's authority for origins, once an edge has named it. All connections to origins, also those of rules that were
/// prepared before, heed it from then on.
#[derive(Debug, Clone, Default)]
pub(crate) struct EdgeAuthority(Arc<ArcSwapOption<NamedAuthority>>);

#[derive(Debug)]
struct NamedAuthority {
    pem: String,
    verifier: Arc<WebPkiServerVerifier>,
}

impl EdgeAuthority {
    /// Trusts the certificates in this PEM text, and no longer those of a text before; answers whether there was another one.
    ///
    /// # Errors
    /// There is none, or one cannot be used; it stays as it was.
    pub(crate) fn learn(&self, pem: &str) -> Result<bool, String> {
        if self.0.load().as_ref().is_some_and(|known| known.pem == pem) {
            return Ok(false);
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        let verifier = verifier(roots).ok_or("it holds no certificate in PEM form")?;
        Ok(self.0.swap(Some(Arc::new(NamedAuthority { pem: pem.to_owned(), verifier }))).is_some())
    }
}

/// Verifies by these roots; `None`: there is none.
fn verifier(roots: RootCertStore) -> Option<Arc<WebPkiServerVerifier>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
}

impl Trust {
    /// Trusts the edge's authority, too, whenever that becomes known.
    pub(super) fn new(edge: EdgeAuthority) -> Self {
        Self { edge, system: None, made: HashMap::new() }
    }

    /// The settings for the origin of one rule. With `http2`, HTTP/2 is offered.
    pub(super) fn settings(&mut self, options: &OriginOptions, http2: bool) -> Result<Arc<ClientConfig>, PrepareError> {
        let trusted =
            if options.no_tls_verify { Trusted::Anyone } else { Trusted::System { and: options.ca_pool.clone() } };
        let key = (trusted, http2);
        if let Some(made) = self.made.get(&key) {
            return Ok(Arc::clone(made));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut settings = match &key.0 {
            Trusted::Anyone => {
                builder.dangerous().with_custom_certificate_verifier(judged_by(AnyCertificate)).with_no_client_auth()
            }
            Trusted::System { and } => {
                let mut roots = self.system().clone();
                if let Some(path) = and {
                    add_file(&mut roots, path)?;
                }
                let usual = verifier(roots);
                let judge = UsualOrEdge { usual, edge: self.edge.clone() };
                builder.dangerous().with_custom_certificate_verifier(judged_by(judge)).with_no_client_auth()
            }
        };
        if http2 {
            settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let settings = Arc::new(settings);
        self.made.insert(key, Arc::clone(&settings));
        Ok(settings)
    }

    /// A system without any root is no error here: the handshake says so, and rules with `caPool` work.
    fn system(&mut self) -> &RootCertStore {
        self.system.get_or_insert_with(|| {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a part of the system's certificates cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
            roots
        })
    }
}

/// A pushed configuration names this file too, so it is read only as far as roots go: no device, no endless file.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), PrepareError> {
    let wrong = |reason: String| PrepareError::CaPool { path: path.to_owned(), reason };
    let metadata = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_CA_POOL {
        return Err(wrong(format!("it is no file of at most {MAX_CA_POOL} bytes")));
    }
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut any = false;
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file.take(MAX_CA_POOL))) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        any = true;
    }
    if any { Ok(()) } else { Err(wrong("the file holds no certificate in PEM form".to_owned())) }
}

/// What is verified as ever; and what that knows no issuer of, by the edge's authority.
#[derive(Debug)]
struct UsualOrEdge {
    /// `None`: there is no root at all, which the handshake says.
    usual: Option<Arc<WebPkiServerVerifier>>,
    edge: EdgeAuthority,
}

impl Judge for UsualOrEdge {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), rustls::Error> {
        const UNKNOWN: rustls::Error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let usual = self.usual.as_deref().map_or(Err(UNKNOWN), |usual| shown.verified_by(usual));
        match (usual, self.edge.0.load().as_ref()) {
            (Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), Some(edge)) => {
                shown.verified_by(&edge.verifier)
            }
            (usual, _) => usual,
        }
    }
}

/// `noTLSVerify`: any certificate will do, but the peer must hold its key.
#[derive(Debug)]
struct AnyCertificate;

impl Judge for AnyCertificate {
    fn judge(&self, _: &Shown<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_pool_that_is_no_plain_file_is_refused_unread() {
        let directory = tempfile::tempdir().unwrap();
        let endless = directory.path().join("endless");
        File::create(&endless).unwrap().set_len(MAX_CA_POOL + 1).unwrap();
        for path in [Path::new("/dev/zero"), directory.path(), &endless] {
            let error = add_file(&mut RootCertStore::empty(), path).unwrap_err().to_string();
            assert!(error.contains("no file of at most"), "{error}");
        }
        let empty = directory.path().join("empty");
        File::create(&empty).unwrap();
        let error = add_file(&mut RootCertStore::empty(), &empty).unwrap_err().to_string();
        assert!(error.contains("no certificate"), "{error}");
    }
}
