//! Which visitor of a port has which flow, and until when. Pure: the time is passed in.
//!
//! The sender's address of a datagram can be forged, so a flow is not worth much until its visitor has shown that answers
//! reach it:
//!
//! ```text
//!  first datagram ─▶ fresh ──an answer went out──▶ answered ──a datagram came after it──▶ confirmed
//!                      └────────────┴── 30 s idle, or the port is full: the oldest makes room    └── idle time-out only
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The idle time-out of a flow that is not confirmed, if the port's is longer: as of the connection tracking of Linux. Programs
/// that only listen say something again within this time, to keep their way open.
pub(crate) const UNCONFIRMED_IDLE: Duration = Duration::from_secs(30);

/// What a table keeps for each flow.
pub(crate) trait Answered {
    /// When an answer went to the visitor for the last time.
    fn answered(&self) -> Option<Instant>;
}

/// The flows of one port.
pub(crate) struct Table<F> {
    most: usize,
    idle: Duration,
    flows: HashMap<SocketAddr, Entry<F>>,
    /// When each is to be looked at; at that time it may turn out not to be idle.
    due: BTreeMap<(Instant, u64), SocketAddr>,
    /// The oldest first.
    unconfirmed: BTreeMap<u64, SocketAddr>,
    next: u64,
}

struct Entry<F> {
    id: u64,
    heard: Instant,
    due: Instant,
    confirmed: bool,
    flow: F,
}

impl<F: Answered> Entry<F> {
    fn ends(&self, idle: Duration) -> Instant {
        let last = self.flow.answered().map_or(self.heard, |answered| answered.max(self.heard));
        let idle = if self.confirmed { idle } else { idle.min(UNCONFIRMED_IDLE) };
        last + idle
    }
}

/// All flows of a port are confirmed, and there are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl<F: Answered> Table<F> {
    /// For so many flows at once, each of which ends after so long without a datagram either way.
    pub(crate) fn new(most: usize, idle: Duration) -> Self {
        Self { most, idle, flows: HashMap::new(), due: BTreeMap::new(), unconfirmed: BTreeMap::new(), next: 0 }
    }

    /// Other limits from now on.
    pub(crate) fn limit(&mut self, most: usize, idle: Duration) {
        (self.most, self.idle) = (most, idle);
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The flow of a visitor from whom a datagram has come.
    pub(crate) fn heard(&mut self, now: Instant, visitor: SocketAddr) -> Option<&F> {
        let entry = self.flows.get_mut(&visitor)?;
        entry.heard = now;
        if !entry.confirmed && entry.flow.answered().is_some() {
            entry.confirmed = true;
            self.unconfirmed.remove(&entry.id);
        }
        Some(&entry.flow)
    }

    /// Makes room for one more flow, by giving up the oldest that is not confirmed if it must, which is answered then.
    pub(crate) fn make_room(&mut self) -> Result<Option<F>, Full> {
        if self.flows.len() < self.most {
            return Ok(None);
        }
        let oldest = self.unconfirmed.first_key_value().map(|(_, visitor)| *visitor).ok_or(Full)?;
        Ok(self.remove(oldest))
    }

    /// Keeps the flow of a visitor that has none, and answers its number.
    pub(crate) fn insert(&mut self, now: Instant, visitor: SocketAddr, flow: impl FnOnce(u64) -> F) {
        let id = self.next;
        self.next += 1;
        let mut entry = Entry { id, heard: now, due: now, confirmed: false, flow: flow(id) };
        entry.due = entry.ends(self.idle);
        self.due.insert((entry.due, id), visitor);
        self.unconfirmed.insert(id, visitor);
        let old = self.flows.insert(visitor, entry);
        debug_assert!(old.is_none(), "a visitor has one flow");
    }

    /// Forgets a flow that has ended, unless its visitor has another by now.
    pub(crate) fn ended(&mut self, visitor: SocketAddr, id: u64) -> Option<F> {
        self.flows.get(&visitor).filter(|entry| entry.id == id)?;
        self.remove(visitor)
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
            let ends = entry.ends(self.idle);
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
        self.unconfirmed.remove(&entry.id);
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

    fn insert(table: &mut Table<Fake>, now: Instant, number: u16) -> Rc<Cell<Option<Instant>>> {
        let answered = Rc::new(Cell::new(None));
        let flow = Fake(visitor(number), Rc::clone(&answered));
        table.insert(now, visitor(number), |_| flow);
        answered
    }

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(120);

    #[test]
    fn a_flow_lives_as_long_as_something_goes_either_way() {
        let start = Instant::now();
        let mut table = Table::new(10, IDLE);
        let answered = insert(&mut table, start, 1);
        assert_eq!(table.next_timeout(), Some(start + UNCONFIRMED_IDLE));
        // An answer keeps it, and a datagram after the answer confirms it.
        answered.set(Some(start + 20 * SECOND));
        assert!(table.expire(start + 30 * SECOND, 10).is_empty());
        assert_eq!(table.next_timeout(), Some(start + 50 * SECOND));
        assert!(table.heard(start + 49 * SECOND, visitor(1)).is_some());
        assert!(table.expire(start + 50 * SECOND, 10).is_empty());
        assert_eq!(table.next_timeout(), Some(start + 169 * SECOND));
        answered.set(Some(start + 100 * SECOND));
        assert!(table.expire(start + 169 * SECOND, 10).is_empty());
        assert_eq!(table.expire(start + 220 * SECOND, 10).len(), 1);
        assert_eq!((table.len(), table.next_timeout()), (0, None));
    }

    #[test]
    fn forged_flows_keep_nobody_out() {
        let now = Instant::now();
        let mut table = Table::new(3, IDLE);
        for number in 1..=2 {
            insert(&mut table, now, number).set(Some(now));
            table.heard(now, visitor(number));
        }
        insert(&mut table, now, 3);
        // The one that has shown nothing makes room, over and over, and the others stay.
        for number in 4..1000 {
            let Fake(gone, _) = table.make_room().unwrap().unwrap();
            assert_eq!(gone, visitor(number - 1));
            insert(&mut table, now, number);
        }
        assert!(table.heard(now, visitor(1)).is_some() && table.heard(now, visitor(2)).is_some());
        assert!(table.ended(visitor(999), u64::MAX).is_none(), "a flow of before");
        let last = table.next - 1;
        assert!(table.ended(visitor(999), last).is_some());
        insert(&mut table, now, 7).set(Some(now));
        table.heard(now, visitor(7));
        assert_eq!(table.make_room().unwrap_err(), Full);
    }

    /// What a table must know of a flow, in the simplest words.
    struct Known {
        visitor: SocketAddr,
        heard: Instant,
        confirmed: bool,
        answered: Rc<Cell<Option<Instant>>>,
    }

    impl Known {
        fn ends(&self, idle: Duration) -> Instant {
            let idle = if self.confirmed { idle } else { idle.min(UNCONFIRMED_IDLE) };
            self.heard.max(self.answered.get().unwrap_or(self.heard)) + idle
        }
    }

    #[test]
    fn it_does_what_a_simple_model_does() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let (most, idle) = (random.random_range(1..6), SECOND * random.random_range(1..90));
            let mut table: Table<Fake> = Table::new(most, idle);
            let mut model: Vec<Known> = Vec::new();
            for step in 0..300 {
                now += Duration::from_millis(random.random_range(0..9_000));
                let who = visitor(random.random_range(1..9));
                let known = model.iter().position(|flow| flow.visitor == who);
                match (random.random_range(0..3), known) {
                    (0, Some(index)) => {
                        model[index].heard = now;
                        model[index].confirmed |= model[index].answered.get().is_some();
                        assert!(table.heard(now, who).is_some(), "seed {seed}, step {step}");
                    }
                    (0, None) => {
                        assert!(table.heard(now, who).is_none());
                        let is_full = model.len() >= most;
                        let oldest = model.iter().position(|flow| !flow.confirmed).filter(|_| is_full);
                        match table.make_room() {
                            Ok(given_up) => {
                                let expected = oldest.map(|index| model.remove(index).visitor);
                                assert_eq!(given_up.map(|flow| flow.0), expected, "seed {seed}, step {step}");
                                let answered = insert(&mut table, now, who.port());
                                model.push(Known { visitor: who, heard: now, confirmed: false, answered });
                            }
                            Err(Full) => assert!(oldest.is_none() && is_full),
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
                assert_eq!(table.unconfirmed.len(), model.iter().filter(|flow| !flow.confirmed).count());
            }
        }
    }
}
