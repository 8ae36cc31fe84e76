//! From an address of the edge to a registered connection: TCP and TLS, perhaps through a proxy, or QUIC.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wire::registration::{Registered, Registration};
use wire::{AgentConnection, ConnectError, Handler, Transport};

use crate::edge::Place;
use crate::eyeballs::connect_from;
use crate::proxy::Proxies;

/// Limit for the TCP connect, proxies included. A working edge answers within one round trip; two retransmissions fit.
const TCP_LIMIT: Duration = Duration::from_secs(8);
/// Limit for the TLS handshake.
const TLS_LIMIT: Duration = Duration::from_secs(8);
/// Limit for the QUIC handshake. Blocked UDP is silent, so this is the time that falling back to HTTP/2 takes.
const QUIC_LIMIT: Duration = Duration::from_secs(4);
/// How long the remains of an earlier connection may take to leave the socket before a new socket is made.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

/// Bytes taken from the socket at once; the TLS library alone would take a quarter of a record.
const READ: usize = 64 << 10;

// A peer that vanished is found by unacknowledged data after the first, and when idle by the first unanswered probe
// that comes after it: together at most ten seconds.
#[cfg(any(target_os = "linux", target_os = "android"))]
const VANISHED_AFTER: Duration = Duration::from_secs(8);
const PROBE_AFTER: Duration = Duration::from_secs(4);
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What QUIC makes of TLS's alerts about certificates, `bad_certificate` (42) to `unknown_ca` (48): RFC 9001 section
/// 4.8.
const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u64> = 0x100 + 42..=0x100 + 48;

/// Why a dial brought no registered connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Unreachable(String),
    #[error("{}", connect_advice(.0))]
    Connect(#[from] ConnectError),
}

/// A registered connection, and what is known of the way there.
pub(crate) struct Dialled {
    pub(crate) registered: Registered,
    pub(crate) connection: AgentConnection,
    /// Whose statistics `/metrics` shows.
    pub(crate) quic: Option<quinn::Connection>,
}

/// Dials for all connections of one agent.
pub(crate) struct Dialer {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) quic: Arc<QuicClientConfig>,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) proxies: Proxies,
    pub(crate) rpc_timeout: Duration,
    /// One UDP socket for each connection index, kept for its reconnections.
    endpoints: Mutex<HashMap<u8, quinn::Endpoint>>,
}

impl Dialer {
    pub(crate) fn new(
        tls: Arc<ClientConfig>,
        quic: Arc<QuicClientConfig>,
        bind: Option<IpAddr>,
        proxies: Proxies,
        rpc_timeout: Duration,
    ) -> Self {
        Self { tls, quic, bind, proxies, rpc_timeout, endpoints: Mutex::default() }
    }

    /// Dials and registers. Dropping the future gives up.
    pub(crate) async fn dial<H: Handler>(
        &self,
        place: &Place,
        transport: Transport,
        mut registration: Registration,
        handler: Arc<H>,
    ) -> Result<Dialled, DialError> {
        match transport {
            Transport::Http2 => {
                let stream = self.tcp(place).await?;
                registration.origin_local_ip = stream.local_addr().ok().map(|address| address.ip());
                let name = ServerName::try_from(certs::tls::TUNNEL_HTTP2_NAME).expect("the constant is a host name");
                let stream = BufReader::with_capacity(READ, stream);
                let stream = timeout(TLS_LIMIT, TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream))
                    .await
                    .map_err(|_| unreachable(format!("no TLS handshake within {TLS_LIMIT:?}")))?
                    .map_err(|error| unreachable(tls_advice(&error)))?;
                let (registered, connection) =
                    wire::http2::agent::connect(stream, &registration, handler, self.rpc_timeout).await?;
                Ok(Dialled { registered, connection, quic: None })
            }
            Transport::Quic => {
                let quic = self.quic(place, registration.connection_index).await?;
                registration.origin_local_ip = quic.local_ip();
                let (registered, connection) =
                    wire::quic::agent::connect(quic.clone(), &registration, handler, self.rpc_timeout).await?;
                Ok(Dialled { registered, connection, quic: Some(quic) })
            }
        }
    }

    async fn tcp(&self, place: &Place) -> Result<TcpStream, DialError> {
        let stream = timeout(TCP_LIMIT, async {
            match self.proxies.for_edge(place.host()) {
                Some(proxy) => proxy.connect(place.name(), self.bind).await.map_err(|error| error.to_string()),
                None => {
                    let address = place.address().ok_or_else(|| "the edge's name does not resolve".to_owned())?;
                    connect_from(self.bind, address).await.map_err(|error| error.to_string())
                }
            }
        });
        let stream = stream
            .await
            .map_err(|_| unreachable(format!("no TCP connection within {TCP_LIMIT:?}")))?
            .map_err(|reason| unreachable(format!("no TCP connection: {reason}")))?;
        watch_peer(&stream).map_err(|error| unreachable(format!("the TCP connection cannot be set up: {error}")))?;
        Ok(stream)
    }

    async fn quic(&self, place: &Place, index: u8) -> Result<quinn::Connection, DialError> {
        let address = place.address().ok_or_else(|| unreachable("the edge's name does not resolve".to_owned()))?;
        let endpoint =
            self.endpoint(index, address).await.map_err(|error| unreachable(format!("no UDP socket: {error}")))?;
        let mut settings = quinn::ClientConfig::new(Arc::clone(&self.quic) as Arc<_>);
        settings.transport_config(Arc::new(wire::quic::agent_transport_config()));
        let connecting = endpoint
            .connect_with(settings, address, certs::tls::TUNNEL_QUIC_NAME)
            .map_err(|error| unreachable(format!("QUIC: {error}")))?;
        timeout(QUIC_LIMIT, connecting)
            .await
            .map_err(|_| unreachable(format!("no QUIC handshake within {QUIC_LIMIT:?}; UDP may be blocked")))?
            .map_err(|error| unreachable(quic_advice(&error)))
    }

    /// The socket of this connection index, or a new one when there is none of this family or an old connection lingers
    /// on it.
    async fn endpoint(&self, index: u8, towards: SocketAddr) -> io::Result<quinn::Endpoint> {
        let kept = self.endpoints().get(&index).cloned();
        if let Some(endpoint) = kept {
            let same_family = endpoint.local_addr().is_ok_and(|local| local.is_ipv4() == towards.is_ipv4());
            if same_family && timeout(LEAVE_LIMIT, endpoint.wait_idle()).await.is_ok() {
                return Ok(endpoint);
            }
        }
        let any = if towards.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((self.bind.unwrap_or(any), 0))?;
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no asynchronous runtime"))?;
        let endpoint = quinn::Endpoint::new(wire::quic::agent_endpoint_config(), None, socket, runtime)?;
        self.endpoints().insert(index, endpoint.clone());
        Ok(endpoint)
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<u8, quinn::Endpoint>> {
        self.endpoints.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets the last packets of closed connections leave.
    pub(crate) async fn flush(&self) {
        let endpoints: Vec<quinn::Endpoint> = self.endpoints().drain().map(|(_, endpoint)| endpoint).collect();
        for endpoint in endpoints {
            let _ = timeout(LEAVE_LIMIT, endpoint.wait_idle()).await;
        }
    }
}

fn unreachable(reason: String) -> DialError {
    DialError::Unreachable(reason)
}

/// Sets the socket so that a peer that vanishes is found within ten seconds, idle or not.
fn watch_peer(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(VANISHED_AFTER))?;
    Ok(())
}

fn tls_advice(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => not_trusted(&format!("{reason:?}")),
        _ => format!("the TLS handshake failed: {error}"),
    }
}

/// An edge that does not know the agent may be told of a new tunnel any moment; mostly it takes a person.
fn connect_advice(error: &ConnectError) -> String {
    match error {
        ConnectError::Refused(refused) if refused.is_unauthorized() => format!(
            "{error}; check that the token or credentials are of this edge and the tunnel was not deleted; trying again"
        ),
        ConnectError::Refused(_) | ConnectError::Rpc(_) | ConnectError::Lost(_) => error.to_string(),
    }
}

fn quic_advice(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(error) if CERTIFICATE_ALERTS.contains(&u64::from(error.code)) => {
            not_trusted(&error.reason)
        }
        _ => format!("the QUIC handshake failed: {error}"),
    }
}

fn not_trusted(reason: &str) -> String {
    format!(
        "the edge's certificate is not trusted ({reason}); give the edge's CA with --ca FILE (cloudflared: --cacert)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn sockets_are_set_so_that_a_vanished_edge_is_found_within_ten_seconds() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect_from(Some(Ipv4Addr::LOCALHOST.into()), listener.local_addr().unwrap()).await.unwrap();
        watch_peer(&stream).unwrap();
        let socket = SockRef::from(&stream);
        let vanished_after = socket.tcp_user_timeout().unwrap().unwrap();
        // Idle, the kernel gives up at the first probe that finds the time-out passed.
        let idle = socket.tcp_keepalive_time().unwrap();
        let worst = vanished_after.max(idle) + socket.tcp_keepalive_interval().unwrap();
        assert!(socket.keepalive().unwrap() && worst <= Duration::from_secs(10), "{worst:?}");
    }
}
