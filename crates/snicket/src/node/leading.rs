//! Where load balancers' names lead those who ask by DNS: to the members to which the edge itself would lead them.

use std::sync::Arc;

use balance::{Board, Visitor};
use dns::{Asker, Lead, Member, Members};
use http::HeaderMap;
use jiff::Timestamp;
use registry::{LoadBalancer, Snapshot};

/// Seconds for which an answer may be kept where the load balancer says nothing about it.
const TTL: u32 = 30;

/// By what this node knows of all members.
pub(super) struct Leading {
    pub(super) board: Arc<Board>,
    pub(super) location: String,
}

impl Members for Leading {
    fn lead(&self, balancer: &LoadBalancer, snapshot: &Snapshot, asker: &Asker) -> Lead {
        let Some(balancer) = snapshot.load_balancer(balancer.id) else { return Lead::default() };
        let plan = self.board.plan(snapshot, balancer);
        let visitor = Visitor {
            address: asker.subnet.map_or(asker.address, |subnet| subnet.address),
            pop: &self.location,
            country: None,
            region: None,
            place: None,
            headers: &HeaderMap::new(),
        };
        let mut walk = plan.walk(&visitor, Timestamp::now(), rand::random());
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
            let place = match &member.target {
                balance::Target::Address(address, port) => Some((address.to_string().into(), *port)),
                balance::Target::Name(name, port) => Some((name.clone(), *port)),
                balance::Target::Tunnel(_) => None,
            };
            members.extend(place.map(|(address, port)| Member { address, port, weight: 1 }));
        }
        Lead { members, ttl: balancer.terms.ttl.unwrap_or(TTL), scope: None }
    }
}
