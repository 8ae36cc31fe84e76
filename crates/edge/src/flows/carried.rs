//! One flow: over which connection its datagrams go, and what is answered.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wire::{Backlog, Connection, Dropped, ExchangeError, Flow, FlowRequest};

use super::Flows;
use super::credit::Credit;
use super::socket::{PortSocket, Way};
use super::vigil::Vigil;
use crate::dispatch::{Carrier as _, Pool as _};
use crate::metrics::{FlowEnd, Loss};
use crate::streams::{Streams, Target};
use crate::tunnels::Live;

/// Longer than agents take to look a name up, and than a node waits for a connector that is about to come back.
const OPEN: Duration = Duration::from_secs(35);

/// A flow that leads nowhere is not tried again for this time: visitors of UDP knock often, and each try asks an agent.
const PAUSE: Duration = Duration::from_secs(1);

/// How long answers are waited for over a connection that takes nothing new any more.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What both ends of a flow know of its visitor.
pub(super) struct Contact {
    started: Instant,
    /// Milliseconds since then, and one; zero is never.
    answered: AtomicU64,
    proven: AtomicBool,
}

impl Contact {
    pub(super) fn new(started: Instant) -> Arc<Self> {
        Arc::new(Self { started, answered: AtomicU64::new(0), proven: AtomicBool::new(false) })
    }

    fn note_answer(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.answered.store(now + 1, Ordering::Relaxed);
    }

    /// When an answer went to the visitor for the last time.
    pub(super) fn answered(&self) -> Option<Instant> {
        let answered = self.answered.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started + Duration::from_millis(answered))
    }

    /// The visitor has shown that answers reach it.
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

/// The task of one flow.
pub(super) struct Carried {
    pub(super) flows: Arc<Flows>,
    pub(super) socket: Arc<PortSocket>,
    pub(super) target: Arc<Target>,
    pub(super) way: Way,
    /// In front of each datagram to the origin.
    pub(super) prefix: Bytes,
    pub(super) idle: Duration,
    pub(super) contact: Arc<Contact>,
    /// Cancelled when the port has given the flow up.
    pub(super) gone: CancellationToken,
}

/// A flow over one connection, which may take nothing new any more.
struct Open {
    flow: Flow,
    carrier: Arc<Live>,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum Next {
    Visitor(Option<Bytes>),
    Origin(Option<Bytes>),
    Leave,
    /// The connection may be silent.
    Look,
}

impl Carried {
    /// Carries datagrams until the port has given the flow up. `Some`: it leads nowhere. `turn` is held until it is open for
    /// the first time.
    pub(super) async fn run(&self, mut queue: Backlog, turn: OwnedSemaphorePermit) -> Option<FlowEnd> {
        let end = self.go_on(&mut queue, turn).await;
        self.lost(Loss::NoWay, queue.abandon());
        end
    }

    async fn go_on(&self, queue: &mut Backlog, turn: OwnedSemaphorePermit) -> Option<FlowEnd> {
        let (mut turn, mut credit) = (Some(turn), Credit::default());
        let mut next = None;
        loop {
            // A connection is looked for only when there is something to carry.
            let first = queue.recv().await?;
            let opened = self.gone.run_until_cancelled(timeout(OPEN, self.open(next.take()))).await;
            drop(turn.take());
            let Some(opened) = opened else {
                self.lost(Loss::NoWay, 1);
                return None;
            };
            match opened.unwrap_or_else(|_| Err((FlowEnd::Failed, "nothing answered in time".to_owned()))) {
                Ok(open) => next = self.carry(open, first, queue, &mut credit).await?,
                Err((end, reason)) => {
                    let Target { tunnel, service, .. } = &*self.target;
                    // Visitors could fill a log with it.
                    tracing::debug!(%tunnel, service, %reason, "a visitor's datagrams lead nowhere");
                    return self.give_up(queue, end).await;
                }
            }
        }
    }

    /// Drops what comes for a moment.
    async fn give_up(&self, queue: &mut Backlog, end: FlowEnd) -> Option<FlowEnd> {
        let dropping = async {
            while queue.recv().await.is_some() {
                self.lost(Loss::NoWay, 1);
            }
        };
        self.lost(Loss::NoWay, 1);
        match timeout(PAUSE, dropping).await {
            // The port has given it up meanwhile.
            Ok(()) => None,
            Err(_) => Some(end),
        }
    }

    /// Carries datagrams over one connection until that is gone or takes nothing new, or is silent while another one is not,
    /// which is told then. `None`: until the flow has ended.
    async fn carry(
        &self,
        open: Open,
        first: Bytes,
        queue: &mut Backlog,
        credit: &mut Credit,
    ) -> Option<Option<Arc<Live>>> {
        let Open { mut flow, carrier, mut leaving } = open;
        let pool = self.flows.streams.tunnels.pool(self.target.tunnel);
        let mut left = None;
        let mut vigil = Vigil::new(carrier);
        // Set again only when it is over, and not with each datagram.
        let mut look = pin!(sleep(Duration::ZERO));
        credit.heard(first.len());
        self.send(&mut flow, first);
        vigil.said(Instant::now());
        loop {
            let next = tokio::select! {
                datagram = queue.recv(), if left.is_none() => Next::Visitor(datagram),
                answer = flow.recv() => Next::Origin(answer),
                () = &mut leaving, if left.is_none() => Next::Leave,
                () = sleep_until(left.unwrap_or_else(Instant::now)), if left.is_some() => Next::Origin(None),
                () = &mut look, if vigil.due().is_some() => Next::Look,
            };
            match next {
                Next::Visitor(None) => {
                    self.lost(Loss::Full, flow.take_lost());
                    return None;
                }
                Next::Visitor(Some(payload)) => {
                    credit.heard(payload.len());
                    self.send(&mut flow, payload);
                    vigil.said(Instant::now());
                }
                Next::Origin(Some(payload)) => {
                    vigil.answered();
                    self.answer(credit, &payload);
                }
                Next::Origin(None) => {
                    self.lost(Loss::Full, flow.take_lost());
                    return Some(None);
                }
                // The rest goes over another connection, once the last answers are here.
                Next::Leave => left = Some(Instant::now() + LAST_ANSWERS),
                Next::Look => {
                    let own = vigil.carrier().identity();
                    let other = vigil.leaves_for(Instant::now(), || pool.pick(&[own]));
                    if other.is_some() {
                        tracing::debug!(connection = %own.connection, "a flow leaves a silent connection");
                        self.lost(Loss::Full, flow.take_lost());
                        return Some(other);
                    }
                    if let Some(due) = vigil.due() {
                        look.as_mut().reset(due);
                    }
                }
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

    fn answer(&self, credit: &mut Credit, payload: &[u8]) {
        if !self.contact.proven.load(Ordering::Relaxed) && !credit.spend(payload.len()) {
            return self.lost(Loss::Unproven, 1);
        }
        // Before it is on its way: what the visitor says to it may come at once.
        self.contact.note_answer();
        match self.socket.send(self.way, payload) {
            Ok(()) => self.flows.streams.metrics.datagram_out(),
            Err(error) => {
                tracing::trace!(visitor = %self.way.visitor, %error, "an answer was dropped");
                self.lost(Loss::Visitor, 1);
            }
        }
    }

    fn lost(&self, reason: Loss, count: u64) {
        self.flows.streams.metrics.lost(reason, count);
    }

    /// Opens the flow over some connection of the tunnel, `first` before all others. Nothing of the visitor's is under way yet,
    /// so any may be tried.
    async fn open(&self, mut first: Option<Arc<Live>>) -> Result<Open, (FlowEnd, String)> {
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
            let picked = match first.take().or_else(|| pool.pick(&tried)) {
                Some(picked) => Some(picked),
                None => pool.await_one(&tried, limits.reconnect_wait).await,
            };
            let Some(carrier) = picked else { break };
            tried.push(carrier.identity());
            match carrier.open_flow(&request).await {
                Ok((flow, connection)) => return Ok(Open { flow, carrier, leaving: Box::pin(left(connection)) }),
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
