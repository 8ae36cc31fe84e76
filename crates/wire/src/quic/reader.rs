//! The receiving side of a stream, first as a buffer for heads, then as a body.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};

/// Bytes taken off a stream at a time; what a slow consumer of a body holds beyond the stream's window.
const CHUNK: usize = 64 << 10;

/// Bytes that have come in, and the stream that they came from.
pub(super) struct Reader {
    recv: RecvStream,
    pub(super) buffer: BytesMut,
}

impl Reader {
    pub(super) fn new(recv: RecvStream) -> Self {
        Self { recv, buffer: BytesMut::new() }
    }

    /// Appends more bytes; `false`: the stream has ended. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<bool, ReadError> {
        let chunk = std::future::poll_fn(|context| poll_chunk(&mut self.recv, context)).await?;
        if let Some(bytes) = &chunk {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(chunk.is_some())
    }

    pub(super) fn into_parts(self) -> (RecvStream, Bytes) {
        (self.recv, self.buffer.freeze())
    }
}

/// The next bytes of a stream as they came, without a copy; `None`: the end.
pub(super) fn poll_chunk(recv: &mut RecvStream, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
    // The future holds nothing but the borrow, so making a new one for each poll loses nothing.
    let chunk = std::pin::pin!(recv.read_chunk(CHUNK, true));
    chunk.poll(context).map_ok(|chunk| chunk.map(|chunk| chunk.bytes))
}
