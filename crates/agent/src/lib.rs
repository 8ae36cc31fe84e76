//! The connector.
mod eyeballs;
pub mod file;
pub mod ingress;
mod origin;
