use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use crate::driver::{Shared, with};
use crate::{Error, Reason};

/// A request that a client has sent.
pub struct Accepted {
    /// Its head.
    pub head: Request<()>,
    /// The way back.
    pub send: SendStream,
    /// Its body.
    pub recv: RecvStream,
}

/// What goes on a stream. If both halves are dropped before their ends, the stream is reset; what was given to be sent still
/// goes, unless nobody would read the answer to it.
pub struct SendStream {
    shared: Shared,
    key: usize,
}

/// What comes on a stream.
pub struct RecvStream {
    shared: Shared,
    key: usize,
}

impl SendStream {
    pub(crate) fn new(shared: Shared, key: usize) -> Self {
        Self { shared, key }
    }

    /// A server: sends an interim answer, or the head of the answer. With `end` there is no body.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn answer(&mut self, head: &Response<()>, end: bool) -> Result<(), Error> {
        with(&self.shared, |core| core.answer(self.key, head, end))
    }

    /// Waits until the other end, and this one, have room for some bytes at least, and nothing is left of those before.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        with(&self.shared, |core| core.poll_ready(self.key, context))
    }

    /// Waits until the stream is reset, or the connection ends. One task waits for this and for room.
    pub fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        with(&self.shared, |core| core.poll_reset(self.key, context))
    }

    /// Behind the end: waits until it, and all before it, has found room.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        with(&self.shared, |core| core.poll_sent(self.key, context))
    }

    /// Changes while the other end takes something of what this stream waits behind, or of itself.
    pub fn progress(&self) -> u64 {
        with(&self.shared, |core| core.progress(self.key))
    }

    /// Waits until nothing more goes either way, whatever ended it.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        with(&self.shared, |core| core.poll_ended(self.key, context))
    }

    /// Sends bytes; those for which there is no room are kept until there is. With `end` they are the last ones.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn send(&mut self, bytes: Bytes, end: bool) -> Result<(), Error> {
        with(&self.shared, |core| core.send(self.key, bytes, end))
    }

    /// Sends trailers, which end the stream.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Error> {
        with(&self.shared, |core| core.send_trailers(self.key, trailers))
    }

    /// Ends the stream at once, both ways; what was not sent yet is not. Nothing happens if it has ended.
    pub fn reset(&mut self, reason: Reason) {
        with(&self.shared, |core| core.send_reset(self.key, reason));
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        with(&self.shared, |core| core.release_writer(self.key));
    }
}

impl RecvStream {
    pub(crate) fn new(shared: Shared, key: usize) -> Self {
        Self { shared, key }
    }

    /// A client: waits for the head of the answer.
    ///
    /// # Errors
    /// The stream ended without one.
    pub fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        with(&self.shared, |core| core.poll_head(self.key, context))
    }

    /// A client: waits for an interim answer; `None`: the answer itself, or an error, is next.
    pub fn poll_early(&mut self, context: &mut Context<'_>) -> Poll<Option<Response<()>>> {
        with(&self.shared, |core| core.poll_early(self.key, context))
    }

    /// Waits for bytes; the other end may send as many more. `None`: no more come.
    ///
    /// # Errors
    /// The stream broke off.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        with(&self.shared, |core| core.poll_data(self.key, context))
    }

    /// What came behind the last bytes, if anything did.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        with(&self.shared, |core| core.trailers(self.key))
    }

    /// Bytes that have come and were not taken.
    pub fn waiting(&self) -> usize {
        with(&self.shared, |core| core.unread(self.key))
    }

    /// A server, before anything is taken: bytes of the request, if its head says how many there are.
    pub fn promised(&self) -> Option<u64> {
        with(&self.shared, |core| core.promised(self.key))
    }

    /// Nothing more comes, and all that came has been taken.
    pub fn is_end(&self) -> bool {
        with(&self.shared, |core| core.is_read(self.key))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        with(&self.shared, |core| core.release_reader(self.key));
    }
}
