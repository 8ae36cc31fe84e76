//! What goes wrong, and comes right again by itself: the real program, over both transports.

mod agents;
mod blocked;
mod configuration;
mod edges;
mod endpoint;
mod flows;
mod rig;
mod spread;
mod start;
mod stopping;
mod unread;
mod vanished;
