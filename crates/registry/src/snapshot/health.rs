//! What is known of pools' health.

use std::sync::Arc;

use crate::balance::{Link, MemberHealth, PoolHealth, PoolReport, agreed, unasked};
use crate::{MemberId, NodeId, Origin, Pool, PoolId, Snapshot};

impl Snapshot {
    /// What is known of a pool right now; `None`: there is no such pool.
    pub fn health(&self, pool: PoolId) -> Option<PoolHealth> {
        let pool = self.pool(pool)?;
        Some(self.health_by(pool, &self.members(pool.id), &self.reports_in_force(pool)))
    }

    /// The same as far as the nodes of one PoP find out.
    pub fn health_at(&self, pool: PoolId, location: &str) -> Option<PoolHealth> {
        let pool = self.pool(pool)?;
        let is_there = |node: NodeId| self.node(node).is_some_and(|node| node.location == location);
        let reports: Vec<_> = self.reports_in_force(pool).into_iter().filter(|(node, _)| is_there(*node)).collect();
        Some(self.health_by(pool, &self.members(pool.id), &reports))
    }

    /// The same if nobody but this report said anything.
    pub fn health_if(&self, pool: &Pool, report: PoolReport) -> PoolHealth {
        // It may be another configuration of the pool than the snapshot's.
        let ids: Vec<_> = pool.members().map(|(id, _)| id).collect();
        self.health_by(pool, &ids, &[(NodeId::from_bytes([0; 16]), Arc::new(report))])
    }

    fn health_by(&self, pool: &Pool, ids: &[MemberId], reports: &[(NodeId, Arc<PoolReport>)]) -> PoolHealth {
        let members = ids.iter().zip(&pool.terms.origins);
        let members: Vec<_> = members.map(|(id, origin)| self.member_health(*id, origin, reports)).collect();
        let origins = pool.terms.origins.iter().zip(&members);
        let well = origins.filter(|(origin, member)| origin.enabled && member.is_well()).count();
        let is_healthy = pool.terms.enabled && well >= pool.terms.minimum_origins as usize;
        PoolHealth { is_healthy, members }
    }

    /// Without a monitor, what was said before does not count.
    fn reports_in_force(&self, pool: &Pool) -> Vec<(NodeId, Arc<PoolReport>)> {
        if pool.terms.monitor.is_none() {
            return Vec::new();
        }
        self.health_reports(pool.id).map(|(node, report)| (node, report.clone())).collect()
    }

    fn member_health(&self, id: MemberId, origin: &Origin, reports: &[(NodeId, Arc<PoolReport>)]) -> MemberHealth {
        let link = origin.tunnel().map(|tunnel| {
            let (is_up, activity) = (self.is_connected(tunnel), self.activity(tunnel));
            let since = activity.and_then(|seen| if is_up { Some(seen.active_at) } else { seen.inactive_at });
            Link { is_up, since }
        });
        let probe = agreed(id, reports);
        let unasked = if probe.is_none() { unasked(id, reports) } else { None };
        MemberHealth { id, link, probe, unasked }
    }
}
