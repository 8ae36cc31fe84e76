//! Where load balancers' names lead those who ask by DNS: to the members to which the edge itself would lead them.

use std::sync::Arc;

use balance::{Board, Visitor, Whose};
use dns::{Asker, Lead, Member, Members};
use geo::{Country, Geography};
use http::HeaderMap;
use jiff::Timestamp;
use registry::{LoadBalancer, Snapshot};

/// Seconds for which an answer may be kept where the load balancer says nothing about it.
const TTL: u32 = 30;

/// By what this node knows of all members.
pub(super) struct Leading {
    pub(super) board: Arc<Board>,
    pub(super) location: String,
    pub(super) geography: Arc<Geography>,
}

impl Members for Leading {
    fn lead(&self, balancer: &LoadBalancer, snapshot: &Snapshot, asker: &Asker) -> Lead {
        let Some(balancer) = snapshot.load_balancer(balancer.id) else { return Lead::default() };
        let now = Timestamp::now();
        let plan = self.board.plan(snapshot, balancer, now);
        let whose = plan.whose_place(asker.subnet.is_some());
        let (at, scope) = match (whose, asker.subnet) {
            (Whose::Network, Some(subnet)) => (self.geography.of(subnet.address), Some(subnet.prefix)),
            (Whose::Resolver, _) => (self.geography.of(asker.address), None),
            (Whose::Network | Whose::Pop, _) => (self.geography.home(), None),
        };
        let visitor = Visitor {
            address: asker.subnet.map_or(asker.address, |subnet| subnet.address),
            pop: &self.location,
            country: at.country.as_ref().map(Country::as_str),
            region: at.region,
            place: at.place,
            headers: &HeaderMap::new(),
        };
        let mut walk = plan.walk(&visitor, now, rand::random());
        let mut members = Vec::new();
        let mut first = None;
        // Nobody but the edge knows the way through a tunnel.
        while let Some(member) = walk.next(|_| false) {
            let (pool, value) = *first.get_or_insert((member.pool, &member.value));
            // Those of other pools are for when this one fails.
            if pool != member.pool {
                break;
            }
            // Resolvers take any of an answer's addresses: if these were of several values of a label, the shares of these would not hold.
            if *value != member.value {
                continue;
            }
            // Nobody is led to one without weight as long as there is another.
            if !members.is_empty() && !member.has_weight() {
                continue;
            }
            let place = match &member.target {
                balance::Target::Address(address, port) => Some((address.to_string().into(), *port)),
                balance::Target::Name(name, port) => Some((name.clone(), *port)),
                balance::Target::Tunnel(_) => None,
            };
            members.extend(place.map(|(address, port)| Member { address, port, weight: 1 }));
        }
        let is_for_all = whose == Whose::Pop && !plan.tells_visitors_apart();
        Lead { members, ttl: balancer.terms.ttl.unwrap_or(TTL), scope, is_for_all }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use dns::Subnet;
    use geo::{Database, Place};
    use harness::{GeoEntry, geo_database};
    use registry::{Hostname, Registry};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    /// Where those are led who ask at a node in Western Europe; `terms` gets the pools' ids and says the rest.
    async fn led(pools: &[Value], terms: impl FnOnce(&[String]) -> Value, askers: &[Asker]) -> Vec<Lead> {
        let registry = Registry::in_memory(NOW).await.unwrap();
        let zone = registry.ensure_zone(NOW, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
        let mut ids = Vec::new();
        for (at, pool) in pools.iter().enumerate() {
            let mut pool = pool.clone();
            pool["name"] = json!(format!("p{at}"));
            let made = registry.create_pool(NOW, serde_json::from_value(pool).unwrap()).await.unwrap();
            ids.push(made.id.to_string());
        }
        let mut whole = terms(&ids);
        whole["name"] = json!("a.example.test");
        (whole["default_pools"], whole["fallback_pool"]) = (json!([ids[0]]), json!(ids[0]));
        let balancer = registry.create_load_balancer(NOW, zone, serde_json::from_value(whole).unwrap()).await.unwrap();
        let entry = |network: &str, country| GeoEntry { network: (network.parse().unwrap(), 24), country, place: None };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("world.mmdb");
        std::fs::write(&file, geo_database("Test", &[entry("192.0.2.0", "JP"), entry("198.51.100.0", "BR")])).unwrap();
        let database = Database::open(&file).unwrap();
        let leading = Leading {
            board: Arc::default(),
            location: "ams1".into(),
            geography: Arc::new(Geography::new(Some("WEU"), Place::new(52.4, 4.9), Some(database))),
        };
        let snapshot = registry.snapshot();
        askers.iter().map(|asker| leading.lead(&balancer, &snapshot, asker)).collect()
    }

    fn asker(address: &str, subnet: Option<&str>) -> Asker {
        let parsed = |text: &str| text.parse::<IpAddr>().unwrap();
        Asker { address: parsed(address), subnet: subnet.map(|text| Subnet { address: parsed(text), prefix: 24 }) }
    }

    #[tokio::test]
    async fn the_place_is_that_of_the_network_the_resolver_or_the_node_as_the_load_balancer_says() {
        let pools: Vec<_> = (0..4).map(|at| json!({ "origins": [{ "address": format!("10.0.0.{at}") }] })).collect();
        let askers =
            [asker("198.51.100.1", Some("192.0.2.0")), asker("198.51.100.1", None), asker("203.0.113.1", None)];
        for (strategy, expected) in [
            // As usual: of the node, but for proximity.
            (json!({}), [("10.0.0.1", None), ("10.0.0.1", None), ("10.0.0.1", None)]),
            (json!({ "prefer_ecs": "geo" }), [("10.0.0.2", Some(24)), ("10.0.0.1", None), ("10.0.0.1", None)]),
            (
                json!({ "mode": "resolver_ip", "prefer_ecs": "always" }),
                [("10.0.0.2", Some(24)), ("10.0.0.3", None), ("10.0.0.1", None)],
            ),
            (
                json!({ "mode": "resolver_ip", "prefer_ecs": "never" }),
                [("10.0.0.3", None), ("10.0.0.3", None), ("10.0.0.1", None)],
            ),
        ] {
            let terms = |ids: &[String]| {
                json!({
                    "region_pools": { "WEU": [ids[1]], "NEAS": [ids[2]] }, "country_pools": { "BR": [ids[3]] },
                    "location_strategy": strategy,
                })
            };
            let leads = led(&pools, terms, &askers).await;
            let found: Vec<_> = leads.iter().map(|lead| (&*lead.members[0].address, lead.scope)).collect();
            assert_eq!(found, expected, "{strategy}");
        }
    }

    #[tokio::test]
    async fn who_has_no_weight_is_in_no_answer_as_long_as_there_is_another() {
        let origin = |at: u8, weight: u8| json!({ "address": format!("10.0.0.{at}"), "weight": weight });
        for (origins, expected) in [
            (json!([origin(0, 0), origin(1, 1), origin(2, 0), origin(3, 1)]), vec!["10.0.0.1", "10.0.0.3"]),
            (json!([origin(0, 0)]), vec!["10.0.0.0"]),
        ] {
            for lead in led(&[json!({ "origins": origins })], |_| json!({}), &[asker("203.0.113.1", None)]).await {
                let mut found: Vec<_> = lead.members.iter().map(|member| &*member.address).collect();
                found.sort_unstable();
                assert_eq!(found, expected);
            }
        }
    }

    #[tokio::test]
    async fn an_answer_has_members_of_one_value_so_that_the_shares_hold() {
        let origins = (0..6).map(|at| {
            let release = if at < 4 { "stable" } else { "canary" };
            json!({ "address": format!("10.0.0.{at}"), "labels": { "release": release } })
        });
        let split = json!({ "key": "release", "weights": { "stable": 3, "canary": 1 } });
        let pool = json!({ "origins": origins.collect::<Vec<_>>(), "label_steering": split });
        const ASKED: usize = 2000;
        let leads = led(&[pool], |_| json!({}), &vec![asker("203.0.113.1", None); ASKED]).await;
        let mut canaries = 0;
        for lead in leads {
            let last = |member: &Member| member.address.ends_with(['4', '5']);
            let kinds: HashSet<bool> = lead.members.iter().map(last).collect();
            assert_eq!(kinds.len(), 1, "{lead:?}");
            canaries += usize::from(kinds.contains(&true));
        }
        // A quarter, within five standard deviations.
        assert!(canaries.abs_diff(ASKED / 4) < 100, "{canaries}");
    }
}
