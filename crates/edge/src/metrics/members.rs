//! What is counted of load balancers' members, in the text form of Prometheus.

use balance::Board;
use jiff::Timestamp;
use prometheus::core::{AtomicU64, GenericCounterVec};
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};
use registry::Snapshot;

/// Each has two lines of its own; those of later pools are not told.
const MOST: usize = 2_000;

/// Requests answered here, and health, of each member. They go by their ids: whoever reads metrics has shown no token, and is not to learn
/// what is called how, or where it is.
pub(crate) fn text(board: &Board, snapshot: &Snapshot) -> String {
    let labels = ["pool", "member"];
    let answered = Opts::new("snicket_edge_member_requests_total", "Requests that a pool's member answered");
    let answered = GenericCounterVec::<AtomicU64>::new(answered, &labels).expect("the name is valid");
    let is_well = Opts::new("snicket_edge_member_healthy", "Whether a pool's member is well, as all nodes know it");
    let is_well = IntGaugeVec::new(is_well, &labels).expect("the name is valid");
    let pools = snapshot.pools().filter_map(|pool| Some((pool.id, snapshot.health(pool.id)?.members)));
    let members = pools.flat_map(|(pool, members)| members.into_iter().map(move |member| (pool, member)));
    let now = Timestamp::now();
    for (pool, member) in members.take(MOST) {
        let labels = [&*pool.to_string(), &*member.id.to_string()];
        answered.with_label_values(&labels).inc_by(board.answered(member.id, now).all);
        is_well.with_label_values(&labels).set(member.is_well().into());
    }
    let registry = Registry::new();
    registry.register(Box::new(answered)).expect("the names differ");
    registry.register(Box::new(is_well)).expect("the names differ");
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default()
}
