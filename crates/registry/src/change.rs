use std::sync::Arc;

use uuid::Uuid;

use crate::resource::{
    Account, ApiToken, Configuration, Passthrough, Port, Route, Tunnel, TunnelAccess, Versioned, Zone,
};
use crate::{AccountId, Hostname, PortId, TokenId, ZoneId};

/// One entry that was written (`Some`) or removed (`None`).
#[derive(Debug, Clone)]
pub enum Change {
    /// An account.
    Account(AccountId, Option<Arc<Versioned<Account>>>),
    /// An API token.
    Token(TokenId, Option<Arc<Versioned<ApiToken>>>),
    /// A zone.
    Zone(ZoneId, Option<Arc<Versioned<Zone>>>),
    /// A tunnel. A deleted one is written with the time of its deletion; a quick one that ended is removed.
    Tunnel(Uuid, Option<Arc<Versioned<Tunnel>>>),
    /// A route.
    Route(Hostname, Option<Arc<Versioned<Route>>>),
    /// A tunnel's configuration.
    Configuration(Uuid, Option<Arc<Versioned<Configuration>>>),
    /// Who may visit a tunnel.
    Access(Uuid, Option<Arc<Versioned<TunnelAccess>>>),
    /// A public port.
    Port(PortId, Option<Arc<Versioned<Port>>>),
    /// A name whose TLS is the origin's own.
    Passthrough(Hostname, Option<Arc<Versioned<Passthrough>>>),
}
