//! What visitors can rely on, end to end: real edge, real agents over both transports, real origins and visitors of every
//! kind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod browser;
mod codes;
mod grpc;
mod heads;
mod http3;
mod limits;
mod memory;
mod refusals;
mod rig;
mod script;
mod secure;
mod services;
mod streams;
mod visit;
mod websocket;
