//! Names of other people's domains whose visitors come to a zone. Pure.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::form::{Form, Member, Shape, flag, list, may, must, object, text};
use super::{Check, Item, ItemError, MOST, Members, Rules, bad};
use crate::{Hostname, ItemKind};

pub(super) static RULES: Rules = Rules {
    name: "custom-hostnames",
    title: "custom hostname",
    has_uuid: true,
    most: MOST,
    members: &MEMBERS,
    check,
    index,
};

/// Instead of a name: that of the request.
const OF_REQUEST: &str = ":request_host_header:";

const ON_OFF: Form = Form::Choice(&["on", "off"]);

static MEMBERS: [Member; 5] = [
    must("hostname", Form::Hostname),
    may("custom_metadata", Form::Map(&Form::Text(1024), 32)),
    may("custom_origin_server", Form::Hostname),
    may("custom_origin_sni", Form::Own(Shape::Text, read_sni)),
    may("ssl", Form::Object(&SSL)),
];

static SSL: [Member; 10] = [
    text("method", Form::Choice(&["http", "txt", "email"]), "http"),
    text("type", Form::Choice(&["dv"]), "dv"),
    text("bundle_method", Form::Choice(&["ubiquitous", "optimal", "force"]), "ubiquitous"),
    may("certificate_authority", Form::Choice(&["digicert", "google", "lets_encrypt", "ssl_com"])),
    flag("wildcard", false),
    object("settings", &SETTINGS),
    may("custom_certificate", Form::Own(Shape::Nothing, refuse_own)),
    may("custom_key", Form::Own(Shape::Nothing, refuse_own)),
    may("custom_cert_bundle", Form::Own(Shape::Nothing, refuse_own)),
    may("custom_csr_id", Form::Own(Shape::Nothing, refuse_own)),
];

static SETTINGS: [Member; 5] = [
    may("http2", ON_OFF),
    may("tls_1_3", ON_OFF),
    may("early_hints", ON_OFF),
    may("min_tls_version", Form::Choice(&["1.0", "1.1", "1.2", "1.3"])),
    list("ciphers", &Form::Word(64), 64),
];

fn read_sni(value: &Value) -> Result<Value, String> {
    let text = value.as_str().ok_or("a host name is wanted")?;
    if text == OF_REQUEST {
        return Ok(value.clone());
    }
    let name = Hostname::parse(text).map_err(|problem| format!("{problem} (or {OF_REQUEST})"))?;
    Ok(name.as_str().into())
}

/// A key would have to be kept as carefully as a tunnel's secret, for nothing as yet.
fn refuse_own(_: &Value) -> Result<Value, String> {
    Err("certificates of one's own are not taken yet; leave it out".into())
}

impl Item {
    /// What whoever has a custom hostname shows to prove it. It follows from the id, which nobody else knows.
    pub fn ownership_token(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(format!("{}/ownership", self.id)).into();
        let (half, _) = digest.split_at(16);
        Uuid::from_bytes(half.try_into().expect("16 bytes were split off")).to_string()
    }
}

fn index(terms: &Members) -> Option<&str> {
    terms.get("hostname")?.as_str()
}

fn check(check: &mut Check<'_>) -> Result<(), ItemError> {
    let item = &*check.new;
    let name = item.text("hostname");
    if name.starts_with('*') {
        return Err(bad("hostname", "no wildcard is wanted; ssl.wildcard covers the names below it"));
    }
    if let Some(old) = check.old.filter(|old| old.text("hostname") != name) {
        return Err(bad("hostname", format_args!("it stays {}; make another one", old.text("hostname"))));
    }
    if let Some(other) = check.snapshot.items_named(ItemKind::CustomHostname, name).find(|other| other.id != item.id) {
        return Err(ItemError::Taken(format!("a custom hostname {}", other.text("hostname"))));
    }
    let zone = item.zone.and_then(|zone| check.snapshot.zone(zone));
    let origin = item.terms.get("custom_origin_server").and_then(Value::as_str);
    if let (Some(zone), Some(Ok(origin))) = (zone, origin.map(Hostname::parse))
        && !origin.is_within(&zone.name)
    {
        return Err(bad("custom_origin_server", format_args!("{origin} does not lie in the zone {}", zone.name)));
    }
    if origin.is_none() && item.terms.contains_key("custom_origin_sni") {
        return Err(bad("custom_origin_sni", "only with custom_origin_server"));
    }
    Ok(())
}
