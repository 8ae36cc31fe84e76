//! The authorities that all nodes have in common: kept by the registry, made here.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use certs::{CertsError, NewSharedAuthority};
use jiff::Timestamp;
use registry::{AuthorityPurpose, CertificateAuthority, CommitError, PrivateText, Registry};
use serde_json::{Value, json};

use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

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
    registry.ensure_authority(now, purpose, || generate(purpose, now)).await
}

fn generate<E: From<CertsError>>(purpose: AuthorityPurpose, now: Timestamp) -> Result<(String, PrivateText), E> {
    let name = match purpose {
        AuthorityPurpose::Origin => "Snicket origin authority",
        AuthorityPurpose::Node => "Snicket node authority",
    };
    let NewSharedAuthority { certificate, key } = NewSharedAuthority::generate(name, SystemTime::from(now))?;
    Ok((certificate, PrivateText::new(key)))
}

/// Has a new one sign from now on.
pub(crate) async fn rotate(State(shared): State<Arc<Shared>>, Path(purpose): Path<String>) -> Answer {
    let (purpose, now) = (read(&purpose)?, Timestamp::now());
    let (certificate, key) = generate::<CertsError>(purpose, now)?;
    let authority = shared.state.registry.rotate_authority(now, purpose, certificate, key).await?;
    tracing::warn!(%purpose, "there is a new authority");
    shown(&authority, now)
}

/// Has the one before be trusted no more.
pub(crate) async fn end_former(State(shared): State<Arc<Shared>>, Path(purpose): Path<String>) -> Answer {
    let purpose = read(&purpose)?;
    let authority = shared.state.registry.end_former_authority(purpose).await?;
    tracing::warn!(%purpose, "the former authority is not trusted any more");
    shown(&authority, Timestamp::now())
}

fn read(purpose: &str) -> Result<AuthorityPurpose, ApiError> {
    let known = [AuthorityPurpose::Node, AuthorityPurpose::Origin].into_iter().find(|known| known.plural() == purpose);
    known.ok_or_else(|| ApiError::no_object(&format!("/authorities/{purpose}")))
}

/// By their fingerprints, which tell people which is which.
fn shown(authority: &CertificateAuthority, now: Timestamp) -> Answer {
    let fingerprint = |pem: &str| certs::Fingerprint::of_pem(pem).map(|fingerprint| fingerprint.to_string());
    let former = match authority.former(now) {
        Some(former) => json!({ "fingerprint": fingerprint(&former.certificate)?, "until": former.until }),
        None => Value::Null,
    };
    Ok(success(json!({
        "fingerprint": fingerprint(&authority.certificate)?,
        "created_at": authority.created_at,
        "former": former,
    })))
}
