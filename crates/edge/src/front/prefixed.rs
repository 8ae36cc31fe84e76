use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// How every HTTP/2 connection begins (RFC 9113 section 3.4); no method of HTTP/1.1 begins like that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream of which the beginning has been read already, to see what it is.
pub(crate) struct Prefixed<IO> {
    read: BytesMut,
    io: IO,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Prefixed<IO> {
    /// A stream of which this has been read already.
    pub(crate) fn with(read: BytesMut, io: IO) -> Self {
        Self { read, io }
    }

    /// The same stream, of which this has been read as well, and comes first.
    pub(super) fn after(mut self, mut read: BytesMut) -> Self {
        read.extend_from_slice(&self.read);
        self.read = read;
        self
    }

    /// Reads until it is clear whether the visitor speaks HTTP/2. Who says nothing at all is an error.
    pub(super) async fn new(mut io: IO) -> io::Result<(Self, bool)> {
        let mut read = BytesMut::with_capacity(PREFACE.len());
        while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            if io.read_buf(&mut read).await? == 0 {
                break;
            }
        }
        if read.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_http2 = read.starts_with(PREFACE);
        Ok((Self { read, io }, is_http2))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        if self.read.is_empty() {
            // A connection lives long after its beginning.
            self.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn through(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut visitor, edge) = tokio::io::duplex(64);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                visitor.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut prefixed, is_http2) = Prefixed::new(edge).await.unwrap();
        let mut all = Vec::new();
        prefixed.read_to_end(&mut all).await.unwrap();
        sending.await.unwrap();
        (is_http2, all)
    }

    #[tokio::test]
    async fn nothing_is_lost_whatever_it_is() {
        assert!(through(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n", b"more"]).await.0);
        assert_eq!(
            through(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"]).await.1,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"
        );
        assert_eq!(through(&[b"P", b"UT / HTTP/1.1"]).await, (false, b"PUT / HTTP/1.1".to_vec()));
        assert_eq!(through(&[b"PR"]).await, (false, b"PR".to_vec()));
    }
}
