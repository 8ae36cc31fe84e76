//! A request on its way out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request};
use http_body::Body as _;
use tokio::io::AsyncWrite;
use wire::{Body, BodyError};

use super::coding::Outgoing;
use super::head;

/// Room for the head of an ordinary request.
const HEAD: usize = 1024;
/// The body is asked for more while fewer bytes than this wait to be written.
const WAITING: usize = 64 << 10;
/// Pieces that are written at once.
const PIECES: usize = 16;

/// What has not been written of a request.
pub(in crate::origin) struct Sending {
    head: Vec<u8>,
    /// Of the head.
    written: usize,
    frames: VecDeque<Bytes>,
    /// Bytes of the frames.
    waiting: usize,
    /// `None`: all of it is in the frames.
    body: Option<Body>,
    outgoing: Outgoing,
}

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(in crate::origin) enum Unsent {
    /// The connection does not take it.
    Connection(io::Error),
    /// The visitor does not give it.
    Body(BodyError),
}

impl Sending {
    pub(super) fn new(request: &Request<Body>, body: Body) -> Self {
        let mut head = Vec::with_capacity(HEAD);
        let outgoing = head::encode(&mut head, request, &body);
        let none = outgoing == Outgoing::Nothing || outgoing == Outgoing::Length(0) && body.is_end_stream();
        Self { head, written: 0, frames: VecDeque::new(), waiting: 0, body: Some(body).filter(|_| !none), outgoing }
    }

    /// Writes the rest; ready when all of it is written.
    pub(super) fn poll<W>(&mut self, writer: &mut W, context: &mut Context<'_>) -> Poll<Result<(), Unsent>>
    where
        W: AsyncWrite + Unpin,
    {
        loop {
            self.gather(context).map_err(Unsent::Body)?;
            if self.written == self.head.len() && self.frames.is_empty() {
                let flushed = Pin::new(writer).poll_flush(context).map_err(Unsent::Connection)?;
                return if self.body.is_none() { flushed.map(Ok) } else { Poll::Pending };
            }
            let written = ready!(self.write(writer, context)).map_err(Unsent::Connection)?;
            self.take_off(written);
        }
    }

    /// Writes the rest, and gives the writer back.
    pub(in crate::origin) async fn finish<W: AsyncWrite + Unpin>(mut self, mut writer: W) -> Result<W, Unsent> {
        std::future::poll_fn(|context| self.poll(&mut writer, context)).await?;
        Ok(writer)
    }

    /// Takes of the body what is there.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<(), BodyError> {
        while self.waiting < WAITING
            && let Some(body) = &mut self.body
            && let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(context)
        {
            let over = match next.transpose()? {
                None => true,
                Some(frame) => match frame.into_data() {
                    Ok(bytes) => {
                        let last = body.is_end_stream();
                        self.data(bytes)?;
                        last
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.end(&trailers)?;
                        }
                        return Ok(());
                    }
                },
            };
            if over {
                self.end(&HeaderMap::new())?;
            }
        }
        Ok(())
    }

    fn data(&mut self, bytes: Bytes) -> Result<(), BodyError> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.outgoing {
            Outgoing::Nothing => {}
            Outgoing::Length(left) => {
                let rest = left.checked_sub(bytes.len() as u64);
                *left = rest.ok_or_else(|| BodyError("more bytes than content-length says".to_owned()))?;
                self.push(bytes);
            }
            Outgoing::Chunks => {
                self.push(format!("{:x}\r\n", bytes.len()).into());
                self.push(bytes);
                self.push(Bytes::from_static(b"\r\n"));
            }
        }
        Ok(())
    }

    /// The body has ended.
    fn end(&mut self, trailers: &HeaderMap) -> Result<(), BodyError> {
        self.body = None;
        match self.outgoing {
            Outgoing::Nothing | Outgoing::Length(0) => {}
            Outgoing::Length(left) => return Err(BodyError(format!("{left} bytes fewer than content-length says"))),
            Outgoing::Chunks => {
                let mut end = b"0\r\n".to_vec();
                head::encode_fields(&mut end, trailers);
                end.extend_from_slice(b"\r\n");
                self.push(end.into());
            }
        }
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.frames.push_back(bytes);
    }

    fn write<W>(&self, writer: &mut W, context: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin,
    {
        let head = &self.head[self.written..];
        let written = if self.frames.is_empty() {
            ready!(Pin::new(writer).poll_write(context, head))?
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let pieces = std::iter::once(head).chain(self.frames.iter().map(Bytes::as_ref));
            for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
                *slice = IoSlice::new(piece);
            }
            ready!(Pin::new(writer).poll_write_vectored(context, &slices))?
        };
        if written == 0 { Poll::Ready(Err(io::ErrorKind::WriteZero.into())) } else { Poll::Ready(Ok(written)) }
    }

    fn take_off(&mut self, written: usize) {
        let of_head = written.min(self.head.len() - self.written);
        self.written += of_head;
        let mut rest = written - of_head;
        self.waiting -= rest;
        while let Some(frame) = self.frames.front_mut().filter(|_| rest > 0) {
            let of_frame = rest.min(frame.len());
            frame.advance(of_frame);
            rest -= of_frame;
            if frame.is_empty() {
                self.frames.pop_front();
            }
        }
    }
}
