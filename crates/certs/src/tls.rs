//! TLS settings of every listener and of the agent's dial (section 2.2 of the tunnel protocol).

use std::path::PathBuf;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ServerConfig};

use crate::{Certificates, CertsError};

/// ALPN of the tunnel over QUIC.
pub const TUNNEL_ALPN: &[u8] = b"argotunnel";
/// The name of the edge that an agent asks for and verifies over HTTP/2.
pub const TUNNEL_HTTP2_NAME: &str = "h2.cftunnel.com";
/// The name of the edge that an agent asks for and verifies over QUIC.
pub const TUNNEL_QUIC_NAME: &str = "quic.cftunnel.com";
/// The name that an agent's start-up check asks for on either transport.
pub const TUNNEL_PROBE_NAME: &str = "probe.cftunnel.com";

/// Which roots an agent verifies its edge with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's.
    System,
    /// Those in this PEM file, and no others.
    File(PathBuf),
    /// Those in this PEM text, and no others.
    Pem(String),
}

/// Cryptography for everything in this program.
pub fn provider() -> Arc<CryptoProvider> {
    todo!()
}

/// Visitors over TCP: TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`.
pub fn visitor_tls(certificates: &Arc<Certificates>) -> Result<Arc<ServerConfig>, CertsError> {
    let _ = certificates;
    todo!()
}

/// Visitors over QUIC: ALPN `h3`.
pub fn visitor_quic(certificates: &Arc<Certificates>) -> Result<Arc<QuicServerConfig>, CertsError> {
    let _ = certificates;
    todo!()
}

/// Agents over TCP: TLS 1.2 and 1.3; no ALPN, as agents offer none.
pub fn tunnel_tls(certificates: &Arc<Certificates>) -> Result<Arc<ServerConfig>, CertsError> {
    let _ = certificates;
    todo!()
}

/// Agents over QUIC: ALPN [`TUNNEL_ALPN`].
pub fn tunnel_quic(certificates: &Arc<Certificates>) -> Result<Arc<QuicServerConfig>, CertsError> {
    let _ = certificates;
    todo!()
}

/// An agent that dials an edge over TCP. With `post_quantum`, only the hybrid key exchange is offered.
///
/// # Errors
/// The roots cannot be read, or there is none.
pub fn agent_tls(roots: &Roots, post_quantum: bool) -> Result<Arc<ClientConfig>, CertsError> {
    let _ = (roots, post_quantum);
    todo!()
}

/// An agent that dials an edge over QUIC. With `post_quantum`, only the hybrid key exchange is offered.
///
/// # Errors
/// As [`agent_tls`].
pub fn agent_quic(roots: &Roots, post_quantum: bool) -> Result<Arc<QuicClientConfig>, CertsError> {
    let _ = (roots, post_quantum);
    todo!()
}
