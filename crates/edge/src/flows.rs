//! Flows of datagrams of a public port's visitors: which there are, over which connection each goes, and when it ends.
//!
//! One task owns the port's socket and its [`Table`]; each flow has a task of its own ([`Carried`]), which the table's end of
//! its queue keeps alive. Nobody waits for anybody: what finds no room is dropped and counted. Answers go only to the visitor
//! whose datagram has made the flow.
//!
//! What visitors can use up before they have shown that answers reach them is each port's own share of what all ports have,
//! so that a flood at one port is not felt at another.

mod carried;
mod credit;
mod socket;
mod table;
mod vigil;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use registry::{Change, Event, Port, PortId};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::{Backlog, Budget, Inlet};

use crate::defence::Defence;
use crate::fair::{Account, Fair, Fairness};
use crate::listen::{Place, Places};
use crate::metrics::{FlowEnd, Loss, Present};
use crate::stop::Stop;
use crate::streams::{Streams, Target, proxy_header};
use carried::{Carried, Contact};
use socket::{PortSocket, RECEIVED, Way};
use table::{Answered, Bounds, Full, Table};

/// Bytes of one flow's datagrams that wait for the tunnel: a burst of some hundred, or one of the longest beside another.
const QUEUE: usize = 128 << 10;

/// Bytes that wait in the flows of all ports: as many bursts at once as an agent that is gone for seconds leaves behind.
const QUEUES: usize = 64 << 20;

/// Bytes that wait in the flows of one port, however many ports there are.
const LEAST_QUEUES: usize = 4 * QUEUE;

/// Flows of all ports that are not proven. Under a flood of 10,000 datagrams a second one lasts for 0.4 s, which is more
/// than a visitor needs to answer an answer.
const UNPROVEN: usize = 4_096;

/// Those of one port, however many ports there are.
const LEAST_UNPROVEN: usize = 64;

/// Flows of one port that are being opened for the first time, so that a flood does not reach the agent as such; no more than half
/// of those that are not proven, so that newcomers displace none that is about to open. Who finds no turn says it again,
/// as visitors of UDP do.
const OPENINGS: usize = 256;

/// Flows that are looked at for being idle before the socket has its turn again.
const EXPIRE: usize = 256;

/// Words of flows' ends that wait for the port's task.
const ENDS: usize = 256;

/// When the node stops, flows end that say nothing for this time. Their next datagram begins another elsewhere, and whoever
/// is in the middle of something is not silent for so long.
const LEAVING_IDLE: Duration = Duration::from_secs(5);

/// Too long a time has no end on the clock.
const LONGEST_IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the flows of all ports work with.
pub(crate) struct Flows {
    streams: Arc<Streams>,
    /// Of flows that are proven, and apart from those of connections.
    places: Arc<Places>,
    stop: Stop,
    fairness: Fairness,
    /// How many there are.
    ports: AtomicUsize,
}

impl Flows {
    pub(crate) fn new(streams: Arc<Streams>, places: Arc<Places>, stop: Stop, fairness: Fairness) -> Arc<Self> {
        Arc::new(Self { streams, places, stop, fairness, ports: AtomicUsize::new(0) })
    }

    /// What one port has of what all have.
    fn share(&self, all: usize, least: usize) -> usize {
        share(all, self.ports.load(Ordering::Relaxed), least)
    }
}

fn share(all: usize, ports: usize, least: usize) -> usize {
    (all / ports.max(1)).max(least)
}

/// A public port of UDP, bound.
pub(crate) struct FlowPort {
    id: PortId,
    socket: Arc<PortSocket>,
    flows: Arc<Flows>,
    /// Of the queues of all its flows.
    budget: Arc<Budget>,
    openings: Arc<Semaphore>,
    /// Its visitors cannot be told from forged senders, so all that it does counts together.
    account: Account,
}

impl Drop for FlowPort {
    fn drop(&mut self) {
        self.flows.ports.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The port's end of a flow. Dropping it ends the flow.
struct Handle {
    inlet: Inlet,
    contact: Arc<Contact>,
    target: Arc<Target>,
    /// There is one when the flow is proven.
    place: Option<Place>,
    /// It would be proven, but there was no place.
    refused: bool,
    _present: Present,
    _gone: DropGuard,
}

impl Answered for Handle {
    fn answered(&self) -> Option<Instant> {
        self.contact.answered()
    }
}

impl FlowPort {
    /// Binds the socket.
    pub(crate) fn bind(id: PortId, address: SocketAddr, flows: Arc<Flows>) -> io::Result<Self> {
        let socket = Arc::new(PortSocket::bind(address)?);
        flows.ports.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            id,
            socket,
            flows,
            budget: Budget::new(QUEUES),
            openings: Arc::new(Semaphore::new(OPENINGS)),
            account: Account::known(),
        })
    }

    /// Serves visitors until the port closes. When the node stops, there are no new ones, and the others go on until they
    /// are silent.
    pub(crate) async fn serve(self, closing: CancellationToken) {
        let (fairness, account) = (self.flows.fairness.clone(), self.account.clone());
        Fair::new(Box::pin(self.receive(closing)), fairness, account).await;
    }

    async fn receive(self, closing: CancellationToken) {
        let Flows { streams, stop, .. } = &*self.flows;
        let Streams { registry, metrics, .. } = &**streams;
        let mut changes = registry.watch(registry.snapshot().revision());
        let (told, mut ends) = mpsc::channel(ENDS);
        let mut table = Table::new(Bounds { most: 0, unproven: 0, idle: Duration::ZERO });
        let mut buffer = vec![0; RECEIVED];
        let mut leaving = false;
        loop {
            let timeout = table.next_timeout();
            if leaving && timeout.is_none() {
                break;
            }
            tokio::select! {
                () = closed(&closing, stop), if !leaving => {
                    if !stop.is_draining() {
                        break;
                    }
                    leaving = true;
                    self.look(&mut table);
                }
                change = changes.next() => match change {
                    Some(event) if self.is_concerned(&event) => self.look(&mut table),
                    Some(_) => {}
                    None => break,
                },
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

    fn is_concerned(&self, event: &Event) -> bool {
        let is_ours = |change: &Change| {
            matches!(change, Change::Port(id, _) if *id == self.id) || matches!(change, Change::Access(..))
        };
        match event {
            Event::Changes { changes, .. } => changes.iter().any(is_ours),
            Event::Resync(_) => true,
        }
    }

    /// Ends the flows that lead where the port does not lead any more, or whose visitors may not come here now.
    fn look(&self, table: &mut Table<Handle>) {
        let Streams { registry, metrics, .. } = &*self.flows.streams;
        let snapshot = registry.snapshot();
        let port = snapshot.port(self.id);
        if let Some(port) = port {
            table.bound(self.bounds(port));
        }
        let gone = table.retain(|visitor, flow| {
            port.is_some_and(|port| flow.target.is_still(port) && Streams::allows(&snapshot, port.tunnel, visitor))
        });
        for _ in gone {
            metrics.flow(FlowEnd::Closed);
        }
    }

    fn bounds(&self, port: &Port) -> Bounds {
        let longest = if self.flows.stop.is_draining() { LEAVING_IDLE } else { LONGEST_IDLE };
        Bounds {
            most: port.options.max_connections,
            unproven: self.flows.share(UNPROVEN, LEAST_UNPROVEN),
            idle: Duration::from_secs(port.options.idle_seconds.max(1)).min(longest),
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
        let now = Instant::now();
        if let Some(flow) = table.heard(now, way.visitor, |flow| self.admit(flow, way.visitor)) {
            return self.hand(flow, received, stride);
        }
        match self.begin(table, told, now, way) {
            Ok(flow) => self.hand(flow, received, stride),
            Err(defence) => {
                self.flows.streams.metrics.defended(defence);
                tracing::debug!(visitor = %way.visitor, port = %self.id, limit = defence.label(), "a visitor is refused");
            }
        }
    }

    fn hand(&self, flow: &Handle, received: &[u8], stride: usize) {
        let Streams { metrics, .. } = &*self.flows.streams;
        let hand = |payload: &[u8]| {
            metrics.datagram_in();
            if flow.inlet.push(Bytes::copy_from_slice(payload)).is_err() {
                metrics.lost(Loss::Queue, 1);
            }
        };
        if received.is_empty() {
            hand(received);
        }
        received.chunks(stride.max(1)).for_each(hand);
    }

    /// Gives a visitor who has shown that answers reach it one of the places, if there is one.
    fn admit(&self, flow: &mut Handle, visitor: SocketAddr) -> bool {
        match self.flows.places.take(visitor.ip()) {
            Ok(place) => {
                flow.place = Some(place);
                flow.contact.prove();
                true
            }
            Err(defence) => {
                // Once, and not with each datagram.
                if !std::mem::replace(&mut flow.refused, true) {
                    self.flows.streams.metrics.defended(defence);
                }
                false
            }
        }
    }

    /// Begins a flow for a visitor, if there is room, and it may come here.
    fn begin<'table>(
        &self,
        table: &'table mut Table<Handle>,
        told: &mpsc::Sender<(SocketAddr, u64)>,
        now: Instant,
        way: Way,
    ) -> Result<&'table mut Handle, Defence> {
        let Flows { streams, stop, .. } = &*self.flows;
        if stop.is_draining() {
            return Err(Defence::NotAllowed);
        }
        let snapshot = streams.registry.snapshot();
        let port = snapshot.port(self.id).ok_or(Defence::NotAllowed)?;
        if !Streams::allows(&snapshot, port.tunnel, way.visitor) {
            return Err(Defence::NotAllowed);
        }
        let bounds = self.bounds(port);
        table.bound(bounds);
        self.budget.limit(self.flows.share(QUEUES, LEAST_QUEUES));
        let opening = OPENINGS - self.openings.available_permits();
        let turn = Arc::clone(&self.openings).try_acquire_owned().ok().filter(|_| opening < bounds.unproven / 2);
        let turn = turn.ok_or(Defence::PortOpenings)?;
        // Last, so that nobody makes room for a visitor who is refused then.
        match table.make_room() {
            Ok(None) => {}
            Ok(Some(_)) => streams.metrics.flow(FlowEnd::Displaced),
            Err(Full) => return Err(Defence::PortFull),
        }
        let target = Arc::new(Target::from(&port.value));
        let prefix = match target.options.proxy_protocol {
            Some(_) => proxy_header::datagram(way.visitor, self.socket.local(way)).into(),
            None => Bytes::new(),
        };
        let (inlet, queue) = Backlog::open(QUEUE, &self.budget);
        let (contact, gone) = (Contact::new(now), CancellationToken::new());
        let present = streams.metrics.open_flow();
        Ok(table.insert(now, way.visitor, |id| {
            let carried = Carried {
                flows: Arc::clone(&self.flows),
                socket: Arc::clone(&self.socket),
                target: Arc::clone(&target),
                way,
                prefix,
                idle: bounds.idle,
                contact: Arc::clone(&contact),
                gone: gone.clone(),
            };
            let told = told.clone();
            let carrying = Box::pin(async move {
                let Some(end) = carried.run(queue, turn).await else { return };
                carried.flows.streams.metrics.flow(end);
                // Closed: the port is, too.
                let _ = told.send((way.visitor, id)).await;
            });
            stop.spawn(Fair::new(carrying, self.flows.fairness.clone(), self.account.clone()));
            let gone = gone.drop_guard();
            Handle { inlet, contact, target, place: None, refused: false, _present: present, _gone: gone }
        }))
    }
}

/// Waits until a port closes, be it that the node stops.
async fn closed(closing: &CancellationToken, stop: &Stop) {
    tokio::select! {
        () = closing.cancelled() => {}
        () = stop.drained() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_port_takes_no_other_misses() {
        assert_eq!((share(4_096, 0, 64), share(4_096, 1, 64), share(4_096, 3, 64)), (4_096, 4_096, 1_365));
        assert_eq!(share(4_096, 1_000, 64), 64);
    }
}
