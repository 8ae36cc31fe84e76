use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::authority::time_of;
use crate::provider::provider;
use crate::{CertsError, file};

/// A certificate that somebody gave us in two files.
pub(crate) struct Own {
    chain: PathBuf,
    key: PathBuf,
    /// Of both files, as of when they were read.
    stamps: [Stamp; 2],
    certified: Arc<CertifiedKey>,
}

/// By which another file, or another content, is told: time, length, and the file's number where the system has one.
type Stamp = Option<(SystemTime, u64, Option<u64>)>;

impl Own {
    pub(crate) fn load(chain: &Path, key: &Path, now: SystemTime) -> Result<Self, CertsError> {
        // Taken before reading: what is written meanwhile is then found at the next look.
        let stamps = [stamp(chain), stamp(key)];
        let certificates = CertificateDer::pem_slice_iter(file::read(chain)?.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| file::problem(chain, format!("not valid PEM: {error}")))?;
        let Some(leaf) = certificates.first() else {
            return Err(file::problem(chain, "no certificate in it; a PEM file with the certificate first is wanted"));
        };
        check_leaf(leaf, now).map_err(|problem| file::problem(chain, problem))?;
        let private = PrivateKeyDer::from_pem_slice(file::read(key)?.as_bytes())
            .map_err(|_| file::problem(key, "no private key in it; an unencrypted key in PEM form is wanted"))?;
        let certified = CertifiedKey::from_der(certificates, private, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                file::problem(key, format!("the key does not belong to the certificate in {}", chain.display()))
            }
            other => file::problem(key, format!("the key cannot be used: {other}")),
        })?;
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), stamps, certified: Arc::new(certified) })
    }

    /// The files as they are now, if they were changed.
    pub(crate) fn reload(&self, now: SystemTime) -> Result<Option<Self>, CertsError> {
        if [stamp(&self.chain), stamp(&self.key)] == self.stamps {
            return Ok(None);
        }
        Self::load(&self.chain, &self.key, now).map(Some)
    }

    pub(crate) fn covers(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let leaf = self.certified.cert.first().map(ParsedCertificate::try_from);
        matches!(leaf, Some(Ok(leaf)) if verify_server_name(&leaf, &name).is_ok())
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

fn check_leaf(leaf: &CertificateDer<'_>, now: SystemTime) -> Result<(), String> {
    ParsedCertificate::try_from(leaf).map_err(|error| format!("the first certificate cannot be used: {error}"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format!("the first certificate is damaged: {error}"))?;
    let end = &parsed.validity().not_after;
    if time_of(end.timestamp()) <= now {
        return Err(format!("the certificate expired on {end}; get a new one"));
    }
    Ok(())
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let number = Some(std::os::unix::fs::MetadataExt::ino(&metadata));
    #[cfg(not(unix))]
    let number = None;
    Some((metadata.modified().ok()?, metadata.len(), number))
}
