//! Flows of datagrams of a public port's visitors: which there are, over which connection each goes, and when it ends.
//!
//! One task owns the port's socket and its [`Table`]; each flow has a task of its own, which the table's end of its queue
//! keeps alive. Nobody waits for anybody: what finds no room is dropped and counted. Answers go only to the visitor whose
//! datagram has made the flow.

mod socket;
mod table;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use registry::PortId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wire::{Connection, Dropped, ExchangeError, Flow, FlowRequest};

use crate::defence::Defence;
use crate::dispatch::{Carrier as _, Pool as _};
use crate::listen::{Place, Places};
use crate::metrics::{FlowEnd, Loss, Present};
use crate::stop::Stop;
use crate::streams::{Streams, Target, proxy_header};
use socket::{PortSocket, RECEIVED, Way};
use table::{Answered, Full, Table};

/// Datagrams of one flow that wait for the tunnel: a burst of some 100 KiB, as much as a flow's agent holds.
const QUEUE: usize = 64;

/// Longer than agents take to look a name up, and than a node waits for a connector that is about to come back.
const OPEN: Duration = Duration::from_secs(35);

/// A flow that leads nowhere is not tried again for this time: visitors of UDP knock often, and each try asks an agent.
const PAUSE: Duration = Duration::from_secs(1);

/// How long answers are waited for over a connection that takes nothing new any more.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Flows that are looked at for being idle before the socket has its turn again.
const EXPIRE: usize = 256;

/// Words of flows' ends that wait for the port's task.
const ENDS: usize = 256;

/// What the flows of all ports work with.
pub(crate) struct Flows {
    pub(crate) streams: Arc<Streams>,
    /// Apart from those of connections, since the sender's address of a datagram can be forged.
    pub(crate) places: Arc<Places>,
    pub(crate) stop: Stop,
}

/// A public port of UDP, bound.
pub(crate) struct FlowPort {
    id: PortId,
    socket: Arc<PortSocket>,
    flows: Arc<Flows>,
}

/// The port's end of a flow. Dropping it ends the flow.
struct Handle {
    queue: mpsc::Sender<Bytes>,
    activity: Arc<Activity>,
    _place: Place,
    _present: Present,
}

impl Answered for Handle {
    fn answered(&self) -> Option<Instant> {
        self.activity.answered()
    }
}

/// When answers went to a visitor.
struct Activity {
    started: Instant,
    /// Milliseconds since then, and one; zero is never.
    answered: AtomicU64,
}

impl Activity {
    fn note(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.answered.store(now + 1, Ordering::Relaxed);
    }

    fn answered(&self) -> Option<Instant> {
        let answered = self.answered.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started + Duration::from_millis(answered))
    }
}

impl FlowPort {
    /// Binds the socket.
    pub(crate) fn bind(id: PortId, address: SocketAddr, flows: Arc<Flows>) -> io::Result<Self> {
        Ok(Self { id, socket: Arc::new(PortSocket::bind(address)?), flows })
    }

    /// Serves visitors until the port closes or the node stops.
    pub(crate) async fn serve(self, closing: CancellationToken) {
        let (told, mut ends) = mpsc::channel(ENDS);
        let mut table = Table::new(0, Duration::ZERO);
        let mut buffer = vec![0; RECEIVED];
        let stop = self.flows.stop.clone();
        let stopped = async {
            stop.drained().await;
            sleep(LAST_ANSWERS).await;
        };
        let mut stopped = std::pin::pin!(stopped);
        let metrics = Arc::clone(&self.flows.streams.metrics);
        loop {
            let timeout = table.next_timeout();
            tokio::select! {
                () = closing.cancelled() => break,
                () = &mut stopped => break,
                Some((visitor, id)) = ends.recv() => drop(table.ended(visitor, id)),
                () = sleep_until(timeout.unwrap_or_else(Instant::now)), if timeout.is_some() => {
                    for _ in table.expire(Instant::now(), EXPIRE) {
                        metrics.flow(FlowEnd::Idle);
                    }
                }
                received = self.socket.receive(&mut buffer) => match received {
                    Ok((length, stride, way)) => self.take(&mut table, &told, &buffer[..length], stride, way),
                    Err(error) => {
                        tracing::warn!(port = %self.id, %error, "the socket of a public port failed; it is opened again");
                        break;
                    }
                }
            }
        }
        for _ in 0..table.len() {
            metrics.flow(FlowEnd::Closed);
        }
    }

    /// Hands what came from one visitor to its flow.
    fn take(
        &self,
        table: &mut Table<Handle>,
        told: &mpsc::Sender<(SocketAddr, u64)>,
        received: &[u8],
        stride: usize,
        way: Way,
    ) {
        let Streams { metrics, .. } = &*self.flows.streams;
        let now = Instant::now();
        if table.heard(now, way.visitor).is_none()
            && let Err(defence) = self.begin(table, told, now, way)
        {
            metrics.defended(defence);
            tracing::debug!(visitor = %way.visitor, port = %self.id, limit = defence.label(), "a visitor is refused");
            return;
        }
        let Some(flow) = table.heard(now, way.visitor) else { return };
        let hand = |payload: &[u8]| {
            metrics.datagram_in();
            if flow.queue.try_send(Bytes::copy_from_slice(payload)).is_err() {
                metrics.lost(Loss::Queue, 1);
            }
        };
        if received.is_empty() {
            hand(received);
        }
        received.chunks(stride.max(1)).for_each(hand);
    }

    /// Begins a flow for a visitor, if there is room, and it may come here.
    fn begin(
        &self,
        table: &mut Table<Handle>,
        told: &mpsc::Sender<(SocketAddr, u64)>,
        now: Instant,
        way: Way,
    ) -> Result<(), Defence> {
        let Flows { streams, places, stop } = &*self.flows;
        if stop.is_draining() {
            return Err(Defence::NotAllowed);
        }
        let snapshot = streams.registry.snapshot();
        let port = snapshot.port(self.id).ok_or(Defence::NotAllowed)?;
        if !Streams::allows(&snapshot, port.tunnel, way.visitor) {
            return Err(Defence::NotAllowed);
        }
        let idle = Duration::from_secs(port.options.idle_seconds).clamp(Duration::from_secs(1), LONGEST_IDLE);
        table.limit(port.options.max_connections, idle);
        match table.make_room() {
            Ok(None) => {}
            Ok(Some(_)) => streams.metrics.flow(FlowEnd::Displaced),
            Err(Full) => return Err(Defence::PortFull),
        }
        let place = places.take(way.visitor.ip())?;
        let target = Target::from(&port.value);
        let prefix = match target.options.proxy_protocol {
            Some(_) => proxy_header::datagram(way.visitor, self.socket.local(way)).into(),
            None => Bytes::new(),
        };
        let (queue, queued) = mpsc::channel(QUEUE);
        let activity = Arc::new(Activity { started: now, answered: AtomicU64::new(0) });
        let present = streams.metrics.open_flow();
        table.insert(now, way.visitor, |id| {
            let carried = Carried {
                flows: Arc::clone(&self.flows),
                socket: Arc::clone(&self.socket),
                target,
                way,
                prefix,
                idle,
                activity: Arc::clone(&activity),
            };
            let told = told.clone();
            stop.spawn(async move {
                let Some(end) = carried.run(queued).await else { return };
                carried.flows.streams.metrics.flow(end);
                // Closed: the port is, too.
                let _ = told.send((way.visitor, id)).await;
            });
            Handle { queue, activity, _place: place, _present: present }
        });
        Ok(())
    }
}

/// Too long a time has no end on the clock.
const LONGEST_IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The task of one flow.
struct Carried {
    flows: Arc<Flows>,
    socket: Arc<PortSocket>,
    target: Target,
    way: Way,
    /// In front of each datagram to the origin.
    prefix: Bytes,
    idle: Duration,
    activity: Arc<Activity>,
}

/// A flow over one connection, which may take nothing new any more.
struct Open {
    flow: Flow,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum Next {
    Visitor(Option<Bytes>),
    Origin(Option<Bytes>),
    Leave,
}

impl Carried {
    /// Carries datagrams until the port has given the flow up. `Some`: it leads nowhere.
    async fn run(&self, mut queue: mpsc::Receiver<Bytes>) -> Option<FlowEnd> {
        loop {
            // A connection is looked for only when there is something to carry.
            let first = queue.recv().await?;
            let opened = timeout(OPEN, self.open()).await;
            let open = match opened {
                Ok(Ok(open)) => open,
                Ok(Err((end, reason))) => {
                    let Target { tunnel, service, .. } = &self.target;
                    tracing::info!(%tunnel, service, %reason, "a visitor's datagrams lead nowhere");
                    return self.give_up(queue, end).await;
                }
                Err(_) => return self.give_up(queue, FlowEnd::Failed).await,
            };
            self.carry(open, first, &mut queue).await?;
        }
    }

    /// Drops what comes for a moment.
    async fn give_up(&self, mut queue: mpsc::Receiver<Bytes>, end: FlowEnd) -> Option<FlowEnd> {
        let dropping = async {
            while queue.recv().await.is_some() {
                self.lost(Loss::NoWay, 1)
            }
        };
        self.lost(Loss::NoWay, 1);
        match timeout(PAUSE, dropping).await {
            // The port has given it up meanwhile.
            Ok(()) => None,
            Err(_) => Some(end),
        }
    }

    /// Carries datagrams over one connection until that is gone, or takes nothing new; `None`: until the flow has ended.
    async fn carry(&self, open: Open, first: Bytes, queue: &mut mpsc::Receiver<Bytes>) -> Option<()> {
        let Open { mut flow, mut leaving } = open;
        let mut left = None;
        self.send(&mut flow, first);
        loop {
            let next = tokio::select! {
                datagram = queue.recv(), if left.is_none() => Next::Visitor(datagram),
                answer = flow.recv() => Next::Origin(answer),
                () = &mut leaving, if left.is_none() => Next::Leave,
                () = sleep_until(left.unwrap_or_else(Instant::now)), if left.is_some() => Next::Origin(None),
            };
            match next {
                Next::Visitor(None) => {
                    self.lost(Loss::Full, flow.take_lost());
                    return None;
                }
                Next::Visitor(Some(payload)) => self.send(&mut flow, payload),
                Next::Origin(Some(payload)) => self.answer(&payload),
                Next::Origin(None) => {
                    self.lost(Loss::Full, flow.take_lost());
                    return Some(());
                }
                // The rest goes over another connection, once the last answers are here.
                Next::Leave => left = Some(Instant::now() + LAST_ANSWERS),
            }
        }
    }

    fn send(&self, flow: &mut Flow, payload: Bytes) {
        let payload = if self.prefix.is_empty() {
            payload
        } else {
            let mut whole = BytesMut::with_capacity(self.prefix.len() + payload.len());
            whole.extend_from_slice(&self.prefix);
            whole.extend_from_slice(&payload);
            whole.freeze()
        };
        match flow.send(payload) {
            Ok(()) => {}
            Err(Dropped::Full) => self.lost(Loss::Full, 1),
            Err(Dropped::TooLarge) => self.lost(Loss::TooLarge, 1),
            Err(Dropped::Ended) => self.lost(Loss::NoWay, 1),
        }
    }

    fn answer(&self, payload: &[u8]) {
        // Before it is on its way: what the visitor says to it may come at once.
        self.activity.note();
        match self.socket.send(self.way, payload) {
            Ok(()) => {
                self.flows.streams.metrics.datagram_out();
            }
            Err(error) => {
                tracing::trace!(visitor = %self.way.visitor, %error, "an answer was dropped");
                self.lost(Loss::Visitor, 1);
            }
        }
    }

    fn lost(&self, reason: Loss, count: u64) {
        self.flows.streams.metrics.lost(reason, count);
    }

    /// Opens the flow over some connection of the tunnel. Nothing of the visitor's is under way yet, so any may be tried.
    async fn open(&self) -> Result<Open, (FlowEnd, String)> {
        let Streams { tunnels, limits, .. } = &*self.flows.streams;
        let request = FlowRequest {
            destination: self.target.destination(),
            flow: self.way.visitor.to_string(),
            // An agent that ends flows by itself gives the edge's end of it some time to end first.
            idle: Some(self.idle.saturating_add(LAST_ANSWERS)),
        };
        let pool = tunnels.pool(self.target.tunnel);
        let mut tried = Vec::new();
        let mut reason = "no connector of its tunnel is connected".to_owned();
        for _ in 0..limits.attempts {
            let picked = match pool.pick(&tried) {
                Some(picked) => Some(picked),
                None => pool.await_one(&tried, limits.reconnect_wait).await,
            };
            let Some(carrier) = picked else { break };
            tried.push(carrier.identity());
            match carrier.open_flow(&request).await {
                Ok((flow, connection)) => return Ok(Open { flow, leaving: Box::pin(left(connection)) }),
                Err(ExchangeError::Origin(error)) => return Err((FlowEnd::Failed, error.text)),
                Err(error) => reason = error.to_string(),
            }
        }
        Err((FlowEnd::NoConnector, reason))
    }
}

async fn left(connection: Connection) {
    connection.unavailable().await;
}
