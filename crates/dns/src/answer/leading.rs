//! Where a load balancer's name leads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use registry::{Hostname, LoadBalancer, Snapshot};

use super::{A, AAAA, MAX_ADDRESSES, SRV};
use crate::name::to_wire;
use crate::options::Subnet;

/// Tells where load balancers lead, which the registry alone does not say. Called for each answer; never waits.
pub trait Members: Send + Sync {
    /// Where the visitors of this load balancer's name are to go now, the best first.
    fn lead(&self, balancer: &LoadBalancer, snapshot: &Snapshot, asker: &Asker) -> Lead;
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Whose packet it is: a resolver, as a rule.
    pub address: IpAddr,
    /// For whom it asks, if it says so (RFC 7871). Anybody can say anything.
    pub subnet: Option<Subnet>,
}

/// Where visitors are to go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lead {
    /// The best first.
    pub members: Vec<Member>,
    /// For how long, in seconds.
    pub ttl: u32,
    /// For how many bits of the asker's subnet this is the same; `None`: whoever asks, so that nothing is said of it.
    pub scope: Option<u8>,
    /// It does not depend on who asks.
    pub is_for_all: bool,
}

/// One place where visitors are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// An IP address, or a host name.
    pub address: Box<str>,
    /// 0: as the service has it.
    pub port: u16,
    /// Its share among those of the same rank, up to 65535.
    pub weight: u16,
}

impl Lead {
    /// The data of records of this type.
    pub(super) fn data(&self, kind: u16, name: &Hostname) -> Vec<Vec<u8>> {
        let members = self.members.iter().take(MAX_ADDRESSES);
        let data = members.filter_map(|member| match kind {
            A => Some(member.address.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
            AAAA => Some(member.address.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
            SRV if member.port != 0 => {
                let numbers = [0, member.weight, member.port].into_iter().flat_map(u16::to_be_bytes);
                Some(numbers.chain(to_wire(member.host().unwrap_or(name.as_str()))).collect())
            }
            _ => None,
        });
        let mut unique = Vec::new();
        for data in data {
            if !unique.contains(&data) {
                unique.push(data);
            }
        }
        unique
    }

    /// The name that this one is an alias of, if it leads to one.
    pub(super) fn alias(&self) -> Option<&str> {
        self.members.first()?.host()
    }
}

impl Member {
    fn host(&self) -> Option<&str> {
        let is_address = self.address.parse::<IpAddr>().is_ok();
        (!is_address).then_some(&*self.address)
    }
}

/// Leads to all that is configured, healthy or not: the first pool that is enabled and has any origin that is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unchecked;

impl Members for Unchecked {
    fn lead(&self, balancer: &LoadBalancer, snapshot: &Snapshot, _asker: &Asker) -> Lead {
        let steering = &balancer.terms.steering;
        let pools = steering.default_pools.iter().chain([&steering.fallback_pool]).filter_map(|id| snapshot.pool(*id));
        let pools = pools.filter(|pool| pool.terms.enabled);
        let of_pool = |pool: &registry::Pool| -> Vec<Member> {
            let origins = pool.terms.origins.iter().filter(|origin| origin.enabled);
            let member =
                |origin: &registry::Origin| Member { address: origin.address.clone(), port: origin.port, weight: 1 };
            origins.map(member).collect()
        };
        let members = pools.map(|pool| of_pool(pool)).find(|members| !members.is_empty()).unwrap_or_default();
        Lead { members, ttl: balancer.terms.ttl.unwrap_or(30), scope: None, is_for_all: true }
    }
}
