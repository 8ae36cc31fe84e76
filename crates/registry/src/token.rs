use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::resource::Resource;
use crate::{ApiToken, CommitError, Registry, Snapshot, TokenHash, TokenId, Transaction};

/// An API token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// Refused from then on; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// Why a caller's secret is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// No token has this secret.
    #[error("the API token is not one of this edge's")]
    Unknown,
    /// It was switched off.
    #[error("the API token is disabled")]
    Disabled,
    /// Its time is over.
    #[error("the API token has expired")]
    Expired,
}

impl ApiToken {
    fn check(&self, now: Timestamp) -> Result<(), TokenRefused> {
        if self.disabled {
            Err(TokenRefused::Disabled)
        } else if self.expires_at.is_some_and(|end| end <= now) {
            Err(TokenRefused::Expired)
        } else {
            Ok(())
        }
    }
}

impl TokenHash {
    /// The hash of this secret.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl Registry {
    /// Makes an API token, and answers its secret, which is kept nowhere.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn create_token(&self, now: Timestamp, new: NewToken) -> Result<(ApiToken, String), CommitError> {
        let (token, secret) = make(now, new);
        self.keep_token(&token).await?;
        Ok((token, secret))
    }

    /// Makes the first API token, and answers its secret; `None` when there is a token already. `keep` gets the secret
    /// before the registry has the token: a crash in between leaves a secret that is good for nothing, and not an edge
    /// whose only secret nobody knows.
    ///
    /// # Errors
    /// `keep` or the engine fails.
    pub async fn create_first_token<E: From<CommitError>>(
        &self,
        now: Timestamp,
        keep: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<Option<String>, E> {
        if self.snapshot().tokens().next().is_some() {
            return Ok(None);
        }
        let (token, secret) = make(now, NewToken { name: "first token".into(), expires_at: None });
        keep(&secret)?;
        self.keep_token(&token).await?;
        Ok(Some(secret))
    }

    async fn keep_token(&self, token: &ApiToken) -> Result<(), CommitError> {
        let mut transaction = Transaction::new();
        transaction.expect_absent(&token.key()).put(token);
        self.commit(transaction).await.map(drop)
    }
}

/// Tells our tokens from other programs' at a glance, for people and for scanners of leaked secrets.
const SECRET_PREFIX: &str = "snk_";

fn make(now: Timestamp, new: NewToken) -> (ApiToken, String) {
    let random: [u8; 32] = rand::random();
    let secret = format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let token = ApiToken {
        id: TokenId::random(),
        name: new.name,
        hash: TokenHash::of(&secret),
        created_at: now,
        expires_at: new.expires_at,
        disabled: false,
    };
    (token, secret)
}

impl Snapshot {
    /// The token that this secret belongs to, if it may be used now.
    ///
    /// The look-up is by the secret's hash, so its time says nothing about other secrets.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn authorize(&self, secret: &str, now: Timestamp) -> Result<&ApiToken, TokenRefused> {
        let token = self.token_by_hash(&TokenHash::of(secret)).ok_or(TokenRefused::Unknown)?;
        token.check(now)?;
        Ok(token)
    }
}
