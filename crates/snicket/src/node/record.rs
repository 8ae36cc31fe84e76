//! What a node says of itself to the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use edge::Addresses;
use jiff::Timestamp;
use registry::{NodeAddresses, NodeId, NodeRecord};

/// For documentation only (RFC 5737, RFC 3849), so that nobody is there; nothing is sent either.
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The record of this node, which is in this place and region, listens at these addresses, and answers by DNS there.
pub(super) fn describe(
    id: NodeId,
    (location, region): (&str, Option<&str>),
    (bound, dns): (&Addresses, Option<SocketAddr>),
    advertise: Option<IpAddr>,
    now: Timestamp,
) -> NodeRecord {
    let own = advertise.or_else(own_address);
    let reached = |address: &SocketAddr| reached(*address, own);
    NodeRecord {
        id,
        name: host_name().unwrap_or_else(|| location.to_owned()),
        location: location.to_owned(),
        region: region.map(Into::into),
        addresses: NodeAddresses {
            http: reached(&bound.http),
            https: reached(&bound.https),
            tunnel: bound.tunnel.iter().map(reached).collect(),
            api: reached(&bound.api),
            dns: dns.as_ref().map(reached),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: now,
    }
}

/// An address as other machines dial it: who listens on all addresses is reached at one of them.
fn reached(bound: SocketAddr, own: Option<IpAddr>) -> SocketAddr {
    match own {
        Some(own) if bound.ip().is_unspecified() => SocketAddr::new(own, bound.port()),
        _ => bound,
    }
}

/// The address from which this machine would send to far away.
fn own_address() -> Option<IpAddr> {
    FAR.into_iter().find_map(|far| {
        let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((far, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    })
}

/// What the machine calls itself.
pub(crate) fn host_name() -> Option<String> {
    let system = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = system.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_listens_everywhere_is_reached_elsewhere_than_where_it_listens() {
        let own: IpAddr = [192, 0, 2, 7].into();
        let told = |bound: &str, own| reached(bound.parse().unwrap(), own).to_string();
        assert_eq!(told("0.0.0.0:443", Some(own)), "192.0.2.7:443");
        assert_eq!(told("[::]:443", Some(own)), "192.0.2.7:443");
        assert_eq!(told("127.0.0.1:443", Some(own)), "127.0.0.1:443");
        assert_eq!(told("0.0.0.0:443", None), "0.0.0.0:443");
    }
}
