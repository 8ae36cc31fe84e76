//! The connector.
pub mod file;
pub mod ingress;
pub mod edge;
mod eyeballs;
mod origin;
mod dial;
mod supervisor;
