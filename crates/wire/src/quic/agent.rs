//! The agent end of a connection over QUIC.

use std::sync::Arc;
use std::time::Duration;

use crate::registration::{Registered, Registration};
use crate::{AgentConnection, ConnectError, Handler};

/// Registers on an established QUIC connection, and serves what the edge sends from then on.
///
/// `rpc_timeout` limits the registration and every later call to the edge.
pub async fn connect<H: Handler>(
    connection: quinn::Connection,
    registration: &Registration,
    handler: Arc<H>,
    rpc_timeout: Duration,
) -> Result<(Registered, AgentConnection), ConnectError> {
    let _ = (connection, registration, handler, rpc_timeout);
    todo!()
}
