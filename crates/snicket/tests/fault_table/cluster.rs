//! Three nodes on three members of etcd, each on a host of its own, and what of them can break.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Edge, Etcd, Host, LIMIT, Network, Origin, Process, Program, until};
use tempfile::TempDir;
use tokio::time::sleep_until;

use crate::load::{self, Door};
use crate::report::Row;
use crate::rig::sum;

/// Nodes, and members of etcd.
const COUNT: u8 = 3;
/// The name that the tunnel serves.
const NAME: &str = "table.localhost";

/// Something that goes wrong among several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node, as by a power failure.
    NodeKilled,
    /// The cable of a node, for longer than its lease.
    NodeCutOff,
    /// The member of etcd that leads.
    LeaderKilled,
    /// Two members of three.
    MajorityKilled,
}

/// What the table has a line of.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) fault: Fault,
    /// How long the fault lasts at most, in the whole form.
    lasts: Duration,
    note: &'static str,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        what: "three nodes: one killed (-9), started again after 5 s",
        fault: Fault::NodeKilled,
        lasts: Duration::from_secs(5),
        note: "Visitors know all three, and go to the next where nobody opens; GETs also where nobody answers. What was under way at the \
            killed node ends with it.",
    },
    Case {
        what: "three nodes: one cut off for 20 s, longer than its lease",
        fault: Fault::NodeCutOff,
        lasts: Duration::from_secs(20),
        note: "Visitors give an address 2 s. Whoever was at that node waits until its cable is back, or gives up. Then it refuses \
            visitors (530) until the agent has dialled it again.",
    },
    Case {
        what: "three nodes: the leader of three members of etcd killed for 10 s",
        fault: Fault::LeaderKilled,
        lasts: Duration::from_secs(10),
        note: "Requests need no etcd.",
    },
    Case {
        what: "three nodes: two of three members of etcd killed for 15 s",
        fault: Fault::MajorityKilled,
        lasts: Duration::from_secs(15),
        note: "As above. Changes are refused meanwhile, with 503 and the reason, and taken again afterwards.",
    },
];

/// The nodes, and the etcd that they share.
pub(crate) struct Nodes {
    pub(crate) edges: Vec<Edge>,
    hosts: Vec<Arc<Host>>,
    etcd: Etcd,
    /// Of etcd's members, whose networks live as long.
    _members: Vec<Host>,
    /// What the processes have their files in.
    homes: TempDir,
    /// The authorities of all nodes, for agents.
    trusted: String,
}

impl Nodes {
    /// Each node on a host of its own, with these words on its command line besides; `None`: etcd is not here, which has been said.
    pub(crate) async fn start(hosts: Vec<Host>, members: Vec<Host>, words: &[&str]) -> Option<Self> {
        let etcd = Etcd::start_on(&members).await?;
        let homes = tempfile::tempdir().unwrap();
        let key = homes.path().join("registry.key").display().to_string();
        let registry = format!("etcd://{}/snicket", etcd.addresses());
        let tls = etcd.certificates().expect("it has TLS");
        let file = |name: &str, text: &str| {
            let file = homes.path().join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        };
        let (ca, cert) = (file("etcd-ca.pem", &tls.ca), file("etcd.pem", &tls.certificate));
        let cert_key = file("etcd.key", &tls.key);
        let hosts: Vec<_> = hosts.into_iter().map(Arc::new).collect();
        let mut edges = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let place = format!("place-{number}");
            let usual = ["--registry", &registry, "--secrets-key", &key, "--location", &place, "--loglevel", "warn"];
            let tls = ["--registry-ca", &ca, "--registry-cert", &cert, "--registry-key", &cert_key];
            let words = [&usual[..], &tls, words].concat();
            edges.push(Edge::start_on(host.clone(), tempfile::tempdir_in(homes.path()).unwrap(), &words).await);
        }
        let cas: String = edges.iter().map(|node| std::fs::read_to_string(node.ca()).unwrap()).collect();
        let trusted = file("cas.pem", &cas);
        Some(Self { edges, hosts, etcd, _members: members, homes, trusted })
    }

    /// An agent on this host that is connected to all nodes.
    pub(crate) async fn agent(&self, host: &Host, transport: &str, token: &str, service: &str) -> Process {
        let edges: Vec<String> = self.edges.iter().map(|node| node.tunnel().to_string()).collect();
        let mut words = vec!["tunnel", "--cacert", &self.trusted, "--metrics", "127.0.0.1:0", "--json"];
        words.extend(edges.iter().flat_map(|edge| ["--edge", edge]));
        words.extend(["--loglevel", "warn", "run", "--token-file", token, "--protocol", transport, "--url", service]);
        let mut agent = Program::on(host, self.homes.path(), &words).start().await;
        agent.event("ready").await;
        agent
    }

    pub(crate) fn doors(&self, name: &str) -> Vec<Door> {
        self.edges.iter().map(|node| Door::of(node, name)).collect()
    }

    /// Waits until each node serves the name.
    pub(crate) async fn all_serve(&self, name: &str) {
        for node in &self.edges {
            let url = format!("http://{name}:{}/echo", node.http().port());
            until(2 * LIMIT, "the node serves", async || node.visitor().get(&url).await.status == 200).await;
        }
    }

    /// Requests that the nodes which run have sent again since they started.
    pub(crate) fn retries(&self) -> u64 {
        (0..self.edges.len()).map(|node| self.retries_at(node)).sum()
    }

    pub(crate) fn retries_at(&self, node: usize) -> u64 {
        self.counter(node).read()
    }

    /// What counts the requests that each node sends again.
    pub(crate) fn counters(&self) -> Vec<Counter> {
        (0..self.edges.len()).map(|node| self.counter(node)).collect()
    }

    fn counter(&self, node: usize) -> Counter {
        // The API is the host's own.
        let (program, words) = self.hosts[node].within();
        let url = format!("http://{}/metrics", self.edges[node].api());
        Counter { program, words: [words, vec!["curl".to_owned(), "--silent".to_owned(), url]].concat() }
    }

    /// Ends these processes and the nodes; nobody has panicked.
    pub(crate) async fn end<'a>(&'a mut self, others: impl Iterator<Item = &'a mut Process>) {
        for process in self.edges.iter_mut().map(|node| &mut node.process).chain(others) {
            process.kill().await;
            assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
        }
    }
}

/// Counts the requests that a node sends again.
pub(crate) struct Counter {
    program: &'static str,
    words: Vec<String>,
}

impl Counter {
    /// Since the node started; 0 while it does not run.
    pub(crate) fn read(&self) -> u64 {
        let output = Command::new(self.program).args(&self.words).output().unwrap();
        sum(&String::from_utf8_lossy(&output.stdout), "snicket_edge_retries_total")
    }
}

/// One row's world.
struct Cluster {
    nodes: Nodes,
    /// Members of etcd that the fault has killed.
    killed: Vec<usize>,
    agent: Process,
    /// The agent's.
    _host: Host,
    _origin: Origin,
}

impl Cluster {
    /// A tunnel made on the first node serves on all.
    async fn start(network: &Network, transport: &str) -> Option<Self> {
        let mut hosts = network.hosts(2 * COUNT + 1);
        let host = hosts.pop().expect("one more was made");
        let members = hosts.split_off(usize::from(COUNT));
        let nodes = Nodes::start(hosts, members, &[]).await?;
        let token = nodes.edges[0].named_tunnel("table", NAME).await.display().to_string();
        let origin = Origin::start_on((Host::SWITCH, 0).into()).await;
        let agent = nodes.agent(&host, transport, &token, &origin.service()).await;
        nodes.all_serve(NAME).await;
        Some(Self { nodes, killed: Vec::new(), agent, _host: host, _origin: origin })
    }

    /// Whether this node takes a change; otherwise what it says.
    async fn create(&self, node: usize, name: &str) -> Result<(), String> {
        let (code, out, error) = self.nodes.edges[node].command(&["tunnel", "create", "--json", name]).await;
        if code == 0 { Ok(()) } else { Err(format!("{out}{error}")) }
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::NodeKilled => self.nodes.edges[0].kill().await,
            Fault::NodeCutOff => self.nodes.hosts[0].cut(),
            Fault::LeaderKilled => {
                self.killed = vec![self.nodes.etcd.leader().await];
                self.nodes.etcd.kill(self.killed[0]).await;
            }
            Fault::MajorityKilled => {
                self.killed = vec![0, 1];
                for member in [0, 1] {
                    self.nodes.etcd.kill(member).await;
                }
                let refused = self.create(2, "meanwhile").await.expect_err("nobody can keep it");
                assert!(refused.contains("etcd"), "{refused}");
            }
        }
    }

    async fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::NodeKilled => self.nodes.edges[0].start_again().await,
            Fault::NodeCutOff => self.nodes.hosts[0].mend(),
            Fault::LeaderKilled | Fault::MajorityKilled => self.nodes.etcd.start_these_again(&self.killed).await,
        }
    }

    /// Changes are taken by each node and known to all, and all serve: nothing is left of the fault.
    async fn is_whole(&self) {
        self.nodes.all_serve(NAME).await;
        for number in 0..self.nodes.edges.len() {
            let name = format!("after-{number}");
            let lists = async |node: &Edge| node.said(&["tunnel", "list", "--json"]).await.contains(&name);
            // What had no certain end may have been done, and is not done twice.
            let taken = async || self.create(number, &name).await.is_ok() || lists(&self.nodes.edges[number]).await;
            until(2 * LIMIT, "a change is taken", taken).await;
            for node in &self.nodes.edges {
                until(LIMIT, "all nodes know it", async || lists(node).await).await;
            }
        }
    }
}

/// One line of the table; `None`: not possible here, which has been said.
pub(crate) async fn row(network: &Network, case: &Case, transport: &'static str, time: Duration) -> Option<Row> {
    let mut cluster = Cluster::start(network, transport).await?;
    let began = Instant::now();
    let over = began + time;
    let load = tokio::spawn(load::load(cluster.nodes.doors(NAME), time));
    sleep_until((began + time / 5).into()).await;
    // The counters of a node that is killed go with it.
    let mut retried = if case.fault == Fault::NodeKilled { cluster.nodes.retries_at(0) } else { 0 };
    let struck = Instant::now();
    cluster.strike(case.fault).await;
    sleep_until((struck + case.lasts.min(time * 3 / 5)).into()).await;
    cluster.mend(case.fault).await;
    let mended = Instant::now();
    let visits = load.await.unwrap();
    retried += cluster.nodes.retries();
    cluster.is_whole().await;
    cluster.nodes.end([&mut cluster.agent].into_iter()).await;
    network.no_hosts();
    Some(Row { what: case.what, transport, note: case.note, visits, retried, began, over, mended })
}
