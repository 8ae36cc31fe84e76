use std::sync::Arc;

use aws_lc_rs::digest;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::provider::provider;

/// What an authority that looks by TLS speaks, and nobody else (RFC 8737 section 4).
pub(crate) const ACME_ALPN: &[u8] = b"acme-tls/1";

/// The certificate that shows an authority that a name is ours (RFC 8737 section 3). Made for each look: there are few.
pub(crate) fn answering(name: &str, key_authorization: &str) -> Option<Arc<CertifiedKey>> {
    let hash = digest::digest(&digest::SHA256, key_authorization.as_bytes());
    let mut params = CertificateParams::new([name.to_owned()]).ok()?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
    let key = KeyPair::generate().ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider().key_provider.load_private_key(private.into()).ok()?;
    // Not by way of the check that the two belong together, which refuses a certificate with this extension.
    Some(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}
