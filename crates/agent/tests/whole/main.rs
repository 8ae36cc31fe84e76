//! Whole agents against the edge's end of the protocol and real origins, over both transports, on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod configuration;
mod edge;
mod endpoint;
mod failures;
mod flows;
mod inspector;
mod lifecycle;
mod origin;
mod proxy;
mod requests;
mod reuse;
mod secure;
mod streams;
mod vanish;
mod websocket;

use std::future::Future;
use std::num::NonZeroU8;
use std::time::Duration;

use agent::ingress::Document;
use agent::{Agent, Config, Event, Protocol, RequestEvent, Running};
use tokio::sync::broadcast;
use uuid::Uuid;
use wire::identity::TunnelSecret;

use edge::Edge;

/// No step of any test takes longer on a busy machine, unless it never ends.
const LIMIT: Duration = Duration::from_secs(30);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

/// An agent's configuration for these edges; `document` is JSON as it is pushed.
fn config(edges: &[&Edge], document: &str) -> Config {
    Config {
        account_tag: "account".to_owned(),
        tunnel: Uuid::from_u128(7),
        secret: TunnelSecret::new(vec![1; 32]),
        connector: Uuid::new_v4(),
        version: "test".to_owned(),
        features: Vec::new(),
        edge: edges.iter().map(|edge| edge.address.to_string().parse().unwrap()).collect(),
        edge_ip_version: agent::edge::IpVersion::Auto,
        discovery: None,
        edge_bind_address: None,
        roots: certs::tls::Roots::Pem(edges[0].ca.clone()),
        post_quantum: false,
        protocol: Protocol::Auto,
        protocol_memory: None,
        connections: NonZeroU8::MIN,
        retries: None,
        max_edge_addr_retries: None,
        rpc_timeout: agent::DEFAULT_RPC_TIMEOUT,
        proxies: agent::Proxies::none(),
        tags: Vec::new(),
        document: Document::from_json(document.as_bytes()).unwrap(),
        reload: None,
        flags: std::collections::BTreeMap::new(),
        quick_hostname: None,
    }
}

/// A document with one rule for everything.
fn everything_to(service: &str, options: &str) -> String {
    format!(r#"{{"ingress":[{{"service":"{service}","originRequest":{{{options}}}}}]}}"#)
}

/// An agent of this edge over one transport, which sends everything to this service.
async fn serving(edge: &Edge, protocol: Protocol, service: &str) -> Running {
    started(Config { protocol, ..config(&[edge], &everything_to(service, "")) }).await
}

async fn started(config: Config) -> Running {
    let agent = Agent::start(config, None).await.unwrap();
    assert!(within("the first connection", agent.ready()).await);
    agent
}

/// Waits for an event that `wanted` takes.
async fn event<T>(events: &mut broadcast::Receiver<Event>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    within("the event", async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    })
    .await
}

/// The next request that is told.
async fn request_told(events: &mut broadcast::Receiver<Event>) -> RequestEvent {
    event(events, |event| match event {
        Event::Request(request) => Some(RequestEvent::clone(&request)),
        _ => None,
    })
    .await
}
