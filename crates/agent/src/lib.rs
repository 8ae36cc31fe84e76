//! The connector: it dials the edge, keeps several connections to it, and gives the requests that arrive on them to
//! origins.
//!
//! The entry is [`Agent::start`] with a [`Config`]; it hands out a [`Running`], which tells what happens and stops it.
//! Rules that choose an origin are in [`ingress`], the file that holds them in [`file`].
//!
//! Deliberately absent: the command line and what it prints, tokens and credentials files (they are read
//! before), and signals.

pub mod access;
mod agent;
mod dial;
pub mod edge;
mod event;
mod eyeballs;
pub mod file;
mod handler;
pub mod ingress;
pub mod inspector;
mod listen;
mod memory;
mod metrics;
mod origin;
mod proxy;
mod supervisor;
mod watched;

pub use agent::{
    Agent, Config, DEFAULT_CONNECTIONS, DEFAULT_GRACE, DEFAULT_RPC_TIMEOUT, Reload, Running, StartError, Tag, TagError,
};
pub use event::{
    ConfigurationSource, ConnectionStatus, Event, FallbackReason, FlowEvent, FlowOutcome, RequestEvent, RequestOutcome,
    Status, StreamEvent, StreamOutcome,
};
pub use inspector::listen as listen_inspector;
pub use metrics::listen as listen_metrics;
#[cfg(any(test, feature = "fuzz"))]
pub use origin::fuzz;
pub use origin::{Directs, Permits, Place, PrepareError, Security};
pub use proxy::{Proxies, ProxyError};
pub use supervisor::Protocol;
