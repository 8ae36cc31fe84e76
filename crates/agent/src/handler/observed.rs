use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::broadcast;
use wire::{Body, BodyError, Kind, OriginError};

use crate::event::{Event, RequestEvent, RequestOutcome};
use crate::metrics::Metrics;
use crate::origin::AnswerBody;

/// One request from its arrival to its end, whichever way it ends: counted and told when dropped.
pub(super) struct Record {
    started: Instant,
    metrics: Arc<Metrics>,
    /// Only when somebody listens.
    telling: Option<(Box<RequestEvent>, broadcast::Sender<Event>)>,
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
            (Box::new(event), events.clone())
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
        self.metrics.response_by_code.with_label_values(&[&status.to_string()]).inc();
        // A WebSocket ends when either side leaves: it cannot be cut short.
        let whole = response.body().is_end_stream() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
        self.outcome = if whole { RequestOutcome::Answered(status) } else { RequestOutcome::Cut(status) };
        response.map(|body| Body::wrap(Observed { body, record: self }))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.concurrent_requests.dec();
        if let Some((mut event, events)) = self.telling.take() {
            event.outcome = std::mem::replace(&mut self.outcome, RequestOutcome::Left);
            event.duration = self.started.elapsed();
            event.bytes = self.bytes;
            let _ = events.send(Event::Request(event));
        }
    }
}

/// The answer's body on its way out.
struct Observed {
    body: AnswerBody,
    record: Record,
}

impl Observed {
    fn ended(&mut self) {
        if let RequestOutcome::Cut(status) = self.record.outcome {
            self.record.outcome = RequestOutcome::Answered(status);
        }
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // The transport may not poll again after the last frame; trailers always are that.
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.ended();
                }
            }
            Poll::Ready(None) => this.ended(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
