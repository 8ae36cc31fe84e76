//! What the edge knows: accounts, tokens, zones, tunnels, routes and configurations, and who is connected right now.
//!
//! [`Registry`] is the one interface to it. Requests read [`Registry::snapshot`], an immutable copy in memory that is
//! swapped when anything changes, and never wait for a disk. Changes go through typed functions (or [`Transaction`]s,
//! guarded by revision, all or nothing) to an [`Engine`], which keeps them and feeds them back in order;
//! [`Registry::watch`] tells others. Live state ([`Registry::connect`]) is kept beside it in memory, and ends with its
//! holder.
//!
//! Deliberately absent: HTTP, the tunnel protocol, any clock (the time is passed in), and sockets but for those to
//! etcd.

mod access;
mod change;
mod configuration;
pub mod engine;
mod error;
mod id;
mod live;
mod name;
mod port;
mod presence;
mod registry;
mod resource;
mod route;
mod secret;
mod shared;
mod snapshot;
mod token;
mod transaction;
mod tunnel;
mod watch;
mod words;
mod zone;

pub use access::AccessError;
pub use change::Change;
pub use configuration::{ConfigurationError, ConfigurationWrite};
pub use engine::{BadEtcdSettings, Embedded, Engine, Etcd, EtcdIdentity, EtcdLogin, EtcdSettings, EtcdTls, Revision};
pub use error::{CommitError, EngineError, OpenError};
pub use id::{AccountId, BadId, TokenId, ZoneId};
pub use live::{Activity, ConnectionRecord};
pub use name::{BadName, Hostname, TunnelName};
pub use port::{NewPort, PassthroughError, PortError, PortId, PortOptions, PortProtocol, ProxyProtocol};
pub use presence::Presence;
pub use registry::Registry;
pub use resource::{
    Account, ApiToken, ConfigSource, Configuration, Key, NameClaim, Passthrough, Port, Resource, Route, TokenHash,
    Tunnel, TunnelAccess, Versioned, Zone,
};
pub use route::{RouteError, RouteWrite};
pub use secret::{BadSecret, Secret};
pub use snapshot::Snapshot;
pub use token::{NewToken, TokenRefused};
pub use transaction::Transaction;
pub use tunnel::{DeleteTunnelError, NewTunnel, QuickName, QuickTunnelError, TunnelError, TunnelRefused};
pub use watch::{Event, Watch};
