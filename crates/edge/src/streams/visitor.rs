use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::listen::Turns;

/// A visitor's connection. Dropped before both ways have ended in order, it is reset, so that the visitor does not take
/// what it has for all there is.
pub(crate) struct Visitor {
    /// What was read of it already.
    read: BytesMut,
    stream: Turns<TcpStream>,
    activity: Arc<Activity>,
    heard_end: bool,
    said_end: bool,
}

/// When bytes went either way for the last time.
pub(super) struct Activity {
    started: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Activity {
    fn note(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Ends when no byte has gone either way for this long.
    pub(super) async fn pause_of(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let end = self.started + last + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

impl Visitor {
    /// A visitor of which the beginning has been read already.
    pub(crate) fn new(stream: TcpStream, read: BytesMut) -> Self {
        let activity = Arc::new(Activity { started: Instant::now(), last: AtomicU64::new(0) });
        Self { read, stream: Turns::new(stream), activity, heard_end: false, said_end: false }
    }

    /// What was read of it already.
    pub(super) fn take_read(&mut self) -> BytesMut {
        std::mem::take(&mut self.read)
    }

    /// The address of ours that the visitor reached.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if !(self.heard_end && self.said_end) {
            // If it fails, the visitor sees an ordinary end.
            let _ = SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.activity.note();
        self.heard_end |= buffer.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.activity.note();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.activity.note();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        self.said_end = true;
        Poll::Ready(Ok(()))
    }
}
