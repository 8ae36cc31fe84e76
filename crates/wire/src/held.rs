//! What readers who take nothing hold of a connection: its window is everybody's, and each of their answers keeps a part of it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::BodyError;
use crate::body::Promise;

/// Between two looks at what is held, while anything is.
const LOOK: Duration = Duration::from_secs(1);
/// Who took something as short a while ago is slow and goes on. With pieces of 16 KiB it is 3 KB/s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer that may wait whatever others do: thousands of them fit into a connection's window.
const SHORT: u64 = 16 << 10;

/// A stream that comes in, as far as it may be given up from outside.
pub(crate) trait Stream: Send + 'static {
    /// Bytes that have come in and are not taken yet, or as many as there may be.
    fn held(&mut self) -> usize;
}

/// The answers of one connection that are not whole and have a reader who may be slow.
pub(crate) struct Holders<S> {
    slots: Mutex<Vec<Weak<Slot<S>>>>,
    came: Notify,
    /// Bytes beyond which those who take nothing are given up.
    most: usize,
}

/// A stream whose reader may lose it.
pub(crate) enum Reading<S> {
    /// It is short: most are, and nobody has to look at them.
    Alone(S),
    /// It is among those that are looked at.
    Watched(Arc<Slot<S>>),
}

pub(crate) struct Slot<S>(Mutex<State<S>>);

struct State<S> {
    /// `None`: it was given up.
    stream: Option<S>,
    /// Since when its reader has not asked for more; `None`: it waits for the stream.
    idle_since: Option<Instant>,
}

impl<S: Stream> Holders<S> {
    /// None yet. Together they may hold about so many bytes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), came: Notify::new(), most })
    }

    /// Watches a stream, unless it is so short that it does not matter. `promise` is what it is to bring.
    pub(crate) fn watch(&self, stream: S, promise: Promise) -> Reading<S> {
        if matches!(promise, Promise::Nothing | Promise::Bytes(..=SHORT)) {
            return Reading::Alone(stream);
        }
        let state = State { stream: Some(stream), idle_since: Some(Instant::now()) };
        let slot = Arc::new(Slot(Mutex::new(state)));
        let mut slots = lock(&self.slots);
        if slots.is_empty() {
            self.came.notify_one();
        }
        slots.push(Arc::downgrade(&slot));
        Reading::Watched(slot)
    }

    /// Gives up streams whose readers take nothing, whenever they hold too much. Goes on until it is dropped.
    pub(crate) async fn relieve(&self) -> Infallible {
        loop {
            if self.look(Instant::now()) {
                tokio::time::sleep(LOOK).await;
            } else {
                self.came.notified().await;
            }
        }
    }

    /// Answers whether there is anybody to look at.
    fn look(&self, now: Instant) -> bool {
        let (slots, any): (Vec<_>, _) = {
            let mut slots = lock(&self.slots);
            slots.retain(|slot| slot.strong_count() > 0);
            // Whoever comes next tells of it only if the list is empty, whatever becomes of those in it meanwhile.
            (slots.iter().filter_map(Weak::upgrade).collect(), !slots.is_empty())
        };
        let mut idle: Vec<_> = slots.iter().filter_map(|slot| slot.idle()).filter(|(_, held, _)| *held > 0).collect();
        let mut held: usize = idle.iter().map(|(_, held, _)| held).sum();
        if held > self.most {
            // Whoever has taken nothing for the longest time goes first.
            idle.sort_unstable_by_key(|(since, _, _)| *since);
            for (since, bytes, slot) in idle {
                if held <= self.most / 2 || now.saturating_duration_since(since) < PATIENCE {
                    break;
                }
                if slot.give_up(since) {
                    held -= bytes;
                }
            }
        }
        any
    }
}

impl<S: Stream> Slot<S> {
    fn idle(&self) -> Option<(Instant, usize, &Self)> {
        let mut state = lock(&self.0);
        let since = state.idle_since?;
        let held = state.stream.as_mut()?.held();
        Some((since, held, self))
    }

    /// Unless its reader has come back since.
    fn give_up(&self, since: Instant) -> bool {
        let mut state = lock(&self.0);
        let given_up = if state.idle_since == Some(since) { state.stream.take() } else { None };
        // Dropped outside of the lock.
        drop(state);
        given_up.is_some()
    }
}

impl<S: Stream> Reading<S> {
    /// Reads on; nothing if the stream was given up. `took` says of the outcome whether something was taken.
    pub(crate) fn read<T>(&mut self, read: impl FnOnce(&mut S) -> T, took: impl FnOnce(&T) -> bool) -> Option<T> {
        match self {
            Self::Alone(stream) => Some(read(stream)),
            Self::Watched(slot) => {
                let mut state = lock(&slot.0);
                let outcome = read(state.stream.as_mut()?);
                state.idle_since = took(&outcome).then(Instant::now);
                Some(outcome)
            }
        }
    }
}

/// What the reader of a stream is told that was given up.
pub(crate) fn given_up() -> BodyError {
    BodyError("it was taken too slowly while others waited for room on the same connection".into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in it can panic halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Held(usize);

    impl Stream for Held {
        fn held(&mut self) -> usize {
            self.0
        }
    }

    fn watched(holders: &Holders<Held>, held: usize) -> Reading<Held> {
        holders.watch(Held(held), Promise::Open)
    }

    fn take(reading: &mut Reading<Held>) -> bool {
        reading.read(|_| (), |()| true).is_some()
    }

    fn wait(reading: &mut Reading<Held>) -> bool {
        reading.read(|_| (), |()| false).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_goes_first_and_only_if_there_is_need() {
        let holders = Holders::new(100);
        let mut idle = watched(&holders, 40);
        tokio::time::advance(PATIENCE).await;
        let mut later = watched(&holders, 40);
        let mut busy = watched(&holders, 40);
        assert!(wait(&mut busy), "it waits for the stream, and holds nobody up");
        assert!(holders.look(Instant::now()), "80 are not too much");
        assert!(take(&mut busy));
        assert!(holders.look(Instant::now()));
        assert!(!take(&mut idle), "120 are");
        assert!(take(&mut later) && take(&mut busy), "they have taken something a moment ago");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_half_empty_afterwards() {
        let holders = Holders::new(100);
        let mut all: Vec<_> = (0..12).map(|_| watched(&holders, 10)).collect();
        let relieving = Arc::clone(&holders);
        let relieving = tokio::spawn(async move { relieving.relieve().await });
        tokio::time::sleep(PATIENCE + 2 * LOOK).await;
        assert_eq!(all.iter_mut().filter_map(|reading| take(reading).then_some(())).count(), 5);
        drop(all);
        tokio::time::sleep(2 * LOOK).await;
        assert!(lock(&holders.slots).is_empty(), "nobody is remembered");
        relieving.abort();
    }
}
