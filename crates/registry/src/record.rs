//! DNS records: what one is, what may stand in it ([`RecordContent`]), and how they are changed ([`RecordEdit`]).
//!
//! The records of one name are one entry of the registry. So whoever writes one of them writes all, guarded by the
//! revision that he read, and two writers cannot make a twin, or put an address beside a CNAME, between them.

mod change;
mod content;
mod edit;
mod field;
mod kind;
mod location;
mod refusal;
mod text;
mod wire;
mod zonefile;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::resource::{Key, Resource};
use crate::{Hostname, RecordId, ZoneId};

pub use content::{RecordContent, bare as bare_text};
pub(crate) use edit::{Draft, SetChange};
pub use edit::{EditedRecord, NewRecord, RecordEdit, Redraft};
pub use kind::{RecordType, UnknownRecordType};
pub use refusal::{BadRecord, RecordError, RecordFlaw};
pub use zonefile::{BadZoneFile, ParsedRecord, parse_zone_file, write_zone_file};

/// How the name of the zone itself is written within the zone.
pub(crate) const APEX: &str = "@";
/// A name behind a tunnel's id; a proxied CNAME to it leads to the tunnel.
const TUNNEL_SUFFIX: &str = ".cfargotunnel.com";

/// Of what is written in one change, as JSON: etcd takes 1.5 MiB in one request.
pub(crate) const MAX_CHANGE_BYTES: usize = 1 << 20;

/// One DNS record, but for its name, which it shares with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names it for good.
    pub id: RecordId,
    /// Its type and data.
    #[serde(flatten)]
    pub content: RecordContent,
    /// Seconds; [`Record::AUTOMATIC`] leaves it to the edge.
    pub ttl: u32,
    /// Visitors come through the edge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxied: bool,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// What few records have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Box<RecordNotes>>,
}

impl Record {
    /// The time to live that the edge chooses.
    pub const AUTOMATIC: u32 = 1;
    /// The shortest time to live that may be chosen, in seconds.
    pub const MIN_TTL: u32 = 60;
    /// The longest one, a day.
    pub const MAX_TTL: u32 = 86_400;

    /// The tunnel that it leads to, if it does.
    pub fn tunnel(&self) -> Option<Uuid> {
        if !self.proxied || self.content.kind() != RecordType::Cname {
            return None;
        }
        Self::tunnel_of_target(self.content.text())
    }

    /// The tunnel of a name like [`Record::tunnel_target`], if it is one.
    pub fn tunnel_of_target(name: &str) -> Option<Uuid> {
        let id = name.strip_suffix(TUNNEL_SUFFIX)?;
        Uuid::try_parse(id).ok().filter(|_| id.len() == 36)
    }

    /// The name to which a proxied CNAME leads to the tunnel.
    pub fn tunnel_target(tunnel: Uuid) -> String {
        format!("{tunnel}{TUNNEL_SUFFIX}")
    }

    /// What stands in the notes; the same as none if there are none.
    pub fn notes(&self) -> RecordNotes {
        self.notes.as_deref().cloned().unwrap_or_default()
    }
}

/// What people note about a record, and what it asks of the edge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordNotes {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Box<str>>,
    /// When the comment was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commented_at: Option<Timestamp>,
    /// For filters, such as `team:web`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Box<str>>,
    /// When the tags were last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tagged_at: Option<Timestamp>,
    /// What it asks of the edge.
    #[serde(default)]
    pub settings: RecordSettings,
}

/// What a record asks of the edge; `None`: nothing was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordSettings {
    /// Visitors are given IPv4 addresses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_only: Option<bool>,
    /// Visitors are given IPv6 addresses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_only: Option<bool>,
    /// A CNAME is answered with the addresses that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flatten_cname: Option<bool>,
}

/// The records of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSet {
    /// The zone.
    pub zone: ZoneId,
    /// The name within the zone, without the zone's own; `@` for the zone's name itself.
    pub host: Box<str>,
    /// In the order of their ids; never empty in the registry.
    pub records: Box<[Record]>,
}

impl RecordSet {
    /// The record with this id.
    pub fn record(&self, id: RecordId) -> Option<&Record> {
        let at = self.records.binary_search_by_key(&id, |record| record.id).ok()?;
        self.records.get(at)
    }

    /// The whole name.
    pub fn name(&self, zone: &Hostname) -> Hostname {
        match &*self.host {
            APEX => zone.clone(),
            host => Hostname::joined(host, zone),
        }
    }

    /// Writes the whole name over what was in a buffer, for whoever looks at many.
    pub fn write_name(&self, zone: &Hostname, name: &mut String) {
        name.clear();
        if &*self.host != APEX {
            name.push_str(&self.host);
            name.push('.');
        }
        name.push_str(zone.as_str());
    }

    /// The record that leads to a tunnel, and that tunnel.
    pub(crate) fn tunnel(&self) -> Option<(&Record, Uuid)> {
        self.records.iter().find_map(|record| Some((record, record.tunnel()?)))
    }

    pub(crate) fn key_of(zone: ZoneId, host: &str) -> Key {
        Key::new(Self::KIND, &format_args!("{zone}/{host}"))
    }
}

impl Resource for RecordSet {
    const KIND: &'static str = "records";

    fn key(&self) -> Key {
        Self::key_of(self.zone, &self.host)
    }
}

/// A name of a zone as the zone's entries have it; `None` if it is outside of the zone.
pub(crate) fn host_within<'a>(name: &'a str, zone: &Hostname) -> Option<&'a str> {
    let rest = name.strip_suffix(zone.as_str())?;
    if rest.is_empty() { Some(APEX) } else { rest.strip_suffix('.') }
}
