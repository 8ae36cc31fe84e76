//! How often something may happen.

use std::time::Duration;

use tokio::time::Instant;

/// So many at once, and so many in a second after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once; at least 1.
    pub burst: u32,
    /// Per second from then on; at least 1.
    pub per_second: u32,
}

/// Lets so much through at once, and so much in a second after.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    left: u32,
    /// Up to when it has been filled.
    since: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, since: now }
    }

    /// Takes one, if there is one left.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            self.fill(now);
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }

    fn fill(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / self.rate.per_second.max(1);
        let passed = now.saturating_duration_since(self.since);
        let more = passed.as_nanos() / each.as_nanos().max(1);
        if more >= u128::from(self.rate.burst) {
            self.left = self.rate.burst;
            self.since = now;
        } else if let Ok(more) = u32::try_from(more) {
            self.left += more;
            self.since += each * more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { burst: 3, per_second: 10 }, start);
        let taken = |bucket: &mut Bucket, now| (0..100).take_while(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(199)), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(200)), 1, "nothing of the time is lost");
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), 3, "and none is saved up");
    }
}
