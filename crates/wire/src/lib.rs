//! The tunnel protocol, both ends: what an agent and an edge say to each other.
//!
//! The edge side hands out a [`Connection`] for every connection that a connector has registered; the agent side calls
//! a [`Handler`] for every request that arrives. Both sides speak HTTP/2 over TLS ([`http2`]) and QUIC ([`quic`]), and
//! neither side of the caller has to know which one carried a request.
//!
//! Deliberately absent: sockets, TLS configuration, name look-ups, retries and back-off. Whoever dials or listens hands
//! in a stream that is already secured.
//!
//! Facts: `spec/tunnel-protocol.md`; section numbers in this crate's comments are of that page.

mod agent_connection;
mod backlog;
mod body;
mod byte_stream;
pub mod connect;
mod connection;
pub mod datagram;
mod ended;
mod exchange;
mod extension;
mod flight;
mod flow;
mod handler;
pub mod header;
mod held;
pub mod http2;
pub mod identity;
mod phase;
pub mod quic;
pub mod registration;
pub mod rpc;
mod schema;
mod service;
mod session;
mod upload;

pub use agent_connection::{AgentConnection, ConnectError};
pub use backlog::{Backlog, Budget, Inlet};
pub use body::{Body, BodyError};
pub use byte_stream::{ByteStream, Destination, Relayed, StreamRefusal, StreamRequest};
pub use connection::{Connection, Registrar, Transport};
pub use ended::{Breach, Ended};
pub use exchange::{ExchangeError, Kind, OriginError, OriginFault};
pub use extension::Extensions;
pub use flow::{Dropped, Flow, FlowRequest, FlowService, MAX_DATAGRAM};
pub use handler::{Handler, Interim, Interims};
