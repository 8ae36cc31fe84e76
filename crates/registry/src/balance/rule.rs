//! What a load balancer does otherwise for some of its visitors. Pure.

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::load_balancer::PoolsByCode;
use super::number::some_whole;
use super::steering::{
    AdaptiveRouting, Affinity, AffinityAttributes, LocationStrategy, RandomSteering, Steering, SteeringPolicy,
};
use super::{BadTerms, LoadBalancerTerms, check_number, check_text};
use crate::PoolId;

/// What is otherwise for some visitors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// For people.
    pub name: Box<str>,
    /// For whom: an expression, which nobody reads yet.
    #[serde(default)]
    pub condition: Box<str>,
    /// The lower ones come first; `None` in all of them: in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub priority: Option<u32>,
    /// It is passed over.
    #[serde(default)]
    pub disabled: bool,
    /// No rule after it counts.
    #[serde(default)]
    pub terminates: bool,
    /// What is otherwise.
    #[serde(default)]
    pub overrides: Overrides,
    /// An answer instead of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_response: Option<FixedResponse>,
}

/// What holds instead of the load balancer's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the load balancer's member of the same name")]
pub struct Overrides {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub ttl: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_pools: Option<Vec<PoolId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_pool: Option<PoolId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steering_policy: Option<SteeringPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_pools: Option<PoolsByCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country_pools: Option<PoolsByCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop_pools: Option<PoolsByCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<Affinity>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub session_affinity_ttl: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_attributes: Option<AffinityAttributes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_steering: Option<RandomSteering>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_routing: Option<AdaptiveRouting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location_strategy: Option<LocationStrategy>,
}

/// An answer of the load balancer itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FixedResponse {
    /// 200, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub status_code: Option<u32>,
    /// Of the body.
    #[serde(default)]
    pub content_type: Box<str>,
    /// Where to go instead.
    #[serde(default)]
    pub location: Box<str>,
    /// The body.
    #[serde(default)]
    pub message_body: Box<str>,
}

impl Rule {
    /// Of an expression.
    pub const MAX_CONDITION_CHARS: usize = 4096;
    /// Of an answer's body.
    pub const MAX_MESSAGE_CHARS: usize = 1024;
    /// Of an answer's header.
    pub const MAX_HEADER_BYTES: usize = 2048;
    /// Of a name.
    pub const MAX_NAME_CHARS: usize = 200;

    /// Whether it will do in a load balancer that is otherwise like this.
    pub(super) fn check(&self, steering: &Steering, proxied: bool) -> Result<(), BadTerms> {
        if self.name.is_empty() {
            return Err(BadTerms::of("name", "a name is wanted"));
        }
        check_text("name", &self.name, Self::MAX_NAME_CHARS)?;
        check_text("condition", &self.condition, Self::MAX_CONDITION_CHARS)?;
        if let Some(ttl) = self.overrides.ttl {
            check_number("overrides.ttl", ttl, 1, LoadBalancerTerms::MAX_TTL)?;
            if proxied {
                return Err(BadTerms::of("overrides.ttl", "not for a load balancer that is proxied"));
            }
        }
        let whole = self.overrides.over(steering).checked();
        whole.map_err(|problem| BadTerms::new(format_args!("overrides.{problem}")))?;
        self.fixed_response.as_ref().map_or(Ok(()), FixedResponse::check)
    }
}

impl FixedResponse {
    fn check(&self) -> Result<(), BadTerms> {
        check_number("fixed_response.status_code", self.status_code.unwrap_or(200), 200, 599)?;
        for (member, value) in [("content_type", &self.content_type), ("location", &self.location)] {
            if value.len() > Rule::MAX_HEADER_BYTES || HeaderValue::from_str(value).is_err() {
                let most = Rule::MAX_HEADER_BYTES;
                let problem = format_args!("at most {most} visible characters are wanted");
                return Err(BadTerms::of(format_args!("fixed_response.{member}"), problem));
            }
        }
        check_text("fixed_response.message_body", &self.message_body, Rule::MAX_MESSAGE_CHARS)
    }
}

impl Overrides {
    /// What holds with them.
    fn over(&self, steering: &Steering) -> Steering {
        fn or<T: Clone>(own: &Option<T>, other: &T) -> T {
            own.clone().unwrap_or_else(|| other.clone())
        }
        let affinity = or(&self.session_affinity, &steering.session_affinity);
        // How long the load balancer's own sessions last fits no other kind.
        let other_ttl = steering.session_affinity_ttl.filter(|_| affinity == steering.session_affinity);
        Steering {
            default_pools: or(&self.default_pools, &steering.default_pools),
            fallback_pool: or(&self.fallback_pool, &steering.fallback_pool),
            steering_policy: or(&self.steering_policy, &steering.steering_policy),
            region_pools: or(&self.region_pools, &steering.region_pools),
            country_pools: or(&self.country_pools, &steering.country_pools),
            pop_pools: or(&self.pop_pools, &steering.pop_pools),
            session_affinity: affinity,
            session_affinity_ttl: self.session_affinity_ttl.or(other_ttl),
            session_affinity_attributes: or(&self.session_affinity_attributes, &steering.session_affinity_attributes),
            random_steering: or(&self.random_steering, &steering.random_steering),
            adaptive_routing: or(&self.adaptive_routing, &steering.adaptive_routing),
            location_strategy: or(&self.location_strategy, &steering.location_strategy),
        }
    }

    /// Every pool in them, perhaps more than once.
    pub(super) fn pools(&self) -> Vec<PoolId> {
        let by_code = [&self.region_pools, &self.country_pools, &self.pop_pools];
        let by_code = by_code.into_iter().flatten().flat_map(|by_code| by_code.values().flatten());
        self.default_pools.iter().flatten().chain(&self.fallback_pool).chain(by_code).copied().collect()
    }
}
