use std::collections::VecDeque;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use wire::Kind;

use super::entry::{Counter, Entry, Message, Side, Timing};
use super::fields::Fields;
use super::messages::{GrpcCounter, WebSocketCounter};
use crate::event::RequestOutcome;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Requests; the oldest goes when another comes.
    pub(super) requests: usize,
    /// Bytes of the header fields of one message, and of its trailers.
    pub(super) head: usize,
    /// Bytes of one body.
    pub(super) body: usize,
    /// Bytes of everything; the oldest requests go when there are more.
    pub(super) total: usize,
    /// Requests a second that are recorded in the long run; a burst of [`Limits::requests`] is recorded whole.
    pub(super) rate: u32,
}

impl Limits {
    /// As many requests as a person scrolls through, with the bodies of usual pages and calls, in memory that no
    /// machine misses. Beyond a hundred a second nobody reads the list, and recording would cost a loaded agent time.
    pub(super) const DEFAULT: Self =
        Self { requests: 500, head: 32 * 1024, body: 256 * 1024, total: 16 * 1024 * 1024, rate: 100 };
}

/// A request that begins.
#[derive(Debug)]
pub(super) struct Beginning<'a> {
    pub(super) kind: Kind,
    pub(super) method: &'a Method,
    pub(super) host: &'a str,
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// When it arrived, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    pub(super) replay_of: Option<u64>,
}

/// What a request has reached on its way to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A connection to the origin is begun.
    Dialled,
    /// The transport is there.
    Connected,
    /// TLS is there.
    Secured,
}

/// The latest requests. The time is passed in, as what has gone since the store was made.
#[derive(Debug)]
pub(super) struct Store {
    limits: Limits,
    /// By ascending ids without gaps.
    entries: VecDeque<Entry>,
    next: u64,
    size: usize,
    revision: u64,
    /// When the allowance would be full again, as in the generic cell rate algorithm.
    allowed_from: Duration,
    passed_over: u64,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            next: 1,
            size: 0,
            revision: 0,
            allowed_from: Duration::ZERO,
            passed_over: 0,
        }
    }

    /// Records a request, unless there are too many: then there is no id, and nothing of it is kept.
    pub(super) fn begin(&mut self, now: Duration, beginning: &Beginning<'_>) -> Option<u64> {
        // What a person does is never too much.
        if beginning.replay_of.is_none() && !self.allowed(now) {
            self.passed_over += 1;
            self.revision += 1;
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.revision += 1;
        let mut request = Message { fields: Fields::keep(beginning.headers, self.limits.head), ..Message::default() };
        request.counter = match beginning.kind {
            Kind::WebSocket => Counter::WebSocket(WebSocketCounter::default()),
            Kind::Http => grpc(beginning.headers),
        };
        let entry = Entry {
            id,
            revision: self.revision,
            kind: beginning.kind,
            unix_ms: beginning.unix_ms,
            arrived: now,
            method: beginning.method.clone(),
            host: beginning.host.to_owned(),
            target: beginning.target.to_owned(),
            replay_of: beginning.replay_of,
            request,
            answer: Message::default(),
            status: None,
            timing: Timing::default(),
            outcome: None,
        };
        self.size += entry.size();
        self.entries.push_back(entry);
        self.trim();
        Some(id)
    }

    /// A stage was reached.
    pub(super) fn reached(&mut self, id: u64, stage: Stage, now: Duration) {
        self.change(id, |entry, _| {
            let timing = &mut entry.timing;
            match stage {
                // A request that is sent again on another connection begins anew.
                Stage::Dialled => (timing.dialled, timing.connected, timing.secured) = (Some(now), None, None),
                Stage::Connected => timing.connected = Some(now),
                Stage::Secured => timing.secured = Some(now),
            }
        });
    }

    /// The head of the answer came.
    pub(super) fn answered(&mut self, id: u64, status: StatusCode, headers: &HeaderMap, now: Duration) {
        self.change(id, |entry, limits| {
            entry.status = Some(status);
            entry.timing.head = Some(now);
            entry.answer.fields = Fields::keep(headers, limits.head);
            entry.answer.counter = match (entry.kind, status) {
                (Kind::WebSocket, StatusCode::SWITCHING_PROTOCOLS) => Counter::WebSocket(WebSocketCounter::default()),
                _ => grpc(headers),
            };
        });
    }

    /// Bytes of a body passed.
    pub(super) fn data(&mut self, id: u64, side: Side, bytes: &[u8]) {
        self.change(id, |entry, limits| {
            let message = entry.message(side);
            message.bytes += bytes.len() as u64;
            match &mut message.counter {
                Counter::WebSocket(counter) => return counter.take(bytes),
                Counter::Grpc(counter) => counter.take(bytes),
                Counter::Nothing => {}
            }
            let room = limits.body.saturating_sub(message.kept.len()).min(bytes.len());
            if room > message.kept.capacity() - message.kept.len() {
                // Doubling as a vector does, but never beyond the limit.
                let wanted = (message.kept.len() + room).max(2 * message.kept.capacity()).min(limits.body);
                message.kept.reserve_exact(wanted - message.kept.len());
            }
            message.kept.extend_from_slice(&bytes[..room]);
        });
    }

    /// Trailers came, which end the body.
    pub(super) fn trailers(&mut self, id: u64, side: Side, trailers: &HeaderMap) {
        self.change(id, |entry, limits| {
            entry.message(side).trailers = Some(Fields::keep(trailers, limits.head));
        });
    }

    /// A body is over.
    pub(super) fn ended(&mut self, id: u64, side: Side, now: Duration) {
        self.change(id, |entry, _| {
            let message = entry.message(side);
            message.ended.get_or_insert(now);
            message.kept.shrink_to_fit();
        });
    }

    /// Nothing more will come.
    pub(super) fn finished(&mut self, id: u64, outcome: RequestOutcome, now: Duration) {
        self.change(id, |entry, _| {
            entry.outcome = Some(outcome);
            entry.timing.ended = Some(now);
        });
    }

    /// Forgets all requests; those under way as well.
    pub(super) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.size = 0;
        self.passed_over = 0;
        self.revision += 1;
    }

    /// One request.
    pub(super) fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.get(self.place(id)?)
    }

    /// The requests that have changed since this revision, oldest first.
    pub(super) fn since(&self, revision: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.revision > revision)
    }

    /// Counts every change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The id of the oldest request that is kept, or of the next one.
    pub(super) fn oldest(&self) -> u64 {
        self.entries.front().map_or(self.next, |entry| entry.id)
    }

    /// Requests that were too many to be recorded.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    fn allowed(&mut self, now: Duration) -> bool {
        let pause = Duration::from_secs(1) / self.limits.rate;
        let burst = pause * u32::try_from(self.limits.requests).unwrap_or(u32::MAX);
        let next = self.allowed_from.max(now) + pause;
        let allowed = next - now <= burst;
        if allowed {
            self.allowed_from = next;
        }
        allowed
    }

    fn place(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.entries.front()?.id)?).ok()
    }

    /// Changes a request that is still kept.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entry, Limits)) {
        let Some(entry) = self.place(id).and_then(|place| self.entries.get_mut(place)) else { return };
        self.revision += 1;
        entry.revision = self.revision;
        let before = entry.size();
        change(entry, self.limits);
        self.size = self.size - before + entry.size();
        self.trim();
    }

    fn trim(&mut self) {
        while self.entries.len() > self.limits.requests || self.size > self.limits.total {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.size -= oldest.size();
        }
    }
}

/// gRPC and gRPC-Web frame their messages alike, but for the text form, which is base64.
fn grpc(headers: &HeaderMap) -> Counter {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web-text") {
        Counter::Grpc(GrpcCounter::default())
    } else {
        Counter::Nothing
    }
}

#[cfg(test)]
mod tests;
