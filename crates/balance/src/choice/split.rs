//! Who gets which share of a pool's visitors, by a label of its members. Pure.

use jiff::{SignedDuration, Timestamp};
use registry::{LabelSteering, LabelWord};

use super::hash::{self, Lot, choose};

/// The shares of a pool: first a value of the label is chosen by weight among those with anybody to lead to, then a member of that
/// value. So the shares do not depend on how many members each value has.
#[derive(Debug)]
pub(crate) struct Split {
    groups: Vec<Group>,
    /// The group of each member, in the order of the pool's.
    of: Vec<usize>,
}

/// The members with one value of the label; the last group is of those with none that is listed.
#[derive(Debug)]
struct Group {
    weight: f64,
    /// The same for the value wherever it is, so that a visitor who is a canary's in one pool is so in the others.
    key: u64,
    /// So long those who have a session stay, though nobody else comes.
    drains_until: Option<Timestamp>,
}

impl Split {
    /// Of a pool whose members have these values, and whose sessions stay for so many seconds where nobody else comes any more.
    pub(crate) fn new(steering: &LabelSteering, values: impl Iterator<Item = Option<LabelWord>>, drain: u32) -> Self {
        let drained = |value: &LabelWord| {
            let since = *steering.disabled_at.get(value)?;
            Some(since.saturating_add(SignedDuration::from_secs(drain.into())).unwrap_or(since))
        };
        let listed = steering.weights.iter();
        let listed =
            listed.map(|(value, weight)| Group { weight: *weight, key: key(value), drains_until: drained(value) });
        let others = Group { weight: 0.0, key: hash::mix(0), drains_until: None };
        let place = |value: Option<LabelWord>| {
            let listed = value.and_then(|value| steering.weights.keys().position(|listed| *listed == value));
            listed.unwrap_or(steering.weights.len())
        };
        Self { groups: listed.chain([others]).collect(), of: values.map(place).collect() }
    }

    /// The group of a member.
    pub(super) fn group(&self, member: usize) -> usize {
        self.of[member]
    }

    /// One of the groups of these members, by weight; one without weight only if none of them has any.
    pub(super) fn choose(&self, lot: Lot<'_>, members: impl Iterator<Item = usize>) -> Option<usize> {
        // There are few enough values for a bit each.
        let found = members.fold(0_u32, |found, member| found | 1 << self.of[member]);
        let there = self.groups.iter().enumerate().filter(|(at, _)| found >> at & 1 == 1);
        choose(lot, there.map(|(at, group)| (at, group.weight, group.key)))
    }

    /// Whether visitors who have no session are led to a member while others are well.
    pub(super) fn has_share(&self, member: usize) -> bool {
        self.groups[self.of[member]].weight > 0.0
    }

    /// Whether those who have a session there stay, though nobody else comes any more.
    pub(super) fn drains(&self, member: usize, now: Timestamp) -> bool {
        self.groups[self.of[member]].drains_until.is_some_and(|until| now < until)
    }
}

fn key(value: &LabelWord) -> u64 {
    value.as_str().bytes().fold(hash::mix(1), |key, byte| hash::mixed(key, byte.into()))
}
