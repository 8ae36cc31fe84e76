use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use agent::Permits;
use geo::Geography;
pub use http2::Rate;

/// How a node runs. Addresses are bound by [`crate::listen`]; everything else is read by [`crate::Edge::start`].
#[derive(Clone)]
pub struct Config {
    /// Where this node is, such as `lab01`: second half of every `cf-ray`, and what agents see as their location.
    pub location: String,
    /// What visitors and agents may use up.
    pub limits: Limits,
    /// The public ports that tunnels may have, on the address of the visitors with TLS; `None` is none at all.
    pub ports: Option<RangeInclusive<u16>>,
    /// Which addresses members of pools may have.
    pub origins: Permits,
    /// Where this node and its visitors are, as far as is known.
    pub geography: Arc<Geography>,
}

/// Where a node listens. Port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Visitors without TLS.
    pub http: SocketAddr,
    /// Visitors with TLS: TCP for HTTP/1.1 and HTTP/2, UDP on the same port for HTTP/3.
    pub https: SocketAddr,
    /// Agents: TCP for HTTP/2, UDP on the same port for QUIC. Several addresses let agents spread their connections.
    pub tunnel: Vec<SocketAddr>,
    /// The REST API and the metrics.
    pub api: SocketAddr,
}

/// What visitors and agents may use up before they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Visitor connections at once, over all listeners. More are closed as they come.
    pub connections: usize,
    /// Those of one IPv4 address or one /64 of IPv6. More are closed as they come.
    pub connections_per_address: usize,
    /// Loopback is not counted per address: what comes from there is a proxy of one's own, with many visitors behind
    /// it.
    pub exempt_loopback: bool,
    /// Requests that a visitor takes back on one HTTP/2 or HTTP/3 connection. More end the connection.
    pub resets: Rate,
    /// Frames of one HTTP/2 connection of a visitor that carry neither a request nor data, and that no answer calls for, as
    /// it calls for room. More end the connection.
    pub idle_frames: Rate,
    /// How long an HTTP/2 or HTTP/3 visitor may take nothing of an answer, then the answer is cut. On HTTP/1.1 the
    /// system's own limit for a peer without room holds (30 s).
    pub stall: Duration,
    /// Agent connections that have not registered yet. More are closed as they come.
    pub unregistered: usize,
    /// Registered connections of one tunnel. More are refused.
    pub tunnel_connections: usize,
    /// Requests at once on one HTTP/2 or HTTP/3 connection of a visitor.
    pub streams: u32,
    /// Header fields of one request.
    pub header_count: usize,
    /// Bytes of the header of one request: names, values and 32 for each field (RFC 9113 section 6.5.2).
    pub header_bytes: usize,
    /// Bytes of a request's path and query.
    pub uri_bytes: usize,
    /// From the first byte to a finished TLS or QUIC handshake.
    pub handshake: Duration,
    /// From a finished handshake to the registration of an agent's connection.
    pub registration: Duration,
    /// A visitor's connection with no request on it, and on which nothing comes of one's body, is closed after this; on
    /// HTTP/1.1 a header has this long to be complete.
    pub idle: Duration,
    /// From the last byte of the request that the agent took to the head of the origin's answer. Streams are not
    /// limited after.
    pub response: Duration,
    /// How long a visitor may pause in the middle of a request's body before there is an answer.
    pub body_pause: Duration,
    /// How long a request waits for a connection of a tunnel that had one [`Limits::reconnect_memory`] ago or less.
    pub reconnect_wait: Duration,
    /// How long a tunnel counts as about to come back after its last connection went.
    pub reconnect_memory: Duration,
    /// Connections that one request is tried on.
    pub attempts: u32,
    /// Bytes of a request's body that are kept for a second attempt.
    pub replay_bytes: usize,
}

impl Limits {
    /// A connection costs some 20 to 60 KiB, so this many fit a machine of 1 GiB.
    pub const CONNECTIONS: usize = 10_000;
    /// A tenth of all: an office or a mobile network behind one address has room, and nobody alone takes everything.
    pub const CONNECTIONS_PER_ADDRESS: usize = 1_000;
    /// A page with hundreds of pictures that is left takes back all of them at once; then a program that gives up a
    /// hundred times a second is broken or hostile.
    pub const RESETS: Rate = Rate { burst: 500, per_second: 100 };
    /// Programs that measure the bandwidth send a PING for each round trip, which is a millisecond in one data centre.
    pub const IDLE_FRAMES: Rate = Rate { burst: 2_000, per_second: 1_000 };
    /// As long as visitors may pause when they send.
    pub const STALL: Duration = Duration::from_secs(100);
    /// Agents register within a round trip; a thousand at once come only after a restart of the node.
    pub const UNREGISTERED: usize = 1_024;
    /// 25 connectors with the usual four connections each, which is where hosted edges stop.
    pub const TUNNEL_CONNECTIONS: usize = 100;
    /// What browsers find enough, and RFC 9113 section 6.5.2 recommends at least.
    pub const STREAMS: u32 = 128;
    /// Browsers send 20; 128 leaves room for odd proxies.
    pub const HEADER_COUNT: usize = 128;
    /// Twice what common origins take, so that the origin's own limit is what people meet.
    pub const HEADER_BYTES: usize = 64 * 1024;
    /// Twice the 8,000 bytes that RFC 9110 section 4.1 wants supported.
    pub const URI_BYTES: usize = 16 * 1024;
    /// Slow mobile networks need three seconds.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);
    /// Agents give up after 5 s themselves.
    pub const REGISTRATION: Duration = Duration::from_secs(10);
    /// Shorter than what browsers keep idle connections for is a new handshake per page; longer costs memory.
    pub const IDLE: Duration = Duration::from_secs(60);
    /// What visitors of tunnels know from status 524.
    pub const RESPONSE: Duration = Duration::from_secs(100);
    /// As long as the origin gets: both sides of a stream may be silent before it begins.
    pub const BODY_PAUSE: Duration = Duration::from_secs(100);
    /// An agent that lost its connection is back within about 2 s.
    pub const RECONNECT_WAIT: Duration = Duration::from_secs(5);
    /// After this an agent is taken to be gone for good, and visitors get their answer at once.
    pub const RECONNECT_MEMORY: Duration = Duration::from_secs(15);
    /// A connector that dies takes four connections with it, and each may have to be tried to find out: enough for two of them at once.
    pub const ATTEMPTS: u32 = 9;
    /// Holds every form that people fill in, and costs little when all requests of a node use it.
    pub const REPLAY_BYTES: usize = 64 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Self::CONNECTIONS,
            connections_per_address: Self::CONNECTIONS_PER_ADDRESS,
            exempt_loopback: true,
            resets: Self::RESETS,
            idle_frames: Self::IDLE_FRAMES,
            stall: Self::STALL,
            unregistered: Self::UNREGISTERED,
            tunnel_connections: Self::TUNNEL_CONNECTIONS,
            streams: Self::STREAMS,
            header_count: Self::HEADER_COUNT,
            header_bytes: Self::HEADER_BYTES,
            uri_bytes: Self::URI_BYTES,
            handshake: Self::HANDSHAKE,
            registration: Self::REGISTRATION,
            idle: Self::IDLE,
            response: Self::RESPONSE,
            body_pause: Self::BODY_PAUSE,
            reconnect_wait: Self::RECONNECT_WAIT,
            reconnect_memory: Self::RECONNECT_MEMORY,
            attempts: Self::ATTEMPTS,
            replay_bytes: Self::REPLAY_BYTES,
        }
    }
}
