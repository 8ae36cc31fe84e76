//! Public ports of tunnels.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Hostname, NewPort, Port, PortId, PortOptions, PortProtocol, ProxyProtocol, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access;
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

/// Ports that are tried to be opened before none is left to try: other programs hold a few, never so many in a row.
const TRIES: usize = 64;

/// Ports in a row that one tunnel may have: each holds a socket, and a line of the agent's rules.
pub(crate) const MOST: u16 = 256;

/// Which port, and how its visitors are served. What is left out is up to the edge.
#[derive(Default, Deserialize)]
pub(crate) struct PortWish {
    /// What visitors speak.
    #[serde(default)]
    pub(crate) protocol: PortProtocol,
    /// The lowest that will do; absent, the edge's lowest.
    first: Option<u16>,
    /// The highest that will do; absent, the edge's highest.
    last: Option<u16>,
    /// The one to take if it is free.
    prefer: Option<u16>,
    /// So many in a row; absent, one.
    count: Option<u16>,
    proxy_protocol: Option<ProxyProtocol>,
    max_connections: Option<usize>,
    idle_seconds: Option<u64>,
}

impl PortWish {
    /// `most`: visitors at once that one port may have.
    fn options(&self, most: usize) -> Result<PortOptions, ApiError> {
        let usual = PortOptions::usual(self.protocol);
        let options = PortOptions {
            proxy_protocol: self.proxy_protocol,
            max_connections: self.max_connections.unwrap_or_else(|| usual.max_connections.min(most)),
            idle_seconds: self.idle_seconds.unwrap_or(usual.idle_seconds),
        };
        bounded("port.max_connections", options.max_connections, most)?;
        if self.protocol == PortProtocol::Udp {
            if options.idle_seconds == 0 {
                return Err(ApiError::not_valid(
                    "port.idle_seconds: at least 1, since flows of datagrams have no other end",
                ));
            }
            if options.proxy_protocol == Some(ProxyProtocol::V1) {
                return Err(ApiError::not_valid("port.proxy_protocol: only v2 knows datagrams"));
            }
        }
        Ok(options)
    }
}

/// Refuses nobody as well as too many visitors at once.
pub(crate) fn bounded(field: &str, visitors: usize, most: usize) -> Result<(), ApiError> {
    if visitors == 0 {
        return Err(ApiError::not_valid(format!("{field}: at least 1")));
    }
    if visitors > most {
        return Err(ApiError::not_valid(format!(
            "{field}: at most {most}, which is half of what this edge serves at once, so that one port does not keep \
             everybody else out; ask for less, or start the edge with a higher --max-connections"
        )));
    }
    Ok(())
}

/// All public ports.
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let ports: Vec<Value> = snapshot.ports().map(|port| shown(&snapshot, port)).collect();
    Ok(success(json!(ports)))
}

fn shown(snapshot: &Snapshot, port: &Port) -> Value {
    json!({
        "port": port.number,
        "protocol": port.protocol,
        "tunnel_id": port.tunnel,
        "tunnel_name": snapshot.tunnel(port.tunnel).map(|tunnel| &tunnel.name),
        "service": port.service,
        "connected": snapshot.is_connected(port.tunnel),
        "proxy_protocol": port.options.proxy_protocol,
        "max_connections": port.options.max_connections,
        "idle_seconds": port.options.idle_seconds,
        "created_at": port.created_at,
    })
}

/// A port for a tunnel that is there, such as one of stock agents.
#[derive(Deserialize)]
struct NamedWish {
    /// The name of a host in the agents' rules, or an address with a port that they reach by themselves, which is all that
    /// stock agents know.
    service: String,
    #[serde(flatten)]
    port: PortWish,
}

/// Gives a tunnel one more public port.
pub(crate) async fn add(State(shared): State<Arc<Shared>>, Path(tunnel): Path<String>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let tunnel = access::find(&registry.snapshot(), &tunnel)?;
    let NamedWish { service, port } = body::json(body, body::SMALL).await?;
    let is_address = service.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    if !is_address && Hostname::parse(&service).is_err() {
        return Err(ApiError::not_valid("service: the name of a host in the agent's rules, or IP:PORT"));
    }
    if port.count.is_some_and(|count| count != 1) {
        return Err(ApiError::not_valid("port.count: one at a time"));
    }
    // A port that another tunnel has is not chosen, and neither is one of its own.
    let Chosen { ids, options } = choose(&shared, None, port).await?;
    registry.add_port(Timestamp::now(), tunnel, &NewPort { id: ids[0], service, options }).await?;
    let snapshot = registry.snapshot();
    let port = snapshot.port(ids[0]).ok_or_else(|| ApiError::taken("The port was taken away again."))?;
    Ok(success(shown(&snapshot, port)))
}

/// Takes a public port from a tunnel.
pub(crate) async fn remove(
    State(shared): State<Arc<Shared>>,
    Path((tunnel, protocol, number)): Path<(String, String, String)>,
) -> Answer {
    let registry = &shared.state.registry;
    let tunnel = access::find(&registry.snapshot(), &tunnel)?;
    let number = number.parse::<u16>().ok();
    let id = match (protocol.as_str(), number) {
        ("tcp", Some(number)) => PortId::tcp(number),
        ("udp", Some(number)) => PortId::udp(number),
        _ => return Err(ApiError::no_object(&format!("/ports/{protocol}"))),
    };
    registry.delete_port(tunnel, id).await?;
    Ok(success(Value::Null))
}

/// Ports in a row that are open for the agent that is about to come.
pub(crate) struct Chosen {
    ids: Vec<PortId>,
    options: PortOptions,
}

/// Chooses and opens ports for a tunnel, which may not exist yet. The ones that it has are kept if they will do.
pub(crate) async fn choose(shared: &Shared, tunnel: Option<Uuid>, wish: PortWish) -> Result<Chosen, ApiError> {
    let Some(ports) = &shared.state.ports else {
        return Err(ApiError::not_allowed("This edge has no public ports: `snicket up --ports` was set to off."));
    };
    let options = wish.options(shared.state.most_visitors)?;
    let PortWish { protocol, first, last, prefer, count, .. } = wish;
    let count = count.unwrap_or(1);
    let (low, high) = (*ports.range.start(), *ports.range.end());
    let range = first.unwrap_or(low)..=last.unwrap_or(high);
    if range.is_empty() || !ports.range.contains(range.start()) || !ports.range.contains(range.end()) {
        return Err(ApiError::not_valid(format!("port: this edge has the public ports {low} to {high}")));
    }
    if count == 0 || count > MOST || usize::from(count) > range.len() {
        return Err(ApiError::not_valid(format!(
            "port.count: from 1 to {MOST}, and no more than there are to choose from"
        )));
    }
    // Where a row may begin.
    let range = *range.start()..=*range.end() - (count - 1);
    let snapshot = shared.state.registry.snapshot();
    let own = tunnel.and_then(|tunnel| {
        let own = snapshot.ports_of(tunnel).filter(|port| port.protocol == protocol).map(|port| port.number);
        own.min().filter(|own| range.contains(own))
    });
    let liked = own.or(prefer).filter(|number| range.contains(number));
    let ids = |first: u16| (first..=first + (count - 1)).map(move |number| PortId { protocol, number });
    let is_free = |id: PortId| {
        let others = snapshot.port(id).filter(|port| Some(port.tunnel) != tunnel);
        others.is_none_or(|port| snapshot.live_tunnel(port.tunnel).is_none())
    };
    let mut problem = "it belongs to another tunnel".to_owned();
    let begin = liked.into_iter().chain(shuffled(&range)).filter(|first| ids(*first).all(is_free)).take(TRIES);
    'rows: for first in begin {
        for id in ids(first) {
            if let Err(error) = (ports.open)(id).await {
                problem = format!("port {id} cannot be opened on the edge's machine: {error}");
                continue 'rows;
            }
        }
        return Ok(Chosen { ids: ids(first).collect(), options });
    }
    let wished = match (first.unwrap_or(low), last.unwrap_or(high)) {
        (first, last) if first == last => format!("port {first}"),
        (first, last) if count > 1 => format!("{count} ports in a row from {first} to {last}"),
        (first, last) => format!("a port from {first} to {last}"),
    };
    Err(ApiError::taken(format!("{wished} is not to be had: {problem}")))
}

/// Gives the ports to the tunnel, and answers the first. Agents find the service by this name; those of several ports by
/// `port-0.` and so on in front of it.
pub(crate) async fn give(
    shared: &Shared,
    Chosen { ids, options }: Chosen,
    tunnel: Uuid,
    service: &str,
) -> Result<u16, ApiError> {
    let first = ids[0].number;
    let named = |index: usize| if ids.len() == 1 { service.to_owned() } else { format!("port-{index}.{service}") };
    let ports: Vec<NewPort> = ids
        .iter()
        .enumerate()
        .map(|(index, id)| NewPort { id: *id, service: named(index), options: options.clone() })
        .collect();
    shared.state.registry.put_ports(Timestamp::now(), tunnel, &ports).await?;
    Ok(first)
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
