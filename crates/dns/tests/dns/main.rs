//! The server over real sockets: asked by a library of others, by real programs, and beside a real server.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod balancers;
mod changes;
mod discovery;
mod flood;
mod oracle;
mod peers;
mod setting;
mod signed;
mod swap;
mod transfers;
mod wire;
