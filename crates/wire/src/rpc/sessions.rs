//! Sessions of UDP as RPC has them (section 8.1).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use super::pipe::Pipe;
use super::server::{Reply, Role, Server, ServerCall, ServerEvent};
use super::{Answer, CALL_TIMEOUT, Call, CallError, Client, ProtocolError};
use crate::rpc::params::{self, sentence};
use crate::schema::tunnel_capnp::{register_udp_session_params, register_udp_session_results};

/// A session of UDP, as the edge registers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSession {
    /// Its id, on datagrams.
    pub id: Uuid,
    /// Where it leads.
    pub destination: SocketAddr,
    /// Time without a datagram after which the agent ends it; zero leaves that to the agent.
    pub idle: Duration,
}

/// The end of an RPC stream, opened over QUIC, that registers sessions or ends them.
pub struct SessionClient<T> {
    pipe: Pipe<T, Client>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> SessionClient<T> {
    /// Starts the conversation; the stream's signature is sent by whoever opens the stream.
    pub fn new(io: T) -> Self {
        Self { pipe: Pipe::new(io, Client::new()) }
    }

    /// Registers a session at the agent, within [`CALL_TIMEOUT`]. The inner error is the agent's refusal.
    pub async fn register(&mut self, session: &UdpSession) -> Result<Result<(), String>, CallError> {
        match self.pipe.call(Call::RegisterUdpSession(session), CALL_TIMEOUT).await? {
            Answer::UdpSession(answer) => Ok(answer),
            other => Err(CallError::Protocol(format!("the answer is of another kind than the call: {other:?}"))),
        }
    }

    /// Says that a session has ended, and why; within [`CALL_TIMEOUT`].
    pub async fn unregister(&mut self, session: Uuid, message: &str) -> Result<(), CallError> {
        self.pipe.call(Call::UnregisterUdpSession(session, message), CALL_TIMEOUT).await.map(drop)
    }

    /// Ends the conversation in order. Waits at most twice [`CALL_TIMEOUT`].
    pub async fn shutdown(mut self) {
        self.pipe.core.shutdown();
        self.pipe.end().await;
    }
}

/// The edge's end of an RPC stream that an agent opened to end sessions.
pub struct SessionServer<T> {
    pipe: Pipe<T, Server>,
    event: Option<ServerEvent>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> SessionServer<T> {
    /// Serves a fresh stream, after its signature.
    pub fn new(io: T) -> Self {
        Self { pipe: Pipe::new(io, Server::new(Role::Sessions)), event: None }
    }

    /// The next session that has ended, and why, for people; `None`: the conversation is over. Cancel safe but for the
    /// answer, which may be lost.
    pub async fn next(&mut self) -> Result<Option<(Uuid, String)>, CallError> {
        match self.pipe.next_event(&mut self.event).await? {
            Some(ServerEvent::Call(question, ServerCall::UnregisterUdpSession(session, message))) => {
                self.pipe.core.reply(question, Reply::Done);
                self.pipe.flush().await?;
                Ok(Some((session, message)))
            }
            Some(ServerEvent::Call(..)) => Err(CallError::Protocol("an agent only ends sessions".into())),
            Some(ServerEvent::Ended(_)) | None => Ok(None),
        }
    }
}

pub(super) fn write_session(session: &UdpSession, mut params: register_udp_session_params::Builder<'_>) {
    params.set_session_id(session.id.as_bytes());
    match session.destination.ip().to_canonical() {
        IpAddr::V4(ip) => params.set_dst_ip(&ip.octets()),
        IpAddr::V6(ip) => params.set_dst_ip(&ip.octets()),
    }
    params.set_dst_port(session.destination.port());
    params.set_close_after_idle_hint(i64::try_from(session.idle.as_nanos()).unwrap_or(i64::MAX));
}

pub(super) fn read_session(params: register_udp_session_params::Reader<'_>) -> Result<UdpSession, ProtocolError> {
    let ip = params::address(params.get_dst_ip()?);
    let ip = ip.ok_or_else(|| ProtocolError::new("the destination of the session is no address"))?;
    let port = params.get_dst_port();
    if port == 0 {
        return Err(ProtocolError::new("the destination of the session has port 0"));
    }
    Ok(UdpSession {
        id: params::uuid("session id", params.get_session_id()?)?,
        destination: SocketAddr::new(ip, port),
        // A time in the past is none.
        idle: Duration::from_nanos(u64::try_from(params.get_close_after_idle_hint()).unwrap_or(0)),
    })
}

pub(super) fn write_session_result(answer: Result<(), &str>, results: register_udp_session_results::Builder<'_>) {
    let mut result = results.init_result();
    if let Err(reason) = answer {
        // An empty text would read as success.
        result.set_err(if reason.is_empty() { "the session was refused" } else { reason });
    }
}

pub(super) fn read_session_result(
    results: register_udp_session_results::Reader<'_>,
) -> Result<Result<(), String>, ProtocolError> {
    let reason = results.get_result()?.get_err()?;
    Ok(if reason.as_bytes().is_empty() { Ok(()) } else { Err(sentence(reason)) })
}
