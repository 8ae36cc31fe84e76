use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::pipe::Pipe;
use super::server::{Reply, Role, Server, ServerCall, ServerEvent};
use super::{Answer, CALL_TIMEOUT, Call, CallError, Client, Question};

/// The edge's end of an RPC stream that it opened towards the agent over QUIC.
pub struct ConfigurationClient<T> {
    pipe: Pipe<T, Client>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ConfigurationClient<T> {
    /// Starts the conversation; the stream's signature is sent by whoever opens the stream.
    pub fn new(io: T) -> Self {
        Self { pipe: Pipe::new(io, Client::new()) }
    }

    /// Pushes a configuration; answers the version in force. Within [`CALL_TIMEOUT`].
    ///
    /// The inner error is the agent's own: it did not take the configuration, and has the version given in force.
    pub async fn update(&mut self, version: i32, config: &[u8]) -> Result<Result<i32, (i32, String)>, CallError> {
        match self.pipe.call(Call::UpdateConfiguration(version, config), CALL_TIMEOUT).await? {
            Answer::Configuration(answer) => Ok(answer),
            other => Err(CallError::Protocol(format!("the answer is of another kind than the call: {other:?}"))),
        }
    }

    /// Ends the conversation in order. Waits at most twice [`CALL_TIMEOUT`].
    pub async fn shutdown(mut self) {
        self.pipe.core.shutdown();
        self.pipe.end().await;
    }
}

/// A configuration push of the edge. Answer with [`ConfigurationServer::reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Names the call.
    pub question: Question,
    /// The configuration's version.
    pub version: i32,
    /// The configuration, JSON.
    pub config: Bytes,
}

/// The agent's end of an RPC stream that the edge opened. UDP sessions are refused.
pub struct ConfigurationServer<T> {
    pipe: Pipe<T, Server>,
    event: Option<ServerEvent>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ConfigurationServer<T> {
    /// Serves a fresh stream, after its signature.
    pub fn new(io: T) -> Self {
        Self { pipe: Pipe::new(io, Server::new(Role::Agent)), event: None }
    }

    /// The edge's next push; `None`: the conversation has ended. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Update>, CallError> {
        match self.pipe.next_event(&mut self.event).await? {
            Some(ServerEvent::Call(question, ServerCall::UpdateConfiguration(version, config))) => {
                Ok(Some(Update { question, version, config }))
            }
            Some(ServerEvent::Call(..)) => Err(CallError::Protocol("an agent registers nobody".into())),
            Some(ServerEvent::Ended(_)) | None => Ok(None),
        }
    }

    /// Answers with the version in force and, if the push was refused, why.
    pub async fn reply(&mut self, question: Question, answer: &Result<i32, (i32, String)>) -> Result<(), CallError> {
        self.pipe.core.reply(question, Reply::Configuration(answer));
        self.pipe.flush().await
    }
}
