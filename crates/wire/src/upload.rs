//! The sending of a request's body, beside the wait for its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::flight::Ticket;
use crate::{BodyError, ExchangeError, Kind};

/// How long the rest of a request's body may take once its answer is complete. Whoever reads on has a little left as a
/// rule; whoever does not would otherwise hold body and stream for as long as the connection lives.
const AFTER_ANSWER: Duration = Duration::from_secs(5 * 60);

/// A request under way at the edge. Dropping it cancels the sending of the request's body.
pub(crate) struct Upload {
    task: Option<AbortHandle>,
    failure: Option<oneshot::Receiver<BodyError>>,
    /// Says that the answer is complete, by being dropped.
    answering: Option<oneshot::Sender<()>>,
    kind: Kind,
    _ticket: Arc<Ticket>,
}

impl Upload {
    /// A request whose body is sent already.
    pub(crate) fn sent(kind: Kind, ticket: Ticket) -> Self {
        Self { task: None, failure: None, answering: None, kind, _ticket: Arc::new(ticket) }
    }

    /// Sends the body in a task of its own, as soon as it is `wanted` if somebody is to say so.
    ///
    /// An error of the body itself is to be told before the stream is reset: what the agent has to say to a reset then
    /// comes too late to be taken for the origin's word.
    pub(crate) fn spawn<F>(
        kind: Kind,
        ticket: Ticket,
        wanted: Option<oneshot::Receiver<()>>,
        sending: impl FnOnce(oneshot::Sender<BodyError>) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ticket = Arc::new(ticket);
        let (failed, failure) = oneshot::channel();
        let sending = sending(failed);
        let (answering, answered) = oneshot::channel::<()>();
        let held = Arc::clone(&ticket);
        let task = tokio::spawn(async move {
            let sending = async {
                if let Some(wanted) = wanted
                    && wanted.await.is_err()
                {
                    // The answer came without it.
                    return;
                }
                sending.await;
            };
            let overdue = async {
                let _ = answered.await;
                sleep(AFTER_ANSWER).await;
            };
            tokio::select! {
                () = sending => {}
                () = overdue => {}
            }
            drop(held);
        });
        let (task, failure, answering) = (Some(task.abort_handle()), Some(failure), Some(answering));
        Self { task, failure, answering, kind, _ticket: ticket }
    }

    /// The head of the answer, unless the request's body fails before it is here.
    pub(crate) async fn answer<T>(
        &mut self,
        head: impl Future<Output = Result<T, ExchangeError>>,
    ) -> Result<T, ExchangeError> {
        let head = tokio::select! {
            biased;
            failure = self.failed() => return Err(failure),
            head = head => head,
        };
        // Whoever answers to a reset does so after the failure was told, which may have been this very moment.
        match self.failure.as_mut().and_then(|failure| failure.try_recv().ok()) {
            Some(error) => Err(ExchangeError::RequestBody(error.0)),
            None => head,
        }
    }

    /// Waits until the request's body fails; for ever if it does not.
    async fn failed(&mut self) -> ExchangeError {
        if let Some(failure) = &mut self.failure {
            if let Ok(error) = failure.await {
                return ExchangeError::RequestBody(error.0);
            }
            self.failure = None;
        }
        std::future::pending().await
    }

    /// The answer is complete. An HTTP request's body goes on for a while if the agent takes it; streams end with their
    /// answer.
    pub(crate) fn release(mut self) {
        self.answering = None;
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

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::flight::Flights;

    fn stalled(flights: &Flights) -> Upload {
        Upload::spawn(Kind::Http, flights.board(), None, |_| std::future::pending())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_failure_told_before_the_reset_outdoes_what_the_agent_says_to_it() {
        let flights = Flights::default();
        let (reset, was_reset) = oneshot::channel();
        let mut upload = Upload::spawn(Kind::Http, flights.board(), None, |failed| async move {
            failed.send(BodyError("broken".into())).expect("somebody waits");
            reset.send(()).expect("somebody waits");
        });
        // Comes out in the very poll in which it is told.
        let answer = async {
            let _ = tokio::task::block_in_place(|| was_reset.blocking_recv());
            Err::<(), _>(ExchangeError::Protocol("cut short".into()))
        };
        let error = upload.answer(answer).await.expect_err("there is no answer");
        assert!(matches!(&error, ExchangeError::RequestBody(reason) if reason == "broken"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_ends_some_time_after_the_answer() {
        let flights = Flights::default();
        let upload = stalled(&flights);
        assert!(timeout(10 * AFTER_ANSWER, flights.landed()).await.is_err(), "an answer takes the time it takes");
        let answered = Instant::now();
        upload.release();
        flights.landed().await;
        assert_eq!(answered.elapsed().as_secs(), AFTER_ANSWER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_with_an_answer_that_nobody_wants() {
        let flights = Flights::default();
        drop(stalled(&flights));
        timeout(Duration::from_millis(1), flights.landed()).await.expect("at once");
    }
}
