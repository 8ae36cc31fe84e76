//! Who may visit a tunnel, and what the edge changes in a request before the tunnel: the rules, and all that can be decided from a
//! request, the time and the rules alone.
//!
//! [`Access`] is the entry: the document that agents send, the registry keeps and the edge obeys. Deliberately absent: sockets,
//! clocks, pages, the counting of attempts, and when a slow [`Hashed::matches`] is worth its time; those are the edge's.

mod access;
mod change;
mod network;
mod password;
mod rewrite;
mod session;

pub use access::{Access, Basic, MAX_LIST};
pub use change::{BadChange, HeaderChange};
pub use network::{BadNetwork, Network, is_public};
pub use password::{BadHash, Hashed};
pub use rewrite::{BadRewrite, Rewrite};
pub use session::{COOKIE, issue, verify};
