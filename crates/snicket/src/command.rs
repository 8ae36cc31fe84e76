//! The commands, one module each: its arguments, and `run`.

pub(crate) mod api;
pub(crate) mod cloudflared;
pub(crate) mod completions;
pub(crate) mod dns;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod pools;
pub(crate) mod registry;
pub(crate) mod service;
pub(crate) mod services;
pub(crate) mod share;
pub(crate) mod status;
pub(crate) mod tcp;
pub(crate) mod try_out;
pub(crate) mod tunnel;
pub(crate) mod udp;
pub(crate) mod up;

use serde::Serialize;
use serde_json::Value;

/// An object as an event of this name.
fn event(name: &str, value: &impl Serialize) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(value)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("event".to_owned(), name.into());
    }
    Ok(value)
}
