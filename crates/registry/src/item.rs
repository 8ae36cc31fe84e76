//! What is kept as a checked document: applications over TCP and UDP, rules, private networks, custom hostnames, transfers
//! of zones. All of them are [`Item`]s of some [`ItemKind`], of a zone or of the account: made, changed and removed by one mechanism.
//! What a document may have in it says a table ([`form`]), and what must hold among several says each kind's module.
//! Nothing follows from any of them yet.

mod application;
mod change;
mod custom_hostname;
mod form;
mod network;
mod rate_limit;
mod ruleset;
mod transfer;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::resource::{Key, Resource};
use crate::{BadTerms, CommitError, ItemId, Snapshot, Transaction, ZoneId};
use form::Member;

pub use change::Which;
pub use network::PrivateRoute;
pub use ruleset::{RulesetEdit, RulesetPhase};
pub use transfer::{TransferAlgorithm, TransferKey, TransferPeer, TransferView};

/// The members of a document.
pub type Members = Map<String, Value>;

/// Of most kinds, that a zone or the account may have: each change looks through them.
const MOST: usize = 10_000;

/// Of a document, as JSON: encrypted, it still fits into what etcd takes at once, which is 1.5 MiB.
const MOST_BYTES: usize = 1 << 20;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemKind {
    /// An application over TCP or UDP at a name of the zone.
    Application,
    /// A limit of requests, in the older form.
    RateLimit,
    /// Rules of one phase.
    Ruleset,
    /// A private network, of addresses that may be another's, too.
    VirtualNetwork,
    /// Private addresses that a tunnel leads to.
    PrivateRoute,
    /// A name of somebody else whose visitors come to the zone.
    CustomHostname,
    /// A key by which transfers of zones are signed.
    TransferKey,
    /// Another name server, to which zones are transferred.
    TransferPeer,
    /// Addresses from which transfers may be asked for besides those of the peers.
    TransferAcl,
    /// To whom a zone is transferred.
    TransferOut,
    /// What transfers of a zone follow from besides records.
    TransferView,
}

/// What all of a kind have in common.
struct Rules {
    /// In keys.
    name: &'static str,
    /// In messages.
    title: &'static str,
    /// Whether ids are written with dashes.
    has_uuid: bool,
    /// That a zone or the account may have.
    most: usize,
    /// What documents may have in them.
    members: &'static [Member],
    /// What else must hold, and what follows.
    check: fn(&mut Check<'_>) -> Result<(), ItemError>,
    /// By which others find it.
    index: fn(&Members) -> Option<&str>,
}

/// Something that is about to be written.
struct Check<'a> {
    snapshot: &'a Snapshot,
    transaction: &'a mut Transaction,
    old: Option<&'a Item>,
    new: &'a mut Item,
}

/// Something that is kept as a checked document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Whose; `None`: the account's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneId>,
    /// Names it for good, among those of its kind.
    pub id: ItemId,
    /// What it consists of, in the members of the API.
    pub terms: Members,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
}

impl Resource for Item {
    const KIND: &'static str = "items";

    fn key(&self) -> Key {
        Self::key_of(self.kind, self.zone, self.id)
    }
}

impl Item {
    pub(crate) fn key_of(kind: ItemKind, zone: Option<ZoneId>, id: ItemId) -> Key {
        let kind = kind.rules().name;
        match zone {
            Some(zone) => Key::new(Self::KIND, &format_args!("{kind}/{zone}/{id}")),
            None => Key::new(Self::KIND, &format_args!("{kind}/{OF_ACCOUNT}/{id}")),
        }
    }

    /// The same with terms as the table of its kind has them, be it that somebody edited an export by hand.
    ///
    /// # Errors
    /// It is another one's than its place says, or something in it will not do.
    pub(crate) fn checked(mut self, kind: ItemKind, zone: Option<ZoneId>, id: ItemId) -> Result<Self, String> {
        if (self.kind, self.zone, self.id) != (kind, zone, id) {
            return Err(format!("it is {}, which has another key", self.key()));
        }
        self.terms = form::read(kind.rules().members, &self.terms).map_err(|problem| problem.to_string())?;
        Ok(self)
    }

    /// A member that is a text; empty if it is absent.
    pub fn text(&self, member: &str) -> &str {
        text(&self.terms, member)
    }

    /// The id as the API writes it.
    pub fn id_text(&self) -> String {
        self.kind.id_text(self.id)
    }

    /// By which others find it.
    pub(crate) fn index(&self) -> Option<&str> {
        (self.kind.rules().index)(&self.terms)
    }
}

/// In a key, instead of a zone.
const OF_ACCOUNT: &str = "account";

impl ItemKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Application,
        Self::RateLimit,
        Self::Ruleset,
        Self::VirtualNetwork,
        Self::PrivateRoute,
        Self::CustomHostname,
        Self::TransferKey,
        Self::TransferPeer,
        Self::TransferAcl,
        Self::TransferOut,
        Self::TransferView,
    ];

    fn rules(self) -> &'static Rules {
        match self {
            Self::Application => &application::RULES,
            Self::RateLimit => &rate_limit::RULES,
            Self::Ruleset => &ruleset::RULES,
            Self::VirtualNetwork => &network::RULES,
            Self::PrivateRoute => &network::ROUTE_RULES,
            Self::CustomHostname => &custom_hostname::RULES,
            Self::TransferKey => &transfer::KEY_RULES,
            Self::TransferPeer => &transfer::PEER_RULES,
            Self::TransferAcl => &transfer::ACL_RULES,
            Self::TransferOut => &transfer::OUT_RULES,
            Self::TransferView => &transfer::VIEW_RULES,
        }
    }

    /// What it is called.
    pub fn title(self) -> &'static str {
        self.rules().title
    }

    /// What a document may have in it, as JSON Schema (2020-12): members that must be there are `required`, and those that are
    /// filled in have their `default`. Whole numbers are taken as texts, too.
    pub fn schema(self) -> Value {
        form::schema(self.rules().members)
    }

    /// An id as the API writes it: with dashes or without, as the original does for this kind.
    pub fn id_text(self, id: ItemId) -> String {
        if self.rules().has_uuid { id.uuid().to_string() } else { id.to_string() }
    }

    /// An id as the API writes it; other ways to write it are none.
    pub fn parse_id(self, text: &str) -> Option<ItemId> {
        if !self.rules().has_uuid {
            return text.parse().ok();
        }
        let id = Uuid::try_parse(text).ok()?;
        // The parser takes more forms than one.
        (text.len() == 36).then(|| ItemId::of_uuid(id))
    }

    /// What a key is of, after the kind of resource.
    pub(crate) fn parse_key(key: &str) -> Option<(Self, Option<ZoneId>, ItemId)> {
        let (kind, rest) = key.split_once('/')?;
        let (zone, id) = rest.split_once('/')?;
        let kind = Self::ALL.into_iter().find(|known| known.rules().name == kind)?;
        let zone = if zone == OF_ACCOUNT { None } else { Some(zone.parse().ok()?) };
        Some((kind, zone, id.parse().ok()?))
    }
}

/// Why an item was not made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// There is no such thing; it is named with its kind.
    #[error("there is no {0}")]
    NotFound(String),
    /// It is not valid.
    #[error(transparent)]
    Bad(#[from] BadTerms),
    /// Another one has what it wants.
    #[error("there is {0} already")]
    Taken(String),
    /// It cannot be removed, and why.
    #[error("{0}")]
    InUse(String),
    /// There are as many as there may be.
    #[error("there are {0} of these already, which is the most; remove some first")]
    TooMany(usize),
    /// It has more bytes than there may be.
    #[error("it has {0} bytes, and {MOST_BYTES} are the most; say less, or divide it")]
    TooLarge(usize),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Is written with each change of items of a kind, so that these happen one after the other, whoever makes them: what a
/// change was decided on, such as that nobody has a name, is then still so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemTurn {
    pub(crate) of: Box<str>,
}

impl Resource for ItemTurn {
    const KIND: &'static str = "item-turns";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.of)
    }
}

impl ItemTurn {
    /// What is decided on by things of another kind takes turns with these.
    fn of(kind: ItemKind) -> Self {
        let kind = match kind {
            ItemKind::PrivateRoute => ItemKind::VirtualNetwork,
            ItemKind::TransferKey | ItemKind::TransferPeer => ItemKind::TransferOut,
            other => other,
        };
        Self { of: kind.rules().name.into() }
    }
}

fn text<'a>(members: &'a Members, name: &str) -> &'a str {
    members.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// About a member.
fn bad(member: &str, problem: impl std::fmt::Display) -> ItemError {
    BadTerms::new(format_args!("{member}: {problem}")).into()
}
