//! What is known of pools' health, as JSON has it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use registry::{MemberHealth, Origin, Pool, PoolHealth, PoolId, Snapshot};
use serde::Serialize;

/// A pool's health, as each PoP finds it out.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    pool_id: PoolId,
    pop_health: BTreeMap<String, Found<'a>>,
}

/// What one PoP finds out.
#[derive(Serialize)]
pub(super) struct Found<'a> {
    healthy: bool,
    /// Each under its address.
    origins: Vec<BTreeMap<&'a str, ShownMember>>,
}

#[derive(Serialize)]
struct ShownMember {
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    failure_reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_code: Option<u16>,
    /// Whether its tunnel has a connection; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'static str>,
    /// Whether it answers as its monitor wants; ours.
    probe: &'static str,
    /// Since when it is, or is not, healthy; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

/// Those PoPs are there that have found something out; of tunnels, whose state all know, this one (`here`) tells if nobody else does.
pub(super) fn shown<'a>(pool: &'a Pool, snapshot: &Snapshot, here: &str) -> Shown<'a> {
    let reports = snapshot.health_reports(pool.id).filter_map(|(node, _)| snapshot.node(node));
    let mut pops: BTreeSet<String> = reports.map(|node| node.location.clone()).collect();
    let is_linked = pool.terms.origins.iter().any(|origin| origin.tunnel().is_some());
    if pops.is_empty() && is_linked {
        pops.insert(here.to_owned());
    }
    let found = |pop: String| {
        let health = snapshot.health_at(pool.id, &pop)?;
        Some((pop, Found::new(pool, &health)))
    };
    Shown { pool_id: pool.id, pop_health: pops.into_iter().filter_map(found).collect() }
}

impl<'a> Found<'a> {
    pub(super) fn new(pool: &'a Pool, health: &PoolHealth) -> Self {
        let origins = pool.terms.origins.iter().zip(&health.members);
        let shown = |(origin, member): (&'a Origin, &MemberHealth)| {
            BTreeMap::from([(&*origin.address, ShownMember::new(member))])
        };
        Self { healthy: health.is_healthy, origins: origins.map(shown).collect() }
    }
}

impl ShownMember {
    fn new(member: &MemberHealth) -> Self {
        let word = |is_up| if is_up { "up" } else { "down" };
        let probe = member.probe.as_ref();
        Self {
            healthy: member.is_well(),
            rtt: probe.and_then(|probe| probe.time).map(|time| format!("{}ms", time.as_millis())),
            failure_reason: member.reason().or(member.unasked.as_deref()).unwrap_or("No failures").to_owned(),
            response_code: probe.and_then(|probe| probe.code),
            link: member.link.map(|link| word(link.is_up)),
            probe: probe.map_or("unknown", |probe| word(probe.is_up)),
            since: member.since(),
        }
    }
}
