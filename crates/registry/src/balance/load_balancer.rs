//! Names whose visitors are led to pools. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::number::some_whole;
use super::pool::yes;
use super::rule::Rule;
use super::steering::Steering;
use super::{BadTerms, MAX_DESCRIPTION_CHARS, check_number, check_text};
use crate::resource::{Key, Resource};
use crate::{Hostname, LoadBalancerId, PoolId, ZoneId};

/// A name whose visitors are led to pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// Names it for good.
    pub id: LoadBalancerId,
    /// Where its name lies.
    pub zone: ZoneId,
    /// What it does.
    #[serde(flatten)]
    pub terms: LoadBalancerTerms,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
}

impl Resource for LoadBalancer {
    const KIND: &'static str = "load-balancers";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

/// What a load balancer does, in the members of the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancerTerms {
    /// Of one load balancer of the zone. Records of the name may be there, too: it goes before them.
    pub name: Hostname,
    /// For people.
    #[serde(default)]
    pub description: Box<str>,
    /// Whether it does anything.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Visitors come through the edge; else DNS alone leads them.
    #[serde(default)]
    pub proxied: bool,
    /// Of the answers of DNS, in seconds; `None` where it is proxied.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub ttl: Option<u32>,
    /// Which pool a visitor is led to.
    #[serde(flatten)]
    pub steering: Steering,
    /// What is otherwise for some of them, in order.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Where it is; kept as it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Box<str>>,
}

impl LoadBalancerTerms {
    /// Of the answers of DNS.
    pub const USUAL_TTL: u32 = 30;
    /// A day.
    pub const MAX_TTL: u32 = 86_400;
    /// In one load balancer.
    pub const MAX_RULES: usize = 100;
    /// Kept of one.
    pub const MAX_NETWORKS: usize = 20;

    /// The same in the one form in which it is kept, if it will do in itself. Whether its name lies in the zone, and its pools
    /// are there, is another question.
    ///
    /// # Errors
    /// What will not do, and what would.
    pub fn checked(mut self) -> Result<Self, BadTerms> {
        check_text("description", &self.description, MAX_DESCRIPTION_CHARS)?;
        self.ttl = if self.proxied { None } else { Some(self.ttl.unwrap_or(Self::USUAL_TTL)) };
        check_number("ttl", self.ttl.unwrap_or(Self::USUAL_TTL), 1, Self::MAX_TTL)?;
        if self.networks.len() > Self::MAX_NETWORKS {
            return Err(BadTerms::of("networks", format_args!("at most {} are wanted", Self::MAX_NETWORKS)));
        }
        self.networks.iter().try_for_each(|network| check_text("networks", network, MAX_DESCRIPTION_CHARS))?;
        self.steering = self.steering.checked()?;
        self.check_rules()?;
        Ok(self)
    }

    fn check_rules(&mut self) -> Result<(), BadTerms> {
        if self.rules.len() > Self::MAX_RULES {
            return Err(BadTerms::of("rules", format_args!("at most {} are possible", Self::MAX_RULES)));
        }
        let ranked = self.rules.iter().filter(|rule| rule.priority.is_some()).count();
        if ranked != 0 && ranked != self.rules.len() {
            return Err(BadTerms::of("rules", "priority: wanted in all of the rules, or in none"));
        }
        for (at, rule) in self.rules.iter_mut().enumerate() {
            rule.check(&self.steering, self.proxied)
                .map_err(|problem| BadTerms::new(format_args!("rules[{at}].{problem}")))?;
        }
        Ok(())
    }

    /// Every pool that visitors may be led to, each once.
    pub fn pools(&self) -> BTreeSet<PoolId> {
        let overrides = self.rules.iter().map(|rule| &rule.overrides);
        self.steering.pools().into_iter().chain(overrides.flat_map(|overrides| overrides.pools())).collect()
    }

    /// Whether pools have to say where they are.
    pub(super) fn needs_places(&self) -> bool {
        let overrides = self.rules.iter().filter_map(|rule| rule.overrides.steering_policy);
        std::iter::once(self.steering.steering_policy)
            .chain(overrides)
            .any(|policy| policy == super::SteeringPolicy::Proximity)
    }
}

/// Pools by a code.
pub(super) type PoolsByCode = BTreeMap<Box<str>, Vec<PoolId>>;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<LoadBalancerTerms, String> {
        let terms: LoadBalancerTerms = serde_json::from_value(value).map_err(|error| error.to_string())?;
        terms.checked().map_err(|error| error.to_string())
    }

    fn pool(number: u8) -> String {
        PoolId::from_bytes([number; 16]).to_string()
    }

    fn with(member: &str, value: Value) -> Value {
        let mut balancer = json!({ "name": "a.test", "default_pools": [pool(1)], "fallback_pool": pool(2) });
        balancer[member] = value;
        balancer
    }

    #[test]
    fn what_is_left_out_is_as_usual_and_what_is_kept_is_kept_again_as_it_is() {
        let usual = read(with("enabled", json!(true))).unwrap();
        assert_eq!((usual.enabled, usual.proxied, usual.ttl), (true, false, Some(30)));
        assert_eq!(read(with("proxied", json!(true))).unwrap().ttl, None);
        assert_eq!(
            read(with("session_affinity", json!("cookie"))).unwrap().steering.session_affinity_ttl,
            Some(82_800)
        );
        let mut full = with("name", json!("*.A.Test."));
        full["random_steering"] = json!({ "default_weight": "0.5", "pool_weights": { pool(1): 0.1, pool(3): 1 } });
        full["region_pools"] = json!({ "WEU": [pool(3)] });
        full["session_affinity"] = json!("");
        full["rules"] = json!([{
            "name": "r", "condition": "http.host eq \"a\"", "priority": "1",
            "overrides": { "session_affinity": "header", "default_pools": [pool(4)],
                "session_affinity_attributes": { "headers": ["x-app"] } },
            "fixed_response": { "status_code": 418, "message_body": "no" },
        }]);
        let kept = read(full).unwrap();
        assert_eq!(kept.name.as_str(), "*.a.test");
        assert_eq!(kept.pools().into_iter().map(|id| id.to_string()).collect::<Vec<_>>(), [1, 2, 3, 4].map(pool));
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(read(serde_json::from_str(&text).unwrap()).unwrap(), kept);
    }

    #[test]
    fn what_will_not_do_is_refused_by_its_name() {
        let rule = |member: &str, value: Value| {
            let mut rule = json!({ "name": "r" });
            rule[member] = value;
            with("rules", json!([rule]))
        };
        for (value, member) in [
            (with("name", json!("a b")), "host name"),
            (with("default_pools", json!([])), "default_pools"),
            (with("default_pools", json!([pool(1), pool(1)])), "default_pools"),
            (with("default_pools", json!(["x"])), "id"),
            (with("ttl", json!(0)), "ttl"),
            (with("ttl", json!(100_000)), "ttl"),
            (with("steering_policy", json!("best")), "best"),
            (with("region_pools", json!({ "MOON": [pool(1)] })), "region_pools"),
            (with("region_pools", json!({ "WEU": [] })), "region_pools.WEU"),
            (with("country_pools", json!({ "de": [pool(1)] })), "country_pools"),
            (with("pop_pools", json!({ "a b": [pool(1)] })), "pop_pools"),
            (with("session_affinity", json!("header")), "headers"),
            (with("session_affinity_ttl", json!(10)), "session_affinity_ttl"),
            (with("session_affinity_attributes", json!({ "samesite": "None", "secure": "Never" })), "secure"),
            (with("session_affinity_attributes", json!({ "drain_duration": 5000 })), "drain_duration"),
            (with("session_affinity_attributes", json!({ "headers": ["a b"] })), "headers"),
            (with("random_steering", json!({ "default_weight": 2 })), "default_weight"),
            (with("random_steering", json!({ "pool_weights": { pool(1): 2 } })), "pool_weights"),
            (with("rules", json!([{ "name": "a", "priority": 1 }, { "name": "b" }])), "priority"),
            (rule("name", json!("")), "rules[0].name"),
            (rule("condition", json!("a".repeat(5000))), "rules[0].condition"),
            (rule("overrides", json!({ "ttl": 0 })), "rules[0].overrides.ttl"),
            (rule("overrides", json!({ "default_pools": [] })), "rules[0].overrides.default_pools"),
            (rule("overrides", json!({ "session_affinity": "header" })), "rules[0].overrides.session_affinity"),
            (rule("fixed_response", json!({ "status_code": 99 })), "rules[0].fixed_response.status_code"),
            (rule("fixed_response", json!({ "location": "a\nb" })), "rules[0].fixed_response.location"),
        ] {
            let problem = read(value.clone()).unwrap_err();
            assert!(problem.contains(member), "{value}: {problem}");
        }
    }
}
