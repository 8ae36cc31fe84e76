//! Packets that wait because more have come to a socket than there is time for. Pure: it reads no socket.
//!
//! The system hands them over in the order in which they came, so that one peer who sends without end makes everybody else wait behind
//! all that it has sent, and lose what finds no room. Here each peer has a queue of its own, and they take turns. Who sends little is
//! served before those who always have something waiting (as in RFC 8290, section 4.1), but not so that newcomers without end would
//! keep those from their turns.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use quinn::udp::RecvMeta;

/// Bytes of a peer's packets in one turn, or one packet that is longer.
const TURN: usize = 16 << 10;

/// Bytes that wait in all: as many as in the system.
const ROOM: usize = 4 << 20;

/// What a batch counts beside its packets: no less than the places that it takes in memory, so that tiny packets of very many peers do not take
/// more than others.
const OVERHEAD: usize = 1 << 10;

/// The packets that wait, by peer.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    peers: HashMap<SocketAddr, Peer>,
    /// Those who had nothing waiting before.
    fresh: VecDeque<SocketAddr>,
    /// Those who have had a turn since.
    busy: VecDeque<SocketAddr>,
    /// That wait, with the overhead.
    bytes: usize,
    /// The last turn was that of a fresh one.
    was_fresh: bool,
}

#[derive(Debug, Default)]
struct Peer {
    batches: VecDeque<Batch>,
    bytes: usize,
}

/// Packets of one peer that the system has handed over together.
#[derive(Debug)]
struct Batch {
    about: RecvMeta,
    packets: Box<[u8]>,
    /// So many bytes of them have been taken.
    taken: usize,
}

impl Crowd {
    /// Keeps packets until it is their turn. Those of a peer are lost that would have more waiting than there is room left, so that some is
    /// always left for others (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). Tells how
    /// many are lost.
    pub(super) fn push(&mut self, about: RecvMeta, packets: &[u8]) -> u64 {
        let waiting = self.peers.get(&about.addr).map_or(0, |peer| peer.bytes);
        let bytes = packets.len() + OVERHEAD;
        if packets.is_empty() || waiting + bytes > ROOM - self.bytes {
            return packets.len().div_ceil(about.stride.max(1)) as u64;
        }
        let peer = self.peers.entry(about.addr).or_insert_with(|| {
            self.fresh.push_back(about.addr);
            Peer::default()
        });
        peer.bytes += bytes;
        self.bytes += bytes;
        peer.batches.push_back(Batch { about, packets: packets.into(), taken: 0 });
        0
    }

    /// Puts the packets whose turn it is into a buffer, which has room for a batch, and tells about them; `None`: nothing waits.
    pub(super) fn pop(&mut self, buffer: &mut [u8]) -> Option<RecvMeta> {
        let address = self.next()?;
        let peer = self.peers.get_mut(&address)?;
        let batch = peer.batches.front_mut()?;
        let stride = batch.about.stride.max(1);
        let rest = &batch.packets[batch.taken..];
        let length = rest.len().min(stride * (TURN / stride).max(1));
        buffer[..length].copy_from_slice(&rest[..length]);
        let about = RecvMeta { len: length, stride: stride.min(length), ..batch.about };
        batch.taken += length;
        let mut bytes = length;
        if batch.taken == batch.packets.len() {
            peer.batches.pop_front();
            bytes += OVERHEAD;
        }
        peer.bytes -= bytes;
        self.bytes -= bytes;
        // Even if nothing is left, so that who says one thing after the other is not fresh each time.
        self.busy.push_back(address);
        Some(about)
    }

    /// Whose turn it is: a fresh one's, or else, and after each of them, a busy one's.
    fn next(&mut self) -> Option<SocketAddr> {
        let busy = if self.was_fresh || self.fresh.is_empty() { self.next_busy() } else { None };
        self.was_fresh = busy.is_none();
        busy.or_else(|| self.fresh.pop_front())
    }

    /// The next one who has something, without those who have said nothing for a whole round.
    fn next_busy(&mut self) -> Option<SocketAddr> {
        while let Some(address) = self.busy.pop_front() {
            if self.peers.get(&address).is_some_and(|peer| peer.bytes > 0) {
                return Some(address);
            }
            self.peers.remove(&address);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn peer(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    /// Packets of a peer whose first byte tells the number of each.
    fn push(crowd: &mut Crowd, number: u16, packets: usize, stride: usize) -> u64 {
        let mut bytes = vec![0; packets * stride];
        for (index, packet) in bytes.chunks_mut(stride).enumerate() {
            packet[0] = index as u8;
        }
        let about = RecvMeta { addr: peer(number), len: bytes.len(), stride, ecn: None, dst_ip: None };
        crowd.push(about, &bytes)
    }

    fn pop(crowd: &mut Crowd) -> Option<(u16, Vec<u8>)> {
        let mut buffer = vec![0; 1 << 16];
        let about = crowd.pop(&mut buffer)?;
        Some((about.addr.port(), buffer[..about.len].chunks(about.stride).map(|packet| packet[0]).collect()))
    }

    #[test]
    fn packets_of_one_peer_keep_their_order_and_are_whole() {
        let mut crowd = Crowd::default();
        push(&mut crowd, 1, 40, 1200);
        push(&mut crowd, 1, 1, 17);
        let mut seen = Vec::new();
        while let Some((number, packets)) = pop(&mut crowd) {
            assert_eq!(number, 1);
            assert!(packets.len() * 1200 <= TURN);
            seen.extend(packets);
        }
        let expected: Vec<u8> = (0..40).chain([0]).collect();
        assert_eq!(seen, expected);
        assert!(crowd.bytes == 0 && crowd.peers.is_empty());
    }

    #[test]
    fn a_packet_that_is_longer_than_a_turn_is_one() {
        let mut crowd = Crowd::default();
        push(&mut crowd, 1, 2, TURN + 1);
        assert_eq!(pop(&mut crowd), Some((1, vec![0])));
        assert_eq!(pop(&mut crowd), Some((1, vec![1])));
        assert_eq!(pop(&mut crowd), None);
    }

    #[test]
    fn who_sends_little_comes_before_those_who_send_much() {
        let mut crowd = Crowd::default();
        for number in 1..=20 {
            push(&mut crowd, number, 50, 1200);
        }
        // None of them is fresh any more.
        for _ in 0..40 {
            pop(&mut crowd).unwrap();
        }
        push(&mut crowd, 100, 1, 1200);
        let before = std::iter::from_fn(|| pop(&mut crowd)).position(|(number, _)| number == 100).unwrap();
        assert!(before <= 1, "{before} were served before it");
    }

    #[test]
    fn newcomers_without_end_keep_nobody_from_its_turn() {
        let mut crowd = Crowd::default();
        push(&mut crowd, 1, 100, 1200);
        pop(&mut crowd).unwrap();
        let mut of_one = 0;
        for number in 2..102 {
            push(&mut crowd, number, 1, 1200);
            push(&mut crowd, number + 1000, 1, 1200);
            of_one += usize::from(pop(&mut crowd).unwrap().0 == 1);
        }
        assert!(of_one >= 6, "{of_one} turns until it had nothing left");
        assert!(crowd.peers.get(&peer(1)).is_none_or(|peer| peer.bytes == 0));
    }

    #[test]
    fn tiny_packets_of_many_peers_are_bounded() {
        let mut crowd = Crowd::default();
        for number in 0..u16::MAX {
            push(&mut crowd, number, 1, 1);
        }
        assert!(crowd.peers.len() <= ROOM / OVERHEAD);
        assert!(crowd.fresh.len() <= ROOM / OVERHEAD);
        while pop(&mut crowd).is_some() {}
        assert!(crowd.bytes == 0 && crowd.peers.is_empty());
    }

    #[test]
    fn nobody_takes_the_room_of_others() {
        let mut crowd = Crowd::default();
        let lost: u64 = (0..1000).map(|_| push(&mut crowd, 1, 50, 1200)).sum();
        let kept = crowd.peers[&peer(1)].batches.len() as u64;
        assert_eq!(lost, (1000 - kept) * 50, "each packet that is lost is told of");
        assert!(crowd.bytes <= ROOM / 2 + 50 * 1200 + OVERHEAD);
        let mut heard = HashSet::new();
        for round in 0..300 {
            for number in 2..=300 {
                push(&mut crowd, number, 10, 1200);
                heard.extend(pop(&mut crowd).map(|(number, _)| number));
                push(&mut crowd, number, 10, 1200);
            }
            let before = crowd.bytes;
            push(&mut crowd, 1000 + round, 1, 1200);
            assert!(crowd.bytes > before, "who says little finds room");
        }
        assert!(crowd.bytes <= ROOM);
        assert!((1..=300).all(|number| heard.contains(&number)), "{heard:?}");
        while pop(&mut crowd).is_some() {}
        assert!(crowd.bytes == 0 && crowd.peers.is_empty() && crowd.fresh.is_empty() && crowd.busy.is_empty());
    }
}
