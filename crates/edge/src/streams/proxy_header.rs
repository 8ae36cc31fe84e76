//! The PROXY protocol (versions 1 and 2 of the specification that came with HAProxy): who the visitor is, in front of
//! its bytes.

use std::net::{IpAddr, SocketAddr};

use registry::ProxyProtocol;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// A byte stream over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection from `visitor` to `edge`. Addresses of different families are both told as IPv6.
pub(super) fn header(version: ProxyProtocol, visitor: SocketAddr, edge: SocketAddr) -> Vec<u8> {
    let (from, to) = (visitor.ip().to_canonical(), edge.ip().to_canonical());
    let (from, to) = if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (in_v6(from), in_v6(to)) };
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", visitor.port(), edge.port()).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut addresses = Vec::with_capacity(36);
            for address in [from, to] {
                match address {
                    IpAddr::V4(address) => addresses.extend(address.octets()),
                    IpAddr::V6(address) => addresses.extend(address.octets()),
                }
            }
            addresses.extend(visitor.port().to_be_bytes());
            addresses.extend(edge.port().to_be_bytes());
            let length = u16::try_from(addresses.len()).expect("two addresses and two ports are 36 bytes at most");
            let mut header = SIGNATURE.to_vec();
            header.extend([PROXY, if from.is_ipv4() { TCP4 } else { TCP6 }]);
            header.extend(length.to_be_bytes());
            header.extend(addresses);
            header
        }
    }
}

fn in_v6(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn text_names_both_ends() {
        for (visitor, edge, line) in [
            ("192.0.2.7:4711", "198.51.100.1:20000", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 20000\r\n"),
            ("[::ffff:192.0.2.7]:4711", "198.51.100.1:20000", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 20000\r\n"),
            ("[2001:db8::7]:1", "[2001:db8::1]:2", "PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n"),
            ("192.0.2.7:1", "[2001:db8::1]:2", "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"),
        ] {
            assert_eq!(header(ProxyProtocol::V1, at(visitor), at(edge)), line.as_bytes());
        }
    }

    #[test]
    fn binary_names_both_ends() {
        let four = header(ProxyProtocol::V2, at("192.0.2.7:4711"), at("198.51.100.1:20000"));
        assert_eq!(four[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(four[16..], [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x4e, 0x20]);
        let six = header(ProxyProtocol::V2, at("[2001:db8::7]:1"), at("[2001:db8::1]:2"));
        assert_eq!(six[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!((six.len(), six[31], six[47]), (52, 7, 1));
    }
}
