//! Which nodes ask a pool's members. Pure.

use std::collections::HashSet;

use registry::{NodeId, NodeRecord, PoolId};

use crate::choice::hash::mixed;

/// So many nodes ask each pool: two may agree against one that is cut off, and members are asked no more often than that. The
/// others go by what these report.
pub const WATCHERS: usize = 3;

/// The nodes that ask a pool's members: a few, in as many places as possible, and the same whoever works it out. When a node comes or
/// goes, only the pools change that it asks. `regions` are those from which the pool wants to be asked, and `region` is where a node
/// is; where no node is there, all nodes count.
pub fn watchers<'a>(
    pool: PoolId,
    nodes: impl Iterator<Item = &'a NodeRecord>,
    regions: Option<&[Box<str>]>,
    region: impl Fn(&NodeRecord) -> Option<&str>,
) -> Vec<NodeId> {
    let nodes: Vec<_> = nodes.collect();
    let is_wanted = |node: &&NodeRecord| {
        let wanted = |regions: &[Box<str>]| {
            regions.iter().any(|wanted| &**wanted == "ALL_REGIONS" || region(node) == Some(wanted))
        };
        regions.is_none_or(wanted)
    };
    let there: Vec<_> = nodes.iter().copied().filter(is_wanted).collect();
    let mut ranked = if there.is_empty() { nodes } else { there };
    ranked.sort_by_cached_key(|node| (mixed(folded(pool.to_bits()), folded(node.id.to_bits())), node.id));
    let mut places = HashSet::new();
    let (firsts, others): (Vec<_>, Vec<_>) = ranked.into_iter().partition(|node| places.insert(&*node.location));
    firsts.into_iter().chain(others).take(WATCHERS).map(|node| node.id).collect()
}

fn folded(bits: u128) -> u64 {
    mixed((bits >> 64) as u64, bits as u64)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use registry::NodeAddresses;

    use super::*;

    fn node(number: u8, location: &str) -> NodeRecord {
        let nowhere = ([127, 0, 0, 1], 0).into();
        NodeRecord {
            id: NodeId::from_bytes([number; 16]),
            name: "n".into(),
            location: location.into(),
            region: None,
            addresses: NodeAddresses { http: nowhere, https: nowhere, tunnel: vec![], api: nowhere, dns: None },
            version: "1".into(),
            started_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn pools() -> impl Iterator<Item = PoolId> {
        (0..200u8).map(|number| PoolId::from_bytes([number; 16]))
    }

    #[test]
    fn pools_are_shared_among_all_and_a_node_that_goes_changes_only_its_own() {
        let nodes: Vec<_> = (0..10).map(|number| node(number, "ams1")).collect();
        let of = |pool, nodes: &[NodeRecord]| watchers(pool, nodes.iter(), None, |_| None);
        let mut counts = [0; 10];
        for pool in pools() {
            let all = of(pool, &nodes);
            assert_eq!(all.len(), WATCHERS);
            for (count, node) in counts.iter_mut().zip(&nodes) {
                *count += usize::from(all.contains(&node.id));
            }
            let fewer = of(pool, &nodes[1..]);
            assert!(all.contains(&nodes[0].id) || all == fewer);
            assert!(all.iter().filter(|id| **id != nodes[0].id).all(|id| fewer.contains(id)));
        }
        assert!(counts.iter().all(|count| (30..=90).contains(count)), "{counts:?}");
        assert_eq!(of(PoolId::from_bytes([1; 16]), &nodes[..2]).len(), 2);
        assert_eq!(of(PoolId::from_bytes([1; 16]), &[]), []);
    }

    #[test]
    fn they_are_in_different_places_and_where_the_pool_wants_them() {
        let places = ["ams1", "ams1", "ams1", "ams1", "fra1", "lhr1"];
        let nodes: Vec<_> = places.iter().zip(0..).map(|(place, number)| node(number, place)).collect();
        fn region(node: &NodeRecord) -> Option<&str> {
            Some(if node.location == "lhr1" { "WEU" } else { "EEU" })
        }
        for pool in pools() {
            let all = watchers(pool, nodes.iter(), None, region);
            assert!(all.contains(&nodes[4].id) && all.contains(&nodes[5].id));
            let asked = |codes: &[&str]| {
                let codes: Vec<Box<str>> = codes.iter().map(|code| (*code).into()).collect();
                watchers(pool, nodes.iter(), Some(&codes), region)
            };
            assert_eq!(asked(&["WEU"]), [nodes[5].id]);
            assert!(!asked(&["EEU"]).contains(&nodes[5].id));
            assert_eq!([asked(&["OC"]), asked(&["ALL_REGIONS"])], [all.clone(), all]);
        }
    }
}
