//! 330 nodes, the agents that are connected to them, and what happens to both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng as _, SeedableRng as _};
use registry::engine::State;
use registry::{ConnectionRecord, NodeAddresses, NodeRecord, Presence, Registry};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::engine::{Pop, Store};

/// As many places as the largest networks of that kind have, one node in each.
pub(crate) const NODES: usize = 330;
/// Of each agent: two to each of two nodes.
pub(crate) const CONNECTIONS: usize = 4;
/// How long a connection lasts on average: agents are restarted, and networks change.
pub(crate) const LIFE: Duration = Duration::from_secs(6 * 60 * 60);
/// An agent has a new connection so long after the end of one.
const BACK: Duration = Duration::from_secs(1);
/// An agent notices so late at most that a node is gone without a word.
const NOTICED: Duration = Duration::from_secs(10);

/// What agents of this version announce.
const FEATURES: [&str; 12] = [
    "allow_remote_config",
    "serialized_headers",
    "support_datagram_v2",
    "support_quic_eof",
    "management_logs",
    "snicket_interim",
    "snicket_trailers",
    "snicket_faults",
    "snicket_fields",
    "snicket_services",
    "snicket_flows",
    "snicket_origin_ca",
];

pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    nodes: Vec<Node>,
    agents: Vec<Agent>,
    random: StdRng,
}

struct Node {
    engine: Arc<Pop>,
    registry: Registry,
}

struct Agent {
    tunnel: Uuid,
    connector: Uuid,
    connections: Vec<(usize, Presence)>,
}

impl World {
    /// Nodes that see only `founded`, and nobody connected.
    pub(crate) async fn new(store: &Arc<Store>, founded: &State, tunnels: Vec<Uuid>) -> Self {
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let engine = Pop::new(store, Some(founded.clone()));
            let registry = Registry::open(Arc::clone(&engine), Timestamp::now()).await.unwrap();
            join(&registry, number);
            nodes.push(Node { engine, registry });
        }
        let agent = |tunnel| Agent { tunnel, connector: Uuid::new_v4(), connections: Vec::new() };
        let agents = tunnels.into_iter().map(agent).collect();
        Self { store: Arc::clone(store), nodes, agents, random: StdRng::seed_from_u64(1) }
    }

    /// Every agent connects, at any moment of this time.
    pub(crate) async fn connect_all(&mut self, time: Duration) {
        let start = Instant::now();
        for number in 0..self.agents.len() {
            sleep_until(start + time.mul_f64(number as f64 / self.agents.len() as f64)).await;
            let nodes = sample(&mut self.random, NODES, 2);
            for index in 0..CONNECTIONS {
                self.connect(number, nodes.index(index % 2), index);
            }
        }
        settle().await;
    }

    fn connect(&mut self, agent: usize, node: usize, index: usize) {
        let agent = &mut self.agents[agent];
        let record = connection(agent.tunnel, agent.connector, index);
        agent.connections.push((node, self.nodes[node].registry.connect(record)));
    }

    /// Connections end, and others come for them, as they do all the time.
    pub(crate) async fn live(&mut self, time: Duration) {
        let each = LIFE / u32::try_from(self.agents.len() * CONNECTIONS).unwrap();
        let start = Instant::now();
        let mut at = Duration::ZERO;
        let mut away = VecDeque::<(Duration, usize, usize, usize)>::new();
        while at < time {
            at += each;
            sleep_until(start + at).await;
            while away.front().is_some_and(|(since, ..)| *since + BACK <= at) {
                let (_, agent, node, index) = away.pop_front().expect("it was there just now");
                self.connect(agent, node, index);
            }
            let agent = self.random.random_range(0..self.agents.len());
            if self.agents[agent].connections.is_empty() {
                continue;
            }
            let index = self.random.random_range(0..self.agents[agent].connections.len());
            let (node, presence) = self.agents[agent].connections.swap_remove(index);
            drop(presence);
            away.push_back((at, agent, node, index));
        }
        for (_, agent, node, index) in away {
            self.connect(agent, node, index);
        }
        settle().await;
    }

    /// A node says goodbye, and is there again after this time; so are its agents. Answers how many connections it had.
    pub(crate) async fn restart_node(&mut self, time: Duration) -> usize {
        let node = 0;
        self.nodes[node].registry.leave().await;
        let gone = self.disconnect(node);
        tokio::time::sleep(time).await;
        join(&self.nodes[node].registry, node);
        for (agent, index) in &gone {
            self.connect(*agent, node, *index);
        }
        settle().await;
        gone.len()
    }

    /// A node loses its power for good, and its agents go elsewhere.
    pub(crate) async fn kill_node(&mut self) -> usize {
        let node = 1;
        self.nodes[node].engine.kill();
        let gone = self.disconnect(node);
        for (agent, index) in &gone {
            tokio::time::sleep(NOTICED / u32::try_from(gone.len()).unwrap()).await;
            let elsewhere = (node + 1 + self.random.random_range(0..NODES - 2)) % NODES;
            self.connect(*agent, elsewhere, *index);
        }
        // Longer than its lease.
        tokio::time::sleep(Duration::from_secs(30)).await;
        gone.len()
    }

    fn disconnect(&mut self, node: usize) -> Vec<(usize, usize)> {
        let mut gone = Vec::new();
        for (number, agent) in self.agents.iter_mut().enumerate() {
            let before = agent.connections.len();
            agent.connections.retain(|(there, _)| *there != node);
            gone.extend((0..before - agent.connections.len()).map(|index| (number, index)));
        }
        gone
    }

    /// The connections of one agent have a configuration of this version.
    pub(crate) async fn configure(&self, agent: usize, version: i32) {
        for (_, presence) in &self.agents[agent].connections {
            presence.set_config_version(version);
        }
        settle().await;
    }
}

/// Longer than nodes gather what they have to tell.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

pub(crate) fn join(registry: &Registry, number: usize) {
    let address = ([192, 0, 2, 10], 443).into();
    registry.join(NodeRecord {
        id: registry.node(),
        name: format!("edge-{number}"),
        location: format!("pop{number:03}"),
        region: None,
        addresses: NodeAddresses { http: address, https: address, tunnel: vec![address], api: address, dns: None },
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: Timestamp::now(),
    });
}

pub(crate) fn connection(tunnel: Uuid, connector: Uuid, index: usize) -> ConnectionRecord {
    ConnectionRecord {
        tunnel,
        connector,
        id: Uuid::new_v4(),
        index: u8::try_from(index).unwrap(),
        transport: "quic".into(),
        location: "pop001".into(),
        origin_ip: [198, 51, 100, 23].into(),
        opened_at: Timestamp::now(),
        features: FEATURES.map(String::from).to_vec().into(),
        version: format!("snicket/{}", env!("CARGO_PKG_VERSION")),
        arch: "linux_amd64".into(),
        config_version: Some(1),
    }
}
