//! A stream of HTTP/2 as a byte stream both ways, for RPC and for what is no HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes asked of flow control, and copied, at a time: RPC messages are small.
const CHUNK: usize = 16 << 10;

pub(crate) struct Duplex {
    send: SendStream<Bytes>,
    recv: RecvStream,
    unread: Bytes,
}

impl Duplex {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, unread: Bytes::new() }
    }

    /// The next bytes; `None`: the end.
    pub(crate) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        while let Some(bytes) = ready!(self.recv.poll_data(context)).transpose().map_err(io::Error::other)? {
            // Fails only on a stream that is closed, and then the window does not matter.
            let _ = self.recv.flow_control().release_capacity(bytes.len());
            if !bytes.is_empty() {
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Sends some of the bytes, off their front.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let room = ready!(self.poll_room(context, bytes.len()))?;
        let part = bytes.split_to(room.min(bytes.len()));
        Poll::Ready(self.send.send_data(part, false).map_err(io::Error::other))
    }

    /// Waits for room for at least one of so many bytes, and says for how many there is.
    fn poll_room(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(length);
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match self.send.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                // Closed streams do not always wake whoever waits for capacity with an error.
                Poll::Pending => {
                    let _ = ready!(self.send.poll_reset(context));
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
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
        let room = ready!(this.poll_room(context, bytes.len().min(CHUNK)))?;
        let length = bytes.len().min(room);
        this.send.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
