//! Names that the edge answers for without a record: those of its name servers. Pure.

use std::net::IpAddr;

use registry::Zone;

use super::World;

/// The addresses of one of the edge's own names; `None`: it is none of them.
pub(super) fn addresses(world: &World<'_>, zone: &Zone, name: &str) -> Option<Vec<IpAddr>> {
    let servers = zone.name_servers(world.domain);
    let place = servers.iter().position(|server| server.as_str() == name)?;
    Some(world.book.nodes.server(place, servers.len()).collect())
}
