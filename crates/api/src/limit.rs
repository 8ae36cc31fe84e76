use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use registry::TokenId;

/// Calls are counted over this time.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Calls of one credential in a window, as with the original API.
const CALLS: u32 = 1200;
/// Quick tunnels that one remote network makes without a credential in a window: enough for a person, not for a flood.
const QUICK_TUNNELS: u32 = 30;
/// Machines that want to join from one network in a window. Nobody guesses a key; each attempt costs the node a look into
/// its registry.
const JOINS: u32 = 10;
/// Callers of each kind that are remembered. When there are more, those whose window is over are forgotten first, then all
/// of the kind: whoever has many addresses makes nobody forget what tokens have used.
const CALLERS: usize = 10_000;

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Token(TokenId),
    Network(IpAddr),
    Joining(IpAddr),
}

impl Who {
    /// A caller without a token. An IPv6 network counts as one: whoever has one address of it has all 2⁶⁴.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Network(network(address))
    }

    /// A machine that wants to become a node; a network counts as one, too.
    pub(crate) fn joining(address: IpAddr) -> Self {
        Self::Joining(network(address))
    }
}

fn network(address: IpAddr) -> IpAddr {
    const HOST_PART: u128 = u64::MAX as u128;
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !HOST_PART).into(),
    }
}

/// Counts calls in fixed windows.
#[derive(Default)]
pub(crate) struct Limits {
    tokens: Windows,
    networks: Windows,
    joining: Windows,
}

type Windows = Mutex<HashMap<Who, Window>>;

struct Window {
    since: Instant,
    used: u32,
}

/// What is left in a caller's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) calls: u32,
    pub(crate) resets_in: Duration,
}

impl Limits {
    /// Counts one call, unless the limit is reached: then the answer is the time until there is room again.
    pub(crate) fn count(&self, who: Who, now: Instant) -> Result<Left, Duration> {
        let (windows, limit) = match who {
            Who::Token(_) => (&self.tokens, CALLS),
            Who::Network(_) => (&self.networks, QUICK_TUNNELS),
            Who::Joining(_) => (&self.joining, JOINS),
        };
        let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= CALLERS && !windows.contains_key(&who) {
            windows.retain(|_, window| now.duration_since(window.since) < WINDOW);
            if windows.len() >= CALLERS {
                windows.clear();
            }
        }
        let window = windows.entry(who).or_insert(Window { since: now, used: 0 });
        if now.duration_since(window.since) >= WINDOW {
            *window = Window { since: now, used: 0 };
        }
        let resets_in = WINDOW.saturating_sub(now.duration_since(window.since));
        if window.used >= limit {
            return Err(resets_in);
        }
        window.used += 1;
        Ok(Left { calls: limit - window.used, resets_in })
    }
}

impl Left {
    pub(crate) fn announce(self, headers: &mut HeaderMap) {
        let left = format!("\"default\";r={};t={}", self.calls, self.resets_in.as_secs());
        let policy = format!("\"default\";q={CALLS};w={}", WINDOW.as_secs());
        for (name, value) in [("ratelimit", left), ("ratelimit-policy", policy)] {
            headers.insert(name, HeaderValue::try_from(value).expect("digits and punctuation"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_calls_in_a_window() {
        let limits = Limits::default();
        let start = Instant::now();
        let (one, two) = (Who::Token(TokenId::random()), Who::Token(TokenId::random()));
        for left in (0..CALLS).rev() {
            assert_eq!(limits.count(one, start).unwrap().calls, left);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(limits.count(one, later), Err(Duration::from_secs(240)));
        assert!(limits.count(two, later).is_ok());
        assert!(limits.count(one, start + WINDOW).is_ok());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_count_as_one() {
        let at = |text: &str| Who::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:0:0:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn the_memory_for_callers_is_bounded() {
        let limits = Limits::default();
        let now = Instant::now();
        let token = Who::Token(TokenId::random());
        limits.count(token, now).unwrap();
        for index in 0..2 * CALLERS as u32 {
            let address = IpAddr::from(index.to_be_bytes());
            limits.count(Who::at(address), now).unwrap();
            limits.count(Who::joining(address), now).unwrap();
            assert!(limits.networks.lock().unwrap().len() <= CALLERS);
            assert!(limits.joining.lock().unwrap().len() <= CALLERS);
        }
        assert_eq!(limits.count(token, now).unwrap().calls, CALLS - 2, "strangers make nobody forget a token");
    }
}
