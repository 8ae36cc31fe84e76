//! New authorities of nodes and of origins in the place of those before, which are trusted on for a while.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::certificate::{AuthorityPurpose, CertificateAuthority};
use crate::resource::Resource as _;
use crate::{CommitError, Invitation, PrivateText, Registry};

/// For so long the nodes' former authority is trusted, and signs: keys for joining that name it are good no longer, and
/// certificates of nodes hold for less.
const NODES_OVERLAP: SignedDuration = Invitation::MOST_LIFE;

/// An authority that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerAuthority {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Signs what only whoever knows this one trusts. Origins have theirs signed by the new one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PrivateText>,
    /// It is trusted until then; `None`: until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why an authority was not replaced, or a former one not ended.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// There would be three.
    #[error(
        "a former authority is still trusted; once nothing needs it any more, end it: snicket registry rotate-authority \
         {} --end",
        .0.plural()
    )]
    StillTrusted(AuthorityPurpose),
    /// There is none.
    #[error("there is no former authority that is still trusted")]
    NoFormer,
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl CertificateAuthority {
    /// The one before, as long as it is trusted.
    pub fn former(&self, now: Timestamp) -> Option<&FormerAuthority> {
        self.former.as_ref().filter(|former| former.until.is_none_or(|until| now < until))
    }

    /// The certificates of all that are to be trusted, PEM; its own comes first.
    pub fn trusted(&self, now: Timestamp) -> String {
        let former = self.former(now).map(|former| former.certificate.as_str());
        [&self.certificate, former.unwrap_or_default()].concat()
    }
}

impl Registry {
    /// Has a new authority (PEM) sign from now on. The one before is trusted beside it: that of nodes for
    /// [`Invitation::MOST_LIFE`], that of origins until [`Registry::end_former_authority`].
    ///
    /// # Errors
    /// Still another one before is trusted, or the engine fails.
    pub async fn rotate_authority(
        &self,
        now: Timestamp,
        purpose: AuthorityPurpose,
        certificate: String,
        key: PrivateText,
    ) -> Result<CertificateAuthority, RotationError> {
        let new = CertificateAuthority { purpose, certificate, key, created_at: now, former: None };
        self.change(|snapshot, transaction| {
            let Some(old) = snapshot.authority(purpose) else {
                transaction.expect_absent(&new.key()).put(&new);
                return Ok(new.clone());
            };
            if old.former(now).is_some() {
                return Err(RotationError::StillTrusted(purpose));
            }
            let (key, until) = match purpose {
                AuthorityPurpose::Node => {
                    (Some(old.key.clone()), Some(now.checked_add(NODES_OVERLAP).unwrap_or(Timestamp::MAX)))
                }
                AuthorityPurpose::Origin => (None, None),
            };
            let former = FormerAuthority { certificate: old.certificate.clone(), key, until };
            let new = CertificateAuthority { former: Some(former), ..new.clone() };
            transaction.expect(old).put(&new);
            Ok(new)
        })
        .await
    }

    /// Has the authority before be trusted no more, and forgets its key.
    ///
    /// # Errors
    /// There is none before, or the engine fails.
    pub async fn end_former_authority(&self, purpose: AuthorityPurpose) -> Result<CertificateAuthority, RotationError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.authority(purpose).filter(|authority| authority.former.is_some());
            let old = old.ok_or(RotationError::NoFormer)?;
            let new = CertificateAuthority { former: None, ..old.value.clone() };
            transaction.expect(old).put(&new);
            Ok(new)
        })
        .await
    }
}
