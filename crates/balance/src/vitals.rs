use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use crate::health::{Failure, Passive, Standing, Verdict, share};
use crate::news::{Back, News, Out, Who};
use crate::tally::Tally;

/// What is known of one member at this node right now. Each request reads it; whoever learns something writes it.
#[derive(Debug)]
pub struct Vitals {
    pool: Arc<PoolVitals>,
    /// For people.
    name: Mutex<Box<str>>,
    /// Its tunnel has a connection, or it needs none.
    is_linked: AtomicBool,
    /// As far as its monitor says.
    is_answering: AtomicBool,
    /// In milliseconds since 1970, as all times here.
    out_until: AtomicI64,
    well_since: AtomicI64,
    /// Requests that are not answered yet.
    outstanding: AtomicU32,
    /// Requests whose answers have not ended yet, those without an answer included.
    open: AtomicU32,
    answered: Tally,
    /// It was told that it is out, because of what visitors' requests met.
    is_told_out: AtomicBool,
    passive: Mutex<Passive>,
}

/// The same of a pool.
#[derive(Debug, Default)]
pub(crate) struct PoolVitals {
    outstanding: AtomicU32,
    open: AtomicU32,
    /// In microseconds; 0: unknown.
    latency: AtomicU32,
    /// Members that may be taken out because of what they answer.
    spare: AtomicU32,
    /// Until when those are out that were.
    out: Mutex<Vec<Timestamp>>,
    /// For people.
    name: Mutex<Box<str>>,
    news: Arc<News>,
}

impl PoolVitals {
    /// What becomes of its members is told there.
    pub(crate) fn new(news: Arc<News>) -> Self {
        Self { news, ..Self::default() }
    }

    pub(crate) fn set_name(&self, name: &str) {
        set(&self.name, name);
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Relaxed)
    }

    pub(crate) fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    pub(crate) fn latency(&self) -> Option<Duration> {
        Some(self.latency.load(Relaxed)).filter(|micros| *micros > 0).map(|micros| Duration::from_micros(micros.into()))
    }

    pub(crate) fn set_latency(&self, latency: Option<Duration>) {
        let micros = latency.map_or(0, |latency| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(1));
        self.latency.store(micros, Relaxed);
    }

    /// Of so many members, half may be out because of what they answer: what visitors ask for may make all of them answer badly, and
    /// somebody has to be there.
    pub(crate) fn set_size(&self, members: usize) {
        self.spare.store(u32::try_from(members / 2).unwrap_or(u32::MAX), Relaxed);
    }

    /// Whether one more may be out until then.
    fn may_go(&self, now: Timestamp) -> bool {
        let mut out = lock(&self.out);
        out.retain(|until| *until > now && until.duration_since(now) <= Passive::LONGEST_OUT);
        out.len() < self.spare.load(Relaxed) as usize
    }

    fn gone(&self, until: Timestamp) {
        lock(&self.out).push(until);
    }
}

impl Vitals {
    pub(crate) fn new(pool: Arc<PoolVitals>) -> Self {
        Self {
            pool,
            name: Mutex::default(),
            is_linked: AtomicBool::new(true),
            is_answering: AtomicBool::new(true),
            out_until: AtomicI64::new(i64::MIN),
            well_since: AtomicI64::new(i64::MIN),
            outstanding: AtomicU32::new(0),
            open: AtomicU32::new(0),
            answered: Tally::default(),
            is_told_out: AtomicBool::new(false),
            passive: Mutex::default(),
        }
    }

    pub(crate) fn set_name(&self, name: &str) {
        set(&self.name, name);
    }

    /// Whether visitors are led there.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if !self.is_linked.load(Relaxed) || !self.is_answering.load(Relaxed) {
            return Standing::Down;
        }
        let now = now.as_millisecond();
        let out_until = self.out_until.load(Relaxed);
        // If it is longer, the clock was set back.
        let longest = Passive::LONGEST_OUT.as_millis() as i64;
        if now < out_until && out_until - now <= longest {
            return Standing::Suspect;
        }
        let since = self.well_since.load(Relaxed).max(out_until);
        Standing::Well(share(since, now))
    }

    /// Requests that it has not answered yet.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Relaxed)
    }

    /// Requests whose answers have not ended yet, those without an answer included.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Requests that it answered at this node.
    pub(crate) fn answered(&self) -> &Tally {
        &self.answered
    }

    /// Whether there is a way to it, and whether its monitor says that it answers, with the reason if not.
    pub(crate) fn learn(&self, is_linked: bool, is_answering: bool, reason: Option<&str>, now: Timestamp) {
        self.set_linked(is_linked, now);
        if !self.set_answering(is_answering, now) {
            return;
        }
        self.tell(|news, who| match is_answering {
            true => news.back(who, Back::Monitor),
            false => news.out_by_monitor(who, reason),
        });
    }

    /// Whether there is a way to it.
    pub(crate) fn set_linked(&self, is_linked: bool, now: Timestamp) {
        let was = self.is_linked.swap(is_linked, Relaxed);
        self.note_return(!was && is_linked, now);
    }

    /// What its monitor says; answers whether it said otherwise before.
    pub(crate) fn set_answering(&self, is_answering: bool, now: Timestamp) -> bool {
        let was = self.is_answering.swap(is_answering, Relaxed);
        self.note_return(!was && is_answering, now);
        was != is_answering
    }

    fn note_return(&self, is_back: bool, now: Timestamp) {
        if is_back {
            self.well_since.store(now.as_millisecond(), Relaxed);
        }
    }

    fn good(&self, now: Timestamp) {
        lock(&self.passive).good(now);
        // Where nobody else is, it is asked while it is out, too.
        let is_in = self.out_until.load(Relaxed) <= now.as_millisecond();
        if is_in && self.is_told_out.load(Relaxed) && self.is_told_out.swap(false, Relaxed) {
            self.tell(|news, who| news.back(who, Back::Answers));
        }
    }

    fn bad(&self, now: Timestamp) {
        self.judge(Out::BadAnswers, now, |passive| {
            let verdict = passive.bad(now, || self.pool.may_go(now));
            if let Verdict::OutUntil(until) = verdict {
                self.pool.gone(until);
            }
            verdict
        });
    }

    fn judge(&self, why: Out, now: Timestamp, judge: impl FnOnce(&mut Passive) -> Verdict) {
        let verdict = judge(&mut lock(&self.passive));
        if let Verdict::OutUntil(until) = verdict {
            self.out_until.store(until.as_millisecond(), Relaxed);
            self.is_told_out.store(true, Relaxed);
            self.tell(|news, who| news.out(who, why, until.duration_since(now).unsigned_abs()));
        }
    }

    fn tell(&self, tell: impl FnOnce(&News, Who<'_>)) {
        let (pool, member) = (lock(&self.pool.name).clone(), lock(&self.name).clone());
        tell(&self.pool.news, Who { pool: &pool, member: &member });
    }
}

/// One request at a member. It counts until this is dropped, which is when its answer has ended or its visitor has left.
#[derive(Debug)]
pub struct UnderWay {
    vitals: Arc<Vitals>,
    is_outstanding: bool,
}

impl UnderWay {
    pub(crate) fn new(vitals: Arc<Vitals>) -> Self {
        for counter in [&vitals.outstanding, &vitals.open, &vitals.pool.outstanding, &vitals.pool.open] {
            counter.fetch_add(1, Relaxed);
        }
        Self { vitals, is_outstanding: true }
    }

    /// The head of the answer is there.
    pub fn answered(&mut self, status: StatusCode, now: Timestamp) {
        self.settle();
        let vitals = &*self.vitals;
        vitals.answered.count(now);
        if !status.is_server_error() {
            return vitals.good(now);
        }
        vitals.bad(now);
    }

    /// There will be none.
    pub fn failed(&mut self, failure: Failure, now: Timestamp) {
        self.settle();
        match failure {
            Failure::Connect => self.vitals.judge(Out::Unreached, now, |passive| passive.unreached(now)),
            Failure::Reset | Failure::Late => self.vitals.bad(now),
        }
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.is_outstanding) {
            self.vitals.outstanding.fetch_sub(1, Relaxed);
            self.vitals.pool.outstanding.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.settle();
        self.vitals.open.fetch_sub(1, Relaxed);
        self.vitals.pool.open.fetch_sub(1, Relaxed);
    }
}

/// Most names stay what they are.
fn set(name: &Mutex<Box<str>>, new: &str) {
    let mut name = lock(name);
    if **name != *new {
        *name = new.into();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    fn after(seconds: i64) -> Timestamp {
        NOW + SignedDuration::from_secs(seconds)
    }

    /// So many members of one pool.
    fn members(count: usize) -> Vec<Arc<Vitals>> {
        let pool = Arc::new(PoolVitals::default());
        pool.set_size(count);
        (0..count).map(|_| Arc::new(Vitals::new(pool.clone()))).collect()
    }

    fn answer(vitals: &Arc<Vitals>, status: StatusCode, now: Timestamp) {
        UnderWay::new(vitals.clone()).answered(status, now);
    }

    fn is_well(vitals: &Vitals, now: Timestamp) -> bool {
        matches!(vitals.standing(now), Standing::Well(_))
    }

    #[test]
    fn a_request_counts_until_its_answer_begins_and_until_it_ends() {
        let members = members(2);
        let counts =
            || (members[0].outstanding(), members[0].open(), members[0].pool.outstanding(), members[0].pool.open());
        let mut first = UnderWay::new(members[0].clone());
        let second = UnderWay::new(members[0].clone());
        let other = UnderWay::new(members[1].clone());
        assert_eq!(counts(), (2, 2, 3, 3));
        first.answered(StatusCode::OK, NOW);
        first.answered(StatusCode::OK, NOW);
        assert_eq!(counts(), (1, 2, 2, 3));
        // Its visitor leaves.
        drop(second);
        assert_eq!(counts(), (0, 1, 1, 2));
        drop((first, other));
        assert_eq!(counts(), (0, 0, 0, 0));
    }

    #[test]
    fn who_cannot_be_reached_is_out_and_comes_back_slowly() {
        let members = members(1);
        let fail = |now| UnderWay::new(members[0].clone()).failed(Failure::Connect, now);
        assert_eq!(members[0].standing(NOW), Standing::Well(1.0));
        (0..3).for_each(|_| fail(NOW));
        assert_eq!([NOW, after(4)].map(|now| members[0].standing(now)), [Standing::Suspect; 2]);
        let back = [5, 20, 35, 1000].map(|seconds| members[0].standing(after(seconds)));
        assert_eq!(back, [0.1, 0.55, 1.0, 1.0].map(Standing::Well));
        // What a monitor says goes before that; and a clock that is set back far keeps nobody out.
        members[0].set_answering(false, NOW);
        assert_eq!(members[0].standing(NOW), Standing::Down);
        members[0].set_answering(true, after(-100_000));
        assert!(is_well(&members[0], after(-100_000)));
    }

    #[test]
    fn link_and_monitor_both_count_and_who_comes_back_does_so_slowly() {
        let members = members(1);
        let member = &members[0];
        member.set_linked(false, NOW);
        member.set_answering(false, NOW);
        member.set_linked(true, after(1));
        assert_eq!(member.standing(after(1)), Standing::Down);
        member.set_answering(true, after(2));
        assert_eq!(member.standing(after(2)), Standing::Well(0.1));
        // Told again, it is no return.
        member.set_answering(true, after(32));
        assert_eq!(member.standing(after(32)), Standing::Well(1.0));
    }

    /// What was counted of members: out by requests that could not reach it, by bad answers and by monitors; back by answers and by
    /// monitors.
    fn counted(vitals: &Vitals) -> Vec<u64> {
        let text = vitals.pool.news.text();
        let rows = text.lines().filter(|line| line.starts_with("snicket_balance_members_"));
        rows.map(|row| row.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn who_is_out_and_back_is_told_once() {
        let members = members(2);
        let member = &members[0];
        let fail = |now| UnderWay::new(member.clone()).failed(Failure::Connect, now);
        (0..10).for_each(|_| fail(NOW));
        assert_eq!(counted(member), [1, 0, 0, 0, 0]);
        // Nobody else is there: that it answers while it is out brings it back no sooner.
        answer(member, StatusCode::OK, after(1));
        assert_eq!(counted(member), [1, 0, 0, 0, 0]);
        (0..3).for_each(|_| answer(member, StatusCode::NOT_FOUND, after(5)));
        assert_eq!(counted(member), [1, 0, 0, 1, 0]);
        (0..20).for_each(|_| answer(member, StatusCode::BAD_GATEWAY, after(30)));
        assert_eq!(counted(member), [1, 1, 0, 1, 0]);
        for is_up in [true, false, false, true, true] {
            member.learn(true, is_up, None, after(40));
        }
        assert_eq!(counted(member), [1, 1, 1, 1, 1]);
        // A way that comes and goes is told by the tunnel.
        [true, false, true].into_iter().for_each(|is_linked| member.learn(is_linked, true, None, after(41)));
        assert_eq!(counted(member), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn who_was_away_before_anybody_knew_of_it_comes_with_all_its_weight_and_later_slowly() {
        let members = members(2);
        members[0].learn(false, true, None, NOW);
        members[0].learn(true, true, None, after(1));
        assert_eq!(members[0].standing(after(1)), Standing::Well(0.1));
        members[1].learn(true, true, None, NOW);
        assert_eq!(members[1].standing(NOW), Standing::Well(1.0));
    }

    #[test]
    fn of_those_that_all_answer_badly_half_stay() {
        for count in 1..7 {
            let members = members(count);
            for _ in 0..100 {
                members.iter().for_each(|member| answer(member, StatusCode::INTERNAL_SERVER_ERROR, NOW));
            }
            let there = members.iter().filter(|member| is_well(member, NOW)).count();
            assert_eq!(there, count - count / 2);
            // Whoever is back again may be out again, and the others in their place.
            let later = after(100);
            for _ in 0..100 {
                members.iter().rev().for_each(|member| answer(member, StatusCode::BAD_GATEWAY, later));
            }
            assert_eq!(members.iter().filter(|member| is_well(member, later)).count(), count - count / 2);
        }
    }

    #[test]
    fn what_visitors_do_wrong_takes_nobody_out() {
        let members = members(2);
        for _ in 0..1000 {
            answer(&members[0], StatusCode::NOT_FOUND, NOW);
            answer(&members[0], StatusCode::TOO_MANY_REQUESTS, NOW);
            drop(UnderWay::new(members[0].clone()));
        }
        assert_eq!(members[0].standing(NOW), Standing::Well(1.0));
    }
}
