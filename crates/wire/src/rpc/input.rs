use bytes::{Bytes, BytesMut};

use super::ProtocolError;
use crate::schema::stream;

/// Bytes of the longest message that either end accepts. The longest ones carry a configuration, some hundred bytes for
/// each of its rules; the protocol itself allows 64 MiB, which is more than one peer may make another hold.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub(super) struct Input(BytesMut);

impl Input {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        match stream::message_length(&self.0, MAX_MESSAGE) {
            Ok(Some(length)) if length <= self.0.len() => Ok(Some(self.0.split_to(length).freeze())),
            Ok(_) => Ok(None),
            Err(refusal) => Err(ProtocolError::new(format!("a message is too long: {refusal}"))),
        }
    }

    /// Bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
