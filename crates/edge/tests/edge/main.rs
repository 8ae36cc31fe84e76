//! A node on loopback, with agents and visitors of every kind.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod agents;
mod api;
mod bodies;
mod flows;
mod gate;
mod hostile;
mod limits;
mod node;
mod odd_agents;
mod origin;
mod refusals;
mod requests;
mod shutdown;
mod visitor;
mod websockets;
