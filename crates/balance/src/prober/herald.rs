use jiff::{SignedDuration, Timestamp};
use registry::{MemberReport, PoolReport};

/// Decides when what a node finds out of a pool is told: every node hears of it. Pure.
#[derive(Debug, Default)]
pub(super) struct Herald {
    told: Option<(PoolReport, Timestamp)>,
}

/// What changes no verdict is told no more often than this.
const RARELY: SignedDuration = SignedDuration::from_secs(60);
/// Times that differ by less are the same, in milliseconds; and by less than a quarter.
const SAME_MILLIS: u32 = 5;

impl Herald {
    /// Whether this is to be told now; if so, it is taken for told.
    pub(super) fn tells(&mut self, report: &PoolReport, now: Timestamp) -> bool {
        let is_news = match &self.told {
            None => !report.members.is_empty(),
            Some((told, _)) if verdicts(told).ne(verdicts(report)) => true,
            Some((told, at)) => {
                let age = now.duration_since(*at);
                (age >= RARELY || age.is_negative()) && is_other(told, report)
            }
        };
        if is_news {
            self.told = Some((report.clone(), now));
        }
        is_news
    }
}

fn verdicts(report: &PoolReport) -> impl Iterator<Item = (registry::MemberId, bool, bool, Timestamp)> {
    report.members.iter().map(|member| (member.member, member.is_up, member.is_unasked, member.since))
}

/// Whether something is otherwise that somebody may want to know; the verdicts are the same.
fn is_other(told: &PoolReport, now: &PoolReport) -> bool {
    told.members
        .iter()
        .zip(&now.members)
        .any(|(told, now)| (&told.reason, told.code) != (&now.reason, now.code) || is_other_time(told, now))
}

fn is_other_time(told: &MemberReport, now: &MemberReport) -> bool {
    match (told.millis, now.millis) {
        (Some(told), Some(now)) => told.abs_diff(now) > SAME_MILLIS.max(told / 4),
        (told, now) => told.is_some() != now.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use registry::PoolId;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn report(is_up: bool, since: i64, millis: u32) -> PoolReport {
        let member = "0123456789abcdef".parse().unwrap();
        let told = MemberReport {
            member,
            is_up,
            since: at(since),
            reason: None,
            code: None,
            millis: Some(millis),
            is_unasked: false,
        };
        PoolReport { pool: PoolId::from_bytes([1; 16]), members: vec![told] }
    }

    #[test]
    fn verdicts_are_told_at_once_and_the_rest_rarely() {
        let mut herald = Herald::default();
        let nothing = PoolReport { members: vec![], ..report(true, 0, 1) };
        assert!(!herald.tells(&nothing, at(0)));
        assert!(herald.tells(&report(true, 1, 10), at(1)));
        assert!(!herald.tells(&report(true, 1, 500), at(2)));
        assert!(herald.tells(&report(false, 3, 500), at(3)));
        assert!(herald.tells(&report(true, 4, 10), at(4)));
        assert!(!herald.tells(&report(true, 4, 12), at(100)));
        assert!(herald.tells(&report(true, 4, 50), at(101)));
        assert!(!herald.tells(&report(true, 4, 500), at(102)));
        assert!(herald.tells(&nothing, at(103)));
    }
}
