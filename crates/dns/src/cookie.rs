//! Cookies (RFC 7873, in the form of RFC 9018): who sends one back that we gave it is where it says that it is. Pure but for the
//! seed.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use crate::options::{ClientCookie, ServerCookie};

/// A cookie that is older holds no more, in seconds.
const LIFE: u32 = 3_600;
/// One from the future is that of another clock.
const AHEAD: u32 = 300;
/// The version of the form, and three bytes without a meaning.
const HEAD: [u8; 4] = [1, 0, 0, 0];

/// Makes cookies, and knows its own. Those of other processes are not known, which costs their askers nothing but the limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cookies {
    seed: RandomState,
}

impl Cookies {
    /// For this asker, at this time in seconds.
    pub(crate) fn make(&self, client: ClientCookie, asker: IpAddr, now: u32) -> ServerCookie {
        let mut cookie = [0; 16];
        cookie[..4].copy_from_slice(&HEAD);
        cookie[4..8].copy_from_slice(&now.to_be_bytes());
        // Keyed, by a key that nobody else has.
        let hash = self.seed.hash_one((client, now, asker.to_canonical()));
        cookie[8..].copy_from_slice(&hash.to_be_bytes());
        cookie
    }

    /// Whether we gave this asker this cookie, not too long ago.
    pub(crate) fn knows(&self, client: ClientCookie, cookie: ServerCookie, asker: IpAddr, now: u32) -> bool {
        let [_, _, _, _, t1, t2, t3, t4, ..] = cookie;
        let made = u32::from_be_bytes([t1, t2, t3, t4]);
        let is_current = now.wrapping_sub(made) <= LIFE || made.wrapping_sub(now) <= AHEAD;
        is_current && self.make(client, asker, made) == cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_of_late_are_known() {
        let (cookies, client) = (Cookies::default(), *b"abcdefgh");
        let asker = "192.0.2.1".parse().unwrap();
        let cookie = cookies.make(client, asker, 10_000);
        assert!(cookies.knows(client, cookie, asker, 10_000) && cookies.knows(client, cookie, asker, 13_600));
        assert!(cookies.knows(client, cookie, asker, 9_700), "another clock");
        assert!(!cookies.knows(client, cookie, asker, 13_601) && !cookies.knows(client, cookie, asker, 9_699));
        assert!(!cookies.knows(*b"ABCDEFGH", cookie, asker, 10_000));
        assert!(!cookies.knows(client, cookie, "192.0.2.2".parse().unwrap(), 10_000));
        assert!(!Cookies::default().knows(client, cookie, asker, 10_000));
    }
}
