//! What 330 nodes and 100,000 tunnels cost that share one registry: keys and bytes in etcd, and what it sends to each node when
//! something happens. `cargo bench -p snicket-registry`; some minutes, and 3 GB of memory.
//!
//! Every node runs the program's own code over an engine in memory that counts; the time of agents and leases is simulated. All
//! but one take in nothing, since 330 copies of everything would not fit. The bytes are calculated as protobuf, gRPC and HTTP/2
//! have them, and compared with those of a real etcd where there is one.

#![expect(clippy::unwrap_used, reason = "a panic tells enough")]
#![expect(unsafe_code, reason = "the allocator is told to give back what it keeps")]

mod engine;
mod etcd;
mod traffic;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use registry::engine::State;
use registry::{ConfigSource, Engine as _, Hostname, NewTunnel, Registry, TunnelName, ZoneTraits};
use serde_json::json;
use uuid::Uuid;

use engine::{Pop, Store};
use traffic::Traffic;
use world::{CONNECTIONS, LIFE, NODES, World};

const TUNNELS: usize = 100_000;
const ZONES: usize = 1_000;
/// Of ordinary life.
const HOUR: Duration = Duration::from_secs(60 * 60);

fn main() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    eprintln!("comparing with etcd …");
    // On a runtime of its own, where the time is real.
    let compared = runtime().block_on(etcd::compare());
    runtime().block_on(simulate());
    match compared {
        Some((calculated, etcd)) => println!(
            "\nFor 500 connections that come and go a node is sent {calculated} bytes as calculated, and {etcd} by etcd."
        ),
        None => println!("\nNot compared with a real etcd: none is installed (apt-get install etcd-server)."),
    }
}

async fn simulate() {
    let store = Store::new();
    let registry = Registry::open(Pop::new(&store, None), Timestamp::now()).await.unwrap();
    let founded = store.engine.load().await.unwrap();

    eprintln!("making {TUNNELS} tunnels …");
    let mut rows = Vec::new();
    let tunnels = configure(&registry, &store, &mut rows).await;
    let configured = store.engine.load().await.unwrap();

    eprintln!("connecting {} connections …", TUNNELS * CONNECTIONS);
    tokio::time::pause();
    let mut world = World::new(&store, &founded, tunnels).await;
    live(&mut world, &mut rows).await;

    let listed = store.engine.live().load().await.unwrap();
    tokio::time::resume();
    println!("Kept in etcd:\n\n| | keys | bytes |\n| --- | --- | --- |");
    keys(&configured);
    keys(&listed);
    println!("\nSent by etcd, which has {NODES} nodes to tell:\n");
    println!(
        "| | transactions | bytes to each node | messages in all | bytes in all |\n| --- | --- | --- | --- | --- |"
    );
    for (what, traffic) in rows {
        let Traffic { transactions, bytes, renewals, .. } = traffic;
        let all = NODES as u64;
        let messages = transactions * all + renewals;
        println!(
            "| {what} | {} | {} | {} | {} |",
            number(transactions),
            size(bytes),
            number(messages),
            size(bytes * all)
        );
    }
    start(&store).await;
}

/// Tunnels with a configuration and a name each; what one of each costs.
async fn configure(registry: &Registry, store: &Store, rows: &mut Vec<(String, Traffic)>) -> Vec<Uuid> {
    let now = Timestamp::now();
    let mut zones = Vec::new();
    for number in 0..ZONES {
        let name = Hostname::parse(&format!("zone-{number}.example")).unwrap();
        zones.push(registry.create_zone(now, &name, ZoneTraits::default()).await.unwrap());
    }
    let mut tunnels = Vec::new();
    for number in 0..TUNNELS {
        let is_last = number + 1 == TUNNELS;
        let mut note = |what: &str, before: Traffic| {
            if is_last {
                rows.push((what.into(), store.traffic.lock().unwrap().since(before)));
            }
        };
        let seen = || *store.traffic.lock().unwrap();
        let before = seen();
        let name = TunnelName::parse(&format!("service-{number}")).unwrap();
        let new = NewTunnel { name, secret: None, config_source: ConfigSource::Cloudflare, labels: Default::default() };
        let tunnel = registry.create_tunnel(now, new).await.unwrap();
        note("a tunnel is made", before);
        let before = seen();
        let zone = &zones[number % ZONES];
        let host = Hostname::parse(&format!("service-{number}.{}", zone.name)).unwrap();
        let document = json!({ "ingress": [
            { "hostname": host.as_str(), "service": "http://localhost:8080", "originRequest": { "connectTimeout": 10 } },
            { "service": "http_status:404" },
        ] });
        registry.put_configuration(now, tunnel.id, document, ConfigSource::Cloudflare, None).await.unwrap();
        note("it is configured", before);
        let before = seen();
        registry.put_route(now, zone.id, host, tunnel.id, false).await.unwrap();
        note("a name leads to it", before);
        tunnels.push(tunnel.id);
    }
    tunnels
}

async fn live(world: &mut World, rows: &mut Vec<(String, Traffic)>) {
    let store = Arc::clone(&world.store);
    let seen = || *store.traffic.lock().unwrap();
    let before = seen();
    world.connect_all(HOUR / 60).await;
    rows.push((
        format!("all agents connect within a minute ({} connections)", number((TUNNELS * CONNECTIONS) as u64)),
        seen().since(before),
    ));

    eprintln!("living for an hour …");
    let before = seen();
    world.live(HOUR).await;
    let hour = seen().since(before);
    let hours = LIFE.as_secs() / HOUR.as_secs();
    rows.push((format!("an hour in which connections last {hours} hours on average"), hour));
    let seconds = HOUR.as_secs();
    let second = Traffic {
        transactions: hour.transactions / seconds,
        events: hour.events / seconds,
        renewals: hour.renewals / seconds,
        bytes: hour.bytes / seconds,
    };
    rows.push(("a second of it".into(), second));

    let before = seen();
    world.configure(TUNNELS / 2, 2).await;
    rows.push(("an agent has another configuration in force".into(), seen().since(before)));

    let before = seen();
    let connections = world.restart_node(Duration::from_secs(5)).await;
    rows.push((format!("a node is restarted ({} connections)", number(connections as u64)), seen().since(before)));

    let before = seen();
    let connections = world.kill_node().await;
    let what = format!("a node loses its power, and its {} connections come elsewhere", number(connections as u64));
    rows.push((what, seen().since(before)));
}

/// One more node, that takes in all of it.
async fn start(store: &Arc<Store>) {
    let (before, began) = (resident(), Instant::now());
    let registry = Registry::open(Pop::new(store, None), Timestamp::now()).await.unwrap();
    let configured = began.elapsed();
    world::join(&registry, NODES);
    while !registry.sees_all_nodes() {
        tokio::task::yield_now().await;
    }
    let (took, grown) = (began.elapsed(), resident().saturating_sub(before));
    println!(
        "\nOne more node has what is configured after {:.1} s and everything after {:.1} s, beside what the network takes, and \
         needs {} for it.",
        configured.as_secs_f64(),
        took.as_secs_f64(),
        size(grown)
    );
}

/// A line for each kind of entry.
fn keys(state: &State) {
    let mut kinds = BTreeMap::<&str, (u64, u64)>::new();
    for entry in &state.entries {
        let (count, bytes) = kinds.entry(entry.key.split('/').next().unwrap_or_default()).or_default();
        *count += 1;
        *bytes += (entry.key.len() + entry.value.len()) as u64;
    }
    for (kind, (count, bytes)) in kinds {
        println!("| `{kind}` | {} | {} |", number(count), size(bytes));
    }
}

/// Memory in use by this process, in bytes.
fn resident() -> u64 {
    // SAFETY: it may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
}

fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{} B", number(bytes)),
        10_000..10_000_000 => format!("{} kB", number(bytes / 1000)),
        _ => format!("{} MB", number(bytes / 1_000_000)),
    }
}
