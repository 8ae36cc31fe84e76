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
/// Datagrams over IPv4 and over IPv6.
const UDP4: u8 = 0x12;
const UDP6: u8 = 0x22;

/// The header for a connection from `visitor` to `edge`. Addresses of different families are both told as IPv6.
pub(super) fn header(version: ProxyProtocol, visitor: SocketAddr, edge: SocketAddr) -> Vec<u8> {
    let (from, to) = of_one_family(visitor, edge);
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", visitor.port(), edge.port()).into_bytes()
        }
        ProxyProtocol::V2 => binary([TCP4, TCP6], [from, to], [visitor.port(), edge.port()]),
    }
}

/// The header in front of a datagram from `visitor` to `edge`, in version 2: the other one knows no datagrams.
pub(crate) fn datagram(visitor: SocketAddr, edge: SocketAddr) -> Vec<u8> {
    let (from, to) = of_one_family(visitor, edge);
    binary([UDP4, UDP6], [from, to], [visitor.port(), edge.port()])
}

fn binary([four, six]: [u8; 2], addresses: [IpAddr; 2], ports: [u16; 2]) -> Vec<u8> {
    let mut body = Vec::with_capacity(36);
    for address in addresses {
        match address {
            IpAddr::V4(address) => body.extend(address.octets()),
            IpAddr::V6(address) => body.extend(address.octets()),
        }
    }
    for port in ports {
        body.extend(port.to_be_bytes());
    }
    let length = u16::try_from(body.len()).expect("two addresses and two ports are 36 bytes at most");
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, if addresses[0].is_ipv4() { four } else { six }]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}

fn of_one_family(visitor: SocketAddr, edge: SocketAddr) -> (IpAddr, IpAddr) {
    let (from, to) = (visitor.ip().to_canonical(), edge.ip().to_canonical());
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (in_v6(from), in_v6(to)) }
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
        let datagram = datagram(at("192.0.2.7:4711"), at("198.51.100.1:20000"));
        assert_eq!((&datagram[..13], datagram[13], &datagram[14..]), (&four[..13], UDP4, &four[14..]));
    }
}
