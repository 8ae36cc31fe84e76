//! The agent end of a connection over HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::registration::{Registered, Registration};
use crate::{AgentConnection, ConnectError, Handler};

/// Registers over a stream that is already secured, and serves what the edge sends from then on.
///
/// `rpc_timeout` limits the registration and every later call to the edge.
pub async fn connect<IO, H>(
    io: IO,
    registration: &Registration,
    handler: Arc<H>,
    rpc_timeout: Duration,
) -> Result<(Registered, AgentConnection), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let _ = (io, registration, handler, rpc_timeout);
    todo!()
}
