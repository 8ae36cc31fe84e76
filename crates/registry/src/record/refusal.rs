//! Why records are refused.

use std::fmt::Display;

use super::{RecordSet, RecordType};
use crate::{CommitError, Hostname, RecordId, ZoneId};

/// What is wrong with a record that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRecord {
    /// What kind of mistake it is.
    pub flaw: RecordFlaw,
    message: String,
}

impl BadRecord {
    /// The message names the field and says what would be right.
    pub fn new(flaw: RecordFlaw, message: impl Display) -> Self {
        Self { flaw, message: message.to_string() }
    }
}

/// What kind of mistake there is in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFlaw {
    /// Its name is no name, or lies outside of the zone.
    Name,
    /// Its data as text.
    Content(RecordType),
    /// A member of its data, or one that is missing.
    Data,
    /// Its time to live.
    Ttl,
    /// It cannot be proxied.
    Proxied,
    /// Its comment, tags or settings.
    Notes,
}

/// Why records were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No such zone.
    #[error("there is no zone {0}")]
    NoZone(ZoneId),
    /// The zone has no such record.
    #[error("the zone has no record {0}")]
    NotFound(RecordId),
    /// It is not valid.
    #[error(transparent)]
    Bad(#[from] BadRecord),
    /// There is one with the same name, type and data.
    #[error("a record of type {kind} for {name} with that content exists already")]
    Exists {
        /// The name.
        name: Hostname,
        /// The type.
        kind: RecordType,
        /// Whether it is the same in everything else, too.
        identical: bool,
    },
    /// A CNAME, and an address or another CNAME, cannot have the same name.
    #[error("{}", in_the_way(.name, *.other, *.wanted))]
    InTheWay {
        /// The name.
        name: Hostname,
        /// What is there.
        other: RecordType,
        /// What was to be beside it.
        wanted: RecordType,
    },
    /// One name has as many as it may have.
    #[error("{0} has {max} records, which is the most that one name may have", max = RecordSet::MAX_RECORDS)]
    TooMany(Hostname),
    /// More than can be changed at once.
    #[error("the change is too large ({0} bytes where {max} are possible); make it in smaller steps", max = super::MAX_CHANGE_BYTES)]
    TooLarge(usize),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

fn in_the_way(name: &Hostname, other: RecordType, wanted: RecordType) -> String {
    match (other, wanted) {
        (RecordType::Cname, wanted) if wanted != RecordType::Cname => {
            format!("a CNAME record for {name} exists already, and tolerates no {wanted} beside it; remove it first")
        }
        _ => format!("an A, AAAA or CNAME record for {name} exists already ({other}); remove it first"),
    }
}
