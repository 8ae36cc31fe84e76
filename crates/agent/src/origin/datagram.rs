//! Origins that take datagrams: each flow has a UDP socket of its own, so that the origin tells its visitors apart.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use wire::{MAX_DATAGRAM, OriginError, OriginFault};

use super::error::connect_fault;
use crate::eyeballs;
use crate::ingress::OriginOptions;

/// Datagrams that are kept until the origin has answered, to be sent again to its next address: what programs say before
/// they wait for an answer.
const FIRST: usize = 4;

/// Bytes of these: so many full packets.
const FIRST_BYTES: usize = FIRST * 1_500;

/// An origin of datagrams.
pub(crate) struct DatagramOrigin {
    host: String,
    port: u16,
    limit: Duration,
}

impl DatagramOrigin {
    /// Leads to this place (its port is there).
    pub(super) fn new(authority: &Authority, options: &OriginOptions) -> Self {
        let port = authority.port_u16().unwrap_or_default();
        Self { host: authority.host().to_owned(), port, limit: options.connect_timeout }
    }

    /// A socket for one flow.
    pub(super) async fn open(&self) -> Result<Peer, OriginError> {
        let place = format!("{}:{}", self.host, self.port);
        let failure = |error: &io::Error| {
            OriginError::new(connect_fault(error, false), format!("the origin {place} cannot be reached: {error}"))
        };
        let found = match timeout(self.limit, eyeballs::resolve(&self.host, self.port)).await {
            Ok(found) => found.map_err(|error| failure(&error))?,
            Err(_) => return Err(failure(&io::ErrorKind::TimedOut.into())),
        };
        Peer::first_of(found.into()).await.map_err(|error| failure(&error))
    }
}

/// A flow's socket. Where a name has several addresses, the first at which somebody listens is kept.
pub(crate) struct Peer {
    socket: UdpSocket,
    /// To be tried if nobody listens.
    others: VecDeque<SocketAddr>,
    /// Sent, and not answered yet.
    first: Vec<Bytes>,
}

/// What came of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    Done,
    /// The system has no room for it, or it is larger than the way to the origin takes.
    Dropped,
}

impl Peer {
    /// A socket that is connected to this address.
    pub(crate) async fn at(address: SocketAddr) -> Result<Self, OriginError> {
        let opened = Self::first_of(VecDeque::from([address])).await;
        opened.map_err(|error| {
            OriginError::new(OriginFault::Unreachable, format!("no datagrams can be sent to {address}: {error}"))
        })
    }

    async fn first_of(mut others: VecDeque<SocketAddr>) -> io::Result<Self> {
        loop {
            let address = others.pop_front().ok_or(io::ErrorKind::NotFound)?;
            match connected(address).await {
                Ok(socket) => return Ok(Self { socket, others, first: Vec::new() }),
                Err(error) if others.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Sends a datagram. An error tells of an earlier one.
    pub(crate) fn send(&mut self, payload: &Bytes) -> io::Result<Sent> {
        let kept: usize = self.first.iter().map(Bytes::len).sum();
        let has_room = self.first.len() < FIRST && kept + payload.len() <= FIRST_BYTES;
        if !self.others.is_empty() && has_room {
            self.first.push(payload.clone());
        }
        for _ in 0..2 {
            match self.socket.try_send(payload) {
                Ok(_) => return Ok(Sent::Done),
                // Of an earlier datagram; the system tells it once, and sends nothing instead.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if is_passing(&error) => return Ok(Sent::Dropped),
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::Dropped)
    }

    /// Waits until there may be something to receive, or an error. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        // The system announces that nobody listens as an error alone.
        self.socket.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    /// A datagram that has come in; `None`: there is none now.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Bytes>> {
        thread_local! {
            /// One for all flows of a thread, since each would have to hold the room for the longest datagram.
            static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; MAX_DATAGRAM]);
        }
        let error = || self.socket.take_error().and_then(|error| error.ok_or_else(|| io::ErrorKind::WouldBlock.into()));
        if let Ok(error) = self.socket.try_io(Interest::ERROR, error) {
            return Err(error);
        }
        BUFFER.with_borrow_mut(|buffer| match self.socket.try_recv(buffer) {
            Ok(length) => {
                (self.others, self.first) = (VecDeque::new(), Vec::new());
                Ok(Some(Bytes::copy_from_slice(&buffer[..length])))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Nobody listens there: goes on with the next address, if there is one and none has answered yet.
    pub(crate) async fn try_next(&mut self) -> bool {
        while let Some(address) = self.others.pop_front() {
            if let Ok(socket) = connected(address).await {
                self.socket = socket;
                for payload in &self.first {
                    // Whoever sent it sends it again, if it matters.
                    let _ = self.socket.try_send(payload);
                }
                return true;
            }
        }
        false
    }
}

async fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    // Until the runtime knows, it takes every attempt to send for one that has to wait.
    socket.writable().await?;
    Ok(socket)
}

/// Concerns one datagram, and not the socket: too large, no room, or no way there just now.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied // Those have no kind of their own.
    ) || matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS))
}

/// Whether an error tells that nobody listens.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive(peer: &mut Peer) -> io::Result<Bytes> {
        loop {
            peer.readable().await?;
            if let Some(payload) = peer.receive()? {
                return Ok(payload);
            }
        }
    }

    #[tokio::test]
    async fn the_first_address_at_which_somebody_listens_is_kept() {
        let origin = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let addresses = VecDeque::from([closed, origin.local_addr().unwrap()]);
        let mut peer = Peer::first_of(addresses).await.unwrap();
        assert_eq!(peer.send(&Bytes::from_static(b"hello")).unwrap(), Sent::Done);
        assert!(is_refusal(&receive(&mut peer).await.unwrap_err()));
        assert!(peer.try_next().await);
        let mut heard = [0; 9];
        let (length, from) = origin.recv_from(&mut heard).await.unwrap();
        assert_eq!(&heard[..length], b"hello");
        origin.send_to(b"answer", from).await.unwrap();
        assert_eq!(receive(&mut peer).await.unwrap(), "answer");
        assert!(!peer.try_next().await);
    }

    #[tokio::test]
    async fn an_empty_datagram_is_one_both_ways() {
        let origin = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut peer = Peer::at(origin.local_addr().unwrap()).await.unwrap();
        assert_eq!(peer.send(&Bytes::new()).unwrap(), Sent::Done);
        let (length, from) = origin.recv_from(&mut [0; 9]).await.unwrap();
        assert_eq!(length, 0);
        origin.send_to(b"", from).await.unwrap();
        assert_eq!(receive(&mut peer).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_datagram_that_is_too_large_is_dropped_alone() {
        let origin = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut peer = Peer::at(origin.local_addr().unwrap()).await.unwrap();
        assert_eq!(peer.send(&Bytes::from(vec![0; MAX_DATAGRAM + 1])).unwrap(), Sent::Dropped);
        assert_eq!(peer.send(&Bytes::from_static(b"x")).unwrap(), Sent::Done);
    }
}
