//! What a body says about a record.

use std::borrow::Cow;

use registry::{BadRecord, Hostname, NewRecord, Record, RecordContent, RecordFlaw, RecordSettings, RecordType};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::number::{Whole, given};

/// A record as clients send it; what they read and send back with it, such as `id` and `proxiable`, is passed over.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RecordBody {
    /// In batches only.
    pub(super) id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    content: Option<String>,
    data: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "given")]
    ttl: Option<Option<Whole>>,
    #[serde(default, deserialize_with = "given")]
    proxied: Option<Option<bool>>,
    priority: Option<Whole>,
    #[serde(default, deserialize_with = "given")]
    comment: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    tags: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    settings: Option<Option<RecordSettings>>,
}

/// The record that a body asks for: in full, or as a change of one that is there.
pub(super) fn draft(
    body: &RecordBody,
    zone: &Hostname,
    old: Option<(&Hostname, &Record)>,
) -> Result<NewRecord, BadRecord> {
    let present = old.map(|(_, record)| record);
    let kind = match (&body.kind, present) {
        (Some(kind), _) => kind.trim().parse().map_err(|problem| data(format!("type: {problem}")))?,
        (None, Some(old)) => old.content.kind(),
        (None, None) => return Err(data(format!("type: {}", registry::UnknownRecordType))),
    };
    let name = match (&body.name, old) {
        (Some(name), _) => name_within(name, zone)?,
        (None, Some((name, _))) => name.clone(),
        (None, None) => return Err(BadRecord::new(RecordFlaw::Name, "name: a name is wanted, such as www or @")),
    };
    let content = content(body, kind, zone, present)?;
    let ttl = body.ttl.map(|ttl| ttl.map_or(Record::AUTOMATIC, |ttl| ttl.0));
    let ttl = ttl.or_else(|| present.map(|old| old.ttl)).unwrap_or(Record::AUTOMATIC);
    let was_proxied = present.is_some_and(|old| old.proxied && kind.is_proxiable());
    let proxied = body.proxied.map_or(was_proxied, |proxied| proxied.unwrap_or(false));
    let notes = present.map(Record::notes).unwrap_or_default();
    let comment = match &body.comment {
        Some(comment) => comment.as_deref(),
        None => notes.comment.as_deref(),
    };
    let tags: Cow<'_, [String]> = match &body.tags {
        Some(tags) => Cow::Borrowed(tags.as_deref().unwrap_or_default()),
        None => notes.tags.iter().map(ToString::to_string).collect(),
    };
    let settings = body.settings.map_or(notes.settings, Option::unwrap_or_default);
    NewRecord::new(name, content).with_ttl(ttl)?.with_proxied(proxied)?.with_notes(comment, &tags, settings)
}

fn content(
    body: &RecordBody,
    kind: RecordType,
    zone: &Hostname,
    old: Option<&Record>,
) -> Result<RecordContent, BadRecord> {
    let old = old.map(|old| &old.content).filter(|content| content.kind() == kind);
    let given = match body.priority {
        Some(Whole(priority)) => Some(u16::try_from(priority).map_err(|_| data("priority: 0 to 65535 is wanted"))?),
        None => None,
    };
    let priority = given.or_else(|| old.and_then(RecordContent::priority));
    match (&body.data, &body.content) {
        // Tools that send back what they read send both.
        (Some(members), None) => RecordContent::from_data(kind, members, priority),
        (Some(members), Some(_)) if is_structured(kind) => RecordContent::from_data(kind, members, priority),
        (_, Some(text)) => {
            let is_apex = text.trim() == "@" && !matches!(kind, RecordType::Txt);
            RecordContent::parse(kind, if is_apex { zone.as_str() } else { text }, priority, None)
        }
        (None, None) => {
            let old = old.ok_or_else(|| data("content: content or data is wanted"))?;
            given.map_or_else(|| Ok(old.clone()), |priority| old.with_priority(priority))
        }
    }
}

fn is_structured(kind: RecordType) -> bool {
    !matches!(
        kind,
        RecordType::A
            | RecordType::Aaaa
            | RecordType::Cname
            | RecordType::Mx
            | RecordType::Ns
            | RecordType::Ptr
            | RecordType::Txt
    )
}

/// A name as clients write it: in full, relative to the zone, or `@`.
fn name_within(text: &str, zone: &Hostname) -> Result<Hostname, BadRecord> {
    let bad = |problem: registry::BadName| BadRecord::new(RecordFlaw::Name, format!("name: {problem}"));
    let text = text.trim();
    if text == "@" {
        return Ok(zone.clone());
    }
    // The first label alone is a wildcard, too.
    if let Ok(name) = Hostname::parse(text) {
        if name.is_within(zone) {
            return Ok(name);
        }
        if text.ends_with('.') {
            let problem = format!("name: {name} does not lie in the zone {zone}");
            return Err(BadRecord::new(RecordFlaw::Name, problem));
        }
    }
    if text.is_empty() {
        return Err(BadRecord::new(RecordFlaw::Name, "name: a name is wanted, such as www or @"));
    }
    Hostname::parse(&format!("{text}.{zone}")).map_err(bad)
}

fn data(problem: impl std::fmt::Display) -> BadRecord {
    BadRecord::new(RecordFlaw::Data, problem)
}
