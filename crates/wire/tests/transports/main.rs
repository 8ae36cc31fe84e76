//! Both ends of both transports, talking to each other over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "the modules of a test are all its own")]

mod exchange;
mod flows;
mod http2;
mod lifecycle;
mod quic;
mod rig;
mod streaming;
mod streams;
