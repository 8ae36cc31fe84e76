use jiff::Timestamp;

/// How many requests may go a second time: a share of those of the last seconds, and a few in any case. An outage is not
/// multiplied by that many requests that each try everybody. Pure: the time is passed in.
#[derive(Debug, Default)]
pub struct Budget {
    slots: [Slot; Self::SECONDS],
}

/// One second.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: i64,
    requests: u32,
    retries: u32,
}

impl Budget {
    /// So long a request counts: long enough for the pause between two bursts, short enough that an outage meets what there is.
    pub const SECONDS: usize = 10;
    /// Of 100 requests so many may go again: what a pool has to bear in an outage beyond its ordinary load.
    pub const PERCENT: u32 = 20;
    /// So many in any case, within [`Budget::SECONDS`]: whoever has few visitors has few requests to take a share of.
    pub const FLOOR: u32 = 10;

    /// A request has come.
    pub fn count_request(&mut self, now: Timestamp) {
        let slot = self.slot(now);
        slot.requests = slot.requests.saturating_add(1);
    }

    /// Whether a request may go again; if so, it counts.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let second = now.as_second();
        // What is of a later second was counted before the clock was set back.
        let is_recent = |slot: &&Slot| (second - Self::SECONDS as i64 + 1..=second).contains(&slot.second);
        let recent = self.slots.iter().filter(is_recent);
        let (requests, retries) = recent.fold((0u64, 0u64), |(requests, retries), slot| {
            (requests + u64::from(slot.requests), retries + u64::from(slot.retries))
        });
        let most = u64::from(Self::FLOOR).max(requests * u64::from(Self::PERCENT) / 100);
        if retries >= most {
            return false;
        }
        let slot = self.slot(now);
        slot.retries = slot.retries.saturating_add(1);
        true
    }

    fn slot(&mut self, now: Timestamp) -> &mut Slot {
        let second = now.as_second();
        let slot = &mut self.slots[second.rem_euclid(Self::SECONDS as i64) as usize];
        if slot.second != second {
            *slot = Slot { second, requests: 0, retries: 0 };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_few_are_free_and_more_are_a_share() {
        let mut budget = Budget::default();
        assert_eq!((0..50).filter(|_| budget.take(at(100))).count(), 10);
        (0..1000).for_each(|_| budget.count_request(at(101)));
        assert_eq!((0..1000).filter(|_| budget.take(at(102))).count(), 190);
        // What is long ago counts no more.
        assert_eq!((0..50).filter(|_| budget.take(at(200))).count(), 10);
    }

    #[test]
    fn a_clock_that_is_set_back_neither_blocks_nor_opens_it() {
        let mut budget = Budget::default();
        (0..1000).for_each(|_| budget.count_request(at(1000)));
        while budget.take(at(1000)) {}
        assert_eq!((0..50).filter(|_| budget.take(at(500))).count(), 10);
    }

    #[test]
    fn it_agrees_with_a_list_of_everything() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut budget = Budget::default();
            let (mut second, mut requests, mut retries) = (0i64, Vec::new(), Vec::new());
            for _ in 0..5000 {
                second += i64::from(random.random_bool(0.02)) * random.random_range(1..4);
                let recent = |all: &[i64]| all.iter().filter(|at| **at > second - 10).count();
                if random.random_bool(0.6) {
                    budget.count_request(at(second));
                    requests.push(second);
                    continue;
                }
                let is_free = recent(&retries) < 10.max(recent(&requests) / 5);
                assert_eq!(budget.take(at(second)), is_free, "seed {seed}");
                if is_free {
                    retries.push(second);
                }
            }
        }
    }
}
