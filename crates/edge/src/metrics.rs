pub(crate) mod members;

use std::sync::OnceLock;
use std::time::Duration;

use certs::acme::Tally;
use prometheus::core::{AtomicU64, GenericCounter, GenericCounterVec};
use prometheus::{Encoder as _, Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use wire::Transport;

use crate::defence::Defence;
use crate::dispatch::Retry;

type Counters = GenericCounterVec<AtomicU64>;
type Counter = GenericCounter<AtomicU64>;

/// From what a loopback origin needs to what the time limit allows, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0, 100.0];

/// One more than the highest status that has a meaning.
const STATUSES: usize = 600;

/// What the node counts; Prometheus reads it at `/metrics` of the API's address.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Counters,
    /// Those of each status below 600 that has been answered, as finding one by its label costs more than counting.
    statuses: Box<[OnceLock<Counter>]>,
    refusals: Counters,
    retries: Counters,
    defences: Counters,
    registrations: Counters,
    under_way: IntGauge,
    visitors: IntGauge,
    connections: IntGaugeVec,
    answer_time: Histogram,
    streams: Counters,
    flows: Counters,
    open_flows: IntGauge,
    /// Towards origins, and back.
    datagrams: [GenericCounter<AtomicU64>; 2],
    losses: Counters,
    lost_packets: Counter,
    certificates: Counters,
    tasks: IntGauge,
    known_networks: IntGauge,
    /// What runs beside the edge says this of itself.
    others: OnceLock<OtherMetrics>,
}

/// Writes metrics in the text form of Prometheus.
pub(crate) type OtherMetrics = Box<dyn Fn() -> String + Send + Sync>;

/// How the connection of a public port's visitor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// Both ways in order.
    Ended,
    /// One of the three parties left.
    Cut,
    /// No byte went either way for too long.
    Idle,
    /// The agent could not connect it.
    Failed,
    /// There was no connector to carry it.
    NoConnector,
}

impl StreamEnd {
    const ALL: [Self; 5] = [Self::Ended, Self::Cut, Self::Idle, Self::Failed, Self::NoConnector];

    fn label(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Cut => "cut",
            Self::Idle => "idle",
            Self::Failed => "failed",
            Self::NoConnector => "no_connector",
        }
    }
}

/// How a flow of a public port's visitor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowEnd {
    /// No datagram went either way for too long, as all flows end at last.
    Idle,
    /// Another visitor's took its room, before its own visitor had shown that answers reach it.
    Displaced,
    /// The port closed, was given away or closed to this visitor, or the node stopped.
    Closed,
    /// The agent could not open it.
    Failed,
    /// There was no connector to carry it.
    NoConnector,
}

impl FlowEnd {
    const ALL: [Self; 5] = [Self::Idle, Self::Displaced, Self::Closed, Self::Failed, Self::NoConnector];

    fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Displaced => "displaced",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::NoConnector => "no_connector",
        }
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The flow's queue at its port was full.
    Queue,
    /// The tunnel had no room, at either end's side of the edge.
    Full,
    /// It was too large for the tunnel.
    TooLarge,
    /// The flow leads nowhere just then.
    NoWay,
    /// It would have been more than is answered to a visitor who has not shown that answers reach it.
    Unproven,
    /// The system did not send it to the visitor.
    Visitor,
}

impl Loss {
    const ALL: [Self; 6] = [Self::Queue, Self::Full, Self::TooLarge, Self::NoWay, Self::Unproven, Self::Visitor];

    fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::NoWay => "no_way",
            Self::Unproven => "unproven",
            Self::Visitor => "visitor",
        }
    }
}

/// Counts something as long as it lives.
pub(crate) struct Present(IntGauge);

impl Present {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::new(),
            requests: counters("snicket_edge_requests_total", "Requests answered, by status.", "status"),
            statuses: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            refusals: counters(
                "snicket_edge_refusals_total",
                "Requests that the edge itself refused, by code.",
                "code",
            ),
            retries: counters(
                "snicket_edge_retries_total",
                "Requests that were sent again over a connection of an agent, by why.",
                "why",
            ),
            defences: counters(
                "snicket_edge_defences_total",
                "Connections of visitors, agents and callers of the API that were refused or ended in defence of the others, by reason.",
                "reason",
            ),
            registrations: counters(
                "snicket_edge_registrations_total",
                "Registrations of connections, by result.",
                "result",
            ),
            streams: counters(
                "snicket_edge_streams_total",
                "Connections of visitors of public ports that have ended, by how.",
                "end",
            ),
            flows: counters("snicket_edge_flows_total", "Flows of public ports that have ended, by how.", "end"),
            open_flows: gauge("snicket_edge_flows", "Flows of datagrams under way."),
            datagrams: [
                counter("snicket_edge_datagrams_in_total", "Datagrams that came from visitors of public ports."),
                counter("snicket_edge_datagrams_out_total", "Datagrams that went to visitors of public ports."),
            ],
            losses: counters(
                "snicket_edge_dropped_datagrams_total",
                "Datagrams of public ports that were dropped, by reason.",
                "reason",
            ),
            lost_packets: counter(
                "snicket_edge_lost_quic_packets_total",
                "Packets of QUIC that came and were lost, since more waited for their turns than there is room for.",
            ),
            certificates: counters(
                "snicket_edge_certificates_total",
                "Orders of certificates at a public authority that have ended on this node, by result.",
                "result",
            ),
            tasks: gauge("snicket_edge_tasks", "Tasks of the whole program."),
            known_networks: gauge(
                "snicket_edge_known_networks",
                "Networks (/24, /48) whose visitors have been served of late, or that agents or callers of the API with a token are in.",
            ),
            others: OnceLock::new(),
            under_way: gauge("snicket_edge_requests_under_way", "Requests and WebSockets under way."),
            visitors: gauge("snicket_edge_visitor_connections", "Open connections of visitors."),
            connections: IntGaugeVec::new(
                Opts::new("snicket_edge_tunnel_connections", "Registered connections of agents, by transport."),
                &["transport"],
            )
            .expect("name and label are valid"),
            answer_time: Histogram::with_opts(
                HistogramOpts::new("snicket_edge_answer_seconds", "Time from a request's header to its answer's.")
                    .buckets(BUCKETS.to_vec()),
            )
            .expect("name and buckets are valid"),
        };
        metrics.register();
        for defence in Defence::ALL {
            // So that a chart begins at zero, and not with the first attack.
            metrics.defences.with_label_values(&[defence.label()]);
        }
        for why in Retry::ALL {
            metrics.retries.with_label_values(&[why.label()]);
        }
        for end in FlowEnd::ALL {
            metrics.flows.with_label_values(&[end.label()]);
        }
        for loss in Loss::ALL {
            metrics.losses.with_label_values(&[loss.label()]);
        }
        for end in StreamEnd::ALL {
            metrics.streams.with_label_values(&[end.label()]);
        }
        metrics
    }

    fn register(&self) {
        let collectors: [Box<dyn prometheus::core::Collector>; 19] = [
            Box::new(self.requests.clone()),
            Box::new(self.refusals.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.defences.clone()),
            Box::new(self.registrations.clone()),
            Box::new(self.under_way.clone()),
            Box::new(self.visitors.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.answer_time.clone()),
            Box::new(self.streams.clone()),
            Box::new(self.flows.clone()),
            Box::new(self.open_flows.clone()),
            Box::new(self.datagrams[0].clone()),
            Box::new(self.datagrams[1].clone()),
            Box::new(self.losses.clone()),
            Box::new(self.lost_packets.clone()),
            Box::new(self.certificates.clone()),
            Box::new(self.tasks.clone()),
            Box::new(self.known_networks.clone()),
        ];
        for collector in collectors {
            self.registry.register(collector).expect("the names differ");
        }
    }

    /// Where [`crate::fair`] tells how many networks it knows.
    pub(crate) fn known_networks(&self) -> IntGauge {
        self.known_networks.clone()
    }

    /// A request or WebSocket is under way.
    pub(crate) fn request(&self) -> Present {
        Present::new(self.under_way.clone())
    }

    /// A visitor is connected.
    pub(crate) fn visitor(&self) -> Present {
        Present::new(self.visitors.clone())
    }

    /// An agent's connection is registered.
    pub(crate) fn connection(&self, transport: Transport) -> Present {
        Present::new(self.connections.with_label_values(&[&transport.to_string()]))
    }

    /// A request has its answer's head.
    pub(crate) fn answered(&self, status: u16, refusal: Option<u16>, time: Duration) {
        let find = || self.requests.with_label_values(&[&status.to_string()]);
        match self.statuses.get(usize::from(status)) {
            Some(counter) => counter.get_or_init(find).inc(),
            None => find().inc(),
        }
        if let Some(code) = refusal {
            self.refusals.with_label_values(&[&code.to_string()]).inc();
        }
        self.answer_time.observe(time.as_secs_f64());
    }

    /// A request is sent again.
    pub(crate) fn retried(&self, why: Retry) {
        self.retries.with_label_values(&[why.label()]).inc();
    }

    /// A connection was refused or ended in defence of the others.
    pub(crate) fn defended(&self, defence: Defence) {
        self.defences.with_label_values(&[defence.label()]).inc();
    }

    /// The connection of a public port's visitor has ended.
    pub(crate) fn stream(&self, end: StreamEnd) {
        self.streams.with_label_values(&[end.label()]).inc();
    }

    /// A flow of a public port's visitor is under way.
    pub(crate) fn open_flow(&self) -> Present {
        Present::new(self.open_flows.clone())
    }

    /// A flow of a public port's visitor has ended.
    pub(crate) fn flow(&self, end: FlowEnd) {
        self.flows.with_label_values(&[end.label()]).inc();
    }

    /// A datagram came from a visitor.
    pub(crate) fn datagram_in(&self) {
        self.datagrams[0].inc();
    }

    /// A datagram went to a visitor.
    pub(crate) fn datagram_out(&self) {
        self.datagrams[1].inc();
    }

    /// Datagrams were dropped.
    pub(crate) fn lost(&self, loss: Loss, count: u64) {
        if count > 0 {
            self.losses.with_label_values(&[loss.label()]).inc_by(count);
        }
    }

    /// Packets of QUIC came and are lost.
    pub(crate) fn lost_packets(&self, count: u64) {
        self.lost_packets.inc_by(count);
    }

    /// A connection asked to be registered.
    pub(crate) fn registration(&self, accepted: bool) {
        self.registrations.with_label_values(&[if accepted { "accepted" } else { "refused" }]).inc();
    }

    /// So many orders of certificates have ended by now.
    pub(crate) fn ordered(&self, tally: Tally) {
        for (result, count) in [("issued", tally.issued), ("failed", tally.failed)] {
            let counter = self.certificates.with_label_values(&[result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// Shows these, too, from now on. Whoever comes second is not shown.
    pub(crate) fn count_also(&self, others: OtherMetrics) {
        let _ = self.others.set(others);
    }

    /// Everything, in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be written");
        }
        let text = String::from_utf8(text).unwrap_or_default();
        text + &self.others.get().map(|others| others()).unwrap_or_default()
    }
}

fn counters(name: &str, help: &str, label: &str) -> Counters {
    Counters::new(Opts::new(name, help), &[label]).expect("name and label are valid")
}

fn counter(name: &str, help: &str) -> GenericCounter<AtomicU64> {
    GenericCounter::new(name, help).expect("the name is valid")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the name is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_told() {
        let metrics = Metrics::new();
        let under_way = metrics.request();
        metrics.answered(530, Some(1033), Duration::from_millis(3));
        metrics.registration(true);
        let _connection = metrics.connection(Transport::Quic);
        let text = metrics.text();
        for line in [
            "snicket_edge_requests_total{status=\"530\"} 1",
            "snicket_edge_refusals_total{code=\"1033\"} 1",
            "snicket_edge_registrations_total{result=\"accepted\"} 1",
            "snicket_edge_requests_under_way 1",
            "snicket_edge_tunnel_connections{transport=\"quic\"} 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        drop(under_way);
        assert!(metrics.text().contains("snicket_edge_requests_under_way 0"));
    }
}
