use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes taken from the socket at once: four full TLS records.
const AT_ONCE: usize = 64 << 10;

/// A socket of which more is read at once than was asked for, to go below TLS, whose library asks for a quarter of a record.
///
/// Once it has found nothing to read it holds no memory: most connections of agents are idle most of the time, and so are those that
/// never register.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    ahead: BytesMut,
}

impl<IO> ReadAhead<IO> {
    /// Reads from this socket, of which nothing has been read ahead.
    pub fn new(io: IO) -> Self {
        Self { io, ahead: BytesMut::new() }
    }

    /// The socket, of which what has been read ahead is gone.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, ahead } = &mut *self;
        if ahead.is_empty() {
            ahead.reserve(AT_ONCE);
            let read = poll_read_buf(Pin::new(io), context, ahead);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                *ahead = BytesMut::new();
            }
            ready!(read)?;
        }
        let taken = ahead.len().min(buffer.remaining());
        buffer.put_slice(&ahead[..taken]);
        ahead.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
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
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn all_arrives_in_its_order_however_little_is_asked_for() {
        const LENGTH: usize = 3 * AT_ONCE + 7;
        let (mut far, near) = tokio::io::duplex(LENGTH);
        let mut near = ReadAhead::new(near);
        let said: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        far.write_all(&said).await.unwrap();
        drop(far);
        let mut heard = Vec::new();
        for asked in (1..).step_by(97) {
            let mut piece = vec![0; asked];
            let length = near.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            heard.extend_from_slice(&piece[..length]);
        }
        assert!(heard == said);
    }

    #[tokio::test]
    async fn the_end_comes_after_what_was_read_ahead_and_stays() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = ReadAhead::new(near);
        far.write_all(b"last words").await.unwrap();
        drop(far);
        let mut heard = String::new();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!((heard.as_str(), near.read(&mut [0; 4]).await.unwrap()), ("last words", 0));
        assert_eq!(near.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn who_is_silent_holds_no_memory() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = ReadAhead::new(near);
        assert_eq!(near.ahead.capacity(), 0);
        far.write_all(b"word").await.unwrap();
        near.read_exact(&mut [0; 2]).await.unwrap();
        assert!(near.ahead.capacity() >= 2, "what was not asked for yet is kept");
        near.read_exact(&mut [0; 2]).await.unwrap();
        let mut piece = [0; 4];
        let silent = poll_fn(|context| {
            let polled = Pin::new(&mut near).poll_read(context, &mut ReadBuf::new(&mut piece));
            Poll::Ready(polled.is_pending())
        });
        assert!(silent.await);
        assert_eq!(near.ahead.capacity(), 0);
    }
}
