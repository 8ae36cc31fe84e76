//! To which member a visitor is led. Pure.

pub(crate) mod hash;
mod pools;
pub(crate) mod split;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use geo::Place;
use http::HeaderValue;
use jiff::Timestamp;
use registry::{Failover, OriginPolicy, SheddingPolicy};
use uuid::Uuid;

use self::hash::{Lot, Random, choose};
use crate::affinity::Session;
use crate::health::Standing;
use crate::plan::{Admission, Candidate, Member, Plan, PlannedPool};
use crate::visitor::Visitor;

/// The members to which one visitor is led, one after the other as they fail.
///
/// Whoever is well goes before whoever is not: the pools that the load balancer's policy names, as long as they are healthy, then
/// the fallback pool, then members that are well in pools that have too few of these or shed the visitor; then those that answered
/// badly of late; and in the end the fallback pool's, whatever is known of them.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    plan: &'a Plan,
    /// The pools that the policy names for this visitor.
    named: &'a [usize],
    session: Session,
    /// Where the session leads, if that still has sessions.
    pinned: Option<Candidate>,
    visitor: u64,
    place: Option<Place>,
    now: Timestamp,
    random: Random,
    /// Decides who is shed by chance, the same each time it is asked.
    seed: u64,
    stage: Stage,
    /// Pools in which this stage has nobody any more.
    done: Vec<usize>,
    tried: Vec<Candidate>,
    /// The latest one.
    current: Option<Candidate>,
    /// What the failures so far leave to choose from.
    left: Left,
    /// Members that a request went to.
    tries: usize,
}

/// Where candidates are looked for, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// In healthy pools that the policy names and that do not shed the visitor.
    Named,
    /// Who is well in the fallback pool.
    Fallback,
    /// Who is well in any pool that the policy names.
    AnyWell,
    /// Who is not down in those.
    AnyUp,
    /// Anybody in the fallback pool.
    Last,
    Over,
}

/// To whom a request may go that has failed somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Anybody,
    /// The others of this pool.
    Pool(usize),
    /// The member of its session, should that come back.
    Member(Candidate),
}

impl Stage {
    fn next(self) -> Self {
        match self {
            Self::Named => Self::Fallback,
            Self::Fallback => Self::AnyWell,
            Self::AnyWell => Self::AnyUp,
            Self::AnyUp => Self::Last,
            Self::Last | Self::Over => Self::Over,
        }
    }
}

impl<'a> Walk<'a> {
    /// Members that one request goes to at most: with that many failures the next is not likely to be better, and the visitor waits.
    pub const MOST_TRIES: usize = 4;

    pub(crate) fn new(plan: &'a Plan, visitor: &Visitor<'_>, now: Timestamp, random: u64) -> Self {
        let mut walk = Self {
            plan,
            named: pools::named(plan, visitor),
            session: plan.sessions.of(visitor),
            pinned: None,
            visitor: visitor.key(),
            place: visitor.place,
            now,
            random: Random::new(random),
            seed: hash::mix(random),
            stage: Stage::Named,
            done: Vec::new(),
            tried: Vec::new(),
            current: None,
            left: Left::Anybody,
            tries: 0,
        };
        let pinned = walk.session.member.and_then(|member| plan.find(member));
        walk.pinned = pinned.filter(|pinned| walk.keeps_sessions(*pinned) && !walk.sheds(pinned.pool, true));
        if walk.pinned.is_some() && plan.sessions.failover() == Failover::Temporary {
            // Whoever is elsewhere for a time, without a cookie of that place, is in one place.
            walk.session.key = walk.session.key.or(Some(walk.visitor));
        }
        walk
    }

    /// The next member to send the request to; `None`: there is none any more, or the load balancer says that the request ends with
    /// the one before. Whoever has no connection, by `is_linked`, is passed over.
    pub fn next(&mut self, is_linked: impl Fn(Uuid) -> bool) -> Option<&'a Arc<Member>> {
        if let Some(failed) = self.current.take() {
            self.tried.push(failed);
            if self.ends_with(failed) {
                self.left = Left::Member(failed);
            } else if !self.plan.is_across_pools {
                self.left = Left::Pool(failed.pool);
            }
            if self.tries >= Self::MOST_TRIES || matches!(self.left, Left::Member(_)) {
                self.stage = Stage::Over;
                return None;
            }
            if let Left::Pool(pool) = self.left {
                return self.next_of(pool, &is_linked);
            }
            // Who is in the same pool goes before others.
            if let Some(member) = self.other_of(failed.pool, &is_linked) {
                return Some(member);
            }
        } else if self.stage == Stage::Over || self.tries >= Self::MOST_TRIES {
            return None;
        } else if let Left::Member(member) = self.left {
            self.stage = Stage::Over;
            return self.is_reached(member, &is_linked).then(|| self.go(member));
        } else if let Left::Pool(pool) = self.left {
            return self.next_of(pool, &is_linked);
        } else if self.tried.is_empty()
            && let Some(pinned) = self.pinned.filter(|pinned| self.is_well(*pinned))
            && self.is_reached(pinned, &is_linked)
        {
            return Some(self.go(pinned));
        }
        while self.stage != Stage::Over {
            let Some(candidate) = self.candidate() else {
                (self.stage, self.done) = (self.stage.next(), Vec::new());
                continue;
            };
            if self.is_reached(candidate, &is_linked) {
                return Some(self.go(candidate));
            }
            self.tried.push(candidate);
        }
        None
    }

    /// Whether there is a next one.
    pub fn has_next(&self, is_linked: impl Fn(Uuid) -> bool) -> bool {
        self.clone().next(is_linked).is_some()
    }

    /// Whether it is of a session that is to be nowhere else than where it is.
    pub fn is_bound(&self) -> bool {
        let has_place = self.pinned.is_some() || (self.plan.sessions.is_by_header() && self.session.key.is_some());
        has_place && self.plan.sessions.failover() == Failover::None
    }

    /// From the start, since somebody may be there now who was not. The members that a request went to stay counted, and a request that may
    /// go to some only may so still.
    pub fn again(&mut self) {
        (self.stage, self.current) = (Stage::Named, None);
        self.done.clear();
        self.tried.clear();
    }

    /// The cookie with which the visitor comes to the latest member again; `None` if it has that already, or is to have none.
    pub fn cookie(&self, is_secure: bool) -> Option<HeaderValue> {
        let current = self.current.filter(|current| self.pinned != Some(*current))?;
        let is_elsewhere_for_a_time = self.pinned.is_some() && self.plan.sessions.failover() == Failover::Temporary;
        // Whoever is nowhere well is not to come back.
        if is_elsewhere_for_a_time || self.stage == Stage::Last {
            return None;
        }
        self.plan.sessions.set_cookie(self.plan.member(current).id, is_secure)
    }

    fn go(&mut self, candidate: Candidate) -> &'a Arc<Member> {
        self.current = Some(candidate);
        self.tries += 1;
        self.plan.member(candidate)
    }

    fn is_reached(&self, candidate: Candidate, is_linked: &impl Fn(Uuid) -> bool) -> bool {
        self.plan.member(candidate).target.tunnel().is_none_or(is_linked)
    }

    /// Whether a request fails with this member, since it is of a session that is to be nowhere else.
    fn ends_with(&self, failed: Candidate) -> bool {
        let sessions = &self.plan.sessions;
        let is_of_session = self.pinned == Some(failed) || (sessions.is_by_header() && self.session.key.is_some());
        is_of_session && sessions.failover() == Failover::None
    }

    /// Whether a member is configured to have those who have a session there.
    fn keeps_sessions(&self, pinned: Candidate) -> bool {
        let is_open = match self.plan.member(pinned).admission {
            Admission::Open => true,
            Admission::Draining(until) => self.now < until,
            Admission::Closed => false,
        };
        is_open && self.plan.pools[pinned.pool].is_enabled && self.shares_keep(pinned)
    }

    /// Whether the shares of a pool let those who have a session with this member stay: it has one, drains, or nobody is well who has one.
    fn shares_keep(&self, pinned: Candidate) -> bool {
        let pool = &self.plan.pools[pinned.pool];
        let Some(split) = &pool.split else { return true };
        split.has_share(pinned.member)
            || split.drains(pinned.member, self.now)
            || !(0..pool.members.len()).any(|member| {
                let candidate = Candidate { member, ..pinned };
                let is_open = pool.members[member].admission == Admission::Open;
                is_open && split.has_share(member) && self.is_well(candidate)
            })
    }

    fn is_well(&self, candidate: Candidate) -> bool {
        matches!(self.plan.member(candidate).vitals.standing(self.now), Standing::Well(_))
    }

    /// Another one of the pool in which one failed, and nobody else.
    fn next_of(&mut self, pool: usize, is_linked: &impl Fn(Uuid) -> bool) -> Option<&'a Arc<Member>> {
        let member = self.other_of(pool, is_linked);
        if member.is_none() {
            self.stage = Stage::Over;
        }
        member
    }

    /// Another one of the pool in which one failed, the best that there is.
    fn other_of(&mut self, pool: usize, is_linked: &impl Fn(Uuid) -> bool) -> Option<&'a Arc<Member>> {
        let is_across = self.plan.is_across_pools;
        let stages: &[Stage] = match self.stage {
            Stage::Last => &[Stage::Last],
            // Who is well in other pools goes before who is not in this one.
            _ if is_across => &[Stage::AnyWell],
            _ => &[Stage::AnyWell, Stage::AnyUp],
        };
        for stage in stages {
            while let Some(member) = self.member_of(pool, *stage) {
                let candidate = Candidate { pool, member };
                if self.is_reached(candidate, is_linked) {
                    return Some(self.go(candidate));
                }
                self.tried.push(candidate);
            }
        }
        None
    }

    /// Somebody of the present stage.
    fn candidate(&mut self) -> Option<Candidate> {
        loop {
            let pool = match self.stage {
                Stage::Named | Stage::AnyWell | Stage::AnyUp => self.named_pool()?,
                Stage::Fallback | Stage::Last => self.plan.fallback.filter(|pool| !self.done.contains(pool))?,
                Stage::Over => return None,
            };
            let is_wanted = self.plan.pools[pool].is_enabled && (self.stage != Stage::Named || self.is_healthy(pool));
            if is_wanted && let Some(member) = self.member_of(pool, self.stage) {
                return Some(Candidate { pool, member });
            }
            self.done.push(pool);
        }
    }

    /// Whether a pool has as many that are well as it has to, and this visitor is not shed.
    fn is_healthy(&self, at: usize) -> bool {
        let pool = &self.plan.pools[at];
        let is_well = |member: &&Arc<Member>| {
            member.admission == Admission::Open && matches!(member.vitals.standing(self.now), Standing::Well(_))
        };
        pool.members.iter().filter(is_well).take(pool.minimum).count() == pool.minimum && !self.sheds(at, false)
    }

    /// Whether a pool does without this visitor.
    fn sheds(&self, pool: usize, has_session: bool) -> bool {
        let pool = &self.plan.pools[pool];
        let terms = &pool.shedding;
        let (percent, key) = match terms.default_policy {
            _ if has_session => (terms.session_percent, self.visitor),
            SheddingPolicy::Hash => (terms.default_percent, self.session.key.unwrap_or(self.visitor)),
            SheddingPolicy::Random => (terms.default_percent, self.seed),
        };
        // Another number than the one that chooses members.
        percent > 0.0 && hash::unit(hash::mixed(key, !pool.key)) * 100.0 <= percent
    }

    /// One of the members of a pool that fit this stage and were not tried.
    fn member_of(&mut self, at: usize, stage: Stage) -> Option<usize> {
        let Self { plan, now, random, tried, session, visitor, .. } = self;
        let pool: &PlannedPool = &plan.pools[at];
        let drains = plan.sessions.is_by_header() && session.key.is_some();
        // What is left of its weight for one that fits.
        let share = |member: usize| {
            let it = &pool.members[member];
            let is_open = match it.admission {
                Admission::Open => true,
                Admission::Draining(until) => drains && *now < until,
                Admission::Closed => false,
            };
            if !is_open || tried.contains(&Candidate { pool: at, member }) {
                return None;
            }
            match (it.vitals.standing(*now), stage) {
                (Standing::Well(share), _) => Some(share),
                (Standing::Suspect, Stage::AnyUp | Stage::Last) | (Standing::Down, Stage::Last) => Some(1.0),
                (Standing::Suspect | Standing::Down, _) => None,
            }
        };
        let key = session.key.or_else(|| (pool.policy == OriginPolicy::Hash).then_some(*visitor));
        let places = 0..pool.members.len();
        let group = match &pool.split {
            Some(split) => {
                let fits = |member: &usize| share(*member).is_some();
                let weighs = |member: &usize| fits(member) && pool.members[*member].weight > 0.0;
                // One without weight is there only for when nobody else is, whatever its value has.
                let is_any = places.clone().any(|member| weighs(&member));
                let candidates = places.clone().filter(|member| if is_any { weighs(member) } else { fits(member) });
                let lot = key.map_or(Lot::Random(random), Lot::Key);
                Some((split, split.choose(lot, candidates)?))
            }
            None => None,
        };
        let weighed = places.filter_map(|member| {
            if group.is_some_and(|(split, chosen)| split.group(member) != chosen) {
                return None;
            }
            let (it, share) = (&pool.members[member], share(member)?);
            // Of two with as much to do the heavier one gets more; of two of the same weight the one with less to do.
            let load = match pool.policy {
                _ if session.key.is_some() => 0,
                OriginPolicy::Random | OriginPolicy::Hash => 0,
                OriginPolicy::LeastOutstandingRequests => it.vitals.outstanding(),
                OriginPolicy::LeastConnections => it.vitals.open(),
            };
            Some((member, it.weight * share / f64::from(load + 1), it.id.bits()))
        });
        choose(key.map_or(Lot::Random(random), Lot::Key), weighed)
    }

    /// The best of the pools that the policy names and that are not done.
    fn named_pool(&mut self) -> Option<usize> {
        let Self { plan, named, done, random, session, place, .. } = self;
        let left = named.iter().copied().filter(|pool| !done.contains(pool));
        pools::best(plan, left, session.key, *place, random)
    }
}
