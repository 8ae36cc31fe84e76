//! Several nodes on one registry.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod apart;
mod health;
mod node;
mod stand_in;
mod together;
