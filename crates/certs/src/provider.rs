use std::sync::{Arc, LazyLock};

use rustls::CipherSuite;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// The hybrid group first; reference agents know no plain X25519, browsers without the hybrid prefer it.
const ANY_GROUP: [&dyn SupportedKxGroup; 4] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// Cryptography for everything in this program; the hybrid post-quantum key exchange is preferred.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| with_groups(&ANY_GROUP));
    PROVIDER.clone()
}

/// As [`provider`], with these key exchanges only.
pub(crate) fn with_groups(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider { kx_groups: groups.to_vec(), ..default_provider() };
    // What browsers and reference agents offer first, too: 256 bits cost two fifths more work on every byte. Whoever dials chooses.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
