//! What the edge knows: accounts, tokens, zones and their DNS records, tunnels and configurations, and who is connected
//! right now. Which name leads to which tunnel follows from the records.
//!
//! [`Registry`] is the one interface to it. Requests read [`Registry::snapshot`], an immutable copy in memory that is
//! swapped when anything changes, and never wait for a disk. Changes go through typed functions (or [`Transaction`]s,
//! guarded by revision, all or nothing) to an [`Engine`], which keeps them and feeds them back in order;
//! [`Registry::watch`] tells others. Live state ([`Registry::connect`]) is in the snapshot at once, and ends with its
//! holder; after [`Registry::join`] the other nodes of the same registry have it as well, by entries under a lease.
//!
//! Deliberately absent: HTTP, the tunnel protocol, any clock for what is configured (the time is passed in), and sockets
//! but for those to etcd.

mod access;
mod acme;
pub mod audit;
mod authority;
mod balance;
mod certificate;
mod change;
mod configuration;
pub mod engine;
mod error;
mod id;
mod invitation;
mod item;
mod label;
mod live;
mod membership;
mod name;
mod neighbours;
mod node;
mod port;
mod presence;
mod record;
mod registry;
mod resource;
mod retry;
mod route;
mod schema;
mod secret;
mod shared;
mod snapshot;
mod token;
mod transaction;
mod transfer;
mod tunnel;
mod watch;
mod words;
mod zone;

pub use access::AccessError;
pub use acme::{
    AcmeAccount, AcmeAnswer, AcmeCertificate, AcmeError, AcmeFailed, AcmeFailure, AcmeHeld, AcmeHold, AcmeNotNow,
    AcmeOrder, AcmeStage, AcmeUrgency,
};
pub use authority::{FormerAuthority, RotationError};
pub use balance::{
    AdaptiveRouting, Affinity, AffinityAttributes, BadTerms, BalanceError, Failover, FixedResponse, HealthChange,
    Joined, LabelSteering, Link, LoadBalancer, LoadBalancerTerms, LoadShedding, LocationMode, LocationStrategy,
    MemberHealth, MemberId, MemberReport, Monitor, MonitorTerms, MonitorType, Notices, NotificationFilter, Origin,
    OriginHeader, OriginPolicy, OriginSteering, Overrides, Pool, PoolHealth, PoolReport, PoolTerms, PreferEcs, Probe,
    REGIONS, RandomSteering, Referrer, Rule, SameSite, Secure, SessionShedding, SheddingPolicy, Steering,
    SteeringPolicy,
};
pub use certificate::{
    AuthorityPurpose, BadCertificateId, CertificateAuthority, CertificateError, CertificateId, OriginCertificate,
    OriginRequestType,
};
pub use change::Change;
pub use configuration::{ConfigurationError, ConfigurationWrite};
pub use engine::{
    BadEtcdSettings, BadKeys, Embedded, Engine, Etcd, EtcdIdentity, EtcdLogin, EtcdSettings, EtcdTls, Keys, Mirror,
    Revision, Sealed, StandIn,
};
pub use error::{CommitError, EngineError, OpenError};
pub use id::{
    AccountId, AuditId, BadId, ItemId, LoadBalancerId, MonitorId, NodeId, PolicyId, PoolId, RecordId, TokenId, ZoneId,
};
pub use invitation::{Invitation, InvitationError};
pub use item::{
    Item, ItemError, ItemKind, Members, PrivateRoute, RulesetEdit, RulesetPhase, TransferAlgorithm, TransferKey,
    TransferPeer, TransferView, Which,
};
pub use label::{BadLabel, LabelWord, Labels};
pub use live::{Activity, ConnectionRecord, Features};
pub use name::{BadName, Hostname, TunnelName};
pub use node::{NodeAddresses, NodeRecord};
pub use port::{NewPort, PassthroughError, PortError, PortId, PortOptions, PortProtocol, ProxyProtocol};
pub use presence::Presence;
pub use record::{
    BadRecord, BadZoneFile, EditedRecord, NewRecord, ParsedRecord, Record, RecordContent, RecordEdit, RecordError,
    RecordFlaw, RecordNotes, RecordSet, RecordSettings, RecordType, Redraft, UnknownRecordType, bare_text,
    parse_zone_file, write_zone_file,
};
pub use registry::Registry;
pub use resource::{
    Account, ApiToken, ConfigSource, Configuration, Key, NameClaim, Passthrough, Port, Resource, TokenHash, Tunnel,
    TunnelAccess, Versioned,
};
pub use route::{Route, RouteError, RouteWrite};
pub use secret::{BadSecret, PrivateText, Secret};
pub use snapshot::Snapshot;
pub use token::{
    Area, BadScope, NewToken, Object, Permission, Policy, Scope, TokenChange, TokenError, TokenRefused, TokenTerms,
};
pub use transaction::Transaction;
pub use transfer::{Document, DocumentError, ImportError, Imported, import};
pub use tunnel::{DeleteTunnelError, NewTunnel, QuickName, QuickTunnelError, TunnelChange, TunnelError, TunnelRefused};
pub use watch::{Event, Watch};
pub use zone::{KeyChange, KeyStep, Zone, ZoneError, ZoneKey, ZoneSetting, ZoneSettings, ZoneTraits, ZoneType};
