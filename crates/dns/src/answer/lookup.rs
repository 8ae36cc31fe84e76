//! Which records of a zone a name has (RFC 1034, section 4.3.2; RFC 4592). Pure.

use registry::{Hostname, LoadBalancer, RecordSet, RecordType, Zone};

use super::World;
use super::own::{self, Own};

/// How the registry calls the zone's own name within it.
pub(super) const APEX: &str = "@";

/// What is at a name.
pub(super) enum Found<'a> {
    /// Others answer for this name above it, or for it.
    Cut {
        /// The name within the zone.
        host: &'a str,
        /// With their names.
        set: &'a RecordSet,
    },
    /// A load balancer leads those who ask for addresses; these records stand beside it.
    Balancer(&'a LoadBalancer, Option<&'a RecordSet>),
    /// These, its own or a wildcard's.
    Records(&'a RecordSet),
    /// It is there, since something lies under it, and has nothing itself.
    Empty,
    /// It is one of the edge's own.
    Own(Own),
    /// There is no such name.
    Nothing,
}

/// Looks a name up that lies in the zone. The keys of a delegation are asked for above it.
pub(super) fn look_up<'a>(world: &World<'a>, zone: &'a Zone, host: &'a str, above_cut: bool) -> Found<'a> {
    let snapshot = world.snapshot;
    let balancer = |host: &str| {
        let name = Hostname::parse(&whole(host, &zone.name)).ok()?;
        let balancer = snapshot.load_balancer_named(zone.id, &name)?;
        balancer.terms.enabled.then_some(&balancer.value)
    };
    let has_balancer = |part: &str| {
        let name = whole(part, &zone.name);
        balancer(part).is_some() || snapshot.has_load_balancer_under(zone.id, &name)
    };
    if host == APEX {
        return match (balancer(host), snapshot.records_from(zone.id, host)) {
            (Some(balancer), set) => {
                Found::Balancer(balancer, set.map(|set| &set.value).filter(|set| *set.host == *APEX))
            }
            (None, Some(set)) if *set.host == *APEX => Found::Records(set),
            _ => Found::Empty,
        };
    }
    // From the last label on, until there is nothing any more.
    let mut encloser = APEX;
    for part in ends(host) {
        let next = snapshot.records_from(zone.id, part);
        let exact = next.filter(|set| *set.host == *part);
        if let Some(set) = exact {
            let is_cut = set.records.iter().any(|record| record.content.kind() == RecordType::Ns);
            if is_cut && !part.starts_with("*") && !(above_cut && part == host) {
                return Found::Cut { host: part, set };
            }
            if part == host {
                return balancer(host)
                    .map_or(Found::Records(set), |balancer| Found::Balancer(balancer, Some(&set.value)));
            }
        } else if !next.is_some_and(|set| lies_under(&set.host, part)) && !has_balancer(part) {
            break;
        } else if part == host {
            return balancer(host).map_or(Found::Empty, |balancer| Found::Balancer(balancer, None));
        }
        encloser = part;
    }
    if let Some(own) = own::find(world, zone, host, &whole(host, &zone.name)) {
        return Found::Own(own);
    }
    let wildcard = if encloser == APEX { "*".to_owned() } else { format!("*.{encloser}") };
    let set = snapshot.records_from(zone.id, &wildcard).filter(|set| *set.host == *wildcard);
    match (balancer(&wildcard), set) {
        (Some(balancer), set) => Found::Balancer(balancer, set.map(|set| &set.value)),
        (None, Some(set)) => Found::Records(set),
        (None, None) => Found::Nothing,
    }
}

/// A name as the zone's entries have it; `None` if it is outside of the zone.
pub(super) fn host_within<'a>(name: &'a str, zone: &Hostname) -> Option<&'a str> {
    let rest = name.strip_suffix(zone.as_str())?;
    if rest.is_empty() { Some(APEX) } else { rest.strip_suffix('.') }
}

/// The whole name of one within a zone.
pub(super) fn whole(host: &str, zone: &Hostname) -> Box<str> {
    if host == APEX { zone.as_str().into() } else { format!("{host}.{zone}").into() }
}

/// The last label of a name, its last two labels, and so on to the whole.
fn ends(host: &str) -> impl Iterator<Item = &str> {
    let dots = host.rmatch_indices('.').map(|(dot, _)| dot + 1);
    dots.chain([0]).map(|from| &host[from..])
}

fn lies_under(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}
