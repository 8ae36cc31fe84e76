//! Registration (section 9): what an agent says of itself, and what the edge answers.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::identity::TunnelSecret;

/// Features every agent of this protocol announces (section 9.1).
pub const BASE_FEATURES: [&str; 5] =
    ["allow_remote_config", "serialized_headers", "support_datagram_v2", "support_quic_eof", "management_logs"];

/// The parameters of `registerConnection`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Owner of the tunnel.
    pub account_tag: String,
    /// Proves the right to serve the tunnel.
    pub secret: TunnelSecret,
    /// The tunnel.
    pub tunnel: Uuid,
    /// Which of the connector's parallel connections this is.
    pub connection_index: u8,
    /// The connector: one running agent.
    pub connector: Uuid,
    /// What the agent can do.
    pub features: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// `<os>_<arch>`.
    pub arch: String,
    /// The agent's local address, for information only.
    pub origin_local_ip: Option<IpAddr>,
    /// Retries of this connection since it last worked.
    pub previous_attempts: u8,
}

/// A registration that was accepted (`ConnectionDetails`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The connection's id, shown in logs.
    pub connection: Uuid,
    /// Where it landed, such as `ams1`.
    pub location: String,
    /// The edge pushes the tunnel's configuration; the agent does not report its own.
    pub remotely_managed: bool,
    /// The authority of the edge's certificates for origins, PEM. Only for an agent with the extension `origin_ca`.
    pub origin_ca: Option<String>,
}

/// A registration that was refused (`ConnectionError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    /// Why; agents match on some texts, see [`Refused::DUPLICATE`] and [`Refused::UNAUTHORIZED`].
    pub cause: String,
    /// `None`: permanent. Otherwise the agent may come back after this time.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// The exact cause that sends the agent to another address (section 9.2).
    pub const DUPLICATE: &'static str = "EDUPCONN";
    /// A cause holding this keeps a reference agent alive and trying (section 9.2).
    pub const UNAUTHORIZED: &'static str = "Unauthorized";

    /// The cause says that the tunnel or its secret is not known (yet).
    pub fn is_unauthorized(&self) -> bool {
        self.cause.contains(Self::UNAUTHORIZED)
    }
}

/// The agent's own configuration, reported after registration when the edge does not manage it (section 11.3). JSON.
pub type LocalConfiguration = Bytes;
