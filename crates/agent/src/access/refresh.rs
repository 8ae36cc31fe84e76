//! When an issuer's keys are fetched. Pure: the time is passed in.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Keys;

/// Keys of this age are fetched again beside the requests that use them, so that one which the issuer has withdrawn
/// is not believed much longer.
const FRESH: Duration = Duration::from_secs(3600);
/// Keys are used so long while their issuer cannot be reached.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// The pause after an attempt. Visitors can make up key ids, each of which would be a reason to ask the issuer.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// The keys at hand, and when the issuer was asked.
#[derive(Debug, Default)]
pub(super) struct Cache {
    keys: Option<(Arc<Keys>, Instant)>,
    tried: Option<Instant>,
}

/// What to do for one token.
#[derive(Debug)]
pub(super) enum Step {
    /// Verify with these; a key that is not among them is not known.
    Use(Arc<Keys>),
    /// The same, and fetch them again meanwhile.
    UseAndFetch(Arc<Keys>),
    /// Fetch and ask again.
    Fetch,
    /// There are no keys, and it is too early to try again.
    Nothing,
}

impl Cache {
    /// For a token that names this key, or none.
    pub(super) fn step(&self, key_id: Option<&str>, now: Instant) -> Step {
        let may_fetch = self.tried.is_none_or(|tried| now.duration_since(tried) >= PAUSE);
        match &self.keys {
            Some((keys, fetched)) if now.duration_since(*fetched) < USABLE => {
                let known = keys.has(key_id);
                let keys = Arc::clone(keys);
                match (known, may_fetch) {
                    (false, true) => Step::Fetch,
                    (true, true) if now.duration_since(*fetched) >= FRESH => Step::UseAndFetch(keys),
                    (true | false, _) => Step::Use(keys),
                }
            }
            _ if may_fetch => Step::Fetch,
            _ => Step::Nothing,
        }
    }

    /// An attempt has ended.
    pub(super) fn tried(&mut self, fetched: Option<Keys>, now: Instant) {
        self.tried = Some(now);
        if let Some(keys) = fetched {
            self.keys = Some((Arc::new(keys), now));
        }
    }

    /// Whether tokens can be verified without the issuer.
    pub(super) fn holds_keys(&self, now: Instant) -> bool {
        self.keys.as_ref().is_some_and(|(_, fetched)| now.duration_since(*fetched) < USABLE)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One key; its numbers are those of RFC 7515, appendix A.2.
    pub(in crate::access) const SET: &str = concat!(
        r#"{"keys":[{"kid":"a","kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W2"#,
        r#"6mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGz"#,
        r#"jb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5Zw"#,
        r#"Kh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#,
    );

    fn keys() -> Keys {
        Keys::from_json(SET.as_bytes()).unwrap()
    }

    fn name(step: &Step) -> &'static str {
        match step {
            Step::Use(_) => "use",
            Step::UseAndFetch(_) => "use and fetch",
            Step::Fetch => "fetch",
            Step::Nothing => "nothing",
        }
    }

    #[test]
    fn keys_age() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let (known, unknown) = (Some("a"), Some("b"));
        assert_eq!(name(&cache.step(known, start)), "fetch");
        cache.tried(None, start);
        assert_eq!(name(&cache.step(known, start + PAUSE / 2)), "nothing", "a failure is not repeated at once");
        assert_eq!(name(&cache.step(known, start + PAUSE)), "fetch");
        let got = start + PAUSE;
        cache.tried(Some(keys()), got);
        assert_eq!(name(&cache.step(known, got)), "use");
        assert_eq!(name(&cache.step(None, got)), "use");
        assert_eq!(name(&cache.step(unknown, got + PAUSE / 2)), "use", "made up names ask nobody");
        assert_eq!(name(&cache.step(unknown, got + PAUSE)), "fetch");
        assert_eq!(name(&cache.step(known, got + FRESH / 2)), "use");
        assert_eq!(name(&cache.step(known, got + FRESH)), "use and fetch");
        cache.tried(None, got + FRESH);
        assert_eq!(name(&cache.step(known, got + FRESH + PAUSE / 2)), "use");
        assert_eq!(name(&cache.step(known, got + FRESH + PAUSE)), "use and fetch", "the issuer may be back");
        assert!(cache.holds_keys(got + USABLE / 2) && !cache.holds_keys(got + USABLE));
        assert_eq!(name(&cache.step(known, got + USABLE)), "fetch", "old keys are worth nothing");
        cache.tried(None, got + USABLE);
        assert_eq!(name(&cache.step(known, got + USABLE)), "nothing");
    }
}
