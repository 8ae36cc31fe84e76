use std::sync::Arc;

use uuid::Uuid;

use crate::tunnels::Tunnels;

/// A handle on the connections of agents, for the API. Cheap to clone.
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
}
