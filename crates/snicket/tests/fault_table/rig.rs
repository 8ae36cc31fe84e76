//! An edge, an origin and agents, and everything about them that can break.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{
    Cable, DatagramOrigin, Edge, LIMIT, Origin, Passing, Process, Program, Relay, Visitor, Weather, skip, until,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::load::Door;

/// Strands of the cable, one for each connection of an agent.
pub(crate) const STRANDS: u8 = 4;
/// Where agents go; nobody else is in this network.
const TUNNEL_PORT: u16 = 7844;
/// What rules know the origin of flows by.
const FLOWS_NAME: &str = "flows.table.test";
/// Of the disk that edge and agents have their files on.
const DISK: &str = "16m";
/// Where Debian's package has it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// An agent, and the home that it is started in again.
struct Connector {
    process: Process,
    home: TempDir,
}

/// What a row's world is to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) agents: usize,
    /// Something between agents and origin that can stall and reset.
    pub(crate) front: bool,
    /// Clocks that can be set.
    pub(crate) odd_clock: bool,
    /// A public port of UDP, and an origin that sends everything back.
    pub(crate) flows: bool,
}

/// One row's world.
pub(crate) struct Rig<'a> {
    pub(crate) edge: Edge,
    pub(crate) cable: &'a Cable,
    host: String,
    transport: &'static str,
    token: PathBuf,
    agents: Vec<Option<Connector>>,
    origin: Option<Origin>,
    origin_address: SocketAddr,
    /// Between agents and origin, where the fault lies there.
    front: Option<Relay>,
    echo: Option<DatagramOrigin>,
    /// Where flows come in.
    pub(crate) port: Option<SocketAddr>,
    disk: Disk,
}

/// A small disk of the rig's own, gone with it.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Self {
        let place = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs", &path(place.path())]);
        Self(place)
    }

    fn home(&self) -> TempDir {
        tempfile::tempdir_in(self.0.path()).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: processes that end only now have files there.
        run("umount", &["-l", &path(self.0.path())]);
    }
}

impl<'a> Rig<'a> {
    /// All connections stand.
    pub(crate) async fn start(cable: &'a Cable, transport: &'static str, needs: Needs) -> Self {
        let Needs { agents, front, odd_clock, flows } = needs;
        cable.everywhere(Weather::default());
        let disk = Disk::mount();
        std::fs::write(disk.0.path().join("clock"), "+0").unwrap();
        let origin = Origin::start().await;
        let front = if front { Some(Relay::start(origin.address(), Passing::All).await) } else { None };
        let listen: Vec<String> = (0..STRANDS).map(|strand| format!("{}:{TUNNEL_PORT}", cable.near(strand))).collect();
        let clock = odd_clock.then(|| disk.0.path().join("clock"));
        let variables = clock.as_deref().map(variables).unwrap_or_default();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let arguments = ["--tunnel", &listen.join(","), "--loglevel", "warn"];
        let edge = Edge::start_at(disk.home(), &arguments, &variables).await;
        let host = "table.localhost".to_owned();
        let token = edge.named_tunnel("table", &host).await;
        let origin_address = origin.address();
        let mut rig = Self {
            edge,
            cable,
            host,
            transport,
            token,
            agents: Vec::new(),
            origin: Some(origin),
            origin_address,
            front,
            echo: if flows { Some(DatagramOrigin::start().await) } else { None },
            port: None,
            disk,
        };
        if flows {
            rig.open_port().await;
        }
        for _ in 0..agents {
            let home = rig.disk.home();
            let agent = rig.agent(home, odd_clock).await;
            rig.agents.push(Some(agent));
        }
        rig.all_connected(agents).await;
        rig
    }

    /// Has a public port lead to the origin of flows.
    async fn open_port(&mut self) {
        let words = ["tunnel", "port", "add", "table", &format!("udp://{FLOWS_NAME}"), "--json"];
        let (code, out, error) = self.edge.command(&words).await;
        assert_eq!(code, 0, "{out}{error}");
        let added: serde_json::Value = serde_json::from_str(&out).unwrap();
        let port = u16::try_from(added["port"].as_u64().unwrap()).unwrap();
        self.port = Some((Ipv4Addr::LOCALHOST, port).into());
    }

    /// Rules for the origin of flows beside the other one.
    fn rules(&self, service: &str, echo: &DatagramOrigin) -> String {
        let rules = format!(
            "ingress:\n  - hostname: {FLOWS_NAME}\n    service: udp://{}\n  - service: {service}\n",
            echo.address()
        );
        let file = self.disk.0.path().join("rules.yml");
        std::fs::write(&file, rules).unwrap();
        path(&file)
    }

    async fn agent(&self, home: TempDir, odd_clock: bool) -> Connector {
        let ca = path(&self.edge.ca());
        let token = path(&self.token);
        let service = self.front.as_ref().map_or(self.origin_address, Relay::address);
        let service = format!("http://{service}");
        let edges: Vec<String> =
            (0..STRANDS).map(|strand| format!("{}:{TUNNEL_PORT}", self.cable.far(strand))).collect();
        let mut words = vec!["tunnel", "--cacert", &ca, "--metrics", "127.0.0.1:0", "--json"];
        words.extend(edges.iter().flat_map(|edge| ["--edge", edge]));
        words.extend(["--loglevel", "warn", "run", "--token-file", &token, "--protocol", self.transport]);
        let rules = self.echo.as_ref().map(|echo| self.rules(&service, echo));
        match &rules {
            Some(rules) => words.extend(["--config", rules]),
            None => words.extend(["--url", &service]),
        }
        let mut program = Program::new(home.path(), &words);
        if odd_clock {
            program = variables(&self.disk.0.path().join("clock"))
                .into_iter()
                .fold(program, |program, (name, value)| program.env(name, value));
        }
        let mut process = program.start().await;
        process.event("ready").await;
        Connector { process, home }
    }

    /// Waits until all connections stand.
    pub(crate) async fn all_connected(&self, agents: usize) {
        let wanted = (agents * usize::from(STRANDS)) as u64;
        until(LIMIT, "all connections stand", async || self.connections().await == wanted).await;
    }

    /// Connections that the edge counts.
    pub(crate) async fn connections(&self) -> u64 {
        sum(&edge_metrics(&self.edge).await, "snicket_edge_tunnel_connections")
    }

    /// Requests that the edge has sent again since it started.
    pub(crate) async fn retries(&self) -> u64 {
        sum(&edge_metrics(&self.edge).await, "snicket_edge_retries_total")
    }

    pub(crate) fn door(&self) -> Door {
        Door::of(&self.edge, &self.host)
    }

    pub(crate) async fn kill_agent(&mut self) {
        let agent = self.agents[0].as_mut().expect("it runs");
        agent.process.kill().await;
    }

    pub(crate) async fn start_agent(&mut self) {
        let Connector { home, .. } = self.agents[0].take().expect("it was killed");
        self.agents[0] = Some(self.agent(home, false).await);
    }

    pub(crate) async fn stop_origin(&mut self) {
        drop(self.origin.take());
        until(LIMIT, "the origin is gone", async || TcpStream::connect(self.origin_address).await.is_err()).await;
    }

    pub(crate) async fn start_origin(&mut self) {
        self.origin = Some(Origin::start_on(self.origin_address).await);
    }

    pub(crate) fn front(&self, passing: Passing) {
        self.front.as_ref().expect("the case asked for it").pass(passing);
    }

    /// Sets the clocks of edge and agents off by so much.
    pub(crate) fn clock(&self, offset: &str) {
        let file = self.disk.0.path().join("clock");
        // In one step, as it is read at every look at the clock.
        std::fs::write(file.with_extension("new"), offset).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    /// Leaves not a byte on the disk.
    pub(crate) fn fill_disk(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.disk.0.path().join("full")).unwrap();
        let piece = [0; 4096];
        while file.write_all(&piece).is_ok() {}
    }

    pub(crate) fn empty_disk(&self) {
        std::fs::remove_file(self.disk.0.path().join("full")).unwrap();
    }

    /// Whether a tunnel can be made: something that is written to the disk.
    pub(crate) async fn can_create(&self, name: &str) -> bool {
        let (code, out, error) = self.edge.command(&["tunnel", "create", "--json", name]).await;
        eprintln!("tunnel create {name}: {code} {out}{error}");
        code == 0
    }

    /// No more descriptors than there are now.
    pub(crate) fn limit_edge(&self) -> String {
        limit(self.edge.process.id())
    }

    pub(crate) fn limit_agent(&self) -> String {
        limit(self.agents[0].as_ref().expect("it runs").process.id())
    }

    pub(crate) fn unlimit_edge(&self, before: &str) {
        set_limit(self.edge.process.id(), before);
    }

    pub(crate) fn unlimit_agent(&self, before: &str) {
        set_limit(self.agents[0].as_ref().expect("it runs").process.id(), before);
    }

    /// Ends everything; nobody has panicked. The next row has the same addresses.
    pub(crate) async fn end(mut self) {
        let agents = self.agents.iter_mut().flatten().map(|agent| &mut agent.process);
        for process in agents.chain([&mut self.edge.process]) {
            process.kill().await;
            assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
        }
    }
}

/// Why clocks cannot be set here, if so; said in one line.
pub(crate) fn can_set_clocks() -> bool {
    let can = Path::new(FAKETIME).is_file();
    if !can {
        skip("libfaketime is not here; apt-get install faketime");
    }
    can
}

/// The wall clock follows the file; what measures durations goes on as it was, as it does when a real clock is set.
fn variables(clock: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", FAKETIME.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", path(clock)),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

async fn edge_metrics(edge: &Edge) -> String {
    Visitor::plain(edge.api()).get("/metrics").await.text()
}

/// A counter or gauge over all of its labels.
pub(crate) fn sum(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
    });
    values.sum()
}

/// Limits a process to the descriptors that it has now; answers the limit that it had.
fn limit(process: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap().to_owned();
    let highest = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    set_limit(process, &highest.to_string());
    soft
}

fn set_limit(process: u32, soft: &str) {
    run("prlimit", &["--pid", &process.to_string(), &format!("--nofile={soft}:")]);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
