//! Fewer and larger writes under HTTP/2.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are written at once: four full TLS records. More gains little, and is memory that a slow reader holds.
const FULL: usize = 64 << 10;

/// A stream for the HTTP/2 library, which flushes after nearly each frame. What it writes is held back until whoever drives
/// the connection says that nothing more comes at once ([`Uncork::drive`]): one TLS record and one system call then carry the
/// frames of many streams.
pub(super) struct Corked<IO>(Shared<IO>);

/// Lets out what a [`Corked`] stream holds back.
pub(super) struct Uncork<IO>(Shared<IO>);

type Shared<IO> = Arc<Mutex<State<IO>>>;

struct State<IO> {
    io: IO,
    held: BytesMut,
    /// Whether the driver has let others go first since something was last written.
    waited: bool,
    /// What ended the way out; the library learns it from its next call.
    error: Option<io::Error>,
}

impl<IO> Corked<IO> {
    /// Takes a stream, and gives the handle that lets out what it holds back.
    pub(super) fn new(io: IO) -> (Self, Uncork<IO>) {
        let shared = Arc::new(Mutex::new(State { io, held: BytesMut::new(), waited: false, error: None }));
        (Self(Arc::clone(&shared)), Uncork(shared))
    }
}

/// Both handles are used by the one task that drives the connection, so nobody ever waits for the lock.
fn lock<IO>(shared: &Shared<IO>) -> MutexGuard<'_, State<IO>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<IO: AsyncWrite + Unpin> Uncork<IO> {
    /// Runs something that polls the connection, and lets out what that has written each time that it is pending.
    pub(super) async fn drive<F: Future>(&self, driven: F) -> F::Output {
        let mut driven = pin!(driven);
        std::future::poll_fn(|context| {
            let polled = driven.as_mut().poll(context);
            if polled.is_pending() {
                self.poll(context);
            }
            polled
        })
        .await
    }

    /// Writes what is held back, as far as there is room; the task is woken when there is room for the rest.
    ///
    /// Whoever else is ready on this thread goes first, once: under load they have more to say, and nobody waits otherwise.
    fn poll(&self, context: &mut Context<'_>) {
        let mut state = lock(&self.0);
        if !state.held.is_empty() && !state.waited && state.held.len() < FULL {
            state.waited = true;
            context.waker().wake_by_ref();
            return;
        }
        state.waited = false;
        if let Poll::Ready(Err(error)) = state.poll_flush(context) {
            state.error = Some(error);
            context.waker().wake_by_ref();
        }
    }
}

impl<IO: AsyncWrite + Unpin> State<IO> {
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        // An idle connection needs no buffer.
        self.held = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Makes room for at least one byte; answers for how many.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        if self.held.len() >= FULL {
            ready!(self.poll_empty(context))?;
        }
        Poll::Ready(Ok(FULL - self.held.len()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Corked<IO> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if let Some(error) = state.error.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut state.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Corked<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        let taken = ready!(state.poll_room(context))?.min(bytes.len());
        state.held.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        let room = ready!(state.poll_room(context))?;
        let mut left = room;
        for slice in slices {
            let taken = left.min(slice.len());
            state.held.extend_from_slice(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The driver flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        ready!(state.poll_empty(context))?;
        Pin::new(&mut state.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Polls twice: at first, others are let go before.
    async fn let_out<IO: AsyncWrite + Unpin>(uncork: &Uncork<IO>) {
        poll_fn(|context| {
            uncork.poll(context);
            uncork.poll(context);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn small_writes_leave_together_and_only_when_told() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut corked, uncork) = Corked::new(near);
        for part in [&b"a"[..], b"bc", b"def"] {
            corked.write_all(part).await.unwrap();
            corked.flush().await.unwrap();
        }
        let mut seen = [0; 16];
        assert!(futures_util::poll!(std::pin::pin!(far.read(&mut seen))).is_pending());
        let_out(&uncork).await;
        assert_eq!(far.read(&mut seen).await.unwrap(), 6);
        assert_eq!(&seen[..6], b"abcdef");
    }

    #[tokio::test]
    async fn what_is_held_is_bounded_and_nothing_is_lost() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut corked, uncork) = Corked::new(near);
        let sent: Vec<u8> = (0..5 * FULL).map(|number| (number % 251) as u8).collect();
        assert_eq!(corked.write(&sent).await.unwrap(), FULL);
        assert!(futures_util::poll!(std::pin::pin!(corked.write(&sent))).is_pending(), "full");
        let expected = sent.clone();
        let writing = async move {
            corked.write_all(&sent[FULL..]).await.unwrap();
            corked.shutdown().await.unwrap();
        };
        let mut seen = Vec::new();
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut seen));
        assert_eq!((read.unwrap(), seen == expected), (5 * FULL, true));
        drop(uncork);
    }

    #[tokio::test]
    async fn a_broken_way_out_is_told_at_the_next_call() {
        let (near, far) = tokio::io::duplex(16);
        let (mut corked, uncork) = Corked::new(near);
        drop(far);
        corked.write_all(b"lost").await.unwrap();
        let_out(&uncork).await;
        assert!(corked.write(b"x").await.is_err());
    }
}
