//! Zone files, out and in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use jiff::Timestamp;
use registry::{RecordEdit, RecordError, parse_zone_file, write_zone_file};
use serde_json::json;

use super::place;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::multipart::{boundary, parts};
use crate::state::Shared;
use crate::{body, zone};

/// Records that are written at once. Each such step happens wholly or not at all; that a later one does not is no harm,
/// since importing again adds what is missing.
const STEP: usize = 1_000;
/// Records in one file.
const MAX_RECORDS: usize = 100_000;
/// Looked at before any is kept: half of them may be empty, or comments.
const MAX_LINES: usize = 2 * MAX_RECORDS;

/// The zone as text, and not in the envelope.
pub(crate) async fn export(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Result<Response, ApiError> {
    let snapshot = shared.state.registry.snapshot();
    let zone = zone::find(&snapshot, &zone)?;
    let text = write_zone_file(&zone.name, snapshot.record_sets(zone.id).map(|set| &set.value));
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((headers, text).into_response())
}

/// Adds the records of a zone file that are not there yet.
pub(crate) async fn import(
    State(shared): State<Arc<Shared>>,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let (id, name) = place(&registry.snapshot(), &zone)?;
    let bytes = body::bytes(body, body::LARGE).await?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (file, proxied) = read_form(&bytes, content_type)?;
    let text = std::str::from_utf8(file).map_err(|_| ApiError::not_valid("file: the zone file is not UTF-8 text"))?;
    if text.lines().count() > MAX_LINES {
        return Err(ApiError::not_valid(format!("file: at most {MAX_LINES} lines are taken at once; split the file")));
    }
    let parsed = parse_zone_file(text, &name).map_err(|problem| ApiError::not_valid(format!("file: {problem}")))?;
    if parsed.len() > MAX_RECORDS {
        let problem = format!("file: at most {MAX_RECORDS} records are taken at once; split the file");
        return Err(ApiError::not_valid(problem));
    }
    let lines: Vec<usize> = parsed.iter().map(|parsed| parsed.line).collect();
    let mut edits = Vec::with_capacity(parsed.len());
    for parsed in parsed {
        let is_proxied = parsed.proxied.unwrap_or_else(|| proxied && parsed.record.is_proxiable());
        let record = parsed.record.with_proxied(is_proxied).map_err(RecordError::from)?;
        edits.push(RecordEdit::Ensure(record));
    }
    let now = Timestamp::now();
    {
        // Before anything is written, since a file is more than one step.
        let snapshot = registry.snapshot();
        let zone = snapshot.zone(id).ok_or_else(|| ApiError::no_object(&format!("/zones/{id}")))?;
        snapshot.try_records(now, zone, &edits).map_err(|(at, error)| {
            let line = lines.get(at).copied().unwrap_or_default();
            ApiError::from(error).within(&format!("file: line {line}"))
        })?;
    }
    let mut added = 0;
    for step in edits.chunks(STEP) {
        let edited = registry.edit_records(now, id, step).await?;
        added += edited.iter().filter(|edited| edited.is_new).count();
    }
    Ok(success(json!({ "recs_added": added, "total_records_parsed": lines.len() })))
}

/// The file, and whether what can be proxied is to be.
fn read_form<'a>(body: &'a [u8], content_type: &str) -> Result<(&'a [u8], bool), ApiError> {
    let Some(boundary) = boundary(content_type) else {
        // As `curl --data-binary` sends it.
        return Ok((body, false));
    };
    let parts = parts(body, boundary).map_err(ApiError::malformed_body)?;
    let part = |name: &str| parts.iter().find(|part| part.name == name).map(|part| part.content);
    let file = part("file").ok_or_else(|| ApiError::not_valid("file: a zone file is wanted"))?;
    let proxied = match part("proxied").map(<[u8]>::trim_ascii) {
        None | Some(b"" | b"false" | b"0") => false,
        Some(b"true" | b"1") => true,
        Some(_) => return Err(ApiError::not_valid("proxied: true or false is wanted")),
    };
    Ok((file, proxied))
}
