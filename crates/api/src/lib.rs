//! The edge's REST API, in the shape of the Cloudflare v4 API, so that tools which speak that one work unchanged;
//! beside it what agents need to find and join the edge (quick tunnels, login, [`Facts`]), and a page for people.
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
mod audit;
mod authority;
mod balance;
mod body;
mod certificate;
mod credential;
mod dashboard;
mod envelope;
mod error;
mod item;
mod join;
mod limit;
mod login;
mod multipart;
mod node;
mod number;
mod openapi;
mod permission;
mod port;
mod query;
mod quick;
mod record;
mod route;
mod router;
mod state;
mod status;
mod token;
mod tunnel;
mod user;
mod zone;

pub use authority::{AuthorityError, ensure_authority};
pub use join::{BadJoinKey, GatherHandover, Handover, JoinKey};
pub use router::router;
pub use state::{
    ApiState, CloseConnections, Facts, KnowCaller, KnownHere, MemberHere, NodeCertificateEnd, OpenPort, Preview,
    PublicPorts, QuickTunnels,
};
