//! Transfers of zones to other name servers: the keys that sign them, who those servers are, and which zone goes to which of
//! them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::Network;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::form::{Form, Member, Shape, flag, list, may, must, number, text};
use super::{Check, Item, ItemError, MOST_BYTES, Members, Rules, bad};
use crate::resource::Versioned;
use crate::{Hostname, ItemId, ItemKind, PrivateText, Snapshot, ZoneId, ZoneType};

/// Of keys, peers and ranges of addresses: each question that is signed, or for a transfer, looks through them.
const MOST: usize = 1_000;
/// Peers of one zone.
const MOST_PEERS: usize = 32;
/// As in the original.
const MAX_NAME_CHARS: usize = 255;
/// In bytes: shorter ones could be guessed, longer ones are hashed anyway (RFC 2104, section 3).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=512;
/// Of DNS.
const PORT: u32 = 53;

const fn rules(
    name: &'static str,
    title: &'static str,
    most: usize,
    members: &'static [Member],
    check: fn(&mut Check<'_>) -> Result<(), ItemError>,
) -> Rules {
    Rules { name, title, has_uuid: false, most, members, check, index: |_| None }
}

pub(super) static KEY_RULES: Rules =
    Rules { index: key_index, ..rules("transfer-keys", "transfer key (TSIG)", MOST, &KEY_MEMBERS, check_key) };
pub(super) static PEER_RULES: Rules = rules("transfer-peers", "transfer peer", MOST, &PEER_MEMBERS, check_peer);
pub(super) static ACL_RULES: Rules =
    rules("transfer-acls", "range of transfer addresses", MOST, &ACL_MEMBERS, |_| Ok(()));
pub(super) static OUT_RULES: Rules =
    Rules { index: out_index, ..rules("transfers-out", "outgoing transfer", 1, &OUT_MEMBERS, check_out) };
pub(super) static VIEW_RULES: Rules = rules("transfer-views", "view of transfers", 1, &VIEW_MEMBERS, |_| Ok(()));

static KEY_MEMBERS: [Member; 3] = [
    must("name", Form::Own(Shape::Text, read_key_name)),
    must(
        "algo",
        Form::Choice(&["hmac-sha256", "hmac-sha256.", "hmac-sha384", "hmac-sha384.", "hmac-sha512", "hmac-sha512."]),
    ),
    must("secret", Form::Own(Shape::Text, read_secret)),
];

static PEER_MEMBERS: [Member; 5] = [
    must("name", Form::Word(MAX_NAME_CHARS)),
    may("ip", Form::Own(Shape::Text, read_address)),
    number("port", Form::Whole(1, 65_535), PORT),
    may("tsig_id", Form::Own(Shape::Text, read_id)),
    flag("ixfr_enable", false),
];

static ACL_MEMBERS: [Member; 2] =
    [must("name", Form::Word(MAX_NAME_CHARS)), must("ip_range", Form::Own(Shape::Text, read_range))];

static OUT_MEMBERS: [Member; 3] = [
    text("name", Form::Text(MAX_NAME_CHARS), ""),
    list("peers", &Form::Own(Shape::Text, read_id), MOST_PEERS),
    flag("enabled", false),
];

static VIEW_MEMBERS: [Member; 1] = [must("view", Form::Free(MOST_BYTES))];

/// By which hash a key signs (RFC 8945, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferAlgorithm {
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-384.
    Sha384,
    /// HMAC-SHA-512.
    Sha512,
}

/// A key by which transfers are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferKey {
    /// Names it for good.
    pub id: ItemId,
    /// By which both sides call it.
    pub name: Hostname,
    /// How it signs.
    pub algorithm: TransferAlgorithm,
    /// In base64.
    secret: PrivateText,
}

impl TransferKey {
    /// The secret's bytes, for whoever signs.
    pub fn secret(&self) -> Vec<u8> {
        STANDARD.decode(self.secret.reveal()).unwrap_or_default()
    }
}

/// Another name server, to which zones are transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferPeer {
    /// Where it is; `None`: it is told nothing, and may ask from anywhere, by its key.
    pub address: Option<IpAddr>,
    /// Where it hears of changes.
    pub port: u16,
    /// What it signs with; `None`: nothing, and its address alone tells it.
    pub key: Option<ItemId>,
}

/// What a transfer of a zone follows from besides records. It is written into the registry, so that all nodes transfer the
/// same under the same serial number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransferView {
    /// The addresses of the edge for visitors.
    pub visitors: Vec<IpAddr>,
    /// Those of its name servers.
    pub servers: Vec<IpAddr>,
    /// What names outside of the zones lead to.
    pub outside: BTreeMap<Box<str>, Vec<IpAddr>>,
    /// A digest of what follows from load balancers and other zones: another one is a change of the zone.
    #[serde(default)]
    pub elsewhere: u64,
}

impl TransferView {
    /// As an item has it.
    pub fn terms(&self) -> Members {
        let view = serde_json::to_value(self).unwrap_or_default();
        Members::from_iter([("view".to_owned(), view)])
    }
}

impl Item {
    fn transfer_key(&self) -> Option<TransferKey> {
        let algorithm = match self.text("algo").trim_end_matches('.') {
            "hmac-sha256" => TransferAlgorithm::Sha256,
            "hmac-sha384" => TransferAlgorithm::Sha384,
            "hmac-sha512" => TransferAlgorithm::Sha512,
            _ => return None,
        };
        let name = Hostname::parse(self.text("name")).ok()?;
        Some(TransferKey { id: self.id, name, algorithm, secret: PrivateText::new(self.text("secret")) })
    }

    fn transfer_peer(&self) -> TransferPeer {
        let port = self.terms.get("port").and_then(Value::as_u64).and_then(|port| port.try_into().ok());
        TransferPeer {
            address: self.text("ip").parse().ok(),
            port: port.unwrap_or(53),
            key: self.text("tsig_id").parse().ok(),
        }
    }
}

impl Snapshot {
    /// The key of this name, in lower case and without trailing dot.
    pub fn transfer_key_named(&self, name: &str) -> Option<TransferKey> {
        self.items_named(ItemKind::TransferKey, name).find_map(|item| item.transfer_key())
    }

    /// The key with this id.
    pub fn transfer_key(&self, id: ItemId) -> Option<TransferKey> {
        self.item(ItemKind::TransferKey, None, id)?.transfer_key()
    }

    /// To whom a zone is transferred, if that is on.
    pub fn transfer_out(&self, zone: ZoneId) -> Option<&Versioned<Item>> {
        let out = self.items(ItemKind::TransferOut, Some(zone)).next()?;
        (out.terms.get("enabled") == Some(&Value::Bool(true))).then_some(out)
    }

    /// The zones that are transferred to anybody, with that.
    pub fn transfers_out(&self) -> impl Iterator<Item = (ZoneId, &Versioned<Item>)> {
        self.items_named(ItemKind::TransferOut, ON).filter_map(|item| Some((item.zone?, item.as_ref())))
    }

    /// The peers of a transfer.
    pub fn transfer_peers(&self, out: &Item) -> Vec<TransferPeer> {
        let ids = out.terms.get("peers").and_then(Value::as_array).into_iter().flatten();
        let ids = ids.filter_map(|id| id.as_str()?.parse().ok());
        ids.filter_map(|id| Some(self.item(ItemKind::TransferPeer, None, id)?.transfer_peer())).collect()
    }

    /// Whether peers may ask from this address, wherever they are themselves.
    pub fn may_ask_for_transfers(&self, address: IpAddr) -> bool {
        let mut ranges = self.items(ItemKind::TransferAcl, None);
        ranges.any(|range| range.text("ip_range").parse().is_ok_and(|range: Network| range.contains(address)))
    }

    /// Zones of which it is written what their transfers follow from, with the item that has it.
    pub fn transfer_views(&self) -> impl Iterator<Item = (ZoneId, ItemId)> {
        self.items_of_all(ItemKind::TransferView).filter_map(|item| Some((item.zone?, item.id)))
    }

    /// What transfers of a zone follow from besides records, once that was written.
    pub fn transfer_view(&self, zone: ZoneId) -> Option<(&Item, TransferView)> {
        let item = self.items(ItemKind::TransferView, Some(zone)).next()?;
        Some((item, TransferView::deserialize(item.terms.get("view")?).ok()?))
    }
}

fn read_key_name(value: &Value) -> Result<Value, String> {
    let given = value.as_str().ok_or("a name as of a host is wanted")?;
    let name = Hostname::parse(given).map_err(|problem| problem.to_string())?;
    // As it is given, since tools compare; both mean the same.
    let dot = if given.ends_with('.') { "." } else { "" };
    Ok(format!("{name}{dot}").into())
}

fn read_secret(value: &Value) -> Result<Value, String> {
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok()).map(|bytes| bytes.len());
    let is_right = bytes.is_some_and(|bytes| SECRET_BYTES.contains(&bytes));
    let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    is_right.then(|| value.clone()).ok_or_else(|| format!("the base64 text of {least} to {most} bytes is wanted"))
}

fn read_address(value: &Value) -> Result<Value, String> {
    let address: Option<IpAddr> = value.as_str().and_then(|text| text.parse().ok());
    address.map(|address| address.to_string().into()).ok_or_else(|| "an IP address is wanted".into())
}

fn read_range(value: &Value) -> Result<Value, String> {
    let range: Network = value.as_str().unwrap_or_default().parse().map_err(|problem| format!("{problem}"))?;
    Ok(range.to_string().into())
}

fn read_id(value: &Value) -> Result<Value, String> {
    let is_id = value.as_str().is_some_and(|text| text.parse::<ItemId>().is_ok());
    is_id.then(|| value.clone()).ok_or_else(|| "an id is wanted".into())
}

fn key_index(terms: &Members) -> Option<&str> {
    Some(terms.get("name")?.as_str()?.trim_end_matches('.'))
}

fn check_key(check: &mut Check<'_>) -> Result<(), ItemError> {
    let name = check.new.index().unwrap_or_default();
    match check.snapshot.items_named(ItemKind::TransferKey, name).find(|other| other.id != check.new.id) {
        Some(_) => Err(ItemError::Taken(format!("a transfer key named {name}"))),
        None => Ok(()),
    }
}

fn check_peer(check: &mut Check<'_>) -> Result<(), ItemError> {
    let id = check.new.text("tsig_id");
    if id.is_empty() || id.parse().is_ok_and(|id| check.snapshot.transfer_key(id).is_some()) {
        return Ok(());
    }
    Err(bad("tsig_id", format_args!("there is no transfer key {id}")))
}

fn check_out(check: &mut Check<'_>) -> Result<(), ItemError> {
    let (snapshot, new) = (check.snapshot, &*check.new);
    for id in new.terms.get("peers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if id.parse().is_ok_and(|id| snapshot.item(ItemKind::TransferPeer, None, id).is_none()) {
            return Err(bad("peers", format_args!("there is no transfer peer {id}")));
        }
    }
    let zone = new.zone.and_then(|zone| snapshot.zone(zone));
    if let (Some(zone), Some(Value::Bool(true))) = (zone, new.terms.get("enabled")) {
        if zone.traits.signed {
            let problem = "the zone is signed, and those to whom it is transferred could not sign their answers; disable one of the two";
            return Err(bad("enabled", problem));
        }
        if !matches!(zone.traits.kind, ZoneType::Full | ZoneType::Secondary) {
            return Err(bad("enabled", "the zone is not answered by this edge; change its type to full"));
        }
        // Nobody signs it meanwhile.
        check.transaction.expect(zone);
    }
    Ok(())
}

/// Refuses to remove what others need.
pub(super) fn check_unused(snapshot: &Snapshot, item: &Item) -> Result<(), ItemError> {
    let id = item.id_text();
    let user = match item.kind {
        ItemKind::TransferKey => {
            let mut peers = snapshot.items(ItemKind::TransferPeer, None);
            peers.find(|peer| peer.text("tsig_id") == id).map(|peer| format!("the peer {}", peer.text("name")))
        }
        ItemKind::TransferPeer => {
            let names = |out: &Item| {
                out.terms
                    .get("peers")
                    .and_then(Value::as_array)
                    .is_some_and(|peers| peers.iter().any(|peer| *peer == *id))
            };
            let mut all = snapshot.items_of_all(ItemKind::TransferOut);
            let zone = all.find(|out| names(out)).and_then(|out| snapshot.zone(out.zone?));
            zone.map(|zone| format!("the outgoing transfer of {}", zone.name))
        }
        _ => None,
    };
    match user {
        Some(user) => Err(ItemError::InUse(format!("{user} needs it; change that one first"))),
        None => Ok(()),
    }
}

/// By which those are found that are on.
const ON: &str = "on";

fn out_index(terms: &Members) -> Option<&str> {
    (terms.get("enabled") == Some(&Value::Bool(true))).then_some(ON)
}
