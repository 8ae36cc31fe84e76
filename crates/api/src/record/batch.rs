use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{BadRecord, Hostname, RecordEdit, RecordError, RecordFlaw, RecordId};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::draft::{RecordBody, draft};
use super::{edited_shown, place, record_id};
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

/// More than that would hold others up for seconds.
pub(crate) const MAX_MEMBERS: usize = 5_000;

#[derive(Deserialize)]
struct BatchBody {
    #[serde(default)]
    deletes: Members,
    #[serde(default)]
    patches: Members,
    #[serde(default)]
    puts: Members,
    #[serde(default)]
    posts: Members,
}

/// One of the lists. What is too much is refused while it is read, since a few bytes of text make a large member.
#[derive(Default)]
struct Members(Vec<RecordBody>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of records")
            }

            fn visit_unit<E>(self) -> Result<Members, E> {
                Ok(Members::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = list.next_element()? {
                    if members.len() == MAX_MEMBERS {
                        return Err(A::Error::custom(format_args!("a batch has at most {MAX_MEMBERS} members")));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Carries out many edits, in the order of the four lists, all or nothing.
pub(crate) async fn batch(State(shared): State<Arc<Shared>>, Path(zone): Path<String>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let (zone, name) = place(&registry.snapshot(), &zone)?;
    let body: BatchBody = body::json(body, body::LARGE).await?;
    let (Members(deletes), Members(patches)) = (body.deletes, body.patches);
    let (Members(puts), Members(posts)) = (body.puts, body.posts);
    let counts = [deletes.len(), patches.len(), puts.len(), posts.len()];
    let total: usize = counts.iter().sum();
    if total > MAX_MEMBERS {
        return Err(ApiError::not_valid(format!("a batch has at most {MAX_MEMBERS} members, and this one {total}")));
    }
    let mut edits = Vec::with_capacity(total);
    for (at, member) in deletes.iter().enumerate() {
        edits.push(RecordEdit::Delete(id_of(member, "deletes", at)?));
    }
    for (at, member) in patches.into_iter().enumerate() {
        let id = id_of(&member, "patches", at)?;
        let name = name.clone();
        let redraft = move |old_name: &Hostname, old: &_| {
            draft(&member, &name, Some((old_name, old))).map_err(|problem| within("patches", at, &problem))
        };
        edits.push(RecordEdit::Change(id, Box::new(redraft)));
    }
    for (at, member) in puts.iter().enumerate() {
        let id = id_of(member, "puts", at)?;
        let record = draft(member, &name, None).map_err(|problem| RecordError::from(within("puts", at, &problem)))?;
        edits.push(RecordEdit::Change(id, Box::new(move |_, _| Ok(record.clone()))));
    }
    for (at, member) in posts.iter().enumerate() {
        let record = draft(member, &name, None).map_err(|problem| RecordError::from(within("posts", at, &problem)))?;
        edits.push(RecordEdit::Create(record));
    }
    let edited = registry.edit_records(Timestamp::now(), zone, &edits).await?;
    let snapshot = registry.snapshot();
    let zone = snapshot.zone(zone).ok_or_else(|| ApiError::no_object(&format!("/zones/{zone}")))?;
    let mut shown = edited.iter().map(|edited| edited_shown(edited, zone));
    let [deletes, patches, puts, posts] = counts.map(|count| shown.by_ref().take(count).collect::<Vec<_>>());
    Ok(success(json!({ "deletes": deletes, "patches": patches, "puts": puts, "posts": posts })))
}

fn id_of(member: &RecordBody, list: &str, at: usize) -> Result<RecordId, ApiError> {
    let id = member.id.as_deref().ok_or_else(|| ApiError::not_valid(format!("{list}[{at}].id: an id is wanted")))?;
    record_id(id).ok_or_else(ApiError::no_record)
}

fn within(list: &str, at: usize, problem: &BadRecord) -> BadRecord {
    let flaw: RecordFlaw = problem.flaw;
    BadRecord::new(flaw, format!("{list}[{at}].{problem}"))
}
