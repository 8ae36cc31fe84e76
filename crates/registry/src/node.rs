use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// One node of the edge, while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Which.
    pub id: NodeId,
    /// For people: the machine's name, as a rule.
    pub name: String,
    /// Where it is, such as `ams1`; several nodes may be there.
    pub location: String,
    /// In which part of the world that is, one of [`REGIONS`](crate::REGIONS), if somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Box<str>>,
    /// Where others reach it.
    pub addresses: NodeAddresses,
    /// Its program's version.
    pub version: String,
    /// Since when it runs.
    pub started_at: Timestamp,
}

/// Where a node is reached by those on other machines. One on loopback is reached by nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Visitors without TLS.
    pub http: SocketAddr,
    /// Visitors with TLS, over TCP and UDP.
    pub https: SocketAddr,
    /// Agents, over TCP and UDP.
    pub tunnel: Vec<SocketAddr>,
    /// The REST API.
    pub api: SocketAddr,
    /// Who asks for names of the zones, over UDP and TCP; `None`: it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<SocketAddr>,
}
