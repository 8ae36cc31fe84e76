//! The tables of a registry's file, and what is done with them in one transaction of the database.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::Order;
use crate::CommitError;
use crate::engine::{Batch, Entry, FeedError, Guard, Revision, SCHEMA, State, Write};

pub(in crate::engine) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const META_SCHEMA: &str = "schema";
pub(in crate::engine) const META_REVISION: &str = "revision";
/// The log holds everything after this revision.
pub(in crate::engine) const META_COMPACTED: &str = "compacted";

/// Key → the revision that wrote it, and the value.
pub(in crate::engine) const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// Revision and place within the transaction → key. The value is the entry's own, so the log stays small whatever is
/// written.
const CHANGES: TableDefinition<'_, (u64, u32), &str> = TableDefinition::new("changes");

/// The schema and the revision; where there is nothing yet, the tables are made.
pub(super) fn read_or_make_tables(database: &Database) -> Result<(u64, Revision), redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(CHANGES)?;
        let schema = meta.get(META_SCHEMA)?.map(|value| value.value());
        let revision = meta.get(META_REVISION)?.map_or(0, |value| value.value());
        // What is there is good as it is; from now on there may be what older programs cannot read.
        if schema.is_none_or(|schema| schema < SCHEMA) {
            meta.insert(META_SCHEMA, SCHEMA)?;
        }
        (schema, revision)
    };
    match found {
        (None, revision) => {
            transaction.commit()?;
            Ok((SCHEMA, revision))
        }
        (Some(schema), revision) if schema < SCHEMA => {
            transaction.commit()?;
            Ok((SCHEMA, revision))
        }
        (Some(schema), revision) => {
            transaction.abort()?;
            Ok((schema, revision))
        }
    }
}

/// Everything.
pub(in crate::engine) fn load(database: &Database) -> Result<State, redb::Error> {
    let transaction = database.begin_read()?;
    let revision = transaction.open_table(META)?.get(META_REVISION)?.map_or(0, |value| value.value());
    let mut entries = Vec::new();
    for entry in transaction.open_table(ENTRIES)?.iter()? {
        let (key, value) = entry?;
        let (written, bytes) = value.value();
        entries.push(Entry { key: key.value().to_owned(), value: bytes.to_vec(), revision: written });
    }
    Ok(State { revision, entries })
}

/// Everything after this revision. A value that was overwritten meanwhile is passed over, since the later batch, which
/// is in the answer too, has the new one.
pub(super) fn changes(database: &Database, after: Revision) -> Result<Result<Vec<Batch>, FeedError>, redb::Error> {
    let transaction = database.begin_read()?;
    let compacted = transaction.open_table(META)?.get(META_COMPACTED)?.map_or(0, |value| value.value());
    if after < compacted {
        return Ok(Err(FeedError::Compacted));
    }
    let entries = transaction.open_table(ENTRIES)?;
    let mut batches: Vec<Batch> = Vec::new();
    for change in transaction.open_table(CHANGES)?.range((after + 1, 0)..)? {
        let (place, key) = change?;
        let (revision, _) = place.value();
        if batches.last().is_none_or(|batch| batch.revision != revision) {
            batches.push(Batch { revision, writes: Vec::new() });
        }
        let entry = entries.get(key.value())?;
        let value = match entry.as_ref().map(|entry| entry.value()) {
            Some((written, _)) if written > revision => continue,
            Some((_, value)) => Some(value.to_vec()),
            None => None,
        };
        let batch = batches.last_mut().expect("one was pushed above");
        batch.writes.push(Write { key: key.value().to_owned(), value });
    }
    Ok(Ok(batches))
}

type Verdict = Result<Revision, CommitError>;

/// Carries out as many of these as hold, in one write to the disk, and answers the revision after them and each one's
/// outcome.
pub(super) fn commit(
    database: &Database,
    group: &[Order],
    log_revisions: u64,
) -> Result<(Revision, Vec<Verdict>), redb::Error> {
    let transaction = database.begin_write()?;
    let before = transaction.open_table(META)?.get(META_REVISION)?.map_or(0, |value| value.value());
    let mut revision = before;
    let mut verdicts = Vec::with_capacity(group.len());
    for order in group {
        let verdict = match broken_guard(&transaction, &order.guards)? {
            Some(key) => Err(CommitError::Conflict { key, revision }),
            None if order.writes.is_empty() => Ok(revision),
            None => {
                revision += 1;
                write(&transaction, &order.writes, revision)?;
                Ok(revision)
            }
        };
        verdicts.push(verdict);
    }
    if revision == before {
        transaction.abort()?;
    } else {
        transaction.open_table(META)?.insert(META_REVISION, revision)?;
        compact(&transaction, revision.saturating_sub(log_revisions))?;
        transaction.commit()?;
    }
    Ok((revision, verdicts))
}

fn broken_guard(transaction: &WriteTransaction, guards: &[Guard]) -> Result<Option<String>, redb::Error> {
    let entries = transaction.open_table(ENTRIES)?;
    for guard in guards {
        let found = entries.get(guard.key.as_str())?.map_or(0, |value| value.value().0);
        if found != guard.revision {
            return Ok(Some(guard.key.clone()));
        }
    }
    Ok(None)
}

fn write(transaction: &WriteTransaction, writes: &[Write], revision: Revision) -> Result<(), redb::Error> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let mut log = transaction.open_table(CHANGES)?;
    for (index, write) in (0u32..).zip(writes) {
        let key = write.key.as_str();
        match &write.value {
            Some(value) => drop(entries.insert(key, (revision, value.as_slice()))?),
            None => drop(entries.remove(key)?),
        }
        log.insert((revision, index), key)?;
    }
    Ok(())
}

/// Forgets the log up to this revision.
fn compact(transaction: &WriteTransaction, until: Revision) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let compacted = meta.get(META_COMPACTED)?.map_or(0, |value| value.value());
    if until <= compacted {
        return Ok(());
    }
    transaction.open_table(CHANGES)?.retain_in((compacted, 0)..(until + 1, 0), |_, _| false)?;
    meta.insert(META_COMPACTED, until)?;
    Ok(())
}
