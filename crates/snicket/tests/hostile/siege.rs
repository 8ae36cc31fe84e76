//! Each attack for some seconds against a real edge and agent, while a visitor of another tenant asks 50 times a second.
//!
//! The ordinary test runs each attack for a moment and asks only that the visitor is served and that what the attack took comes
//! back. `SNICKET_SIEGE_SECONDS=4 cargo test -p snicket --release --test hostile siege -- --nocapture` runs each three times
//! for that long, each time after as long a time in peace, and writes `docs/hostile.md`.
//!
//! In the whole form the edge has half of the cores for itself, as it has a machine in truth, and everybody else the others. Who attacks
//! runs only where nobody else wants to, and so do the agent and the origin that it attacks, which are on other machines in truth: what
//! the victim feels is then what the edge does, and not that all of them share a core. The victim, its agent and its origin are on other
//! machines as well, where nobody keeps them from a core: they come first here.

mod attacks;
mod report;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{Agent, DatagramOrigin, Edge, LIMIT, Origin, Process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use attacks::{ATTACKS, Attack, CROWDS};
use report::{Levels, Row, table};

/// The length of each attack in seconds, for the whole form.
const SECONDS: &str = "SNICKET_SIEGE_SECONDS";
/// What a program that attacks is told: the attack and its targets.
const ATTACK: &str = "SNICKET_SIEGE_ATTACK";
/// Parts of the names of the attacks to make, with commas between them; all, if it is not set.
const ONLY: &str = "SNICKET_SIEGE_ONLY";
/// Set for the program that is the origin of the attacked.
const ORIGIN: &str = "SNICKET_SIEGE_ORIGIN";
/// What that one says before it tells where it is.
const ORIGIN_AT: &str = "the origin is at ";
/// How often each attack is made in the whole form; the medians are told.
const ROUNDS: usize = 3;
/// How long each crowd stays that comes before the siege.
const CROWDED: Duration = Duration::from_secs(8);
/// How long after a crowd or an attacker it is calm.
const MINUTE: Duration = Duration::from_secs(60);

/// Of each attack in the short form.
const SHORT: Duration = Duration::from_millis(1500);
/// What the short form allows the allocator to keep, since it does not wait for it: less than any leak of a flood.
const SHORT_SLACK_KIB: u64 = 256 * 1024;
/// Where the victim is.
const VICTIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Between two requests of the victim.
const PACE: Duration = Duration::from_millis(20);
/// How long what an attack took may take to come back: as long as the longest time-out of an idle connection, and what a
/// busy machine adds.
const RECOVERY: Duration = Duration::from_secs(90);
/// A datagram that is not answered is said again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// A request that takes longer has failed.
const LATE: Duration = Duration::from_secs(30);

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// In memory, without the pages of the program's own file.
    pub(crate) kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) tasks: u64,
}

impl Usage {
    async fn of(edge: &Edge) -> Self {
        let process = edge.process.id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
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

/// What a victim asks.
#[derive(Debug, Clone)]
enum Way {
    /// A site, each time on a connection of its own.
    Site(SocketAddr, String),
    /// A public port of UDP, each time from a socket of its own.
    Port(SocketAddr),
}

impl Way {
    async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Site(address, host) => ask(*address, host).await,
            Self::Port(address) => say(*address).await,
        }
    }
}

/// A visitor who asks at a steady pace until the time is over.
async fn victim(way: &Way, time: Duration) -> Served {
    let until = Instant::now() + time;
    let mut pace = interval(PACE);
    let mut asking = JoinSet::new();
    while Instant::now() < until {
        pace.tick().await;
        let way = way.clone();
        asking.spawn(async move {
            let started = Instant::now();
            let answer = tokio::time::timeout(LATE, way.ask()).await;
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

/// Says something until there is an answer, as visitors of UDP do.
async fn say(port: SocketAddr) -> Result<(), String> {
    let socket = UdpSocket::bind((VICTIM, 0)).await.map_err(|error| error.to_string())?;
    socket.connect(port).await.map_err(|error| error.to_string())?;
    loop {
        let _ = socket.send(b"hello").await;
        let mut answer = [0; 100];
        if let Ok(Ok(length)) = tokio::time::timeout(AGAIN, socket.recv(&mut answer)).await {
            let good = &answer[..length] == b"hello";
            return if good { Ok(()) } else { Err(format!("{:?}", &answer[..length])) };
        }
    }
}

async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(address).await
}

async fn ask(address: SocketAddr, host: &str) -> Result<(), String> {
    let mut stream = connect_from(VICTIM, address).await.map_err(|error| error.to_string())?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    let good = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello from the origin");
    if good { Ok(()) } else { Err(answer) }
}

/// This program again with this variable, up to a word that it says, and then only where nobody else wants to run; answers what it said.
async fn lowest(variable: &str, value: &str, word: &str) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "siege::the_edge_stands_under_siege", "--nocapture", "--test-threads", "1"])
        .env(variable, value)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs already");
    let said = child.stdout.as_mut().expect("it is piped");
    let begun = tokio::time::timeout(LIMIT, async {
        let (mut text, mut piece) = (String::new(), [0; 4096]);
        while !text.contains(word) || !text.ends_with('\n') {
            let read = said.read(&mut piece).await.unwrap();
            assert!(read > 0, "{variable} {value} did not begin: {text}");
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        text
    });
    let text = begun.await.expect("the program starts");
    // Not sooner: with other tests beside it, it might never begin.
    assert!(schedule(child.id().expect("it runs"), IDLE).await.success());
    (child, text)
}

/// Starts the attack.
async fn attacker(attack: &Attack, camp: &Camp) -> Child {
    let edge = &camp.edge;
    let own = if attack.is_from_within() { camp.quick_tunnel().await } else { Value::Null };
    let told = json!({
        "attack": attack.name,
        "own": own,
        "http": edge.http().to_string(),
        "https": edge.https().to_string(),
        "tunnel": edge.tunnel().to_string(),
        "api": edge.api().to_string(),
        "port": camp.attacked_port.port().to_string(),
        "host": camp.attacked.host(),
        "ca": edge.ca().display().to_string(),
    });
    lowest(ATTACK, &told.to_string(), attacks::BEGINS).await.0
}

/// Has every thread of a process run only where nobody else wants to.
async fn yields(process: &Process) {
    assert!(schedule(process.id(), IDLE).await.success());
}

/// Has every thread of a process run as soon as it has something to do, if this system lets us.
async fn precedes(process: u32) {
    if !schedule(process, ["--rr", "--pid", "1"]).await.success() {
        eprintln!("the victim shares the cores with everybody else: only root may put it first");
    }
}

/// Only where nobody else wants to.
const IDLE: [&str; 3] = ["--idle", "--pid", "0"];

async fn schedule(process: u32, how: [&str; 3]) -> std::process::ExitStatus {
    let process = process.to_string();
    let command = Command::new("chrt").arg("--all-tasks").args(how).arg(process).stderr(Stdio::null()).status().await;
    command.expect("chrt is wherever Linux has its usual tools")
}

/// The cores of the edge and those of everybody else, where there are enough, as lists for taskset(1).
fn halves() -> Option<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let half = cores / 2;
    (half > 0).then(|| (format!("0-{}", half - 1), format!("{half}-{}", cores - 1)))
}

/// Has every thread of this process, and whatever it starts from now on, run on these cores alone.
async fn keeps_to(cores: &str) {
    let process = std::process::id().to_string();
    let mut command = Command::new("taskset");
    command.args(["--all-tasks", "--pid", "--cpu-list", cores, &process]).stdout(Stdio::null());
    let status = command.status().await.expect("taskset is wherever Linux has its usual tools");
    assert!(status.success(), "{status}");
}

/// Seconds of all cores that a process has used.
fn cpu_seconds(process: &Process) -> f64 {
    /// Of the kernel's clock, on every machine that Linux runs on.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields = stat.rsplit_once(") ").expect("the name is in parentheses").1.split(' ');
    // Time in the program and time in the kernel for it are fields 14 and 15 (proc_pid_stat(5)).
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
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

/// Everybody in place, before the siege.
struct Camp {
    edge: Edge,
    victims: Agent,
    attacked: Agent,
    victims_port: Agent,
    attacked_port: Agent,
    _victims_origin: Origin,
    _attacked_origin: Child,
    _ports_origins: [DatagramOrigin; 2],
}

impl Camp {
    /// The edge alone on half of the cores, or everybody everywhere.
    async fn pitch(alone: bool) -> Self {
        let origin = Origin::start().await;
        let (attacked_origin, said) = lowest(ORIGIN, "1", ORIGIN_AT).await;
        let service = said.split(ORIGIN_AT).nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let cores = if alone { halves() } else { None };
        if let Some((edges, _)) = &cores {
            // Who starts with one core has one thread for it.
            keeps_to(edges).await;
        }
        let edge = Edge::start_with(&["--loglevel", "warn"]).await;
        if let Some((_, others)) = &cores {
            keeps_to(others).await;
        }
        let victims = Agent::start(&edge, &origin.service(), &["--protocol", "quic"]).await;
        let attacked = Agent::start(&edge, service, &["--protocol", "http2"]).await;
        // Flows that are not gone when the attack is are no leak.
        let port = async |name, origin: &DatagramOrigin| {
            let origin = origin.address().to_string();
            Agent::udp(&edge, &origin, &["--name", name, "--idle-timeout", "2s", "--protocol", "quic"]).await
        };
        let _ports_origins = [DatagramOrigin::start().await, DatagramOrigin::start().await];
        let victims_port = port("victims", &_ports_origins[0]).await;
        let attacked_port = port("attacked", &_ports_origins[1]).await;
        yields(&attacked.process).await;
        yields(&attacked_port.process).await;
        precedes(victims.process.id()).await;
        precedes(victims_port.process.id()).await;
        // The victim and its origin.
        precedes(std::process::id()).await;
        let (_victims_origin, _attacked_origin) = (origin, attacked_origin);
        Self { edge, victims, attacked, victims_port, attacked_port, _victims_origin, _attacked_origin, _ports_origins }
    }

    /// For an attacker from within.
    async fn quick_tunnel(&self) -> Value {
        let (status, answer) = self.edge.call("POST", "/tunnel", Some(json!({}))).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    }

    fn site(&self) -> Way {
        Way::Site(self.edge.http(), self.victims.host())
    }

    /// One attack, so many times.
    async fn stand(
        &self,
        attack: &'static Attack,
        time: Duration,
        rounds: usize,
        before: Usage,
        slack_kib: u64,
    ) -> Row {
        let edge = &self.edge;
        let way = if attack.is_upon_ports() { Way::Port(self.victims_port.port()) } else { self.site() };
        let counted = defences(edge).await;
        let mut row = Row::new(attack.what, before);
        for _ in 0..rounds {
            // The short form compares nothing.
            let idle = if rounds > 1 { victim(&way, time).await } else { Served::default() };
            let mut attacker = attacker(attack, self).await;
            let (used, since) = (cpu_seconds(&edge.process), Instant::now());
            let served = victim(&way, time).await;
            let cores = (cpu_seconds(&edge.process) - used) / since.elapsed().as_secs_f64();
            let peak = Usage::of(edge).await;
            assert!(attacker.try_wait().unwrap().is_none(), "{} has ended by itself", attack.what);
            let _ = attacker.kill().await;
            row.round(idle, served, cores, peak);
            // The memory may take longer: the next round needs room, not order.
            recovery(edge, &before, u64::MAX / 4).await;
        }
        (row.after, row.recovered) = recovery(edge, &before, slack_kib).await;
        let now = defences(edge).await;
        let reasons = now.into_iter().filter(|(reason, count)| {
            counted.iter().find(|(known, _)| known == reason).map_or(0, |(_, before)| *before) < *count
        });
        row.reasons = reasons.map(|(reason, _)| reason).collect();
        row
    }

    /// As many honest visitors as an attacker has connections come, are served and leave, over one protocol after the other. What
    /// stays of them a minute later is what a node needs that has served crowds.
    async fn crowds(&self) {
        for crowd in &CROWDS {
            let mut visitors = attacker(crowd, self).await;
            sleep(CROWDED).await;
            let _ = visitors.kill().await;
            sleep(MINUTE).await;
            eprintln!("after {}: {:?}", crowd.what, Usage::of(&self.edge).await);
        }
    }
}

async fn siege(time: Duration, rounds: usize) -> (Levels, Vec<Row>) {
    let camp = Camp::pitch(rounds > 1).await;
    // Fills pools and caches, which stay.
    victim(&camp.site(), time).await;
    let cold = Usage::of(&camp.edge).await;
    let only = std::env::var(ONLY).unwrap_or_default();
    // Whoever wants some attacks wants to know what the victim feels, and not what stays.
    let is_whole = rounds > 1 && only.is_empty();
    if is_whole {
        camp.crowds().await;
    }
    let warm = Usage::of(&camp.edge).await;
    let slack_kib = if is_whole { report::SLACK_KIB } else { SHORT_SLACK_KIB };
    let mut rows = Vec::new();
    for attack in ATTACKS.iter().filter(|attack| only.split(',').any(|part| attack.name.contains(part))) {
        let row = camp.stand(attack, time, rounds, warm, slack_kib).await;
        eprintln!("{}", row.line());
        rows.push(row);
    }
    if is_whole {
        sleep(MINUTE).await;
    }
    let end = Usage::of(&camp.edge).await;
    let agents = [&camp.victims, &camp.attacked, &camp.victims_port, &camp.attacked_port];
    for process in agents.map(|agent| &agent.process).into_iter().chain([&camp.edge.process]) {
        assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
    }
    (Levels { cold, warm, end }, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_stands_under_siege() {
    if let Ok(told) = std::env::var(ATTACK) {
        let told: Value = serde_json::from_str(&told).unwrap();
        attacks::attack(&told).await;
        return;
    }
    if std::env::var_os(ORIGIN).is_some() {
        let origin = Origin::start().await;
        println!("{ORIGIN_AT}{}", origin.service());
        return std::future::pending().await;
    }
    let whole = std::env::var(SECONDS).ok().map(|text| Duration::from_secs(text.parse().expect("a number of seconds")));
    // Before anybody keeps to some of them.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (levels, rows) = match whole {
        Some(time) => siege(time, ROUNDS).await,
        None => siege(SHORT, 1).await,
    };
    let text = table(levels, &rows, whole, cores);
    println!("{text}");
    if whole.is_some() && std::env::var_os(ONLY).is_none() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hostile.md");
        std::fs::write(path, text).unwrap();
    }
    for row in rows {
        assert!(row.failures.is_empty(), "{}: {:?}", row.what, &row.failures[..1]);
        assert!(row.recovered.is_some(), "{}: {:?}, then {:?}", row.what, row.before, row.after);
    }
}
