//! The QUIC transport (sections 6 and 7): one connection that the agent has dialled, one stream for each request.

pub mod agent;
pub mod edge;

mod duplex;
mod incoming;
mod link;
mod outgoing;
mod reader;
mod runtime;
mod sessions;
mod settings;

use quinn::ConnectionError;

pub(crate) use duplex::Duplex;
pub(crate) use incoming::Incoming;
pub(crate) use link::Link;
pub use runtime::{Driver, OnLoss, Server, TakeTurns, endpoint};
pub(crate) use sessions::{Datagrams, Sessions};
pub use settings::{ALPN, Packets, agent_endpoint_config, agent_transport_config, edge_transport_config};
use settings::{HELD, STREAM_WINDOW};

/// The one code of the protocol with which connections are closed and streams are reset or stopped (section 6).
pub const CODE: quinn::VarInt = quinn::VarInt::from_u32(0);

/// Our own agents reset a stream with this code when they have handed its request to nobody. Others do not look at it.
const REFUSED: quinn::VarInt = quinn::VarInt::from_u32(1);

/// The agent, in reasons that the edge gives.
const AGENT: &str = "the agent";

/// A connection that is closed when it is dropped.
struct Cut(quinn::Connection);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.close(CODE, b"");
    }
}

/// Why a connection ended, to which `peer` is the other end.
fn closed(error: &ConnectionError, peer: &str) -> String {
    match error {
        ConnectionError::TimedOut => format!("{peer} vanished"),
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
            format!("{peer} closed the connection")
        }
        error => format!("the QUIC connection failed: {error}"),
    }
}
