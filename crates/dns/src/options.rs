//! The options of EDNS that are understood here: client subnet (RFC 7871) and cookies (RFC 7873). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const IPV4: u16 = 1;
const IPV6: u16 = 2;

/// What an asker sends, that only it knows.
pub(crate) type ClientCookie = [u8; 8];
/// What we gave it, that only we can make (RFC 9018, section 4).
pub(crate) type ServerCookie = [u8; 16];

/// For whom a resolver asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// With zeros behind the prefix.
    pub address: IpAddr,
    /// In bits.
    pub prefix: u8,
}

/// The options of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options {
    pub(crate) subnet: Option<Subnet>,
    pub(crate) cookie: Option<(ClientCookie, Option<ServerCookie>)>,
}

/// The options of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Replies {
    /// For whom the resolver asked, and for how many bits of that the answer is the same.
    pub(crate) subnet: Option<(Subnet, u8)>,
    pub(crate) cookie: Option<(ClientCookie, ServerCookie)>,
}

impl Options {
    /// Reads them; `None` if they are malformed. Others are passed over.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = data;
        while !rest.is_empty() {
            let ([c1, c2, l1, l2], after) = rest.split_first_chunk::<4>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([*l1, *l2])))?;
            match u16::from_be_bytes([*c1, *c2]) {
                SUBNET if options.subnet.is_none() => options.subnet = read_subnet(value)?,
                COOKIE if options.cookie.is_none() => options.cookie = Some(read_cookie(value)?),
                _ => (),
            }
            rest = after;
        }
        Some(options)
    }
}

/// `None`: malformed; `Some(None)`: of a family that nobody knows.
fn read_subnet(value: &[u8]) -> Option<Option<Subnet>> {
    let ([f1, f2, prefix, scope], bytes) = value.split_first_chunk::<4>()?;
    let (family, prefix) = (u16::from_be_bytes([*f1, *f2]), *prefix);
    let most = match family {
        IPV4 => 32,
        IPV6 => 128,
        _ => return Some(None),
    };
    let is_right = *scope == 0 && prefix <= most && bytes.len() == usize::from(prefix).div_ceil(8);
    let mut octets = [0; 16];
    octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let address = match family {
        IPV4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        _ => Ipv6Addr::from(octets).into(),
    };
    // Bits behind the prefix have to be zero (RFC 7871, section 6).
    let beyond = match bytes.last() {
        Some(last) if !prefix.is_multiple_of(8) => last << (prefix % 8),
        _ => 0,
    };
    (is_right && beyond == 0).then_some(Some(Subnet { address, prefix }))
}

fn read_cookie(value: &[u8]) -> Option<(ClientCookie, Option<ServerCookie>)> {
    let (client, server) = value.split_first_chunk::<8>()?;
    // From others, server cookies may be of other lengths; ours are not.
    matches!(server.len(), 0 | 8..=32).then(|| (*client, server.try_into().ok()))
}

impl Replies {
    /// In bytes, with what stands in front of each.
    pub(crate) fn length(&self) -> usize {
        let subnet = self.subnet.map_or(0, |(subnet, _)| 8 + usize::from(subnet.prefix).div_ceil(8));
        subnet + if self.cookie.is_some() { 28 } else { 0 }
    }

    pub(crate) fn write(&self, message: &mut Vec<u8>) {
        if let Some((subnet, scope)) = self.subnet {
            let bytes = usize::from(subnet.prefix).div_ceil(8);
            let family = if subnet.address.is_ipv4() { IPV4 } else { IPV6 };
            push_head(message, SUBNET, 4 + bytes);
            message.extend_from_slice(&family.to_be_bytes());
            message.extend_from_slice(&[subnet.prefix, scope]);
            match subnet.address {
                IpAddr::V4(address) => message.extend_from_slice(&address.octets()[..bytes]),
                IpAddr::V6(address) => message.extend_from_slice(&address.octets()[..bytes]),
            }
        }
        if let Some((client, server)) = self.cookie {
            push_head(message, COOKIE, client.len() + server.len());
            message.extend_from_slice(&client);
            message.extend_from_slice(&server);
        }
    }
}

fn push_head(message: &mut Vec<u8>, code: u16, length: usize) {
    message.extend_from_slice(&code.to_be_bytes());
    message.extend_from_slice(&u16::try_from(length).unwrap_or_default().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    }

    #[test]
    fn options_are_read_and_written() {
        let address = "192.0.2.0".parse().unwrap();
        let subnet = Subnet { address, prefix: 23 };
        let data =
            [option(SUBNET, &[0, 1, 23, 0, 192, 0, 2]), option(3, b"nsid"), option(COOKIE, b"abcdefgh")].concat();
        let options = Options::read(&data).unwrap();
        assert_eq!(options, Options { subnet: Some(subnet), cookie: Some((*b"abcdefgh", None)) });

        let replies = Replies { subnet: Some((subnet, 20)), cookie: Some((*b"abcdefgh", [7; 16])) };
        let mut written = Vec::new();
        replies.write(&mut written);
        assert_eq!(written.len(), replies.length());
        let cookie = [&b"abcdefgh"[..], &[7; 16]].concat();
        assert_eq!(written, [option(SUBNET, &[0, 1, 23, 20, 192, 0, 2]), option(COOKIE, &cookie)].concat());
        let again = Options::read(&option(COOKIE, &cookie)).unwrap();
        assert_eq!(again.cookie, Some((*b"abcdefgh", Some([7; 16]))));
    }

    #[test]
    fn whole_networks_and_foreign_families_are_no_mistake() {
        for (value, prefix) in [(&[0, 1, 0, 0][..], Some(0)), (&[0, 2, 8, 0, 0x20], Some(8)), (&[9, 9, 1, 1, 1], None)]
        {
            let read = Options::read(&option(SUBNET, value)).unwrap();
            assert_eq!(read.subnet.map(|subnet| subnet.prefix), prefix);
        }
    }

    #[test]
    fn malformed_options_are_refused() {
        for bad in [
            option(SUBNET, &[0, 1, 24]),
            option(SUBNET, &[0, 1, 33, 0, 1, 2, 3, 4, 5]),
            option(SUBNET, &[0, 1, 24, 0, 192, 0]),
            option(SUBNET, &[0, 1, 24, 0, 192, 0, 2, 0]),
            option(SUBNET, &[0, 1, 24, 1, 192, 0, 2]),
            option(SUBNET, &[0, 1, 23, 0, 192, 0, 3]),
            option(COOKIE, b"short"),
            option(COOKIE, b"abcdefgh1234567"),
            option(COOKIE, &[0; 41]),
            vec![0, 10, 0, 8, 1],
            vec![0, 10, 0],
        ] {
            assert_eq!(Options::read(&bad), None, "{bad:?}");
        }
    }
}
