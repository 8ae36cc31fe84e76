//! A stream of HTTP/2 as a byte stream both ways, for RPC and for what is no HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http2::{RecvStream, SendStream};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are sent at a time: those that find no room wait in memory.
const CHUNK: usize = 16 << 10;

pub(crate) struct Duplex {
    send: SendStream,
    recv: RecvStream,
    unread: Bytes,
}

impl Duplex {
    pub(super) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, unread: Bytes::new() }
    }

    /// The next bytes; `None`: the end.
    pub(crate) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        while let Some(bytes) = ready!(self.recv.poll_data(context)).transpose().map_err(io::Error::other)? {
            if !bytes.is_empty() {
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Sends some of the bytes, off their front.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        ready!(self.send.poll_ready(context)).map_err(io::Error::other)?;
        let part = bytes.split_to(bytes.len().min(CHUNK));
        Poll::Ready(self.send.send(part, false).map_err(io::Error::other))
    }
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            let Some(bytes) = ready!(this.poll_chunk(context))? else { return Poll::Ready(Ok(())) };
            this.unread = bytes;
        }
        let length = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread[..length]);
        this.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.send.poll_ready(context)).map_err(io::Error::other)?;
        let length = bytes.len().min(CHUNK);
        this.send.send(Bytes::copy_from_slice(&bytes[..length]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send(Bytes::new(), true).map_err(io::Error::other))
    }
}
