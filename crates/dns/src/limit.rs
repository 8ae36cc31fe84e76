//! A limit of the answers to one network, so that those who ask in somebody else's name do not flood him through us: what
//! others call response rate limiting. Pure but for the seed of its hashes.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use registry::ZoneId;

/// Answers per second to one network that are alike, on one thread. Resolvers keep answers, so that none asks so often.
const PER_SECOND: u32 = 200;
/// So many at once, after a pause.
const BURST: u32 = 2 * PER_SECOND;
/// Of the answers beyond it, each such one leaves cut short instead of not at all: whoever really asks then comes over TCP.
const SLIP: u32 = 2;
/// Networks and answers that are counted at once: 2 MiB a thread. Others take the place of those that were there.
const PLACES: usize = 1 << 17;
/// Of a token; a millisecond brings [`PER_SECOND`] of them.
const PARTS: u32 = 1_000;

/// Counts answers.
pub(crate) struct Limit {
    places: Box<[Place]>,
    seed: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Tells what is counted here from what else would be.
    print: u32,
    /// Parts of tokens that are left.
    left: u32,
    /// When that was so, in milliseconds.
    at: u32,
    /// Answers beyond the limit.
    refused: u32,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    Cut,
    Drop,
}

/// Which answers are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind<'a> {
    /// Those with records of this name and type, both as on the wire.
    Answer(&'a [u8]),
    /// Those of this zone of which there are as many as anybody likes, such as denials.
    Zone(ZoneId),
    /// Those that say what was wrong.
    Refusal,
}

impl Limit {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new().into(), seed: RandomState::new() }
    }

    /// Decides on an answer that leaves now, in milliseconds since some moment, to this address.
    pub(crate) fn judge(&mut self, now: u32, asker: IpAddr, kind: Kind<'_>) -> Verdict {
        let Some(network) = network(asker) else { return Verdict::Send };
        if self.places.is_empty() {
            // Once there is somebody to be counted.
            self.places = vec![Place::default(); PLACES].into();
        }
        let hash = self.seed.hash_one((network, kind));
        let print = (hash >> 32) as u32 | 1;
        let Some(place) = self.places.get_mut(hash as usize % PLACES) else { return Verdict::Send };
        if place.print != print {
            *place = Place { print, left: BURST * PARTS, at: now, refused: 0 };
        }
        let passed = now.wrapping_sub(place.at);
        let gained = passed.saturating_mul(PER_SECOND);
        (place.left, place.at) = (place.left.saturating_add(gained).min(BURST * PARTS), now);
        if place.left >= PARTS {
            place.left -= PARTS;
            return Verdict::Send;
        }
        place.refused = place.refused.wrapping_add(1);
        if place.refused.is_multiple_of(SLIP) { Verdict::Cut } else { Verdict::Drop }
    }
}

/// Who counts as one: what one line has. Programs on this machine are not counted: nobody is flooded by himself.
fn network(asker: IpAddr) -> Option<IpAddr> {
    let asker = asker.to_canonical();
    if asker.is_loopback() {
        return None;
    }
    Some(match asker {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [a, b, c, 0].into()
        }
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[3] &= 0xff00;
            segments[4..].fill(0);
            Ipv6Addr::from(segments).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(limit: &mut Limit, now: u32, asker: &str, kind: Kind<'_>, count: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..count {
            counts[limit.judge(now, asker.parse().unwrap(), kind) as usize] += 1;
        }
        counts
    }

    #[test]
    fn a_flood_is_let_through_up_to_the_limit() {
        let (mut limit, name) = (Limit::new(), Kind::Answer(b"\x01a\0\0\x01"));
        assert_eq!(judged(&mut limit, 0, "192.0.2.1", name, 1_000), [400, 300, 300]);
        // The neighbours are of the same network, others and other answers are not.
        assert_eq!(judged(&mut limit, 0, "192.0.2.9", name, 10), [0, 5, 5]);
        assert_eq!(judged(&mut limit, 0, "192.0.3.1", name, 10), [10, 0, 0]);
        assert_eq!(judged(&mut limit, 0, "192.0.2.1", Kind::Refusal, 10), [10, 0, 0]);
        assert_eq!(judged(&mut limit, 1_000, "192.0.2.1", name, 1_000)[0], 200);
        assert_eq!(judged(&mut limit, 60_000, "192.0.2.1", name, 1_000)[0], 400);
        assert_eq!(judged(&mut limit, 60_000, "::ffff:192.0.2.1", name, 10)[0], 0);
    }

    #[test]
    fn networks_of_ipv6_have_56_bits() {
        let mut limit = Limit::new();
        assert_eq!(judged(&mut limit, 0, "2001:db8:0:1::1", Kind::Refusal, 401)[0], 400);
        assert_eq!(judged(&mut limit, 0, "2001:db8:0:ff::", Kind::Refusal, 10)[0], 0);
        assert_eq!(judged(&mut limit, 0, "2001:db8:0:100::", Kind::Refusal, 10)[0], 10);
    }

    #[test]
    fn programs_on_this_machine_are_not_counted() {
        let mut limit = Limit::new();
        assert_eq!(judged(&mut limit, 0, "127.0.0.1", Kind::Refusal, 10_000)[0], 10_000);
        assert!(limit.places.is_empty());
    }
}
