//! Connections to one origin: TCP or a Unix socket, TLS over it where the rule says so.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use wire::OriginFault;

use super::direct::Permits;
use super::error::{ConnectFailure, PrepareError, connect_fault, tls_fault};
use super::tls::Trust;
use crate::eyeballs;
use crate::ingress::{OriginOptions, Service, WarpRouting};
use crate::inspector::{self, Stage};
use crate::proxy::{Proxies, Proxy};

/// The pauses between keep-alive probes that the kernel takes; Linux refuses others.
const PROBE_PAUSES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);

/// How long a request waits for a descriptor: longer than most requests take, and short of what visitors bear.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);
/// Between two attempts meanwhile.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Dials the origin of one rule, whatever authority the request's URI names.
#[derive(Clone)]
pub(super) struct Connector(Arc<Settings>);

struct Settings {
    place: Place,
    proxy: Option<Proxy>,
    tls: Option<Tls>,
    dial: Dial,
    tls_timeout: Duration,
}

enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

struct Tls {
    settings: Arc<ClientConfig>,
    /// `None`: the name that the visitor asked for.
    name: Option<ServerName<'static>>,
}

/// Put into the answer's extensions: whether the connection has answered before. Set by the first answer.
#[derive(Clone)]
pub(super) struct Reused(pub(super) Arc<AtomicBool>);

impl Connector {
    pub(super) fn prepare(
        service: &Service,
        options: &OriginOptions,
        http2: bool,
        trust: &mut Trust,
        proxies: &Proxies,
        permits: Option<&Permits>,
    ) -> Result<Self, PrepareError> {
        let (secure, place, host) = match service {
            Service::Http { tls, authority } => {
                let host = authority.host().to_owned();
                let port = authority.port_u16().unwrap_or(if *tls { 443 } else { 80 });
                (*tls, Place::Tcp { host: host.clone(), port }, host)
            }
            Service::Unix { tls, path } => (*tls, Place::Unix(path.clone()), "localhost".to_owned()),
            other => return Err(PrepareError::NotHttp(other.to_string())),
        };
        let tls = if secure {
            let name = match &options.origin_server_name {
                Some(name) => Some(server_name(name)?),
                None if options.match_sni_to_host => None,
                None => Some(server_name(&host)?),
            };
            Some(Tls { settings: trust.settings(options, http2)?, name })
        } else {
            None
        };
        let proxy = match &place {
            Place::Tcp { host, .. } => proxies.for_origin(secure, host).cloned(),
            Place::Unix(_) => None,
        };
        let dial = Dial::new(options).only(permits.cloned());
        Ok(Self(Arc::new(Settings { place, proxy, tls, dial, tls_timeout: options.tls_timeout })))
    }

    /// A new connection; `visited` is the host that the visitor asked for.
    pub(super) async fn connect(&self, visited: &str) -> Result<Stream, ConnectFailure> {
        self.0.connect(visited).await
    }
}

/// How TCP connections to origins are made.
pub(super) struct Dial {
    timeout: Duration,
    keep_alive: Duration,
    /// `None`: one address after the other.
    stagger: Option<Duration>,
    /// `None`: any address.
    permits: Option<Permits>,
}

impl Dial {
    pub(super) fn new(options: &OriginOptions) -> Self {
        Self {
            timeout: options.connect_timeout,
            keep_alive: options.tcp_keep_alive,
            stagger: (!options.no_happy_eyeballs).then_some(eyeballs::STAGGER),
            permits: None,
        }
    }

    /// To no other addresses than these; `None`: to any.
    pub(super) fn only(self, permits: Option<Permits>) -> Self {
        Self { permits, ..self }
    }

    /// To addresses of private networks.
    pub(super) fn private(routing: &WarpRouting) -> Self {
        Self { timeout: routing.connect_timeout, keep_alive: routing.tcp_keep_alive, stagger: None, permits: None }
    }

    /// Connects to a host, by a proxy if there is one.
    pub(super) async fn host(&self, host: &str, port: u16, proxy: Option<&Proxy>) -> Result<TcpStream, ConnectFailure> {
        let connect = async {
            match proxy {
                Some(proxy) => proxy.connect(&format!("{host}:{port}"), None).await,
                None => self.first(&self.permitted(eyeballs::resolve(host, port).await?)?).await,
            }
        };
        let connected = self.in_time(async { self.tuned(connect.await?) }).await;
        connected.map_err(|error| self.failure(&error, &format!("{host}:{port}"), false))
    }

    /// The addresses of a host that may be dialled.
    pub(super) async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ConnectFailure> {
        let found = self.in_time(async { self.permitted(eyeballs::resolve(host, 0).await?) }).await;
        let found = found.map_err(|error| self.failure(&error, host, false))?;
        Ok(found.iter().map(SocketAddr::ip).collect())
    }

    /// Connects to one of these addresses of `name`.
    pub(super) async fn addresses(&self, addresses: &[SocketAddr], name: &str) -> Result<TcpStream, ConnectFailure> {
        let connected = self.in_time(async { self.tuned(self.first(addresses).await?) }).await;
        connected.map_err(|error| self.failure(&error, name, false))
    }

    /// Those that may be dialled. Asked when they are known, so that no name leads around it.
    fn permitted(&self, mut addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        if let Some(permits) = &self.permits {
            addresses.retain(|address| permits(address.ip().to_canonical()));
            if addresses.is_empty() {
                let text = "it is at no address that this edge asks; `--origin-networks` names further ones";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
        }
        Ok(addresses)
    }

    async fn first(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        eyeballs::connect(addresses, self.stagger, tcp).await
    }

    async fn in_time<T>(&self, connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        timeout(limit(self.timeout), connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn tuned(&self, stream: TcpStream) -> io::Result<TcpStream> {
        stream.set_nodelay(true)?;
        if !self.keep_alive.is_zero() {
            let pause = self.keep_alive.clamp(*PROBE_PAUSES.start(), *PROBE_PAUSES.end());
            let probes = TcpKeepalive::new().with_time(pause).with_interval(pause);
            SockRef::from(&stream).set_tcp_keepalive(&probes)?;
        }
        Ok(stream)
    }

    fn failure(&self, error: &io::Error, origin: &str, unix: bool) -> ConnectFailure {
        let fault = connect_fault(error, unix);
        let text = match fault {
            OriginFault::Refused => format!("nobody listens at the origin {origin}: {error}"),
            OriginFault::ConnectTimeout => {
                format!("the origin {origin} did not answer the attempt to connect within {:?}", self.timeout)
            }
            _ => format!("the origin {origin} cannot be reached: {error}"),
        };
        ConnectFailure::new(fault, text)
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, PrepareError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| PrepareError::ServerName(host.to_owned()))
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri.host().unwrap_or_default()).await })
    }
}

impl Settings {
    async fn connect(&self, visited: &str) -> Result<Stream, ConnectFailure> {
        inspector::reached(Stage::Dialled);
        let plain: Box<dyn Io> = match &self.place {
            Place::Tcp { host, port } => Box::new(self.dial.host(host, *port, self.proxy.as_ref()).await?),
            Place::Unix(path) => {
                let connected = self.dial.in_time(unix(path)).await;
                connected.map_err(|error| self.dial.failure(&error, &self.to_string(), true))?
            }
        };
        inspector::reached(Stage::Connected);
        let Some(tls) = &self.tls else { return Ok(Stream::new(plain, false)) };
        let name = match &tls.name {
            Some(name) => name.clone(),
            None => server_name(visited)
                .map_err(|error| ConnectFailure::new(OriginFault::TlsHandshake, format!("matchSNItoHost: {error}")))?,
        };
        let handshake = TlsConnector::from(Arc::clone(&tls.settings)).connect(name, plain);
        let stream = timeout(limit(self.tls_timeout), handshake)
            .await
            .map_err(|_| {
                let text = format!("no TLS handshake with the origin {self} within {:?}", self.tls_timeout);
                ConnectFailure::new(OriginFault::TlsHandshake, text)
            })?
            .map_err(|error| {
                let text = format!("the TLS handshake with the origin {self} failed: {error}");
                ConnectFailure::new(tls_fault(&error), text)
            })?;
        inspector::reached(Stage::Secured);
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream::new(Box::new(stream), http2))
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Tcp { host, port } => write!(f, "{host}:{port}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    with_room(|| TcpStream::connect(address)).await
}

/// Dials again for a while when the program has no descriptor for one more connection: requests that end give some back, and the
/// visitor waits rather than fails.
async fn with_room<T, F: Future<Output = io::Result<T>>>(dial: impl Fn() -> F) -> io::Result<T> {
    let until = Instant::now() + WAIT_FOR_ROOM;
    loop {
        match dial().await {
            Err(error) if is_exhausted(&error) && Instant::now() < until => sleep(ROOM_PAUSE).await,
            dialled => return dialled,
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Zero means no limit in a configuration; a day is one in practice.
fn limit(configured: Duration) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    if configured.is_zero() { DAY } else { configured.min(DAY) }
}

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> io::Result<Box<dyn Io>> {
    Ok(Box::new(with_room(|| tokio::net::UnixStream::connect(path)).await?))
}

#[cfg(not(unix))]
async fn unix(_: &std::path::Path) -> io::Result<Box<dyn Io>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}

/// Any byte stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to an origin, as the client of HTTP/2 wants it.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    http2: bool,
    reused: Reused,
}

impl Stream {
    fn new(io: Box<dyn Io>, http2: bool) -> Self {
        Self { io: TokioIo::new(io), http2, reused: Reused(Arc::new(AtomicBool::new(false))) }
    }

    /// The connection alone.
    pub(super) fn into_inner(self) -> Box<dyn Io> {
        self.io.into_inner()
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.reused.clone());
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
