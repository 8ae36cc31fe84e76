//! The first event of a command that serves: where everything is.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

use crate::bootstrap::Known;
use crate::local::LocalEdge;

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
    /// Where visitors of a TCP service go, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// The port of that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
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
    /// Where the edge answers for its zones, over UDP and TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns: Option<SocketAddr>,
    /// The same with TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns_tls: Option<SocketAddr>,
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
    /// The PIN that visitors need, if it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<String>,
    /// How the first connection is carried: `quic` or `http2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<String>,
}

impl From<&LocalEdge> for Ready {
    fn from(local: &LocalEdge) -> Self {
        Self {
            domain: Some(local.domain.clone()),
            api: Some(local.api.clone()),
            tunnel: local.tunnel.first().copied(),
            https: Some(local.https),
            http: Some(local.http),
            ca: Some(local.ca.clone()),
            token_file: Some(local.token_file.clone()),
            ..Self::default()
        }
    }
}

impl From<&Known> for Ready {
    fn from(known: &Known) -> Self {
        Self {
            domain: Some(known.domain.clone()),
            tunnel: known.tunnel.first().and_then(|address| address.parse().ok()),
            https: known.https.parse().ok(),
            http: known.http.parse().ok(),
            ..Self::default()
        }
    }
}

impl Ready {
    /// Takes from another what this one does not say.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            command: self.command,
            url: self.url.or(other.url),
            http_url: self.http_url.or(other.http_url),
            address: self.address.or(other.address),
            port: self.port.or(other.port),
            origin: self.origin.or(other.origin),
            domain: self.domain.or(other.domain),
            api: self.api.or(other.api),
            tunnel: self.tunnel.or(other.tunnel),
            https: self.https.or(other.https),
            http: self.http.or(other.http),
            dns: self.dns.or(other.dns),
            dns_tls: self.dns_tls.or(other.dns_tls),
            ca: self.ca.or(other.ca),
            token_file: self.token_file.or(other.token_file),
            metrics: self.metrics.or(other.metrics),
            inspector: self.inspector.or(other.inspector),
            tunnel_id: self.tunnel_id.or(other.tunnel_id),
            connector_id: self.connector_id.or(other.connector_id),
            pin: self.pin.or(other.pin),
            protocol: self.protocol.or(other.protocol),
        }
    }
}

/// `https://host:port`, without the port where it is the usual one.
pub(crate) fn url(scheme: &str, host: &str, port: u16) -> String {
    match (scheme, port) {
        ("https", 443) | ("http", 80) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}
