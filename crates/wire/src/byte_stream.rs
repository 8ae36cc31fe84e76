//! Byte streams: TCP and its like through the tunnel (sections 5.5 and 7).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::flight::Ticket;
use crate::flow::name;
use crate::{Extensions, OriginError, http2, quic};

/// Beside the extensions in their mark: the destination is a service's name.
const SERVICE_MARK: &str = "service";

/// Bytes of the longest flow name that is logged.
const MAX_FLOW: usize = 128;

/// Bytes of the longest name of a host (RFC 1035), to which that of a flow adds its own.
const MAX_NAME: usize = 253;

/// Bytes that are read at once from a stream that is not the tunnel's: at first, so that an idle one costs little, and at
/// the most, so that a busy one costs few calls.
const FIRST_READ: usize = 4 << 10;
const LARGEST_READ: usize = 64 << 10;

/// Pieces that are sent at once, if there are more than one. The tunnel brings some in the same moment.
const PIECES: usize = 8;

/// Where a byte stream, or a flow of datagrams, is to lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// This very address, reached from the agent's machine. What the reference protocol knows; the agent's rules are not
    /// consulted, so an agent serves it only if whoever runs it allowed that.
    Address(SocketAddr),
    /// The service that the agent's rules have for this name of a host (lower case, without a port). With the extension
    /// `services` only.
    Service(String),
}

impl Destination {
    /// Reads an address with a port, or where `service` allows it a name.
    pub(crate) fn parse(text: &str, service: bool) -> Option<Self> {
        if !service {
            return text.parse().ok().map(Self::Address);
        }
        let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let name = letters && !text.is_empty() && text.len() <= MAX_NAME + name::OVERHEAD;
        name.then(|| Self::Service(text.to_ascii_lowercase()))
    }
}

/// As it travels: `192.0.2.7:22`, `[2001:db8::7]:22`, or the name.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Service(name) => name.fmt(f),
        }
    }
}

/// A byte stream that a visitor wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// Where it is to lead.
    pub destination: Destination,
    /// Names it in the logs of both ends; may be empty. Bytes beyond 128 are cut.
    pub flow: String,
}

/// Reads the name of a flow, which is for the log only.
pub(crate) fn stream_flow(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_FLOW)]);
    text.replace(char::is_control, " ")
}

/// The value of [`Extensions::HEADER`] on a stream; empty when there is nothing to mark.
pub(crate) fn stream_mark(destination: &Destination, extensions: Extensions) -> Cow<'static, str> {
    let mark = extensions.mark();
    match destination {
        Destination::Address(_) => mark.into(),
        Destination::Service(_) if mark.is_empty() => SERVICE_MARK.into(),
        Destination::Service(_) => format!("{mark},{SERVICE_MARK}").into(),
    }
}

/// Whether a mark says that the destination is a service's name.
pub(crate) fn marks_service(mark: &[u8]) -> bool {
    mark.split(|byte| *byte == b',').any(|name| name == SERVICE_MARK.as_bytes())
}

/// Why an agent does not serve a byte stream, or a flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefusal {
    /// The destination cannot be reached, or is not served.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// There are as many flows as there may be.
    #[error("{0}")]
    TooMany(String),
}

/// Bytes both ways, each with an end of its own: a TCP connection, a stream of the tunnel, or anything alike.
///
/// Read and write it like any other, or have it [relayed](ByteStream::relay), which copies less. Dropping a tunnel's stream
/// whose ways have not both ended cuts it, and the other end sees that it was cut. There are no time limits in here.
pub struct ByteStream {
    source: Source,
    /// Read from the tunnel, and not yet by whoever reads this.
    unread: Bytes,
    /// Counts as a request under way.
    _ticket: Option<Ticket>,
}

enum Source {
    Http2(http2::Duplex),
    Quic(quic::Duplex),
    Other(Other),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Other {
    io: Box<dyn Io>,
    buffer: BytesMut,
    /// Bytes to be read at once.
    size: usize,
}

/// How many bytes a relay has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relayed {
    /// From the stream that was asked to the other.
    pub out: u64,
    /// From the other to the stream that was asked.
    pub back: u64,
}

impl ByteStream {
    /// Any other stream, for example the TCP connection of a visitor or to an origin.
    pub fn wrap<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: IO) -> Self {
        Self::new(Source::Other(Other { io: Box::new(io), buffer: BytesMut::new(), size: FIRST_READ }), None)
    }

    pub(crate) fn http2(stream: http2::Duplex, ticket: Option<Ticket>) -> Self {
        Self::new(Source::Http2(stream), ticket)
    }

    pub(crate) fn quic(stream: quic::Duplex, ticket: Option<Ticket>) -> Self {
        Self::new(Source::Quic(stream), ticket)
    }

    fn new(source: Source, ticket: Option<Ticket>) -> Self {
        Self { source, unread: Bytes::new(), _ticket: ticket }
    }

    /// Carries bytes both ways until both have ended in order, or either stream fails: then both are dropped.
    ///
    /// The end of one way is passed on while the other goes on, for as long as that takes: limit it where a peer is not to
    /// be trusted. (Stock agents over HTTP/2 end both ways with the first.)
    pub async fn relay(mut self, mut other: Self) -> io::Result<Relayed> {
        let (mut out, mut back) = (Pump::default(), Pump::default());
        poll_fn(|context| {
            let out = out.poll(context, &mut self, &mut other)?;
            let back = back.poll(context, &mut other, &mut self)?;
            if out.is_ready() && back.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
        })
        .await?;
        Ok(Relayed { out: out.carried, back: back.carried })
    }

    /// The next bytes; `None`: the end.
    pub(crate) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.unread))));
        }
        match &mut self.source {
            Source::Http2(stream) => stream.poll_chunk(context),
            Source::Quic(stream) => stream.poll_chunk(context),
            Source::Other(other) => other.poll_chunk(context),
        }
    }

    /// Sends some bytes off the front of these pieces; answers how many.
    fn poll_send_pieces(&mut self, context: &mut Context<'_>, pieces: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        let mut sent = match &mut self.source {
            Source::Http2(stream) => {
                let Some(first) = pieces.front_mut() else { return Poll::Ready(Ok(0)) };
                let before = first.len();
                ready!(stream.poll_send(context, first))?;
                let sent = before - first.len();
                if first.is_empty() {
                    pieces.pop_front();
                }
                return Poll::Ready(Ok(sent));
            }
            Source::Quic(stream) => return stream.poll_send_pieces(context, pieces),
            Source::Other(other) => {
                let mut slices = [IoSlice::new(&[]); PIECES];
                for (slice, piece) in slices.iter_mut().zip(&*pieces) {
                    *slice = IoSlice::new(piece);
                }
                let count = pieces.len().min(PIECES);
                ready!(Pin::new(&mut other.io).poll_write_vectored(context, &slices[..count]))?
            }
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let all = sent;
        while let Some(first) = pieces.front_mut() {
            if first.len() > sent {
                first.advance(sent);
                break;
            }
            sent -= first.len();
            pieces.pop_front();
        }
        Poll::Ready(Ok(all))
    }

    /// Sends some of the bytes, off their front.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        match &mut self.source {
            Source::Http2(stream) => stream.poll_send(context, bytes),
            Source::Quic(stream) => stream.poll_send(context, bytes),
            Source::Other(other) => match ready!(Pin::new(&mut other.io).poll_write(context, bytes))? {
                0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    bytes.advance(written);
                    Poll::Ready(Ok(()))
                }
            },
        }
    }
}

impl Other {
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        // What the last chunk left over will do if it is not little. Once that chunk is gone from memory, this takes its place.
        if self.buffer.capacity() < self.size / 2 {
            self.buffer.reserve(self.size);
        }
        match poll_read_buf(Pin::new(&mut self.io), context, &mut self.buffer) {
            Poll::Pending => {
                // Nobody holds memory for a stream that is silent. One that was busy will mostly be so again.
                (self.buffer, self.size) = (BytesMut::new(), (self.size / 4).max(FIRST_READ));
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(None)),
            Poll::Ready(Ok(_)) => {
                if self.buffer.capacity() == self.buffer.len() {
                    self.size = (self.size * 4).min(LARGEST_READ);
                }
                Poll::Ready(Ok(Some(self.buffer.split().freeze())))
            }
        }
    }
}

/// Carries one way.
#[derive(Default)]
struct Pump {
    stage: Stage,
    /// On its way: so many bytes, in pieces.
    pieces: VecDeque<Bytes>,
    held: usize,
    /// How it ended where it comes from. What came before goes on first.
    end: Option<io::Result<()>>,
    unflushed: bool,
    carried: u64,
}

#[derive(Default, Clone, Copy)]
enum Stage {
    #[default]
    Carrying,
    Ending,
    Ended,
}

impl Pump {
    fn poll(&mut self, context: &mut Context<'_>, from: &mut ByteStream, to: &mut ByteStream) -> Poll<io::Result<()>> {
        loop {
            match self.stage {
                Stage::Carrying => {
                    self.gather(context, from);
                    if !self.pieces.is_empty() {
                        self.held -= ready!(to.poll_send_pieces(context, &mut self.pieces))?;
                        self.unflushed = true;
                    } else if let Some(end) = self.end.take() {
                        end?;
                        self.stage = Stage::Ending;
                    } else {
                        if self.unflushed {
                            ready!(Pin::new(&mut *to).poll_flush(context))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Takes what is there, as far as it can be sent at once. With nothing taken, and no end, there will be a wake-up.
    fn gather(&mut self, context: &mut Context<'_>, from: &mut ByteStream) {
        while self.end.is_none() && self.held < LARGEST_READ && self.pieces.len() < PIECES {
            match from.poll_chunk(context) {
                Poll::Ready(Ok(Some(bytes))) => {
                    self.carried += bytes.len() as u64;
                    self.held += bytes.len();
                    self.pieces.push_back(bytes);
                }
                Poll::Ready(Ok(None)) => self.end = Some(Ok(())),
                Poll::Ready(Err(error)) => self.end = Some(Err(error)),
                Poll::Pending => return,
            }
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Source::Other(other) = &mut self.source {
            return Pin::new(&mut other.io).poll_read(context, buffer);
        }
        let Some(mut bytes) = ready!(self.poll_chunk(context))? else { return Poll::Ready(Ok(())) };
        buffer.put_slice(&bytes.split_to(bytes.len().min(buffer.remaining())));
        self.unread = bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Source::Other(other) = &mut self.source {
            return Pin::new(&mut other.io).poll_write(context, bytes);
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut copy = Bytes::copy_from_slice(&bytes[..bytes.len().min(LARGEST_READ)]);
        let whole = copy.len();
        ready!(self.poll_send(context, &mut copy))?;
        Poll::Ready(Ok(whole - copy.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.source {
            // Their connections send what they have by themselves.
            Source::Http2(_) | Source::Quic(_) => Poll::Ready(Ok(())),
            Source::Other(other) => Pin::new(&mut other.io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.source {
            Source::Http2(stream) => Pin::new(stream).poll_shutdown(context),
            Source::Quic(stream) => stream.poll_shutdown(context),
            Source::Other(other) => Pin::new(&mut other.io).poll_shutdown(context),
        }
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn destinations_are_literal_addresses_or_marked_names() {
        let literal = |text: &str| Destination::parse(text, false);
        for text in ["10.0.0.5:22", "[2001:db8::7]:22"] {
            assert_eq!(literal(text).map(|destination| destination.to_string()).as_deref(), Some(text));
        }
        for text in ["db.example:22", "10.0.0.5", "[::1]", "10.0.0.5:65536", "", "10.0.0.5:22/x", "a@10.0.0.5:22"] {
            assert_eq!(literal(text), None, "{text}");
        }
        let named = |text: &str| Destination::parse(text, true);
        assert_eq!(named("DB.Example"), Some(Destination::Service("db.example".into())));
        for text in ["", "a b", "a:22", "a/b", "ä", &"a".repeat(MAX_NAME + name::OVERHEAD + 1)] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_relay_passes_each_end_on_by_itself() {
        let (mut visitor, outer) = tokio::io::duplex(16);
        let (inner, mut origin) = tokio::io::duplex(16);
        let relay = tokio::spawn(ByteStream::wrap(outer).relay(ByteStream::wrap(inner)));
        let sending = async {
            visitor.write_all(&[1; 1000]).await.expect("is read");
            visitor.shutdown().await.expect("is open");
            let mut answer = Vec::new();
            visitor.read_to_end(&mut answer).await.expect("is whole");
            answer
        };
        let answering = async {
            let mut question = Vec::new();
            origin.read_to_end(&mut question).await.expect("is whole");
            origin.write_all(&question[..500]).await.expect("is read");
            origin.shutdown().await.expect("is open");
        };
        let (answer, ()) = tokio::join!(sending, answering);
        assert_eq!(answer, [1; 500]);
        assert_eq!(relay.await.expect("is done").expect("ends in order"), Relayed { out: 1000, back: 500 });
    }
}
