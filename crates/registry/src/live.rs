//! Who is connected, and which nodes there are: the part of a snapshot that ends with those who hold it.

mod entry;
mod state;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use entry::LiveKey;
pub(crate) use state::{Live, Own};

/// One connection of a connector, while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// The tunnel that it serves.
    pub tunnel: Uuid,
    /// The running agent that holds it.
    pub connector: Uuid,
    /// The connection.
    pub id: Uuid,
    /// Which of the connector's parallel connections this is.
    pub index: u8,
    /// `http2` or `quic`.
    pub transport: String,
    /// Where it landed, such as `ams1`.
    pub location: String,
    /// Where the agent dialled from.
    pub origin_ip: IpAddr,
    /// Since when.
    pub opened_at: Timestamp,
    /// What the agent announced.
    pub features: Features,
    /// The agent's version.
    pub version: String,
    /// `<os>_<arch>`.
    pub arch: String,
    /// The configuration that the connector has in force; `None` until it said so.
    pub config_version: Option<i32>,
}

/// When a tunnel was last with and without connections, to whatever node. As long as this process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// When the first of the present (or latest) connections came.
    pub active_at: Timestamp,
    /// When the last connection went; `None` while there is one.
    pub inactive_at: Option<Timestamp>,
}

/// What an agent announces that it can do. Agents of one version announce the same, so that there are few of these, in many
/// hands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Features(Arc<[String]>);

impl Features {
    /// Their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl From<Vec<String>> for Features {
    fn from(names: Vec<String>) -> Self {
        Self(names.into())
    }
}

impl From<Features> for Vec<String> {
    fn from(Features(names): Features) -> Self {
        names.to_vec()
    }
}
