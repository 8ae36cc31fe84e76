//! Recording what passes: the shell between the request path and the store.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use wire::{Body, OriginError};

use super::Inspector;
use super::entry::Side;
use super::store::Stage;
use crate::event::RequestOutcome;
use crate::watched::{Watch, Watched};

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
pub(crate) struct Recording {
    tap: Tap,
    outcome: RequestOutcome,
}

impl Recording {
    pub(super) fn new(inspector: Arc<Inspector>, id: u64) -> Self {
        Self { tap: Tap { inspector, id }, outcome: RequestOutcome::Left }
    }

    /// Lets the request through, and its answer back.
    pub(crate) async fn through<F>(
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
            Body::wrap(Watched::new(body, Capture { side: Side::Request, tap: self.tap.clone(), recording: None }))
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
        let capture = Capture { side: Side::Answer, tap, recording: Some(self) };
        response.map(|body| Body::wrap(Watched::new(body, capture)))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, RequestOutcome::Left);
        self.tap.inspector.store().finished(self.tap.id, outcome, self.tap.inspector.now());
        self.tap.inspector.changed();
    }
}

/// One side of a request, whose body is on its way.
struct Capture {
    side: Side,
    tap: Tap,
    /// With the answer's body all is over.
    recording: Option<Recording>,
}

impl Watch for Capture {
    fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(bytes) = frame.data_ref() {
            self.tap.data(self.side, bytes);
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.tap.inspector.store().trailers(self.tap.id, self.side, trailers);
        }
    }

    fn ended(&mut self) {
        self.tap.ended(self.side);
        if let Some(recording) = &mut self.recording {
            recording.outcome.complete();
        }
    }
}
