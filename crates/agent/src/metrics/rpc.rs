use std::future::Future;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Registry};
use tokio::time::Instant;

use super::{VALID, counter_vec, registered};

/// A method of the RPC between agent and edge, as the labels `handler` and `method`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method([&'static str; 2]);

impl Method {
    pub(crate) const REGISTER: Self = Self(["registration", "register_connection"]);
    pub(crate) const UNREGISTER: Self = Self(["registration", "unregister_connection"]);
    pub(crate) const LOCAL_CONFIGURATION: Self = Self(["registration", "update_local_configuration"]);
    pub(crate) const CONFIGURATION: Self = Self(["config", "update_configuration"]);
}

/// One side's calls.
pub(crate) struct Calls {
    operations: IntCounterVec,
    failures: IntCounterVec,
    latency: HistogramVec,
}

impl Calls {
    /// `side` is a part of the names: `client`, `server`.
    pub(super) fn new(registry: &Registry, side: &str) -> Self {
        let labels = ["handler", "method"];
        let name = |what| format!("cloudflared_rpc_{side}_{what}");
        let latency = HistogramOpts::new(name("latency_secs"), "Time that calls took in seconds");
        // The reference's steps, so that charts of both agree.
        let latency = latency.buckets(vec![0.05, 0.15, 0.45, 1.35, 4.05]);
        Self {
            operations: registered(registry, counter_vec(&name("operations"), "Calls", &labels)),
            failures: registered(registry, counter_vec(&name("failures"), "Calls that failed", &labels)),
            latency: registered(registry, HistogramVec::new(latency, &labels).expect(VALID)),
        }
    }

    /// Counts a call, and how long it took. One that is given up is not counted.
    pub(crate) async fn observe<T, E>(&self, method: Method, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let started = Instant::now();
        let outcome = call.await;
        self.latency.with_label_values(&method.0).observe(started.elapsed().as_secs_f64());
        self.operations.with_label_values(&method.0).inc();
        if outcome.is_err() {
            self.failures.with_label_values(&method.0).inc();
        }
        outcome
    }
}
