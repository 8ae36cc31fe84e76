/// Whether visitors are led to a member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    /// Yes, with this share of its weight: below 1 for a while after it came back.
    Well(f64),
    /// Its answers to visitors were bad of late: only if nobody is well.
    Suspect,
    /// There is no way to it, or it does not answer as its monitor asks: no.
    Down,
}

/// Who comes back has its whole weight after this time, in milliseconds: long enough for caches to fill and for code to be
/// compiled, which is what most need; shorter than a usual monitor's interval.
const SLOW_START: i64 = 30_000;
/// What it begins with: enough to be seen at work.
const FIRST_SHARE: f64 = 0.1;

/// The share of its weight that a member has which is well since then; both in milliseconds.
pub(crate) fn share(since: i64, now: i64) -> f64 {
    // A clock that was set back makes nobody wait for longer.
    let gone = now.saturating_sub(since).clamp(0, SLOW_START);
    FIRST_SHARE + (1.0 - FIRST_SHARE) * gone as f64 / SLOW_START as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_gets_more_and_more() {
        let shares = [0, 15_000, 30_000, 1_000_000, -5_000].map(|now| share(0, now));
        assert_eq!(shares, [0.1, 0.55, 1.0, 1.0, 0.1]);
        assert_eq!(share(i64::MIN, 0), 1.0);
    }
}
