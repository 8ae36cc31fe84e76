use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::sync::broadcast;
use wire::{Body, Kind, OriginError};

use crate::event::{Event, RequestEvent, RequestOutcome};
use crate::metrics::Metrics;
use crate::origin::AnswerBody;
use crate::watched::{Watch, Watched};

/// One request from its arrival to its end, whichever way it ends: counted and told when dropped.
pub(super) struct Record {
    started: Instant,
    metrics: Arc<Metrics>,
    /// Only when somebody listens.
    telling: Option<(Arc<RequestEvent>, broadcast::Sender<Event>)>,
    outcome: RequestOutcome,
    bytes: u64,
}

impl Record {
    pub(super) fn start(
        kind: Kind,
        request: &Request<Body>,
        host: &str,
        rule: usize,
        events: &broadcast::Sender<Event>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        metrics.total_requests.inc();
        metrics.concurrent_requests.inc();
        let telling = (events.receiver_count() > 0).then(|| {
            let event = RequestEvent {
                kind,
                method: request.method().clone(),
                host: host.to_owned(),
                path: request.uri().path().to_owned(),
                rule,
                outcome: RequestOutcome::Left,
                duration: std::time::Duration::ZERO,
                bytes: 0,
            };
            (Arc::new(event), events.clone())
        });
        Self { started: Instant::now(), metrics: Arc::clone(metrics), telling, outcome: RequestOutcome::Left, bytes: 0 }
    }

    pub(super) fn failed(&mut self, error: &OriginError) {
        self.metrics.request_errors.inc();
        self.outcome = RequestOutcome::Failed { fault: error.fault, text: error.text.clone() };
    }

    /// From here on the record lives and dies with the answer's body.
    pub(super) fn observe(mut self, response: Response<AnswerBody>) -> Response<Body> {
        let status = response.status().as_u16();
        self.metrics.answered(response.status());
        self.outcome = RequestOutcome::Answered(status);
        let (head, body) = response.into_parts();
        let body = match body.into_full() {
            Ok(body) => {
                self.bytes = body.size_hint().lower();
                body
            }
            Err(body) => {
                // A WebSocket ends when either side leaves: it cannot be cut short.
                if !body.is_end_stream() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    self.outcome = RequestOutcome::Cut(status);
                }
                Body::wrap(Watched::new(body, self))
            }
        };
        Response::from_parts(head, body)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.concurrent_requests.dec();
        if let Some((mut event, events)) = self.telling.take() {
            let told = Arc::get_mut(&mut event).expect("nobody else has it before it is sent");
            told.outcome = std::mem::replace(&mut self.outcome, RequestOutcome::Left);
            told.duration = self.started.elapsed();
            told.bytes = self.bytes;
            let _ = events.send(Event::Request(event));
        }
    }
}

/// The answer's body on its way out.
impl Watch for Record {
    fn frame(&mut self, frame: &Frame<Bytes>) {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }

    fn ended(&mut self) {
        self.outcome.complete();
    }
}
