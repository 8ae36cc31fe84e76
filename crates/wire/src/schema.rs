//! Code generated from `schema/*.capnp` by `tests/schema.rs`, which also keeps it current. It is checked in so that a
//! build needs no Cap'n Proto compiler.

#[rustfmt::skip]
#[allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub, unused_qualifications, dead_code)]
pub(crate) mod connect_capnp;

#[rustfmt::skip]
#[allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub, unused_qualifications, dead_code)]
pub(crate) mod tunnel_capnp;
