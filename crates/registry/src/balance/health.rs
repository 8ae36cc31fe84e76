//! What is known of pools' health: what each of the nodes that ask reports, and what follows from all reports together. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::member::MemberId;
use crate::{NodeId, PoolId};

/// What one node finds out of a pool, as long as it asks the pool's members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Which pool.
    pub pool: PoolId,
    /// Those of whom it knows something.
    #[serde(rename = "m")]
    pub members: Vec<MemberReport>,
}

/// What one node finds out of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Which.
    #[serde(rename = "i")]
    pub member: MemberId,
    /// Whether it answers as its monitor wants.
    #[serde(rename = "u")]
    pub is_up: bool,
    /// Since when.
    #[serde(rename = "s")]
    pub since: Timestamp,
    /// Why it does not; at most [`MemberReport::MAX_REASON_BYTES`].
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// The status that it answered with, if it answered with one.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// From question to answer, in milliseconds.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u32>,
    /// It could not be asked, for the reason; the rest says nothing about it then.
    #[serde(rename = "q", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unasked: bool,
}

impl MemberReport {
    /// Every node gets it.
    pub const MAX_REASON_BYTES: usize = 200;
}

/// What is known of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolHealth {
    /// Whether visitors are led there: it is enabled, and enough of its members are that are well.
    pub is_healthy: bool,
    /// Its members, in the order of its origins.
    pub members: Vec<MemberHealth>,
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberHealth {
    /// Which.
    pub id: MemberId,
    /// Whether there is a way to it; `None`: it needs no tunnel.
    pub link: Option<Link>,
    /// Whether it answers, as most of those say who ask it; `None`: nobody asks, or nobody knows yet.
    pub probe: Option<Probe>,
    /// Why nobody can ask it as its monitor says, if that is why nothing is known.
    pub unasked: Option<Box<str>>,
}

/// Whether the tunnel of a member has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// It has.
    pub is_up: bool,
    /// Since when; `None`: since before this node began.
    pub since: Option<Timestamp>,
}

/// Whether a member answers as its monitor wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// It does.
    pub is_up: bool,
    /// Since when most say so.
    pub since: Timestamp,
    /// Why it does not.
    pub reason: Option<Box<str>>,
    /// The status that it answered with.
    pub code: Option<u16>,
    /// From question to answer, the median.
    pub time: Option<Duration>,
    /// How many nodes say so, and of how many.
    pub voices: (usize, usize),
}

/// A member turned well, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    /// When.
    pub at: Timestamp,
    /// What it has been since.
    pub is_well: bool,
    /// Why it is not well.
    pub reason: Option<Box<str>>,
}

impl MemberHealth {
    /// Whether visitors may be led to it: there is a way, and nothing says that it does not answer.
    pub fn is_well(&self) -> bool {
        self.link.is_none_or(|link| link.is_up) && self.probe.as_ref().is_none_or(|probe| probe.is_up)
    }

    /// Why it is not well, in a sentence.
    pub fn reason(&self) -> Option<&str> {
        if self.link.is_some_and(|link| !link.is_up) {
            return Some("the tunnel has no connection");
        }
        let probe = self.probe.as_ref().filter(|probe| !probe.is_up)?;
        Some(probe.reason.as_deref().unwrap_or("it does not answer as its monitor wants"))
    }

    /// Since when it is well, or is not, if that is known.
    pub fn since(&self) -> Option<Timestamp> {
        let link = self.link.and_then(|link| Some((link.is_up, link.since?)));
        let probe = self.probe.as_ref().map(|probe| (probe.is_up, probe.since));
        let all = [link, probe].into_iter().flatten();
        if self.is_well() {
            // The later one made it well.
            return all.map(|(_, since)| since).max();
        }
        all.filter(|(is_up, _)| !is_up).map(|(_, since)| since).min()
    }
}

/// What most of those say who report of a member. Where as many say the one as the other, it answers: whoever cannot reach it may be
/// the one who is cut off.
pub(crate) fn agreed(member: MemberId, reports: &[(NodeId, Arc<PoolReport>)]) -> Option<Probe> {
    let told: Vec<&MemberReport> = told_of(member, reports).filter(|told| !told.is_unasked).collect();
    let downs = told.iter().filter(|told| !told.is_up).count();
    let is_up = downs * 2 <= told.len();
    let mut majority: Vec<_> = told.iter().copied().filter(|told| told.is_up == is_up).collect();
    majority.sort_by_key(|told| told.since);
    // So many make a majority: from then on they were one.
    let enough = (told.len() / 2 + 1).min(majority.len());
    let since = majority.get(enough.checked_sub(1)?)?.since;
    let latest = majority.last()?;
    let mut times: Vec<u32> = majority.iter().filter_map(|told| told.millis).collect();
    times.sort_unstable();
    let time = times.get(times.len() / 2).map(|millis| Duration::from_millis((*millis).into()));
    let (reason, code) = (latest.reason.clone(), latest.code);
    Some(Probe { is_up, since, reason, code, time, voices: (majority.len(), told.len()) })
}

/// Why those cannot ask a member who should.
pub(crate) fn unasked(member: MemberId, reports: &[(NodeId, Arc<PoolReport>)]) -> Option<Box<str>> {
    told_of(member, reports).find(|told| told.is_unasked)?.reason.clone()
}

fn told_of(member: MemberId, reports: &[(NodeId, Arc<PoolReport>)]) -> impl Iterator<Item = &MemberReport> {
    reports.iter().filter_map(move |(_, report)| report.members.iter().find(|told| told.member == member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn agree(told: &[(bool, i64)]) -> Option<(bool, i64, (usize, usize))> {
        let pool = PoolId::from_bytes([1; 16]);
        let member: MemberId = "0123456789abcdef".parse().unwrap();
        let reports: Vec<_> = told
            .iter()
            .map(|(is_up, since)| {
                let (reason, code) = ((!is_up).then(|| "no".into()), None);
                let told = MemberReport {
                    member,
                    is_up: *is_up,
                    since: at(*since),
                    reason,
                    code,
                    millis: Some(*since as u32),
                    is_unasked: false,
                };
                (NodeId::random(), Arc::new(PoolReport { pool, members: vec![told] }))
            })
            .collect();
        let agreed = agreed(member, &reports)?;
        assert_eq!(agreed.reason.is_some(), !agreed.is_up);
        Some((agreed.is_up, agreed.since.as_second(), agreed.voices))
    }

    #[test]
    fn most_decide_and_since_when_they_are_most() {
        assert_eq!(agree(&[]), None);
        assert_eq!(agree(&[(true, 5)]), Some((true, 5, (1, 1))));
        assert_eq!(agree(&[(false, 5)]), Some((false, 5, (1, 1))));
        assert_eq!(agree(&[(false, 5), (true, 1)]), Some((true, 1, (1, 2))));
        assert_eq!(agree(&[(false, 5), (true, 1), (true, 2)]), Some((true, 2, (2, 3))));
        assert_eq!(agree(&[(false, 5), (false, 9), (true, 2)]), Some((false, 9, (2, 3))));
        assert_eq!(agree(&[(false, 5), (false, 9), (false, 7)]), Some((false, 7, (3, 3))));
    }

    #[test]
    fn a_member_is_well_by_link_and_probe_and_says_why_it_is_not() {
        let link = |is_up, since| Some(Link { is_up, since: Some(at(since)) });
        let probe = |is_up: bool, since| {
            let reason = (!is_up).then(|| "HTTP 500".into());
            Some(Probe { is_up, since: at(since), reason, code: None, time: None, voices: (1, 1) })
        };
        let id = "0123456789abcdef".parse().unwrap();
        for (link, probe, is_well, reason, since) in [
            (None, None, true, None, None),
            (link(true, 3), None, true, None, Some(3)),
            (link(true, 3), probe(true, 5), true, None, Some(5)),
            (link(true, 3), probe(false, 5), false, Some("HTTP 500"), Some(5)),
            (link(false, 3), probe(true, 5), false, Some("the tunnel has no connection"), Some(3)),
            (link(false, 6), probe(false, 5), false, Some("the tunnel has no connection"), Some(5)),
            (None, probe(false, 5), false, Some("HTTP 500"), Some(5)),
        ] {
            let health = MemberHealth { id, link, probe, unasked: None };
            assert_eq!((health.is_well(), health.reason()), (is_well, reason));
            assert_eq!(health.since(), since.map(at));
        }
    }
}
