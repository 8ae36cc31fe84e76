//! The listeners: accept, bound, time out, hand over.

mod agents;
mod api;
mod handshakes;
mod hello;
mod newcomers;
mod places;
mod tcp;
mod turns;
mod visitors;

pub(crate) use agents::Agents;
pub(crate) use api::api;
pub(crate) use handshakes::take_turns;
pub(crate) use newcomers::refuse_newcomers;
pub(crate) use places::{Place, Places, network};
pub(crate) use tcp::Entrance;
pub(crate) use turns::Turns;
pub(crate) use visitors::{Door, visitors_in_plain, visitors_over_quic, visitors_over_tls};
