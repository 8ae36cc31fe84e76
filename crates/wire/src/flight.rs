//! Counting what is under way on a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// The requests under way on one connection; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flights(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    count: AtomicUsize,
    landed: Notify,
}

impl Flights {
    /// Counts one more until the ticket is dropped.
    pub(crate) fn board(&self) -> Ticket {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Ticket { counter: Arc::clone(&self.0), slot: None }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Waits until nothing is under way.
    pub(crate) async fn landed(&self) {
        loop {
            let landed = self.0.landed.notified();
            if self.count() == 0 {
                return;
            }
            landed.await;
        }
    }
}

/// One request under way. Held until both of its bodies are done.
#[derive(Debug)]
pub(crate) struct Ticket {
    counter: Arc<Counter>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    /// Holds on to one of the streams that the other end allows, too.
    pub(crate) fn with(mut self, slot: OwnedSemaphorePermit) -> Self {
        self.slot = Some(slot);
        self
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.slot = None;
        if self.counter.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.counter.landed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_ticket_wakes_whoever_waits() {
        let flights = Flights::default();
        let (first, second) = (flights.board(), flights.board());
        assert_eq!(flights.count(), 2);
        let waiting = tokio::spawn({
            let flights = flights.clone();
            async move { flights.landed().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.expect("woken");
        flights.landed().await;
    }
}
