//! A connection to an origin.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf, ReadHalf, WriteHalf};
use wire::{Body, BodyError, Interim, OriginError, OriginFault};

use super::head::{self, BadHead, Head, MAX_HEAD, Then};
use super::sending::{Sending, Unsent};
use crate::origin::connect::Io;
use crate::origin::error;

/// Interim answers to one request; no origin has a use for so many, and they could go on for ever.
const MAX_INTERIM: usize = 100;
/// What is read at once: at first, and when there is always more.
const READ: usize = 8 << 10;
const MOST_READ: usize = 256 << 10;
/// A head that has not ended is looked at as long as it is shorter than this: whoever speaks another protocol may wait for
/// an answer.
const DOUBTFUL: usize = 2 * READ;

/// A connection, and what has been read and not been taken.
pub(in crate::origin) struct Line<T = Box<dyn Io>> {
    io: T,
    buffer: BytesMut,
    /// How much is read next.
    room: usize,
}

/// The halves of one.
pub(in crate::origin) type Reader = ReadHalf<Box<dyn Io>>;
pub(in crate::origin) type Writer = WriteHalf<Box<dyn Io>>;

/// An answer that begins.
pub(in crate::origin) struct Asked {
    pub(in crate::origin) head: Head,
    /// The request has not been sent to its end.
    pub(in crate::origin) sending: Option<Sending>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::origin) enum NoAnswer {
    /// `silent`: before a byte of the answer.
    Closed {
        silent: bool,
        error: io::Error,
    },
    Bad(BadHead),
    Flood,
    /// The visitor's.
    Body(BodyError),
}

impl From<BadHead> for NoAnswer {
    fn from(error: BadHead) -> Self {
        Self::Bad(error)
    }
}

impl From<NoAnswer> for OriginError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Closed { error, .. } => error::of_connection(&error),
            NoAnswer::Bad(bad) => Self::new(OriginFault::Nonsense, format!("what the origin sent is not HTTP: {bad}")),
            NoAnswer::Flood => error::flood(),
            NoAnswer::Body(error) => error::of_body(&error),
        }
    }
}

impl Line {
    pub(in crate::origin) fn new(io: Box<dyn Io>) -> Self {
        Self { io, buffer: BytesMut::new(), room: READ }
    }

    /// Nothing has come since the last answer, not even the end.
    pub(in crate::origin) fn is_silent(&mut self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        self.buffer.is_empty() && Pin::new(&mut self.io).poll_read(context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Sends a request, whose URI is no more than path and query, until the answer begins. The body is taken out.
    pub(in crate::origin) async fn ask(
        &mut self,
        request: &mut Request<Body>,
        interim: &Interim,
    ) -> Result<Asked, NoAnswer> {
        let body = std::mem::take(request.body_mut());
        let mut sending = Some(Sending::new(request, body));
        let method = request.method();
        let mut reading = Reading { searched: 0, interims: 0, unwritten: None };
        let head = std::future::poll_fn(|context| {
            if let Some(rest) = &mut sending {
                match rest.poll(&mut self.io, context) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => sending = None,
                    Poll::Ready(Err(Unsent::Body(error))) => return Poll::Ready(Err(NoAnswer::Body(error))),
                    Poll::Ready(Err(Unsent::Connection(error))) => {
                        // An origin that takes no more of it may have said why.
                        reading.unwritten = Some(error);
                        sending = None;
                    }
                }
            }
            reading.poll(self, method, interim, context)
        });
        let mut head = head.await?;
        head.keeps &= reading.unwritten.is_none();
        Ok(Asked { head, sending })
    }

    /// One half for whoever reads on, and one for whoever sends the rest of the request.
    pub(in crate::origin) fn split(self) -> (Line<Reader>, Writer) {
        let (reader, writer) = tokio::io::split(self.io);
        (Line { io: reader, buffer: self.buffer, room: self.room }, writer)
    }

    /// For another protocol: the connection, and what has been read of it.
    pub(in crate::origin) fn into_parts(self) -> (Box<dyn Io>, BytesMut) {
        (self.io, self.buffer)
    }
}

impl Line<Reader> {
    pub(in crate::origin) fn join(self, writer: Writer) -> Line {
        Line { io: self.io.unsplit(writer), buffer: self.buffer, room: self.room }
    }
}

impl<T: AsyncRead + Unpin> Line<T> {
    /// Takes what has been read.
    pub(in crate::origin) fn take(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// Reads on; `false`: the other end will say no more.
    pub(in crate::origin) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.buffer.reserve(self.room);
        let room = self.buffer.capacity() - self.buffer.len();
        let read = ready!(pin!(self.io.read_buf(&mut self.buffer)).poll(context))?;
        if read == room {
            self.room = (2 * self.room).min(MOST_READ);
        }
        Poll::Ready(Ok(read > 0))
    }

    /// Gives back the room that a long answer took.
    pub(in crate::origin) fn rest(&mut self) {
        if self.room > READ {
            self.room = READ;
            self.buffer = BytesMut::new();
        }
    }
}

/// The wait for an answer.
struct Reading {
    /// Bytes among which no end of a head is.
    searched: usize,
    interims: usize,
    /// Why the request was not sent to its end.
    unwritten: Option<io::Error>,
}

impl Reading {
    fn poll(
        &mut self,
        line: &mut Line,
        method: &Method,
        interim: &Interim,
        context: &mut Context<'_>,
    ) -> Poll<Result<Head, NoAnswer>> {
        loop {
            while let Some(end) = head::end(&line.buffer, self.searched) {
                self.searched = 0;
                let head = head::decode(&line.buffer.split_to(end).freeze(), method)?;
                if head.then != Then::Head {
                    return Poll::Ready(Ok(head));
                }
                self.interims += 1;
                if self.interims > MAX_INTERIM {
                    return Poll::Ready(Err(NoAnswer::Flood));
                }
                interim.send(head.status, head.headers);
            }
            self.searched = line.buffer.len();
            if self.searched > MAX_HEAD {
                return Poll::Ready(Err(BadHead::TooLong.into()));
            }
            if self.searched > 0 && self.searched < DOUBTFUL {
                head::check(&line.buffer)?;
            }
            let read = ready!(line.poll_fill(context));
            if !matches!(read, Ok(true)) {
                head::check(&line.buffer)?;
                let error =
                    self.unwritten.take().or_else(|| read.err()).unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                let silent = line.buffer.is_empty() && self.interims == 0;
                return Poll::Ready(Err(NoAnswer::Closed { silent, error }));
            }
        }
    }
}
