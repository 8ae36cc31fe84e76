//! Which visitor of a port has which flow, and until when. Pure: the time is passed in.
//!
//! The sender's address of a datagram can be forged, so a flow is not worth much until its visitor has shown that answers
//! reach it. How many datagrams came shows nothing, since whoever forges one forges two; that one came after an answer was on
//! its way shows as much as can be seen without knowing the protocol:
//!
//! ```text
//!  first datagram ─▶ fresh ──an answer went out──▶ answered ──a datagram came after it──▶ proven
//!                      └────────────┬─────────────────┘                                     └── idle time-out only
//!   30 s without a datagram of the visitor, whatever is answered; or there are too many unproven ones, or too many
//!   flows: whoever was silent the longest makes room
//! ```
//!
//! Unproven flows have a budget of their own, and none of the places that proven ones have.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The idle time-out of a flow that is not proven, if the port's is longer: as of the connection tracking of Linux. Programs
/// that only listen say something again within this time, to keep their way open.
pub(crate) const UNPROVEN_IDLE: Duration = Duration::from_secs(30);

/// What a table keeps for each flow.
pub(crate) trait Answered {
    /// When an answer went to the visitor for the last time.
    fn answered(&self) -> Option<Instant>;
}

/// How many flows a port has, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Flows at once.
    pub(crate) most: usize,
    /// Those of them that are not proven; at least 1.
    pub(crate) unproven: usize,
    /// Time without a datagram either way after which a proven flow ends.
    pub(crate) idle: Duration,
}

/// The flows of one port.
pub(crate) struct Table<F> {
    bounds: Bounds,
    flows: HashMap<SocketAddr, Entry<F>>,
    /// When each is to be looked at; at that time it may turn out not to be idle.
    due: BTreeMap<(Instant, u64), SocketAddr>,
    /// By when each visitor was heard, the longest ago first.
    unproven: BTreeMap<(Instant, u64), SocketAddr>,
    next: u64,
}

struct Entry<F> {
    id: u64,
    heard: Instant,
    due: Instant,
    proven: bool,
    flow: F,
}

impl<F: Answered> Entry<F> {
    fn ends(&self, idle: Duration) -> Instant {
        if self.proven {
            self.flow.answered().map_or(self.heard, |answered| answered.max(self.heard)) + idle
        } else {
            // Answers to a forged sender would keep it for ever.
            self.heard + idle.min(UNPROVEN_IDLE)
        }
    }
}

/// All flows of a port are proven, and there are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl<F: Answered> Table<F> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, flows: HashMap::new(), due: BTreeMap::new(), unproven: BTreeMap::new(), next: 0 }
    }

    /// Other bounds from now on. Flows that are too many stay.
    pub(crate) fn bound(&mut self, bounds: Bounds) {
        let is_sooner = bounds.idle < self.bounds.idle;
        self.bounds = bounds;
        if is_sooner {
            self.due.clear();
            for (visitor, entry) in &mut self.flows {
                entry.due = entry.ends(bounds.idle);
                self.due.insert((entry.due, entry.id), *visitor);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The flow of a visitor from whom a datagram has come. When that proves it, `admit` says whether there is a place for
    /// it among the proven.
    pub(crate) fn heard(
        &mut self,
        now: Instant,
        visitor: SocketAddr,
        admit: impl FnOnce(&mut F) -> bool,
    ) -> Option<&mut F> {
        let entry = self.flows.get_mut(&visitor)?;
        if !entry.proven {
            self.unproven.remove(&(entry.heard, entry.id));
            entry.proven = entry.flow.answered().is_some() && admit(&mut entry.flow);
            if !entry.proven {
                self.unproven.insert((now, entry.id), visitor);
            }
        }
        entry.heard = now;
        Some(&mut entry.flow)
    }

    /// Makes room for one more flow, by giving up the unproven one that was heard longest ago if it must, which is answered
    /// then.
    pub(crate) fn make_room(&mut self) -> Result<Option<F>, Full> {
        if self.flows.len() < self.bounds.most && self.unproven.len() < self.bounds.unproven.max(1) {
            return Ok(None);
        }
        let silent = self.unproven.first_key_value().map(|(_, visitor)| *visitor).ok_or(Full)?;
        Ok(self.remove(silent))
    }

    /// Keeps the flow of a visitor that has none, which is told its number.
    pub(crate) fn insert(&mut self, now: Instant, visitor: SocketAddr, flow: impl FnOnce(u64) -> F) -> &mut F {
        let id = self.next;
        self.next += 1;
        let mut entry = Entry { id, heard: now, due: now, proven: false, flow: flow(id) };
        entry.due = entry.ends(self.bounds.idle);
        self.due.insert((entry.due, id), visitor);
        self.unproven.insert((now, id), visitor);
        debug_assert!(!self.flows.contains_key(&visitor), "a visitor has one flow");
        &mut self.flows.entry(visitor).insert_entry(entry).into_mut().flow
    }

    /// Forgets a flow that has ended, unless its visitor has another by now.
    pub(crate) fn ended(&mut self, visitor: SocketAddr, id: u64) -> Option<F> {
        self.flows.get(&visitor).filter(|entry| entry.id == id)?;
        self.remove(visitor)
    }

    /// Forgets the flows that are not to be kept, and answers them.
    pub(crate) fn retain(&mut self, keep: impl Fn(SocketAddr, &F) -> bool) -> Vec<F> {
        let gone = self.flows.iter().filter(|(visitor, entry)| !keep(**visitor, &entry.flow));
        let gone: Vec<SocketAddr> = gone.map(|(visitor, _)| *visitor).collect();
        gone.into_iter().filter_map(|visitor| self.remove(visitor)).collect()
    }

    /// When [`Table::expire`] has something to do next; perhaps nothing, but not later.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Forgets the flows that are idle for too long, and answers them. Looks at no more than so many at once.
    pub(crate) fn expire(&mut self, now: Instant, at_most: usize) -> Vec<F> {
        let mut expired = Vec::new();
        for _ in 0..at_most {
            let Some((&(due, id), &visitor)) = self.due.first_key_value().filter(|((due, _), _)| *due <= now) else {
                break;
            };
            let entry = self.flows.get_mut(&visitor).expect("each time belongs to a flow");
            let ends = entry.ends(self.bounds.idle);
            if ends <= now {
                expired.extend(self.remove(visitor));
            } else {
                entry.due = ends;
                self.due.remove(&(due, id));
                self.due.insert((ends, id), visitor);
            }
        }
        expired
    }

    fn remove(&mut self, visitor: SocketAddr) -> Option<F> {
        let entry = self.flows.remove(&visitor)?;
        self.due.remove(&(entry.due, entry.id));
        self.unproven.remove(&(entry.heard, entry.id));
        Some(entry.flow)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;
    use std::rc::Rc;

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    #[derive(Debug, Clone)]
    struct Fake(SocketAddr, Rc<Cell<Option<Instant>>>);

    impl Answered for Fake {
        fn answered(&self) -> Option<Instant> {
            self.1.get()
        }
    }

    fn visitor(number: u16) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, 1), number).into()
    }

    fn table(most: usize, unproven: usize) -> Table<Fake> {
        Table::new(Bounds { most, unproven, idle: IDLE })
    }

    fn insert(table: &mut Table<Fake>, now: Instant, number: u16) -> Rc<Cell<Option<Instant>>> {
        let answered = Rc::new(Cell::new(None));
        let flow = Fake(visitor(number), Rc::clone(&answered));
        table.insert(now, visitor(number), |_| flow);
        answered
    }

    fn hear(table: &mut Table<Fake>, now: Instant, number: u16) -> bool {
        table.heard(now, visitor(number), |_| true).is_some()
    }

    fn insert_proven(table: &mut Table<Fake>, now: Instant, number: u16) {
        insert(table, now, number).set(Some(now));
        assert!(hear(table, now, number));
    }

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(120);

    #[test]
    fn a_flow_lives_as_long_as_something_goes_either_way() {
        let start = Instant::now();
        let mut table = table(10, 10);
        let answered = insert(&mut table, start, 1);
        assert_eq!(table.next_timeout(), Some(start + UNPROVEN_IDLE));
        // A datagram after the answer proves it.
        answered.set(Some(start + 20 * SECOND));
        assert!(hear(&mut table, start + 29 * SECOND, 1));
        assert!(table.expire(start + 30 * SECOND, 10).is_empty());
        assert_eq!(table.next_timeout(), Some(start + 149 * SECOND));
        answered.set(Some(start + 100 * SECOND));
        assert!(table.expire(start + 149 * SECOND, 10).is_empty());
        assert_eq!(table.expire(start + 220 * SECOND, 10).len(), 1);
        assert_eq!((table.len(), table.next_timeout()), (0, None));
    }

    #[test]
    fn answers_alone_keep_no_flow() {
        let start = Instant::now();
        let mut table = table(10, 10);
        let answered = insert(&mut table, start, 1);
        // Two at once, as a forger sends them, prove nothing either.
        assert!(hear(&mut table, start, 1));
        for second in 1..30 {
            answered.set(Some(start + second * SECOND));
        }
        assert_eq!(table.expire(start + UNPROVEN_IDLE, 10).len(), 1);
    }

    #[test]
    fn forged_flows_keep_nobody_out() {
        let now = Instant::now();
        let mut table = table(3, 10);
        for number in 1..=2 {
            insert_proven(&mut table, now, number);
        }
        insert(&mut table, now, 3);
        // The one that has shown nothing makes room, over and over, and the others stay.
        for number in 4..1000 {
            let Fake(gone, _) = table.make_room().unwrap().unwrap();
            assert_eq!(gone, visitor(number - 1));
            insert(&mut table, now, number);
        }
        assert!(hear(&mut table, now, 1) && hear(&mut table, now, 2));
        assert!(table.ended(visitor(999), u64::MAX).is_none(), "a flow of before");
        let last = table.next - 1;
        assert!(table.ended(visitor(999), last).is_some());
        insert_proven(&mut table, now, 7);
        assert_eq!(table.make_room().unwrap_err(), Full);
    }

    #[test]
    fn whoever_was_silent_the_longest_makes_room() {
        let start = Instant::now();
        let mut table = table(1_000, 3);
        for number in 1..=3 {
            assert!(table.make_room().unwrap().is_none());
            insert(&mut table, start, number);
        }
        // Who says something goes to the end of the row, and who is proven leaves it.
        assert!(hear(&mut table, start + SECOND, 1));
        assert_eq!(table.make_room().unwrap().unwrap().0, visitor(2));
        insert_proven(&mut table, start + 2 * SECOND, 4);
        assert!(table.make_room().unwrap().is_none(), "the proven do not count");
        insert(&mut table, start + 3 * SECOND, 5);
        assert_eq!(table.make_room().unwrap().unwrap().0, visitor(3));
        insert(&mut table, start + 3 * SECOND, 6);
        assert_eq!(table.make_room().unwrap().unwrap().0, visitor(1));
    }

    #[test]
    fn who_finds_no_place_stays_unproven() {
        let start = Instant::now();
        let mut table = table(10, 10);
        insert(&mut table, start, 1).set(Some(start));
        assert!(table.heard(start + SECOND, visitor(1), |_| false).is_some());
        assert_eq!(table.unproven.len(), 1);
        assert!(table.heard(start + 2 * SECOND, visitor(1), |_| true).is_some());
        assert_eq!(table.unproven.len(), 0);
        assert!(table.heard(start + 3 * SECOND, visitor(1), |_| panic!("has a place")).is_some());
    }

    #[test]
    fn a_shorter_time_holds_at_once() {
        let start = Instant::now();
        let mut table = table(10, 10);
        insert_proven(&mut table, start, 1);
        assert_eq!(table.expire(start + 10 * SECOND, 10).len(), 0);
        table.bound(Bounds { most: 10, unproven: 10, idle: 5 * SECOND });
        assert_eq!(table.next_timeout(), Some(start + 5 * SECOND));
        assert_eq!(table.expire(start + 10 * SECOND, 10).len(), 1);
    }

    #[test]
    fn what_is_not_kept_leaves_nothing_behind() {
        let start = Instant::now();
        let mut table = table(10, 10);
        insert(&mut table, start, 1);
        insert_proven(&mut table, start, 2);
        insert_proven(&mut table, start, 3);
        let gone = table.retain(|who, _| who == visitor(3));
        assert_eq!((gone.len(), table.len(), table.due.len(), table.unproven.len()), (2, 1, 1, 0));
    }

    /// What a table must know of a flow, in the simplest words.
    struct Known {
        visitor: SocketAddr,
        heard: Instant,
        proven: bool,
        answered: Rc<Cell<Option<Instant>>>,
    }

    impl Known {
        fn ends(&self, idle: Duration) -> Instant {
            match (self.proven, self.answered.get()) {
                (false, _) => self.heard + idle.min(UNPROVEN_IDLE),
                (true, answered) => self.heard.max(answered.unwrap_or(self.heard)) + idle,
            }
        }
    }

    #[test]
    fn it_does_what_a_simple_model_does() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let (most, unproven) = (random.random_range(1..6), random.random_range(1..6));
            let idle = SECOND * random.random_range(1..90);
            let mut table: Table<Fake> = Table::new(Bounds { most, unproven, idle });
            let mut model: Vec<Known> = Vec::new();
            for step in 0..300 {
                // No two at the same moment, or either might be the first.
                now += Duration::from_millis(random.random_range(1..9_000));
                let who = visitor(random.random_range(1..9));
                let known = model.iter().position(|flow| flow.visitor == who);
                match (random.random_range(0..3), known) {
                    (0, Some(index)) => {
                        let has_place = random.random_bool(0.8);
                        let flow = &mut model[index];
                        flow.heard = now;
                        flow.proven |= has_place && flow.answered.get().is_some();
                        assert!(table.heard(now, who, |_| has_place).is_some(), "seed {seed}, step {step}");
                    }
                    (0, None) => {
                        assert!(table.heard(now, who, |_| panic!("unknown")).is_none());
                        let is_full =
                            model.len() >= most || model.iter().filter(|flow| !flow.proven).count() >= unproven;
                        let silent = model.iter().enumerate().filter(|(_, flow)| !flow.proven);
                        let silent = silent.min_by_key(|(_, flow)| flow.heard).map(|(index, _)| index);
                        let silent = silent.filter(|_| is_full);
                        match table.make_room() {
                            Ok(given_up) => {
                                let expected = silent.map(|index| model.remove(index).visitor);
                                assert_eq!(given_up.map(|flow| flow.0), expected, "seed {seed}, step {step}");
                                let answered = insert(&mut table, now, who.port());
                                model.push(Known { visitor: who, heard: now, proven: false, answered });
                            }
                            Err(Full) => assert!(silent.is_none() && is_full),
                        }
                    }
                    (1, Some(index)) => model[index].answered.set(Some(now)),
                    _ => {
                        let expired = table.expire(now, usize::MAX);
                        let mut expired: Vec<_> = expired.into_iter().map(|flow| flow.0).collect();
                        let gone = model.extract_if(.., |flow| flow.ends(idle) <= now);
                        let mut gone: Vec<_> = gone.map(|flow| flow.visitor).collect();
                        expired.sort_unstable();
                        gone.sort_unstable();
                        assert_eq!(expired, gone, "seed {seed}, step {step}");
                    }
                }
                assert_eq!((table.len(), table.due.len()), (model.len(), model.len()));
                assert_eq!(table.unproven.len(), model.iter().filter(|flow| !flow.proven).count());
            }
        }
    }
}
