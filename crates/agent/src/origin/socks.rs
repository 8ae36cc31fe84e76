//! SOCKS5 (RFC 1928) as its server speaks it: CONNECT without authentication.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::OriginFault;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NOTHING_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What a visitor wants to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reply {
    Connected = 0,
    Failure = 1,
    Forbidden = 2,
    Unreachable = 4,
    Refused = 5,
    TooLate = 6,
    NotConnect = 7,
    BadAddress = 8,
}

impl From<OriginFault> for Reply {
    fn from(fault: OriginFault) -> Self {
        match fault {
            OriginFault::Refused => Self::Refused,
            OriginFault::ConnectTimeout => Self::TooLate,
            OriginFault::Unreachable => Self::Unreachable,
            _ => Self::Failure,
        }
    }
}

/// Reads what the visitor wants. The caller limits the time, and answers with [`reply`].
///
/// What cannot be served is answered here, and is an error.
pub(super) async fn wanted(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Wanted> {
    let [version, methods] = read(stream).await?;
    if version != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the visitor does not speak SOCKS5"));
    }
    let mut offered = vec![0; usize::from(methods)];
    stream.read_exact(&mut offered).await?;
    if !offered.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NOTHING_ACCEPTABLE]).await?;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the visitor wants to authenticate, for which there is no way",
        ));
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    stream.flush().await?;
    let [version, command, _, kind] = read(stream).await?;
    if version != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the visitor does not speak SOCKS5"));
    }
    let host = match kind {
        IPV4 => Some(Ipv4Addr::from(read::<4>(stream).await?).to_string()),
        IPV6 => Some(Ipv6Addr::from(read::<16>(stream).await?).to_string()),
        NAME => {
            let [length] = read(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).ok().filter(|name| is_name(name))
        }
        _ => None,
    };
    let Some(host) = host else {
        reply(stream, Reply::BadAddress).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the visitor names no host"));
    };
    let port = u16::from_be_bytes(read(stream).await?);
    if command != CONNECT {
        reply(stream, Reply::NotConnect).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the visitor wants something other than CONNECT"));
    }
    Ok(Wanted { host, port })
}

/// Answers the request. The address that was connected from is nobody's business.
pub(super) async fn reply(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> io::Result<()> {
    stream.write_all(&[VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]).await?;
    stream.flush().await
}

fn is_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && (name.bytes().all(letters) || name.parse::<IpAddr>().is_ok())
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is understood of these bytes, and what is answered.
    async fn heard(said: &[u8]) -> (io::Result<Wanted>, Vec<u8>) {
        let (mut visitor, mut agent) = tokio::io::duplex(1024);
        visitor.write_all(said).await.unwrap();
        visitor.shutdown().await.unwrap();
        let wanted = wanted(&mut agent).await;
        drop(agent);
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).await.unwrap();
        (wanted, answer)
    }

    #[tokio::test]
    async fn destinations_of_every_kind_are_read() {
        let greeting: &[u8] = &[5, 2, 2, 0];
        for (request, shown) in [
            (&[5, 1, 0, 1, 192, 0, 2, 7, 0, 80][..], "192.0.2.7:80"),
            (&[5, 1, 0, 3, 7, b'd', b'b', b'.', b't', b'e', b's', b't', 21, 56], "db.test:5432"),
            (&[5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, 187], "2001:db8::7:443"),
        ] {
            let (wanted, answer) = heard(&[greeting, request].concat()).await;
            assert_eq!(wanted.unwrap().to_string(), shown);
            assert_eq!(answer, [5, 0]);
        }
    }

    #[tokio::test]
    async fn what_is_not_served_is_told() {
        for (said, answer) in [
            (&[4, 1, 0, 80, 1, 2, 3, 4, 0][..], &[][..]),
            (&[5, 1, 2], &[5, 0xff]),
            (&[5, 1, 0, 5, 2, 0, 1, 1, 2, 3, 4, 0, 80], &[5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]),
            (&[5, 1, 0, 5, 1, 0, 9, 1, 2, 3, 4, 0, 80], &[5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
            (&[5, 1, 0, 5, 1, 0, 3, 2, b'a', b'/', 0, 80], &[5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
            (&[5, 1, 0, 5, 1], &[5, 0]),
        ] {
            let (wanted, answered) = heard(said).await;
            assert!(wanted.is_err(), "{said:?}");
            assert_eq!(answered, answer, "{said:?}");
        }
    }
}
