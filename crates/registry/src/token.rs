mod policy;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

pub use policy::{Area, BadScope, Object, Permission, Policy, Scope, TokenTerms};

use crate::resource::{Resource, Versioned};
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
    /// Its time has not begun.
    #[error("the API token cannot be used yet")]
    Early,
}

/// What is to be different of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenChange {
    /// For people.
    pub name: String,
    /// Refused from then on; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// Switched off.
    pub disabled: bool,
    /// What it may, and from where.
    pub terms: TokenTerms,
}

/// Why a token was not changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No such token.
    #[error("there is no API token {0}")]
    NotFound(TokenId),
    /// Whoever wants to change it may not do what it may.
    #[error("the token may do more than yours; only a token that may do as much can change it")]
    Beyond,
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl ApiToken {
    fn check(&self, now: Timestamp) -> Result<(), TokenRefused> {
        if self.disabled {
            Err(TokenRefused::Disabled)
        } else if self.expires_at.is_some_and(|end| end <= now) {
            Err(TokenRefused::Expired)
        } else if self.terms.not_before.is_some_and(|start| start > now) {
            Err(TokenRefused::Early)
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
        self.create_limited_token(now, new, TokenTerms::default()).await
    }

    /// Makes an API token that may not do everything, and answers its secret, which is kept nowhere.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn create_limited_token(
        &self,
        now: Timestamp,
        new: NewToken,
        terms: TokenTerms,
    ) -> Result<(ApiToken, String), CommitError> {
        let (token, secret) = make(now, new);
        let token = ApiToken { terms, ..token };
        self.keep_token(&token).await?;
        Ok((token, secret))
    }

    /// Changes a token, on behalf of somebody with these terms. What is as it is to be already is not written.
    ///
    /// # Errors
    /// No such token, it may do more than whoever asks, or the engine fails.
    pub async fn change_token(
        &self,
        now: Timestamp,
        asking: &TokenTerms,
        id: TokenId,
        change: &TokenChange,
    ) -> Result<ApiToken, TokenError> {
        self.rewrite_token(now, asking, id, |token| {
            let TokenChange { name, expires_at, disabled, terms } = change.clone();
            ApiToken { name, expires_at, disabled, terms, ..token.clone() }
        })
        .await
    }

    /// Gives a token another secret, on behalf of somebody with these terms, and answers it. The old one is good for
    /// nothing from then on.
    ///
    /// # Errors
    /// No such token, it may do more than whoever asks, or the engine fails.
    pub async fn roll_token(&self, now: Timestamp, asking: &TokenTerms, id: TokenId) -> Result<String, TokenError> {
        let secret = new_secret();
        let hash = TokenHash::of(&secret);
        self.rewrite_token(now, asking, id, |token| ApiToken { hash, ..token.clone() }).await?;
        Ok(secret)
    }

    /// Removes a token, on behalf of somebody with these terms.
    ///
    /// # Errors
    /// No such token, it may do more than whoever asks, or the engine fails.
    pub async fn delete_token(&self, asking: &TokenTerms, id: TokenId) -> Result<(), TokenError> {
        self.change(|snapshot, transaction| {
            let token = within(snapshot, asking, id)?;
            transaction.expect(token).delete(&token.key());
            Ok(())
        })
        .await
    }

    async fn rewrite_token(
        &self,
        now: Timestamp,
        asking: &TokenTerms,
        id: TokenId,
        mut rewrite: impl FnMut(&ApiToken) -> ApiToken,
    ) -> Result<ApiToken, TokenError> {
        self.change(|snapshot, transaction| {
            let old = within(snapshot, asking, id)?;
            let mut new = rewrite(old);
            if new != old.value {
                new.modified_at = Some(now);
                transaction.expect(old).put(&new);
            }
            Ok(new)
        })
        .await
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

fn new_secret() -> String {
    let random: [u8; 32] = rand::random();
    format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

/// The token with this id, if whoever asks may do as much.
fn within<'a>(
    snapshot: &'a Snapshot,
    asking: &TokenTerms,
    id: TokenId,
) -> Result<&'a Arc<Versioned<ApiToken>>, TokenError> {
    let token = snapshot.token(id).ok_or(TokenError::NotFound(id))?;
    if asking.may_grant(&token.terms, snapshot.account().id) { Ok(token) } else { Err(TokenError::Beyond) }
}

fn make(now: Timestamp, new: NewToken) -> (ApiToken, String) {
    let secret = new_secret();
    let token = ApiToken {
        id: TokenId::random(),
        name: new.name,
        hash: TokenHash::of(&secret),
        created_at: now,
        expires_at: new.expires_at,
        disabled: false,
        modified_at: None,
        terms: TokenTerms::default(),
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
    pub fn authorize(&self, secret: &str, now: Timestamp) -> Result<&Arc<Versioned<ApiToken>>, TokenRefused> {
        let token = self.token_by_hash(&TokenHash::of(secret)).ok_or(TokenRefused::Unknown)?;
        token.check(now)?;
        Ok(token)
    }
}
