use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::{Authority, CertsError};

/// What this node may show certificates for.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Domains, lower case, no trailing dot. Every name at or under one of them gets a certificate on demand. The first
    /// is what a visitor without SNI is shown.
    pub domains: Vec<String>,
    /// Addresses that the default certificate also names, for visitors who dial an address. Loopback is always among them.
    pub addresses: Vec<IpAddr>,
}

/// Every certificate that this node shows: its own from files where they cover the name, else made on demand.
pub struct Certificates {}

impl Certificates {
    /// Certificates of this authority for these names.
    ///
    /// # Errors
    /// No domain is given, or one is not a host name.
    pub fn new(authority: Arc<Authority>, names: Names) -> Result<Arc<Self>, CertsError> {
        let _ = (authority, names);
        todo!()
    }

    /// Shows the certificate in these PEM files (chain, leaf first; key) wherever it covers the name asked for, and to
    /// visitors without SNI.
    ///
    /// # Errors
    /// A file is unreadable, not PEM, or the key does not belong to the certificate. What was in force stays so.
    pub fn use_own(&self, chain: &Path, key: &Path) -> Result<(), CertsError> {
        let _ = (chain, key);
        todo!()
    }

    /// Reads the files of [`Certificates::use_own`] again if either has changed; answers whether it did. Blocks on the
    /// disk: call it from a blocking task, every half minute or so.
    ///
    /// # Errors
    /// As [`Certificates::use_own`].
    pub fn reload_own(&self) -> Result<bool, CertsError> {
        todo!()
    }
}
