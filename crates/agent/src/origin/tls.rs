//! TLS towards origins: whom a rule trusts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::PrepareError;
use crate::ingress::OriginOptions;

/// The largest file of roots: ten times what systems ship.
const MAX_CA_POOL: u64 = 4 << 20;

/// The system's roots, read at most once for all rules of a configuration, and the settings made of them, which rules
/// share.
#[derive(Default)]
pub(super) struct Trust {
    system: Option<RootCertStore>,
    made: HashMap<(Trusted, bool), Arc<ClientConfig>>,
}

/// Whom a rule trusts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Trusted {
    Anyone,
    System { and: Option<PathBuf> },
}

impl Trust {
    /// The settings for the origin of one rule. With `http2`, HTTP/2 is offered.
    pub(super) fn settings(&mut self, options: &OriginOptions, http2: bool) -> Result<Arc<ClientConfig>, PrepareError> {
        let trusted =
            if options.no_tls_verify { Trusted::Anyone } else { Trusted::System { and: options.ca_pool.clone() } };
        let key = (trusted, http2);
        if let Some(made) = self.made.get(&key) {
            return Ok(Arc::clone(made));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let mut settings = match &key.0 {
            Trusted::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
            Trusted::System { and } => {
                let mut roots = self.system().clone();
                if let Some(path) = and {
                    add_file(&mut roots, path)?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
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

/// `noTLSVerify`: any certificate will do, but the peer must hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
