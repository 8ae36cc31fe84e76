use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use certs::{Certificates, tls};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::handshakes::{Entrance, answer};
use super::places::{Place, Places};
use super::turns::Turns;
use super::{hello, tcp};
use crate::defence::Defence;
use crate::fair::Fair;
use crate::front::prefixed::Prefixed;
use crate::front::{self, Reception};
use crate::streams::{Admitted, Streams, Visitor};
use crate::visit::{Caller, Tls};

/// A visitor's machine that answers nothing for this long is gone. Long enough for a phone in a tunnel of the other
/// kind.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves visitors without TLS until the node stops.
pub(crate) async fn visitors_in_plain(listener: TcpListener, reception: Arc<Reception>, places: Arc<Places>) {
    let entrance = tcp::Entrance::new(listener, SILENCE);
    while let Some((stream, remote)) = entrance.accept(&reception.stop).await {
        let Some(place) = place(&reception, &places, remote) else { continue };
        let serving = front::serve_plain(Turns::new(stream), Caller { remote, tls: None }, Arc::clone(&reception));
        spawn(&reception, place, remote, serving);
    }
}

/// What a visitor who comes for TLS meets.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) streams: Arc<Streams>,
}

/// Serves visitors with TLS over TCP until the node stops.
pub(crate) async fn visitors_over_tls(
    listener: TcpListener,
    door: Door,
    reception: Arc<Reception>,
    places: Arc<Places>,
) {
    let entrance = tcp::Entrance::new(listener, SILENCE);
    while let Some((stream, remote)) = entrance.accept(&reception.stop).await {
        let Some(place) = place(&reception, &places, remote) else { continue };
        // Boxed, so that whoever is through with it does not hold the room.
        let handshake = Box::pin(meet(stream, remote, door.clone(), reception.limits.handshake));
        let serving = {
            let reception = Arc::clone(&reception);
            async move {
                match reception.stop.unless_drained(handshake).await {
                    None => (),
                    Some(Ok(Met::Passing(admitted, visitor))) => admitted.carry(visitor, remote).await,
                    Some(Ok(Met::Refused(defence))) => reception.site.metrics.defended(defence),
                    // An authority that has seen the answer to its question wants nothing else.
                    Some(Ok(Met::Secured(stream))) if tls::is_looking(stream.get_ref().1.alpn_protocol()) => (),
                    Some(Ok(Met::Secured(stream))) => {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        let caller = Caller { remote, tls: Some(Tls::of(stream.get_ref().1)) };
                        // Apart, so that whoever has not come so far takes less.
                        Box::pin(front::serve(stream, is_http2, caller, reception)).await;
                    }
                    Some(Err(Unmet::Failed(error))) => {
                        reception.fairness.doubt(remote.ip());
                        reception.site.metrics.defended(Defence::BadHandshake);
                        tracing::debug!(visitor = %remote, %error, "a TLS handshake failed");
                    }
                    Some(Err(Unmet::Slow)) => {
                        reception.fairness.doubt(remote.ip());
                        reception.site.metrics.defended(Defence::SlowHandshake);
                        tracing::debug!(visitor = %remote, "a TLS handshake took too long");
                    }
                }
            }
        };
        spawn(&reception, place, remote, serving);
    }
}

/// A visitor who came for TLS.
enum Met {
    Secured(Box<TlsStream<Prefixed<Turns<TcpStream>>>>),
    /// Its TLS is the origin's own.
    Passing(Admitted, Visitor),
    Refused(Defence),
}

/// Why a visitor who came for TLS was not met.
enum Unmet {
    Failed(io::Error),
    Slow,
}

impl From<io::Error> for Unmet {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Elapsed> for Unmet {
    fn from(_: Elapsed) -> Self {
        Self::Slow
    }
}

/// A visitor's first message, or what has become of the visitor by then.
enum Heard {
    Hello(Box<StartHandshake<Prefixed<Turns<TcpStream>>>>),
    Met(Met),
}

/// Shakes hands with a visitor, unless the name that it asks for is one whose origin does so.
async fn meet(stream: TcpStream, remote: SocketAddr, door: Door, limit: Duration) -> Result<Met, Unmet> {
    let began = Instant::now();
    let hello = match timeout(limit, hear(stream, remote, &door.streams)).await?? {
        Heard::Hello(hello) => hello,
        Heard::Met(met) => return Ok(met),
    };
    let left = limit.saturating_sub(began.elapsed());
    // A certificate that is being ordered takes its own time, not the visitor's.
    if let Some(waiting) = door.certificates.awaited(&hello.client_hello()) {
        waiting.await;
    }
    Ok(Met::Secured(Box::new(timeout(left, answer(*hello, door.tls)).await??)))
}

async fn hear(mut stream: TcpStream, remote: SocketAddr, streams: &Arc<Streams>) -> io::Result<Heard> {
    let mut read = BytesMut::new();
    // Where no name is passed through, nobody pays for the look.
    if streams.registry.snapshot().passes_any() {
        let name = hello::server_name(&mut stream, &mut read).await?;
        let snapshot = streams.registry.snapshot();
        if let Some(passthrough) = name.as_deref().and_then(|name| snapshot.passthrough(name)) {
            let visitor = Visitor::new(stream, read);
            return Ok(Heard::Met(match streams.admit(&snapshot, (&passthrough.value).into(), remote) {
                Ok(admitted) => Met::Passing(admitted, visitor),
                Err(defence) => Met::Refused(defence),
            }));
        }
    }
    Ok(Heard::Hello(Box::new(
        LazyConfigAcceptor::new(Acceptor::default(), Prefixed::with(read, Turns::new(stream))).await?,
    )))
}

/// Serves visitors over QUIC until the node stops.
pub(crate) async fn visitors_over_quic(endpoint: quinn::Endpoint, reception: Arc<Reception>, places: Arc<Places>) {
    let entrance = Entrance::new(endpoint);
    while let Some(Some(met)) = reception.stop.unless_drained(entrance.next()).await {
        let newcomer = match met {
            Ok(newcomer) => newcomer,
            Err(defence) => {
                reception.site.metrics.defended(defence);
                continue;
            }
        };
        let remote = newcomer.remote();
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let Some(place) = place(&reception, &places, remote) else {
            newcomer.refuse();
            continue;
        };
        let serving = {
            let reception = Arc::clone(&reception);
            async move {
                let account = reception.fairness.of(remote.ip());
                let shaking = newcomer.shake_hands(reception.limits.handshake, account);
                match reception.stop.unless_drained(shaking).await {
                    None => (),
                    Some(Ok(established)) => {
                        let connection = established.connection.clone();
                        let caller = Caller { remote, tls: Some(Tls::of_quic(&connection)) };
                        // Apart, so that whoever has not come so far takes less.
                        Box::pin(front::http3::serve(connection, caller, reception)).await;
                    }
                    Some(Err(error)) => {
                        reception.site.metrics.defended(error.defence());
                        tracing::debug!(visitor = %remote, %error, "a QUIC handshake failed");
                    }
                }
            }
        };
        spawn(&reception, place, remote, serving);
    }
}

/// A place for this visitor's connection, if there is one. A flood is counted, and not told line by line.
fn place(reception: &Reception, places: &Arc<Places>, remote: SocketAddr) -> Option<Place> {
    let refuse = |defence: Defence| {
        reception.site.metrics.defended(defence);
        tracing::debug!(visitor = %remote, limit = defence.label(), "a visitor's connection is refused");
    };
    places.take(remote.ip()).map_err(refuse).ok()
}

fn spawn(reception: &Reception, place: Place, remote: SocketAddr, serving: impl Future<Output = ()> + Send + 'static) {
    let counted = reception.site.metrics.visitor();
    let fairness = &reception.fairness;
    let serving = Fair::new(Box::pin(serving), fairness.clone(), fairness.of(remote.ip()));
    reception.stop.spawn(async move {
        serving.await;
        drop((place, counted));
    });
}
