//! A body that comes in on a stream of HTTP/2.

use std::task::{Context, Poll, ready};

use ::http2::RecvStream;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use crate::BodyError;
use crate::body::Promise;
use crate::header;
use crate::held::{self, Holders, Reading};
use crate::upload::Upload;

/// Bytes as they come; the other end may send as many more as were taken off here.
pub(crate) struct Incoming {
    recv: Reading<RecvStream>,
    promise: Promise,
    stage: Stage,
    wanted: Option<oneshot::Sender<()>>,
    upload: Option<Upload>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Done,
}

impl Incoming {
    /// At the edge: an answer's body. It holds on to the request's.
    pub(super) fn answer(recv: RecvStream, promise: Promise, upload: Upload, holders: &Holders<RecvStream>) -> Self {
        let ended = recv.is_end();
        let recv = if ended { Reading::Alone(recv) } else { holders.watch(recv, promise) };
        let mut incoming = Self { recv, promise, stage: Stage::Data, wanted: None, upload: Some(upload) };
        if ended {
            // A head without a body that nevertheless promises one is found by the first poll.
            if incoming.promise.end().is_ok() {
                incoming.done();
            }
        }
        incoming
    }

    /// A request's body. `wanted` is told when it is first polled.
    pub(crate) fn request(recv: RecvStream, wanted: Option<oneshot::Sender<()>>) -> Self {
        let promise = recv.promised().map_or(Promise::Open, Promise::Bytes);
        Self { recv: Reading::Alone(recv), promise, stage: Stage::Data, wanted, upload: None }
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wanted) = self.wanted.take() {
            // Nobody listening means that the answer is out already.
            let _ = wanted.send(());
        }
        let next = ready!(self.poll_next(context));
        match &next {
            Ok(Some(frame)) if frame.is_data() => {}
            Ok(_) => self.done(),
            Err(_) => {
                self.stage = Stage::Done;
                // Cancels the request's body.
                self.upload = None;
            }
        }
        Poll::Ready(next.transpose())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        if self.stage == Stage::Data {
            while let Some(bytes) = ready!(self.poll_data(context))? {
                if !bytes.is_empty() {
                    self.promise.take(bytes.len())?;
                    return Poll::Ready(Ok(Some(Frame::data(bytes))));
                }
            }
            self.stage = Stage::Trailers;
        }
        if self.stage == Stage::Trailers {
            let trailers = self.recv.read(RecvStream::trailers, Option::is_some).ok_or_else(held::given_up)?;
            if trailers.as_ref().is_some_and(|trailers| trailers.contains_key(header::BROKEN)) {
                return Poll::Ready(Err(BodyError("the agent could not get the rest of it".into())));
            }
            self.promise.end()?;
            if let Some(mut trailers) = trailers.filter(|_| self.promise != Promise::Nothing) {
                header::strip_forbidden_trailers(&mut trailers);
                return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let read = |recv: &mut RecvStream| recv.poll_data(context).map(|bytes| bytes.transpose().map_err(failed));
        self.recv.read(read, Poll::is_ready).ok_or_else(held::given_up)?
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done || self.promise == Promise::Nothing
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.promise.size_hint()
    }

    fn done(&mut self) {
        self.stage = Stage::Done;
        if let Some(upload) = self.upload.take() {
            upload.release();
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Readers that count bytes themselves never ask for the end.
        if self.promise.is_kept() {
            self.done();
        }
    }
}

impl held::Stream for RecvStream {
    fn held(&mut self) -> usize {
        self.waiting()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: ::http2::Error) -> BodyError {
    BodyError(error.to_string())
}
