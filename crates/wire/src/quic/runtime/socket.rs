//! The UDP socket of an endpoint.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::OnLoss;
use super::crowd::Crowd;
use crate::quic::settings::LARGEST_PACKET;

/// Bytes that the system keeps of what has come, as far as its limits allow: what a busy peer sends in some milliseconds, in
/// which nobody here has had a turn.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Bytes of packets that the system hands over, or takes, at once: those of the longest datagram (65,507) or fewer.
const AT_ONCE: usize = 65_000;

/// Calls by which packets are fetched before the next of them has its turn: more than a turn takes off.
const FETCHES: usize = 16;

/// Whose packets come to a socket.
#[derive(Clone)]
pub(super) enum Peers {
    One,
    Many { on_loss: OnLoss },
}

impl Peers {
    /// Batches of packets that are read in one call. The system joins those of one peer into one batch of up to 64 KiB, so that more
    /// of them would only take memory that was used once: what a flood has filled stays.
    fn batches(&self) -> usize {
        match self {
            Self::One => 4,
            Self::Many { .. } => 8,
        }
    }

    fn lost(&self, packets: u64) {
        if let Self::Many { on_loss } = self
            && packets > 0
        {
            on_loss(packets);
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "One",
            Self::Many { .. } => "Many",
        })
    }
}

/// A socket that takes large packets, and keeps many.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    peers: Peers,
    /// The system had no room for the last packet that was to be sent.
    full: AtomicBool,
    /// More has come than there is time for, and waits in the crowd.
    is_crowded: Arc<AtomicBool>,
    crowd: Mutex<Crowd>,
}

impl Socket {
    pub(super) fn new(socket: std::net::UdpSocket, peers: Peers, is_crowded: Arc<AtomicBool>) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // The system may have a lower limit, which is as good as it gets.
        let _ = state.set_recv_buffer_size((&socket).into(), RECEIVE_BUFFER);
        // It does not block since its state was made.
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, state, peers, full: AtomicBool::new(false), is_crowded, crowd: Mutex::default() })
    }

    fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        about: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(context))?;
            let received = self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, about));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Fetches what has come, so that it does not wait in the system in the order of its coming, and gives what has the next turn.
    fn poll_crowd(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        about: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fetched = Poll::Ready(0);
        for _ in 0..FETCHES {
            fetched = self.poll_read(context, buffers, about)?;
            let Poll::Ready(received) = fetched else { break };
            for (about, packets) in about.iter().zip(buffers.iter()).take(received) {
                self.peers.lost(crowd.push(*about, &packets[..about.len]));
            }
        }
        match (crowd.pop(&mut buffers[0]), fetched) {
            (Some(next), _) => {
                about[0] = next;
                Poll::Ready(Ok(1))
            }
            // Now there are few again, and the task is woken for the next.
            (None, fetched) => {
                self.is_crowded.store(false, Ordering::Relaxed);
                fetched.map(|_| Ok(0))
            }
        }
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit));
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, room: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(size) = transmit.segment_size.filter(|_| transmit.contents.len() > AT_ONCE) else {
            return self.send(transmit);
        };
        for contents in transmit.contents.chunks(size * (AT_ONCE / size).max(1)) {
            let segment_size = Some(size).filter(|size| contents.len() > *size);
            // When there is no room halfway, all is sent again, and the peer has some packets twice.
            self.send(&Transmit { contents, segment_size, ..*transmit })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        about: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let batches = self.peers.batches().min(buffers.len());
        let (buffers, about) = (&mut buffers[..batches], &mut about[..batches]);
        if !self.is_crowded.load(Ordering::Relaxed) {
            let received = ready!(self.poll_read(context, buffers, about))?;
            // There may be more than there is time for.
            let is_crowded = matches!(self.peers, Peers::Many { .. }) && received == batches;
            self.is_crowded.store(is_crowded, Ordering::Relaxed);
            return Poll::Ready(Ok(received));
        }
        self.poll_crowd(context, buffers, about)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// For the size of buffers only: as many of the largest as are no less than what the system joins.
    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments().min((1_usize << 16).div_ceil(usize::from(LARGEST_PACKET)))
    }
}

type Room = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for room in a socket, for one connection.
struct Poller {
    socket: Arc<Socket>,
    room: Option<Room>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, room } = &mut *self;
        if room.is_none() && !socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let waiting = room.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let outcome = ready!(waiting.as_mut().poll(context));
        *room = None;
        socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(outcome)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::atomic::AtomicU64;
    use std::task::Waker;

    use super::*;

    /// A peer that sends more between two turns than one turn takes off.
    #[tokio::test]
    async fn packets_without_room_are_lost_and_told_of() {
        let lost = Arc::new(AtomicU64::new(0));
        let on_loss = {
            let lost = Arc::clone(&lost);
            Arc::new(move |packets| {
                lost.fetch_add(packets, Ordering::Relaxed);
            })
        };
        let edge = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        edge.set_nonblocking(true).unwrap();
        let address = edge.local_addr().unwrap();
        let socket = Socket::new(edge, Peers::Many { on_loss }, Arc::default()).unwrap();
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();

        let mut memory = vec![vec![0; 1 << 16]; 8];
        let mut about = [RecvMeta::default(); 8];
        let mut context = Context::from_waker(Waker::noop());
        let (mut sent, mut taken) = (0, 0);
        while lost.load(Ordering::Relaxed) == 0 {
            assert!(sent < 100_000, "all of {sent} packets have found room; {taken} have had a turn");
            for _ in 0..100 {
                peer.send_to(&[7; 1200], address).unwrap();
                sent += 1;
            }
            // The runtime hears of the packets.
            tokio::task::yield_now().await;
            let mut buffers: Vec<_> = memory.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            if let Poll::Ready(received) = socket.poll_recv(&mut context, &mut buffers, &mut about) {
                taken += about[..received.unwrap()].iter().map(|about| about.len / about.stride.max(1)).sum::<usize>();
            }
        }
        assert!(taken < sent, "what is lost is not taken, too");
    }
}
