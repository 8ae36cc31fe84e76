//! Changes of a zone's records: which they are, and what they come to. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::refusal::{BadRecord, RecordError, RecordFlaw};
use super::{APEX, Record, RecordContent, RecordNotes, RecordSet, RecordSettings, RecordType, host_within};
use crate::engine::Revision;
use crate::{Hostname, RecordId, Snapshot, Zone};

/// A record as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    name: Hostname,
    content: RecordContent,
    ttl: u32,
    proxied: bool,
    comment: Option<Box<str>>,
    tags: Vec<Box<str>>,
    settings: RecordSettings,
}

impl NewRecord {
    /// More of a comment is refused.
    pub const MAX_COMMENT_CHARS: usize = 500;
    /// More tags are refused.
    pub const MAX_TAGS: usize = 20;
    /// Of one tag, name and value together.
    pub const MAX_TAG_CHARS: usize = 132;

    /// One that is answered with an automatic time to live, and noted nothing about.
    pub fn new(name: Hostname, content: RecordContent) -> Self {
        Self {
            name,
            content,
            ttl: Record::AUTOMATIC,
            proxied: false,
            comment: None,
            tags: Vec::new(),
            settings: RecordSettings::default(),
        }
    }

    /// With this time to live, in seconds, unless it is proxied.
    ///
    /// # Errors
    /// Neither [`Record::AUTOMATIC`] nor between [`Record::MIN_TTL`] and [`Record::MAX_TTL`].
    pub fn with_ttl(mut self, ttl: u32) -> Result<Self, BadRecord> {
        if ttl != Record::AUTOMATIC && !(Record::MIN_TTL..=Record::MAX_TTL).contains(&ttl) {
            let (least, most) = (Record::MIN_TTL, Record::MAX_TTL);
            let message = format!("ttl: 1 (automatic) or a number of seconds from {least} to {most} is wanted");
            return Err(BadRecord::new(RecordFlaw::Ttl, message));
        }
        self.ttl = if self.proxied { Record::AUTOMATIC } else { ttl };
        Ok(self)
    }

    /// Visitors are to come through the edge; the time to live is then automatic.
    ///
    /// # Errors
    /// Records of this type cannot be proxied.
    pub fn with_proxied(mut self, proxied: bool) -> Result<Self, BadRecord> {
        if proxied && !self.content.kind().is_proxiable() {
            let message = format!("proxied: a record of type {} cannot be proxied", self.content.kind());
            return Err(BadRecord::new(RecordFlaw::Proxied, message));
        }
        self.proxied = proxied;
        if proxied {
            self.ttl = Record::AUTOMATIC;
        }
        Ok(self)
    }

    /// With notes for people; an empty comment is none.
    ///
    /// # Errors
    /// Too long, too many, or with control characters.
    pub fn with_notes(
        mut self,
        comment: Option<&str>,
        tags: &[String],
        settings: RecordSettings,
    ) -> Result<Self, BadRecord> {
        let bad = |message: String| Err(BadRecord::new(RecordFlaw::Notes, message));
        let is_bad = |text: &str, most: usize| text.chars().count() > most || text.chars().any(|c| c == '\0');
        if comment.is_some_and(|comment| is_bad(comment, Self::MAX_COMMENT_CHARS)) {
            return bad(format!("comment: at most {} characters are wanted", Self::MAX_COMMENT_CHARS));
        }
        if tags.len() > Self::MAX_TAGS || tags.iter().any(|tag| tag.is_empty() || is_bad(tag, Self::MAX_TAG_CHARS)) {
            let (tags, chars) = (Self::MAX_TAGS, Self::MAX_TAG_CHARS);
            return bad(format!(
                "tags: at most {tags} are wanted, such as team:web, of at most {chars} characters each"
            ));
        }
        self.comment = comment.filter(|comment| !comment.is_empty()).map(Into::into);
        self.tags = tags.iter().map(|tag| tag.as_str().into()).collect();
        self.tags.dedup();
        self.settings = settings;
        Ok(self)
    }

    /// Its type and data.
    pub fn content(&self) -> &RecordContent {
        &self.content
    }

    /// Whether visitors can come to it through the edge.
    pub fn is_proxiable(&self) -> bool {
        self.content.kind().is_proxiable()
    }

    /// Its whole name.
    pub fn name(&self) -> &Hostname {
        &self.name
    }

    #[cfg(test)]
    pub(super) fn into_record_for_tests(self) -> Record {
        self.into_record(RecordId::at(Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH, None)
    }

    /// Whether this record is what is wanted already.
    fn is(&self, record: &Record) -> bool {
        let notes = record.notes();
        self.content == record.content
            && self.ttl == record.ttl
            && self.proxied == record.proxied
            && self.comment == notes.comment
            && self.tags == notes.tags
            && self.settings == notes.settings
    }

    fn into_record(self, id: RecordId, now: Timestamp, old: Option<&Record>) -> Record {
        let noted = old.map(Record::notes).unwrap_or_default();
        let changed = |is_same: bool, at: Option<Timestamp>| if is_same { at } else { Some(now) };
        let notes = RecordNotes {
            commented_at: changed(noted.comment == self.comment, noted.commented_at),
            tagged_at: changed(noted.tags == self.tags, noted.tagged_at),
            comment: self.comment,
            tags: self.tags,
            settings: self.settings,
        };
        Record {
            id,
            content: self.content,
            ttl: self.ttl,
            proxied: self.proxied,
            created_at: old.map_or(now, |old| old.created_at),
            modified_at: now,
            notes: (notes != RecordNotes::default()).then(|| Box::new(notes)),
        }
    }
}

/// What is to become of a record, given its whole name and what it is.
pub type Redraft<'a> = dyn Fn(&Hostname, &Record) -> Result<NewRecord, BadRecord> + Send + Sync + 'a;

/// One change of a zone's records.
pub enum RecordEdit<'a> {
    /// Removes a record.
    Delete(RecordId),
    /// Changes a record. Asked again when somebody else changed it meanwhile.
    Change(RecordId, Box<Redraft<'a>>),
    /// Makes a record.
    Create(NewRecord),
    /// Makes a record unless one with the same name, type and data is there.
    Ensure(NewRecord),
}

/// A record after an edit of it; before it, if it was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedRecord {
    /// Its whole name.
    pub name: Hostname,
    /// The record.
    pub record: Record,
    /// Whether it was made just now.
    pub is_new: bool,
}

impl RecordSet {
    /// More answers than resolvers take in one message; it keeps an entry of the registry small.
    pub const MAX_RECORDS: usize = 500;
}

/// The edits of one transaction as far as they came, over what the snapshot has.
pub(crate) struct Draft<'a> {
    snapshot: &'a Snapshot,
    zone: &'a Zone,
    now: Timestamp,
    /// Every name that was looked at, as it is now.
    hosts: BTreeMap<Box<str>, Vec<Record>>,
    /// Where the records are that were made or moved.
    moved: HashMap<RecordId, Box<str>>,
}

/// One name's records, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetChange {
    /// The entry that they were read from; 0: none.
    pub(crate) seen: Revision,
    /// What is to be there; nothing, if it has no records.
    pub(crate) set: RecordSet,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, zone: &'a Zone, now: Timestamp) -> Self {
        Self { snapshot, zone, now, hosts: BTreeMap::new(), moved: HashMap::new() }
    }

    /// Carries out one edit. After an error the draft is of no use.
    ///
    /// # Errors
    /// As [`RecordError`] says, but for those of the engine.
    pub(crate) fn edit(&mut self, edit: &RecordEdit<'_>, new_id: RecordId) -> Result<EditedRecord, RecordError> {
        match edit {
            RecordEdit::Delete(id) => self.delete(*id),
            RecordEdit::Change(id, redraft) => self.change(*id, redraft),
            RecordEdit::Create(new) => {
                let record = new.clone().into_record(new_id, self.now, None);
                Ok(EditedRecord { is_new: true, ..self.place(&new.name, record)? })
            }
            RecordEdit::Ensure(new) => {
                let host = self.host(&new.name)?;
                match self.at(&host).iter().find(|record| record.content.is_same(&new.content)) {
                    Some(record) => Ok(EditedRecord { name: new.name.clone(), record: record.clone(), is_new: false }),
                    None => self.edit(&RecordEdit::Create(new.clone()), new_id),
                }
            }
        }
    }

    /// Removes every record of a name that says where it leads, and puts this one there.
    pub(crate) fn replace_addresses(&mut self, new: &NewRecord, new_id: RecordId) -> Result<EditedRecord, RecordError> {
        let host = self.host(&new.name)?;
        self.at(&host).retain(|record| !record.content.kind().is_address());
        self.edit(&RecordEdit::Create(new.clone()), new_id)
    }

    fn delete(&mut self, id: RecordId) -> Result<EditedRecord, RecordError> {
        let (host, at) = self.find(id)?;
        let record = self.at(&host).remove(at);
        Ok(EditedRecord { name: self.name(&host), record, is_new: false })
    }

    fn change(&mut self, id: RecordId, redraft: &Redraft<'_>) -> Result<EditedRecord, RecordError> {
        let (host, at) = self.find(id)?;
        let name = self.name(&host);
        let old = self.at(&host)[at].clone();
        let new = redraft(&name, &old)?;
        if new.name == name && new.is(&old) {
            return Ok(EditedRecord { name, record: old, is_new: false });
        }
        self.at(&host).remove(at);
        let target = new.name.clone();
        self.place(&target, new.into_record(id, self.now, Some(&old)))
    }

    /// Puts a record at a name, if what is there allows it.
    fn place(&mut self, name: &Hostname, record: Record) -> Result<EditedRecord, RecordError> {
        let host = self.host(name)?;
        let present = self.at(&host);
        check(name, &*host == APEX, present, &record)?;
        if present.len() >= RecordSet::MAX_RECORDS {
            return Err(RecordError::TooMany(name.clone()));
        }
        let at = present.partition_point(|other| other.id < record.id);
        present.insert(at, record.clone());
        self.moved.insert(record.id, host);
        Ok(EditedRecord { name: name.clone(), record, is_new: false })
    }

    fn find(&mut self, id: RecordId) -> Result<(Box<str>, usize), RecordError> {
        let host = match self.moved.get(&id) {
            Some(host) => host.clone(),
            None => {
                let set = self.snapshot.record_set_with(self.zone.id, id).ok_or(RecordError::NotFound(id))?;
                set.host.clone()
            }
        };
        let at = self.at(&host).iter().position(|record| record.id == id);
        Ok((host, at.ok_or(RecordError::NotFound(id))?))
    }

    /// The records of a name as they are by now.
    fn at(&mut self, host: &str) -> &mut Vec<Record> {
        let read = || self.snapshot.record_set(self.zone.id, host).map(|set| set.records.to_vec()).unwrap_or_default();
        self.hosts.entry(host.into()).or_insert_with(read)
    }

    fn host(&self, name: &Hostname) -> Result<Box<str>, BadRecord> {
        let outside = || {
            let message = format!("name: {name} does not lie in the zone {}", self.zone.name);
            BadRecord::new(RecordFlaw::Name, message)
        };
        host_within(name.as_str(), &self.zone.name).map(Into::into).ok_or_else(outside)
    }

    fn name(&self, host: &str) -> Hostname {
        if host == APEX { self.zone.name.clone() } else { Hostname::joined(host, &self.zone.name) }
    }

    /// Every name whose records have changed.
    pub(crate) fn changes(self) -> Vec<SetChange> {
        let Self { snapshot, zone, hosts, .. } = self;
        let mut changes = Vec::new();
        for (host, records) in hosts {
            let old = snapshot.record_set(zone.id, &host);
            if *records == *old.map_or(&[][..], |old| &old.records[..]) {
                continue;
            }
            let seen = old.map_or(0, |old| old.revision);
            changes.push(SetChange { seen, set: RecordSet { zone: zone.id, host, records: records.into() } });
        }
        changes
    }
}

/// Whether a record may stand beside these.
fn check(name: &Hostname, is_apex: bool, present: &[Record], record: &Record) -> Result<(), RecordError> {
    let kind = record.content.kind();
    for other in present {
        if other.content.is_same(&record.content) {
            let comments = (other.notes().comment, record.notes().comment);
            let identical = other.ttl == record.ttl && other.proxied == record.proxied && comments.0 == comments.1;
            return Err(RecordError::Exists { name: name.clone(), kind, identical });
        }
    }
    // What the edge answers in place of a CNAME (one that is proxied, or has the zone's own name) may have other types
    // beside it; what DNS itself answers with tolerates none.
    let is_bare = |record: &Record| record.content.kind() == RecordType::Cname && !record.proxied && !is_apex;
    for other in present {
        let has_cname = kind == RecordType::Cname || other.content.kind() == RecordType::Cname;
        let both_lead = kind.is_address() && other.content.kind().is_address();
        if (has_cname && both_lead) || is_bare(record) || is_bare(other) {
            let (other, wanted) = (other.content.kind(), kind);
            return Err(RecordError::InTheWay { name: name.clone(), other, wanted });
        }
    }
    Ok(())
}
