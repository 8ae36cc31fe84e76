use std::time::Duration;

use http::{Method, StatusCode};
use wire::Kind;

use super::fields::Fields;
use super::messages::{GrpcCounter, Tally, WebSocketCounter};
use crate::event::RequestOutcome;

/// One request and its answer, as far as they have come. Times are those of the store's clock.
#[derive(Debug)]
pub(super) struct Entry {
    /// Numbered from 1 in the order of arrival.
    pub(super) id: u64,
    /// The store's revision at the last change.
    pub(super) revision: u64,
    pub(super) kind: Kind,
    /// When it arrived, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    pub(super) arrived: Duration,
    pub(super) method: Method,
    /// The host that the visitor asked for, port and all.
    pub(super) host: String,
    /// Path and query.
    pub(super) target: String,
    /// The request that this one repeats.
    pub(super) replay_of: Option<u64>,
    pub(super) request: Message,
    pub(super) answer: Message,
    pub(super) status: Option<StatusCode>,
    pub(super) timing: Timing,
    /// `None` while it is under way.
    pub(super) outcome: Option<RequestOutcome>,
}

/// Which of the two messages of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Answer,
}

/// Head and body of a request or an answer.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) fields: Fields,
    pub(super) trailers: Option<Fields>,
    /// Bytes of the body so far.
    pub(super) bytes: u64,
    /// The beginning of the body, copied: a clone of the transport's buffer would hold all of that buffer, which is up
    /// to a thousand times more than what is shown of it.
    pub(super) kept: Vec<u8>,
    pub(super) counter: Counter,
    /// When the body was over.
    pub(super) ended: Option<Duration>,
}

/// What is counted inside a body.
#[derive(Debug, Default)]
pub(super) enum Counter {
    #[default]
    Nothing,
    /// Its bytes are masked frames, which nobody could read, so they are not kept.
    WebSocket(WebSocketCounter),
    Grpc(GrpcCounter),
}

/// When something was reached first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timing {
    /// A connection to the origin was begun, because none was idle.
    pub(super) dialled: Option<Duration>,
    pub(super) connected: Option<Duration>,
    /// TLS was established.
    pub(super) secured: Option<Duration>,
    /// The head of the answer came.
    pub(super) head: Option<Duration>,
    /// All was over.
    pub(super) ended: Option<Duration>,
}

/// A span of an exchange, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    /// Since the arrival.
    pub(super) from: Duration,
    pub(super) length: Duration,
}

impl Message {
    /// The body is over, and all of it was kept.
    pub(super) fn is_whole(&self) -> bool {
        self.ended.is_some() && self.kept.len() as u64 == self.bytes
    }

    /// Counted messages, where some are.
    pub(super) fn tally(&self) -> Option<Tally> {
        match &self.counter {
            Counter::Nothing => None,
            Counter::WebSocket(counter) => Some(counter.tally()),
            Counter::Grpc(counter) => Some(counter.tally()),
        }
    }

    fn size(&self) -> usize {
        self.fields.size() + self.trailers.as_ref().map_or(0, Fields::size) + self.kept.capacity()
    }
}

impl Entry {
    pub(super) fn message(&mut self, side: Side) -> &mut Message {
        match side {
            Side::Request => &mut self.request,
            Side::Answer => &mut self.answer,
        }
    }

    /// The memory it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + self.method.as_str().len()
            + self.host.capacity()
            + self.target.capacity()
            + self.request.size()
            + self.answer.size()
    }

    /// What the time went for, in order of the beginnings; a phase that is not over lasts until `now`.
    pub(super) fn phases(&self, now: Duration) -> Vec<Phase> {
        let Timing { dialled, connected, secured, head, ended } = self.timing;
        let end = ended.unwrap_or(now);
        let over = |at: Option<Duration>| at.unwrap_or(end);
        let mut phases = Vec::new();
        let mut add = |name, from: Duration, to: Duration| {
            let (from, length) = (from.saturating_sub(self.arrived), to.saturating_sub(from));
            phases.push(Phase { name, from, length });
        };
        if let Some(dialled) = dialled {
            add("connect", dialled, over(connected.or(head)));
        }
        if let (Some(connected), Some(secured)) = (connected, secured) {
            add("tls", connected, secured);
        }
        if self.request.bytes > 0 {
            add("request body", self.arrived, over(self.request.ended));
        }
        let ready = secured.or(connected).or(dialled).unwrap_or(self.arrived);
        if dialled.is_none() || connected.is_some() {
            add("wait", ready, over(head));
        }
        if let Some(head) = head {
            add("answer", head, end);
        }
        phases
    }
}
