//! Credentials that wait for their agents, each under the key that its agent made.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How long credentials wait for their agent; it polls ten times for a minute.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Credentials that wait at once. Only holders of a token put any there.
const MAX_WAITING: usize = 256;
/// Polls that are held open at once; anybody may poll.
const MAX_POLLS: usize = 256;

/// Credentials that wait for their agents.
pub(crate) struct Logins {
    waiting: Mutex<HashMap<Key, (Instant, String)>>,
    came: Notify,
    polls: Semaphore,
}

impl Default for Logins {
    fn default() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new(), polls: Semaphore::new(MAX_POLLS) }
    }
}

/// An agent's public key: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// Reads base64url text, padded or not.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The key as the last part of a callback URL.
    pub(crate) fn from_callback(callback: &str) -> Option<Self> {
        let path = callback.split(['?', '#']).next()?;
        Self::parse(path.trim_end_matches('/').rsplit('/').next()?)
    }

    /// As agents write it: base64url, padded.
    pub(crate) fn text(self) -> String {
        format!("{}=", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What a person compares, as the start of the key.
    pub(crate) fn short(self) -> String {
        self.text().chars().take(8).collect()
    }
}

impl Logins {
    /// A place among those who poll, if there is one left.
    pub(crate) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.polls.try_acquire().ok()
    }

    /// Keeps credentials for the agent of this key.
    pub(crate) fn put(&self, key: Key, credentials: String) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        waiting.retain(|_, (since, _)| now.duration_since(*since) < KEPT);
        if waiting.len() >= MAX_WAITING {
            let oldest = waiting.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| *key);
            oldest.and_then(|key| waiting.remove(&key));
        }
        waiting.insert(key, (now, credentials));
        drop(waiting);
        self.came.notify_waiters();
    }

    fn take(&self, key: Key) -> Option<String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, credentials) = waiting.remove(&key)?;
        (since.elapsed() < KEPT).then_some(credentials)
    }

    /// Takes the credentials of this key, once they are there.
    pub(crate) async fn wait(&self, key: Key) -> String {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            // From here on nothing that is put is missed.
            came.as_mut().enable();
            if let Some(credentials) = self.take(key) {
                return credentials;
            }
            came.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn only_a_32_byte_key_is_one() {
        let key = Key::parse(KEY).unwrap();
        assert_eq!(key.text(), KEY);
        assert!(Key::parse(KEY.trim_end_matches('=')) == Some(key));
        assert!(Key::from_callback(&format!("https://login.example.test/{KEY}")) == Some(key));
        assert!(Key::from_callback(KEY) == Some(key));
        for text in ["", "favicon.ico", "AAEC", "<script>", &format!("{KEY}x"), &"A".repeat(44)] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_wait_for_their_agent_but_not_for_ever() {
        let logins = Logins::default();
        let key = |byte| Key([byte; 32]);
        logins.put(key(1), "one".into());
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        assert_eq!(logins.take(key(1)).as_deref(), Some("one"));
        assert_eq!(logins.take(key(1)), None, "they are handed out once");
        logins.put(key(2), "two".into());
        tokio::time::advance(KEPT).await;
        assert_eq!(logins.take(key(2)), None);

        let (waited, ()) = tokio::join!(logins.wait(key(3)), async { logins.put(key(3), "three".into()) });
        assert_eq!(waited, "three");
        for byte in 0..=255 {
            logins.put(Key([byte; 32]), String::new());
        }
        logins.put(Key([7; 32].map(|byte: u8| byte + 1)), String::new());
        logins.put(Key(std::array::from_fn(|index| index as u8)), String::new());
        assert_eq!(logins.waiting.lock().unwrap().len(), MAX_WAITING);
    }
}
