//! The whole program under test: starts the real binary on free ports, an origin beside it, and visits the result.
//!
//! [`Edge`], [`Agent`] and [`Try`] are running processes of the binary, each with a home directory of its own;
//! [`Origin`] is the service behind; [`Visitor`] asks the edge. A test reads
//!
//! ```ignore
//! let origin = Origin::start().await;
//! let edge = Edge::start().await;
//! let agent = Agent::start(&edge, &origin.service(), &[]).await;
//! let answer = edge.visitor().get(&agent.url("/echo")).await;
//! assert_eq!(answer.status, 200);
//! ```
//!
//! Every wait has a limit ([`LIMIT`]), every process ends with its value, and what a process wrote to standard error is
//! shown when the test fails. Real programs are found by [`peer`]; [`Curl`], [`Browser`] (chromium), [`Etcd`] and [`Pebble`] (ACME) are four of them. Deliberately absent: anything of
//! the program itself; tests see it from outside only.

mod address;
mod browser;
mod cable;
mod curl;
mod etcd;
mod full_listener;
mod geo_database;
mod load;
mod network;
mod origin;
mod pebble;
mod peer;
mod process;
mod proxy;
mod relay;
mod roles;
mod visitor;
mod wait;

pub use address::lasting_address;
pub use browser::{Browser, Page};
pub use cable::{Cable, Weather};
pub use curl::Curl;
pub use etcd::{Etcd, EtcdCertificates};
pub use full_listener::FullListener;
pub use geo_database::{GeoEntry, geo_database};
pub use load::{Load, Tally};
pub use network::{Host, Network};
pub use origin::{DatagramOrigin, Identity, Mood, Origin, RawOrigin};
pub use pebble::Pebble;
pub use peer::{peer, skip};
pub use process::{LIMIT, Process, Program};
pub use proxy::ForwardProxy;
pub use relay::{Passing, Relay};
pub use roles::{Agent, Edge, Try};
pub use visitor::{Answer, Http, RequestBody, Stream, Visitor};
pub use wait::{still, until};
