//! The first event of a command that serves: where everything is.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

/// What `"event":"ready"` carries; what does not apply is left out.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "event", rename = "ready")]
pub(crate) struct Ready {
    /// The command, such as `try`.
    pub(crate) command: &'static str,
    /// What visitors open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The same without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_url: Option<String>,
    /// What it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// The domain of the edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    /// The API, a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<String>,
    /// Where agents go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<SocketAddr>,
    /// Where visitors with TLS go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https: Option<SocketAddr>,
    /// Where visitors without TLS go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<SocketAddr>,
    /// The certificate to trust, a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// The API token, a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The agent's `/ready` and `/metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The page of the inspector, a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inspector: Option<String>,
    /// The tunnel that the agent serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_id: Option<Uuid>,
    /// The running agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connector_id: Option<Uuid>,
    /// How the first connection is carried: `quic` or `http2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<String>,
}

/// `https://host:port`, without the port where it is the usual one.
pub(crate) fn url(scheme: &str, host: &str, port: u16) -> String {
    match (scheme, port) {
        ("https", 443) | ("http", 80) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}
