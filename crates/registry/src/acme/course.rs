//! What may be done about a name at a time, without a clock or a registry.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::{AcmeAnswer, AcmeBudget, AcmeCertificate, AcmeFailed, AcmeHeld, AcmeOrder};
use crate::{Hostname, NodeId};

/// A node that orders is through within this, or is taken for dead. Longer than any attempt takes (`snicket::acme` ends
/// them after two minutes), with room for clocks that differ.
pub(crate) const HOLD: Duration = Duration::from_secs(5 * 60);

/// Orders under way at once, on all nodes together. Each waits for the authority most of its time.
const AT_ONCE: usize = 8;

/// One order in so many seconds on the long run: 90 an hour. The best-known authority allows 300 in three hours.
const PERIOD: SignedDuration = SignedDuration::from_secs(40);

/// Orders that may come together after a quiet time, within what that authority allows, too.
const BURST: i32 = 30;

/// Of these, so many are left to visitors who wait and to renewals when nobody waits for an order yet.
const KEPT_BACK: i32 = 15;

/// Before the second attempt. Each attempt after the first lets the authority look once, the first twice, and the best-known
/// one stops listening for an hour after five looks in vain.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// Each further pause is so many times as long.
const PAUSE_GROWTH: i32 = 3;
/// At the longest. A renewal has a third of the life left, which is a month with most authorities.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(6);
/// At the shortest, however little is left of a certificate's life.
const SHORTEST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// At the longest once a certificate has ended: its visitors are warned of it. The best-known authority looks five times an hour.
const ENDED_PAUSE: SignedDuration = SignedDuration::from_mins(15);
/// An authority that says that it was asked too often is left alone for so long at least.
const RATE_LIMITED_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// A renewal is due after so many parts of [`LIFE_PARTS`] of a certificate's life.
const DUE_PARTS: i32 = 20;
/// Into so many parts a life is divided; one of them is how much earlier than [`DUE_PARTS`] a name may be due, so that names
/// that were ordered together are not renewed together.
const LIFE_PARTS: i32 = 30;

/// Why a reason is kept as text no longer than this: it comes from outside, and is in the memory of every node.
const LONGEST_REASON: usize = 500;

/// Where a name is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeStage {
    /// It has no certificate that is valid.
    Absent,
    /// A node is ordering.
    Ordering {
        /// Or is taken for dead.
        until: Timestamp,
    },
    /// It has a certificate.
    Held {
        /// Which is to be renewed from then on.
        renew_at: Timestamp,
    },
    /// It has a certificate that is to be renewed.
    Due,
    /// The last order failed, and there may be a certificate nevertheless.
    Failed {
        /// The next order begins then at the earliest.
        until: Timestamp,
    },
}

impl AcmeStage {
    /// Of a name of which this is known.
    pub fn of(certificate: Option<&AcmeCertificate>, order: Option<&AcmeOrder>, now: Timestamp) -> Self {
        if let Some(held) = order.and_then(|order| order.held.as_ref()).filter(|held| now < held.until) {
            return Self::Ordering { until: held.until };
        }
        if let Some(failed) = order.and_then(|order| order.failure.as_ref()).filter(|failed| now < failed.retry_at) {
            return Self::Failed { until: failed.retry_at };
        }
        match certificate.filter(|certificate| now < certificate.not_after) {
            None => Self::Absent,
            Some(certificate) if now < certificate.renew_at() => Self::Held { renew_at: certificate.renew_at() },
            Some(_) => Self::Due,
        }
    }

    /// Whether an order may begin.
    pub fn may_begin(self) -> bool {
        matches!(self, Self::Absent | Self::Due)
    }
}

impl AcmeCertificate {
    /// From then on it is to be renewed: after two thirds of its life, or up to a thirtieth of it earlier. The same on every
    /// node, as it follows from the name.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before).max(SignedDuration::ZERO);
        let part = life / LIFE_PARTS;
        let early = part.mul_f64(fraction(&self.name, self.not_after.as_second().unsigned_abs()));
        self.not_before.saturating_add(part * DUE_PARTS - early).unwrap_or(Timestamp::MAX)
    }
}

/// Who is waiting for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeUrgency {
    /// A visitor, or one who has a certificate that ends.
    Now,
    /// Nobody yet.
    Ahead,
}

/// Why an order does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcmeNotNow {
    /// The name has what it needs, or a node is at it, or it has to wait.
    #[error("there is nothing to order for it now")]
    Stage(AcmeStage),
    /// So many are under way that no other one begins.
    #[error("{AT_ONCE} orders are under way already")]
    TooMany,
    /// So many have begun of late.
    #[error("too many certificates have been ordered of late; the next order may begin at {until}")]
    TooOften {
        /// The next one may begin then.
        until: Timestamp,
    },
}

/// Begins an order: what is written then.
pub(super) fn begin(
    name: &Hostname,
    (certificate, order): (Option<&AcmeCertificate>, Option<&AcmeOrder>),
    (budget, under_way): (Option<&AcmeBudget>, usize),
    (node, urgency): (NodeId, AcmeUrgency),
    now: Timestamp,
) -> Result<(AcmeOrder, AcmeBudget), AcmeNotNow> {
    let stage = AcmeStage::of(certificate, order, now);
    if !stage.may_begin() {
        return Err(AcmeNotNow::Stage(stage));
    }
    if under_way >= AT_ONCE {
        return Err(AcmeNotNow::TooMany);
    }
    let budget = AcmeBudget { paid_at: spend(budget, urgency, now)? };
    let held = AcmeHeld { node, until: after(now, SignedDuration::try_from(HOLD).unwrap_or(SignedDuration::MAX)) };
    let before = order.cloned();
    let order = AcmeOrder {
        name: name.clone(),
        held: Some(held),
        answer: None,
        failures: before.as_ref().map_or(0, |order| order.failures),
        unseen: before.as_ref().map_or(0, |order| order.unseen),
        failure: before.and_then(|order| order.failure),
    };
    Ok((order, budget))
}

/// When everything would be paid for with one order more.
fn spend(budget: Option<&AcmeBudget>, urgency: AcmeUrgency, now: Timestamp) -> Result<Timestamp, AcmeNotNow> {
    let paid_at = budget.map_or(now, |budget| budget.paid_at.max(now));
    let most = match urgency {
        AcmeUrgency::Now => BURST,
        AcmeUrgency::Ahead => BURST - KEPT_BACK,
    };
    let until = paid_at.saturating_sub(PERIOD * (most - 1)).unwrap_or(Timestamp::MIN);
    if now < until {
        return Err(AcmeNotNow::TooOften { until });
    }
    Ok(after(paid_at, PERIOD))
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeFailure {
    /// It may succeed at the next attempt.
    Usual,
    /// The authority looked, and did not find the answer.
    Unseen,
    /// The authority says that it was asked too often.
    RateLimited,
}

impl AcmeOrder {
    /// It can be answered from now on.
    pub(super) fn with_answer(&self, answer: AcmeAnswer) -> Self {
        Self { answer: Some(answer), ..self.clone() }
    }

    /// It has failed.
    pub(super) fn failed(
        &self,
        certificate: Option<&AcmeCertificate>,
        (kind, why): (AcmeFailure, &str),
        now: Timestamp,
    ) -> Self {
        let failures = self.failures.saturating_add(1);
        let growth = PAUSE_GROWTH.saturating_pow(failures.saturating_sub(1));
        let mut pause = FIRST_PAUSE.checked_mul(growth).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        // From three quarters of it to the whole, so that names that failed together do not come again together.
        pause -= (pause / 4).mul_f64(fraction(&self.name, failures.into()));
        if let Some(certificate) = certificate {
            // Who has a certificate that ends soon tries several times before it does, and goes on more often than others after that.
            let left = certificate.not_after.duration_since(now);
            let most = if left.is_positive() { (left / 10).max(SHORTEST_PAUSE) } else { ENDED_PAUSE };
            pause = pause.min(most);
        }
        if kind == AcmeFailure::RateLimited {
            pause = pause.max(RATE_LIMITED_PAUSE);
        }
        let why = why.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect::<String>().into();
        let failure = Some(AcmeFailed { why, at: now, retry_at: after(now, pause) });
        let unseen = self.unseen.saturating_add(u32::from(kind == AcmeFailure::Unseen));
        Self { held: None, answer: None, failures, unseen, failure, ..self.clone() }
    }
}

fn after(time: Timestamp, pause: SignedDuration) -> Timestamp {
    time.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

/// From 0 to 1, by chance as it were, and the same wherever it is asked for.
fn fraction(name: &Hostname, turn: u64) -> f64 {
    let hash = Sha256::new().chain_update(name.as_str()).chain_update(turn.to_be_bytes()).finalize();
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    f64::from(number) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
