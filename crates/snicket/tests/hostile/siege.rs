//! Each attack for some seconds against a real edge and agent, while a visitor of another tenant asks 50 times a second.
//!
//! The ordinary test runs each attack for a moment and asks only that the visitor is served and that what the attack took comes
//! back. `SNICKET_SIEGE_SECONDS=3 cargo test -p snicket --release --test hostile siege -- --nocapture` runs each for that
//! long and writes `docs/hostile.md`.

mod attacks;
mod report;

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{Agent, Edge, LIMIT, Origin};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use attacks::ATTACKS;
use report::{Row, table};

/// The length of each attack in seconds, for the whole form.
const SECONDS: &str = "SNICKET_SIEGE_SECONDS";
/// What a program that attacks is told: the attack and its targets.
const ATTACK: &str = "SNICKET_SIEGE_ATTACK";

/// Of each attack in the short form.
const SHORT: Duration = Duration::from_millis(1500);
/// What the short form allows the allocator to keep, since it does not wait for it: less than any leak of a flood.
const SHORT_SLACK_KIB: u64 = 256 * 1024;
/// Between two requests of the victim.
const PACE: Duration = Duration::from_millis(20);
/// How long what an attack took may take to come back: as long as the longest time-out of an idle connection, and what a
/// busy machine adds.
const RECOVERY: Duration = Duration::from_secs(90);
/// A request that takes longer has failed.
const LATE: Duration = Duration::from_secs(30);

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) tasks: u64,
}

impl Usage {
    async fn of(edge: &Edge) -> Self {
        let process = edge.process.id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib = rss.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
        let metrics = edge_metrics(edge).await;
        let tasks = metrics.lines().find_map(|line| line.strip_prefix("snicket_edge_tasks ")).unwrap();
        Self { kib, descriptors, tasks: tasks.parse().unwrap() }
    }

    /// Within a tenth of what there was, and a little that is not the attack's: a connection of the test's own, pages of
    /// the allocator.
    fn is_back(&self, before: &Self, slack_kib: u64) -> bool {
        let near = |now: u64, before: u64, slack: u64| now <= before + before / 10 + slack;
        near(self.kib, before.kib, slack_kib)
            && near(self.descriptors, before.descriptors, 4)
            && near(self.tasks, before.tasks, 8)
    }
}

async fn edge_metrics(edge: &Edge) -> String {
    harness::Visitor::plain(edge.api()).get("/metrics").await.text()
}

/// The defences that the edge has counted, by reason.
async fn defences(edge: &Edge) -> Vec<(String, u64)> {
    let metrics = edge_metrics(edge).await;
    let counts = metrics.lines().filter_map(|line| {
        let (name, count) = line.strip_prefix("snicket_edge_")?.split_once("\"} ")?;
        let (metric, label) = name.split_once('{')?;
        let is_told = matches!(metric, "defences_total" | "refusals_total" | "registrations_total");
        is_told.then(|| (label.split('"').nth(1).unwrap_or_default().to_owned(), count.parse().unwrap_or(0)))
    });
    counts.collect()
}

/// How the victim was served.
#[derive(Debug, Default, Clone)]
pub(crate) struct Served {
    /// Times of all good answers, sorted.
    pub(crate) times: Vec<Duration>,
    pub(crate) failures: Vec<String>,
}

impl Served {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(index).copied().unwrap_or(LATE)
    }
}

/// A visitor who asks at a steady pace, each time on a connection of its own, until the time is over.
async fn victim(edge: &Edge, host: &str, time: Duration) -> Served {
    let until = Instant::now() + time;
    let mut pace = interval(PACE);
    let mut asking = JoinSet::new();
    while Instant::now() < until {
        pace.tick().await;
        let (address, host) = (edge.http(), host.to_owned());
        asking.spawn(async move {
            let started = Instant::now();
            let answer = tokio::time::timeout(LATE, ask(address, &host)).await;
            match answer {
                Ok(Ok(())) => Ok(started.elapsed()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err("too late".to_owned()),
            }
        });
    }
    let mut served = Served::default();
    while let Some(outcome) = asking.join_next().await {
        match outcome.unwrap() {
            Ok(time) => served.times.push(time),
            Err(error) => served.failures.push(error),
        }
    }
    served.times.sort_unstable();
    served
}

async fn ask(address: std::net::SocketAddr, host: &str) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    let good = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello from the origin");
    if good { Ok(()) } else { Err(answer) }
}

/// Starts the attack in a process of its own, which yields to the others where there are too few cores: the attack is to cost the
/// edge, not the victim's half of this machine.
fn attacker(name: &str, edge: &Edge, host: &str) -> Child {
    let told = json!({
        "attack": name,
        "http": edge.http().to_string(),
        "https": edge.https().to_string(),
        "tunnel": edge.tunnel().to_string(),
        "host": host,
        "ca": edge.ca().display().to_string(),
    });
    Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "siege::the_edge_stands_under_siege", "--nocapture", "--test-threads", "1"])
        .env(ATTACK, told.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("nice is everywhere")
}

/// Waits for what the attack took, and tells how long that took.
async fn recovery(edge: &Edge, before: &Usage, slack_kib: u64) -> (Usage, Option<Duration>) {
    let since = Instant::now();
    loop {
        let now = Usage::of(edge).await;
        if now.is_back(before, slack_kib) {
            return (now, Some(since.elapsed()));
        }
        if since.elapsed() > RECOVERY {
            return (now, None);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

async fn siege(time: Duration, slack_kib: u64) -> (Served, Vec<Row>) {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let edge = Edge::start_with(&["--loglevel", "warn"]).await;
    let victims = Agent::start(&edge, &origin.service(), &["--protocol", "quic"]).await;
    let attacked = Agent::start(&edge, &other.service(), &["--protocol", "http2"]).await;
    let host = victims.host();
    // Fills pools and caches, which stay.
    victim(&edge, &host, time).await;
    let idle = victim(&edge, &host, time.max(Duration::from_secs(3))).await;
    let before = Usage::of(&edge).await;
    let mut rows = Vec::new();
    for attack in ATTACKS {
        let counted = defences(&edge).await;
        let mut attacker = attacker(attack.name, &edge, &attacked.host());
        let mut said = attacker.stdout.take().expect("it is piped");
        // It says so when it begins.
        let mut first = [0; 4096];
        let begun = tokio::time::timeout(LIMIT, async {
            let mut text = String::new();
            while !text.contains(attacks::BEGINS) {
                let read = said.read(&mut first).await.unwrap();
                assert!(read > 0, "{} did not begin: {text}", attack.name);
                text.push_str(&String::from_utf8_lossy(&first[..read]));
            }
        });
        begun.await.expect("the attacker starts");
        let served = victim(&edge, &host, time).await;
        let peak = Usage::of(&edge).await;
        let _ = attacker.kill().await;
        let (after, recovered) = recovery(&edge, &before, slack_kib).await;
        let now = defences(&edge).await;
        let reasons = now.into_iter().filter(|(reason, count)| {
            counted.iter().find(|(known, _)| known == reason).map_or(0, |(_, before)| *before) < *count
        });
        let reasons = reasons.map(|(reason, _)| reason).collect();
        let row = Row { name: attack.name, what: attack.what, served, before, peak, after, recovered, reasons };
        eprintln!("{}", row.line(&idle));
        rows.push(row);
    }
    for process in [&edge.process, &victims.process, &attacked.process] {
        assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
    }
    (idle, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_stands_under_siege() {
    if let Ok(told) = std::env::var(ATTACK) {
        let told: Value = serde_json::from_str(&told).unwrap();
        attacks::attack(&told).await;
        return;
    }
    let whole = std::env::var(SECONDS).ok().map(|text| Duration::from_secs(text.parse().expect("a number of seconds")));
    let slack_kib = if whole.is_some() { report::SLACK_KIB } else { SHORT_SLACK_KIB };
    let (idle, rows) = siege(whole.unwrap_or(SHORT), slack_kib).await;
    let text = table(&idle, &rows, whole);
    println!("{text}");
    if whole.is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hostile.md");
        std::fs::write(path, text).unwrap();
    }
    for row in rows {
        assert!(row.served.failures.is_empty(), "{}: {:?}", row.name, &row.served.failures[..1]);
        assert!(row.recovered.is_some(), "{}: {:?}, then {:?}", row.name, row.before, row.after);
    }
}
