//! Tunnels (section 10 of the API page).

pub(crate) mod configuration;
pub(crate) mod connection;
pub(crate) mod document;
pub(crate) mod route;
pub(crate) mod rule;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use registry::{ConfigSource, Labels, NewTunnel, Secret, Snapshot, Tunnel, TunnelChange, TunnelName, Versioned};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;
use crate::{account, body};

/// A reference agent holds this many connections to an edge with as many addresses.
const FULL_CONNECTIONS: usize = 4;

#[derive(Deserialize)]
struct NewBody {
    name: Option<String>,
    tunnel_secret: Option<String>,
    config_src: Option<ConfigSource>,
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct ChangeBody {
    name: Option<String>,
    tunnel_secret: Option<String>,
    labels: Option<Labels>,
}

pub(crate) async fn create(State(shared): State<Arc<Shared>>, Path(owner): Path<String>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    account::check(&registry.snapshot(), &owner)?;
    let body: NewBody = body::json(body, body::SMALL).await?;
    let name = name(&body.name.ok_or_else(|| ApiError::not_valid("name: a tunnel needs a name"))?)?;
    let secret = body.tunnel_secret.as_deref().map(secret).transpose()?;
    let config_source = body.config_src.unwrap_or(ConfigSource::Local);
    let labels = body.labels.unwrap_or_default();
    let new = NewTunnel { name, secret, config_source, labels };
    let tunnel = registry.create_tunnel(Timestamp::now(), new).await?;
    let snapshot = registry.snapshot();
    let mut result = shown(&tunnel, &snapshot, &shared);
    result["token"] = json!(token_of(&tunnel, &snapshot));
    result["credentials_file"] = json!({
        "AccountTag": snapshot.account().id,
        "TunnelID": tunnel.id,
        "TunnelName": tunnel.name,
        "TunnelSecret": tunnel.secret.to_base64(),
    });
    Ok(success(result))
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(owner): Path<String>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    account::check(&snapshot, &owner)?;
    let filter = Filter::read(&query)?;
    let tunnels: Vec<_> = snapshot.tunnels().filter(|tunnel| filter.matches(tunnel, &snapshot, &shared)).collect();
    Ok(page(&tunnels, query.page(20, 1000)?, |tunnel| shown(tunnel, &snapshot, &shared)))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(path): Path<(String, String)>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let tunnel = find(&snapshot, &path)?;
    Ok(success(shown(tunnel, &snapshot, &shared)))
}

pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<(String, String)>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &path)?.id;
    let body: ChangeBody = body::json(body, body::SMALL).await?;
    let name = body.name.as_deref().map(name).transpose()?;
    let secret = body.tunnel_secret.as_deref().map(secret).transpose()?;
    let tunnel = registry.change_tunnel(id, TunnelChange { name, secret, labels: body.labels }).await?;
    Ok(success(shown(&tunnel, &registry.snapshot(), &shared)))
}

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<(String, String)>,
    query: Query,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &path)?.id;
    let cascade = query.parsed("cascade")?.unwrap_or(false);
    let tunnel = registry.delete_tunnel(Timestamp::now(), id, cascade).await?;
    if cascade {
        (shared.state.close)(id, None);
    }
    Ok(success(shown(&tunnel, &registry.snapshot(), &shared)))
}

pub(crate) async fn token(State(shared): State<Arc<Shared>>, Path(path): Path<(String, String)>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let tunnel = find_live(&snapshot, &path)?;
    Ok(success(token_of(tunnel, &snapshot)))
}

/// What is asked for may be part of the path, as the reference agent has it, or of the body.
#[derive(Deserialize)]
pub(crate) struct Managed {
    account: String,
    tunnel: String,
}

/// A token would open nothing: the edge leads nobody to the name under which agents serve their logs.
pub(crate) async fn management(State(shared): State<Arc<Shared>>, Path(path): Path<Managed>) -> Answer {
    find_live(&shared.state.registry.snapshot(), &(path.account, path.tunnel))?;
    let message = "This edge gives no tokens for managing agents, since it streams no agent's logs. Look at the agent's own: \
                   its log, `snicket tunnel --inspect`, or its metrics.";
    Err(ApiError::not_offered(message))
}

/// The tunnel of a path, deleted ones included.
fn find<'a>(snapshot: &'a Snapshot, path: &(String, String)) -> Result<&'a Arc<Versioned<Tunnel>>, ApiError> {
    let (owner, id) = path;
    account::check(snapshot, owner)?;
    let tunnel = tunnel_id(id).and_then(|id| snapshot.tunnel(id));
    tunnel.ok_or_else(|| ApiError::no_object(&format!("/accounts/{owner}/cfd_tunnel/{id}")))
}

/// The tunnel of a path, unless it is deleted.
fn find_live<'a>(snapshot: &'a Snapshot, path: &(String, String)) -> Result<&'a Arc<Versioned<Tunnel>>, ApiError> {
    let tunnel = find(snapshot, path)?;
    if tunnel.deleted_at.is_some() {
        return Err(ApiError::no_object(&format!("/accounts/{}/cfd_tunnel/{} (it is deleted)", path.0, path.1)));
    }
    Ok(tunnel)
}

/// Only the form with dashes is an id; others that the parser takes would be a second name for the same thing.
pub(crate) fn tunnel_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

fn name(text: &str) -> Result<TunnelName, ApiError> {
    TunnelName::parse(text).map_err(|problem| ApiError::not_valid(format!("name: {problem}")))
}

fn secret(text: &str) -> Result<Secret, ApiError> {
    Secret::from_base64(text).map_err(|problem| ApiError::not_valid(format!("tunnel_secret: {problem}")))
}

/// Section 16.1 of the tunnel protocol.
fn token_of(tunnel: &Tunnel, snapshot: &Snapshot) -> String {
    let token = json!({ "a": snapshot.account().id, "t": tunnel.id, "s": tunnel.secret.to_base64() });
    STANDARD.encode(token.to_string())
}

fn status(tunnel: &Tunnel, snapshot: &Snapshot, shared: &Shared) -> &'static str {
    // A quick tunnel's agent opens one connection, others at most one for each address that there is to dial.
    let full = match tunnel.quick {
        Some(_) => 1,
        None => FULL_CONNECTIONS.min(shared.state.facts.tunnel.len()).max(1),
    };
    match (snapshot.connections(tunnel.id).count(), snapshot.activity(tunnel.id)) {
        (0, None) => "inactive",
        (0, Some(_)) => "down",
        (connections, _) if connections < full => "degraded",
        _ => "healthy",
    }
}

fn shown(tunnel: &Tunnel, snapshot: &Snapshot, shared: &Shared) -> Value {
    let activity = snapshot.activity(tunnel.id);
    json!({
        "id": tunnel.id,
        "account_tag": snapshot.account().id,
        "name": tunnel.name,
        "created_at": tunnel.created_at,
        "deleted_at": tunnel.deleted_at,
        "status": status(tunnel, snapshot, shared),
        "connections": connection::shown(snapshot.connections(tunnel.id)),
        "conns_active_at": activity.map(|activity| activity.active_at).filter(|_| snapshot.is_connected(tunnel.id)),
        "conns_inactive_at": activity.and_then(|activity| activity.inactive_at),
        "tun_type": "cfd_tunnel",
        "remote_config": tunnel.config_source == ConfigSource::Cloudflare,
        "config_src": tunnel.config_source,
        "metadata": {},
        "labels": tunnel.labels,
    })
}

/// Which tunnels of a list are wanted; all conditions must hold.
struct Filter {
    name: Option<String>,
    prefixes: Vec<String>,
    excluded_prefixes: Vec<String>,
    is_deleted: Option<bool>,
    id: Option<Uuid>,
    existed_at: Option<Timestamp>,
    was_active_at: Option<Timestamp>,
    was_inactive_at: Option<Timestamp>,
    statuses: Vec<String>,
}

impl Filter {
    fn read(query: &Query) -> Result<Self, ApiError> {
        let texts = |name: &str| query.all(name).into_iter().map(str::to_owned).collect::<Vec<_>>();
        Ok(Self {
            name: query.one("name").map(str::to_owned),
            prefixes: [texts("name_prefix"), texts("include_prefix")].concat(),
            excluded_prefixes: texts("exclude_prefix"),
            is_deleted: query.parsed("is_deleted")?,
            id: query.parsed("uuid")?,
            existed_at: query.parsed("existed_at")?,
            was_active_at: query.parsed("was_active_at")?,
            was_inactive_at: query.parsed("was_inactive_at")?,
            statuses: texts("status"),
        })
    }

    fn matches(&self, tunnel: &Tunnel, snapshot: &Snapshot, shared: &Shared) -> bool {
        let name = tunnel.name.as_str();
        let activity = snapshot.activity(tunnel.id);
        let existed_at = |at| tunnel.created_at <= at && tunnel.deleted_at.is_none_or(|end| end > at);
        let active_at = |at| {
            activity.is_some_and(|activity| activity.active_at <= at && activity.inactive_at.is_none_or(|end| end > at))
        };
        self.name.as_ref().is_none_or(|wanted| wanted == name)
            && (self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| name.starts_with(prefix)))
            && !self.excluded_prefixes.iter().any(|prefix| name.starts_with(prefix))
            && self.is_deleted.is_none_or(|wanted| wanted == tunnel.deleted_at.is_some())
            && self.id.is_none_or(|wanted| wanted == tunnel.id)
            && self.existed_at.is_none_or(existed_at)
            && self.was_active_at.is_none_or(active_at)
            && self.was_inactive_at.is_none_or(|at| existed_at(at) && !active_at(at))
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|wanted| wanted == status(tunnel, snapshot, shared)))
    }
}
