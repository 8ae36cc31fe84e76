//! The QUIC transport (sections 6 and 7): one connection that the agent has dialled, one stream for each request.

pub mod agent;
pub mod edge;

mod incoming;
mod outgoing;
mod reader;
mod settings;

pub(crate) use incoming::Incoming;
pub use settings::{ALPN, agent_endpoint_config, agent_transport_config, edge_transport_config};

/// The one code of the protocol with which connections are closed and streams are reset or stopped (section 6).
const CODE: quinn::VarInt = quinn::VarInt::from_u32(0);

/// Our own agents reset a stream with this code when they have handed its request to nobody. Others do not look at it.
const REFUSED: quinn::VarInt = quinn::VarInt::from_u32(1);
