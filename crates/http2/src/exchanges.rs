//! A connection and the exchanges on it, polled by one task.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Accepted, Driver, Error};

/// How often in one turn exchanges and driver give each other something to do, before other tasks have theirs.
const ROUNDS: usize = 4;

/// An idle connection keeps no more places than these.
const FEW: usize = 16;

/// What came of a turn.
#[expect(
    clippy::large_enum_variant,
    reason = "every second event is a request, and a box would be one more allocation for it"
)]
pub enum Event {
    /// There is another request.
    Accepted(Accepted),
    /// An exchange is over.
    Over,
    /// The connection is: in order, or not.
    Ended(Result<(), Error>),
}

/// The exchanges of a server's connection, which the task that drives it polls too: what several of them have to say is written
/// together, and a request passes from thread to thread no more often than it has to.
///
/// Unlike a list for any task, it knows that in one turn the exchanges wake the driver and the driver the exchanges. That wakes
/// nobody: the turn goes on until none has anything to do.
#[derive(Default)]
pub struct Exchanges {
    places: Slab<Place>,
    ready: Arc<Mutex<Ready>>,
}

struct Place {
    exchange: Pin<Box<dyn Future<Output = ()> + Send>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Who is to be polled, in order.
#[derive(Default)]
struct Ready {
    keys: VecDeque<usize>,
    /// The task is in its turn.
    attended: bool,
    /// To be woken between its turns.
    task: Option<Waker>,
}

/// Rung for an exchange that is to be polled.
struct Bell {
    key: usize,
    rung: AtomicBool,
    ready: Arc<Mutex<Ready>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut ready = lock(&self.ready);
        ready.keys.push_back(self.key);
        let task = if ready.attended { None } else { ready.task.take() };
        drop(ready);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Exchanges {
    /// Takes one more. A panic in it ends it alone, as it would end a task.
    pub fn push(&mut self, exchange: impl Future<Output = ()> + Send + 'static) {
        let place = self.places.vacant_entry();
        let key = place.key();
        let bell = Arc::new(Bell { key, rung: AtomicBool::new(true), ready: Arc::clone(&self.ready) });
        let waker = Waker::from(Arc::clone(&bell));
        place.insert(Place { exchange: Box::pin(exchange), bell, waker });
        lock(&self.ready).keys.push_back(key);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A turn of all that has something to do, the driver's included. Once it is ready it is to be polled again in the same turn.
    pub fn poll<IO>(&mut self, driver: &mut Driver<IO>, context: &mut Context<'_>) -> Poll<Event>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            driver.attend();
            if self.poll_round() {
                return Poll::Ready(Event::Over);
            }
            if let Poll::Ready(accepted) = driver.poll_accept(context) {
                return Poll::Ready(match accepted {
                    Some(Ok(accepted)) => Event::Accepted(accepted),
                    Some(Err(error)) => Event::Ended(Err(error)),
                    None => Event::Ended(Ok(())),
                });
            }
            let mut ready = lock(&self.ready);
            if ready.keys.is_empty() {
                ready.attended = false;
                ready.task = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls those who are ready now, each once, up to one that is over; whether there was one.
    fn poll_round(&mut self) -> bool {
        let count = {
            let mut ready = lock(&self.ready);
            ready.attended = true;
            ready.keys.len()
        };
        for _ in 0..count {
            let Some(key) = lock(&self.ready).keys.pop_front() else { break };
            let Some(place) = self.places.get_mut(key) else { continue };
            place.bell.rung.swap(false, Ordering::AcqRel);
            let mut context = Context::from_waker(&place.waker);
            let polled = catch_unwind(AssertUnwindSafe(|| place.exchange.as_mut().poll(&mut context)));
            if !matches!(polled, Ok(Poll::Pending)) {
                self.remove(key);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, key: usize) {
        drop(self.places.remove(key));
        if self.places.is_empty() && self.places.capacity() > FEW {
            self.places = Slab::new();
            mem::take(&mut lock(&self.ready).keys);
        }
    }
}

fn lock(ready: &Mutex<Ready>) -> MutexGuard<'_, Ready> {
    // Nothing panics while it holds it.
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::{Rate, Settings, server};

    const SETTINGS: Settings = Settings {
        stream_window: 1 << 16,
        widest_stream_window: 1 << 16,
        connection_window: 1 << 20,
        frame: 1 << 14,
        header_list: 16 << 10,
        streams: 100,
        mistakes: Rate { burst: 64, per_second: 1 },
        resets: None,
        idle_frames: None,
        extended_connect: false,
        cut_headers: false,
    };
    /// The preface and an empty SETTINGS frame (RFC 9113, 3.4).
    const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// `GET / http://a` on stream 1 (RFC 7541, C.3.1).
    const REQUEST: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    fn connection() -> (Driver<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        (server(near, SETTINGS).0, far)
    }

    /// The task's turn, to its end: what is accepted is answered by an exchange.
    fn turn(exchanges: &mut Exchanges, driver: &mut Driver<DuplexStream>, context: &mut Context<'_>) -> usize {
        let mut over = 0;
        while let Poll::Ready(event) = exchanges.poll(driver, context) {
            match event {
                Event::Accepted(Accepted { mut send, .. }) => exchanges.push(async move {
                    send.answer(&http::Response::new(()), true).expect("it is open");
                }),
                Event::Over => over += 1,
                Event::Ended(ended) => panic!("{ended:?}"),
            }
        }
        over
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_that_answers_in_its_turn_wakes_nobody() {
        let (mut driver, mut far) = connection();
        let (count, mut exchanges) = (Arc::new(Count::default()), Exchanges::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        far.write_all(GREETING).await.unwrap();
        turn(&mut exchanges, &mut driver, &mut context);
        turn(&mut exchanges, &mut driver, &mut context);
        // Whatever is said next is not said on a busy connection.
        tokio::time::advance(Duration::from_secs(1)).await;
        far.write_all(REQUEST).await.unwrap();
        count.take();
        assert_eq!(turn(&mut exchanges, &mut driver, &mut context), 1);
        assert_eq!(count.take(), 0);
        let mut said = vec![0; 1024];
        let length = far.read(&mut said).await.unwrap();
        assert!(said[..length].ends_with(&[1, 5, 0, 0, 0, 1, 0x88]), "{:?}", &said[..length]);
    }

    #[tokio::test]
    async fn who_is_woken_between_turns_wakes_the_task_once() {
        let (mut driver, _far) = connection();
        let (count, mut exchanges) = (Arc::new(Count::default()), Exchanges::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut senders = Vec::new();
        for _ in 0..3 {
            let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
            senders.push(sender);
            exchanges.push(async { receiver.await.unwrap() });
        }
        assert_eq!(turn(&mut exchanges, &mut driver, &mut context), 0);
        for sender in senders {
            sender.send(()).unwrap();
        }
        assert_eq!(count.take(), 1);
        assert_eq!(turn(&mut exchanges, &mut driver, &mut context), 3);
        assert!(exchanges.is_empty());
    }

    #[tokio::test]
    async fn an_exchange_that_never_rests_lets_others_have_their_turn() {
        let (mut driver, _far) = connection();
        let (count, mut exchanges) = (Arc::new(Count::default()), Exchanges::default());
        let waker = Waker::from(Arc::clone(&count));
        exchanges.push(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        exchanges.push(pending());
        for _ in 0..3 {
            assert_eq!(turn(&mut exchanges, &mut driver, &mut Context::from_waker(&waker)), 0);
            assert_eq!(count.take(), 1);
        }
    }

    #[tokio::test]
    async fn a_panic_ends_its_exchange_alone() {
        let (mut driver, mut far) = connection();
        far.write_all(&[GREETING, REQUEST].concat()).await.unwrap();
        let mut exchanges = Exchanges::default();
        exchanges.push(async { panic!("on purpose") });
        assert_eq!(turn(&mut exchanges, &mut driver, &mut Context::from_waker(Waker::noop())), 2);
    }
}
