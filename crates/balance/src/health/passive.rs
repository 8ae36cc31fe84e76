use jiff::{SignedDuration, Timestamp};

/// Why a member gave a visitor's request no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached: no visitor's doing.
    Connect,
    /// It broke off before it had answered.
    Reset,
    /// It took too long.
    Late,
}

/// What the requests of visitors tell of one member, at one node: it is taken out before a monitor notices, and comes back by
/// itself after a while. Pure.
#[derive(Debug, Default)]
pub struct Passive {
    /// In a row that could not reach it.
    unreached: u32,
    window: Window,
    out: Option<Out>,
}

/// What came of the requests since.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    began: Timestamp,
    asked: u32,
    bad: u32,
}

/// The latest time that it was out.
#[derive(Debug, Clone, Copy)]
struct Out {
    until: Timestamp,
    /// So often, each time soon after the last.
    times: u32,
    /// Nothing good has come from it since.
    is_unproven: bool,
}

/// What is to become of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Stays,
    /// Nobody is led there until then.
    OutUntil(Timestamp),
}

impl Passive {
    /// So many requests in a row that could not reach it take it out: one or two are what a lost packet or a restart costs.
    pub const UNREACHED: u32 = 3;
    /// So many bad answers (breaks, time-outs and status codes from 500 on) within [`Passive::WINDOW`] take it out, if they are at
    /// least half of all: fewer are what a broken page causes.
    pub const BURST: u32 = 10;
    /// How far back bad answers count.
    pub const WINDOW: SignedDuration = SignedDuration::from_secs(10);
    /// It is out for so long the first time: a restart takes less.
    pub const FIRST_OUT: SignedDuration = SignedDuration::from_secs(5);
    /// It is out for twice as long each time, up to this: who comes back to life is not forgotten.
    pub const LONGEST_OUT: SignedDuration = SignedDuration::from_mins(5);
    /// Who was in for so long begins anew.
    pub const RECOVERED: SignedDuration = SignedDuration::from_mins(1);

    /// It could not be reached.
    pub(crate) fn unreached(&mut self, now: Timestamp) -> Verdict {
        self.unreached += 1;
        // One that came back and has shown nothing good since has no more chances.
        if self.unreached >= Self::UNREACHED || self.out.is_some_and(|out| out.is_unproven && out.until <= now) {
            return self.take_out(now);
        }
        Verdict::Stays
    }

    /// It answered, with a status below 500.
    pub(crate) fn good(&mut self, now: Timestamp) {
        self.unreached = 0;
        self.window(now).asked += 1;
        if let Some(out) = &mut self.out {
            out.is_unproven = false;
        }
    }

    /// It answered badly, or broke off. Visitors can bring that about by what they ask for, so `may_go` says whether it can be done
    /// without.
    pub(crate) fn bad(&mut self, now: Timestamp, may_go: impl FnOnce() -> bool) -> Verdict {
        self.unreached = 0;
        let window = self.window(now);
        window.asked += 1;
        window.bad += 1;
        if window.bad >= Self::BURST && window.bad.saturating_mul(2) >= window.asked && may_go() {
            return self.take_out(now);
        }
        Verdict::Stays
    }

    fn window(&mut self, now: Timestamp) -> &mut Window {
        let age = now.duration_since(self.window.began);
        if age > Self::WINDOW || age.is_negative() {
            self.window = Window { began: now, asked: 0, bad: 0 };
        }
        &mut self.window
    }

    fn take_out(&mut self, now: Timestamp) -> Verdict {
        let times = match self.out {
            // Requests that were under way when it was taken out say nothing new.
            Some(out) if now < out.until && out.until.duration_since(now) <= Self::LONGEST_OUT => {
                return Verdict::Stays;
            }
            Some(out) if now.duration_since(out.until) < Self::RECOVERED => out.times + 1,
            Some(_) | None => 1,
        };
        let time = Self::FIRST_OUT.saturating_mul(1 << (times - 1).min(16)).min(Self::LONGEST_OUT);
        let until = now.saturating_add(time).unwrap_or(now);
        self.out = Some(Out { until, times, is_unproven: true });
        (self.unreached, self.window) = (0, Window::default());
        Verdict::OutUntil(until)
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
    fn three_in_a_row_take_it_out_and_fewer_do_not() {
        let mut passive = Passive::default();
        for _ in 0..100 {
            assert_eq!(passive.unreached(at(0)), Verdict::Stays);
            assert_eq!(passive.unreached(at(0)), Verdict::Stays);
            passive.good(at(0));
        }
        passive.unreached(at(1));
        passive.unreached(at(1));
        assert_eq!(passive.unreached(at(1)), Verdict::OutUntil(at(6)));
    }

    #[test]
    fn it_stays_out_longer_each_time_until_it_has_proved_itself() {
        let mut passive = Passive::default();
        let mut now = at(0);
        let mut times = Vec::new();
        for round in 0..10 {
            // The first time takes three; later the first one is enough.
            let failures = if round == 0 { Passive::UNREACHED } else { 1 };
            let verdicts: Vec<_> = (0..failures).map(|_| passive.unreached(now)).collect();
            let Some(Verdict::OutUntil(until)) = verdicts.last() else { panic!("{verdicts:?}") };
            times.push(until.duration_since(now).as_secs());
            now = *until;
        }
        assert_eq!(times, [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]);
        passive.good(now);
        let later = now + Passive::RECOVERED;
        assert_eq!(passive.unreached(later), Verdict::Stays);
        passive.unreached(later);
        assert_eq!(passive.unreached(later), Verdict::OutUntil(later + Passive::FIRST_OUT));
    }

    #[test]
    fn a_burst_of_bad_answers_takes_it_out_if_it_can_be_done_without() {
        let mut passive = Passive::default();
        for _ in 0..9 {
            assert_eq!(passive.bad(at(0), || true), Verdict::Stays);
        }
        assert_eq!(passive.bad(at(1), || false), Verdict::Stays);
        assert_eq!(passive.bad(at(1), || true), Verdict::OutUntil(at(6)));
        // Slowly, or among many good ones, they are no burst.
        for second in (100..200).step_by(2) {
            assert_eq!(passive.bad(at(second), || true), Verdict::Stays);
        }
        for _ in 0..1000 {
            passive.good(at(300));
            passive.good(at(300));
            assert_eq!(passive.bad(at(300), || true), Verdict::Stays);
        }
    }

    #[test]
    fn whatever_comes_it_is_never_out_for_longer_than_the_longest_time() {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut passive, mut now) = (Passive::default(), 0i64);
            for _ in 0..2000 {
                // Even with a clock that jumps.
                now = (now + random.random_range(-20..40)).max(0);
                let verdict = match random.random_range(0..3) {
                    0 => passive.unreached(at(now)),
                    1 => passive.bad(at(now), || random.random()),
                    _ => {
                        passive.good(at(now));
                        Verdict::Stays
                    }
                };
                if let Verdict::OutUntil(until) = verdict {
                    let time = until.duration_since(at(now));
                    assert!(time.is_positive() && time <= Passive::LONGEST_OUT, "seed {seed}: {time}");
                }
            }
        }
    }
}
