//! What the API takes with 10,000 zones and 1,000,000 records, without a network: `cargo bench -p snicket-api`. Half a minute,
//! and a gigabyte.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(unsafe_code, reason = "an allocator that counts is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::{ApiState, Facts, QuickTunnels};
use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use registry::engine::{Batch, Entry, Feed, FeedError, Guard, Live, State, Write};
use registry::{CommitError, Embedded, Engine, EngineError, Hostname, Registry, Revision, TokenHash};
use serde_json::{Value, json};
use tower_service::Service as _;

/// Counts what is allocated and not yet freed.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As glibc rounds: 8 bytes of its own, and multiples of 16.
fn rounded(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

const ZONES: usize = 10_000;
/// Of these, one zone has a tenth.
const RECORDS: usize = 1_000_000;
const IN_LARGE_ZONE: usize = RECORDS / 10;
const SECRET: &str = "snk_scale";
/// All together stay below what one token may call in five minutes.
const CALLS: usize = 70;

/// An engine that has it all at the start.
struct Prefilled(Embedded);

impl Engine for Prefilled {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(async { Ok(State { revision: 1, entries: entries() }) })
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        self.0.commit(guards, writes)
    }

    fn follow(&self, _after: Revision) -> Box<dyn Feed> {
        Box::new(Silence)
    }

    fn live(&self) -> &dyn Live {
        self.0.live()
    }

    fn most_at_once(&self) -> Option<usize> {
        self.0.most_at_once()
    }
}

/// Nothing changes while it is measured.
struct Silence;

impl Feed for Silence {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(std::future::pending())
    }
}

fn zone_id(index: usize) -> String {
    format!("{:032x}", index + 1)
}

fn entries() -> Vec<Entry> {
    let now = Timestamp::UNIX_EPOCH;
    let entry = |key: String, value: Value| Entry { key, value: value.to_string().into(), revision: 1 };
    let (account, token) = ("0".repeat(32), "1".repeat(32));
    let mut entries = vec![
        entry(format!("accounts/{account}"), json!({ "id": account, "name": "Snicket", "created_at": now })),
        entry("schema/version".to_owned(), json!({ "version": 2 })),
        entry(
            format!("tokens/{token}"),
            json!({ "id": token, "name": "scale", "hash": TokenHash::of(SECRET), "created_at": now }),
        ),
    ];
    for index in 0..ZONES {
        let (id, name) = (zone_id(index), format!("zone-{index}.example"));
        entries.push(entry(format!("zones/{id}"), json!({ "id": id, "name": name, "created_at": now })));
    }
    let elsewhere = RECORDS - IN_LARGE_ZONE;
    for index in 0..RECORDS {
        let (zone, place) = match index.checked_sub(elsewhere) {
            Some(place) => (0, place),
            None => (1 + index % (ZONES - 1), index / (ZONES - 1)),
        };
        let (zone, host) = (zone_id(zone), format!("host-{place}"));
        let (kind, content) = match index % 4 {
            0 => ("CNAME", format!("{:08x}-2222-4333-8444-555555555555.cfargotunnel.com", index % 100_000)),
            1 => ("TXT", format!("\"v=1; key={index}\"")),
            _ => ("A", Ipv4Addr::from(index as u32).to_string()),
        };
        let record = json!({
            "id": format!("{:032x}", index + 1), "type": kind, "content": content, "ttl": 1, "proxied": kind == "CNAME",
            "created_at": now, "modified_at": now,
        });
        entries
            .push(entry(format!("records/{zone}/{host}"), json!({ "zone": zone, "host": host, "records": [record] })));
    }
    entries
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let before = LIVE.load(Ordering::Relaxed);
    let started = Instant::now();
    let registry = Registry::open(Prefilled(Embedded::in_memory().unwrap()), Timestamp::UNIX_EPOCH).await.unwrap();
    let loaded = started.elapsed();
    let live = LIVE.load(Ordering::Relaxed) - before;
    println!("made and loaded in {loaded:.1?}; {} MiB, {} bytes a record", live >> 20, live / RECORDS);
    let large = zone_id(0);
    let small = zone_id(777);
    assert_eq!(registry.snapshot().record_count(large.parse().unwrap()), IN_LARGE_ZONE);
    let mut router = router(registry);
    for (what, path, found) in [
        ("zones, first page", "/zones?per_page=50".to_owned(), 50),
        ("zones, last page", format!("/zones?per_page=50&page={}", ZONES / 50), 50),
        ("zones, by name of 50", "/zones?order=name&direction=desc&per_page=50".to_owned(), 50),
        ("zone by name", "/zones?name=zone-4711.example".to_owned(), 1),
        ("zone by name, none", "/zones?name=nobody.example".to_owned(), 0),
        ("90 records: page", format!("/zones/{small}/dns_records"), 90),
        ("90 records: by name", format!("/zones/{small}/dns_records?name=host-7.zone-777.example"), 1),
        ("90 records: by content", format!("/zones/{small}/dns_records?content=nothing.example"), 0),
        ("100,000 records: first page", format!("/zones/{large}/dns_records"), 100),
        ("100,000 records: last page", format!("/zones/{large}/dns_records?page=1000"), 100),
        ("100,000 records: page of 5,000", format!("/zones/{large}/dns_records?per_page=5000"), 5000),
        ("100,000 records: by name", format!("/zones/{large}/dns_records?name=host-7.zone-0.example&per_page=1"), 1),
        (
            "100,000 records: by type, name, content",
            format!("/zones/{large}/dns_records?type=A&name.exact=host-7.zone-0.example&content.exact=0.13.187.167"),
            1,
        ),
        ("100,000 records: by content alone", format!("/zones/{large}/dns_records?content=nothing.example"), 0),
        ("100,000 records: search", format!("/zones/{large}/dns_records?search=nothing"), 0),
    ] {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS.min(if what.contains("5,000") { 20 } else { CALLS }) {
            let started = Instant::now();
            let answer = call(&mut router, &path).await;
            times.push(started.elapsed());
            assert_eq!(answer, found, "{path}");
        }
        times.sort();
        let (median, most): (Duration, Duration) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{what:45} median {median:>10.1?}   p99 {most:>10.1?}");
    }
}

/// How many are in the answer.
async fn call(router: &mut Router, path: &str) -> usize {
    let request = Request::get(format!("/client/v4{path}")).header("authorization", format!("Bearer {SECRET}"));
    let Ok(response) = router.call(request.body(Body::empty()).unwrap()).await;
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let marker = b"\"count\":";
    let at = text.windows(marker.len()).position(|window| window == marker).expect("a list says how many it has");
    let digits: String =
        text[at + marker.len()..].iter().take_while(|b| b.is_ascii_digit()).map(|b| *b as char).collect();
    digits.parse().unwrap()
}

fn router(registry: Registry) -> Router {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    api::router(ApiState {
        registry,
        close: Arc::new(|_, _| 0),
        ports: None,
        most_visitors: 5_000,
        quick_tunnels: QuickTunnels::Off,
        facts: Facts {
            api: address,
            tunnel: vec![address],
            https: address,
            http: address,
            domain: Hostname::parse("example.test").unwrap(),
            ca: String::new(),
            location: "lab01".into(),
            version: "1".into(),
        },
        gather_handover: None,
        node_certificate: Arc::new(|| None),
        preview: None,
        known_here: None,
        know_caller: Arc::new(|_| ()),
        draining: Default::default(),
    })
}
