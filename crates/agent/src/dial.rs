//! From an address of the edge to a registered connection: TCP and TLS, perhaps through a proxy, or QUIC.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::http2::ReadAhead;
use wire::registration::{Registered, Registration};
use wire::{AgentConnection, ConnectError, Handler, Transport};

use crate::edge::Place;
use crate::eyeballs::connect_from;
use crate::metrics::{Method, Metrics};
use crate::proxy::Proxies;
use crate::supervisor::Way;

/// Limit for the TCP connect, proxies included. A working edge answers within one round trip; two retransmissions fit.
const TCP_LIMIT: Duration = Duration::from_secs(8);
/// Limit for the TLS handshake.
const TLS_LIMIT: Duration = Duration::from_secs(8);
/// Limit for the QUIC handshake. Blocked UDP is silent, so this is the time until it counts as blocked.
const QUIC_LIMIT: Duration = Duration::from_secs(4);
/// How long the remains of an earlier connection may take to leave the socket before a new socket is made.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

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

/// Why an attempt brought no registered connection, for each transport that was tried.
pub(crate) type Failures = Vec<(Transport, DialError)>;

/// A registered connection, and what is known of the way there.
pub(crate) struct Dialled<'a> {
    pub(crate) registered: Registered,
    pub(crate) connection: AgentConnection,
    pub(crate) transport: Transport,
    /// Whose statistics `/metrics` shows.
    pub(crate) quic: Option<quinn::Connection>,
    /// After HTTP/2 has won a race: whether QUIC gets through as well.
    pub(crate) quic_passes: Option<BoxFuture<'a, bool>>,
}

/// What handshakes bring: a way to the edge that nothing is registered on.
enum Secured<Q = quinn::Connection, T = TlsStream<ReadAhead<TcpStream>>> {
    Quic(Q),
    Http2(T),
}

/// Dials for all connections of one agent.
pub(crate) struct Dialer {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) quic: Arc<QuicClientConfig>,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) proxies: Proxies,
    pub(crate) rpc_timeout: Duration,
    metrics: Arc<Metrics>,
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
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { tls, quic, bind, proxies, rpc_timeout, metrics, endpoints: Mutex::default() }
    }

    /// Dials and registers. Dropping the future gives up.
    pub(crate) async fn dial<'a, H: Handler>(
        &'a self,
        place: &'a Place,
        way: Way,
        mut registration: Registration,
        handler: Arc<H>,
    ) -> Result<Dialled<'a>, Failures> {
        let index = registration.connection_index;
        let (secured, quic_passes) = match way {
            Way::By(Transport::Http2) => {
                (self.tls(place).await.map(Secured::Http2).map_err(by(Transport::Http2))?, None)
            }
            Way::By(Transport::Quic) => {
                (self.quic(place, index).await.map(Secured::Quic).map_err(by(Transport::Quic))?, None)
            }
            Way::Race { head_start } => race(self.quic(place, index), self.tls(place), head_start).await?,
        };
        match secured {
            Secured::Http2(stream) => {
                registration.origin_local_ip =
                    stream.get_ref().0.get_ref().local_addr().ok().map(|address| address.ip());
                let (registered, connection) = self
                    .register(wire::http2::agent::connect(stream, &registration, handler, self.rpc_timeout))
                    .await
                    .map_err(|error| by(Transport::Http2)(error.into()))?;
                Ok(Dialled { registered, connection, transport: Transport::Http2, quic: None, quic_passes })
            }
            Secured::Quic(quic) => {
                registration.origin_local_ip = quic.local_ip();
                let (registered, connection) = self
                    .register(wire::quic::agent::connect(quic.clone(), &registration, handler, self.rpc_timeout))
                    .await
                    .map_err(|error| by(Transport::Quic)(error.into()))?;
                Ok(Dialled { registered, connection, transport: Transport::Quic, quic: Some(quic), quic_passes })
            }
        }
    }

    /// What is counted includes what HTTP/2 does before the call: its preface, and the edge's opening of the stream.
    async fn register<T>(&self, call: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        self.metrics.rpc_client.observe(Method::REGISTER, call).await
    }

    async fn tls(&self, place: &Place) -> Result<TlsStream<ReadAhead<TcpStream>>, DialError> {
        let stream = ReadAhead::new(self.tcp(place).await?);
        let name = ServerName::try_from(certs::tls::TUNNEL_HTTP2_NAME).expect("the constant is a host name");
        timeout(TLS_LIMIT, TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream))
            .await
            .map_err(|_| unreachable(format!("no TLS handshake within {TLS_LIMIT:?}")))?
            .map_err(|error| unreachable(tls_advice(&error)))
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
        let packets = wire::quic::Packets::towards(address);
        settings.transport_config(Arc::new(wire::quic::agent_transport_config(packets)));
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
        let endpoint = wire::quic::endpoint(wire::quic::agent_endpoint_config(), None, socket)?;
        self.endpoints().insert(index, endpoint.clone());
        Ok(endpoint)
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<u8, quinn::Endpoint>> {
        self.endpoints.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Closes a connection over QUIC that is being dialled, for good. To be called before the dial is dropped: what its streams
    /// say when they end counts as something to send, and the library lets the end of the connection wait for room for that,
    /// which may never come; the edge would have the connection for one that is there until it has been silent for long.
    pub(crate) fn abandon(&self, index: u8) {
        if let Some(endpoint) = self.endpoints().get(&index) {
            endpoint.close(wire::quic::CODE, b"");
        }
    }

    /// Lets the last packets of closed connections leave.
    pub(crate) async fn flush(&self) {
        let endpoints: Vec<quinn::Endpoint> = self.endpoints().drain().map(|(_, endpoint)| endpoint).collect();
        for endpoint in endpoints {
            let _ = timeout(LEAVE_LIMIT, endpoint.wait_idle()).await;
        }
    }
}

/// The first of the two whose handshakes are done. HTTP/2 begins after the head start, or when QUIC has failed; when it
/// wins, what becomes of QUIC is told later.
async fn race<'a, Q, T>(
    quic: impl Future<Output = Result<Q, DialError>> + Send + 'a,
    http2: impl Future<Output = Result<T, DialError>>,
    head_start: Duration,
) -> Result<(Secured<Q, T>, Option<BoxFuture<'a, bool>>), Failures> {
    let mut quic = Box::pin(quic);
    let failed = match timeout(head_start, &mut quic).await {
        Ok(Ok(connection)) => return Ok((Secured::Quic(connection), None)),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let mut http2 = std::pin::pin!(http2);
    let failed = match failed {
        Some(error) => error,
        None => tokio::select! {
            biased;
            outcome = &mut quic => match outcome {
                Ok(connection) => return Ok((Secured::Quic(connection), None)),
                Err(error) => error,
            },
            outcome = &mut http2 => match outcome {
                Ok(stream) => return Ok((Secured::Http2(stream), Some(Box::pin(async { quic.await.is_ok() })))),
                Err(error) => match quic.await {
                    Ok(connection) => return Ok((Secured::Quic(connection), None)),
                    Err(failed) => return Err(vec![(Transport::Quic, failed), (Transport::Http2, error)]),
                },
            },
        },
    };
    match http2.await {
        Ok(stream) => Ok((Secured::Http2(stream), Some(Box::pin(std::future::ready(false))))),
        Err(error) => Err(vec![(Transport::Quic, failed), (Transport::Http2, error)]),
    }
}

fn by(transport: Transport) -> impl FnOnce(DialError) -> Failures {
    move |error| vec![(transport, error)]
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

/// An edge has other ports beside the one for agents, and each of them refuses agents in another way.
const WRONG_PORT: &str = "check that this is the edge's address for agents, which `snicket up` prints";

fn tls_advice(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => not_trusted(&format!("{reason:?}")),
        _ => format!("the TLS handshake failed: {error}; {WRONG_PORT}"),
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
        _ => format!("the QUIC handshake failed: {error}; {WRONG_PORT}"),
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

    async fn ends<T>(millis: u64, outcome: Result<T, &str>) -> Result<T, DialError> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        outcome.map_err(|reason| unreachable(reason.to_owned()))
    }

    /// Who wins and when, in milliseconds, and what is said of QUIC later.
    async fn raced(quic: (u64, Result<(), &'static str>), http2: (u64, Result<(), &'static str>)) -> (String, u128) {
        let started = tokio::time::Instant::now();
        let outcome = race(ends(quic.0, quic.1), ends(http2.0, http2.1), Duration::from_millis(250)).await;
        let took = started.elapsed().as_millis();
        let said = match outcome {
            Ok((Secured::Quic(()), None)) => "quic".to_owned(),
            Ok((Secured::Quic(()), Some(_))) => "quic, to be judged".to_owned(),
            Ok((Secured::Http2(()), None)) => "http2".to_owned(),
            Ok((Secured::Http2(()), Some(passes))) => format!("http2, quic passes: {}", passes.await),
            Err(failures) => failures.iter().map(|(transport, error)| format!("{transport}: {error};")).collect(),
        };
        (said, took)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_handshake_wins_and_quic_has_a_head_start() {
        let said = |said: &str, took| (said.to_owned(), took);
        assert_eq!(raced((200, Ok(())), (10, Ok(()))).await, said("quic", 200));
        assert_eq!(raced((300, Ok(())), (100, Ok(()))).await, said("quic", 300));
        assert_eq!(raced((4000, Err("silence")), (20, Ok(()))).await, said("http2, quic passes: false", 270));
        assert_eq!(raced((2000, Ok(())), (20, Ok(()))).await, said("http2, quic passes: true", 270));
        assert_eq!(raced((5, Err("refused")), (20, Ok(()))).await, said("http2, quic passes: false", 25));
        assert_eq!(raced((2000, Ok(())), (20, Err("refused"))).await, said("quic", 2000));
        assert_eq!(raced((300, Err("silence")), (100, Ok(()))).await, said("http2, quic passes: false", 350));
        assert_eq!(
            raced((4000, Err("silence")), (20, Err("refused"))).await,
            said("quic: silence;http2: refused;", 4000)
        );
        assert_eq!(
            raced((5, Err("refused")), (8000, Err("silence"))).await,
            said("quic: refused;http2: silence;", 8005)
        );
    }

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
