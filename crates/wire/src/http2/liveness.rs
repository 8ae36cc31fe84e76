//! Noticing that the other end has vanished.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http2::Handle;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Silence after which the other end is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(4);

/// Silence after which it is given up: it has had five seconds for an answer, and is found within ten in all.
const VANISHED: Duration = Duration::from_secs(9);

/// Who is asked has so long for an answer: enough for a ping that is lost twice.
const ANSWER: Duration = Duration::from_millis(1750);

/// When the other end last gave a sign of life.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    start: Instant,
    /// Since the start; a sign and the answer to the next question must not look the same.
    nanos: Arc<AtomicU64>,
    /// Somebody wants to know now.
    wanted: Arc<Notify>,
}

impl Heard {
    fn new() -> Self {
        Self { start: Instant::now(), nanos: Arc::default(), wanted: Arc::default() }
    }

    fn note(&self) {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// Changes with whatever is heard.
    pub(super) fn signs(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    /// Has the other end asked for a sign of life before it has been silent for long; answers how long one may take.
    pub(super) fn ask(&self) -> Duration {
        self.wanted.notify_one();
        ANSWER
    }

    /// Returns once the other end has vanished. Any byte counts as life, so a ping goes out only into silence; so does room
    /// for bytes that had to wait, because a ping and its answer wait behind them on a slow connection.
    pub(super) async fn vanished(&self, handle: Handle) {
        let (mut asked, mut wanted) = (None, false);
        loop {
            let last = self.last();
            let silence = last.elapsed();
            if silence >= VANISHED {
                return;
            }
            // Once for each silence.
            if (wanted || silence >= SILENCE) && asked != Some(last) {
                handle.ping();
                asked = Some(last);
            }
            wanted = false;
            tokio::select! {
                () = self.wanted.notified() => wanted = true,
                () = sleep_until(last + if asked == Some(last) { VANISHED } else { SILENCE }) => {}
            }
        }
    }
}

/// A stream that notes signs of life.
pub(super) struct Watched<IO> {
    io: IO,
    heard: Heard,
    /// The last bytes to be sent found no room.
    held: bool,
}

impl<IO> Watched<IO> {
    pub(super) fn new(io: IO) -> (Self, Heard) {
        let heard = Heard::new();
        (Self { io, heard: heard.clone(), held: false }, heard)
    }

    /// Room that was not there before has been made by the other end, which acknowledged what came earlier.
    fn sent<T>(&mut self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let held = std::mem::replace(&mut self.held, poll.is_pending());
        if held && matches!(poll, Poll::Ready(Ok(_))) {
            self.heard.note();
        }
        poll
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.heard.note();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write(context, bytes);
        self.sent(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_flush(context);
        self.sent(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.sent(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
