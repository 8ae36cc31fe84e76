//! The edge's REST API, in the shape of the Cloudflare v4 API, so that tools which speak that one work unchanged;
//! beside it what agents need to find and join the edge (quick tunnels, login, [`Facts`]).
//!
//! [`router`] is the entry: an axum router that answers from the registry's snapshot and writes through its typed
//! functions. Whoever serves it puts the caller's address into each request as
//! `axum::extract::ConnectInfo<SocketAddr>`; a caller without one counts as remote. Deliberately absent: sockets, TLS,
//! the connections of agents (they are closed through [`CloseConnections`]) and public
//! ports (they are opened through [`OpenPort`]).
//!
//! Facts: `spec/api-v4.md` and section 16 of `spec/tunnel-protocol.md`.

mod access;
mod account;
mod body;
mod credential;
mod envelope;
mod error;
mod limit;
mod login;
mod node;
mod port;
mod query;
mod quick;
mod route;
mod router;
mod state;
mod token;
mod tunnel;
mod zone;

pub use router::router;
pub use state::{ApiState, CloseConnections, Facts, OpenPort, PublicPorts, QuickTunnels};
