//! Which pool a visitor is led to. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::load_balancer::PoolsByCode;
use super::number::{fraction, some_whole, usual_weight, weights};
use super::region::check_region;
use super::{BadTerms, check_number, check_share};
use crate::PoolId;

/// Which pool a visitor is led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// In the order in which they are tried.
    pub default_pools: Vec<PoolId>,
    /// Where visitors go when nothing else is well.
    pub fallback_pool: PoolId,
    /// How one of them is chosen.
    #[serde(default)]
    pub steering_policy: SteeringPolicy,
    /// By the visitor's region.
    #[serde(default)]
    pub region_pools: PoolsByCode,
    /// By the visitor's country, two letters.
    #[serde(default)]
    pub country_pools: PoolsByCode,
    /// By the PoP that the visitor came to.
    #[serde(default)]
    pub pop_pools: PoolsByCode,
    /// What leads a visitor to the same origin again.
    #[serde(default)]
    pub session_affinity: Affinity,
    /// For how long, in seconds; `None` without.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub session_affinity_ttl: Option<u32>,
    /// What else is said about that.
    #[serde(default)]
    pub session_affinity_attributes: AffinityAttributes,
    /// The shares of pools.
    #[serde(default)]
    pub random_steering: RandomSteering,
    /// What happens to a request that an origin failed.
    #[serde(default)]
    pub adaptive_routing: AdaptiveRouting,
    /// Whose place is the visitor's, without a proxy.
    #[serde(default)]
    pub location_strategy: LocationStrategy,
}

/// How a pool is chosen of those that are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SteeringPolicy {
    /// [`Self::Geo`] where there are pools for places, else [`Self::Off`].
    #[default]
    #[serde(rename = "")]
    Usual,
    /// The first.
    Off,
    /// By the visitor's place.
    Geo,
    /// By chance and weight.
    Random,
    /// By the shortest way there and back.
    DynamicLatency,
    /// By the distance; every pool has to say where it is.
    Proximity,
    /// By the requests that are not answered yet.
    LeastOutstandingRequests,
    /// By the connections that are open.
    LeastConnections,
}

/// What leads a visitor to the same origin again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// Nothing.
    #[default]
    #[serde(alias = "")]
    None,
    /// A cookie.
    Cookie,
    /// A cookie, which begins with the visitor's address.
    IpCookie,
    /// Headers of the requests.
    Header,
}

/// What is said about sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AffinityAttributes {
    /// Of the cookie.
    #[serde(default)]
    pub samesite: SameSite,
    /// Of the cookie.
    #[serde(default)]
    pub secure: Secure,
    /// So long sessions stay at an origin that is switched off, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_whole")]
    pub drain_duration: Option<u32>,
    /// What becomes of a session whose origin fails.
    #[serde(default)]
    pub zero_downtime_failover: Failover,
    /// Which headers make a session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Box<str>>,
    /// Only all of them do.
    #[serde(default)]
    pub require_all_headers: bool,
}

/// Whether the cookie comes with requests that other sites cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SameSite {
    /// As fits.
    #[default]
    Auto,
    /// With links.
    Lax,
    /// With all.
    None,
    /// With none.
    Strict,
}

/// Whether the cookie comes over TLS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Secure {
    /// As the request did.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// What becomes of a session whose origin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failover {
    /// It fails, too.
    #[default]
    None,
    /// Others serve it meanwhile.
    Temporary,
    /// It is another one's from then on.
    Sticky,
}

/// The shares of pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RandomSteering {
    /// Of those that are not named.
    #[serde(default = "usual_weight", deserialize_with = "fraction")]
    pub default_weight: f64,
    /// Of these; what is said of pools that are none of the load balancer's has no effect.
    #[serde(default, deserialize_with = "weights")]
    pub pool_weights: BTreeMap<PoolId, f64>,
}

impl Default for RandomSteering {
    fn default() -> Self {
        Self { default_weight: usual_weight(), pool_weights: BTreeMap::new() }
    }
}

/// What happens to a request that an origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AdaptiveRouting {
    /// It may go to another pool.
    #[serde(default)]
    pub failover_across_pools: bool,
}

/// Whose place is the visitor's where DNS alone leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LocationStrategy {
    /// Without a better hint.
    #[serde(default)]
    pub mode: LocationMode,
    /// Whether the network that a resolver names is a better one.
    #[serde(default)]
    pub prefer_ecs: PreferEcs,
}

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocationMode {
    /// The PoP's.
    #[default]
    Pop,
    /// The resolver's.
    ResolverIp,
}

/// When the network that a resolver names counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreferEcs {
    /// Always.
    Always,
    /// Never.
    Never,
    /// With [`SteeringPolicy::Proximity`].
    #[default]
    Proximity,
    /// With [`SteeringPolicy::Geo`].
    Geo,
}

impl Steering {
    /// In one list.
    pub const MAX_POOLS: usize = 200;
    /// Countries are 249, and PoPs may be some more.
    pub const MAX_CODES: usize = 1000;
    /// Which make a session.
    pub const MAX_HEADERS: usize = 5;
    /// An hour.
    pub const MAX_DRAIN: u32 = 3600;

    /// The same in the one form in which it is kept, if it will do.
    pub(super) fn checked(mut self) -> Result<Self, BadTerms> {
        check_pools("default_pools", &self.default_pools)?;
        for (member, by_code) in [
            ("region_pools", &self.region_pools),
            ("country_pools", &self.country_pools),
            ("pop_pools", &self.pop_pools),
        ] {
            if by_code.len() > Self::MAX_CODES {
                return Err(BadTerms::of(member, format_args!("at most {} are possible", Self::MAX_CODES)));
            }
            for (code, pools) in by_code {
                check_code(member, code)?;
                check_pools(&format!("{member}.{code}"), pools)?;
            }
        }
        self.check_affinity()?;
        check_share("random_steering.default_weight", self.random_steering.default_weight, 1.0)?;
        for (pool, weight) in &self.random_steering.pool_weights {
            check_share(&format!("random_steering.pool_weights.{pool}"), *weight, 1.0)?;
        }
        Ok(self)
    }

    fn check_affinity(&mut self) -> Result<(), BadTerms> {
        let (usual, least, most) = match self.session_affinity {
            Affinity::None => (None, 30, 604_800),
            Affinity::Cookie | Affinity::IpCookie => (Some(82_800), 1800, 604_800),
            Affinity::Header => (Some(1800), 30, 3600),
        };
        self.session_affinity_ttl = self.session_affinity_ttl.or(usual);
        if let Some(ttl) = self.session_affinity_ttl {
            check_number("session_affinity_ttl", ttl, least, most)?;
        }
        let attributes = &self.session_affinity_attributes;
        let member = |name: &str| format!("session_affinity_attributes.{name}");
        check_number(&member("drain_duration"), attributes.drain_duration.unwrap_or_default(), 0, Self::MAX_DRAIN)?;
        if attributes.samesite == SameSite::None && attributes.secure == Secure::Never {
            return Err(BadTerms::of(member("secure"), "Auto or Always is wanted where samesite is None"));
        }
        let is_name = |name: &str| http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        // A cookie of a name may stand for a header.
        let is_header = |name: &str| is_name(name.strip_prefix("cookie:").unwrap_or(name));
        if attributes.headers.len() > Self::MAX_HEADERS || !attributes.headers.iter().all(|name| is_header(name)) {
            let problem = format_args!("at most {} names of headers are wanted", Self::MAX_HEADERS);
            return Err(BadTerms::of(member("headers"), problem));
        }
        if self.session_affinity == Affinity::Header && attributes.headers.is_empty() {
            return Err(BadTerms::of(member("headers"), "the headers that make a session are wanted"));
        }
        Ok(())
    }

    /// Every pool in it, perhaps more than once.
    pub(super) fn pools(&self) -> Vec<PoolId> {
        let by_code = [&self.region_pools, &self.country_pools, &self.pop_pools];
        let by_code = by_code.into_iter().flat_map(|by_code| by_code.values().flatten());
        self.default_pools.iter().chain([&self.fallback_pool]).chain(by_code).copied().collect()
    }
}

fn check_pools(member: &str, pools: &[PoolId]) -> Result<(), BadTerms> {
    let most = Steering::MAX_POOLS;
    if pools.is_empty() || pools.len() > most {
        return Err(BadTerms::of(member, format_args!("1 to {most} ids of pools are wanted, in order")));
    }
    match pools.iter().enumerate().find(|(at, pool)| pools[..*at].contains(pool)) {
        Some((_, twin)) => Err(BadTerms::of(member, format_args!("the pool {twin} is there twice"))),
        None => Ok(()),
    }
}

fn check_code(member: &str, code: &str) -> Result<(), BadTerms> {
    match member {
        "region_pools" => check_region(member, code),
        "country_pools" if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) => Err(BadTerms::of(
            member,
            format_args!("{code:?} is no country; two capital letters are wanted, such as DE"),
        )),
        "pop_pools" if !(1..=20).contains(&code.len()) || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Err(BadTerms::of(member, format_args!("{code:?} is no PoP; letters and digits are wanted, such as AMS")))
        }
        _ => Ok(()),
    }
}
