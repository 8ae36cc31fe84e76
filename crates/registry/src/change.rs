use std::sync::Arc;

use uuid::Uuid;

use crate::resource::{Account, ApiToken, Configuration, Passthrough, Port, Tunnel, TunnelAccess, Versioned};
use crate::{AccountId, AuthorityPurpose, Hostname, ItemKind, PortId, RecordSet, TokenId, Zone, ZoneId};

/// One entry that was written (`Some`) or removed (`None`).
#[derive(Debug, Clone)]
pub enum Change {
    /// An account.
    Account(AccountId, Option<Arc<Versioned<Account>>>),
    /// An API token.
    Token(TokenId, Option<Arc<Versioned<ApiToken>>>),
    /// A zone. A deleted one is written with the time of its deletion, and removed once it has nothing any more.
    Zone(ZoneId, Option<Arc<Versioned<Zone>>>),
    /// A tunnel. A deleted one is written with the time of its deletion; a quick one that ended is removed.
    Tunnel(Uuid, Option<Arc<Versioned<Tunnel>>>),
    /// The records of a name within a zone (`@`: the zone's own name).
    Records(ZoneId, Box<str>, Option<Arc<Versioned<RecordSet>>>),
    /// A tunnel's configuration.
    Configuration(Uuid, Option<Arc<Versioned<Configuration>>>),
    /// Who may visit a tunnel.
    Access(Uuid, Option<Arc<Versioned<TunnelAccess>>>),
    /// A public port.
    Port(PortId, Option<Arc<Versioned<Port>>>),
    /// A name whose TLS is the origin's own.
    Passthrough(Hostname, Option<Arc<Versioned<Passthrough>>>),
    /// An order of a public certificate for this name.
    Order(Hostname),
    /// An authority for this.
    Authority(AuthorityPurpose),
    /// An item of this kind, of this zone or the account's.
    Item(ItemKind, Option<ZoneId>),
    /// Something of load balancing, or something that only a later version of this program knows.
    Balance,
}
