//! A node of the edge: what visitors reach, what agents dial, and the way of each request between the two.
//!
//! [`listen()`] binds the sockets and [`Edge::start`] runs a node on them until [`Running::shutdown`]. A request
//! passes plain functions in this order: a listener, a front (one for each version of HTTP), the site (which tunnel,
//! which header), the gate (who may visit), dispatch (which connection, and another one if that fails), and back. [`refusal`] lists everything
//! that the edge itself answers.
//!
//! Deliberately absent: the tunnel protocol (`wire`), what is configured (`registry`), certificates (`certs`), the API
//! (`api`), and signals and files, which are the program's.

mod config;
mod connections;
mod defence;
mod dispatch;
mod fair;
mod flows;
mod front;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod header;
mod host;
mod listen;
mod members;
mod metrics;
mod node;
mod ports;
mod ray;
mod reach;
pub mod refusal;
mod site;
mod sockets;
mod stop;
mod streams;
mod trace;
mod tunnels;
mod unread;
mod visit;

pub use config::{Addresses, Config, Limits, Rate};
pub use connections::Connections;
pub use node::{Edge, Running, StartError};
pub use site::{AnswerDns, DnsAnswer, RequestEvent};
pub use sockets::{BindError, Pair, Sockets, bind_pair, bind_tcp, listen};
