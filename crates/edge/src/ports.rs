//! Public ports: each leads byte streams, or flows of datagrams, to the service of one tunnel.
//!
//! A port listens while its tunnel has a connection, or had one a moment ago, so that visitors learn at once when nobody
//! is behind it, and a connector that comes back finds it as it was.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use registry::{PortId, PortProtocol};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::defence::Defence;
use crate::fair::{Fair, Fairness};
use crate::flows::{FlowPort, Flows};
use crate::listen::{Entrance, Places};
use crate::stop::Stop;
use crate::streams::{Streams, Visitor};

/// A visitor's machine that answers nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// From when a port was promised until its agent must have come.
const PROMISED: Duration = Duration::from_secs(60);

/// How often ports are looked at when nobody tells of a change: time alone closes some.
const TICK: Duration = Duration::from_secs(1);

/// Promises that wait to be made; each takes no longer than a system call.
const WAITING: usize = 64;

/// Connections that the system keeps until they are accepted, as for all listeners.
const BACKLOG: i32 = 1024;

/// What everything here works with.
pub(crate) struct Setting {
    pub(crate) streams: Arc<Streams>,
    pub(crate) places: Arc<Places>,
    pub(crate) flows: Arc<Flows>,
    pub(crate) stop: Stop,
    pub(crate) fairness: Fairness,
    /// Where ports listen.
    pub(crate) address: IpAddr,
    /// Which ports there may be.
    pub(crate) range: RangeInclusive<u16>,
}

/// Has ports opened before their agents come.
#[derive(Debug, Clone)]
pub(crate) struct Promises(mpsc::Sender<Promise>);

/// Receives what [`Promises`] ask for.
pub(crate) struct Asked(mpsc::Receiver<Promise>);

struct Promise {
    id: PortId,
    answer: oneshot::Sender<io::Result<()>>,
}

/// Both ends of a way to [`keep`].
pub(crate) fn promises() -> (Promises, Asked) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Promises(sender), Asked(receiver))
}

impl Promises {
    /// Opens a port for the agent that is about to come. It is closed again if none does within a minute.
    pub(crate) async fn open(&self, id: PortId) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        let stopping = || io::Error::other("this node opens no ports, or is stopping");
        self.0.send(Promise { id, answer }).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

/// Keeps the ports of all tunnels open until the node stops.
pub(crate) async fn keep(setting: Setting, Asked(mut asked): Asked) {
    let mut changes = setting.streams.registry.watch(setting.streams.registry.snapshot().revision());
    let mut arrivals = setting.streams.tunnels.arrivals();
    let mut keeper = Keeper { setting: Arc::new(setting), open: HashMap::new(), failed: HashSet::new() };
    let stop = keeper.setting.stop.clone();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.drained() => return,
            promise = asked.recv() => match promise {
                Some(promise) => keeper.promise(promise),
                None => return,
            },
            change = changes.next() => match change {
                Some(_) => keeper.look(),
                None => return,
            },
            arrived = arrivals.changed() => match arrived {
                Ok(()) => keeper.look(),
                Err(_) => return,
            },
            _ = ticks.tick() => keeper.look(),
        }
    }
}

struct Keeper {
    setting: Arc<Setting>,
    open: HashMap<PortId, Open>,
    /// Told of once.
    failed: HashSet<PortId>,
}

/// A port that listens until this is dropped.
struct Open {
    closing: CancellationToken,
    /// Cancelled when nobody serves the port any more.
    serving: CancellationToken,
    promised_until: Option<Instant>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Keeper {
    fn promise(&mut self, Promise { id, answer }: Promise) {
        let promised_until = Some(Instant::now() + PROMISED);
        let opened = match self.open.get_mut(&id) {
            Some(open) => {
                open.promised_until = promised_until;
                Ok(())
            }
            None => self.listen(id, promised_until),
        };
        // Whoever asked may have left; the promise then runs out.
        let _ = answer.send(opened);
    }

    /// Opens and closes what has to be by now.
    fn look(&mut self) {
        let snapshot = self.setting.streams.registry.snapshot();
        let tunnels = &self.setting.streams.tunnels;
        let wanted: HashSet<PortId> = snapshot
            .ports()
            .filter(|port| self.setting.range.contains(&port.number))
            .filter(|port| snapshot.live_tunnel(port.tunnel).is_some() && tunnels.pool(port.tunnel).is_coming_back())
            .map(|port| port.id())
            .collect();
        let now = Instant::now();
        // A socket that failed is opened again.
        self.open.retain(|_, open| !open.serving.is_cancelled());
        self.open.retain(|id, open| {
            if wanted.contains(id) {
                // Kept: from now on its connectors alone decide.
                open.promised_until = None;
                return true;
            }
            open.promised_until.is_some_and(|until| now < until)
        });
        self.failed.retain(|id| wanted.contains(id));
        let missing: Vec<PortId> = wanted.into_iter().filter(|id| !self.open.contains_key(id)).collect();
        for id in missing {
            if let Err(error) = self.listen(id, None)
                && self.failed.insert(id)
            {
                tracing::warn!(port = %id, %error, "a public port cannot be opened; it is tried again");
            }
        }
    }

    fn listen(&mut self, id: PortId, promised_until: Option<Instant>) -> io::Result<()> {
        let address = SocketAddr::new(self.setting.address, id.number);
        let (closing, serving) = (CancellationToken::new(), CancellationToken::new());
        let ended = serving.clone().drop_guard();
        match id.protocol {
            PortProtocol::Tcp => {
                let listener = listener(address)?;
                let port = PublicPort { id, setting: Arc::clone(&self.setting) };
                let serve = port.serve(listener, closing.clone());
                self.setting.stop.spawn(async move { drop((serve.await, ended)) });
            }
            PortProtocol::Udp => {
                let port = FlowPort::bind(id, address, Arc::clone(&self.setting.flows))?;
                let serve = port.serve(closing.clone());
                self.setting.stop.spawn(async move { drop((serve.await, ended)) });
            }
        }
        self.failed.remove(&id);
        self.open.insert(id, Open { closing, serving, promised_until });
        Ok(())
    }
}

/// One port that listens.
struct PublicPort {
    id: PortId,
    setting: Arc<Setting>,
}

impl PublicPort {
    /// Serves visitors until the port closes or the node stops. Those that are connected stay so.
    async fn serve(self, listener: TcpListener, closing: CancellationToken) {
        let entrance = Entrance::new(listener, SILENCE);
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => return,
                accepted = entrance.accept(&self.setting.stop) => accepted,
            };
            let Some((stream, remote)) = accepted else { return };
            if let Err(defence) = self.admit(Visitor::new(stream, BytesMut::new()), remote) {
                self.setting.streams.metrics.defended(defence);
                tracing::debug!(visitor = %remote, port = %self.id, limit = defence.label(), "a visitor is refused");
            }
        }
    }

    /// Serves a visitor if there is room, and it may come here.
    fn admit(&self, visitor: Visitor, remote: SocketAddr) -> Result<(), Defence> {
        let Setting { streams, places, stop, fairness, .. } = &*self.setting;
        let snapshot = streams.registry.snapshot();
        let port = snapshot.port(self.id).ok_or(Defence::NotAllowed)?;
        let place = places.take(remote.ip())?;
        let admitted = streams.admit(&snapshot, (&port.value).into(), remote)?;
        let present = streams.metrics.visitor();
        let carrying = Box::pin(async move {
            admitted.carry(visitor, remote).await;
            drop((place, present));
        });
        stop.spawn(Fair::new(carrying, fairness.clone(), fairness.of(remote.ip())));
        Ok(())
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // One listener for both families, as for all other visitors.
        socket.set_only_v6(false)?;
    }
    // Connections of the one before may still be closing.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
