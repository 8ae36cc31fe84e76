use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use registry::{ConfigSource, Configuration};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{document, find_live};
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

#[derive(Deserialize)]
struct PutBody {
    #[serde(default)]
    config: Value,
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(path): Path<(String, String)>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let tunnel = find_live(&snapshot, &path)?;
    Ok(match snapshot.configuration(tunnel.id) {
        Some(configuration) => shown(configuration, &path.0),
        None => with_etag(
            0,
            success(json!({
                "tunnel_id": tunnel.id,
                "version": 0,
                "config": null,
                "source": tunnel.config_source,
                "created_at": tunnel.created_at,
                "account_id": path.0,
            })),
        ),
    })
}

pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find_live(&registry.snapshot(), &path)?.id;
    let if_match = headers.get(header::IF_MATCH).map(version).transpose()?.flatten();
    let body: PutBody = body::json(body, body::LARGE).await?;
    document::check(&body.config).map_err(|problem| ApiError::not_valid(format!("config{problem}")))?;
    let write =
        registry.put_configuration(Timestamp::now(), id, body.config, ConfigSource::Cloudflare, if_match).await?;
    Ok(shown(&write.configuration, &path.0))
}

/// The version in an If-Match header; `*` is any.
pub(super) fn version(value: &HeaderValue) -> Result<Option<i32>, ApiError> {
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    version.map(Some).ok_or_else(|| ApiError::not_valid("If-Match: a version in quotes is wanted, such as \"3\""))
}

fn shown(configuration: &Configuration, account: &str) -> Response {
    with_etag(
        configuration.version,
        success(json!({
            "tunnel_id": configuration.tunnel,
            "version": configuration.version,
            "config": configuration.document,
            "source": configuration.source,
            "created_at": configuration.created_at,
            "account_id": account,
        })),
    )
}

pub(super) fn with_etag(version: i32, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
