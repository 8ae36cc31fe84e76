//! How the edge is: its nodes, its tunnels, its registry. Below `/snicket/v1`, since the original API has no such thing.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use jiff::Timestamp;
use registry::{AcmeStage, AuthorityPurpose, Hostname, NodeRecord, Snapshot};
use serde_json::{Value, json};

use crate::envelope::{Answer, success};
use crate::state::Shared;

/// Certificates shown at the most; those with a problem, and then those that end first.
const MOST_CERTIFICATES: usize = 1_000;

/// As this node knows it.
pub(crate) async fn show(State(shared): State<Arc<Shared>>) -> Answer {
    let registry = &shared.state.registry;
    let (me, snapshot) = (registry.node(), registry.snapshot());
    let counts = snapshot.connections_by_node(me);
    let mut certificates = certificates(&snapshot, Timestamp::now());
    certificates["node_expires_at"] = json!((shared.state.node_certificate)());
    certificates["origin_authority"] = json!(snapshot.authority(AuthorityPurpose::Origin).is_some());
    let nodes = snapshot.nodes().map(|node| shown(node, counts.get(&node.id).copied().unwrap_or_default()));
    Ok(success(json!({
        "node": me,
        "registry": {
            "revision": snapshot.revision(),
            "hears_all_nodes": registry.sees_all_nodes(),
        },
        "nodes": nodes.collect::<Vec<_>>(),
        "tunnels": tunnels(&snapshot, counts.values().sum()),
        "certificates": certificates,
    })))
}

fn shown(node: &NodeRecord, connections: usize) -> Value {
    json!({
        "id": node.id,
        "name": node.name,
        "location": node.location,
        "addresses": node.addresses,
        "version": node.version,
        "started_at": node.started_at,
        "connections": connections,
    })
}

fn tunnels(snapshot: &Snapshot, connections: usize) -> Value {
    let (mut all, mut connected) = (0, 0);
    for tunnel in snapshot.tunnels().filter(|tunnel| tunnel.deleted_at.is_none()) {
        all += 1;
        connected += usize::from(snapshot.is_connected(tunnel.id));
    }
    json!({ "total": all, "connected": connected, "connections": connections })
}

/// Those of public authorities: there, being ordered, or not to be had.
fn certificates(snapshot: &Snapshot, now: Timestamp) -> Value {
    let held = snapshot.acme_certificates().map(|certificate| &certificate.name);
    let names: BTreeSet<&Hostname> = held.chain(snapshot.acme_orders().map(|order| &order.name)).collect();
    let total = names.len();
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_cached_key(|name| {
        let is_well = snapshot.acme_order(name.as_str()).is_none_or(|order| order.failure.is_none());
        (is_well, snapshot.acme_certificate(name.as_str()).map(|certificate| certificate.not_after))
    });
    let list = names.into_iter().take(MOST_CERTIFICATES).map(|name| certificate(snapshot, name, now));
    json!({ "total": total, "list": list.collect::<Vec<_>>() })
}

fn certificate(snapshot: &Snapshot, name: &Hostname, now: Timestamp) -> Value {
    let certificate = snapshot.acme_certificate(name.as_str()).map(|certificate| &certificate.value);
    let order = snapshot.acme_order(name.as_str()).map(|order| &order.value);
    let state = match AcmeStage::of(certificate, order, now) {
        AcmeStage::Absent => "absent",
        AcmeStage::Ordering { .. } => "ordering",
        AcmeStage::Held { .. } => "valid",
        AcmeStage::Due => "due",
        AcmeStage::Failed { .. } => "failed",
    };
    let failure = order.and_then(|order| order.failure.as_ref());
    json!({
        "name": name,
        "state": state,
        "issuer": certificate.map(|certificate| &certificate.issuer),
        "not_before": certificate.map(|certificate| certificate.not_before),
        "expires_at": certificate.map(|certificate| certificate.not_after),
        "renew_at": certificate.map(|certificate| certificate.renew_at()),
        "last_error": failure.map(|failure| &failure.why),
        "failed_at": failure.map(|failure| failure.at),
        "retry_at": failure.map(|failure| failure.retry_at),
    })
}
