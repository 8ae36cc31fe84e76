use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use super::pipe::Pipe;
use super::server::{Reply, Role, Server, ServerCall, ServerEvent};
use super::sessions::UdpSession;
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

/// What an edge asks of an agent on an RPC stream that it opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCall {
    /// A configuration push: version, and configuration (JSON). Answer with [`AgentServer::reply_configuration`].
    Update(Question, i32, Bytes),
    /// Answer with [`AgentServer::reply_session`].
    RegisterSession(Question, UdpSession),
    /// The session has ended, and why, for people. Answer with [`AgentServer::reply_done`].
    UnregisterSession(Question, Uuid, String),
}

/// The agent's end of an RPC stream that the edge opened.
pub struct AgentServer<T> {
    pipe: Pipe<T, Server>,
    event: Option<ServerEvent>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> AgentServer<T> {
    /// Serves a fresh stream, after its signature.
    pub fn new(io: T) -> Self {
        Self { pipe: Pipe::new(io, Server::new(Role::Agent)), event: None }
    }

    /// The edge's next call; `None`: the conversation has ended. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<AgentCall>, CallError> {
        let Some(ServerEvent::Call(question, call)) = self.pipe.next_event(&mut self.event).await? else {
            return Ok(None);
        };
        match call {
            ServerCall::UpdateConfiguration(version, config) => Ok(Some(AgentCall::Update(question, version, config))),
            ServerCall::RegisterUdpSession(session) => Ok(Some(AgentCall::RegisterSession(question, session))),
            ServerCall::UnregisterUdpSession(session, message) => {
                Ok(Some(AgentCall::UnregisterSession(question, session, message)))
            }
            ServerCall::RegisterConnection(_)
            | ServerCall::UnregisterConnection
            | ServerCall::UpdateLocalConfiguration(_) => Err(CallError::Protocol("an agent registers nobody".into())),
        }
    }

    /// Answers with the version in force and, if the push was refused, why.
    pub async fn reply_configuration(
        &mut self,
        question: Question,
        answer: &Result<i32, (i32, String)>,
    ) -> Result<(), CallError> {
        self.pipe.core.reply(question, Reply::Configuration(answer));
        self.pipe.flush().await
    }

    /// Answers that the session is there, or why not.
    pub async fn reply_session(&mut self, question: Question, answer: Result<(), &str>) -> Result<(), CallError> {
        self.pipe.core.reply(question, Reply::UdpSession(answer));
        self.pipe.flush().await
    }

    /// Answers a call without results.
    pub async fn reply_done(&mut self, question: Question) -> Result<(), CallError> {
        self.pipe.core.reply(question, Reply::Done);
        self.pipe.flush().await
    }
}
