//! One packet at a time, where the system offers no more.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Longer ones are no questions.
const PACKET: usize = 4096;

pub(super) fn prepare(_socket: &UdpSocket) -> io::Result<()> {
    Ok(())
}

/// A packet and its answer.
pub(super) struct Batch {
    packet: Box<[u8]>,
    length: usize,
    from: Option<SocketAddr>,
    message: Vec<u8>,
    is_answered: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        let packet = vec![0; PACKET].into();
        Self { packet, length: 0, from: None, message: Vec::new(), is_answered: false }
    }

    /// Waits for a packet, for as long as the socket does.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.is_answered = false;
        match socket.recv_from(&mut self.packet) {
            Ok((length, from)) => {
                (self.length, self.from) = (length, Some(from));
                Ok(1)
            }
            Err(error) if is_nothing(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(super) fn at(&mut self, _place: usize) -> Option<(&[u8], IpAddr, &mut Vec<u8>)> {
        Some((&self.packet[..self.length], self.from?.ip(), &mut self.message))
    }

    pub(super) fn is_answered(&mut self, _place: usize) {
        self.is_answered = true;
    }

    /// Sends the answer, and answers how many were not sent.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> u64 {
        match self.from.filter(|_| self.is_answered) {
            Some(from) => u64::from(socket.send_to(&self.message, from).is_err()),
            None => 0,
        }
    }
}

/// Windows tells whoever receives that an earlier answer met nobody.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionReset)
}
