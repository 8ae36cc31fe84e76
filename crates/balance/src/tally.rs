//! How many requests a member answered at this node.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;

/// In milliseconds; [`Tally::recent`] covers the present period and the one before, so 5 to 10 minutes: long enough to tell a share
/// where few visitors come, and short enough to see what a change of weights does.
const PERIOD: i64 = 300_000;

/// Counts without waiting for anybody. Around the turn of a period, when two count at once, one may be missing among the recent ones.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    all: AtomicU64,
    /// The number of a period in the upper half, its count in the lower.
    current: AtomicU64,
    before: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, now: Timestamp) {
        self.all.fetch_add(1, Relaxed);
        let (period, current) = (period(now), self.current.load(Relaxed));
        let begins = current >> 32 != period;
        if begins && self.current.compare_exchange(current, (period << 32) | 1, Relaxed, Relaxed).is_ok() {
            self.before.store(current, Relaxed);
        } else {
            self.current.fetch_add(1, Relaxed);
        }
    }

    /// Since the node began.
    pub(crate) fn all(&self) -> u64 {
        self.all.load(Relaxed)
    }

    /// In the latest minutes.
    pub(crate) fn recent(&self, now: Timestamp) -> u64 {
        let period = period(now);
        let is_recent = |counted: &u64| period.wrapping_sub(counted >> 32) & u64::from(u32::MAX) < 2;
        let counted = [&self.current, &self.before].map(|count| count.load(Relaxed));
        counted.iter().filter(|counted| is_recent(counted)).map(|counted| counted & u64::from(u32::MAX)).sum()
    }
}

fn period(now: Timestamp) -> u64 {
    now.as_millisecond().div_euclid(PERIOD) as u64 & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_requests_are_recent_no_more_and_all_are_counted() {
        let at = |minute: i64| Timestamp::from_second(1_000_000_200 + minute * 60).unwrap();
        let tally = Tally::default();
        (0..3).for_each(|_| tally.count(at(0)));
        assert_eq!((tally.recent(at(0)), tally.recent(at(9)), tally.recent(at(10))), (3, 3, 0));
        (0..2).for_each(|_| tally.count(at(6)));
        assert_eq!((tally.recent(at(6)), tally.recent(at(10)), tally.recent(at(15))), (5, 2, 0));
        tally.count(at(100));
        assert_eq!((tally.recent(at(100)), tally.all()), (1, 6));
    }
}
