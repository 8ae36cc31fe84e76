//! Which records have a content.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use imbl::OrdSet;

use crate::record::{Record, RecordSet};
use crate::resource::Versioned;
use crate::{RecordId, Snapshot, ZoneId};

/// The records of all zones, ordered by what their zones and contents come to. That is about 30 bytes a record; texts of
/// their own would be more than all else that there is of most records.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Contents(OrdSet<(Digest, RecordId)>);

/// Of two contents that come to the same, a look-up drops one, so few bits do.
type Digest = u32;

/// Differs from one run of the program to the next, so that nobody writes contents that come to the same.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Contents {
    pub(super) fn insert(&mut self, zone: ZoneId, record: &Record) {
        self.0.insert((digest(zone, &record.content.folded_text()), record.id));
    }

    pub(super) fn remove(&mut self, zone: ZoneId, record: &Record) {
        self.0.remove(&(digest(zone, &record.content.folded_text()), record.id));
    }

    /// The records that may have it, in the order in which they were made.
    fn candidates(&self, zone: ZoneId, folded: &str) -> impl Iterator<Item = RecordId> {
        let digest = digest(zone, folded);
        let first = (digest, RecordId::from_bytes([0; 16]));
        self.0.range(first..).take_while(move |(found, _)| *found == digest).map(|(_, id)| *id)
    }
}

fn digest(zone: ZoneId, folded: &str) -> Digest {
    HASHER.hash_one((zone, folded)) as Digest
}

impl Snapshot {
    /// The records of a zone whose [`RecordContent::folded_text`](crate::RecordContent::folded_text) is this, in the order
    /// in which they were made, each with those of its name. The others are not looked at.
    pub fn records_with_content(
        &self,
        zone: ZoneId,
        folded: &str,
    ) -> impl Iterator<Item = (&Arc<Versioned<RecordSet>>, &Record)> {
        let candidates = self.names.contents.candidates(zone, folded);
        let records = candidates.filter_map(move |id| self.record(zone, id));
        records.filter(move |(_, record)| record.content.folded_text() == folded)
    }
}
