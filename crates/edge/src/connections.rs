use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::tunnels::Tunnels;

/// A handle on the connections of agents and the end of the node, for the API. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<Tunnels>);

impl Connections {
    pub(crate) fn new(tunnels: Arc<Tunnels>) -> Self {
        Self(tunnels)
    }

    /// Closes the connections of a tunnel, or of one of its connectors, and answers how many there were. Agents that
    /// may still serve the tunnel come back.
    pub fn close(&self, tunnel: Uuid, connector: Option<Uuid>) -> usize {
        self.0.close(tunnel, connector, "closed by the API")
    }

    /// Cancelled when the node begins to stop: whoever waits for something is answered then, or would hold up the end.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining()
    }
}
