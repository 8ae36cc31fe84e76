//! DNS records (section 8 of the API page).

mod batch;
mod draft;
mod filter;
pub(crate) mod zonefile;

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{
    CommitError, EditedRecord, EngineError, Hostname, Record, RecordEdit, RecordId, RecordSet, RecordSettings,
    RecordType, Snapshot, Zone, ZoneId,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) use batch::{MAX_MEMBERS, batch};

use self::draft::{RecordBody, draft};
use self::filter::Filter;
use crate::envelope::{Answer, part, success};
use crate::error::ApiError;
use crate::query::{Page, Query};
use crate::state::Shared;
use crate::{body, zone};

/// A zone with more records is looked through aside: that takes milliseconds, in which nobody else is to wait.
const MANY: usize = 2_000;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let count = snapshot.record_count(zone::find(&snapshot, &zone)?.id);
    let page = query.page(100, 5000)?;
    let filter = Filter::read(&query)?;
    let takes_long = count > MANY && !(filter.is_quick() && page.size <= MANY);
    let answer = move || answer(&snapshot, &zone, &filter, page);
    if takes_long { aside(answer).await } else { answer() }
}

fn answer(snapshot: &Snapshot, zone: &str, filter: &Filter, page: Page) -> Answer {
    let zone = zone::find(snapshot, zone)?;
    let shown = |set: &RecordSet, record| Shown::new(Cow::Owned(set.name(&zone.name)), record, zone);
    if filter.takes_all() {
        // Nothing needs to be looked at but what is on the page.
        let records = snapshot.record_page(zone.id, page.start(), page.size, filter.is_descending);
        let result = records.into_iter().map(|(set, record)| shown(set, record)).collect();
        return Ok(part(result, page, snapshot.record_count(zone.id)));
    }
    let found = filter.find(snapshot, zone);
    let on_page = found.iter().skip(page.start()).take(page.size);
    Ok(part(on_page.map(|(set, record)| shown(set, record)).collect(), page, found.len()))
}

/// Does what takes long where it keeps nobody waiting.
async fn aside(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    // It is not begun any more on a node that stops.
    let closed = |_| ApiError::from(CommitError::from(EngineError::Closed));
    tokio::task::spawn_blocking(work).await.map_err(closed)?
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path((zone, id)): Path<(String, String)>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = zone::find(&snapshot, &zone)?;
    let (set, record) = record_id(&id).and_then(|id| snapshot.record(zone.id, id)).ok_or_else(ApiError::no_record)?;
    Ok(success(Shown::new(Cow::Owned(set.name(&zone.name)), record, zone)))
}

pub(crate) async fn create(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, body: Body) -> Answer {
    let (id, name) = place(&shared.state.registry.snapshot(), &zone)?;
    let body: RecordBody = body::json(body, body::SMALL).await?;
    let record = draft(&body, &name, None).map_err(registry::RecordError::from)?;
    edit(&shared, id, RecordEdit::Create(record)).await
}

pub(crate) async fn replace(
    State(shared): State<Arc<Shared>>,
    Path((zone, id)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let (zone, name) = place(&shared.state.registry.snapshot(), &zone)?;
    let id = record_id(&id).ok_or_else(ApiError::no_record)?;
    let body: RecordBody = body::json(body, body::SMALL).await?;
    let record = draft(&body, &name, None).map_err(registry::RecordError::from)?;
    edit(&shared, zone, RecordEdit::Change(id, Box::new(move |_, _| Ok(record.clone())))).await
}

pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Path((zone, id)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let (zone, zone_name) = place(&shared.state.registry.snapshot(), &zone)?;
    let id = record_id(&id).ok_or_else(ApiError::no_record)?;
    let body: RecordBody = body::json(body, body::SMALL).await?;
    let redraft = move |name: &Hostname, old: &Record| draft(&body, &zone_name, Some((name, old)));
    edit(&shared, zone, RecordEdit::Change(id, Box::new(redraft))).await
}

pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Path((zone, id)): Path<(String, String)>) -> Answer {
    let (zone, _) = place(&shared.state.registry.snapshot(), &zone)?;
    let id = record_id(&id).ok_or_else(ApiError::no_record)?;
    shared.state.registry.edit_records(Timestamp::now(), zone, &[RecordEdit::Delete(id)]).await?;
    Ok(success(json!({ "id": id })))
}

async fn edit(shared: &Shared, zone: ZoneId, edit: RecordEdit<'_>) -> Answer {
    let registry = &shared.state.registry;
    let edited = registry.edit_records(Timestamp::now(), zone, &[edit]).await?;
    let snapshot = registry.snapshot();
    let zone = snapshot.zone(zone).ok_or_else(|| ApiError::no_object(&format!("/zones/{zone}")))?;
    let edited = edited.first().expect("one edit has one outcome");
    Ok(success(edited_shown(edited, zone)))
}

/// The zone of a path, for later use.
fn place(snapshot: &Snapshot, zone: &str) -> Result<(ZoneId, Hostname), ApiError> {
    let zone = zone::find(snapshot, zone)?;
    Ok((zone.id, zone.name.clone()))
}

fn record_id(text: &str) -> Option<RecordId> {
    text.parse().ok()
}

fn edited_shown<'a>(edited: &'a EditedRecord, zone: &'a Zone) -> Shown<'a> {
    Shown::new(Cow::Borrowed(&edited.name), &edited.record, zone)
}

/// A record as JSON has it.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: RecordId,
    zone_id: ZoneId,
    zone_name: &'a Hostname,
    name: Cow<'a, Hostname>,
    #[serde(rename = "type")]
    kind: RecordType,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Map<String, Value>>,
    proxiable: bool,
    proxied: bool,
    ttl: u32,
    settings: RecordSettings,
    meta: Nothing,
    comment: Option<&'a str>,
    tags: &'a [Box<str>],
    created_on: Timestamp,
    modified_on: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment_modified_on: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags_modified_on: Option<Timestamp>,
}

/// An empty object.
#[derive(Serialize)]
struct Nothing {}

impl<'a> Shown<'a> {
    fn new(name: Cow<'a, Hostname>, record: &'a Record, zone: &'a Zone) -> Self {
        let content = &record.content;
        let notes = record.notes.as_deref();
        Self {
            id: record.id,
            zone_id: zone.id,
            zone_name: &zone.name,
            name,
            kind: content.kind(),
            content: content.shown(),
            priority: content.priority().filter(|_| has_priority(content.kind())),
            data: content.data(),
            proxiable: content.kind().is_proxiable(),
            proxied: record.proxied,
            ttl: record.ttl,
            settings: notes.map(|notes| notes.settings).unwrap_or_default(),
            meta: Nothing {},
            comment: notes.and_then(|notes| notes.comment.as_deref()),
            tags: notes.map(|notes| &notes.tags[..]).unwrap_or_default(),
            created_on: record.created_at,
            modified_on: record.modified_at,
            comment_modified_on: notes.and_then(|notes| notes.commented_at),
            tags_modified_on: notes.and_then(|notes| notes.tagged_at),
        }
    }
}

fn has_priority(kind: RecordType) -> bool {
    matches!(kind, RecordType::Mx | RecordType::Srv | RecordType::Uri)
}
