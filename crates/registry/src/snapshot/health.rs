//! What is known of pools' health.

use std::sync::Arc;

use crate::balance::{Link, MemberHealth, PoolHealth, PoolReport, agreed};
use crate::{MemberId, NodeId, Origin, Pool, PoolId, Snapshot};

impl Snapshot {
    /// What is known of a pool right now; `None`: there is no such pool.
    pub fn health(&self, pool: PoolId) -> Option<PoolHealth> {
        let pool = &self.pool(pool)?.value;
        let reports = self.reports_in_force(pool);
        let members: Vec<_> = pool.members().map(|(id, origin)| self.member_health(id, origin, &reports)).collect();
        let origins = pool.terms.origins.iter().zip(&members);
        let well = origins.filter(|(origin, member)| origin.enabled && member.is_well()).count();
        let is_healthy = pool.terms.enabled && well >= pool.terms.minimum_origins as usize;
        Some(PoolHealth { is_healthy, members })
    }

    /// The same as only one node reports it.
    pub fn health_as_of(&self, pool: PoolId, node: NodeId, report: &Arc<PoolReport>) -> Option<PoolHealth> {
        let pool = &self.pool(pool)?.value;
        let reports = [(node, report.clone())];
        let members: Vec<_> = pool.members().map(|(id, origin)| self.member_health(id, origin, &reports)).collect();
        let well = members.iter().filter(|member| member.is_well()).count();
        Some(PoolHealth { is_healthy: well >= pool.terms.minimum_origins as usize, members })
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
        MemberHealth { id, link, probe: agreed(id, reports) }
    }
}
