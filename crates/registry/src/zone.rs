//! Zones: domains whose records are kept here.

mod change;
mod hold;
mod key;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::resource::{Key, Resource};
use crate::{AccountId, Hostname, ZoneId};

pub use change::ZoneError;
pub(crate) use hold::{HoldId, LargeChange, NAMES_AT_ONCE};
pub use key::{KeyChange, KeyStep, ZoneKey};

/// A domain whose records are kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Follows from account and name, so that a name cannot be a zone twice.
    pub id: ZoneId,
    /// The domain.
    pub name: Hostname,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Timestamp>,
    /// What is said about it; nothing follows from these yet.
    #[serde(default, skip_serializing_if = "ZoneTraits::is_usual")]
    pub traits: ZoneTraits,
    /// Those settings that were changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: ZoneSettings,
    /// Set once it is deleted: it is not listed any more, and goes when all that it had is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<Timestamp>,
    /// Set while somebody changes more of it than one transaction takes: others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<HoldId>,
}

/// What people say about a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZoneTraits {
    /// Its records are answered, and visitors do not come through the edge.
    #[serde(default)]
    pub paused: bool,
    /// Who answers for it.
    #[serde(default, rename = "type")]
    pub kind: ZoneType,
    /// Name servers of one's own.
    #[serde(default)]
    pub vanity_name_servers: Vec<Hostname>,
    /// Its answers are to be signed.
    #[serde(default)]
    pub signed: bool,
}

impl ZoneTraits {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Who answers for a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZoneType {
    /// We do.
    #[default]
    Full,
    /// Others do, and lead single names to us.
    Partial,
    /// We do, with records that others keep.
    Secondary,
    /// We do, for those inside only.
    Internal,
}

/// Settings by name.
pub type ZoneSettings = BTreeMap<Box<str>, ZoneSetting>;

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSetting {
    /// As whoever changed it checked it.
    pub value: serde_json::Value,
    /// When.
    pub modified_at: Timestamp,
}

impl Zone {
    pub(crate) fn new(account: AccountId, name: Hostname, now: Timestamp) -> Self {
        Self {
            id: ZoneId::of(account, &name),
            name,
            created_at: now,
            modified_at: None,
            traits: ZoneTraits::default(),
            settings: BTreeMap::new(),
            deleted_at: None,
            hold: None,
        }
    }

    /// What a setting that was changed says, if it is a text.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name)?.value.as_str()
    }

    /// Who answers for it, where the edge does: as it was said, else two names under the edge's own domain.
    pub fn name_servers(&self, domain: &Hostname) -> Vec<Hostname> {
        if !self.traits.vanity_name_servers.is_empty() {
            return self.traits.vanity_name_servers.clone();
        }
        // A domain so long that nothing fits in front of it has none.
        ["ns1", "ns2"].iter().filter_map(|label| domain.child(label).ok()).collect()
    }

    /// When it was last changed, or else made.
    pub fn modified_at(&self) -> Timestamp {
        self.modified_at.unwrap_or(self.created_at)
    }
}

impl Resource for Zone {
    const KIND: &'static str = "zones";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

impl ZoneId {
    /// A zone's id follows from its account and name, so that two nodes that make the same zone at once make one.
    pub(crate) fn of(account: AccountId, name: &Hostname) -> Self {
        let digest: [u8; 32] = Sha256::digest(format!("{account}/{name}")).into();
        let (half, _) = digest.split_at(16);
        Self::from_bytes(half.try_into().expect("16 bytes were split off"))
    }
}
