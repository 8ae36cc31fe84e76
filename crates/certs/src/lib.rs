//! Who the edge says it is: the node's own certificate authority, certificates on demand for every name under its
//! domains, certificates of one's own from files, and the TLS settings of every listener and of the agent's dial.
//!
//! [`Authority`] is the root that people trust once; [`Certificates`] answers each handshake from it; [`tls`] makes
//! rustls and QUIC settings of both. Deliberately absent: sockets, the tunnel protocol, and certificates from public
//! authorities.

mod authority;
mod certificates;
mod error;
mod file;
mod own;
mod provider;
pub mod tls;

pub use authority::Authority;
pub use certificates::{Certificates, Names};
pub use error::CertsError;
