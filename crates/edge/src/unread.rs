//! Requests that are answered before all of them has come. Were their connection closed then, the system would reset it, and that may take the answer
//! away before it was read; so what still comes is thrown away for a while (RFC 9112 section 9.6).

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

/// Whoever still sends what nobody wants is heard out for so long, which is time for the answer to arrive on any network.
const LINGER: Duration = Duration::from_secs(5);

/// Bytes of that at once.
const AT_ONCE: usize = 16 * 1024;

/// Whether the body of a connection's last request was left before its end.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Whether somebody may still send what was left.
    pub(crate) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body of a request, which tells when it is left before its end.
pub(crate) struct Upload {
    body: Incoming,
    unread: Unread,
    has_ended: bool,
}

impl Upload {
    /// Whatever was left of the request before has come, or this one would not have.
    pub(crate) fn new(body: Incoming, unread: Unread) -> Self {
        unread.0.store(false, Ordering::Relaxed);
        Self { body, unread, has_ended: false }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.has_ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.has_ended && !self.body.is_end_stream() {
            self.unread.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Throws away what comes, until its end or for [`LINGER`].
pub(crate) async fn linger(io: &mut (impl AsyncRead + Unpin)) {
    let _ = timeout(LINGER, poll_fn(|context| poll_throw_away(io, context))).await;
}

fn poll_throw_away(io: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut room = [0; AT_ONCE];
        let mut buffer = ReadBuf::new(&mut room);
        match ready!(Pin::new(&mut *io).poll_read(context, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            _ => return Poll::Ready(()),
        }
    }
}

/// A connection that lingers when it is shut down with something unread: for whoever leaves that to a library.
pub(crate) struct Lingering<IO> {
    io: IO,
    unread: Unread,
    /// Once it is shut down.
    end: Option<Pin<Box<Sleep>>>,
}

impl<IO> Lingering<IO> {
    pub(crate) fn new(io: IO, unread: Unread) -> Self {
        Self { io, unread, end: None }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lingering<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, unread, end } = &mut *self;
        if end.is_none() {
            ready!(Pin::new(&mut *io).poll_shutdown(context))?;
            if !unread.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        let end = end.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if end.as_mut().poll(context).is_pending() {
            ready!(poll_throw_away(io, context));
        }
        Poll::Ready(Ok(()))
    }
}
