//! Listening: an address that was asked for must be free, a default one makes way to the next.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use edge::BindError;

use crate::problem::Problem;

/// So many ports after the default one are tried: enough for as many `snicket try` at once as a person can watch.
const NEXT_PORTS: u16 = 100;

/// Which address a listener wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Somebody said so; port 0 is any.
    Asked(SocketAddr),
    /// Nobody said; the next free port does as well.
    Default(SocketAddr),
}

impl Wish {
    /// What was asked for, else the default port on this address.
    pub(crate) fn new(asked: Option<Listen>, ip: IpAddr, port: u16) -> Self {
        match asked {
            Some(listen) => Self::Asked(SocketAddr::new(listen.ip.unwrap_or(ip), listen.port)),
            None => Self::Default(SocketAddr::new(ip, port)),
        }
    }

    /// The address, as far as it is up to us.
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Self::Asked(address) | Self::Default(address) => address,
        }
    }
}

/// The value of `--http` and its like: `PORT`, `:PORT`, `IP:PORT` or `localhost:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    ip: Option<IpAddr>,
    port: u16,
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is not a port (0 to 65535)"));
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { ip: Some(address.ip()), port: address.port() });
        }
        match text.rsplit_once(':') {
            None => Ok(Self { ip: None, port: port(text)? }),
            Some(("", digits)) => Ok(Self { ip: None, port: port(digits)? }),
            Some(("localhost", digits)) => Ok(Self { ip: Some(Ipv4Addr::LOCALHOST.into()), port: port(digits)? }),
            Some(_) => {
                Err(format!("{text:?} is not an address to listen on; write PORT, :PORT, IP:PORT or [IPV6]:PORT"))
            }
        }
    }
}

/// The value of `--port`, and of an edge's `--ports`: `PORT` or `FIRST-LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// From one port to another, both included.
    pub(crate) const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// All of them.
    pub(crate) fn numbers(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is neither a port nor a range; write for example 20000 or 20000-20010")),
        }
    }
}

/// What was bound.
#[derive(Debug)]
pub(crate) struct Bound<T> {
    /// The socket, or the pair of them.
    pub(crate) sockets: T,
    /// The default port that was taken, when this is another one.
    pub(crate) instead_of: Option<u16>,
}

/// Binds by `attempt`, which gets the address to try. A default port that is taken makes way to the next free one.
pub(crate) fn bind<T>(
    purpose: &'static str,
    wish: Wish,
    attempt: fn(SocketAddr, &'static str) -> Result<T, BindError>,
) -> anyhow::Result<Bound<T>> {
    let wanted = wish.address();
    let mut address = wanted;
    loop {
        match attempt(address, purpose) {
            Ok(sockets) => {
                let instead_of = (address != wanted).then_some(wanted.port());
                return Ok(Bound { sockets, instead_of });
            }
            Err(error) if may_move_on(wish, &error) && address.port() - wanted.port() < NEXT_PORTS => {
                address.set_port(address.port().saturating_add(1));
            }
            Err(error) => {
                let problem = refusal(purpose, address, wish, error.source.kind());
                return Err(anyhow::Error::new(error).context(problem));
            }
        }
    }
}

/// Only a default port moves on, and only when it is taken (or, on some systems, reserved).
fn may_move_on(wish: Wish, error: &BindError) -> bool {
    matches!(wish, Wish::Default(_)) && (error.is_taken() || error.source.kind() == io::ErrorKind::PermissionDenied)
}

fn refusal(purpose: &str, address: SocketAddr, wish: Wish, reason: io::ErrorKind) -> Problem {
    let port = address.port();
    let advice = match wish {
        Wish::Asked(_) if reason == io::ErrorKind::AddrNotAvailable => format!(
            "{} is no address of this machine: choose one that `ip address` lists, or give --{purpose} the port alone",
            address.ip()
        ),
        Wish::Asked(_) if port != 0 && port < 1024 => format!(
            "ports below 1024 need privileges: run with CAP_NET_BIND_SERVICE, or choose a higher port; if the port is \
             taken, `ss -lntup 'sport = :{port}'` shows by whom"
        ),
        Wish::Asked(_) => format!(
            "`ss -lntup 'sport = :{port}'` shows who holds it; perhaps another snicket; stop it, or choose another \
             port (0 = any free one) with --{purpose}"
        ),
        Wish::Default(_) => format!("choose a free port with --{purpose}"),
    };
    Problem::new(format!("cannot listen on {address} for {purpose}"), advice)
}

#[cfg(test)]
mod tests {
    use edge::{bind_pair, bind_tcp};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn addresses_in_every_form() {
        let local = Ipv4Addr::LOCALHOST;
        for (text, address) in [
            ("8080", loopback(8080)),
            (":0", loopback(0)),
            ("localhost:80", loopback(80)),
            ("0.0.0.0:443", (Ipv4Addr::UNSPECIFIED, 443).into()),
            ("[::]:443", (std::net::Ipv6Addr::UNSPECIFIED, 443).into()),
        ] {
            let wish = Wish::new(Some(text.parse().unwrap()), local.into(), 1);
            assert_eq!(wish, Wish::Asked(address), "{text}");
        }
        for text in ["", "host:80", "70000", "1.2.3.4:x"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_of_ports() {
        for (text, range) in [("20000", 20_000..=20_000), ("20000-20010", 20_000..=20_010), ("1-65535", 1..=65_535)] {
            assert_eq!(text.parse().map(PortRange::numbers), Ok(range));
        }
        for text in ["", "0", "-", "5-", "5-4", "0-5", "1-65536", "1-2-3", "all"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_default_port_that_is_taken_makes_way() {
        let first = bind("https", Wish::Asked(loopback(0)), bind_pair).unwrap();
        let taken = first.sockets.tcp.local_addr().unwrap();
        let second = bind("https", Wish::Default(taken), bind_pair).unwrap();
        assert_eq!(second.instead_of, Some(taken.port()));
        assert!(second.sockets.tcp.local_addr().unwrap().port() > taken.port());
    }

    #[test]
    fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
        let first = bind("api", Wish::Asked(loopback(0)), bind_tcp).unwrap();
        let taken = first.sockets.local_addr().unwrap();
        let error = bind("api", Wish::Asked(taken), bind_tcp).unwrap_err();
        let report = crate::problem::Report::of(&error).to_string();
        assert!(report.contains("who holds it") && report.contains("--api"), "{report}");
    }
}
