//! Datagrams on a byte stream: each behind its length in two bytes, big-endian.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Dropped, MAX_DATAGRAM};
use crate::ByteStream;

/// Bytes of datagrams that wait for room in the stream; more are dropped. As much as waits at the other end, and room for
/// one of the longest.
const QUEUE: usize = 128 << 10;

const LENGTH: usize = 2;

/// Both ways of it. Polling for what comes in sends what goes out.
pub(super) struct Framed {
    stream: ByteStream,
    unread: BytesMut,
    /// Framed already.
    queue: VecDeque<Bytes>,
    queued: usize,
    ended: bool,
}

impl Framed {
    pub(super) fn new(stream: ByteStream) -> Self {
        Self { stream, unread: BytesMut::new(), queue: VecDeque::new(), queued: 0, ended: false }
    }

    pub(super) fn send(&mut self, payload: &[u8]) -> Result<(), Dropped> {
        if self.ended {
            return Err(Dropped::Ended);
        }
        let length = u16::try_from(payload.len()).ok().filter(|length| usize::from(*length) <= MAX_DATAGRAM);
        let length = length.ok_or(Dropped::TooLarge)?;
        if self.queued + LENGTH + payload.len() > QUEUE {
            return Err(Dropped::Full);
        }
        let mut framed = BytesMut::with_capacity(LENGTH + payload.len());
        framed.put_u16(length);
        framed.put_slice(payload);
        self.queued += framed.len();
        self.queue.push_back(framed.freeze());
        Ok(())
    }

    /// The next datagram that comes in; `None`: the stream has ended, in order or not.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.poll_send(context) {
            Ok(()) => ready!(self.poll_next(context)).unwrap_or(None),
            Err(_) => None,
        };
        self.ended = next.is_none();
        Poll::Ready(next)
    }

    /// Sends as much as there is room for.
    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while let Some(bytes) = self.queue.front_mut() {
            let before = bytes.len();
            match self.stream.poll_send(context, bytes)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => self.queued -= before - bytes.len(),
            }
            if bytes.is_empty() {
                self.queue.pop_front();
            }
        }
        Ok(())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if let Some(payload) = take(&mut self.unread)? {
                return Poll::Ready(Ok(Some(payload)));
            }
            match ready!(self.stream.poll_chunk(context))? {
                Some(bytes) => self.unread.extend_from_slice(&bytes),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

/// Takes a whole datagram off the front.
fn take(unread: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(length) = unread.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_DATAGRAM {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if unread.len() < LENGTH + length {
        return Ok(None);
    }
    unread.advance(LENGTH);
    Ok(Some(unread.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn pair(room: usize) -> (Framed, Framed) {
        let (one, other) = tokio::io::duplex(room);
        (Framed::new(ByteStream::wrap(one)), Framed::new(ByteStream::wrap(other)))
    }

    async fn next(framed: &mut Framed) -> Option<Bytes> {
        poll_fn(|context| framed.poll(context)).await
    }

    #[tokio::test]
    async fn datagrams_keep_their_bounds_however_the_stream_is_cut() {
        for room in [1, 2, 3, 700, 1 << 20] {
            let (mut one, mut other) = pair(room);
            let sizes = [0, 1, 1, 300, 0, 65_507, 2];
            for (index, size) in (0..).zip(sizes) {
                one.send(&vec![index; size]).expect("there is room");
            }
            let mut heard = Vec::new();
            while heard.len() < sizes.len() {
                tokio::select! {
                    biased;
                    datagram = next(&mut other) => heard.push(datagram.expect("goes on")),
                    _ = next(&mut one) => panic!("nothing comes back"),
                }
            }
            for ((index, size), datagram) in (0..).zip(sizes).zip(heard) {
                assert!(datagram == vec![index; size], "datagram {index} in pieces of {room}");
            }
            drop(one);
            assert_eq!(next(&mut other).await, None);
            assert_eq!(other.send(b"late"), Err(Dropped::Ended));
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped() {
        let (mut one, mut other) = pair(16);
        assert_eq!(one.send(&[0; MAX_DATAGRAM + 1]), Err(Dropped::TooLarge));
        let sent = (0..1000).filter(|_| one.send(&[7; 1000]).is_ok()).count();
        assert_eq!(sent, QUEUE / 1002);
        for _ in 0..sent {
            tokio::select! {
                biased;
                datagram = next(&mut other) => assert_eq!(datagram.as_deref(), Some(&[7; 1000][..])),
                _ = next(&mut one) => panic!("nothing comes back"),
            }
        }
        one.send(b"room again").expect("the queue is empty");
    }

    #[tokio::test]
    async fn a_length_that_no_datagram_has_ends_the_flow() {
        use tokio::io::AsyncWriteExt as _;
        let (one, mut other) = tokio::io::duplex(64);
        other.write_all(&[0xff, 0xff, 1]).await.expect("is read");
        assert_eq!(next(&mut Framed::new(ByteStream::wrap(one))).await, None);
    }
}
