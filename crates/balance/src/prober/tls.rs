use std::sync::{Arc, Mutex, PoisonError};

use certs::{Shown, judged_by};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The settings of TLS towards members.
pub(crate) struct Tls {
    system: RootCertStore,
    any: ClientConfig,
    verified: Mutex<Verified>,
}

/// By the system's roots and the edge's own authority for origins, which is this.
struct Verified {
    authority: Option<String>,
    settings: ClientConfig,
}

/// `allow_insecure`: any certificate will do.
#[derive(Debug)]
struct AnyCertificate;

impl certs::Judge for AnyCertificate {
    fn judge(&self, _: &Shown<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

impl Tls {
    /// By the system's roots, as they are now.
    pub(crate) fn new() -> Self {
        let mut system = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a part of the system's certificates cannot be read");
        }
        system.add_parsable_certificates(found.certs);
        let any =
            builder().dangerous().with_custom_certificate_verifier(judged_by(AnyCertificate)).with_no_client_auth();
        let verified = Verified { authority: None, settings: verified(system.clone()) };
        Self { system, any, verified: Mutex::new(verified) }
    }

    /// For one question that offers this protocol. `authority` is the PEM text of the edge's own authority for origins.
    pub(crate) fn settings(&self, is_insecure: bool, protocol: &[u8], authority: Option<String>) -> Arc<ClientConfig> {
        let mut settings = if is_insecure { self.any.clone() } else { self.verified(authority) };
        settings.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(settings)
    }

    fn verified(&self, authority: Option<String>) -> ClientConfig {
        let mut kept = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.authority != authority {
            let mut roots = self.system.clone();
            let text = authority.as_deref().unwrap_or_default().as_bytes();
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(text).flatten());
            *kept = Verified { authority, settings: verified(roots) };
        }
        kept.settings.clone()
    }
}

fn verified(roots: RootCertStore) -> ClientConfig {
    builder().with_root_certificates(roots).with_no_client_auth()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.expect("aws-lc-rs has both versions of TLS")
}
