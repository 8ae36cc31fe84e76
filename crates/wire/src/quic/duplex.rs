//! A stream of QUIC as a byte stream both ways, for what is no HTTP.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::RecvStream;

use super::outgoing::Outgoing;
use super::reader::{Reader, poll_chunk};

pub(crate) struct Duplex {
    send: Outgoing,
    recv: RecvStream,
    /// Came in together with the head.
    unread: Bytes,
}

impl Duplex {
    pub(super) fn new(send: Outgoing, reader: Reader) -> Self {
        let (recv, unread) = reader.into_parts();
        Self { send, recv, unread }
    }

    /// The next bytes; `None`: the end.
    pub(crate) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.unread))));
        }
        poll_chunk(&mut self.recv, context).map_err(io::Error::from)
    }

    /// Sends some of the bytes, off their front.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        self.send.poll_write(context, bytes).map_err(io::Error::from)
    }

    /// Sends some bytes off the front of these pieces; answers how many.
    pub(crate) fn poll_send_pieces(
        &mut self,
        context: &mut Context<'_>,
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.send.poll_write_pieces(context, pieces.make_contiguous()))?;
        pieces.drain(..written.chunks);
        Poll::Ready(Ok(written.bytes))
    }

    /// Ends the sending, and waits until the other end has all of it.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.finish();
        ready!(self.send.poll_stopped(context));
        Poll::Ready(Ok(()))
    }
}
