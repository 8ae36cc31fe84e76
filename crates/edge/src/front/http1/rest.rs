//! Connections between two requests. The library holds buffers for as long as it has a connection, some 20 KiB; so it is taken
//! apart when a connection is silent, and made anew when the visitor speaks again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::super::Reception;
use super::super::prefixed::Prefixed;
use crate::defence::Defence;

/// Silent for so long, and at the most for twice as long: most visitors who ask again do so sooner.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// Bytes that a visitor who speaks again is first heard out for: the heads of most requests.
const FIRST: usize = 1024;

/// What happens on a connection, as far as can be seen without the library.
#[derive(Default)]
pub(super) struct Progress {
    requests: AtomicUsize,
    /// Something came that has not become a request yet.
    heard: AtomicBool,
    /// The library waits for the visitor.
    reads: AtomicBool,
    /// Something is to be sent yet.
    writes: AtomicBool,
}

impl Progress {
    /// A request has come.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.heard.store(false, Ordering::Relaxed);
    }

    /// How many have come.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// There is nothing in either direction. Only the exchanges themselves know whether they are through.
    pub(super) fn is_silent(&self) -> bool {
        let is = |what: &AtomicBool| what.load(Ordering::Relaxed);
        is(&self.reads) && !is(&self.writes) && !is(&self.heard)
    }
}

/// A connection as the library has it.
pub(super) struct Felt<IO> {
    io: IO,
    progress: Arc<Progress>,
}

impl<IO> Felt<IO> {
    pub(super) fn new(io: IO, progress: Arc<Progress>) -> Self {
        Self { io, progress }
    }

    pub(super) fn into_inner(self) -> IO {
        self.io
    }

    fn wrote<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.progress.writes.store(true, Ordering::Relaxed);
        polled
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Felt<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        self.progress.reads.store(polled.is_pending(), Ordering::Relaxed);
        if buffer.filled().len() > before {
            self.progress.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Felt<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// The library asks for this when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(context);
        self.progress.writes.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A body of an exchange. The exchange is not through before it is dropped.
pub(super) struct Held<B> {
    pub(super) body: B,
    pub(super) _exchange: Arc<()>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits until the visitor speaks again; `None`: it has left, or has been silent for too long.
pub(super) async fn rest<IO>(mut io: Prefixed<IO>, reception: &Reception) -> Option<Prefixed<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let first = poll_fn(|context| poll_first(&mut io, context));
    // It has been silent for a while already.
    let first = timeout(reception.limits.idle.saturating_sub(SILENCE), first);
    match reception.stop.unless_drained(first).await {
        Some(Ok(Ok(first))) if !first.is_empty() => return Some(io.after(first)),
        Some(Ok(_)) | None => (),
        Some(Err(_)) => reception.site.metrics.defended(Defence::SlowHeader),
    }
    leave(&mut io, reception).await;
    None
}

/// Ends a connection on which nothing is under way.
pub(super) async fn leave(io: &mut (impl AsyncWrite + Unpin), reception: &Reception) {
    // Fails if the visitor was faster.
    let _ = timeout(reception.limits.stall, io.shutdown()).await;
}

/// The next bytes, with no memory but for them; none: the end.
fn poll_first(io: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
    let mut room = [0; FIRST];
    let mut buffer = ReadBuf::new(&mut room);
    ready!(Pin::new(io).poll_read(context, &mut buffer))?;
    Poll::Ready(Ok(BytesMut::from(buffer.filled())))
}
