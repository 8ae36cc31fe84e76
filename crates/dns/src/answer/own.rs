//! Names that the edge answers for without a record: those of its name servers, those by which agents find its nodes (section
//! 2.1 of the tunnel protocol), and those where authorities look before they sign certificates. Pure.

use std::net::IpAddr;

use registry::{Snapshot, Zone};

use super::{A, AAAA, SRV, TXT, World};
use crate::name::to_wire;

/// Nodes come and go.
pub(super) const TTL: u32 = 60;
/// Where agents look that know no edge by name; whose resolver leads this zone to us finds us by it.
const STOCK_DOMAIN: &str = "argotunnel.com";
/// Under a domain, what agents ask for.
const DISCOVERY: &str = "_v2-origintunneld._tcp";
/// Under a domain, what they are told: one name for each half of the edge, so that they have connections to both.
const REGIONS: [&str; 2] = ["region1.v2", "region2.v2"];

/// In front of a name, where an authority looks that is asked for a certificate of all names below it (RFC 8555, section 8.4).
pub(crate) const CHALLENGE: &str = "_acme-challenge";

/// What one of the edge's own names has.
pub(super) enum Own {
    /// Something lies under it.
    Nothing,
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Services: port and name of each.
    Services(Vec<(u16, Box<str>)>),
    /// A text that an authority looks for.
    Text(Vec<u8>),
}

/// What a name of a zone has that is one of the edge's own; `None`: it is none of them.
pub(super) fn find(world: &World<'_>, zone: &Zone, host: &str, name: &str) -> Option<Own> {
    let servers = zone.name_servers(world.domain);
    if let Some(place) = servers.iter().position(|server| server.as_str() == name) {
        return Some(Own::Addresses(world.book.nodes.server(place, servers.len()).collect()));
    }
    if let Some(text) = challenge(world.snapshot, name) {
        return Some(Own::Text(text));
    }
    if zone.name != *world.domain && zone.name.as_str() != STOCK_DOMAIN {
        return None;
    }
    let regions = &world.book.nodes.regions;
    if let Some(place) = REGIONS.iter().position(|region| *region == host) {
        return Some(Own::Addresses(regions[place].iter().map(|address| address.ip()).collect()));
    }
    match host {
        DISCOVERY => {
            let target = |(region, label): (&Vec<_>, &&str)| {
                let first: &std::net::SocketAddr = region.first()?;
                Some((first.port(), format!("{label}.{}", zone.name).into()))
            };
            Some(Own::Services(regions.iter().zip(&REGIONS).filter_map(target).collect()))
        }
        "_tcp" | "v2" => Some(Own::Nothing),
        _ => None,
    }
}

/// The data of the text record that an authority looks for at this name, if it is about to.
pub(super) fn challenge(snapshot: &Snapshot, name: &str) -> Option<Vec<u8>> {
    let parent = name.strip_prefix(CHALLENGE)?.strip_prefix('.')?;
    let text = snapshot.acme_order(&format!("*.{parent}"))?.answer.as_ref()?.dns_text();
    Some([&[u8::try_from(text.len()).ok()?], text.as_bytes()].concat())
}

impl Own {
    /// The data of records of this type.
    pub(super) fn data(&self, kind: u16) -> Vec<Vec<u8>> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Addresses(addresses) => {
                let data = addresses.iter().filter_map(|address| match (kind, address) {
                    (A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
                    (AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
                    _ => None,
                });
                data.take(super::MAX_ADDRESSES).collect()
            }
            Self::Services(services) if kind == SRV => {
                // By priority: agents take the first for one region and the second for the other.
                let data = (1_u16..).zip(services).map(|(priority, (port, target))| {
                    let numbers = [priority, 1, *port].into_iter().flat_map(u16::to_be_bytes);
                    numbers.chain(to_wire(target)).collect()
                });
                data.collect()
            }
            Self::Text(text) if kind == TXT => vec![text.clone()],
            Self::Services(_) | Self::Text(_) => Vec::new(),
        }
    }
}
