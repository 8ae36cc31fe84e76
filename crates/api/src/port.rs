//! Public ports of tunnels.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use jiff::Timestamp;
use registry::PortOptions;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

/// Ports that are tried to be opened before none is left to try: other programs hold a few, never so many in a row.
const TRIES: usize = 64;

/// Which port, and how its visitors are served.
#[derive(Deserialize)]
pub(crate) struct PortWish {
    /// The lowest that will do; absent, the edge's lowest.
    first: Option<u16>,
    /// The highest that will do; absent, the edge's highest.
    last: Option<u16>,
    /// The one to take if it is free.
    prefer: Option<u16>,
    #[serde(flatten)]
    options: PortOptions,
}

/// All public ports.
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let ports: Vec<Value> = snapshot
        .ports()
        .map(|port| {
            json!({
                "port": port.number,
                "tunnel_id": port.tunnel,
                "tunnel_name": snapshot.tunnel(port.tunnel).map(|tunnel| &tunnel.name),
                "service": port.service,
                "connected": snapshot.is_connected(port.tunnel),
                "proxy_protocol": port.options.proxy_protocol,
                "max_connections": port.options.max_connections,
                "idle_seconds": port.options.idle_seconds,
                "created_at": port.created_at,
            })
        })
        .collect();
    Ok(success(json!(ports)))
}

/// A port that is open for the agent that is about to come.
pub(crate) struct Chosen {
    number: u16,
    options: PortOptions,
}

/// Chooses and opens a port for a tunnel, which may not exist yet. The one that it has is kept if it will do.
pub(crate) async fn choose(shared: &Shared, tunnel: Option<Uuid>, wish: PortWish) -> Result<Chosen, ApiError> {
    let PortWish { first, last, prefer, options } = wish;
    let Some(ports) = &shared.state.ports else {
        return Err(ApiError::not_allowed("This edge has no public ports: `snicket up --ports` was set to off."));
    };
    if options.max_connections == 0 {
        return Err(ApiError::not_valid("port.max_connections: at least 1"));
    }
    let (low, high) = (*ports.range.start(), *ports.range.end());
    let range = first.unwrap_or(low)..=last.unwrap_or(high);
    if range.is_empty() || !ports.range.contains(range.start()) || !ports.range.contains(range.end()) {
        return Err(ApiError::not_valid(format!("port: this edge has the public ports {low} to {high}")));
    }
    let snapshot = shared.state.registry.snapshot();
    let own =
        tunnel.and_then(|tunnel| snapshot.ports_of(tunnel).map(|port| port.number).find(|own| range.contains(own)));
    let liked = own.or(prefer).filter(|number| range.contains(number));
    let is_free = |number: &u16| {
        let others = snapshot.port(*number).filter(|port| Some(port.tunnel) != tunnel);
        others.is_none_or(|port| snapshot.live_tunnel(port.tunnel).is_none())
    };
    let mut problem = "it belongs to another tunnel".to_owned();
    for number in liked.into_iter().chain(shuffled(&range)).filter(is_free).take(TRIES) {
        match (ports.open)(number).await {
            Ok(()) => return Ok(Chosen { number, options }),
            Err(error) => problem = format!("port {number} cannot be opened on the edge's machine: {error}"),
        }
    }
    let wished = match (range.start(), range.end()) {
        (first, last) if first == last => format!("port {first}"),
        (first, last) => format!("a port from {first} to {last}"),
    };
    Err(ApiError::taken(format!("{wished} is not to be had: {problem}")))
}

/// Gives the port to the tunnel. Agents find the service by this name.
pub(crate) async fn give(
    shared: &Shared,
    Chosen { number, options }: Chosen,
    tunnel: Uuid,
    service: &str,
) -> Result<u16, ApiError> {
    shared.state.registry.put_port(Timestamp::now(), number, tunnel, service, options).await?;
    Ok(number)
}

/// All numbers, from a random one on, so that those who want any do not meet at the first.
fn shuffled(range: &RangeInclusive<u16>) -> impl Iterator<Item = u16> + use<> {
    let (first, last) = (*range.start(), *range.end());
    let middle = rand::random_range(first..=last);
    (middle..=last).chain(first..middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_tried_once() {
        for range in [20_000..=20_010, 7..=7, 0..=u16::MAX] {
            let mut all: Vec<u16> = shuffled(&range).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(range));
        }
    }
}
