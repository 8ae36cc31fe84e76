use std::time::Duration;

use jiff::Timestamp;
use registry::{MemberId, MemberReport, MonitorTerms, Probe};

/// What came of asking a member once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it is not well; `None`: it is.
    pub problem: Option<Box<str>>,
    /// The status that it answered with, if it answered with one.
    pub code: Option<u16>,
    /// From question to answer; `None` without an answer.
    pub time: Option<Duration>,
}

/// What is to be done after a member was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask at once again.
    Again,
    /// Ask again when the monitor's interval is over.
    Later,
}

/// What one node thinks of one member, by asking it. Pure.
///
/// ```text
///           consecutive_up rounds well          consecutive_down rounds failed
/// unknown ───────────────────────────▶ up ◀──────────────────────────────────▶ down
///    └────────────── consecutive_down rounds failed ─────────────────────────────▲
/// ```
///
/// A round is one question, and up to `retries` more as long as they fail. As long as nothing is known it is taken for well.
#[derive(Debug)]
pub struct Judge {
    verdict: Option<Verdict>,
    /// Rounds in a row that came out otherwise than the verdict; and how.
    streak: u32,
    is_streak_up: bool,
    /// Questions of the present round that failed.
    failed: u32,
    latest: Option<Outcome>,
    /// It could not be asked, since when and why.
    unasked: Option<(Timestamp, Box<str>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    is_up: bool,
    since: Timestamp,
}

impl Judge {
    /// Begins with what the others agree on, if they do: who has only begun to ask changes nothing by that.
    pub fn new(agreed: Option<&Probe>) -> Self {
        let outcome = |probe: &Probe| Outcome { problem: probe.reason.clone(), code: probe.code, time: probe.time };
        Self {
            verdict: agreed.map(|probe| Verdict { is_up: probe.is_up, since: probe.since }),
            streak: 0,
            is_streak_up: true,
            failed: 0,
            latest: agreed.map(outcome),
            unasked: None,
        }
    }

    /// It was asked, as its monitor says now.
    pub fn asked(&mut self, monitor: &MonitorTerms, outcome: Outcome, now: Timestamp) -> Next {
        self.unasked = None;
        let is_up = outcome.problem.is_none();
        if !is_up && self.failed < monitor.retries {
            self.failed += 1;
            return Next::Again;
        }
        self.failed = 0;
        self.end_round(monitor, is_up, now);
        // Of one that is up, what failed once is not told.
        if self.verdict.is_none_or(|verdict| verdict.is_up == is_up) {
            self.latest = Some(outcome);
        }
        Next::Later
    }

    /// It could not be asked, for this reason: nothing is known of it.
    pub fn unasked(&mut self, reason: Box<str>, now: Timestamp) -> Next {
        let since = self.unasked.as_ref().map_or(now, |(since, _)| *since);
        *self = Self { unasked: Some((since, reason)), ..Self::new(None) };
        Next::Later
    }

    fn end_round(&mut self, monitor: &MonitorTerms, is_up: bool, now: Timestamp) {
        if self.verdict.is_some_and(|verdict| verdict.is_up == is_up) {
            self.streak = 0;
            return;
        }
        self.streak = if self.is_streak_up == is_up { self.streak.saturating_add(1) } else { 1 };
        self.is_streak_up = is_up;
        let enough = if is_up { monitor.consecutive_up } else { monitor.consecutive_down };
        if self.streak >= enough.max(1) {
            self.verdict = Some(Verdict { is_up, since: now });
            self.streak = 0;
        }
    }

    /// What it is told to be; `None` as long as nothing is known.
    pub fn report(&self, member: MemberId) -> Option<MemberReport> {
        if let Some((since, reason)) = &self.unasked {
            let (since, reason) = (*since, Some(short(reason)));
            return Some(MemberReport {
                member,
                is_up: true,
                since,
                reason,
                code: None,
                millis: None,
                is_unasked: true,
            });
        }
        let Verdict { is_up, since } = self.verdict?;
        let latest = self.latest.as_ref();
        let millis =
            latest.and_then(|latest| latest.time).map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        let reason = latest.and_then(|latest| latest.problem.as_deref()).map(short);
        let code = latest.and_then(|latest| latest.code);
        Some(MemberReport { member, is_up, since, reason, code, millis, is_unasked: false })
    }
}

fn short(reason: &str) -> Box<str> {
    reason[..reason.floor_char_boundary(MemberReport::MAX_REASON_BYTES)].into()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::json;

    use super::*;

    fn monitor(retries: u32, up: u32, down: u32) -> MonitorTerms {
        let terms = json!({ "retries": retries, "consecutive_up": up, "consecutive_down": down });
        serde_json::from_value(terms).unwrap()
    }

    fn outcome(is_up: bool) -> Outcome {
        let time = Some(Duration::from_millis(7));
        Outcome { problem: (!is_up).then(|| "HTTP 500".into()), code: Some(if is_up { 200 } else { 500 }), time }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn is_up(judge: &Judge) -> Option<bool> {
        judge.report("0123456789abcdef".parse().unwrap()).map(|report| report.is_up)
    }

    #[test]
    fn of_one_that_cannot_be_asked_nothing_is_known() {
        let (member, monitor) = ("0123456789abcdef".parse().unwrap(), monitor(0, 0, 0));
        let mut judge = Judge::new(None);
        judge.asked(&monitor, outcome(false), at(1));
        judge.unasked("no right".into(), at(2));
        assert_eq!(judge.unasked("no right".into(), at(3)), Next::Later);
        let told = judge.report(member).unwrap();
        assert_eq!(
            (told.is_up, told.is_unasked, told.since, told.reason.as_deref()),
            (true, true, at(2), Some("no right"))
        );
        judge.asked(&monitor, outcome(true), at(4));
        let told = judge.report(member).unwrap();
        assert_eq!((told.is_up, told.is_unasked, told.since), (true, false, at(4)));
    }

    #[test]
    fn one_that_fails_is_asked_again_before_it_has_failed() {
        let (mut judge, monitor) = (Judge::new(None), monitor(2, 0, 0));
        assert_eq!(judge.asked(&monitor, outcome(true), at(0)), Next::Later);
        assert_eq!(is_up(&judge), Some(true));
        let bad = |judge: &mut Judge, second| judge.asked(&monitor, outcome(false), at(second));
        assert_eq!([bad(&mut judge, 1), bad(&mut judge, 2)], [Next::Again; 2]);
        assert_eq!(judge.asked(&monitor, outcome(true), at(3)), Next::Later);
        assert_eq!(is_up(&judge), Some(true));
        assert_eq!([4, 5, 6].map(|second| bad(&mut judge, second)), [Next::Again, Next::Again, Next::Later]);
        let report = judge.report("0123456789abcdef".parse().unwrap()).unwrap();
        assert_eq!((report.is_up, report.since, report.reason.as_deref()), (false, at(6), Some("HTTP 500")));
        assert_eq!((report.code, report.millis), (Some(500), Some(7)));
    }

    #[test]
    fn who_begins_to_ask_goes_on_from_what_the_others_say() {
        let probe =
            Probe { is_up: false, since: at(3), reason: Some("x".into()), code: None, time: None, voices: (2, 2) };
        let mut judge = Judge::new(Some(&probe));
        assert_eq!(is_up(&judge), Some(false));
        judge.asked(&monitor(0, 2, 0), outcome(true), at(9));
        assert_eq!(is_up(&judge), Some(false));
        judge.asked(&monitor(0, 2, 0), outcome(true), at(10));
        assert_eq!(is_up(&judge), Some(true));
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let mut judge = Judge::new(None);
        let problem = Some("ä".repeat(500).into());
        judge.asked(&monitor(0, 0, 0), Outcome { problem, code: None, time: None }, at(0));
        let reason = judge.report("0123456789abcdef".parse().unwrap()).unwrap().reason.unwrap();
        assert_eq!(reason.len(), MemberReport::MAX_REASON_BYTES);
    }

    /// Whatever comes: the verdict changes only after as many rounds in a row as the monitor says, all of them against it, and says
    /// since when.
    #[test]
    fn it_changes_its_mind_only_after_so_many_rounds_in_a_row() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let [retries, up, down] = [0; 3].map(|_| random.random_range(0..4));
            let monitor = monitor(retries, up, down);
            let (mut judge, mut rounds) = (Judge::new(None), Vec::new());
            for second in 0..500 {
                let before = is_up(&judge);
                let (good, mut questions) = (random.random_bool(0.5), 1);
                while judge.asked(&monitor, outcome(good), at(second)) == Next::Again {
                    questions += 1;
                }
                assert_eq!(questions, if good { 1 } else { retries + 1 });
                rounds.push(good);
                let after = is_up(&judge);
                let enough = if good { up } else { down }.max(1) as usize;
                let row = rounds.iter().rev().take_while(|round| **round == good).count();
                let expected = if before != Some(good) && row >= enough { Some(good) } else { before };
                assert_eq!(after, expected, "seed {seed}, second {second}");
                if after != before {
                    let report = judge.report("0123456789abcdef".parse().unwrap()).unwrap();
                    assert_eq!((report.since, report.reason.is_none()), (at(second), good));
                }
            }
        }
    }
}
