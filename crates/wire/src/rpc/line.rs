use std::collections::VecDeque;

use bytes::Bytes;

use super::ProtocolError;
use super::input::Input;
use super::message;

/// What the two cores have in common: bytes in, messages out, and an end.
#[derive(Debug, Default)]
pub(super) struct Line {
    input: Input,
    output: VecDeque<Bytes>,
    ended: bool,
}

impl Line {
    /// Takes bytes of the other end; none any more after the end.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        if !self.ended {
            self.input.push(bytes);
        }
    }

    /// The next whole message of the other end; none any more after the end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        if self.ended {
            return Ok(None);
        }
        self.input.next().map_err(|error| self.fail(error))
    }

    /// Has a message sent.
    pub(super) fn send(&mut self, message: Bytes) {
        self.output.push_back(message);
    }

    /// The next message to go out.
    pub(super) fn transmit(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Whether [`Line::transmit`] has something.
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Bytes that have not been read yet.
    pub(super) fn waiting(&self) -> usize {
        self.input.len()
    }

    /// The conversation is over.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The conversation is over because the other end breaks the protocol, which it is told.
    pub(super) fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        self.end();
        self.send(message::abort(&error.to_string()));
        error
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}
