use jiff::Timestamp;

use super::edit::{Draft, EditedRecord, RecordEdit};
use super::refusal::RecordError;
use super::{MAX_CHANGE_BYTES, RecordSet, SetChange};
use crate::zone::NAMES_AT_ONCE;
use crate::{RecordId, Registry, Snapshot, Transaction, Zone, ZoneId};

impl Registry {
    /// Carries out these edits in order, all or nothing, and answers the record of each. What is as it is to be already is
    /// not written.
    ///
    /// # Errors
    /// As [`RecordError`] says; nothing was changed then, unless the engine does not know.
    pub async fn edit_records(
        &self,
        now: Timestamp,
        zone: ZoneId,
        edits: &[RecordEdit<'_>],
    ) -> Result<Vec<EditedRecord>, RecordError> {
        let ids = RecordId::ascending(now, edits.len());
        let decide = |snapshot: &Snapshot, zone: &Zone| {
            let mut draft = Draft::new(snapshot, zone, now);
            let edited: Result<Vec<_>, _> = edits.iter().zip(&ids).map(|(edit, id)| draft.edit(edit, *id)).collect();
            Ok((edited?, draft.changes()))
        };
        let at_once = self.in_zone(zone, |snapshot, transaction| {
            let zone = snapshot.zone(zone).ok_or(RecordError::NoZone(zone))?;
            let (edited, changes) = decide(snapshot, zone)?;
            if changes.len() > NAMES_AT_ONCE {
                return Ok::<_, RecordError>(None);
            }
            if !changes.is_empty() {
                transaction.expect(zone);
            }
            transaction.put_changes(&changes)?;
            Ok(Some(edited))
        });
        match at_once.await? {
            Some(edited) => Ok(edited),
            None => self.change_at_length(zone, decide).await,
        }
    }
}

impl Snapshot {
    /// What these edits would come to, were they made now.
    ///
    /// # Errors
    /// The place among them of the first that would be refused, and why.
    pub fn try_records(
        &self,
        now: Timestamp,
        zone: &Zone,
        edits: &[RecordEdit<'_>],
    ) -> Result<Vec<EditedRecord>, (usize, RecordError)> {
        let mut draft = Draft::new(self, zone, now);
        let ids = RecordId::ascending(now, edits.len());
        let tried = edits.iter().zip(ids).enumerate();
        tried.map(|(at, (edit, id))| draft.edit(edit, id).map_err(|error| (at, error))).collect()
    }
}

impl Transaction {
    /// Writes the records of these names, if they are still as they were read.
    pub(crate) fn put_changes(&mut self, changes: &[SetChange]) -> Result<(), RecordError> {
        for SetChange { seen, set } in changes {
            self.expect_at(&RecordSet::key_of(set.zone, &set.host), *seen);
            self.put_set(set);
        }
        let bytes = self.writes.iter().filter_map(|write| write.value.as_ref()).map(Vec::len).sum();
        if bytes > MAX_CHANGE_BYTES { Err(RecordError::TooLarge(bytes)) } else { Ok(()) }
    }
}
