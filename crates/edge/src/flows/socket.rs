//! The socket of a public port: tells at which of the machine's addresses a visitor has reached it, and answers from there.

use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Bytes that the system keeps of what has come, as far as its limits allow: some thousand datagrams, so that a burst
/// survives a busy moment.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Bytes that one call receives: the longest datagram, or several of one visitor.
pub(super) const RECEIVED: usize = 1 << 16;

pub(super) struct PortSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    port: u16,
}

/// Where datagrams have come from, and where they have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) visitor: SocketAddr,
    /// Of this machine, if the system tells.
    pub(super) here: Option<IpAddr>,
}

impl PortSocket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // One socket for both families, as for all other visitors.
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        // The system may have a lower limit, which is as good as it gets.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&address.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        allow_fragments(&socket, address)?;
        let socket = UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, state, port })
    }

    /// This machine's end of a way, for people and PROXY headers.
    pub(super) fn local(&self, way: Way) -> SocketAddr {
        let here = way.here.or_else(|| self.socket.local_addr().ok().map(|address| address.ip()));
        SocketAddr::new(here.unwrap_or_else(|| [0, 0, 0, 0].into()), self.port)
    }

    /// Receives datagrams of one visitor: how many bytes in all, each how long, and their way. Cancel safe.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, usize, Way)> {
        loop {
            self.socket.readable().await?;
            let mut meta = [RecvMeta::default()];
            let received = self.socket.try_io(Interest::READABLE, || {
                let mut buffers = [io::IoSliceMut::new(buffer)];
                self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut meta)
            });
            match received {
                Ok(0) => {}
                Ok(_) => {
                    let RecvMeta { addr, len, stride, dst_ip, .. } = meta[0];
                    return Ok((len, stride, Way { visitor: addr, here: dst_ip }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // ICMP tells of some visitor who has gone. His flow ends by being idle.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one datagram back; an error concerns this one alone.
    pub(super) fn send(&self, way: Way, payload: &[u8]) -> io::Result<()> {
        let transmit =
            Transmit { destination: way.visitor, ecn: None, contents: payload, segment_size: None, src_ip: way.here };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.socket), &transmit))
    }
}

/// Datagrams that are longer than the way's packets travel in fragments, as from any other socket; the library wants them
/// dropped, which is right for QUIC alone.
#[cfg(target_os = "linux")]
fn allow_fragments(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    if address.is_ipv6() {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
    }
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn allow_fragments(_: &Socket, _: SocketAddr) -> io::Result<()> {
    Ok(())
}
