//! The whole API over real connections, as its clients call it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod audit;
mod balance;
mod certificates;
mod conformance;
mod credentials;
mod dashboard;
mod edge;
mod items;
mod joining;
mod lists;
mod login;
mod networks;
mod openapi;
mod ports;
mod quick;
mod records;
mod rulesets;
mod shape;
mod tokens;
mod transfers;
mod tunnels;
mod zones;
