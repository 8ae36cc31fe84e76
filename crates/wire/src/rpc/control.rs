use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::pipe::{Pipe, ended};
use super::server::{Reply, Role, Server, ServerCall, ServerEvent};
use super::{Answer, Call, CallError, Client, Question, RegisterError, SHUTDOWN};
use crate::registration::{Refused, Registered, Registration};

/// The agent's end of the control stream.
pub struct ControlClient<T> {
    pipe: Pipe<T, Client>,
    limit: Duration,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ControlClient<T> {
    /// Starts the conversation; nothing is sent before the first call. A call may take as long as `limit`, usually
    /// [`CALL_TIMEOUT`](super::CALL_TIMEOUT).
    pub fn new(io: T, limit: Duration) -> Self {
        Self { pipe: Pipe::new(io, Client::new()), limit }
    }

    /// Registers the connection.
    pub async fn register(&mut self, registration: &Registration) -> Result<Registered, RegisterError> {
        match self.pipe.call(Call::RegisterConnection(registration), self.limit).await? {
            Answer::Registered(answer) => Ok(answer?),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Reports the agent's own configuration.
    pub async fn update_local_configuration(&mut self, configuration: &[u8]) -> Result<(), CallError> {
        self.pipe.call(Call::UpdateLocalConfiguration(configuration), self.limit).await.map(drop)
    }

    /// Says that the agent leaves: the edge sends no new requests. Within a limit of its own.
    pub async fn unregister(&mut self, limit: Duration) -> Result<(), CallError> {
        self.pipe.call(Call::UnregisterConnection, limit).await.map(drop)
    }

    /// Ends the conversation in order and ends the writing side of the stream. Waits at most twice
    /// [`CALL_TIMEOUT`](super::CALL_TIMEOUT).
    pub async fn shutdown(mut self) {
        self.pipe.core.shutdown();
        self.pipe.end().await;
    }

    /// Waits until the other end ends the conversation or the stream breaks, and says why. Cancel safe.
    pub async fn ended(&mut self) -> CallError {
        loop {
            // An answer that comes now belongs to a call whose caller has given up.
            if let Err(reason) = self.pipe.next_answer().await {
                return reason;
            }
        }
    }
}

fn unexpected(answer: &Answer) -> CallError {
    CallError::Protocol(format!("the answer is of another kind than the call: {answer:?}"))
}

/// What an agent asks on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlCall {
    /// Answer with [`ControlServer::reply_register`].
    Register(Question, Box<Registration>),
    /// Answer with [`ControlServer::reply_done`].
    LocalConfiguration(Question, Bytes),
    /// The agent leaves. Answer with [`ControlServer::reply_done`].
    Unregister(Question),
}

/// The edge's end of the control stream.
pub struct ControlServer<T> {
    pipe: Pipe<T, Server>,
    event: Option<ServerEvent>,
    unregistered: bool,
    ended: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ControlServer<T> {
    /// Serves a fresh stream.
    pub fn new(io: T) -> Self {
        Self { pipe: Pipe::new(io, Server::new(Role::Edge)), event: None, unregistered: false, ended: false }
    }

    /// The agent's next call; `None`: it ended the conversation in order (section 10). Cancel safe.
    ///
    /// In order means an abort with the reason [`SHUTDOWN`], or any end after unregister; others are [`CallError::Lost`].
    pub async fn next(&mut self) -> Result<Option<ControlCall>, CallError> {
        if self.ended {
            return Ok(None);
        }
        match self.pipe.next_event(&mut self.event).await {
            Ok(Some(ServerEvent::Call(question, call))) => match call {
                ServerCall::RegisterConnection(registration) => Ok(Some(ControlCall::Register(question, registration))),
                ServerCall::UpdateLocalConfiguration(config) => {
                    Ok(Some(ControlCall::LocalConfiguration(question, config)))
                }
                ServerCall::UnregisterConnection => {
                    self.unregistered = true;
                    Ok(Some(ControlCall::Unregister(question)))
                }
                ServerCall::UpdateConfiguration(..)
                | ServerCall::RegisterUdpSession(_)
                | ServerCall::UnregisterUdpSession(..) => {
                    Err(CallError::Protocol("the control stream takes no such call".into()))
                }
            },
            Ok(Some(ServerEvent::Ended(reason))) if reason != SHUTDOWN && !self.unregistered => Err(ended(&reason)),
            // An agent that has said goodbye may also just close.
            Ok(Some(ServerEvent::Ended(_))) => {
                self.ended = true;
                Ok(None)
            }
            Ok(None) | Err(CallError::Lost(_)) if self.unregistered => {
                self.ended = true;
                Ok(None)
            }
            Ok(None) => Err(CallError::Lost("the agent ended it without a word".into())),
            Err(error) => Err(error),
        }
    }

    /// Answers a registration.
    pub async fn reply_register(
        &mut self,
        question: Question,
        answer: &Result<Registered, Refused>,
    ) -> Result<(), CallError> {
        self.pipe.core.reply(question, Reply::Registered(answer));
        self.pipe.flush().await
    }

    /// Answers a call without results; `Err`: with an exception and its reason.
    pub async fn reply_done(&mut self, question: Question, answer: Result<(), &str>) -> Result<(), CallError> {
        let reply = match answer {
            Ok(()) => Reply::Done,
            Err(reason) => Reply::Exception(reason),
        };
        self.pipe.core.reply(question, reply);
        self.pipe.flush().await
    }
}
