use std::sync::Arc;

use certs::{Shown, judged_by};
use rustls::{ClientConfig, RootCertStore};

/// The settings of TLS towards members.
pub(crate) struct Tls {
    verified: ClientConfig,
    any: ClientConfig,
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
    /// By the system's roots.
    pub(crate) fn new() -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a part of the system's certificates cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        let builder = || {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            builder.expect("aws-lc-rs has both versions of TLS")
        };
        let any = builder().dangerous().with_custom_certificate_verifier(judged_by(AnyCertificate));
        Self { verified: builder().with_root_certificates(roots).with_no_client_auth(), any: any.with_no_client_auth() }
    }

    /// For one question that offers this protocol.
    pub(crate) fn settings(&self, is_insecure: bool, protocol: &[u8]) -> Arc<ClientConfig> {
        let settings = if is_insecure { &self.any } else { &self.verified };
        let mut settings = settings.clone();
        settings.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(settings)
    }
}
