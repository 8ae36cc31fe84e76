//! Gives memory back to the system after a rush, and after the start.
//!
//! The allocator of glibc keeps what was freed between what is still in use: a thousand visitors who have left would count as
//! ours until the next thousand. Other allocators give it back by themselves. And of the program's own pages those stay that
//! only a rush or the start had a use for; most of a small agent would be these.

mod pages;

use std::time::{Duration, Instant};

use tokio::runtime::RuntimeMetrics;

/// Between two looks at how much there is to do.
const LOOK: Duration = Duration::from_secs(2);
/// It has been calm for so long.
const CALM: Duration = Duration::from_secs(10);
/// Fewer tasks are no rush: one of a connection holds some 10 KiB.
const RUSH: usize = 100;
/// Threads that worked for less than this between two looks, all together, are idle: one part in a hundred.
const IDLE: Duration = Duration::from_millis(20);
/// While there is little to do it is tidied up so often, which takes less than a millisecond then.
const QUIET: Duration = Duration::from_secs(20);
/// While there is more to do it is tidied up so often all the same: what few connections with much on their way have left is no
/// rush, and a node that always serves somebody is never idle.
const BUSY: Duration = Duration::from_secs(30);
/// It may take such a part of the time then, since whoever needs memory meanwhile waits.
const PART: u32 = 1000;

/// Watches the tasks of the program for as long as it runs.
pub(crate) async fn keep_small() {
    hold();
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut tide = Tide::new(Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        if tide.has_gone_out(metrics.num_alive_tasks(), busy(&metrics), Instant::now()) {
            // It may take some milliseconds. Nothing depends on it.
            let started = Instant::now();
            let _ = tokio::task::spawn_blocking(give_back).await;
            tide.tidied_within(started.elapsed());
        }
    }
}

/// How long the threads have worked since the start, all together.
fn busy(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

/// How high it was, and since when it is not.
struct Tide {
    peak: usize,
    high_at: Instant,
    tidied_at: Instant,
    /// At the last look.
    busy: Duration,
    /// There was something to do since it was tidied up.
    stirred: bool,
    /// Until it is tidied up the next time, with whatever there is to do.
    pause: Duration,
}

impl Tide {
    fn new(now: Instant) -> Self {
        Self { peak: 0, high_at: now, tidied_at: now, busy: Duration::ZERO, stirred: true, pause: BUSY }
    }

    /// It took so long.
    fn tidied_within(&mut self, time: Duration) {
        self.pause = BUSY.max(time * PART);
    }

    /// Most of the tasks of a rush are gone, and have been for a while; or there is little to do now, and what was done before has
    /// left gaps. Where there are few tasks the many small things that come and go are tidied up as well, from time to time.
    fn has_gone_out(&mut self, tasks: usize, busy: Duration, now: Instant) -> bool {
        self.peak = self.peak.max(tasks);
        let is_high = self.peak < tasks + RUSH || tasks > self.peak / 2;
        if is_high {
            self.high_at = now;
        }
        let gone = !is_high && now.saturating_duration_since(self.high_at) >= CALM;
        let idle = busy.saturating_sub(self.busy) < IDLE;
        self.busy = busy;
        self.stirred |= !idle;
        let due = tasks < RUSH && now.saturating_duration_since(self.tidied_at) >= QUIET;
        let quiet = idle && (self.stirred || due);
        let overdue = self.stirred && now.saturating_duration_since(self.tidied_at) >= self.pause;
        let has = gone || quiet || overdue;
        if has {
            *self = Self { peak: tasks, high_at: now, tidied_at: now, busy, stirred: false, pause: self.pause };
        }
        has
    }
}

fn give_back() {
    trim();
    pages::let_go();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library without a safe form")]
fn trim() {
    // SAFETY: it takes a number and touches nothing but the allocator's own pages, under the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

/// Has the allocator keep some of what was freed, which it would by itself give back at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library without a safe form")]
fn hold() {
    /// Bytes of freed memory that the allocator may keep at the end of a heap. Given back while there is work, they would be asked for
    /// again with the next buffers, and cleared by the system page by page: a sixth of what a byte stream at full speed costs.
    const KEPT: i32 = 2 << 20;
    /// What is as large as this comes from the system, and goes back, each by itself. Buffers of connections are smaller.
    const APART: i32 = 1 << 20;
    // SAFETY: it takes numbers, and sets those of the allocator's own.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, APART);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn hold() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_followed_by_one_tidying_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tide = Tide::new(start);
        let rush = [(120, 0), (1000, 2), (900, 4), (501, 6), (130, 8), (130, 14), (130, 16), (130, 30)];
        let gone: Vec<bool> =
            rush.map(|(tasks, seconds)| tide.has_gone_out(tasks, 10 * IDLE * (seconds as u32 + 1), at(seconds))).into();
        assert_eq!(gone, [false, false, false, false, false, false, true, false]);
    }

    #[test]
    fn a_few_more_or_less_are_no_rush_and_tidied_at_leisure() {
        let start = Instant::now();
        let mut tide = Tide::new(start);
        for seconds in 0..100 {
            let busy = Duration::from_millis(seconds);
            let tidied = tide.has_gone_out(20 + seconds as usize % 70, busy, start + Duration::from_secs(seconds));
            assert_eq!(tidied, seconds % QUIET.as_secs() == 0, "{seconds}");
        }
    }

    #[test]
    fn a_busy_node_is_tidied_up_as_often_as_it_can_afford() {
        let start = Instant::now();
        let mut tide = Tide::new(start);
        let mut tidied = Vec::new();
        for seconds in (2..=300).step_by(2) {
            let busy = 10 * IDLE * seconds;
            if tide.has_gone_out(20, busy, start + Duration::from_secs(seconds.into())) {
                tidied.push(seconds);
                tide.tidied_within(Duration::from_millis(if seconds < 60 { 2 } else { 100 }));
            }
        }
        assert_eq!(tidied, [30, 60, 160, 260]);
    }

    #[test]
    fn what_was_done_is_tidied_up_when_it_is_done() {
        let start = Instant::now();
        let mut tide = Tide::new(start);
        let mut busy = Duration::ZERO;
        let work = [(9, false), (9, false), (0, true), (0, false), (0, false), (9, false), (0, true), (0, false)];
        for (look, (times, expected)) in (1..).zip(work) {
            busy += IDLE * times;
            assert_eq!(tide.has_gone_out(20, busy, start + look * LOOK), expected, "{look}");
        }
    }
}
