use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpSocket;

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
    // Looking must not take the address: a process that another test starts at the same time has a copy of each socket of this one
    // until its own program begins.
    addresses.find(|address| is_free_over_tcp(*address) && is_free_over_udp(address.port())).expect("a port is free")
}

/// Sockets that nobody can dial do not keep each other from an address, so a copy of this one is in nobody's way.
fn is_free_over_tcp(address: SocketAddr) -> bool {
    let socket = TcpSocket::new_v4().expect("there is IPv4");
    socket.set_reuseaddr(true).expect("a socket that is not bound takes it");
    socket.bind(address).is_ok()
}

/// What the system lists, where it does (proc_net in the Linux manual: the second field of a line is an address, and its port in hexadecimal).
fn is_free_over_udp(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let ending = format!(":{port:04X}");
    !sockets.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&ending)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn it_is_free_though_others_start_processes() {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        Command::new("true").status().unwrap();
                    }
                });
            }
            let looked = std::panic::catch_unwind(|| {
                for _ in 0..2_000 {
                    let address = lasting_address();
                    TcpListener::bind(address).unwrap_or_else(|error| panic!("TCP at {address}: {error}"));
                    UdpSocket::bind(address).unwrap_or_else(|error| panic!("UDP at {address}: {error}"));
                }
            });
            is_over.store(true, Ordering::Relaxed);
            looked.unwrap();
        });
    }

    #[test]
    fn what_somebody_has_is_passed_over() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free_over_tcp(tcp.local_addr().unwrap()));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free_over_udp(udp.local_addr().unwrap().port()));
    }
}
