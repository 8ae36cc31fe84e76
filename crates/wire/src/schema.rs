//! The messages of the protocol and how they lie on a stream.
//!
//! The two `…_capnp` modules are generated from `schema/*.capnp` by `tests/schema.rs`, which also keeps them current.
//! They are checked in so that a build needs no Cap'n Proto compiler.

pub(crate) mod stream;

#[rustfmt::skip]
#[allow(clippy::all, clippy::unwrap_used, clippy::use_self, missing_docs, unreachable_pub, unused_qualifications, dead_code)]
pub(crate) mod connect_capnp;

#[rustfmt::skip]
#[allow(clippy::all, clippy::unwrap_used, clippy::use_self, missing_docs, unreachable_pub, unused_qualifications, dead_code)]
pub(crate) mod tunnel_capnp;
