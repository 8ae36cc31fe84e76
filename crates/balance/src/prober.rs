//! Asks the members of pools for their health, as far as this node is one of those who ask, and reports what it finds out.

mod grpc;
mod herald;
mod icmp;
mod question;
mod rounds;
mod tls;
mod web;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use registry::{MonitorTerms, Pool, PoolId, PoolReport, Registry};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::rounds::Rounds;
pub(crate) use self::tls::Tls;
use crate::board::Board;
use crate::plan::Target;
use crate::watchers::watchers;

/// The body of an answer to a question about health.
pub type ProbeBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// How members are reached; the same ways that visitors take, so that what answers here answers them.
pub trait Reach: Send + Sync + 'static {
    /// Has the request answered by the origin behind a tunnel. Its URI is absolute, and its host chooses the rule.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence for people.
    fn exchange(&self, tunnel: Uuid, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ProbeBody>, Box<str>>>;

    /// Opens a stream to a member at this port. Behind a tunnel it is for the service that serves `host`.
    ///
    /// # Errors
    /// Why there is none, in a sentence for people.
    fn connect<'a>(
        &'a self,
        target: &'a Target,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, Box<str>>>;

    /// The addresses of a member that needs no tunnel, as far as they may be asked.
    ///
    /// # Errors
    /// Why there is none, in a sentence for people.
    fn addresses<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Vec<IpAddr>, Box<str>>>;
}

/// [`Reach::connect`] to what needs no tunnel: straight there.
///
/// # Errors
/// Nobody answers there, or it is behind a tunnel.
pub async fn dial(target: &Target, port: u16) -> io::Result<Box<dyn ByteStream>> {
    let stream = match target {
        Target::Address(address, _) => tokio::net::TcpStream::connect(SocketAddr::new(*address, port)).await?,
        Target::Name(name, _) => tokio::net::TcpStream::connect((&**name, port)).await?,
        Target::Tunnel(_) => return Err(io::Error::other("it is behind a tunnel")),
    };
    Ok(Box::new(stream))
}

/// Questions at once, of all pools of a node: each has a connection.
const AT_ONCE: usize = 64;
/// What happens meanwhile is taken in together.
const GATHERING: Duration = Duration::from_millis(250);

/// Keeps what the board knows of members as the registry has it, until `stop`.
pub async fn keep_fresh(registry: Registry, board: Arc<Board>, stop: CancellationToken) {
    let mut changes = registry.live_changes();
    let work = async {
        loop {
            changes.borrow_and_update();
            board.refresh(&registry.snapshot(), jiff::Timestamp::now());
            if changes.changed().await.is_err() {
                return;
            }
            sleep(GATHERING).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Asks the members of pools, for one node.
#[derive(Clone)]
pub struct Prober(Arc<Asker>);

impl Prober {
    /// Of the node that has this registry, and reaches members like this.
    pub fn new(registry: Registry, reach: Arc<dyn Reach>) -> Self {
        Self(Arc::new(Asker { registry, reach, tls: Tls::new(), places: Semaphore::new(AT_ONCE) }))
    }

    /// Asks the members of those pools of which this node is one of the [`watchers`], and reports what it finds out, until `stop`. The
    /// node must be in the registry ([`Registry::introduce`] or [`Registry::join`]).
    pub async fn run(self, stop: CancellationToken) {
        let (changed, tasks) = (watch::Sender::new(()), JoinSet::new());
        let supervisor = Supervisor { asker: self.0, changed, asked: HashMap::new(), tasks };
        stop.run_until_cancelled(supervisor.run()).await;
    }

    /// Asks a pool's members once, with retries, as this monitor says, and tells nobody else.
    pub async fn preview(&self, pool: &Pool, monitor: &MonitorTerms) -> PoolReport {
        rounds::once(&self.0, pool, monitor).await
    }
}

/// What all questions share.
pub(crate) struct Asker {
    pub(crate) registry: Registry,
    pub(crate) reach: Arc<dyn Reach>,
    pub(crate) tls: Tls,
    pub(crate) places: Semaphore,
}

/// Has a task for each pool that this node asks.
struct Supervisor {
    asker: Arc<Asker>,
    /// Tells the tasks that what is configured may have changed.
    changed: watch::Sender<()>,
    asked: HashMap<PoolId, CancellationToken>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    async fn run(mut self) {
        let registry = self.asker.registry.clone();
        let mut live = registry.live_changes();
        let mut events = registry.watch(registry.snapshot().revision());
        let mut seen = None;
        loop {
            live.borrow_and_update();
            let snapshot = registry.snapshot();
            // Connections come and go more often than nodes and pools do.
            let state = (snapshot.balance_revision(), snapshot.nodes().map(|node| node.id).collect::<Vec<_>>());
            if seen.as_ref() != Some(&state) {
                self.assign();
                self.changed.send_replace(());
                seen = Some(state);
            }
            tokio::select! {
                changed = live.changed() => if changed.is_err() { return },
                event = events.next() => if event.is_none() { return },
                Some(_) = self.tasks.join_next() => (),
            }
            sleep(GATHERING).await;
        }
    }

    /// Begins and ends tasks, so that there is one for each pool that is to be asked from here.
    fn assign(&mut self) {
        let registry = &self.asker.registry;
        let (snapshot, me) = (registry.snapshot(), registry.node());
        let is_mine = |pool: PoolId, regions: Option<&[Box<str>]>| {
            let nodes = snapshot.nodes().map(|node| &**node);
            watchers(pool, nodes, regions, |node| node.region.as_deref()).contains(&me)
        };
        let pools = snapshot.pools().filter(|pool| pool.terms.monitor.is_some());
        let mine: HashSet<PoolId> =
            pools.filter(|pool| is_mine(pool.id, pool.terms.check_regions.as_deref())).map(|pool| pool.id).collect();
        self.asked.retain(|pool, stop| {
            let stays = mine.contains(pool);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for pool in mine {
            self.asked.entry(pool).or_insert_with(|| {
                let stop = CancellationToken::new();
                let rounds = Rounds::new(self.asker.clone(), pool, self.changed.subscribe());
                let stopped = stop.clone();
                self.tasks.spawn(async move {
                    stopped.run_until_cancelled(rounds.run()).await;
                });
                stop
            });
        }
    }
}
