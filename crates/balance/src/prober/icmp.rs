//! Questions without a connection: an echo, and a datagram to which who does not take it answers with an error.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use registry::MonitorTerms;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::Asker;
use super::question::{Answer, Problem, Subject};
use crate::plan::Target;

/// Of an echo request and its answer (RFC 792), and of those of IPv6 (RFC 4443).
const TYPES: [(u8, u8); 2] = [(8, 0), (128, 129)];
/// What an answer has to bring back.
const TOKEN: usize = 16;
/// An error comes as fast as an answer to an echo, or a little later.
const ERROR_WITHIN: Duration = Duration::from_millis(200);

/// Asks one of the member's addresses for an echo.
pub(super) async fn ping(asker: &Asker, subject: &Subject) -> Answer {
    reached(asker, subject).await?;
    Ok(None)
}

/// The same, and sends a datagram to its port: one that is not taken brings an error. Silence does not, so that the echo decides.
pub(super) async fn datagram(asker: &Asker, subject: &Subject, monitor: &MonitorTerms) -> Answer {
    let port = subject.port(monitor, 0);
    if port == 0 {
        return Err("neither the monitor nor the origin says which port is to be asked".into());
    }
    let asked = Instant::now();
    let address = reached(asker, subject).await?;
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let refused = |error: io::Error| Problem::from(format!("port {port} takes no datagrams: {error}"));
    let socket = UdpSocket::bind((any, 0)).await.map_err(|error| Problem::unasked(format!("no socket: {error}")))?;
    socket.connect((address, port)).await.map_err(refused)?;
    socket.send(&[]).await.map_err(refused)?;
    // No longer than the monitor waits, which would take the silence for a failure.
    let left = Duration::from_secs(monitor.timeout.into()).saturating_sub(asked.elapsed());
    let within = ERROR_WITHIN.max(asked.elapsed() * 2).min(left * 9 / 10);
    match timeout(within, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) => Err(refused(error)),
        Ok(Ok(_)) | Err(_) => Ok(None),
    }
}

/// The first of the member's addresses that answers.
async fn reached(asker: &Asker, subject: &Subject) -> Result<IpAddr, Problem> {
    if let Target::Tunnel(_) = subject.target {
        return Err(Problem::unasked("no echo passes through a tunnel; ask in another way, such as http"));
    }
    let mut last = Problem::from("it has no address");
    for address in asker.reach.addresses(&subject.target).await? {
        match echo(address).await {
            Ok(()) => return Ok(address),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

/// Waits for the answer for as long as it takes.
async fn echo(address: IpAddr) -> Result<(), Problem> {
    let socket = open(address).map_err(|error| {
        Problem::unasked(format!(
            "this node may not send an echo ({error}); let its group do so (net.ipv4.ping_group_range), or give it CAP_NET_RAW"
        ))
    })?;
    let failed = |error: io::Error| Problem::from(format!("no echo: {error}"));
    let (asking, answering) = TYPES[usize::from(address.is_ipv6())];
    let token: [u8; TOKEN] = rand::random();
    socket.connect(SocketAddr::new(address, 0)).await.map_err(failed)?;
    socket.send(&request(asking, token)).await.map_err(failed)?;
    let mut packet = [0; 1500];
    loop {
        let length = socket.recv(&mut packet).await.map_err(failed)?;
        if is_answer(&packet[..length], answering, token) {
            return Ok(());
        }
    }
}

/// A socket for echoes: one that needs no right where the system lets its group have it, else one that does.
fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket =
        Socket::new(domain, Type::DGRAM, Some(protocol)).or_else(|_| Socket::new(domain, Type::RAW, Some(protocol)))?;
    socket.set_nonblocking(true)?;
    // Sent and received alike.
    UdpSocket::from_std(socket.into())
}

/// The system fills in the identifier and the check sum where it has its own ideas about them.
fn request(kind: u8, token: [u8; TOKEN]) -> Vec<u8> {
    let mut packet = vec![kind, 0, 0, 0, token[0], token[1], 0, 1];
    packet.extend_from_slice(&token);
    let sum = packet.chunks(2).fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[2..4].copy_from_slice(&(!folded as u16).to_be_bytes());
    packet
}

/// Whether this is the answer to the request with this token. Sockets that need a right have the IPv4 header before it.
fn is_answer(packet: &[u8], kind: u8, token: [u8; TOKEN]) -> bool {
    let header = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 15) * 4,
        Some(_) | None => 0,
    };
    packet.get(header) == Some(&kind) && packet.get(header + 8..) == Some(&token[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_right_check_sum_and_its_answer_is_known() {
        let token = [0xab; TOKEN];
        let packet = request(8, token);
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        let mut answer = packet.clone();
        assert!(!is_answer(&answer, 0, token), "one's own request is none");
        answer[0] = 0;
        assert!(is_answer(&answer, 0, token));
        assert!(!is_answer(&answer, 0, [0; TOKEN]), "that of somebody else's is none");
        let mut whole = vec![0; 24];
        whole[0] = 0x46;
        whole.extend_from_slice(&answer);
        assert!(is_answer(&whole, 0, token));
        for length in 0..whole.len() {
            assert!(!is_answer(&whole[..length], 0, token));
        }
    }
}
