//! A body that comes in on a stream of QUIC.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quinn::RecvStream;
use tokio::sync::oneshot;

use super::STREAM_WINDOW;
use super::reader::{Reader, poll_chunk};
use crate::body::Promise;
use crate::connect::framing::{self, Decoder};
use crate::held::{self, Holders, Reading};
use crate::upload::Upload;
use crate::{BodyError, header};

/// Bytes as they come; the other end may send as many more as were taken off here.
pub(crate) struct Incoming {
    recv: Reading<RecvStream>,
    /// Came in together with the head.
    unread: Bytes,
    /// `None`: the stream is the bare body.
    framing: Option<Decoder>,
    promise: Promise,
    done: bool,
    wanted: Option<oneshot::Sender<()>>,
    upload: Option<Upload>,
}

impl Incoming {
    /// At the edge: an answer's body. It holds on to the request's.
    pub(super) fn answer(
        reader: Reader,
        framed: bool,
        promise: Promise,
        upload: Upload,
        holders: &Holders<RecvStream>,
    ) -> Self {
        let (recv, unread) = reader.into_parts();
        Self::new(holders.watch(recv, promise), unread, framed, promise, None, Some(upload))
    }

    /// At the agent: a request's body. `wanted` is told when it is first polled.
    pub(super) fn request(reader: Reader, framed: bool, promise: Promise, wanted: Option<oneshot::Sender<()>>) -> Self {
        let (recv, unread) = reader.into_parts();
        Self::new(Reading::Alone(recv), unread, framed, promise, wanted, None)
    }

    fn new(
        recv: Reading<RecvStream>,
        unread: Bytes,
        framed: bool,
        promise: Promise,
        wanted: Option<oneshot::Sender<()>>,
        upload: Option<Upload>,
    ) -> Self {
        let framing = framed.then(Decoder::default);
        Self { recv, unread, framing, promise, done: false, wanted, upload }
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some(wanted) = self.wanted.take() {
            // Nobody listening means that the answer is out already.
            let _ = wanted.send(());
        }
        let next = ready!(self.poll_next(context));
        match &next {
            Ok(Some(frame)) if frame.is_data() => {}
            Ok(_) => self.finish(),
            Err(_) => {
                self.done = true;
                // Cancels the request's body.
                self.upload = None;
            }
        }
        Poll::Ready(next.transpose())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        loop {
            if self.unread.is_empty() {
                let chunk = self.recv.read(|recv| poll_chunk(recv, context), Poll::is_ready);
                let chunk = ready!(chunk.ok_or_else(held::given_up)?);
                match chunk.map_err(|error| BodyError(error.to_string()))? {
                    None if self.framing.is_some() => {
                        return Poll::Ready(Err(BodyError("the stream ended without the body's last frame".into())));
                    }
                    None => {
                        self.promise.end()?;
                        return Poll::Ready(Ok(None));
                    }
                    Some(bytes) => self.unread = bytes,
                }
            }
            let frame = match &mut self.framing {
                None => Some(framing::Frame::Data(std::mem::take(&mut self.unread))),
                Some(decoder) => decoder.decode(&mut self.unread).map_err(|error| BodyError(error.to_string()))?,
            };
            match frame {
                None => {}
                Some(framing::Frame::Data(bytes)) if bytes.is_empty() => {}
                Some(framing::Frame::Data(bytes)) => {
                    self.promise.take(bytes.len())?;
                    return Poll::Ready(Ok(Some(Frame::data(bytes))));
                }
                Some(framing::Frame::End(trailers)) => {
                    self.promise.end()?;
                    let trailers = trailers.map(|mut trailers| {
                        header::strip_forbidden_trailers(&mut trailers);
                        Frame::trailers(trailers)
                    });
                    return Poll::Ready(Ok(trailers));
                }
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        // Bare bodies have no trailers, so nothing can follow what was promised.
        self.done || self.promise == Promise::Nothing || (self.framing.is_none() && self.promise.is_kept())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.promise.size_hint()
    }

    fn finish(&mut self) {
        self.done = true;
        if let Some(upload) = self.upload.take() {
            upload.release();
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Readers that count bytes themselves never ask for the end. The stream is stopped by its own drop.
        if self.promise.is_kept() {
            self.finish();
        }
    }
}

impl held::Stream for RecvStream {
    fn held(&mut self) -> usize {
        // The library does not tell; more than this it cannot be.
        STREAM_WINDOW as usize
    }
}
