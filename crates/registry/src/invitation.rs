//! Keys by which one more machine becomes a node, each once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::resource::{Key, Resource, Versioned};
use crate::{CommitError, Registry, Snapshot, TokenHash};

/// Tells these keys from other programs' at a glance, for people and for scanners of leaked secrets.
const SECRET_PREFIX: &str = "snj_";
/// Whoever comes too late, or twice, hears so for this long; later the key is as unknown as any other.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);
/// Those that are forgotten when a new one is made, at most: etcd takes 128 operations at once.
const SWEPT_AT_ONCE: usize = 50;

/// An invitation to become a node. Its secret is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// What the secret of whoever comes is compared with.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// Good for nothing from then on.
    pub expires_at: Timestamp,
    /// When somebody came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent_at: Option<Timestamp>,
}

impl Invitation {
    /// A key lies around in histories and clipboards, so that it is good no longer than that.
    pub const MOST_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
}

impl Resource for Invitation {
    const KIND: &'static str = "invitations";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.hash.to_hex())
    }
}

/// Why a key does not let in.
#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    /// There is no such invitation, or none any more.
    #[error("the key is not one of this edge's, or is long over; make another one: snicket node invite")]
    Unknown,
    /// Too late.
    #[error("the key was good until {0:.0}; make another one: snicket node invite")]
    Expired(Timestamp),
    /// Somebody was there before.
    #[error(
        "the key was used at {0:.0}, and is good for one machine only; if that was not you, look at who it was, else make \
         another one: snicket node invite"
    )]
    Spent(Timestamp),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Makes an invitation that is good for so long, and answers it and its secret.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn invite(&self, now: Timestamp, life: SignedDuration) -> Result<(Invitation, String), CommitError> {
        let secret = format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let expires_at = now.checked_add(life).unwrap_or(Timestamp::MAX);
        let new = Invitation { hash: TokenHash::of(&secret), created_at: now, expires_at, spent_at: None };
        self.change(|snapshot, transaction| {
            let over = snapshot.invitations().filter(|old| now.duration_since(old.expires_at) > REMEMBERED);
            for old in over.take(SWEPT_AT_ONCE) {
                transaction.expect(old).delete(&old.key());
            }
            transaction.expect_absent(&new.key()).put(&new);
            Ok::<(), CommitError>(())
        })
        .await?;
        Ok((new, secret))
    }

    /// Takes the key of whoever comes; of several who come with one at once, on whichever nodes, one is first.
    ///
    /// # Errors
    /// It does not let in, or the engine fails.
    pub async fn spend_invitation(&self, now: Timestamp, secret: &str) -> Result<(), InvitationError> {
        self.change(|snapshot, transaction| {
            let invitation = snapshot.invitation(secret, now)?;
            let spent = Invitation { spent_at: Some(now), ..invitation.value.clone() };
            transaction.expect(invitation).put(&spent);
            Ok(())
        })
        .await
    }
}

impl Snapshot {
    /// The invitation of this secret, if it lets in now.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn invitation(&self, secret: &str, now: Timestamp) -> Result<&Versioned<Invitation>, InvitationError> {
        let found = self.certificates.invitations.get(&*TokenHash::of(secret).to_hex());
        let invitation = found.ok_or(InvitationError::Unknown)?;
        match (invitation.spent_at, invitation.expires_at) {
            (Some(at), _) => Err(InvitationError::Spent(at)),
            (None, end) if end <= now => Err(InvitationError::Expired(end)),
            (None, _) => Ok(invitation),
        }
    }

    /// All invitations, spent ones and such as are over included.
    pub(crate) fn invitations(&self) -> impl Iterator<Item = &Versioned<Invitation>> {
        self.certificates.invitations.values().map(AsRef::as_ref)
    }
}
