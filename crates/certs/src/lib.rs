//! Who the edge says it is: the node's own certificate authority, certificates on demand for every name under its
//! domains, certificates of one's own from files, those of public authorities by ACME, and the TLS settings of every
//! listener and of the agent's dial.
//!
//! [`Authority`] is the visitors', which people trust once; [`Certificates`] answers each handshake from it; [`tls`] makes
//! rustls and QUIC settings of both. A [`SharedAuthority`] is one that all nodes have in common, whoever keeps it: one
//! signs what origins ask for ([`OriginRequest`]), one the nodes' own certificates ([`NodeCertificate`]). Deliberately
//! absent: sockets but for those to an ACME server, the tunnel protocol, the registry, and where public certificates are
//! kept.

pub mod acme;
mod authority;
mod certificates;
mod error;
mod file;
mod judge;
mod node;
mod origin;
mod own;
mod provider;
mod shared;
pub mod tls;

pub use authority::Authority;
pub use certificates::{Certificates, Names};
pub use error::CertsError;
pub use judge::{Judge, Shown, judged_by};
pub use node::{BadFingerprint, Fingerprint, NodeCertificate};
pub use origin::{BadOriginRequest, OriginKey, OriginRequest};
pub use shared::{NewSharedAuthority, SharedAuthority};
