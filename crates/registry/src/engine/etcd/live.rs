use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::fault::Fault;
use super::layout::Layout;
use super::members::Repeat;
use super::message::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRequest, LeaseRevokeResponse, TxnResponse,
};
use super::transaction::{live_request, live_verdict};
use super::{Cluster, TXN, unavailable, uncommitted};
use crate::EngineError;
use crate::engine::{Feed, Guard, Lease, LeaseError, Live, Revision, State, Write};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
/// A stream of questions and answers; one question, after which our half ends, makes it an ordinary call.
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// Leases of etcd's own, and the entries under them.
pub(super) struct EtcdLive {
    cluster: Arc<Cluster>,
    layout: Layout,
}

impl EtcdLive {
    pub(super) fn new(cluster: Arc<Cluster>, layout: Layout) -> Self {
        Self { cluster, layout }
    }
}

impl Live for EtcdLive {
    fn grant(&self, life: Duration) -> BoxFuture<'_, Result<Lease, EngineError>> {
        Box::pin(async move {
            let seconds = life.as_millis().div_ceil(1000);
            let request = LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX) };
            // One that nobody heard of ends by itself.
            let answer: Result<LeaseGrantResponse, _> =
                self.cluster.members.call(GRANT, &request, Repeat::Always).await;
            let answer = answer.map_err(unavailable)?;
            match u64::try_from(answer.id) {
                Ok(id) if id > 0 && answer.error.is_empty() => Ok(Lease(id)),
                _ => Err(EngineError::Refused(format!("it gives no lease: {}", answer.error))),
            }
        })
    }

    fn renew(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            let request = LeaseRequest { id: number(lease) };
            let answer: Result<LeaseKeepAliveResponse, _> =
                self.cluster.members.call(KEEP_ALIVE, &request, Repeat::Always).await;
            match answer {
                Ok(answer) if answer.ttl > 0 => Ok(()),
                Ok(_) | Err(Fault::NoLease) => Err(LeaseError::Ended),
                Err(fault) => Err(unavailable(fault).into()),
            }
        })
    }

    fn revoke(&self, lease: Lease) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let request = LeaseRequest { id: number(lease) };
            let answer: Result<LeaseRevokeResponse, _> =
                self.cluster.members.call(REVOKE, &request, Repeat::Always).await;
            match answer {
                Ok(_) | Err(Fault::NoLease) => Ok(()),
                Err(fault) => Err(unavailable(fault)),
            }
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(self.cluster.load(&self.layout))
    }

    fn commit(
        &self,
        lease: Lease,
        guards: Vec<Guard>,
        writes: Vec<Write>,
    ) -> BoxFuture<'_, Result<Revision, LeaseError>> {
        Box::pin(async move {
            let request = live_request(&self.layout, number(lease), &guards, &writes);
            let answer: Result<TxnResponse, _> = self.cluster.members.call(TXN, &request, Repeat::IfUntaken).await;
            match answer {
                Ok(answer) => Ok(live_verdict(&guards, &answer)?),
                Err(Fault::NoLease) => Err(LeaseError::Ended),
                Err(fault) => Err(uncommitted(fault, &request).into()),
            }
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        self.cluster.follow(&self.layout, after)
    }
}

/// As etcd has it; it gave it, so it fits.
fn number(lease: Lease) -> i64 {
    i64::try_from(lease.0).unwrap_or(i64::MAX)
}
