use jiff::Timestamp;

use crate::{ApiToken, CommitError, Registry, Snapshot};

/// An API token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// Refused from then on; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// Whether a token may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStatus {
    /// It may.
    Active,
    /// It was switched off.
    Disabled,
    /// Its time is over.
    Expired,
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
    /// Whether it may be used at this time.
    pub fn status(&self, now: Timestamp) -> TokenStatus {
        let _ = now;
        todo!()
    }
}

impl Registry {
    /// Makes an API token, and answers its secret, which is kept nowhere.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn create_token(&self, now: Timestamp, new: NewToken) -> Result<(ApiToken, String), CommitError> {
        let _ = (now, new);
        todo!()
    }

    /// Makes the first API token, and answers its secret; `None` when there is a token already.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn create_first_token(&self, now: Timestamp) -> Result<Option<String>, CommitError> {
        let _ = now;
        todo!()
    }
}

impl Snapshot {
    /// The token that this secret belongs to, if it may be used now.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn authorize(&self, secret: &str, now: Timestamp) -> Result<&ApiToken, TokenRefused> {
        let _ = (secret, now);
        todo!()
    }
}
