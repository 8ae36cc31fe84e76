//! Live entries of one process: in memory, and never in the file.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::engine::{Batch, Entry, Feed, FeedError, Guard, Lease, LeaseError, Live, Revision, State, Write};
use crate::{CommitError, EngineError};

/// Writes that the log reaches back, of some hundred bytes each. Followers are tasks of this process, so one that is further
/// behind has not run for long.
const LOG: usize = 10_000;

/// The entries, their leases, and the latest changes. Pure: the time is passed in, and leases end when it is.
#[derive(Debug, Default)]
struct Table {
    revision: Revision,
    entries: BTreeMap<String, Held>,
    leases: BTreeMap<Lease, Term>,
    last_lease: u64,
    /// Everything after `floor`, the oldest first.
    log: VecDeque<Batch>,
    floor: Revision,
    /// Writes in the log.
    logged: usize,
}

#[derive(Debug)]
struct Held {
    value: Vec<u8>,
    revision: Revision,
    lease: Lease,
}

#[derive(Debug, Clone, Copy)]
struct Term {
    life: Duration,
    ends: Instant,
}

impl Table {
    /// Ends the leases whose time is over.
    fn pass(&mut self, now: Instant) {
        let over: Vec<Lease> =
            self.leases.iter().filter(|(_, term)| term.ends <= now).map(|(lease, _)| *lease).collect();
        for lease in over {
            self.end(lease);
        }
    }

    fn end(&mut self, lease: Lease) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let held = self.entries.iter().filter(|(_, held)| held.lease == lease);
        let writes: Vec<Write> = held.map(|(key, _)| Write { key: key.clone(), value: None }).collect();
        if !writes.is_empty() {
            self.write(lease, writes);
        }
    }

    fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|term| term.ends).min()
    }

    fn grant(&mut self, now: Instant, life: Duration) -> Lease {
        self.last_lease += 1;
        let lease = Lease(self.last_lease);
        self.leases.insert(lease, Term { life, ends: now + life });
        lease
    }

    fn renew(&mut self, now: Instant, lease: Lease) -> Result<(), LeaseError> {
        let term = self.leases.get_mut(&lease).ok_or(LeaseError::Ended)?;
        term.ends = now + term.life;
        Ok(())
    }

    fn commit(&mut self, lease: Lease, guards: &[Guard], writes: Vec<Write>) -> Result<Revision, LeaseError> {
        if !self.leases.contains_key(&lease) {
            return Err(LeaseError::Ended);
        }
        let revision_of = |key: &str| self.entries.get(key).map_or(0, |held| held.revision);
        if let Some(broken) = guards.iter().find(|guard| revision_of(&guard.key) != guard.revision) {
            return Err(CommitError::Conflict { key: broken.key.clone(), revision: self.revision }.into());
        }
        if !writes.is_empty() {
            self.write(lease, writes);
        }
        Ok(self.revision)
    }

    fn write(&mut self, lease: Lease, writes: Vec<Write>) {
        self.revision += 1;
        let revision = self.revision;
        for write in &writes {
            match &write.value {
                Some(value) => {
                    self.entries.insert(write.key.clone(), Held { value: value.clone(), revision, lease });
                }
                None => drop(self.entries.remove(&write.key)),
            }
        }
        self.logged += writes.len();
        self.log.push_back(Batch { revision, writes });
        while self.logged > LOG {
            let Some(oldest) = self.log.pop_front() else { return };
            self.floor = oldest.revision;
            self.logged -= oldest.writes.len();
        }
    }

    fn load(&self) -> State {
        let entry = |(key, held): (&String, &Held)| Entry {
            key: key.clone(),
            value: held.value.clone(),
            revision: held.revision,
        };
        State { revision: self.revision, entries: self.entries.iter().map(entry).collect() }
    }

    fn after(&self, revision: Revision) -> Result<Vec<Batch>, FeedError> {
        if revision < self.floor || revision > self.revision {
            return Err(FeedError::Compacted);
        }
        let known = self.log.partition_point(|batch| batch.revision <= revision);
        Ok(self.log.iter().skip(known).cloned().collect())
    }
}

/// The [`Live`] of the embedded engine.
pub(super) struct Leases {
    table: Arc<Mutex<Table>>,
    head: watch::Sender<Revision>,
}

impl Leases {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { table: Arc::default(), head: watch::Sender::new(0) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Table, Instant) -> T) -> T {
        let now = Instant::now();
        let mut table = lock(&self.table);
        table.pass(now);
        let outcome = work(&mut table, now);
        let revision = table.revision;
        drop(table);
        self.head.send_if_modified(|head| std::mem::replace(head, revision) != revision);
        outcome
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // No change of the table can panic half way.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live for Leases {
    fn grant(&self, life: Duration) -> BoxFuture<'_, Result<Lease, EngineError>> {
        Box::pin(ready(Ok(self.with(|table, now| table.grant(now, life)))))
    }

    fn renew(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(ready(self.with(|table, now| table.renew(now, lease))))
    }

    fn revoke(&self, lease: Lease) -> BoxFuture<'_, Result<(), EngineError>> {
        self.with(|table, _| table.end(lease));
        Box::pin(ready(Ok(())))
    }

    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(ready(Ok(self.with(|table, _| table.load()))))
    }

    fn commit(
        &self,
        lease: Lease,
        guards: Vec<Guard>,
        writes: Vec<Write>,
    ) -> BoxFuture<'_, Result<Revision, LeaseError>> {
        Box::pin(ready(self.with(|table, _| table.commit(lease, &guards, writes))))
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        Box::new(LeasesFeed { table: self.table.clone(), head: self.head.subscribe(), after })
    }
}

struct LeasesFeed {
    table: Arc<Mutex<Table>>,
    head: watch::Receiver<Revision>,
    after: Revision,
}

impl Feed for LeasesFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(async {
            loop {
                // Marked as seen before looking, so that a change in between wakes us again.
                self.head.borrow_and_update();
                let (batches, next_end) = {
                    let mut table = lock(&self.table);
                    table.pass(Instant::now());
                    (table.after(self.after)?, table.next_end())
                };
                if let Some(last) = batches.last() {
                    self.after = last.revision;
                    return Ok(batches);
                }
                let end = async {
                    match next_end {
                        Some(end) => sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = self.head.changed() => changed.map_err(|_| EngineError::Closed)?,
                    () = end => (),
                }
            }
        })
    }
}

/// What all engines have in common is tested in `tests/engines.rs`.
#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(10);

    fn put(key: &str, value: &str) -> Write {
        Write { key: key.into(), value: Some(value.into()) }
    }

    fn keys(table: &Table) -> Vec<&str> {
        table.entries.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_lease_lasts_as_long_as_it_is_renewed() {
        let start = Instant::now();
        let mut table = Table::default();
        let (kept, left) = (table.grant(start, LIFE), table.grant(start, LIFE));
        table.commit(kept, &[], vec![put("kept", "1")]).unwrap();
        table.commit(left, &[], vec![put("left", "1"), put("moved", "1")]).unwrap();
        table.commit(kept, &[], vec![put("moved", "2")]).unwrap();
        table.pass(start + LIFE / 2);
        table.renew(start + LIFE / 2, kept).unwrap();
        assert_eq!(table.next_end(), Some(start + LIFE));
        table.pass(start + LIFE - Duration::from_millis(1));
        assert_eq!(keys(&table), ["kept", "left", "moved"]);
        table.pass(start + LIFE);
        assert_eq!(keys(&table), ["kept", "moved"], "what another lease took over stays");
        assert!(matches!(table.renew(start + LIFE, left), Err(LeaseError::Ended)));
        assert!(matches!(table.commit(left, &[], vec![put("left", "2")]), Err(LeaseError::Ended)));
        let told = table.after(3).unwrap();
        assert_eq!(told, [Batch { revision: 4, writes: vec![Write { key: "left".into(), value: None }] }]);
        table.pass(start + 2 * LIFE);
        assert!(keys(&table).is_empty() && table.next_end().is_none());
    }

    #[test]
    fn the_log_is_bounded_and_who_is_behind_it_is_told() {
        let mut table = Table::default();
        let lease = table.grant(Instant::now(), LIFE);
        for index in 0..=LOG / 2 {
            table.commit(lease, &[], vec![put("a", &index.to_string()), put("b", "")]).unwrap();
        }
        assert!(matches!(table.after(0), Err(FeedError::Compacted)));
        assert_eq!(table.after(1).unwrap().len(), LOG / 2);
        assert!(matches!(table.after(table.revision + 1), Err(FeedError::Compacted)));
    }

    #[test]
    fn a_lease_without_entries_ends_in_silence() {
        let start = Instant::now();
        let mut table = Table::default();
        table.grant(start, LIFE);
        table.pass(start + LIFE);
        assert_eq!((table.revision, table.log.len()), (0, 0));
    }
}
