//! The connections of agents: who may register, which one takes a request, and when they are closed.

mod door;
mod pool;

pub(crate) use door::Door;
pub(crate) use pool::TunnelPool;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use registry::{
    AuthorityPurpose, Change, ConfigSource, Configuration, ConnectionRecord, Event, Presence, Registry, Snapshot,
    Tunnel,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::registration::Registration;
use wire::{ByteStream, Connection, ExchangeError, Extensions, Flow, FlowRequest, StreamRequest};

use crate::Limits;
use crate::dispatch::Retry;
use crate::metrics::{Metrics, Present};
use crate::stop::Stop;

/// How long an agent may take to answer a configuration; it has to start new rules first.
const PUSH: Duration = Duration::from_secs(10);
const NO_ANSWER: &str = "the agent did not answer in time";

/// All connections of agents to this node.
pub(crate) struct Tunnels {
    registry: Registry,
    location: String,
    memory: Duration,
    /// Connections of one tunnel.
    most: usize,
    metrics: Arc<Metrics>,
    stop: Stop,
    table: RwLock<Table>,
    arrivals: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    tunnels: HashMap<Uuid, Arc<[Arc<Live>]>>,
    /// Which tunnel a connection belongs to.
    owners: HashMap<Uuid, Uuid>,
    /// Tunnels whose last connection went, and when; the oldest first.
    departed: VecDeque<(Instant, Uuid)>,
}

/// One registered connection.
pub(crate) struct Live {
    id: Uuid,
    connector: Uuid,
    index: u8,
    connection: Connection,
    presence: Presence,
    /// When it was first seen to take no more requests.
    leaving: OnceLock<Instant>,
    /// The signs of life when nothing more was heard; [`CERTAIN`] while there is no doubt.
    doubted: AtomicU64,
    _counted: Present,
}

/// No number of signs of life.
const CERTAIN: u64 = u64::MAX;

impl Live {
    /// Since when it takes no more requests, as far as it was looked at; asked only of one that does not.
    fn leaving_since(&self) -> Instant {
        *self.leaving.get_or_init(Instant::now)
    }

    /// Nothing has been heard from the agent since it was doubted.
    fn is_doubted(&self) -> bool {
        let doubted = self.doubted.load(Ordering::Relaxed);
        if doubted == CERTAIN {
            return false;
        }
        let is_silent = self.connection.signs_of_life() == doubted;
        if !is_silent {
            self.doubted.store(CERTAIN, Ordering::Relaxed);
        }
        is_silent
    }

    /// Has the agent connect a byte stream.
    pub(crate) async fn connect_stream(&self, request: &StreamRequest) -> Result<ByteStream, ExchangeError> {
        self.connection.connect_stream(request).await
    }

    /// Has the agent open a flow of datagrams, which ends with the connection.
    pub(crate) async fn open_flow(&self, request: &FlowRequest) -> Result<(Flow, Connection), ExchangeError> {
        Ok((self.connection.open_flow(request).await?, self.connection.clone()))
    }
}

impl Tunnels {
    /// None yet.
    pub(crate) fn new(
        registry: Registry,
        location: String,
        limits: &Limits,
        metrics: Arc<Metrics>,
        stop: Stop,
    ) -> Arc<Self> {
        // Whoever was connected before this node was started, after a crash perhaps, is about to come back.
        let now = Instant::now();
        let known = registry.snapshot();
        let departed =
            known.tunnels().filter(|tunnel| tunnel.value.deleted_at.is_none()).map(|tunnel| (now, tunnel.value.id));
        let departed = departed.collect();
        Arc::new(Self {
            registry,
            location,
            memory: limits.reconnect_memory,
            most: limits.tunnel_connections,
            metrics,
            stop,
            table: RwLock::new(Table { departed, ..Table::default() }),
            arrivals: watch::Sender::new(()),
        })
    }

    /// The connections of one tunnel.
    pub(crate) fn pool(self: &Arc<Self>, tunnel: Uuid) -> TunnelPool {
        TunnelPool::new(Arc::clone(self), tunnel)
    }

    /// A request is sent again.
    pub(crate) fn retried(&self, why: Retry) {
        self.metrics.retried(why);
    }

    /// Tells whenever a connection is registered.
    pub(crate) fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    /// Closes the connections of a tunnel, or of one of its connectors, and answers how many there were.
    pub(crate) fn close(&self, tunnel: Uuid, connector: Option<Uuid>, reason: &str) -> usize {
        let live = self.live(tunnel);
        let closing = live.iter().filter(|live| connector.is_none_or(|connector| live.connector == connector));
        closing.inspect(|live| live.connection.close(reason)).count()
    }

    /// Cancelled when the node begins to stop.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.stop.draining()
    }

    /// Lets every connection finish what it has and then close.
    pub(crate) fn drain(&self) {
        let all: Vec<Arc<Live>> = self.read().tunnels.values().flat_map(|live| live.iter().cloned()).collect();
        for live in all {
            live.connection.drain();
        }
    }

    /// Follows the registry until it or the node ends: pushes configurations, closes the connections of deleted
    /// tunnels.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut changes = self.registry.watch(self.registry.snapshot().revision());
        loop {
            let event = tokio::select! {
                () = self.stop.drained() => return,
                event = changes.next() => event,
            };
            match event {
                None => return,
                Some(Event::Changes { changes, .. }) => changes.iter().for_each(|change| self.apply(change)),
                Some(Event::Resync(snapshot)) => self.resync(&snapshot),
            }
        }
    }

    fn apply(self: &Arc<Self>, change: &Change) {
        match change {
            Change::Tunnel(id, tunnel) => self.close_if_gone(*id, tunnel.as_deref().map(|tunnel| &tunnel.value)),
            Change::Configuration(id, Some(_)) => self.push_all(*id, &self.registry.snapshot()),
            Change::Authority(AuthorityPurpose::Origin) => self.name_origin_ca(&self.registry.snapshot()),
            Change::Authority(AuthorityPurpose::Node)
            | Change::Configuration(_, None)
            | Change::Account(..)
            | Change::Token(..)
            | Change::Zone(..)
            | Change::Records(..)
            | Change::Access(..)
            | Change::Port(..)
            | Change::Passthrough(..)
            | Change::Item(..)
            | Change::Order(..)
            | Change::Balance => (),
        }
    }

    fn resync(self: &Arc<Self>, snapshot: &Snapshot) {
        let connected: Vec<Uuid> = self.read().tunnels.keys().copied().collect();
        for id in connected {
            self.close_if_gone(id, snapshot.tunnel(id).map(|tunnel| &tunnel.value));
            self.push_all(id, snapshot);
        }
        self.name_origin_ca(snapshot);
    }

    /// Tells the agents that are connected which authorities of origins they are to trust; others hear it as they come.
    fn name_origin_ca(&self, snapshot: &Snapshot) {
        let Some(authority) = snapshot.authority(AuthorityPurpose::Origin) else { return };
        let pem = serde_json::Value::from(authority.trusted(Timestamp::now()));
        let document = Bytes::from(pem.to_string());
        for live in self.read().tunnels.values().flat_map(|live| live.iter()) {
            if live.connection.extensions().origin_ca {
                let (live, document) = (Arc::clone(live), document.clone());
                self.stop.spawn(async move {
                    let told = live.connection.update_configuration(Extensions::ORIGIN_CA_VERSION, document);
                    if let Err(error) = timeout(PUSH, told).await.unwrap_or_else(|_| Err(NO_ANSWER.to_owned())) {
                        tracing::warn!(connection = %live.id, %error, "an agent did not take the origins' authorities");
                    }
                });
            }
        }
    }

    fn close_if_gone(&self, id: Uuid, tunnel: Option<&Tunnel>) {
        if tunnel.is_none_or(|tunnel| tunnel.deleted_at.is_some()) {
            self.close(id, None, "the tunnel was deleted");
        }
    }

    fn push_all(self: &Arc<Self>, tunnel: Uuid, snapshot: &Snapshot) {
        if let Some(configuration) = managed(snapshot, tunnel) {
            for live in self.live(tunnel).iter() {
                self.push(Arc::clone(live), configuration);
            }
        }
    }

    /// Gives one connection a configuration. The agent keeps the newest, so the order of several does not matter.
    fn push(&self, live: Arc<Live>, configuration: &Configuration) {
        let version = configuration.version;
        let document = Bytes::from(configuration.document.to_string());
        self.stop.spawn(async move {
            let pushed = timeout(PUSH, live.connection.update_configuration(version, document)).await;
            match pushed.unwrap_or_else(|_| Err(NO_ANSWER.to_owned())) {
                Ok(in_force) => live.presence.set_config_version(in_force),
                Err(error) => {
                    tracing::warn!(connection = %live.id, version, %error, "an agent did not take its configuration");
                }
            }
        });
    }

    fn accept(self: &Arc<Self>, registration: &Registration, connection: Connection) -> (Arc<Live>, Option<Arc<Live>>) {
        let id = Uuid::new_v4();
        let presence = self.registry.connect(ConnectionRecord {
            tunnel: registration.tunnel,
            connector: registration.connector,
            id,
            index: registration.connection_index,
            transport: connection.transport().to_string(),
            location: self.location.clone(),
            origin_ip: connection.remote().ip().to_canonical(),
            opened_at: Timestamp::now(),
            features: registration.features.clone().into(),
            version: registration.version.clone(),
            arch: registration.arch.clone(),
            config_version: None,
        });
        let live = Arc::new(Live {
            id,
            connector: registration.connector,
            index: registration.connection_index,
            presence,
            leaving: OnceLock::new(),
            doubted: AtomicU64::new(CERTAIN),
            _counted: self.metrics.connection(connection.transport()),
            connection,
        });
        let replaced = self.write().insert(registration.tunnel, Arc::clone(&live), self.memory);
        self.arrivals.send_replace(());
        (live, replaced)
    }

    /// The tunnel has so many connections already, not counting the one that this would replace.
    fn is_full(&self, registration: &Registration) -> bool {
        let is_same =
            |live: &Live| live.connector == registration.connector && live.index == registration.connection_index;
        self.live(registration.tunnel).iter().filter(|live| !is_same(live)).count() >= self.most
    }

    fn live(&self, tunnel: Uuid) -> Arc<[Arc<Live>]> {
        self.read().tunnels.get(&tunnel).cloned().unwrap_or_default()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        // Every change of the table is complete before anything in it could panic.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration that the edge pushes to a tunnel's connectors, if it manages them.
fn managed(snapshot: &Snapshot, tunnel: Uuid) -> Option<&Configuration> {
    snapshot.tunnel(tunnel).filter(|tunnel| tunnel.config_source == ConfigSource::Cloudflare)?;
    snapshot.configuration(tunnel).map(|configuration| &configuration.value)
}

impl Table {
    /// Adds a connection, and answers the one that it replaces: the same of the same connector.
    fn insert(&mut self, tunnel: Uuid, live: Arc<Live>, memory: Duration) -> Option<Arc<Live>> {
        self.forget(memory);
        self.owners.insert(live.id, tunnel);
        let present = self.tunnels.entry(tunnel).or_default();
        let is_same = |other: &Arc<Live>| other.connector == live.connector && other.index == live.index;
        let replaced = present.iter().find(|other| is_same(other)).cloned();
        *present = present.iter().filter(|other| !is_same(other)).cloned().chain([live.clone()]).collect();
        if let Some(replaced) = &replaced {
            self.owners.remove(&replaced.id);
        }
        replaced
    }

    fn remove(&mut self, connection: Uuid, now: Instant) -> bool {
        let Some(tunnel) = self.owners.remove(&connection) else { return false };
        let Some(present) = self.tunnels.get_mut(&tunnel) else { return false };
        *present = present.iter().filter(|live| live.id != connection).cloned().collect();
        if present.is_empty() {
            self.departed.push_back((now, tunnel));
        }
        true
    }

    /// Drops tunnels that have been without connections for so long that nobody waits for one.
    fn forget(&mut self, memory: Duration) {
        while let Some((since, tunnel)) = self.departed.front() {
            if since.elapsed() < memory {
                return;
            }
            if self.tunnels.get(tunnel).is_some_and(|live| live.is_empty()) {
                self.tunnels.remove(tunnel);
            }
            self.departed.pop_front();
        }
    }

    /// The tunnel had a connection this time ago or less.
    fn was_connected(&self, tunnel: Uuid, memory: Duration) -> bool {
        self.departed.iter().rev().take_while(|(since, _)| since.elapsed() < memory).any(|(_, id)| *id == tunnel)
    }
}
