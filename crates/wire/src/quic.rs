//! The QUIC transport (sections 6 and 7): one connection that the agent has dialled, one stream for each request.

pub mod agent;
pub mod edge;

mod settings;

pub use settings::{ALPN, agent_endpoint_config, agent_transport_config, edge_transport_config};
