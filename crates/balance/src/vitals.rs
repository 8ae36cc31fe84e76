use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use crate::health::{Failure, Passive, Standing, Verdict, share};

/// What is known of one member at this node right now. Each request reads it; whoever learns something writes it.
#[derive(Debug)]
pub struct Vitals {
    pool: Arc<PoolVitals>,
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
}

impl PoolVitals {
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
            is_linked: AtomicBool::new(true),
            is_answering: AtomicBool::new(true),
            out_until: AtomicI64::new(i64::MIN),
            well_since: AtomicI64::new(i64::MIN),
            outstanding: AtomicU32::new(0),
            open: AtomicU32::new(0),
            passive: Mutex::default(),
        }
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

    /// Whether there is a way to it.
    pub(crate) fn set_linked(&self, is_linked: bool, now: Timestamp) {
        let was = self.is_linked.swap(is_linked, Relaxed);
        self.note_return(!was && is_linked, now);
    }

    /// What its monitor says.
    pub(crate) fn set_answering(&self, is_answering: bool, now: Timestamp) {
        let was = self.is_answering.swap(is_answering, Relaxed);
        self.note_return(!was && is_answering, now);
    }

    fn note_return(&self, is_back: bool, now: Timestamp) {
        if is_back {
            self.well_since.store(now.as_millisecond(), Relaxed);
        }
    }

    fn bad(&self, now: Timestamp) {
        self.judge(|passive| {
            let verdict = passive.bad(now, || self.pool.may_go(now));
            if let Verdict::OutUntil(until) = verdict {
                self.pool.gone(until);
            }
            verdict
        });
    }

    fn judge(&self, judge: impl FnOnce(&mut Passive) -> Verdict) {
        let verdict = judge(&mut lock(&self.passive));
        if let Verdict::OutUntil(until) = verdict {
            self.out_until.store(until.as_millisecond(), Relaxed);
        }
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
        if !status.is_server_error() {
            return vitals.judge(|passive| {
                passive.good(now);
                Verdict::Stays
            });
        }
        vitals.bad(now);
    }

    /// There will be none.
    pub fn failed(&mut self, failure: Failure, now: Timestamp) {
        self.settle();
        match failure {
            Failure::Connect => self.vitals.judge(|passive| passive.unreached(now)),
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
