//! The agent's numbers, under the names that people chart today (section 15.2), and the endpoint that shows them.

mod quic;
mod rpc;
mod serve;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::event::Status;
use quic::Quic;
pub(crate) use rpc::{Calls, Method};
pub use serve::listen;
pub(crate) use serve::{Facts, serve};

/// All that a status can be (`http::StatusCode`): three digits, the first of which is not zero.
const FIRST_STATUS: usize = 100;
const STATUSES: usize = 900;

/// Counters and gauges of one agent.
pub(crate) struct Metrics {
    registry: Registry,
    scraping: Mutex<()>,
    ha_connections: IntGauge,
    server_locations: IntGaugeVec,
    pub(crate) total_requests: IntCounter,
    pub(crate) concurrent_requests: IntGauge,
    response_by_code: IntCounterVec,
    /// Answers by status, from 100: looking a label up takes longer than all the rest of counting.
    answers: Box<[AtomicU64; STATUSES]>,
    pub(crate) request_errors: IntCounter,
    pub(crate) tcp_active_sessions: IntGauge,
    pub(crate) tcp_total_sessions: IntCounter,
    pub(crate) udp_active_sessions: IntGauge,
    pub(crate) udp_total_sessions: IntCounter,
    pub(crate) udp_dropped: IntCounterVec,
    pub(crate) register_success: IntCounterVec,
    pub(crate) register_fail: IntCounterVec,
    pub(crate) user_hostnames: IntCounterVec,
    pub(crate) config_version: IntGauge,
    pub(crate) config_pushes: IntCounter,
    pub(crate) config_push_errors: IntCounter,
    pub(crate) rpc_client: Calls,
    pub(crate) rpc_server: Calls,
    quic: Quic,
}

impl Metrics {
    pub(crate) fn new(version: &str) -> Self {
        let registry = Registry::new();
        let gauge = |name, help| registered(&registry, gauge(name, help));
        let counter = |name, help| registered(&registry, counter(name, help));
        let counter_vec = |name, help, labels| registered(&registry, counter_vec(name, help, labels));
        let gauge_vec = |name, help, labels| registered(&registry, gauge_vec(name, help, labels));
        let build = ["goversion", "type", "revision", "version"];
        let build = gauge_vec("build_info", "Build and version information", &build);
        build.with_label_values(&["", "", "", version]).set(1);
        let metrics = Self {
            ha_connections: gauge("cloudflared_tunnel_ha_connections", "Registered connections"),
            server_locations: gauge_vec(
                "cloudflared_tunnel_server_locations",
                "Where each connection landed",
                &["connection_id", "edge_location"],
            ),
            total_requests: counter("cloudflared_tunnel_total_requests", "Requests that arrived"),
            concurrent_requests: gauge("cloudflared_tunnel_concurrent_requests_per_tunnel", "Requests under way"),
            tcp_active_sessions: gauge("cloudflared_tcp_active_sessions", "Byte streams under way"),
            tcp_total_sessions: counter("cloudflared_tcp_total_sessions", "Byte streams so far"),
            udp_active_sessions: gauge("cloudflared_udp_active_sessions", "Flows of datagrams under way"),
            udp_total_sessions: counter("cloudflared_udp_total_sessions", "Flows of datagrams so far"),
            udp_dropped: counter_vec("cloudflared_udp_dropped_datagrams", "Datagrams dropped, by reason", &["reason"]),
            response_by_code: counter_vec(
                "cloudflared_tunnel_response_by_code",
                "Answers of origins by status",
                &["status_code"],
            ),
            request_errors: counter("cloudflared_tunnel_request_errors", "Requests that got no answer from the origin"),
            register_success: counter_vec(
                "cloudflared_tunnel_tunnel_register_success",
                "Registrations accepted",
                &["rpcName"],
            ),
            register_fail: counter_vec(
                "cloudflared_tunnel_tunnel_register_fail",
                "Registrations refused",
                &["error", "rpcName"],
            ),
            user_hostnames: counter_vec(
                "cloudflared_tunnel_user_hostnames_counts",
                "Hostnames served",
                &["userHostname"],
            ),
            config_version: gauge("cloudflared_orchestration_config_version", "Version of the configuration in force"),
            config_pushes: counter(
                "cloudflared_config_local_config_pushes",
                "Reports of the local configuration to the edge",
            ),
            config_push_errors: counter(
                "cloudflared_config_local_config_pushes_errors",
                "Reports of the local configuration that failed",
            ),
            rpc_client: Calls::new(&registry, "client"),
            rpc_server: Calls::new(&registry, "server"),
            quic: Quic::new(&registry),
            answers: Box::new([const { AtomicU64::new(0) }; STATUSES]),
            scraping: Mutex::default(),
            registry,
        };
        metrics.config_version.set(-1);
        for reason in ["full", "too_large", "origin", "refused"] {
            // So that a chart begins at zero.
            metrics.udp_dropped.with_label_values(&[reason]);
        }
        metrics
    }

    /// An origin has answered.
    pub(crate) fn answered(&self, status: StatusCode) {
        if let Some(count) = self.answers.get(usize::from(status.as_u16()).wrapping_sub(FIRST_STATUS)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A QUIC connection is registered: its statistics are shown from now on.
    pub(crate) fn quic_opened(&self, index: u8, connection: quinn::Connection) {
        self.quic.opened(index, connection);
    }

    pub(crate) fn quic_ended(&self, index: u8) {
        self.quic.ended(index);
    }

    /// Everything in the text format of Prometheus. What stands is read from where it stands, so it cannot drift.
    fn text(&self, status: &Status) -> Result<String, prometheus::Error> {
        // Two scrapers must not see each other's half-filled table.
        let _one = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        self.quic.update();
        self.ha_connections.set(i64::try_from(status.connections.len()).unwrap_or(i64::MAX));
        for (status, answers) in (FIRST_STATUS..).zip(self.answers.iter()) {
            let answers = answers.load(Ordering::Relaxed);
            if answers > 0 {
                let shown = self.response_by_code.with_label_values(&[&status.to_string()]);
                shown.inc_by(answers.saturating_sub(shown.get()));
            }
        }
        self.server_locations.reset();
        for connection in &status.connections {
            let index = connection.index.to_string();
            self.server_locations.with_label_values(&[index.as_str(), connection.location.as_str()]).set(1);
        }
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect("each name is used once, in this module");
    metric
}

const VALID: &str = "names and labels in this module are valid";

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(VALID)
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(VALID)
}

fn gauge_vec(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn counter_vec(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}
