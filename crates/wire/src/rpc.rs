//! RPC on the control stream and on RPC streams (sections 3, 9, 10 and 11).
//!
//! What the protocol needs of Cap'n Proto RPC is little: one bootstrap capability, calls without capabilities in their
//! parameters or results, one vat pair per stream. [`Client`] and [`Server`] are exactly that, as state machines without
//! I/O. The library `capnp-rpc` does all of level 1, but its vats are bound to one thread, take messages of any size and
//! number, and cannot be held against recorded bytes; of it, only the generated message types are used here.
//!
//! Around the two cores, for any byte stream: [`ControlClient`] and [`ControlServer`] are the ends of the control stream,
//! [`ConfigurationClient`] and [`AgentServer`] those of an RPC stream that the edge opened over QUIC. [`SessionClient`] makes and
//! ends sessions of UDP, [`SessionServer`] hears at the edge of those that an agent has ended.

mod client;
mod configuration;
mod control;
mod input;
mod line;
mod message;
mod method;
mod params;
mod pipe;
mod server;
mod sessions;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::registration::Refused;

pub use client::{Answer, Call, Client, ClientEvent};
pub use configuration::{AgentCall, AgentServer, ConfigurationClient};
pub use control::{ControlCall, ControlClient, ControlServer};
pub use input::MAX_MESSAGE;
pub use server::{MAX_ANSWERS, Reply, Role, Server, ServerCall, ServerEvent};
pub use sessions::{SessionClient, SessionServer, UdpSession};

/// Time limit of a call other than unregister, as of the reference agent (section 3).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason in the Abort that ends a conversation in order (section 3).
pub const SHUTDOWN: &str = "rpc: shutdown";

/// Names a call until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question(u32);

/// The other end breaks the RPC protocol; the conversation is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolError(String);

impl ProtocolError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<capnp::Error> for ProtocolError {
    fn from(error: capnp::Error) -> Self {
        Self(format!("a message cannot be read: {error}"))
    }
}

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

impl From<ProtocolError> for CallError {
    fn from(ProtocolError(text): ProtocolError) -> Self {
        Self::Protocol(text)
    }
}

impl From<std::io::Error> for CallError {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
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
