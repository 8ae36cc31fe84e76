use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::listen::network;

/// Wrong guesses are counted over this time.
pub(super) const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Wrong guesses of one network in a window. With eight digits that is one chance in ten million.
const WRONG: u32 = 10;
/// Networks that are remembered. When there are more, those whose window is over are forgotten first; then nobody new may guess
/// until there is room, since an attacker with many addresses must not make the edge forget.
const NETWORKS: usize = 100_000;

/// Counts wrong guesses by the network they come from: an IPv4 address or an IPv6 /64.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Window>>);

#[derive(Debug)]
struct Window {
    since: Instant,
    wrong: u32,
}

/// A guess that counts as wrong until it is forgiven.
#[derive(Debug)]
pub(super) struct Attempt(IpAddr);

impl Attempts {
    /// Begins a guess, if there may be one more.
    pub(super) fn begin(&self, address: IpAddr, now: Instant) -> Option<Attempt> {
        let network = network(address);
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= NETWORKS && !windows.contains_key(&network) {
            windows.retain(|_, window| now.saturating_duration_since(window.since) < WINDOW);
            if windows.len() >= NETWORKS {
                return None;
            }
        }
        let window = windows.entry(network).or_insert(Window { since: now, wrong: 0 });
        if now.saturating_duration_since(window.since) >= WINDOW {
            *window = Window { since: now, wrong: 0 };
        }
        if window.wrong >= WRONG {
            return None;
        }
        window.wrong += 1;
        Some(Attempt(network))
    }

    /// The guess was right.
    pub(super) fn forgive(&self, attempt: Attempt) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(&attempt.0) {
            window.wrong = window.wrong.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_guesses_run_out_for_a_while() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let at = |text: &str| -> IpAddr { text.parse().unwrap() };
        for _ in 0..WRONG {
            let right = attempts.begin(at("2001:db8::1"), start).unwrap();
            attempts.forgive(right);
            attempts.begin(at("2001:db8::1"), start).unwrap();
        }
        assert!(attempts.begin(at("2001:db8::2"), start).is_none(), "the whole /64 has used them up");
        assert!(attempts.begin(at("2001:db8:0:1::1"), start).is_some());
        assert!(attempts.begin(at("2001:db8::2"), start + WINDOW).is_some());
    }
}
