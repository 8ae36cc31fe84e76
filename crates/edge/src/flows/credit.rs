//! How much may be answered to a visitor who has not shown that answers reach it. Pure.
//!
//! The sender's address of a datagram can be forged, and what is answered then hits whoever has that address. Three times
//! what came is what RFC 9000 section 8.1 lets QUIC answer before an address is validated. That alone would silence the
//! protocols of one question and one answer, whose questions are small: a DNS query of 60 bytes has answers of up to 1,232.
//! So each datagram is worth at least one full packet. A protocol of one answer loses nothing, as servers keep that answer within a packet
//! by themselves (DNS flag day 2020), and what multiplies (thousands of packets for one, as of memcached and NTP) ends after the first.

/// Answered for each byte that came.
const FACTOR: u64 = 3;

/// A full packet of Ethernet.
const PACKET: u64 = 1_500;

/// Bytes of the headers of IPv4 and UDP, so that empty datagrams count, too.
const HEADERS: u64 = 28;

/// Bytes that may still be answered.
#[derive(Debug, Default)]
pub(super) struct Credit(u64);

impl Credit {
    /// A datagram with so many bytes came.
    pub(super) fn heard(&mut self, payload: usize) {
        self.0 = self.0.saturating_add((FACTOR * size(payload)).max(PACKET));
    }

    /// Whether a datagram with so many bytes may go out, which then counts.
    pub(super) fn spend(&mut self, payload: usize) -> bool {
        let left = self.0.checked_sub(size(payload));
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// Bytes of a datagram on its way.
fn size(payload: usize) -> u64 {
    u64::try_from(payload).unwrap_or(u64::MAX / (2 * FACTOR)) + HEADERS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes out of many answers of this size, in bytes on the way.
    fn answered(credit: &mut Credit, answer: usize) -> u64 {
        (0..100_000).filter(|_| credit.spend(answer)).map(|_| size(answer)).sum()
    }

    #[test]
    fn a_question_has_its_answer() {
        let mut credit = Credit::default();
        assert!(!credit.spend(0), "nothing came");
        // Of A and AAAA at once, as resolvers ask, each with the longest answer that servers of DNS give.
        for question in [40, 40] {
            credit.heard(question);
        }
        assert!(credit.spend(1_232) && credit.spend(1_232));
        // The first flight of QUIC.
        credit.heard(1_200);
        assert!(credit.spend(1_200) && credit.spend(1_200) && credit.spend(1_200));
    }

    #[test]
    fn answers_are_no_multiple_of_what_came() {
        for question in [0, 15, 60, 472, 1_200, 9_000, 65_507] {
            for answer in [0, 1, 100, 1_400, 65_507] {
                let mut credit = Credit::default();
                (0..10).for_each(|_| credit.heard(question));
                let came = 10 * size(question);
                assert!(answered(&mut credit, answer) <= (FACTOR * came).max(10 * PACKET), "{answer} to {question}");
            }
        }
    }

    #[test]
    fn what_is_too_large_leaves_room_for_what_is_not() {
        let mut credit = Credit::default();
        credit.heard(15);
        assert!(!credit.spend(4_000));
        assert!(credit.spend(512));
    }
}
