use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Activity, ConnectionRecord, Features, LiveKey};
use crate::engine::{Entry, Write};
use crate::{NodeId, NodeRecord, PoolId, PoolReport, Snapshot};

/// What a node tells the others of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Own {
    /// Its connections, by tunnel and connection.
    pub(crate) connections: OrdMap<(Uuid, Uuid), Arc<ConnectionRecord>>,
    /// What it finds out of pools.
    pub(crate) reports: OrdMap<PoolId, Arc<PoolReport>>,
}

/// The live part of a snapshot. What is this node's own is known here first; the rest comes from the engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Live {
    own: Own,
    /// Which node this is, once it has said something of a pool.
    me: Option<NodeId>,
    /// Those to other nodes, by tunnel, node and connection: a node speaks for its own connections only.
    others: OrdMap<(Uuid, NodeId, Uuid), Arc<ConnectionRecord>>,
    /// What other nodes find out of pools.
    reports: OrdMap<(PoolId, NodeId), Arc<PoolReport>>,
    nodes: OrdMap<NodeId, Arc<NodeRecord>>,
    activity: HashMap<Uuid, Activity>,
    /// What agents of other nodes announce: hundreds of thousands of connections have few of these.
    features: HashMap<Features, ()>,
}

/// Kinds of agents whose features are kept once. There is one for each version and transport; whoever makes up more takes the
/// memory of that many connections.
const KINDS: usize = 1_000;

impl Live {
    fn kept_once(&mut self, features: Features) -> Features {
        if let Some((kept, ())) = self.features.get_key_value(&features) {
            return kept.clone();
        }
        if self.features.len() < KINDS {
            self.features.insert(features.clone(), ());
        }
        features
    }

    /// A tunnel is gone for good.
    pub(crate) fn forget(&mut self, tunnel: Uuid) {
        self.activity.remove(&tunnel);
    }
}

impl Snapshot {
    /// The connections that a tunnel has right now, to whatever node.
    pub fn connections(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<ConnectionRecord>> {
        self.own_connections(tunnel).chain(self.connections_elsewhere(tunnel).map(|(_, connection)| connection))
    }

    /// Those to this node.
    pub fn own_connections(&self, tunnel: Uuid) -> impl Iterator<Item = &Arc<ConnectionRecord>> {
        self.live
            .own
            .connections
            .range((tunnel, Uuid::nil())..)
            .take_while(move |((id, _), _)| *id == tunnel)
            .map(|(_, connection)| connection)
    }

    /// Those to other nodes, and to which.
    pub fn connections_elsewhere(&self, tunnel: Uuid) -> impl Iterator<Item = (NodeId, &Arc<ConnectionRecord>)> {
        self.live
            .others
            .range((tunnel, NodeId::from_bytes([0; 16]), Uuid::nil())..)
            .take_while(move |((id, ..), _)| *id == tunnel)
            .map(|((_, node, _), connection)| (*node, connection))
    }

    /// How many connections each node has, of those that have any; `me` is this one.
    pub fn connections_by_node(&self, me: NodeId) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        if !self.live.own.connections.is_empty() {
            counts.insert(me, self.live.own.connections.len());
        }
        for (_, node, _) in self.live.others.keys() {
            *counts.entry(*node).or_default() += 1;
        }
        counts
    }

    /// Whether a tunnel has a connection right now, to whatever node.
    pub fn is_connected(&self, tunnel: Uuid) -> bool {
        self.connections(tunnel).next().is_some()
    }

    /// When a tunnel last had connections; `None` if it had none since this process started.
    pub fn activity(&self, tunnel: Uuid) -> Option<Activity> {
        self.live.activity.get(&tunnel).copied()
    }

    /// What nodes find out of a pool, and which node.
    pub fn health_reports(&self, pool: PoolId) -> impl Iterator<Item = (NodeId, &Arc<PoolReport>)> {
        let own = self.live.me.zip(self.live.own.reports.get(&pool));
        let others =
            self.live.reports.range((pool, NodeId::from_bytes([0; 16]))..).take_while(move |((id, _), _)| *id == pool);
        own.into_iter().chain(others.map(|((_, node), report)| (*node, report)))
    }

    /// The nodes that run, this one included once it has joined.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.live.nodes.values()
    }

    /// A node that runs.
    pub fn node(&self, id: NodeId) -> Option<&Arc<NodeRecord>> {
        self.live.nodes.get(&id)
    }
}

// How it comes about.
impl Snapshot {
    /// All that this node tells the others of.
    pub(crate) fn own(&self) -> &Own {
        &self.live.own
    }

    pub(crate) fn set_node(&mut self, node: Arc<NodeRecord>) {
        self.live.nodes.insert(node.id, node);
    }

    pub(crate) fn add_connection(&mut self, connection: ConnectionRecord) {
        self.note_arrival(&connection);
        self.live.own.connections.insert((connection.tunnel, connection.id), Arc::new(connection));
    }

    pub(crate) fn set_config_version(&mut self, tunnel: Uuid, id: Uuid, version: i32) {
        if let Some(connection) = self.live.own.connections.get_mut(&(tunnel, id)) {
            Arc::make_mut(connection).config_version = Some(version);
        }
    }

    pub(crate) fn remove_connection(&mut self, tunnel: Uuid, id: Uuid, now: Timestamp) {
        self.live.own.connections.remove(&(tunnel, id));
        self.note_departure(tunnel, now);
    }

    pub(crate) fn set_report(&mut self, me: NodeId, report: PoolReport) {
        self.live.me = Some(me);
        self.live.own.reports.insert(report.pool, Arc::new(report));
    }

    pub(crate) fn remove_report(&mut self, pool: PoolId) {
        self.live.own.reports.remove(&pool);
    }

    /// What is listed of other nodes, and not among these entries.
    pub(crate) fn not_among(&self, me: NodeId, entries: &[Entry]) -> Vec<LiveKey> {
        let told: BTreeSet<LiveKey> = entries.iter().filter_map(|entry| entry.key.parse().ok()).collect();
        let nodes = self.live.nodes.keys().map(|node| LiveKey::Node(*node));
        let others = self.live.others.keys().map(|(tunnel, node, id)| LiveKey::Connection {
            node: *node,
            tunnel: *tunnel,
            id: *id,
        });
        let reports = self.live.reports.keys().map(|(pool, node)| LiveKey::Health { node: *node, pool: *pool });
        nodes.chain(others).chain(reports).filter(|key| key.node() != me && !told.contains(key)).collect()
    }

    /// Takes in what other nodes say anew, and answers whether something of this node's own was taken off the list that
    /// should be on it.
    pub(crate) fn apply_live(&mut self, me: NodeId, writes: &[Write], now: Timestamp) -> bool {
        let mut is_denied = false;
        for write in writes {
            is_denied |= self.write_live(me, &write.key, write.value.as_deref(), now);
        }
        is_denied
    }

    fn write_live(&mut self, me: NodeId, key: &str, value: Option<&[u8]>, now: Timestamp) -> bool {
        // A later version of this program may keep more there.
        let Ok(key) = key.parse::<LiveKey>() else { return false };
        if key.node() == me {
            return value.is_none() && self.is_own(key);
        }
        match value {
            None => self.remove_live(key, now),
            Some(value) => {
                if let Err(problem) = self.set_live(key, value) {
                    tracing::error!(%key, problem, "what a node says of itself cannot be read");
                }
            }
        }
        false
    }

    fn is_own(&self, key: LiveKey) -> bool {
        match key {
            LiveKey::Node(_) => true,
            LiveKey::Connection { tunnel, id, .. } => self.live.own.connections.contains_key(&(tunnel, id)),
            LiveKey::Health { pool, .. } => self.live.own.reports.contains_key(&pool),
        }
    }

    fn set_live(&mut self, key: LiveKey, value: &[u8]) -> Result<(), String> {
        match key {
            LiveKey::Node(id) => {
                let node: NodeRecord = decode(value)?;
                if node.id != id {
                    return Err(format!("it is about {}", node.id));
                }
                self.set_node(Arc::new(node));
            }
            LiveKey::Connection { node, tunnel, id } => {
                let mut connection: ConnectionRecord = decode(value)?;
                if (connection.tunnel, connection.id) != (tunnel, id) {
                    return Err(format!("it is about {} of {}", connection.id, connection.tunnel));
                }
                connection.features = self.live.kept_once(connection.features);
                self.note_arrival(&connection);
                self.live.others.insert((tunnel, node, id), Arc::new(connection));
            }
            LiveKey::Health { node, pool } => {
                let report: PoolReport = decode(value)?;
                if report.pool != pool {
                    return Err(format!("it is about the pool {}", report.pool));
                }
                self.live.reports.insert((pool, node), Arc::new(report));
            }
        }
        Ok(())
    }

    fn remove_live(&mut self, key: LiveKey, now: Timestamp) {
        match key {
            LiveKey::Node(id) => drop(self.live.nodes.remove(&id)),
            LiveKey::Connection { node, tunnel, id } => {
                if self.live.others.remove(&(tunnel, node, id)).is_some() {
                    self.note_departure(tunnel, now);
                }
            }
            LiveKey::Health { node, pool } => drop(self.live.reports.remove(&(pool, node))),
        }
    }

    fn note_arrival(&mut self, connection: &ConnectionRecord) {
        if !self.is_connected(connection.tunnel) {
            let activity = Activity { active_at: connection.opened_at, inactive_at: None };
            self.live.activity.insert(connection.tunnel, activity);
        }
    }

    fn note_departure(&mut self, tunnel: Uuid, now: Timestamp) {
        if self.is_connected(tunnel) {
            return;
        }
        if self.tunnel(tunnel).is_none() {
            self.live.activity.remove(&tunnel);
        } else if let Some(activity) = self.live.activity.get_mut(&tunnel) {
            activity.inactive_at = Some(now);
        }
    }
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_many_connections_are_kept_once() {
        let mut snapshot = Snapshot::default();
        let (me, other) = (NodeId::random(), NodeId::random());
        let tell = |snapshot: &mut Snapshot, number: u128, features: &[&str]| {
            let (tunnel, id) = (Uuid::from_u128(1), Uuid::from_u128(number));
            let connection = ConnectionRecord {
                tunnel,
                connector: Uuid::nil(),
                id,
                index: 0,
                transport: "quic".into(),
                location: "lab01".into(),
                origin_ip: [127, 0, 0, 1].into(),
                opened_at: Timestamp::UNIX_EPOCH,
                features: features.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into(),
                version: "1".into(),
                arch: "linux_amd64".into(),
                config_version: None,
            };
            let key = LiveKey::Connection { node: other, tunnel, id }.to_string();
            let value = serde_json::to_vec(&connection).unwrap();
            snapshot.apply_live(me, &[Write { key, value: Some(value) }], Timestamp::UNIX_EPOCH);
            let (_, kept) = snapshot.connections_elsewhere(tunnel).find(|(_, kept)| kept.id == id).unwrap();
            assert_eq!(**kept, connection);
            kept.features.clone()
        };
        let first = tell(&mut snapshot, 1, &["a", "b"]);
        assert!(Arc::ptr_eq(&first.0, &tell(&mut snapshot, 2, &["a", "b"]).0));
        assert!(!Arc::ptr_eq(&first.0, &tell(&mut snapshot, 3, &["a"]).0));
        // Whoever makes up more is shown as well, and fills nothing but its own place.
        for number in 4..KINDS as u128 + 10 {
            tell(&mut snapshot, number, &[&number.to_string()]);
        }
        assert_eq!(snapshot.live.features.len(), KINDS);
    }
}
