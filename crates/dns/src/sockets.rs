use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Questions that wait while a thread is kept from running; the system gives less than is asked for, as a rule.
const RECEIVE_BYTES: usize = 4 << 20;
/// Answers that wait to leave.
const SEND_BYTES: usize = 4 << 20;
/// Tries to find one number that is free for TCP and UDP alike before port 0 gives up.
const ATTEMPTS: u32 = 64;

/// The sockets of a server, all at one address.
#[derive(Debug)]
pub struct Sockets {
    /// One for each thread; the system shares askers out among them.
    pub udp: Vec<UdpSocket>,
    /// For long answers, and whoever asks much.
    pub tcp: TcpListener,
}

/// Which socket could not be bound, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({transport}) for dns: {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// `TCP` or `UDP`.
    pub transport: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Binds TCP and so many UDP sockets to the same address; for port 0 to the same number, whichever is free for both.
///
/// # Errors
///
/// One of them cannot be bound.
pub fn bind(address: SocketAddr, threads: usize) -> Result<Sockets, BindError> {
    let failed = |address, transport| move |source| BindError { address, transport, source };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let tcp = bind_tcp(address).map_err(failed(address, "TCP"))?;
        let bound = tcp.local_addr().map_err(failed(address, "TCP"))?;
        match bind_udp(bound, threads.max(1)) {
            Ok(udp) => return Ok(Sockets { udp, tcp }),
            Err(_) if address.port() == 0 && attempt < ATTEMPTS => (),
            Err(source) => return Err(BindError { address: bound, transport: "UDP", source }),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr, threads: usize) -> io::Result<Vec<UdpSocket>> {
    // Another server that shares its port, too, would take part of the questions without a word.
    drop(UdpSocket::bind(address)?);
    // Elsewhere several sockets of one port do not share what comes.
    let threads = if cfg!(target_os = "linux") { threads } else { 1 };
    (0..threads).map(|_| bind_shared(address)).collect()
}

fn bind_shared(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    // As much as there is.
    let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    let _ = socket.set_send_buffer_size(SEND_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_have_one_number() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = sockets.tcp.local_addr().unwrap();
        assert!(sockets.udp.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert!(sockets.udp.len() == 3 || !cfg!(target_os = "linux"));
    }

    #[test]
    fn a_port_is_shared_with_nobody() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let Sockets { tcp, udp } = first;
        let address = tcp.local_addr().unwrap();
        drop(tcp);
        let error = bind(address, 2).unwrap_err();
        assert_eq!((error.transport, error.source.kind()), ("UDP", io::ErrorKind::AddrInUse));
        drop(udp);
        bind(address, 2).unwrap();
    }
}
