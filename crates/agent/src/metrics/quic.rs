//! Statistics of QUIC connections, read from the live connections when somebody asks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};
use quinn::{ConnectionStats, FrameStats};

use super::{counter, counter_vec, gauge_vec, registered};

/// Counters go on where a connection's index is connected again; gauges show the last connection.
pub(super) struct Quic {
    live: Mutex<HashMap<u8, Live>>,
    total: IntCounter,
    closed: IntCounter,
    min_rtt: IntGaugeVec,
    smoothed_rtt: IntGaugeVec,
    mtu: IntGaugeVec,
    congestion_window: IntGaugeVec,
    lost_packets: IntCounterVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_frames: IntCounterVec,
    received_frames: IntCounterVec,
}

struct Live {
    connection: quinn::Connection,
    /// What the counters hold already.
    counted: ConnectionStats,
}

impl Quic {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| registered(registry, gauge_vec(name, help, &["conn_index"]));
        let counted = |name, help| registered(registry, counter_vec(name, help, &["conn_index"]));
        let by_frame = |name, help| registered(registry, counter_vec(name, help, &["conn_index", "frame_type"]));
        Self {
            live: Mutex::default(),
            total: registered(registry, counter("quic_client_total_connections", "QUIC connections made")),
            closed: registered(registry, counter("quic_client_closed_connections", "QUIC connections ended")),
            min_rtt: gauge("quic_client_min_rtt", "Shortest round trip time in milliseconds"),
            smoothed_rtt: gauge("quic_client_smoothed_rtt", "Smoothed round trip time in milliseconds"),
            mtu: gauge("quic_client_mtu", "Largest packet in bytes"),
            congestion_window: gauge("quic_client_congestion_window", "Congestion window in bytes"),
            lost_packets: counted("quic_client_lost_packets", "Packets lost"),
            sent_bytes: counted("quic_client_sent_bytes", "Bytes sent"),
            received_bytes: counted("quic_client_receive_bytes", "Bytes received"),
            sent_frames: by_frame("quic_client_sent_frames", "Frames sent by type"),
            received_frames: by_frame("quic_client_received_frames", "Frames received by type"),
        }
    }

    /// A connection is registered: its statistics are shown from now on.
    pub(super) fn opened(&self, index: u8, connection: quinn::Connection) {
        self.total.inc();
        self.live().insert(index, Live { connection, counted: ConnectionStats::default() });
    }

    pub(super) fn ended(&self, index: u8) {
        self.closed.inc();
        let ended = self.live().remove(&index);
        if let Some(ended) = ended {
            self.take(index, &ended.counted, &ended.connection.stats());
        }
    }

    /// Brings everything up to date.
    pub(super) fn update(&self) {
        for (index, live) in self.live().iter_mut() {
            let stats = live.connection.stats();
            self.take(*index, &live.counted, &stats);
            live.counted = stats;
        }
    }

    fn take(&self, index: u8, before: &ConnectionStats, now: &ConnectionStats) {
        let index = index.to_string();
        let index = index.as_str();
        let set = |gauge: &IntGaugeVec, value: u64| {
            gauge.with_label_values(&[index]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.min_rtt, milliseconds(now.path.min_rtt));
        set(&self.smoothed_rtt, milliseconds(now.path.rtt));
        set(&self.mtu, now.path.current_mtu.into());
        set(&self.congestion_window, now.path.cwnd);
        let add = |counter: &IntCounterVec, before: u64, now: u64| {
            counter.with_label_values(&[index]).inc_by(now.saturating_sub(before));
        };
        add(&self.lost_packets, before.path.lost_packets, now.path.lost_packets);
        add(&self.sent_bytes, before.udp_tx.bytes, now.udp_tx.bytes);
        add(&self.received_bytes, before.udp_rx.bytes, now.udp_rx.bytes);
        let both = [
            (&self.sent_frames, &before.frame_tx, &now.frame_tx),
            (&self.received_frames, &before.frame_rx, &now.frame_rx),
        ];
        for (counter, before, now) in both {
            for ((name, before), (_, now)) in frames(before).into_iter().zip(frames(now)) {
                if now > before {
                    counter.with_label_values(&[index, name]).inc_by(now - before);
                }
            }
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<u8, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames by type, in the reference's words.
fn frames(stats: &FrameStats) -> [(&'static str, u64); 22] {
    [
        ("Ack", stats.acks),
        ("AckFrequency", stats.ack_frequency),
        ("ConnectionClose", stats.connection_close),
        ("Crypto", stats.crypto),
        ("DataBlocked", stats.data_blocked),
        ("Datagram", stats.datagram),
        ("HandshakeDone", stats.handshake_done.into()),
        ("ImmediateAck", stats.immediate_ack),
        ("MaxData", stats.max_data),
        ("MaxStreamData", stats.max_stream_data),
        ("MaxStreams", stats.max_streams_bidi + stats.max_streams_uni),
        ("NewConnectionID", stats.new_connection_id),
        ("NewToken", stats.new_token),
        ("PathChallenge", stats.path_challenge),
        ("PathResponse", stats.path_response),
        ("Ping", stats.ping),
        ("ResetStream", stats.reset_stream),
        ("RetireConnectionID", stats.retire_connection_id),
        ("StopSending", stats.stop_sending),
        ("Stream", stats.stream),
        ("StreamDataBlocked", stats.stream_data_blocked),
        ("StreamsBlocked", stats.streams_blocked_bidi + stats.streams_blocked_uni),
    ]
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_when_an_index_is_connected_again() {
        let quic = Quic::new(&Registry::new());
        let nothing = ConnectionStats::default();
        let mut stats = nothing;
        (stats.udp_tx.bytes, stats.frame_tx.stream, stats.path.cwnd) = (1000, 3, 12_000);
        quic.take(1, &nothing, &stats);
        let before = stats;
        (stats.udp_tx.bytes, stats.frame_tx.stream, stats.path.cwnd) = (1500, 3, 24_000);
        quic.take(1, &before, &stats);
        assert_eq!(quic.sent_bytes.with_label_values(&["1"]).get(), 1500);
        // Another connection begins at nothing again.
        stats.udp_tx.bytes = 200;
        quic.take(1, &nothing, &stats);
        assert_eq!(quic.sent_bytes.with_label_values(&["1"]).get(), 1700);
        assert_eq!(quic.sent_frames.with_label_values(&["1", "Stream"]).get(), 6);
        assert_eq!(quic.congestion_window.with_label_values(&["1"]).get(), 24_000);
    }
}
