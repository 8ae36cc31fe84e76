//! The authorities that all nodes have in common: kept by the registry, made here.

use std::time::SystemTime;

use certs::{CertsError, NewSharedAuthority};
use jiff::Timestamp;
use registry::{AuthorityPurpose, CertificateAuthority, CommitError, PrivateText, Registry};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// It cannot be kept.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The authority for this. The first node that asks makes it.
///
/// # Errors
/// There is none, and none can be made or kept.
pub async fn ensure_authority(
    registry: &Registry,
    now: Timestamp,
    purpose: AuthorityPurpose,
) -> Result<CertificateAuthority, AuthorityError> {
    let name = match purpose {
        AuthorityPurpose::Origin => "Snicket origin authority",
        AuthorityPurpose::Node => "Snicket node authority",
    };
    registry
        .ensure_authority(now, purpose, || {
            let NewSharedAuthority { certificate, key } = NewSharedAuthority::generate(name, SystemTime::from(now))?;
            Ok((certificate, PrivateText::new(key)))
        })
        .await
}
