//! The sending side of a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use quinn::{SendStream, StoppedError, VarInt, WriteError, Written};

use super::{CODE, REFUSED};
use crate::connect::framing;
use crate::{Body, BodyError};

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// The sending side of a stream. Unless [`Outgoing::finish`] was called, dropping it resets the stream, so that what is
/// cut short is never taken for whole.
pub(super) struct Outgoing {
    send: SendStream,
    stopped: Stopped,
    finished: bool,
}

impl Outgoing {
    pub(super) fn new(send: SendStream) -> Self {
        let stopped = Box::pin(send.stopped());
        Self { send, stopped, finished: false }
    }

    /// Ready when the other end wants nothing more, or the connection is gone.
    pub(super) fn poll_stopped(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stopped.as_mut().poll(context).map(|_| ())
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        unless_stopped(self.send.write_chunk(bytes), &mut self.stopped).await
    }

    /// Writes some of the bytes, off their front.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), WriteError>> {
        self.poll_write_pieces(context, std::slice::from_mut(bytes)).map_ok(|_| ())
    }

    /// Writes some bytes off the front of these pieces.
    pub(super) fn poll_write_pieces(
        &mut self,
        context: &mut Context<'_>,
        pieces: &mut [Bytes],
    ) -> Poll<Result<Written, WriteError>> {
        // The future holds nothing but the borrows, so making a new one for each poll loses nothing.
        std::pin::pin!(self.send.write_chunks(pieces)).poll(context)
    }

    /// Ends the stream in order.
    pub(super) fn finish(&mut self) {
        // Fails only on a stream that the other end has stopped, and then it does not matter.
        let _ = self.send.finish();
        self.finished = true;
    }

    /// Ends the stream and says that what came in on it was handed to nobody.
    pub(super) fn refuse(mut self) {
        let _ = self.send.reset(REFUSED);
        self.finished = true;
    }

    /// Sends a body to its end, or as far as the other end wants it, and finishes. Polls it only when what came before is
    /// taken by flow control. Bare bodies lose their trailers. The error is the body's own; the stream is open then.
    pub(super) async fn send(&mut self, mut body: Body, framed: bool) -> Result<(), BodyError> {
        loop {
            let frame = tokio::select! {
                biased;
                _ = &mut self.stopped => return Ok(()),
                frame = body.frame() => frame,
            };
            let written = match frame {
                None => {
                    if framed && self.write(framing::end(None)).await.is_err() {
                        return Ok(());
                    }
                    self.finish();
                    return Ok(());
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.write_data(bytes, framed).await,
                    Err(frame) if framed => {
                        let last = framing::end(frame.trailers_ref());
                        if self.write(last).await.is_ok() {
                            self.finish();
                        }
                        return Ok(());
                    }
                    Err(_) => Ok(()),
                },
            };
            if written.is_err() {
                return Ok(());
            }
        }
    }

    async fn write_data(&mut self, mut bytes: Bytes, framed: bool) -> Result<(), WriteError> {
        if !framed {
            return self.write(bytes).await;
        }
        while !bytes.is_empty() {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let part = bytes.split_to(length as usize);
            let head = Bytes::copy_from_slice(&framing::data_head(length));
            let mut chunks = [head, part];
            unless_stopped(self.send.write_all_chunks(&mut chunks), &mut self.stopped).await?;
        }
        Ok(())
    }
}

/// What a write comes to, or that the other end wants nothing more. The library does not wake the write for that while both the
/// stream and the connection have no room.
async fn unless_stopped(
    writing: impl Future<Output = Result<(), WriteError>>,
    stopped: &mut Stopped,
) -> Result<(), WriteError> {
    let outcome = tokio::select! {
        biased;
        written = writing => return written,
        outcome = &mut *stopped => outcome,
    };
    // It may be asked again.
    *stopped = Box::pin(std::future::ready(outcome.clone()));
    Err(match outcome {
        Ok(Some(code)) => WriteError::Stopped(code),
        Ok(None) => WriteError::ClosedStream,
        Err(StoppedError::ConnectionLost(error)) => WriteError::ConnectionLost(error),
        Err(StoppedError::ZeroRttRejected) => WriteError::ZeroRttRejected,
    })
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.finished {
            // Fails only on a stream that is closed already.
            let _ = self.send.reset(CODE);
        }
    }
}
