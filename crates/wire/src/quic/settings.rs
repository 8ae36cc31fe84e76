use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};

/// The protocol name that both ends offer in the QUIC handshake (section 2.2).
pub const ALPN: &[u8] = b"argotunnel";

/// Silence after which a connection is given up (section 6).
const IDLE_MILLIS: u32 = 5_000;

/// The same at an agent, which both ends then keep to: it counts from the first question after the last answer, and so is found in
/// five seconds as well.
const AGENT_IDLE_MILLIS: u32 = 4_000;

/// Three of them fit into the idle time, so that a lost one ends nothing. An edge that has restarted answers the next one with a reset.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Bytes of one stream's body that may wait for a slow reader.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes of all bodies together that may wait at this end of a connection. As many stalled readers as fit into it,
/// each with a full stream window, hold up everybody else on the connection: hence far more than a stream's.
const CONNECTION_WINDOW: u32 = 128 << 20;

/// What readers who take nothing may hold of it at the edge; the other half is for everybody else.
pub(super) const HELD: usize = CONNECTION_WINDOW as usize / 2;

/// Bytes sent and not yet acknowledged on one connection: 1 Gbit/s at a round trip of 100 ms.
const SEND_WINDOW: u64 = 12 << 20;

/// Streams that an agent may have open towards the edge: the control stream, and RPC that it seldom has a use for.
const AGENT_STREAMS: u32 = 16;

/// Streams that the edge may have open towards an agent at first; the agent allows more as they come into use.
pub(super) const EDGE_STREAMS: u32 = 256;

/// Datagrams that wait to be read, or sent: beyond it the oldest are lost, as datagrams are.
const DATAGRAM_BUFFER: usize = 1 << 20;

/// Bytes of the largest packet: what fits into a jumbo frame of 9,000 with the headers of IPv6 and UDP.
pub(super) const LARGEST_PACKET: u16 = 9_000 - 40 - 8;

/// Bytes that may be under way at first where packets may be so large. The usual 14,720 (RFC 9002 section 7.2) hold one such packet,
/// and the library, which waits for room for one more whatever it has to say, would not even send that a connection ends.
const JUMBO_START: u64 = 4 * LARGEST_PACKET as u64;

/// Packets that one of our own ends leaves without an acknowledgement until it has something else to say. Alone, an acknowledgement
/// costs either end as much as a request does. More would hold up a sender that may not have so many under way.
const UNACKNOWLEDGED: u32 = 8;

/// The longest that an acknowledgement waits for that: a fifth of what it would be otherwise, since it is waited for more often.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(5);

/// How large packets may become on the way to a peer; whether it takes them is tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets {
    /// What Ethernet takes.
    Usual,
    /// What jumbo frames take.
    Jumbo,
}

impl Packets {
    /// What the first link towards a peer takes, if the system tells. It is a matter of some calls that wait for nothing.
    pub fn towards(peer: SocketAddr) -> Self {
        const ETHERNET: u32 = 1_500;
        match link_mtu(peer) {
            Some(mtu) if mtu > ETHERNET => Self::Jumbo,
            _ => Self::Usual,
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn link_mtu(peer: SocketAddr) -> Option<u32> {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use rustix::net::sockopt::{ip_mtu, ipv6_mtu};

    // Nothing is sent: it is about the route.
    if peer.is_ipv4() {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(peer).ok()?;
        ip_mtu(socket).ok()
    } else {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(peer).ok()?;
        ipv6_mtu(socket).ok()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn link_mtu(_: SocketAddr) -> Option<u32> {
    None
}

/// Settings of a QUIC connection that an agent has dialled, at the edge.
pub fn edge_transport_config(packets: Packets) -> TransportConfig {
    let mut config = transport_config(packets);
    config.max_concurrent_bidi_streams(AGENT_STREAMS.into());
    config
}

/// Settings of a QUIC connection that an agent dials.
pub fn agent_transport_config(packets: Packets) -> TransportConfig {
    let mut config = transport_config(packets);
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(AGENT_IDLE_MILLIS))))
        .max_concurrent_bidi_streams(EDGE_STREAMS.into())
        .keep_alive_interval(Some(KEEP_ALIVE));
    config
}

fn transport_config(packets: Packets) -> TransportConfig {
    // Stock agents do not know what this is about, and go on as they are.
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(UNACKNOWLEDGED.into()).max_ack_delay(Some(ACKNOWLEDGED_AFTER));
    let mut discovery = MtuDiscoveryConfig::default();
    let mut congestion = CubicConfig::default();
    if packets == Packets::Jumbo {
        discovery.upper_bound(LARGEST_PACKET);
        congestion.initial_window(JUMBO_START);
    }
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(Arc::new(congestion))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MILLIS))))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acknowledgements));
    config
}

/// Settings of the endpoint that an agent dials from: zero-length source connection ids.
///
/// Without connection ids a connection is told by its addresses, so an endpoint holds one connection per edge address.
pub fn agent_endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(NoConnectionIds));
    config
}

#[derive(Debug)]
struct NoConnectionIds;

impl ConnectionIdGenerator for NoConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&[])
    }

    fn cid_len(&self) -> usize {
        0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
