//! The listeners: accept, bound, time out, hand over.

mod agents;
mod api;
mod newcomers;
mod tcp;
mod visitors;

pub(crate) use agents::Agents;
pub(crate) use api::api;
pub(crate) use newcomers::refuse_newcomers;
pub(crate) use visitors::{visitors_in_plain, visitors_over_quic, visitors_over_tls};
