//! The authoritative DNS server: answers for the registry's zones, on every node, from memory alone.
//!
//! [`bind`] binds the sockets and [`Server::start`] answers on them until [`Server::shutdown`]. A question over UDP comes to
//! a thread of its own, which receives and sends many at once (`udp`); over TCP or TLS to a task (`tcp`). Either reads it
//! (`query`), looks for an answer that it has prepared already (`desk`), and else makes one of the registry's snapshot
//! (`answer`), which holds until the zones that it was made of change (`book`). Whole zones go to other name servers over TCP
//! (`transfer`).
//!
//! Deliberately absent: recursion (whoever asks for a name outside of the zones is refused), the health of load balancers'
//! members ([`Members`] tells it), and how records come about (`registry`).

mod answer;
mod book;
mod cookie;
mod desk;
mod limit;
mod message;
mod metrics;
mod name;
mod options;
mod outside;
mod places;
mod query;
mod server;
mod sockets;
mod tcp;
mod transfer;
mod tsig;
mod udp;

pub use answer::{Asker, Lead, Member, Members, Unchecked};
pub use desk::{Desk, Reply};
pub use metrics::Metrics;
pub use options::Subnet;
pub use server::{Config, Server};
pub use sockets::{BindError, Sockets, bind};
