use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::provider::provider;

/// What the other end of a handshake has shown of itself.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its own certificate.
    pub leaf: &'a CertificateDer<'a>,
    /// Those that it sent along.
    pub chain: &'a [CertificateDer<'a>],
    /// Who it is meant to be.
    pub name: &'a ServerName<'a>,
    stapled: &'a [u8],
    now: UnixTime,
}

impl Shown<'_> {
    /// Whether these roots vouch for it.
    ///
    /// # Errors
    /// They do not, and why.
    pub fn verified_by(&self, roots: &WebPkiServerVerifier) -> Result<(), Error> {
        roots.verify_server_cert(self.leaf, self.chain, self.name, self.stapled, self.now).map(drop)
    }
}

/// Decides whether the other end is who it is meant to be, where that is not for a list of roots alone.
pub trait Judge: fmt::Debug + Send + Sync + 'static {
    /// Whether it is.
    ///
    /// # Errors
    /// It is not, and why.
    fn judge(&self, shown: &Shown<'_>) -> Result<(), Error>;
}

/// A verifier for rustls that leaves the certificate to this judge. That the other end holds its key is verified as ever.
pub fn judged_by(judge: impl Judge) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Judged { judge, provider: provider() })
}

#[derive(Debug)]
struct Judged<J> {
    judge: J,
    provider: Arc<CryptoProvider>,
}

impl<J: Judge> ServerCertVerifier for Judged<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.judge(&Shown { leaf, chain, name, stapled, now })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
