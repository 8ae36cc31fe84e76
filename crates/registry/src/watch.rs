use std::sync::Arc;

use uuid::Uuid;

use crate::engine::Revision;
use crate::resource::{Account, ApiToken, Configuration, Route, Tunnel, Versioned, Zone};
use crate::{AccountId, Hostname, Snapshot, TokenId, ZoneId};

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
}

/// What a [`Watch`] tells.
#[derive(Debug, Clone)]
pub enum Event {
    /// One transaction. The snapshot already has it.
    Changes {
        /// Its revision.
        revision: Revision,
        /// What it wrote, in order.
        changes: Arc<[Change]>,
    },
    /// The watcher fell too far behind, or started from too long ago: this is everything; later events go on from it.
    Resync(Arc<Snapshot>),
}

/// Follows the registry's changes.
pub struct Watch {}

impl Watch {
    /// The next event, or `None` once the registry is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
    }
}
