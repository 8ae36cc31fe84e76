use std::net::IpAddr;

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
    /// The visitor's region, one of [`registry::REGIONS`], if it is known.
    pub region: Option<&'a str>,
    /// From where the nearest pool is looked for, if that is known: where the PoP is.
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

/// A place on the earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// -90 to 90, north is positive.
    pub latitude: f64,
    /// -180 to 180, east is positive.
    pub longitude: f64,
}

impl Place {
    /// Grows with the distance, 0 to 1 (the haversine; distances are only compared).
    pub(crate) fn distance(self, other: Self) -> f64 {
        let [from, to] = [self.latitude.to_radians(), other.latitude.to_radians()];
        let across = (other.longitude - self.longitude).to_radians();
        let half = |angle: f64| (angle / 2.0).sin().powi(2);
        half(to - from) + from.cos() * to.cos() * half(across)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_near_across_the_date_line_and_the_poles() {
        let place = |latitude, longitude| Place { latitude, longitude };
        let (fiji, samoa, paris) = (place(-18.0, 178.0), place(-14.0, -171.0), place(49.0, 2.0));
        assert!(fiji.distance(samoa) < fiji.distance(paris));
        let (alert, murmansk) = (place(82.5, -62.0), place(69.0, 33.0));
        assert!(alert.distance(murmansk) < alert.distance(place(40.0, -62.0)));
        assert_eq!(paris.distance(paris), 0.0);
    }
}
