use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Addresses;

/// Connections that wait to be accepted; what Linux allows by default.
const BACKLOG: i32 = 4096;

/// Tries to find one number that is free for TCP and UDP alike before port 0 gives up.
const PAIR_ATTEMPTS: u32 = 64;

/// The sockets of a node, bound and listening.
#[derive(Debug)]
pub struct Sockets {
    /// Visitors without TLS.
    pub http: TcpListener,
    /// Visitors with TLS.
    pub https: Pair,
    /// Agents.
    pub tunnel: Vec<Pair>,
    /// The REST API.
    pub api: TcpListener,
}

/// A TCP and a UDP socket on the same address and port.
#[derive(Debug)]
pub struct Pair {
    /// The TCP half.
    pub tcp: TcpListener,
    /// The UDP half.
    pub udp: UdpSocket,
}

/// Which socket could not be bound, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({transport}) for {purpose}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// `TCP` or `UDP`.
    pub transport: &'static str,
    /// What the socket is for: `http`, `https`, `tunnel` or `api`.
    pub purpose: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// Somebody else has the port, so that another one may work.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Binds every socket of a node.
///
/// # Errors
///
/// The first address that cannot be bound; whatever was bound before it is released.
pub fn listen(addresses: &Addresses) -> Result<Sockets, BindError> {
    Ok(Sockets {
        http: bind_tcp(addresses.http, "http")?,
        https: bind_pair(addresses.https, "https")?,
        tunnel: addresses.tunnel.iter().map(|address| bind_pair(*address, "tunnel")).collect::<Result<_, _>>()?,
        api: bind_tcp(addresses.api, "api")?,
    })
}

/// Binds one TCP socket.
///
/// # Errors
///
/// The address cannot be bound.
pub fn bind_tcp(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, BindError> {
    tcp(address).map_err(|source| BindError { address, transport: "TCP", purpose, source })
}

/// Binds TCP and UDP to the same address; for port 0 to the same number, whichever is free for both.
///
/// # Errors
///
/// One of the two cannot be bound.
pub fn bind_pair(address: SocketAddr, purpose: &'static str) -> Result<Pair, BindError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let tcp = bind_tcp(address, purpose)?;
        let bound = tcp.local_addr().map_err(|source| BindError { address, transport: "TCP", purpose, source })?;
        match UdpSocket::bind(bound) {
            Ok(udp) => return Ok(Pair { tcp, udp }),
            // The number was free for TCP only; the system will offer another one.
            Err(_) if address.port() == 0 && attempt < PAIR_ATTEMPTS => (),
            Err(source) => return Err(BindError { address: bound, transport: "UDP", purpose, source }),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node must get its port back while connections of the old one linger in TIME_WAIT. On Windows the
    // option means something else, namely to take a port that is in use.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    #[test]
    fn a_pair_has_one_number() {
        let pair = bind_pair(LOOPBACK.parse().unwrap(), "https").unwrap();
        assert_eq!(pair.tcp.local_addr().unwrap(), pair.udp.local_addr().unwrap());
    }

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        let taken = bind_tcp(LOOPBACK.parse().unwrap(), "http").unwrap();
        let error = bind_tcp(taken.local_addr().unwrap(), "http").unwrap_err();
        assert!(error.is_taken(), "{error}");

        // TEST-NET-1 is nobody's address.
        let error = bind_tcp("192.0.2.1:0".parse().unwrap(), "http").unwrap_err();
        assert!(!error.is_taken(), "{error}");
    }

    #[test]
    fn a_pair_is_refused_when_only_udp_is_taken() {
        // Whoever else uses ports on this machine must not have the TCP half.
        let Pair { tcp, udp: taken } = bind_pair(LOOPBACK.parse().unwrap(), "https").unwrap();
        drop(tcp);
        let error = bind_pair(taken.local_addr().unwrap(), "https").unwrap_err();
        assert_eq!((error.transport, error.is_taken()), ("UDP", true));
    }
}
