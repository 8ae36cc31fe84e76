//! The HTTP/2 transport (sections 4 and 5): over a secured TCP stream that the agent has dialled.
//!
//! The agent is the HTTP/2 server on it and the edge the client, so that each request of a visitor is one stream.

pub mod agent;
pub mod edge;
