//! Changes of a zone's records that are more than an engine takes in one transaction, and nevertheless happen at once.
//!
//! Whoever makes one takes hold of the zone (all others who write in it expect the zone as it was, and wait), decides, and
//! writes all that is to be into one entry, the [`LargeChange`]. Whoever reads takes that entry for what it says from the
//! revision that wrote it. Then the records' own entries are written, step by step, and last the entry and the hold are
//! removed. If the holder ends before the entry is there, nothing has happened, and the next who waits too long takes the
//! hold away; if after it, the next goes on where it ended: each step writes what the entry says, whoever takes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::Zone;
use crate::record::{RecordError, RecordSet, SetChange};
use crate::resource::{Key, Resource};
use crate::{CommitError, Registry, Snapshot, Transaction, ZoneId, audit};

/// A holder needs some dozens of transactions. One that takes longer has ended, or is slow: then two do the same.
const PATIENCE: Duration = Duration::from_secs(3);
/// Names in one transaction; etcd takes 128 operations, and the zone and the head are some of them.
pub(crate) const NAMES_AT_ONCE: usize = 100;

/// Tells one hold from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct HoldId(u64);

/// What a zone's records are to be, where that is more than one transaction takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LargeChange {
    pub(crate) zone: ZoneId,
    /// Names without records are to go.
    pub(crate) sets: Vec<RecordSet>,
}

impl Resource for LargeChange {
    const KIND: &'static str = "large-changes";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.zone)
    }
}

/// Why a decision was not carried out.
enum Stopped<E> {
    Held,
    Other(E),
}

impl<E: From<CommitError>> From<CommitError> for Stopped<E> {
    fn from(error: CommitError) -> Self {
        Self::Other(error.into())
    }
}

impl Registry {
    /// [`Registry::change`] in a zone: only while nobody holds it.
    pub(crate) async fn in_zone<T, E: From<CommitError>>(
        &self,
        zone: ZoneId,
        mut decide: impl FnMut(&Snapshot, &mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            self.released(zone).await?;
            let outcome = self.change(|snapshot, transaction| {
                if snapshot.zone_entry(zone).is_some_and(|zone| zone.hold.is_some()) {
                    return Err(Stopped::Held);
                }
                decide(snapshot, transaction).map_err(Stopped::Other)
            });
            match outcome.await {
                Ok(done) => return Ok(done),
                Err(Stopped::Other(error)) => return Err(error),
                Err(Stopped::Held) => (),
            }
        }
    }

    /// Waits until nobody holds the zone, and takes the hold from somebody who does not come back.
    pub(crate) async fn released(&self, zone: ZoneId) -> Result<(), CommitError> {
        let mut seen: Option<(HoldId, Instant)> = None;
        loop {
            let snapshot = self.snapshot();
            let Some(hold) = snapshot.zone_entry(zone).and_then(|zone| zone.hold) else { return Ok(()) };
            let since = match seen {
                Some((id, since)) if id == hold => since,
                Some(_) | None => Instant::now(),
            };
            seen = Some((hold, since));
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                tracing::warn!(%zone, "finishing a large change that somebody left");
                audit::unnoted(self.settle(zone, hold)).await?;
            } else {
                let mut watch = self.watch(snapshot.revision());
                // Whether something came or the time is over, the next look says.
                let _ = timeout(left, watch.next()).await;
            }
        }
    }

    /// Changes more names of a zone at once than one transaction takes.
    pub(crate) async fn change_at_length<T>(
        &self,
        zone: ZoneId,
        mut decide: impl FnMut(&Snapshot, &Zone) -> Result<(T, Vec<SetChange>), RecordError>,
    ) -> Result<T, RecordError> {
        loop {
            let hold = HoldId(rand::random());
            let hold_zone = self.in_zone(zone, |snapshot, transaction| {
                let present = snapshot.zone(zone).ok_or(RecordError::NoZone(zone))?;
                transaction.expect(present).put(&Zone { hold: Some(hold), ..present.value.clone() });
                Ok::<(), RecordError>(())
            });
            audit::unnoted(hold_zone).await?;
            let decided = self.decide_held(zone, hold, &mut decide).await;
            audit::unnoted(self.settle(zone, hold)).await?;
            match decided {
                // Somebody took the hold away.
                Err(RecordError::Commit(CommitError::Conflict { .. })) => (),
                decided => return decided,
            }
        }
    }

    /// Decides while we hold the zone, and writes the large change.
    async fn decide_held<T>(
        &self,
        zone: ZoneId,
        hold: HoldId,
        decide: &mut impl FnMut(&Snapshot, &Zone) -> Result<(T, Vec<SetChange>), RecordError>,
    ) -> Result<T, RecordError> {
        let snapshot = self.snapshot();
        let held = snapshot.zone(zone).filter(|zone| zone.hold == Some(hold)).ok_or(RecordError::NoZone(zone))?;
        let (outcome, changes) = decide(&snapshot, held)?;
        let large = LargeChange { zone, sets: changes.into_iter().map(|change| change.set).collect() };
        let mut transaction = Transaction::new();
        // The zone is written with it, so that nobody who has not seen it can release the zone.
        transaction.expect(held).put(&held.value).expect_absent(&large.key()).put(&large);
        let bytes = transaction.writes.iter().filter_map(|write| write.value.as_ref()).map(Vec::len).sum();
        if bytes > crate::record::MAX_CHANGE_BYTES {
            return Err(RecordError::TooLarge(bytes));
        }
        self.commit(transaction).await?;
        Ok(outcome)
    }

    /// Writes what the large change of this hold says, if there is one, and releases the zone.
    pub(crate) async fn settle(&self, zone: ZoneId, hold: HoldId) -> Result<(), CommitError> {
        let mut written = 0;
        loop {
            let step = self.change(|snapshot, transaction| {
                let Some(held) = snapshot.zone_entry(zone).filter(|zone| zone.hold == Some(hold)) else {
                    return Ok::<usize, CommitError>(0);
                };
                transaction.expect(held);
                let large = snapshot.large_change(zone);
                let step = large.map_or(&[][..], |large| large.sets.get(written..).unwrap_or_default());
                let step = &step[..step.len().min(NAMES_AT_ONCE)];
                step.iter().for_each(|set| transaction.put_set(set));
                if step.is_empty() {
                    transaction.put(&Zone { hold: None, ..held.value.clone() });
                    if let Some(large) = large {
                        transaction.expect(large).delete(&large.key());
                    }
                }
                Ok(step.len())
            });
            match step.await? {
                0 => return Ok(()),
                step => written += step,
            }
        }
    }
}

impl Transaction {
    /// Writes the records of a name, or removes the entry if there are none.
    pub(crate) fn put_set(&mut self, set: &RecordSet) {
        if set.records.is_empty() {
            self.delete(&set.key());
        } else {
            self.put(set);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::BoxFuture;
    use jiff::Timestamp;

    use super::*;
    use crate::engine::{Embedded, Engine, Feed, Guard, Live, Revision, State, Write};
    use crate::{EngineError, Event, Hostname, NewRecord, RecordContent, RecordEdit, RecordType};

    /// An engine whose node ends after so many more transactions.
    struct Mortal {
        engine: Arc<Embedded>,
        left: Arc<AtomicUsize>,
    }

    impl Engine for Mortal {
        fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
            self.engine.load()
        }

        fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
            let alive = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            match alive {
                Ok(_) => self.engine.commit(guards, writes),
                Err(_) => Box::pin(async { Err(EngineError::Closed.into()) }),
            }
        }

        fn follow(&self, after: Revision) -> Box<dyn Feed> {
            self.engine.follow(after)
        }

        fn live(&self) -> &dyn Live {
            self.engine.live()
        }

        fn most_at_once(&self) -> Option<usize> {
            self.engine.most_at_once()
        }
    }

    fn creations(count: usize) -> Vec<RecordEdit<'static>> {
        let create = |index| {
            let name = Hostname::parse(&format!("h{index}.example.test")).unwrap();
            let content = RecordContent::parse(RecordType::A, "192.0.2.1", None, None).unwrap();
            RecordEdit::Create(NewRecord::new(name, content))
        };
        (0..count).map(create).collect()
    }

    async fn open(engine: &Arc<Embedded>, left: &Arc<AtomicUsize>) -> Registry {
        let engine = Mortal { engine: engine.clone(), left: left.clone() };
        Registry::open(engine, Timestamp::UNIX_EPOCH).await.unwrap()
    }

    #[tokio::test]
    async fn more_than_one_transaction_takes_is_seen_at_once() {
        let registry = Registry::in_memory(Timestamp::UNIX_EPOCH).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let zone = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
        let mut watch = registry.watch(registry.snapshot().revision());
        // A small change that comes meanwhile waits, and is not lost.
        let name = Hostname::parse("small.example.test").unwrap();
        let content = RecordContent::parse(RecordType::A, "192.0.2.1", None, None).unwrap();
        let small = [RecordEdit::Create(NewRecord::new(name, content))];
        let many = creations(450);
        let (large, small) =
            tokio::join!(registry.edit_records(now, zone, &many), registry.edit_records(now, zone, &small));
        assert_eq!((large.unwrap().len(), small.unwrap().len()), (450, 1));
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.record_count(zone), 451);
        assert!(snapshot.large_change(zone).is_none() && snapshot.zone(zone).unwrap().hold.is_none());
        let mut first_seen = 0;
        while let Ok(Some(Event::Changes { changes, .. })) = timeout(Duration::from_millis(20), watch.next()).await {
            let records = changes.iter().filter(|change| matches!(change, crate::Change::Records(..))).count();
            first_seen = first_seen.max(records);
        }
        assert_eq!(first_seen, 450, "in one transaction");
        // As before.
        let snapshot = registry.snapshot();
        let engine = registry.engine_for_tests();
        let mut loaded = Snapshot::default();
        loaded.load(&engine.load().await.unwrap()).unwrap();
        assert_eq!(*snapshot, loaded);
    }

    /// The node ends after each of its transactions in turn; whoever writes next finds all of the change, or nothing.
    #[tokio::test]
    async fn a_large_change_that_was_left_is_finished_or_forgotten() {
        // Hold, write, three steps, release.
        for (transactions, expected) in [(0, 0), (1, 0), (2, 250), (3, 250), (5, 250), (6, 250)] {
            let engine = Arc::new(Embedded::in_memory().unwrap());
            let left = Arc::new(AtomicUsize::new(usize::MAX));
            let now = Timestamp::UNIX_EPOCH;
            let registry = open(&engine, &left).await;
            let zone = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
            left.store(transactions, Ordering::SeqCst);
            let outcome = registry.edit_records(now, zone, &creations(250)).await;
            assert_eq!(outcome.is_ok(), transactions == 6);
            drop(registry);

            left.store(usize::MAX, Ordering::SeqCst);
            let registry = open(&engine, &left).await;
            assert_eq!(registry.snapshot().record_count(zone), expected, "after {transactions} transactions");
            let name = Hostname::parse("after.example.test").unwrap();
            let content = RecordContent::parse(RecordType::A, "192.0.2.1", None, None).unwrap();
            let after = [RecordEdit::Create(NewRecord::new(name, content))];
            registry.edit_records(now, zone, &after).await.unwrap();
            let snapshot = registry.snapshot();
            assert_eq!(snapshot.record_count(zone), expected + 1);
            assert!(snapshot.large_change(zone).is_none() && snapshot.zone(zone).unwrap().hold.is_none());
            let mut loaded = Snapshot::default();
            loaded.load(&engine.load().await.unwrap()).unwrap();
            assert_eq!(*snapshot, loaded);
        }
    }
}
