//! The sending of a request's body, beside the wait for its answer.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::flight::Ticket;
use crate::{BodyError, ExchangeError, Kind};

/// A request under way at the edge. Dropping it cancels the sending of the request's body.
pub(crate) struct Upload {
    task: Option<AbortHandle>,
    failure: Option<oneshot::Receiver<BodyError>>,
    kind: Kind,
    _ticket: Arc<Ticket>,
}

impl Upload {
    /// A request whose body is sent already.
    pub(crate) fn sent(kind: Kind, ticket: Ticket) -> Self {
        Self { task: None, failure: None, kind, _ticket: Arc::new(ticket) }
    }

    /// Sends the body in a task of its own, which answers the error if the body itself failed.
    pub(crate) fn spawn<F>(kind: Kind, ticket: Ticket, sending: F) -> Self
    where
        F: Future<Output = Result<(), BodyError>> + Send + 'static,
    {
        let ticket = Arc::new(ticket);
        let (failed, failure) = oneshot::channel();
        let held = Arc::clone(&ticket);
        let task = tokio::spawn(async move {
            if let Err(error) = sending.await {
                // Nobody listening means that the answer has begun: it ends with the stream that was reset.
                let _ = failed.send(error);
            }
            drop(held);
        });
        Self { task: Some(task.abort_handle()), failure: Some(failure), kind, _ticket: ticket }
    }

    /// Waits until the request's body fails; for ever if it does not.
    pub(crate) async fn failed(&mut self) -> ExchangeError {
        if let Some(failure) = &mut self.failure {
            if let Ok(error) = failure.await {
                return ExchangeError::RequestBody(error.0);
            }
            self.failure = None;
        }
        std::future::pending().await
    }

    /// The answer is complete. An HTTP request's body goes on for as long as the agent takes it; streams end with their
    /// answer.
    pub(crate) fn release(mut self) {
        if self.kind == Kind::Http {
            self.task = None;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
