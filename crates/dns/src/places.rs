//! Which connections there may be at once. Where all places are taken, whoever has waited the longest for his next question makes
//! room, so that nobody keeps others out by doing nothing. Pure but for the token that tells him.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections at once; a resolver opens one or two, and only for long answers.
const ALL: usize = 2_048;
/// Those of one IPv4 address or one /64 of IPv6.
const PER_ADDRESS: usize = 64;

/// The connections that there are.
#[derive(Debug, Default)]
pub(crate) struct Places {
    held: HashMap<u64, Held>,
    of_asker: HashMap<IpAddr, usize>,
    next: u64,
}

#[derive(Debug)]
struct Held {
    asker: IpAddr,
    /// Since when it has nothing to do; `None`: a question is being read or answered.
    idle_since: Option<Instant>,
    displaced: CancellationToken,
}

/// How a newcomer fares.
#[derive(Debug)]
pub(crate) struct Taken {
    /// By which the place is known.
    pub(crate) id: u64,
    /// Told when somebody else takes it.
    pub(crate) displaced: CancellationToken,
    /// Somebody had to make room.
    pub(crate) has_displaced: bool,
}

impl Places {
    /// Gives a place to whoever connects from this address; `None`: all are taken by those who have something to do.
    pub(crate) fn take(&mut self, from: IpAddr, now: Instant) -> Option<Taken> {
        let asker = asker(from);
        let is_own_full = self.of_asker.get(&asker).is_some_and(|count| *count >= PER_ADDRESS);
        let has_displaced = is_own_full || self.held.len() >= ALL;
        if has_displaced {
            let makes_room = |held: &Held| !is_own_full || held.asker == asker;
            let idle = self.held.iter().filter(|(_, held)| makes_room(held));
            let idle = idle.filter_map(|(id, held)| Some((held.idle_since?, *id)));
            let (_, oldest) = idle.min()?;
            if let Some(held) = self.leave(oldest) {
                held.displaced.cancel();
            }
        }
        let (id, displaced) = (self.next, CancellationToken::new());
        self.next += 1;
        self.held.insert(id, Held { asker, idle_since: Some(now), displaced: displaced.clone() });
        *self.of_asker.entry(asker).or_default() += 1;
        Some(Taken { id, displaced, has_displaced })
    }

    /// It has something to do, or nothing any more since now.
    pub(crate) fn note(&mut self, id: u64, idle_since: Option<Instant>) {
        if let Some(held) = self.held.get_mut(&id) {
            held.idle_since = idle_since;
        }
    }

    /// Gives a place back, unless somebody else has it by now.
    pub(crate) fn give_back(&mut self, id: u64) {
        self.leave(id);
    }

    fn leave(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        if let Some(count) = self.of_asker.get_mut(&held.asker) {
            *count -= 1;
            if *count == 0 {
                self.of_asker.remove(&held.asker);
            }
        }
        Some(held)
    }
}

/// Who counts as one: a whole network of IPv6 is one line to somebody's house.
fn asker(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            Ipv6Addr::from(segments).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(number: usize) -> IpAddr {
        IpAddr::from(u32::try_from(number).unwrap().to_be_bytes())
    }

    #[test]
    fn who_has_waited_the_longest_makes_room() {
        let (mut places, start) = (Places::default(), Instant::now());
        let taken: Vec<_> = (0..ALL)
            .map(|number| places.take(address(number), start + Duration::from_millis(number as u64)).unwrap())
            .collect();
        assert!(!taken.iter().any(|taken| taken.has_displaced));
        // The first has something to do, the second had and has waited anew.
        places.note(taken[0].id, None);
        places.note(taken[1].id, Some(start + Duration::from_secs(60)));
        let newcomer = places.take(address(ALL), start + Duration::from_secs(61)).unwrap();
        assert!(newcomer.has_displaced && taken[2].displaced.is_cancelled());
        assert_eq!(taken.iter().filter(|taken| taken.displaced.is_cancelled()).count(), 1);
        // Who was displaced gives nothing back.
        places.give_back(taken[2].id);
        assert_eq!(places.held.len(), ALL);
        for taken in taken.iter().chain([&newcomer]) {
            places.note(taken.id, None);
        }
        assert!(places.take(address(ALL + 1), start).is_none(), "everybody has something to do");
        places.give_back(newcomer.id);
        assert!(!places.take(address(ALL + 1), start).unwrap().has_displaced);
    }

    #[test]
    fn one_address_displaces_its_own_connections_only() {
        let (mut places, start) = (Places::default(), Instant::now());
        let other = places.take("192.0.2.9".parse().unwrap(), start).unwrap();
        // Those of one network of IPv6 are one.
        let taken: Vec<_> = (0..PER_ADDRESS)
            .map(|host| places.take(format!("2001:db8::{host:x}").parse().unwrap(), start).unwrap())
            .collect();
        let late = places.take("2001:db8:0:0:9::9".parse().unwrap(), start).unwrap();
        assert!(late.has_displaced && !other.displaced.is_cancelled());
        assert_eq!(taken.iter().filter(|taken| taken.displaced.is_cancelled()).count(), 1);
        assert!(!places.take("2001:db8:0:1::".parse().unwrap(), start).unwrap().has_displaced);
        for taken in taken.iter().chain([&late]) {
            places.note(taken.id, None);
        }
        assert!(places.take("2001:db8::1".parse().unwrap(), start).is_none());
        for taken in taken.iter().chain([&late]) {
            places.give_back(taken.id);
        }
        assert_eq!((places.held.len(), places.of_asker.len()), (2, 2));
    }
}
