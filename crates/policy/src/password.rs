use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The name of the one method, so that another can come beside it.
const METHOD: &str = "pbkdf2-sha256";

/// A password that cannot be read back: PBKDF2 with HMAC-SHA-256 (RFC 8018), written
/// `pbkdf2-sha256:ITERATIONS:SALT:HASH`, the last two in base64. It is slow on purpose, some tenths of a second.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hashed {
    iterations: NonZeroU32,
    salt: [u8; Self::SALT],
    hash: [u8; digest::SHA256_OUTPUT_LEN],
}

/// Why a text is no hash of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a password is wanted as {METHOD}:ITERATIONS:SALT:HASH, with {} to {} iterations, 16 bytes of salt and 32 of hash",
    Hashed::MIN_ITERATIONS,
    Hashed::MAX_ITERATIONS
)]
pub struct BadHash;

impl Hashed {
    /// Bytes of the salt.
    pub const SALT: usize = 16;
    /// What OWASP recommends for this method.
    pub const ITERATIONS: u32 = 600_000;
    /// Fewer protect nothing.
    pub const MIN_ITERATIONS: u32 = 100_000;
    /// Whoever sends the rules must not choose how long the edge works for each guess.
    pub const MAX_ITERATIONS: u32 = 2_000_000;

    /// Hashes a password. The salt is random and used for nothing else.
    pub fn new(password: &[u8], salt: [u8; Self::SALT]) -> Self {
        Self::with_iterations(password, salt, Self::ITERATIONS)
    }

    /// The same with so many iterations, at least [`Self::MIN_ITERATIONS`] and at most [`Self::MAX_ITERATIONS`].
    pub fn with_iterations(password: &[u8], salt: [u8; Self::SALT], iterations: u32) -> Self {
        let iterations = iterations.clamp(Self::MIN_ITERATIONS, Self::MAX_ITERATIONS);
        let iterations = NonZeroU32::new(iterations).expect("the least is above zero");
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut hash);
        Self { iterations, salt, hash }
    }

    /// Whether this is the password. Takes the same, long, time for every one.
    pub fn matches(&self, password: &[u8]) -> bool {
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, self.iterations, &self.salt, password, &self.hash).is_ok()
    }

    /// A key that only who has the hash can make, and that a new password or salt changes.
    pub(crate) fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.hash)
    }

    /// Binds something to exactly this password; for a fast check of what was checked slowly before.
    pub fn fingerprint(&self) -> &[u8] {
        &self.hash
    }
}

impl FromStr for Hashed {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let mut parts = text.split(':');
        let (Some(METHOD), Some(iterations), Some(salt), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadHash);
        };
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| BadHash)?;
        if !(Self::MIN_ITERATIONS..=Self::MAX_ITERATIONS).contains(&iterations.get()) {
            return Err(BadHash);
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| BadHash);
        let (salt, hash) = (decode(salt)?, decode(hash)?);
        Ok(Self {
            iterations,
            salt: salt.try_into().map_err(|_| BadHash)?,
            hash: hash.try_into().map_err(|_| BadHash)?,
        })
    }
}

impl TryFrom<String> for Hashed {
    type Error = BadHash;

    fn try_from(text: String) -> Result<Self, BadHash> {
        text.parse()
    }
}

impl From<Hashed> for String {
    fn from(hashed: Hashed) -> Self {
        let (salt, hash) = (STANDARD.encode(hashed.salt), STANDARD.encode(hashed.hash));
        format!("{METHOD}:{}:{salt}:{hash}", hashed.iterations)
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_matches() {
        let hashed = Hashed::with_iterations(b"correct horse", [1; 16], Hashed::MIN_ITERATIONS);
        assert!(hashed.matches(b"correct horse"));
        assert!(!hashed.matches(b"correct hors") && !hashed.matches(b""));
        let again: Hashed = String::from(hashed.clone()).parse().unwrap();
        assert!(again == hashed && again.matches(b"correct horse"));
    }

    #[test]
    fn work_is_neither_too_little_nor_too_much() {
        let text = String::from(Hashed::with_iterations(b"x", [1; 16], Hashed::MIN_ITERATIONS));
        for (iterations, good) in [("100000", true), ("99999", false), ("2000001", false), ("0", false), ("-1", false)]
        {
            let other = text.replacen("100000", iterations, 1);
            assert_eq!(other.parse::<Hashed>().is_ok(), good, "{iterations}");
        }
        for bad in ["", "plain", &format!("{text}:x"), &text[..text.len() - 4], &text.replace("sha256", "md5")] {
            assert_eq!(bad.parse::<Hashed>(), Err(BadHash), "{bad}");
        }
    }
}
