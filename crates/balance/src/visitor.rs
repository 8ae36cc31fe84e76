use std::net::IpAddr;

use geo::Place;
use http::HeaderMap;

use crate::choice::hash;

/// Who is to be led somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// The address, as far as the edge believes it.
    pub address: IpAddr,
    /// The PoP that the visitor came to, such as `ams1`.
    pub pop: &'a str,
    /// The visitor's country, two capital letters, if it is known.
    pub country: Option<&'a str>,
    /// The visitor's region, or else the PoP's, one of [`registry::REGIONS`], if it is known.
    pub region: Option<&'a str>,
    /// From where the nearest pool is looked for, if that is known: where the visitor is, or else the PoP.
    pub place: Option<Place>,
    /// The request's headers as the visitor sent them.
    pub headers: &'a HeaderMap,
}

impl Visitor<'_> {
    /// The same for all of one visitor's requests. Of IPv6 only the network counts, in which devices change their addresses at will.
    pub(crate) fn key(&self) -> u64 {
        match self.address.to_canonical() {
            IpAddr::V4(address) => hash::mix(u64::from(address.to_bits())),
            // Two rounds, so that no network is some IPv4 address, too.
            IpAddr::V6(address) => hash::mix(hash::mix((address.to_bits() >> 64) as u64)),
        }
    }
}
