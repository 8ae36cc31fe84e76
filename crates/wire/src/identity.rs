//! Who serves a tunnel: secrets, tokens and credentials files (section 16.1).

use std::fmt;

/// The secret of a tunnel. Never printed; compared in constant time.
#[derive(Clone)]
pub struct TunnelSecret(Vec<u8>);

impl TunnelSecret {
    /// Wraps the raw bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The raw bytes, for the wire and for hashing.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for TunnelSecret {
    fn eq(&self, other: &Self) -> bool {
        // Every byte is looked at whatever the first difference, so that time says nothing about it.
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

impl Eq for TunnelSecret {}

impl fmt::Debug for TunnelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelSecret(…)")
    }
}
