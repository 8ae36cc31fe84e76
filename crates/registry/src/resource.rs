use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::Revision;
use crate::{AccountId, Hostname, Labels, PortId, PortOptions, PortProtocol, Secret, TokenId, TokenTerms, TunnelName};

/// The address of one entry: the kind of resource, a slash, and what is unique within the kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(crate) String);

impl Key {
    pub(crate) fn new(kind: &str, id: &dyn fmt::Display) -> Self {
        Self(format!("{kind}/{id}"))
    }

    /// The key as the engine has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that the registry keeps. Values are JSON; fields that this version does not know are passed over.
pub trait Resource: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The first part of its key.
    const KIND: &'static str;

    /// Where it is kept.
    fn key(&self) -> Key;
}

/// A resource together with the revision that wrote it; a guard for the next change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<R> {
    /// The revision that wrote this value.
    pub revision: Revision,
    /// The value.
    pub value: R,
}

impl<R> Deref for Versioned<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.value
    }
}

/// Who owns everything else. One installation has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Fixed at first start.
    pub id: AccountId,
    /// For people.
    pub name: String,
    /// When.
    pub created_at: Timestamp,
}

impl Resource for Account {
    const KIND: &'static str = "accounts";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

/// The SHA-256 hash of an API token's secret. The secret itself is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub(crate) [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl TokenHash {
    pub(crate) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.is_ascii() {
            return Err(serde::de::Error::custom("a token hash is 64 hexadecimal digits"));
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(serde::de::Error::custom)?;
        }
        Ok(Self(bytes))
    }
}

/// Lets a program call the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Names the token without being it.
    pub id: TokenId,
    /// For people.
    pub name: String,
    /// What a caller's secret is compared with.
    pub hash: TokenHash,
    /// When.
    pub created_at: Timestamp,
    /// Refused from then on; `None` is never.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Switched off by hand.
    #[serde(default)]
    pub disabled: bool,
    /// When it was last changed; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Timestamp>,
    /// What it may, and from where.
    #[serde(default, skip_serializing_if = "TokenTerms::is_usual")]
    pub terms: TokenTerms,
}

impl Resource for ApiToken {
    const KIND: &'static str = "tokens";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

/// Who says what a tunnel's connectors do with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigSource {
    /// The agent's own file or flags; it reports them.
    Local,
    /// The edge pushes a configuration.
    Cloudflare,
}

/// A named, authenticated way to an origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its identity on the wire.
    pub id: Uuid,
    /// Unique among the tunnels that are not deleted.
    pub name: TunnelName,
    /// Proves the right to serve it.
    pub secret: Secret,
    /// When.
    pub created_at: Timestamp,
    /// Set once it is deleted; it then stays listed, and serves nothing.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
    /// Who configures its connectors.
    pub config_source: ConfigSource,
    /// The hostname of a quick tunnel; `None` for one that somebody created.
    #[serde(default)]
    pub quick: Option<Hostname>,
    /// What is said of it, and of the members of pools that it is.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Resource for Tunnel {
    const KIND: &'static str = "tunnels";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

/// Reserves a name for one live tunnel: its key is the name, so the engine itself refuses a second one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameClaim {
    /// The name.
    pub name: TunnelName,
    /// Whose it is.
    pub tunnel: Uuid,
}

impl Resource for NameClaim {
    const KIND: &'static str = "tunnel-names";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.name)
    }
}

/// What a tunnel's connectors do with requests: the document of section 11.1 of the tunnel protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Whose it is.
    pub tunnel: Uuid,
    /// Counts up by one with each change, from 1.
    pub version: i32,
    /// The document.
    pub document: serde_json::Value,
    /// Who wrote it.
    pub source: ConfigSource,
    /// When this version was written.
    pub created_at: Timestamp,
}

impl Resource for Configuration {
    const KIND: &'static str = "configurations";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.tunnel)
    }
}

/// Who may visit a tunnel by any of its names, and what the edge changes in their requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelAccess {
    /// Whose it is.
    pub tunnel: Uuid,
    /// The rules.
    pub rules: policy::Access,
}

impl Resource for TunnelAccess {
    const KIND: &'static str = "access";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.tunnel)
    }
}

/// A port of the edge's that leads to a tunnel. Its key is protocol and number, so the engine itself refuses a second owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port.
    pub number: u16,
    /// What its visitors speak.
    #[serde(default)]
    pub protocol: PortProtocol,
    /// Where it leads.
    pub tunnel: Uuid,
    /// The name by which the tunnel's agents find the service among their rules, or an address with a port that they reach
    /// by themselves.
    pub service: String,
    /// How visitors are served.
    #[serde(flatten)]
    pub options: PortOptions,
    /// When.
    pub created_at: Timestamp,
}

impl Resource for Port {
    const KIND: &'static str = "ports";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id())
    }
}

impl Port {
    /// Protocol and number.
    pub fn id(&self) -> PortId {
        PortId { protocol: self.protocol, number: self.number }
    }
}

/// A name whose visitors' TLS passes to a tunnel unopened, so that the origin keeps its own certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passthrough {
    /// The name in the visitors' first message; a service by this name is what the tunnel's agents look for.
    pub hostname: Hostname,
    /// Where it leads.
    pub tunnel: Uuid,
    /// How visitors are served.
    #[serde(flatten)]
    pub options: PortOptions,
}

impl Resource for Passthrough {
    const KIND: &'static str = "tls-names";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.hostname)
    }
}
