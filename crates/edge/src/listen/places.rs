use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Limits;
use crate::defence::Defence;

/// One network may have so large a part of the places of agents that have not registered: an eighth, which are 32 connectors
/// that start at the same moment behind one address.
const NEWCOMERS_SHARE: usize = 8;

/// Programs that call the API at once; it is for a handful of operators and tools.
const CALLERS: usize = 256;

/// One network may have so large a part of these: a quarter, which are the tools of a large team behind one address.
const CALLERS_SHARE: usize = 4;

/// The places of visitors' connections, of agents' that have not registered, or of the API's callers: so many in all, and so many for one network.
#[derive(Debug)]
pub(crate) struct Places {
    total: usize,
    per_address: usize,
    exempt_loopback: bool,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// Nobody's, if its network is not counted.
    network: Option<IpAddr>,
}

impl Places {
    /// Those of visitors.
    pub(crate) fn of_visitors(limits: &Limits) -> Arc<Self> {
        Self::new(limits.connections, limits.connections_per_address, limits.exempt_loopback)
    }

    /// Those of flows of datagrams, apart from connections but as many.
    pub(crate) fn of_flows(limits: &Limits) -> Arc<Self> {
        Self::of_visitors(limits)
    }

    /// Those of agents that have not registered. Loopback is a network like others: agents there register at once too.
    pub(crate) fn of_newcomers(limits: &Limits) -> Arc<Self> {
        Self::new(limits.unregistered, (limits.unregistered / NEWCOMERS_SHARE).max(1), false)
    }

    /// Those of the API's callers, or of those on this machine, who have as many to themselves.
    pub(crate) fn of_callers() -> Arc<Self> {
        Self::new(CALLERS, CALLERS / CALLERS_SHARE, true)
    }

    fn new(total: usize, per_address: usize, exempt_loopback: bool) -> Arc<Self> {
        Arc::new(Self { total, per_address, exempt_loopback, taken: Mutex::default() })
    }

    /// Takes a place for a connection from this address, or says which limit is reached.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Defence> {
        let network = Some(network(address)).filter(|network| !(self.exempt_loopback && network.is_loopback()));
        let mut taken = self.taken();
        if taken.total >= self.total {
            return Err(Defence::Full);
        }
        if let Some(network) = network {
            let count = taken.by_network.entry(network).or_default();
            if *count >= self.per_address {
                return Err(Defence::AddressFull);
            }
            *count += 1;
        }
        taken.total += 1;
        Ok(Place { places: Arc::clone(self), network })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total -= 1;
        let Some(network) = self.network else { return };
        if let Entry::Occupied(mut entry) = taken.by_network.entry(network) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What counts as one visitor: an IPv4 address, or a /64 of IPv6, since whoever has one address of it has all.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    const HOST_PART: u128 = u64::MAX as u128;
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => Ipv6Addr::from_bits(address.to_bits() & !HOST_PART).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn one_network_does_not_take_all() {
        let places = Places::new(10, 2, true);
        let kept = [places.take(at("2001:db8::1")).unwrap(), places.take(at("2001:db8::2:3")).unwrap()];
        assert_eq!(places.take(at("2001:db8::ffff")).unwrap_err(), Defence::AddressFull);
        let other = [places.take(at("2001:db8:0:1::1")).unwrap(), places.take(at("192.0.2.1")).unwrap()];
        let same = places.take(at("::ffff:192.0.2.1")).unwrap();
        assert_eq!(places.take(at("192.0.2.1")).unwrap_err(), Defence::AddressFull);
        drop((kept, other, same));
        assert!(places.taken().by_network.is_empty(), "nothing is remembered of who has left");
        assert_eq!(places.taken().total, 0);
    }

    #[test]
    fn the_total_counts_everybody() {
        let places = Places::new(3, 1, true);
        let kept: Vec<_> = (0..3).map(|_| places.take(at("127.0.0.1")).unwrap()).collect();
        assert_eq!(places.take(at("192.0.2.1")).unwrap_err(), Defence::Full);
        drop(kept);
        assert!(places.take(at("192.0.2.1")).is_ok());
    }

    #[test]
    fn one_caller_of_the_api_leaves_room_for_others() {
        let places = Places::of_callers();
        let kept: Vec<_> = std::iter::from_fn(|| places.take(at("192.0.2.1")).ok()).collect();
        assert_eq!(kept.len(), 64);
        let others: Vec<_> = std::iter::from_fn(|| places.take(at("127.0.0.1")).ok()).collect();
        assert_eq!(others.len(), 256 - 64);
    }

    #[test]
    fn this_machine_is_exempt_only_if_so_said() {
        let places = Places::new(10, 1, false);
        let _kept = places.take(at("::1")).unwrap();
        assert_eq!(places.take(at("::1")).unwrap_err(), Defence::AddressFull);
    }
}
