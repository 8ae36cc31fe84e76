use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to whoever asks for any (`ip_local_port_range`), and those of public ports.
const PORTS: Range<u16> = 10_000..20_000;

/// Each program of tests begins somewhere else.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(PORTS)));

/// An address of loopback that nobody has, over TCP or UDP, and that nobody else gets, neither from here nor from the system:
/// it is free still when somebody comes back to it after a while.
///
/// # Panics
/// All are taken.
pub fn lasting_address() -> SocketAddr {
    let count = PORTS.end - PORTS.start;
    let ports = PORTS.map(|_| PORTS.start + (NEXT.fetch_add(1, Ordering::Relaxed) % count));
    let mut addresses = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
    addresses.find(is_free).expect("a port is free")
}
