//! Recording what passes: the shell between the request path and the store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use wire::{Body, BodyError, OriginError};

use super::Inspector;
use super::entry::Side;
use super::store::Stage;
use crate::event::RequestOutcome;

tokio::task_local! {
    /// The recorded request that the current task is about.
    static CURRENT: Tap;
}

/// The request that is under way in this task has reached a stage. Nothing happens if none is recorded.
pub(crate) fn reached(stage: Stage) {
    // No recording is the usual case.
    let _ = CURRENT.try_with(|tap| tap.inspector.store().reached(tap.id, stage, tap.inspector.now()));
}

/// Where a recorded request is.
#[derive(Clone)]
struct Tap {
    inspector: Arc<Inspector>,
    id: u64,
}

impl Tap {
    fn data(&self, side: Side, bytes: &[u8]) {
        self.inspector.store().data(self.id, side, bytes);
        self.inspector.changed();
    }

    fn ended(&self, side: Side) {
        self.inspector.store().ended(self.id, side, self.inspector.now());
        self.inspector.changed();
    }
}

/// A recorded request. When it is dropped, the request is over.
pub(super) struct Recording {
    tap: Tap,
    outcome: RequestOutcome,
}

impl Recording {
    pub(super) fn new(inspector: Arc<Inspector>, id: u64) -> Self {
        Self { tap: Tap { inspector, id }, outcome: RequestOutcome::Left }
    }

    /// Lets the request through, and its answer back.
    pub(super) async fn through<F>(
        mut self,
        request: Request<Body>,
        exchange: impl FnOnce(Request<Body>) -> F,
    ) -> Result<Response<Body>, OriginError>
    where
        F: Future<Output = Result<Response<Body>, OriginError>>,
    {
        let request = request.map(|body| {
            if body.is_end_stream() {
                self.tap.ended(Side::Request);
                return body;
            }
            Body::wrap(Captured { body, side: Side::Request, tap: self.tap.clone(), recording: None, over: false })
        });
        match CURRENT.scope(self.tap.clone(), exchange(request)).await {
            Ok(response) => Ok(self.answered(response)),
            Err(error) => {
                self.outcome = RequestOutcome::Failed { fault: error.fault, text: error.text.clone() };
                Err(error)
            }
        }
    }

    fn answered(mut self, response: Response<Body>) -> Response<Body> {
        let (tap, status) = (self.tap.clone(), response.status());
        tap.inspector.store().answered(tap.id, status, response.headers(), tap.inspector.now());
        tap.inspector.changed();
        let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        let empty = response.body().is_end_stream();
        // A WebSocket ends when either side leaves: it cannot be cut short.
        let whole = upgraded || empty;
        self.outcome =
            if whole { RequestOutcome::Answered(status.as_u16()) } else { RequestOutcome::Cut(status.as_u16()) };
        if empty {
            tap.ended(Side::Answer);
            return response;
        }
        response.map(|body| Body::wrap(Captured { body, side: Side::Answer, tap, recording: Some(self), over: false }))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, RequestOutcome::Left);
        self.tap.inspector.store().finished(self.tap.id, outcome, self.tap.inspector.now());
        self.tap.inspector.changed();
    }
}

/// A body whose bytes are seen as they pass. It is polled exactly as the one inside is.
struct Captured {
    body: Body,
    side: Side,
    tap: Tap,
    /// With the answer's body all is over.
    recording: Option<Recording>,
    over: bool,
}

impl Captured {
    fn over(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.tap.ended(self.side);
        if let Some(recording) = &mut self.recording
            && let RequestOutcome::Cut(status) = recording.outcome
        {
            recording.outcome = RequestOutcome::Answered(status);
        }
    }
}

impl http_body::Body for Captured {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    this.tap.data(this.side, bytes);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.tap.inspector.store().trailers(this.tap.id, this.side, trailers);
                }
                // Whoever reads may not poll again after the last frame; trailers always are that.
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.over();
                }
            }
            Poll::Ready(None) => this.over(),
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
