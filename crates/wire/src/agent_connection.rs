use std::time::Duration;

use bytes::Bytes;

use crate::registration::Refused;

/// Why a connection could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The edge answered the registration with a refusal.
    #[error("the edge refused the connection: {0}")]
    Refused(#[source] Refused),
    /// The registration call failed, was answered with nonsense, or was not answered in time.
    #[error("registration with the edge failed: {0}")]
    Rpc(String),
    /// The connection ended before the registration was answered.
    #[error("the connection to the edge was lost during registration: {0}")]
    Lost(String),
}

/// The agent's handle on one registered connection. Requests on it go to the handler until the connection ends.
///
/// Dropping it closes the connection.
pub struct AgentConnection {}

#[allow(unused_variables, clippy::unused_async)]
impl AgentConnection {
    /// Reports the agent's own configuration to the edge (section 11.3). JSON.
    pub async fn update_local_configuration(&self, configuration: Bytes) -> Result<(), String> {
        todo!()
    }

    /// Waits for the end of the connection; answers why it ended. May be called any number of times.
    pub async fn closed(&self) -> String {
        todo!()
    }

    /// Asks the edge to send nothing new (section 10), waiting at most `limit` for its answer.
    ///
    /// Requests go on being served until the edge closes the connection: await [`AgentConnection::closed`].
    pub async fn unregister(&self, limit: Duration) -> Result<(), String> {
        todo!()
    }

    /// Requests under way, WebSockets and streams included.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// Closes at once; requests under way are cancelled.
    pub fn close(&self) {
        todo!()
    }
}
