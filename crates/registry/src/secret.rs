use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// The text is not a tunnel's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tunnel secret is the base64 text of {} to {} bytes", Secret::MIN_BYTES, Secret::MAX_BYTES)]
pub struct BadSecret;

/// The secret of a tunnel: proves the right to serve it. Never printed; compared in constant time. In files it is
/// base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// What the API demands (section 10 of the API page).
    pub const MIN_BYTES: usize = 32;
    /// More would only cost memory: nobody guesses 32 bytes either.
    pub const MAX_BYTES: usize = 1024;

    /// 32 bytes that nobody can guess.
    pub fn random() -> Self {
        Self(Box::new(rand::random::<[u8; Self::MIN_BYTES]>()))
    }

    /// Checks the length of a secret that somebody chose.
    ///
    /// # Errors
    /// Shorter than [`Secret::MIN_BYTES`] or longer than [`Secret::MAX_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSecret> {
        if !(Self::MIN_BYTES..=Self::MAX_BYTES).contains(&bytes.len()) {
            return Err(BadSecret);
        }
        Ok(Self(bytes.into()))
    }

    /// Reads base64 text (standard alphabet, padded).
    ///
    /// # Errors
    /// Not base64, or as [`Secret::from_bytes`].
    pub fn from_base64(text: &str) -> Result<Self, BadSecret> {
        Self::from_bytes(&STANDARD.decode(text).map_err(|_| BadSecret)?)
    }

    /// The base64 text, for those who may have it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// The raw bytes, for those who may have them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether these bytes are the secret; takes the same time wherever they differ.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.0.ct_eq(bytes).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl TryFrom<String> for Secret {
    type Error = BadSecret;

    fn try_from(text: String) -> Result<Self, BadSecret> {
        Self::from_base64(&text)
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.to_base64()
    }
}

/// Text that lets in whoever knows it, such as a private key as PEM. It does not print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateText(Box<str>);

impl PrivateText {
    /// Wraps it.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateText(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_only_and_is_never_printed() {
        let secret = Secret::random();
        assert!(secret.matches(secret.as_bytes()));
        assert!(!secret.matches(&[0; 32]));
        assert!(!secret.matches(&secret.as_bytes()[..31]));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(Secret::from_base64(&secret.to_base64()), Ok(secret));
    }

    #[test]
    fn short_long_and_garbled_secrets_are_refused() {
        assert_eq!(Secret::from_bytes(&[1; 31]), Err(BadSecret));
        assert_eq!(Secret::from_bytes(&[1; 1025]), Err(BadSecret));
        assert_eq!(Secret::from_base64("not base64!"), Err(BadSecret));
    }
}
