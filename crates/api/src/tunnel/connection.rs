use std::sync::Arc;

use axum::extract::{Path, State};
use registry::{ConnectionRecord, Snapshot};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{find, tunnel_id};
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// The connectors of a tunnel, each with its connections. All on one page: a tunnel has a handful.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<(String, String)>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let tunnel = find(&snapshot, &path)?;
    let wanted: Option<Uuid> = query.parsed("client_id")?;
    let connectors =
        connectors(&snapshot, tunnel.id).into_iter().filter(|(id, _)| wanted.is_none_or(|wanted| wanted == *id));
    Ok(success(connectors.map(|(_, connections)| shown_connector(&connections)).collect::<Vec<_>>()))
}

/// Closes connections, so that stale ones go; agents that live come back.
pub(crate) async fn close(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<(String, String)>,
    query: Query,
) -> Answer {
    let id = find(&shared.state.registry.snapshot(), &path)?.id;
    let connector: Option<Uuid> = query.parsed("client_id")?;
    let closed = (shared.state.close)(id, connector);
    tracing::info!(tunnel = %id, closed, "connections were closed by the API");
    Ok(success(json!({})))
}

pub(crate) async fn connector(
    State(shared): State<Arc<Shared>>,
    Path((owner, tunnel, connector)): Path<(String, String, String)>,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let path = (owner, tunnel);
    let found = find(&snapshot, &path)?;
    let wanted = tunnel_id(&connector);
    let connectors = connectors(&snapshot, found.id);
    let (_, connections) = connectors.iter().find(|(id, _)| Some(*id) == wanted).ok_or_else(|| {
        ApiError::no_object(&format!("/accounts/{}/cfd_tunnel/{}/connectors/{connector}", path.0, path.1))
    })?;
    Ok(success(shown_connector(connections)))
}

type Connector<'a> = (Uuid, Vec<&'a Arc<ConnectionRecord>>);

/// The oldest connector first.
fn connectors(snapshot: &Snapshot, tunnel: Uuid) -> Vec<Connector<'_>> {
    let mut connectors: Vec<Connector<'_>> = Vec::new();
    let mut connections: Vec<_> = snapshot.connections(tunnel).collect();
    connections.sort_by_key(|connection| (connection.opened_at, connection.id));
    for connection in connections {
        match connectors.iter_mut().find(|(id, _)| *id == connection.connector) {
            Some((_, known)) => known.push(connection),
            None => connectors.push((connection.connector, vec![connection])),
        }
    }
    connectors
}

fn shown_connector(connections: &[&Arc<ConnectionRecord>]) -> Value {
    let Some(first) = connections.first() else { return Value::Null };
    json!({
        "id": first.connector,
        "arch": first.arch,
        "version": first.version,
        "features": first.features,
        "run_at": first.opened_at,
        "config_version": connections.iter().filter_map(|connection| connection.config_version).max(),
        "conns": shown(connections.iter().copied()),
    })
}

pub(super) fn shown<'a>(connections: impl Iterator<Item = &'a Arc<ConnectionRecord>>) -> Vec<Value> {
    let one = |connection: &Arc<ConnectionRecord>| {
        json!({
            "id": connection.id,
            "uuid": connection.id,
            "client_id": connection.connector,
            "client_version": connection.version,
            "colo_name": connection.location,
            "origin_ip": connection.origin_ip,
            "opened_at": connection.opened_at,
            "is_pending_reconnect": false,
        })
    };
    connections.map(one).collect()
}
