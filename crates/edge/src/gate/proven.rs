use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::hmac;
use lru::LruCache;
use policy::Hashed;

/// Passwords that are remembered; the one that was not used for the longest time goes first, and is checked slowly again.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Passwords that were right, as what only this process can make of them: a check by the slow hash for each request would cost
/// more than the request.
pub(super) struct Proven {
    key: hmac::Key,
    known: Mutex<LruCache<[u8; SHA256_OUTPUT_LEN], ()>>,
}

impl Proven {
    pub(super) fn new() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self { key, known: Mutex::new(LruCache::new(MOST)) }
    }

    /// Whether this password was right for this hash before. The comparison is of values that nobody outside can choose.
    pub(super) fn knows(&self, hashed: &Hashed, user: &str, password: &str) -> bool {
        let seal = self.seal(hashed, user, password);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&seal).is_some()
    }

    pub(super) fn remember(&self, hashed: &Hashed, user: &str, password: &str) {
        let seal = self.seal(hashed, user, password);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(seal, ());
    }

    fn seal(&self, hashed: &Hashed, user: &str, password: &str) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(hashed.fingerprint());
        context.update(&u64::try_from(user.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let tag = context.sign();
        tag.as_ref().try_into().expect("the output of SHA-256 has this length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_proven_is_known() {
        let hashed = |salt| Hashed::with_iterations(b"pw", [salt; 16], Hashed::MIN_ITERATIONS);
        let proven = Proven::new();
        proven.remember(&hashed(1), "ann", "pw");
        assert!(proven.knows(&hashed(1), "ann", "pw"));
        for (salt, user, password) in [(2, "ann", "pw"), (1, "an", "npw"), (1, "annp", "w"), (1, "ann", "pW")] {
            assert!(!proven.knows(&hashed(salt), user, password), "{salt} {user} {password}");
        }
    }
}
