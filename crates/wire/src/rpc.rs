//! RPC on the control stream and on RPC streams (sections 3, 9, 10 and 11).

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::registration::{Refused, Registered, Registration};

/// Why a call brought no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer in the time allowed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other end refused the call itself.
    #[error("the call was refused: {0}")]
    Exception(String),
    /// The stream ended or failed; whether the call had an effect is not known.
    #[error("the RPC stream was lost: {0}")]
    Lost(String),
    /// The other end breaks the protocol.
    #[error("the other end breaks the RPC protocol: {0}")]
    Protocol(String),
}

/// Why a registration did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The edge said no.
    #[error("the edge refused the registration: {0}")]
    Refused(#[from] Refused),
    /// There was no proper answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Time limit of a call other than unregister, as of the reference agent (section 3).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The agent's end of the control stream.
pub struct ControlClient<T> {
    io: T,
}

#[allow(unused_variables, clippy::unused_async)]
impl<T: AsyncRead + AsyncWrite + Unpin> ControlClient<T> {
    /// Starts the conversation; nothing is sent before the first call.
    pub fn new(io: T) -> Self {
        Self { io }
    }

    /// Registers the connection, within [`CALL_TIMEOUT`].
    pub async fn register(&mut self, registration: &Registration) -> Result<Registered, RegisterError> {
        todo!()
    }

    /// Reports the agent's own configuration, within [`CALL_TIMEOUT`].
    pub async fn update_local_configuration(&mut self, configuration: &[u8]) -> Result<(), CallError> {
        todo!()
    }

    /// Says that the agent leaves: the edge sends no new requests.
    pub async fn unregister(&mut self, limit: Duration) -> Result<(), CallError> {
        todo!()
    }

    /// Ends the conversation in order and ends the writing side of the stream. Waits at most [`CALL_TIMEOUT`].
    pub async fn shutdown(self) {
        todo!()
    }

    /// Waits until the other end ends the conversation or the stream breaks, and says why. Cancel safe.
    pub async fn ended(&mut self) -> CallError {
        todo!()
    }
}

/// Names a call until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question(pub(crate) u32);

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
    io: T,
}

#[allow(unused_variables, clippy::unused_async)]
impl<T: AsyncRead + AsyncWrite + Unpin> ControlServer<T> {
    /// Serves a fresh stream.
    pub fn new(io: T) -> Self {
        Self { io }
    }

    /// The agent's next call; `None`: it ended the conversation in order (section 10). Cancel safe.
    ///
    /// An end of the stream without unregister or abort is [`CallError::Lost`].
    pub async fn next(&mut self) -> Result<Option<ControlCall>, CallError> {
        todo!()
    }

    /// Answers a registration.
    pub async fn reply_register(
        &mut self,
        question: Question,
        answer: &Result<Registered, Refused>,
    ) -> Result<(), CallError> {
        todo!()
    }

    /// Answers a call without results; `Err`: with an exception and its reason.
    pub async fn reply_done(&mut self, question: Question, answer: Result<(), &str>) -> Result<(), CallError> {
        todo!()
    }
}

/// The edge's end of an RPC stream that it opened towards the agent over QUIC.
pub struct ConfigurationClient<T> {
    io: T,
}

#[allow(unused_variables, clippy::unused_async)]
impl<T: AsyncRead + AsyncWrite + Unpin> ConfigurationClient<T> {
    /// Starts the conversation; the stream's signature is sent by whoever opens the stream.
    pub fn new(io: T) -> Self {
        Self { io }
    }

    /// Pushes a configuration; answers the version in force. Within [`CALL_TIMEOUT`].
    ///
    /// The inner error is the agent's own: it did not take the configuration, and has the version given in force.
    pub async fn update(&mut self, version: i32, config: &[u8]) -> Result<Result<i32, (i32, String)>, CallError> {
        todo!()
    }

    /// Ends the conversation in order. Waits at most [`CALL_TIMEOUT`].
    pub async fn shutdown(self) {
        todo!()
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
    io: T,
}

#[allow(unused_variables, clippy::unused_async)]
impl<T: AsyncRead + AsyncWrite + Unpin> ConfigurationServer<T> {
    /// Serves a fresh stream, after its signature.
    pub fn new(io: T) -> Self {
        Self { io }
    }

    /// The edge's next push; `None`: the conversation has ended. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Update>, CallError> {
        todo!()
    }

    /// Answers with the version in force and, if the push was refused, why.
    pub async fn reply(&mut self, question: Question, answer: &Result<i32, (i32, String)>) -> Result<(), CallError> {
        todo!()
    }
}
