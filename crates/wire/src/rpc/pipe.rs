use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{CALL_TIMEOUT, CallError, Client, Server};

/// Bytes that are read at once. Every connection holds as much for as long as it lives, and messages are short.
const READ: usize = 4 * 1024;

/// What moves the bytes of a core over a stream.
pub(super) struct Pipe<T, C> {
    io: T,
    pub(super) core: C,
    /// On its way out.
    outgoing: Bytes,
    incoming: BytesMut,
}

/// What the two cores have in common.
pub(super) trait Core {
    fn handle_input(&mut self, bytes: &[u8]);
    fn poll_transmit(&mut self) -> Option<Bytes>;
}

impl Core for Client {
    fn handle_input(&mut self, bytes: &[u8]) {
        self.handle_input(bytes);
    }

    fn poll_transmit(&mut self) -> Option<Bytes> {
        self.poll_transmit()
    }
}

impl Core for Server {
    fn handle_input(&mut self, bytes: &[u8]) {
        self.handle_input(bytes);
    }

    fn poll_transmit(&mut self) -> Option<Bytes> {
        self.poll_transmit()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, C: Core> Pipe<T, C> {
    pub(super) fn new(io: T, core: C) -> Self {
        Self { io, core, outgoing: Bytes::new(), incoming: BytesMut::new() }
    }

    /// Sends all that the core has to say, at most [`CALL_TIMEOUT`] long. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), CallError> {
        let all = async {
            loop {
                while self.outgoing.has_remaining() {
                    self.io.write_buf(&mut self.outgoing).await?;
                }
                match self.core.poll_transmit() {
                    Some(bytes) => self.outgoing = bytes,
                    None => return self.io.flush().await,
                }
            }
        };
        match timeout(CALL_TIMEOUT, all).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(CallError::Lost(format!("the other end has read nothing for {CALL_TIMEOUT:?}"))),
        }
    }

    /// Gives the core what comes next; `false`: the stream has ended. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<bool, CallError> {
        self.incoming.clear();
        self.incoming.reserve(READ);
        let count = self.io.read_buf(&mut self.incoming).await?;
        self.core.handle_input(&self.incoming);
        Ok(count > 0)
    }

    /// Sends what is left and ends the writing side. Whoever calls this is leaving, so failures do not matter.
    pub(super) async fn end(mut self) {
        if self.flush().await.is_ok() {
            let _ = timeout(CALL_TIMEOUT, self.io.shutdown()).await;
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Pipe<T, Client> {
    /// One call and its answer, within `limit`.
    pub(super) async fn call(
        &mut self,
        call: super::Call<'_>,
        limit: std::time::Duration,
    ) -> Result<super::Answer, CallError> {
        let question = self.core.call(call)?;
        let answer = async {
            loop {
                self.flush().await?;
                match self.core.poll_event()? {
                    Some(super::ClientEvent::Answer(answered, answer)) if answered == question => return answer,
                    // The answer to a call whose caller has given up.
                    Some(super::ClientEvent::Answer(..)) => {}
                    Some(super::ClientEvent::Ended(reason)) => return Err(ended(&reason)),
                    None if self.read().await? => {}
                    None => return Err(CallError::Lost("it ended".into())),
                }
            }
        };
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout(limit)),
        }
    }
}

/// The other end's Abort.
pub(super) fn ended(reason: &str) -> CallError {
    CallError::Lost(format!("the other end ended the conversation: {reason}"))
}
