//! Flows of datagrams between the tunnel and origins.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};
use wire::{Dropped, Flow, OriginError};

use crate::event::{Event, FlowEvent, FlowOutcome};
use crate::metrics::Metrics;
use crate::origin::{Peer, Sent, is_refusal};

/// Datagrams of an origin that are taken before the tunnel has its turn.
const BATCH: usize = 32;

/// One flow from its arrival to its end, whichever way it ends: counted and told when dropped.
pub(super) struct FlowRecord {
    started: Instant,
    metrics: Arc<Metrics>,
    event: FlowEvent,
    events: broadcast::Sender<Event>,
}

impl FlowRecord {
    pub(super) fn start(
        service: String,
        flow: String,
        rule: Option<usize>,
        events: &broadcast::Sender<Event>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        metrics.udp_total_sessions.inc();
        metrics.udp_active_sessions.inc();
        let event = FlowEvent {
            service,
            flow,
            rule,
            outcome: FlowOutcome::Ended,
            duration: Duration::ZERO,
            received: 0,
            sent: 0,
            dropped: 0,
        };
        Self { started: Instant::now(), metrics: Arc::clone(metrics), event, events: events.clone() }
    }

    pub(super) fn failed(&mut self, error: &OriginError) {
        self.event.outcome = FlowOutcome::Failed { fault: error.fault, text: error.text.clone() };
    }

    fn dropped(&mut self, reason: &str, count: u64) {
        self.event.dropped += count;
        self.metrics.udp_dropped.with_label_values(&[reason]).inc_by(count);
    }
}

impl Drop for FlowRecord {
    fn drop(&mut self) {
        self.metrics.udp_active_sessions.dec();
        self.event.duration = self.started.elapsed();
        // Nobody listening is fine.
        let _ = self.events.send(Event::Flow(Box::new(self.event.clone())));
    }
}

/// What a flow comes to next.
enum Next {
    Visitor(Option<Bytes>),
    Origin(io::Result<()>),
    Idle,
}

/// Carries a flow until the edge ends it, or nothing has gone either way for so long; then it says so.
pub(super) async fn carry(
    mut flow: Flow,
    mut peer: Peer,
    mut record: FlowRecord,
    idle: Option<Duration>,
) -> Option<String> {
    let mut last = Instant::now();
    loop {
        let next = tokio::select! {
            datagram = flow.recv() => Next::Visitor(datagram),
            ready = peer.readable() => Next::Origin(ready),
            () = sleep_until(last + idle.unwrap_or_default()), if idle.is_some() => Next::Idle,
        };
        match next {
            Next::Visitor(None) => {
                record.dropped("full", flow.take_lost());
                return None;
            }
            Next::Visitor(Some(payload)) => {
                last = Instant::now();
                match peer.send(&payload) {
                    Ok(Sent::Done) => record.event.received += 1,
                    Ok(Sent::Dropped) => record.dropped("origin", 1),
                    Err(error) => return Some(lost(&mut record, &error)),
                }
            }
            Next::Origin(Err(error)) => return Some(lost(&mut record, &error)),
            Next::Origin(Ok(())) => {
                for _ in 0..BATCH {
                    match peer.receive() {
                        Ok(None) => break,
                        Ok(Some(payload)) => {
                            last = Instant::now();
                            match flow.send(payload) {
                                Ok(()) => record.event.sent += 1,
                                Err(Dropped::Full) => record.dropped("full", 1),
                                Err(Dropped::TooLarge) => record.dropped("too_large", 1),
                                // Polling it tells, too.
                                Err(Dropped::Ended) => break,
                            }
                        }
                        // It may listen again in a moment, and visitors have no connection that could be refused.
                        Err(error) if is_refusal(&error) => {
                            if !peer.try_next().await {
                                record.dropped("refused", 1);
                                record.event.outcome = FlowOutcome::Refused;
                            }
                            break;
                        }
                        Err(error) => return Some(lost(&mut record, &error)),
                    }
                }
            }
            Next::Idle => {
                let idle = idle.unwrap_or_default();
                record.dropped("full", flow.take_lost());
                return Some(format!("session idle for {idle:?}"));
            }
        }
    }
}

fn lost(record: &mut FlowRecord, error: &io::Error) -> String {
    let text = format!("the socket to the origin failed: {error}");
    record.failed(&OriginError::new(wire::OriginFault::Unknown, text.clone()));
    text
}
