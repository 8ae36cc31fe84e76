//! Which pool a visitor is led to. Pure.

use geo::Place;
use registry::SteeringPolicy;

use super::hash::{Lot, Random, choose};
use crate::plan::Plan;
use crate::visitor::Visitor;

/// The pools that are there for this visitor, in order.
pub(super) fn named<'a>(plan: &'a Plan, visitor: &Visitor<'_>) -> &'a [usize] {
    let by_place = || {
        let pop = visitor.pop.to_ascii_uppercase();
        // `AMS` is for all of `ams1`, `ams2`, ….
        let city = pop.trim_end_matches(|c: char| c.is_ascii_digit());
        let by_pop = plan.by_pop.get(&*pop).or_else(|| plan.by_pop.get(city));
        let by_country = || visitor.country.and_then(|country| plan.by_country.get(country));
        let by_region = || {
            let own = visitor.region.and_then(|region| plan.by_region.get(region));
            own.or_else(|| plan.by_region.get(ALL_REGIONS))
        };
        by_pop.or_else(by_country).or_else(by_region)
    };
    let chosen = if plan.policy == SteeringPolicy::Geo { by_place() } else { None };
    chosen.unwrap_or(&plan.default)
}

/// The code of all regions.
const ALL_REGIONS: &str = "ALL_REGIONS";

/// The one of these that the policy prefers; of equals the first. A visitor with a key, which makes its session, has the same as
/// long as that is there, but where the policy goes by what is measured.
pub(super) fn best(
    plan: &Plan,
    mut left: impl Iterator<Item = usize>,
    key: Option<u64>,
    from: Option<Place>,
    random: &mut Random,
) -> Option<usize> {
    let pool = |at: usize| &plan.pools[at];
    let weighed = |load: fn(&crate::vitals::PoolVitals) -> u32| {
        move |at: usize| {
            let load = if key.is_some() { 0 } else { load(&pool(at).vitals) };
            (at, pool(at).weight / (f64::from(load) + 1.0), pool(at).key)
        }
    };
    let lot = |random| key.map_or(Lot::Random(random), Lot::Key);
    match plan.policy {
        SteeringPolicy::Usual | SteeringPolicy::Off | SteeringPolicy::Geo => left.next(),
        SteeringPolicy::Random => choose(lot(random), left.map(weighed(|_| 0))),
        SteeringPolicy::LeastOutstandingRequests => {
            choose(lot(random), left.map(weighed(|vitals| vitals.outstanding())))
        }
        SteeringPolicy::LeastConnections => choose(lot(random), left.map(weighed(|vitals| vitals.open()))),
        // Whoever is unknown comes after all others.
        SteeringPolicy::DynamicLatency => least(left, |at| Some(pool(at).vitals.latency()?.as_secs_f64())),
        SteeringPolicy::Proximity => least(left, |at| Some(from?.distance(pool(at).place?))),
    }
}

fn least(left: impl Iterator<Item = usize>, measure: impl Fn(usize) -> Option<f64>) -> Option<usize> {
    let measured = left.map(|at| (at, measure(at).unwrap_or(f64::INFINITY)));
    measured.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(at, _)| at)
}
