use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::line::Line;
use super::{Answer, CALL_TIMEOUT, Call, CallError, Client, ClientEvent, Question, Server, ServerEvent};

/// Bytes that are read at once. Every connection holds as much for as long as it lives, and messages are short.
const READ: usize = 4 * 1024;

/// While this end cannot write, it reads on until so many bytes wait for it: enough for what a peer says unasked.
const READ_AHEAD: usize = 64 * 1024;

/// What moves the bytes of a core over a stream.
pub(super) struct Pipe<T, C> {
    io: T,
    pub(super) core: C,
    /// On its way out.
    outgoing: Bytes,
    /// Written, and perhaps held back by the stream.
    unflushed: bool,
    incoming: Box<[u8; READ]>,
    /// What reading has come to, once it has.
    end: Option<Result<(), String>>,
}

/// Either of the two cores.
pub(super) trait Core {
    fn line(&mut self) -> &mut Line;
}

impl Core for Client {
    fn line(&mut self) -> &mut Line {
        &mut self.line
    }
}

impl Core for Server {
    fn line(&mut self) -> &mut Line {
        &mut self.line
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, C: Core> Pipe<T, C> {
    pub(super) fn new(io: T, core: C) -> Self {
        Self { io, core, outgoing: Bytes::new(), unflushed: false, incoming: Box::new([0; READ]), end: None }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_flushed(&mut self) -> bool {
        !self.outgoing.has_remaining() && !self.unflushed && !self.core.line().has_output()
    }

    /// Sends all that the core has to say, at most [`CALL_TIMEOUT`] long. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), CallError> {
        match timeout(CALL_TIMEOUT, poll_fn(|context| self.poll_send(context))).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(CallError::Lost(format!("the other end has not read on for {CALL_TIMEOUT:?}"))),
        }
    }

    /// Gives the core what comes next; `false`: the stream has ended. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<bool, CallError> {
        poll_fn(|context| self.poll_receive(context)).await;
        match &self.end {
            None => Ok(true),
            Some(Ok(())) => Ok(false),
            Some(Err(reason)) => Err(CallError::Lost(reason.clone())),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.outgoing.has_remaining() {
                match self.core.line().transmit() {
                    Some(bytes) => self.outgoing = bytes,
                    None => {
                        ready!(Pin::new(&mut self.io).poll_flush(context))?;
                        self.unflushed = false;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            match Pin::new(&mut self.io).poll_write(context, &self.outgoing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.outgoing.advance(written);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // The other end may be waiting in the same way, for this end to read.
                Poll::Pending if self.end.is_some() || self.core.line().waiting() > READ_AHEAD => return Poll::Pending,
                Poll::Pending => ready!(self.poll_receive(context)),
            }
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.end.is_some() {
            return Poll::Ready(());
        }
        let mut buffer = ReadBuf::new(&mut self.incoming[..]);
        match ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => self.end = Some(Ok(())),
            Ok(()) => self.core.line().receive(buffer.filled()),
            Err(error) => self.end = Some(Err(error.to_string())),
        }
        Poll::Ready(())
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
    pub(super) async fn call(&mut self, call: Call<'_>, limit: Duration) -> Result<Answer, CallError> {
        let question = self.core.call(call)?;
        let answer = async {
            loop {
                let (answered, answer) = self.next_answer().await?;
                // Any other belongs to a call whose caller has given up.
                if answered == question {
                    // The other end is told that the answer is here, now if there is room, else with what comes next.
                    let _ = poll_fn(|context| Poll::Ready(self.poll_send(context))).await;
                    return answer;
                }
            }
        };
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout(limit)),
        }
    }

    /// The next answer to any call. Fails once the conversation is over.
    pub(super) async fn next_answer(&mut self) -> Result<(Question, Result<Answer, CallError>), CallError> {
        loop {
            match self.core.poll_event()? {
                Some(ClientEvent::Answer(question, answer)) => return Ok((question, answer)),
                Some(ClientEvent::Ended(reason)) => return Err(ended(&reason)),
                None if !self.is_flushed() => self.flush().await?,
                None if self.read().await? => {}
                None => return Err(CallError::Lost("it ended".into())),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Pipe<T, Server> {
    /// The next event; `None`: the stream has ended. Cancel safe, because what has happened waits in `event` while what it
    /// gave cause to say is being sent.
    pub(super) async fn next_event(
        &mut self,
        event: &mut Option<ServerEvent>,
    ) -> Result<Option<ServerEvent>, CallError> {
        loop {
            if event.is_none() {
                match self.core.poll_event() {
                    Ok(polled) => *event = polled,
                    Err(error) => {
                        // The other end is told, if it still listens.
                        let _ = self.flush().await;
                        return Err(error.into());
                    }
                }
            }
            if !self.is_flushed() {
                self.flush().await?;
            } else if event.is_some() {
                return Ok(event.take());
            } else if !self.read().await? {
                return Ok(None);
            }
        }
    }
}

/// The other end's Abort.
pub(super) fn ended(reason: &str) -> CallError {
    CallError::Lost(format!("the other end ended the conversation: {reason}"))
}
