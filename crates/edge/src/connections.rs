use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use balance::Board;
use balance::prober::Prober;
use registry::PortId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fair::Fairness;
use crate::ports::Promises;
use crate::tunnels::Tunnels;

/// A handle on the connections of agents, public ports and the end of the node, for the API. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    tunnels: Arc<Tunnels>,
    promises: Promises,
    prober: Prober,
    board: Arc<Board>,
    fairness: Fairness,
}

impl Connections {
    pub(crate) fn new(
        tunnels: Arc<Tunnels>,
        promises: Promises,
        prober: Prober,
        board: Arc<Board>,
        fairness: Fairness,
    ) -> Self {
        Self { tunnels, promises, prober, board, fairness }
    }

    /// Asks members of pools for their health, by the ways of this node.
    pub fn prober(&self) -> &Prober {
        &self.prober
    }

    /// What this node knows of load balancers' members.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// A caller of the API has shown a valid token: whoever comes from its network waits behind no crowd of newcomers from now on.
    pub fn know(&self, address: IpAddr) {
        self.fairness.prove(address);
    }

    /// Opens a public port for an agent that is about to come. It is closed again if none does within a minute.
    ///
    /// # Errors
    /// Somebody else listens there, or the system does not allow it.
    pub async fn open_port(&self, id: PortId) -> io::Result<()> {
        self.promises.open(id).await
    }

    /// Closes the connections of a tunnel, or of one of its connectors, and answers how many there were. Agents that
    /// may still serve the tunnel come back.
    pub fn close(&self, tunnel: Uuid, connector: Option<Uuid>) -> usize {
        self.tunnels.close(tunnel, connector, "closed by the API")
    }

    /// Cancelled when the node begins to stop: whoever waits for something is answered then, or would hold up the end.
    pub fn draining(&self) -> CancellationToken {
        self.tunnels.draining()
    }
}
