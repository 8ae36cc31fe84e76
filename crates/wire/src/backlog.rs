//! Queues of datagrams that are bounded in bytes: each by itself, and several together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::Dropped;

/// What a datagram takes beside its bytes, so that empty ones are bounded, too: its place in the queue, and what the
/// allocator keeps of it.
const ENTRY: usize = 64;

/// Bytes that several queues may hold together.
#[derive(Debug)]
pub struct Budget {
    most: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), used: AtomicUsize::new(0) })
    }

    /// So many bytes from now on. What is queued beyond it stays.
    pub fn limit(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What all that is queued counts against.
#[derive(Debug, Clone)]
struct Account {
    own: Arc<Budget>,
    shared: Arc<Budget>,
}

impl Account {
    fn take(&self, payload: &Bytes) -> bool {
        let bytes = ENTRY + payload.len();
        if !self.own.take(bytes) {
            return false;
        }
        let taken = self.shared.take(bytes);
        if !taken {
            self.own.give(bytes);
        }
        taken
    }

    fn give(&self, payload: &Bytes) {
        let bytes = ENTRY + payload.len();
        self.own.give(bytes);
        self.shared.give(bytes);
    }
}

/// Where datagrams are put into a [`Backlog`]. Dropping it ends the queue after what is in it.
#[derive(Debug)]
pub struct Inlet {
    sender: mpsc::UnboundedSender<Bytes>,
    account: Account,
}

impl Inlet {
    /// Queues a datagram.
    ///
    /// # Errors
    /// There is no room for it, or nobody takes it any more.
    pub fn push(&self, payload: Bytes) -> Result<(), Dropped> {
        if !self.account.take(&payload) {
            return Err(Dropped::Full);
        }
        self.sender.send(payload).map_err(|mpsc::error::SendError(payload)| {
            self.account.give(&payload);
            Dropped::Ended
        })
    }
}

/// Datagrams that wait to be taken.
#[derive(Debug)]
pub struct Backlog {
    // Its bound are the bytes.
    receiver: mpsc::UnboundedReceiver<Bytes>,
    account: Account,
}

impl Backlog {
    /// A queue for so many bytes, as long as all that share a budget keep to that.
    pub fn open(most: usize, shared: &Arc<Budget>) -> (Inlet, Self) {
        let account = Account { own: Budget::new(most), shared: Arc::clone(shared) };
        let (sender, receiver) = mpsc::unbounded_channel();
        (Inlet { sender, account: account.clone() }, Self { receiver, account })
    }

    /// The next one; `None`: the inlet is gone, and nothing is left. Cancel safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    pub(crate) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let received = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(payload)) = &received {
            self.account.give(payload);
        }
        received
    }

    /// Takes nothing more, and answers how many datagrams were left.
    pub fn abandon(&mut self) -> u64 {
        self.receiver.close();
        let mut left = 0;
        while let Ok(payload) = self.receiver.try_recv() {
            self.account.give(&payload);
            left += 1;
        }
        left
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn used(budget: &Budget) -> usize {
        budget.used.load(Ordering::Relaxed)
    }

    #[test]
    fn bytes_are_bounded_and_not_datagrams() {
        let shared = Budget::new(1 << 20);
        let (inlet, mut backlog) = Backlog::open(10_000, &shared);
        let large = Bytes::from(vec![0; 4_000]);
        let fit = |payload: &Bytes| (0..).take_while(|_| inlet.push(payload.clone()).is_ok()).count();
        assert_eq!(fit(&large), 2);
        assert_eq!(fit(&Bytes::new()), (10_000 - 2 * 4_064) / ENTRY);
        assert_eq!(backlog.recv().now_or_never(), Some(Some(large.clone())));
        inlet.push(large).expect("there is room again");
        assert_eq!(backlog.abandon(), 31);
        assert_eq!(inlet.push(Bytes::new()), Err(Dropped::Ended));
        assert_eq!((used(&shared), used(&inlet.account.own)), (0, 0));
    }

    #[test]
    fn several_share_a_budget() {
        let shared = Budget::new(1_000);
        let (one, backlog) = Backlog::open(10_000, &shared);
        let (other, _kept) = Backlog::open(10_000, &shared);
        let payload = Bytes::from(vec![0; 500]);
        one.push(payload.clone()).expect("there is room");
        assert_eq!(other.push(payload.clone()), Err(Dropped::Full));
        assert_eq!(used(&other.account.own), 0, "what was not taken does not count");
        shared.limit(2_000);
        other.push(payload.clone()).expect("there is room now");
        drop(backlog);
        assert_eq!(used(&shared), 564);
        shared.limit(0);
        assert_eq!(other.push(payload), Err(Dropped::Full));
    }

    #[tokio::test]
    async fn the_rest_comes_after_the_inlet_is_gone() {
        let (inlet, mut backlog) = Backlog::open(1_000, &Budget::new(1_000));
        inlet.push(Bytes::from_static(b"last")).expect("there is room");
        drop(inlet);
        assert_eq!((backlog.recv().await.as_deref(), backlog.recv().await), (Some(&b"last"[..]), None));
    }
}
