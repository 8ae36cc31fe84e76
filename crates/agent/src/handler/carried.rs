use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::broadcast;
use wire::OriginError;

use super::Room;
use crate::event::{Event, StreamEvent, StreamOutcome};
use crate::metrics::Metrics;
use crate::origin::Connected;

/// One byte stream from its arrival to its end, whichever way it ends: counted and told when dropped.
pub(super) struct StreamRecord {
    started: Instant,
    metrics: Arc<Metrics>,
    event: StreamEvent,
    events: broadcast::Sender<Event>,
}

impl StreamRecord {
    pub(super) fn start(
        service: &str,
        flow: String,
        rule: Option<usize>,
        events: &broadcast::Sender<Event>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        metrics.tcp_total_sessions.inc();
        metrics.tcp_active_sessions.inc();
        let event = StreamEvent {
            service: service.to_owned(),
            flow,
            rule,
            outcome: StreamOutcome::Cut,
            duration: std::time::Duration::ZERO,
            received: 0,
            sent: 0,
        };
        Self { started: Instant::now(), metrics: Arc::clone(metrics), event, events: events.clone() }
    }

    pub(super) fn failed(&mut self, error: &OriginError) {
        self.event.outcome = StreamOutcome::Failed { fault: error.fault, text: error.text.clone() };
    }
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        self.metrics.tcp_active_sessions.dec();
        self.event.duration = self.started.elapsed();
        // Nobody listening is fine.
        let _ = self.events.send(Event::Stream(Box::new(self.event.clone())));
    }
}

/// A connection to an origin, whose bytes are counted.
pub(super) struct Carried {
    origin: Connected,
    origin_ended: bool,
    visitor_ended: bool,
    record: StreamRecord,
    _room: Option<Room>,
}

impl Carried {
    pub(super) fn new(origin: Connected, record: StreamRecord) -> Self {
        Self { origin, origin_ended: false, visitor_ended: false, record, _room: None }
    }

    /// Counts as one of the flows that there may be.
    pub(super) fn with(self, room: Room) -> Self {
        Self { _room: Some(room), ..self }
    }

    fn note_end(&mut self) {
        if self.origin_ended && self.visitor_ended {
            self.record.event.outcome = StreamOutcome::Ended;
        }
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.origin).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.record.event.sent += read as u64;
        if read == 0 {
            self.origin_ended = true;
            self.note_end();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.origin).poll_write(context, bytes))?;
        self.record.event.received += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.origin).poll_write_vectored(context, pieces))?;
        self.record.event.received += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.origin.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.origin).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.origin).poll_shutdown(context))?;
        self.visitor_ended = true;
        self.note_end();
        Poll::Ready(Ok(()))
    }
}
