//! Gives memory back to the system after a rush.
//!
//! The allocator of glibc keeps what was freed between what is still in use: a thousand visitors who have left would count as
//! ours until the next thousand. Other allocators give it back by themselves.

use std::time::{Duration, Instant};

/// Between two looks at how many there are.
const LOOK: Duration = Duration::from_secs(2);
/// It has been calm for so long.
const CALM: Duration = Duration::from_secs(10);
/// Fewer are no rush: a task of a connection holds some 50 KiB.
const RUSH: usize = 100;
/// Without a rush it is tidied up so often, which takes less than a millisecond then.
const QUIET: Duration = Duration::from_secs(20);

/// Watches the tasks of the program for as long as it runs.
pub(crate) async fn keep_small() {
    let runtime = tokio::runtime::Handle::current();
    let mut tide = Tide::new(Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        if tide.has_gone_out(runtime.metrics().num_alive_tasks(), Instant::now()) {
            // It may take some milliseconds. Nothing depends on it.
            let _ = tokio::task::spawn_blocking(give_back).await;
        }
    }
}

/// How high it was, and since when it is not.
struct Tide {
    peak: usize,
    high_at: Instant,
    tidied_at: Instant,
}

impl Tide {
    fn new(now: Instant) -> Self {
        Self { peak: 0, high_at: now, tidied_at: now }
    }

    /// Most of the tasks of a rush are gone, and have been for a while; or there are few, and have been for longer: many small
    /// things that came and went leave gaps as well.
    fn has_gone_out(&mut self, tasks: usize, now: Instant) -> bool {
        self.peak = self.peak.max(tasks);
        let is_high = self.peak < tasks + RUSH || tasks > self.peak / 2;
        if is_high {
            self.high_at = now;
        }
        let gone = !is_high && now.saturating_duration_since(self.high_at) >= CALM;
        let quiet = tasks < RUSH && now.saturating_duration_since(self.tidied_at) >= QUIET;
        if gone || quiet {
            *self = Self { peak: tasks, high_at: now, tidied_at: now };
        }
        gone || quiet
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library without a safe form")]
fn give_back() {
    // SAFETY: it takes a number and touches nothing but the allocator's own pages, under the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_followed_by_one_tidying_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tide = Tide::new(start);
        let rush = [(20, 0), (1000, 2), (900, 4), (501, 6), (30, 8), (30, 14), (30, 16), (30, 30)];
        let gone: Vec<bool> = rush.map(|(tasks, seconds)| tide.has_gone_out(tasks, at(seconds))).into();
        assert_eq!(gone, [false, false, false, false, false, false, true, false]);
    }

    #[test]
    fn a_few_more_or_less_are_no_rush_and_tidied_at_leisure() {
        let start = Instant::now();
        let mut tide = Tide::new(start);
        for seconds in 0..100 {
            let tidied = tide.has_gone_out(20 + seconds as usize % 70, start + Duration::from_secs(seconds));
            assert_eq!(tidied, seconds > 0 && seconds % QUIET.as_secs() == 0, "{seconds}");
        }
    }
}
