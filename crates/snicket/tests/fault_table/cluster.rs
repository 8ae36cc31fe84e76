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

/// One row's world.
struct Cluster {
    nodes: Vec<Edge>,
    hosts: Vec<Arc<Host>>,
    etcd: Etcd,
    /// Members of it that the fault has killed.
    killed: Vec<usize>,
    agent: Process,
    /// The agent's.
    _host: Host,
    /// Of etcd's members, whose networks live as long.
    _members: Vec<Host>,
    // What the processes have their files in.
    _homes: TempDir,
    _origin: Origin,
}

impl Cluster {
    /// A tunnel made on the first node serves on all.
    async fn start(network: &Network, transport: &str) -> Option<Self> {
        let mut hosts = network.hosts(2 * COUNT + 1);
        let agents_host = hosts.pop().expect("one more was made");
        let members = hosts.split_off(usize::from(COUNT));
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
        let mut nodes = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let place = format!("place-{number}");
            let words = ["--registry", &registry, "--secrets-key", &key, "--location", &place, "--loglevel", "warn"];
            let words =
                [&words[..], &["--registry-ca", &ca, "--registry-cert", &cert, "--registry-key", &cert_key]].concat();
            nodes.push(Edge::start_on(host.clone(), tempfile::tempdir_in(homes.path()).unwrap(), &words).await);
        }
        let token = nodes[0].named_tunnel("table", NAME).await.display().to_string();
        let origin = Origin::start_on((Host::SWITCH, 0).into()).await;
        let cas: String = nodes.iter().map(|node| std::fs::read_to_string(node.ca()).unwrap()).collect();
        let trusted = file("cas.pem", &cas);
        let edges: Vec<String> = nodes.iter().map(|node| node.tunnel().to_string()).collect();
        let mut words = vec!["tunnel", "--cacert", &trusted, "--metrics", "127.0.0.1:0", "--json"];
        words.extend(edges.iter().flat_map(|edge| ["--edge", edge]));
        words.extend(["--loglevel", "warn", "run", "--token-file", &token, "--protocol", transport]);
        let service = origin.service();
        words.extend(["--url", &service]);
        let mut agent = Program::on(&agents_host, homes.path(), &words).start().await;
        agent.event("ready").await;
        let cluster = Self {
            nodes,
            hosts,
            etcd,
            killed: Vec::new(),
            agent,
            _host: agents_host,
            _members: members,
            _homes: homes,
            _origin: origin,
        };
        cluster.all_serve().await;
        Some(cluster)
    }

    fn doors(&self) -> Vec<Door> {
        self.nodes.iter().map(|node| Door::of(node, NAME)).collect()
    }

    /// Waits until each node serves the name.
    async fn all_serve(&self) {
        for node in &self.nodes {
            let url = format!("http://{NAME}:{}/echo", node.http().port());
            until(2 * LIMIT, "the node serves", async || node.visitor().get(&url).await.status == 200).await;
        }
    }

    /// Requests that the nodes which run have sent again since they started.
    fn retries(&self) -> u64 {
        (0..self.nodes.len()).map(|node| self.retries_at(node)).sum()
    }

    fn retries_at(&self, node: usize) -> u64 {
        // The API is the host's own.
        let (program, words) = self.hosts[node].within();
        let url = format!("http://{}/metrics", self.nodes[node].api());
        let output = Command::new(program).args(words).args(["curl", "--silent", &url]).output().unwrap();
        sum(&String::from_utf8_lossy(&output.stdout), "snicket_edge_retries_total")
    }

    /// Whether this node takes a change; otherwise what it says.
    async fn create(&self, node: usize, name: &str) -> Result<(), String> {
        let (code, out, error) = self.nodes[node].command(&["tunnel", "create", "--json", name]).await;
        if code == 0 { Ok(()) } else { Err(format!("{out}{error}")) }
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::NodeKilled => self.nodes[0].kill().await,
            Fault::NodeCutOff => self.hosts[0].cut(),
            Fault::LeaderKilled => {
                self.killed = vec![self.etcd.leader().await];
                self.etcd.kill(self.killed[0]).await;
            }
            Fault::MajorityKilled => {
                self.killed = vec![0, 1];
                for member in [0, 1] {
                    self.etcd.kill(member).await;
                }
                let refused = self.create(2, "meanwhile").await.expect_err("nobody can keep it");
                assert!(refused.contains("etcd"), "{refused}");
            }
        }
    }

    async fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::NodeKilled => self.nodes[0].start_again().await,
            Fault::NodeCutOff => self.hosts[0].mend(),
            Fault::LeaderKilled | Fault::MajorityKilled => self.etcd.start_these_again(&self.killed).await,
        }
    }

    /// Changes are taken by each node and known to all, and all serve: nothing is left of the fault.
    async fn is_whole(&self) {
        self.all_serve().await;
        for number in 0..self.nodes.len() {
            let name = format!("after-{number}");
            until(2 * LIMIT, "a change is taken", async || self.create(number, &name).await.is_ok()).await;
            for node in &self.nodes {
                let listed = async || node.said(&["tunnel", "list", "--json"]).await.contains(&name);
                until(LIMIT, "all nodes know it", listed).await;
            }
        }
    }
}

/// One line of the table; `None`: not possible here, which has been said.
pub(crate) async fn row(network: &Network, case: &Case, transport: &'static str, time: Duration) -> Option<Row> {
    let mut cluster = Cluster::start(network, transport).await?;
    let began = Instant::now();
    let over = began + time;
    let load = tokio::spawn(load::load(cluster.doors(), time));
    sleep_until((began + time / 5).into()).await;
    // The counters of a node that is killed go with it.
    let mut retried = if case.fault == Fault::NodeKilled { cluster.retries_at(0) } else { 0 };
    let struck = Instant::now();
    cluster.strike(case.fault).await;
    sleep_until((struck + case.lasts.min(time * 3 / 5)).into()).await;
    cluster.mend(case.fault).await;
    let mended = Instant::now();
    let visits = load.await.unwrap();
    retried += cluster.retries();
    cluster.is_whole().await;
    for process in cluster.nodes.iter_mut().map(|node| &mut node.process).chain([&mut cluster.agent]) {
        process.kill().await;
        assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
    }
    network.no_hosts();
    Some(Row { what: case.what, transport, note: case.note, visits, retried, began, over, mended })
}
