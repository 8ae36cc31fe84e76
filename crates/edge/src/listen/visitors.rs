use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::handshakes::Handshakes;
use super::places::{Place, Places};
use super::turns::Turns;
use super::{hello, tcp};
use crate::defence::Defence;
use crate::front::prefixed::Prefixed;
use crate::front::{self, Reception};
use crate::streams::{Admitted, Streams, Visitor};
use crate::visit::Caller;

/// A visitor's machine that answers nothing for this long is gone. Long enough for a phone in a tunnel of the other
/// kind.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves visitors without TLS until the node stops.
pub(crate) async fn visitors_in_plain(listener: TcpListener, reception: Arc<Reception>, places: Arc<Places>) {
    let entrance = tcp::Entrance::new(listener, SILENCE);
    while let Some((stream, remote)) = entrance.accept(&reception.stop).await {
        let Some(place) = place(&reception, &places, remote) else { continue };
        let serving = front::serve_plain(Turns::new(stream), Caller { remote, secure: false }, Arc::clone(&reception));
        spawn(&reception, place, serving);
    }
}

/// Serves visitors with TLS over TCP until the node stops.
pub(crate) async fn visitors_over_tls(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    reception: Arc<Reception>,
    places: Arc<Places>,
    handshakes: Arc<Handshakes>,
    streams: Arc<Streams>,
) {
    let entrance = tcp::Entrance::new(listener, SILENCE);
    while let Some((stream, remote)) = entrance.accept(&reception.stop).await {
        let Some(place) = place(&reception, &places, remote) else { continue };
        let meeting = meet(stream, remote, Arc::clone(&tls), Arc::clone(&handshakes), Arc::clone(&streams));
        // Boxed, so that whoever is through with it does not hold the room.
        let handshake = Box::pin(timeout(reception.limits.handshake, meeting));
        let serving = {
            let reception = Arc::clone(&reception);
            async move {
                match reception.stop.unless_drained(handshake).await {
                    None => (),
                    Some(Ok(Ok(Met::Passing(admitted, visitor)))) => admitted.carry(visitor, remote).await,
                    Some(Ok(Ok(Met::Refused(defence)))) => reception.site.metrics.defended(defence),
                    Some(Ok(Ok(Met::Secured(stream)))) => {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        // Apart, so that whoever has not come so far takes less.
                        Box::pin(front::serve(stream, is_http2, Caller { remote, secure: true }, reception)).await;
                    }
                    Some(Ok(Err(error))) => {
                        reception.site.metrics.defended(Defence::BadHandshake);
                        tracing::debug!(visitor = %remote, %error, "a TLS handshake failed");
                    }
                    Some(Err(_)) => {
                        reception.site.metrics.defended(Defence::SlowHandshake);
                        tracing::debug!(visitor = %remote, "a TLS handshake took too long");
                    }
                }
            }
        };
        spawn(&reception, place, serving);
    }
}

/// A visitor who came for TLS.
enum Met {
    Secured(Box<TlsStream<Prefixed<Turns<TcpStream>>>>),
    /// Its TLS is the origin's own.
    Passing(Admitted, Visitor),
    Refused(Defence),
}

/// Shakes hands with a visitor, unless the name that it asks for is one whose origin does so.
async fn meet(
    mut stream: TcpStream,
    remote: SocketAddr,
    tls: Arc<ServerConfig>,
    handshakes: Arc<Handshakes>,
    streams: Arc<Streams>,
) -> io::Result<Met> {
    let mut read = BytesMut::new();
    // Where no name is passed through, nobody pays for the look.
    if streams.registry.snapshot().passes_any() {
        let name = hello::server_name(&mut stream, &mut read).await?;
        let snapshot = streams.registry.snapshot();
        if let Some(passthrough) = name.as_deref().and_then(|name| snapshot.passthrough(name)) {
            let visitor = Visitor::new(stream, read);
            return Ok(match streams.admit(&snapshot, (&passthrough.value).into(), remote) {
                Ok(admitted) => Met::Passing(admitted, visitor),
                Err(defence) => Met::Refused(defence),
            });
        }
    }
    Ok(Met::Secured(Box::new(handshakes.shake_hands(Prefixed::with(read, Turns::new(stream)), tls).await?)))
}

/// Serves visitors over QUIC until the node stops.
pub(crate) async fn visitors_over_quic(
    endpoint: quinn::Endpoint,
    reception: Arc<Reception>,
    places: Arc<Places>,
    handshakes: Arc<Handshakes>,
) {
    let entrance = handshakes.at(endpoint);
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
                match reception.stop.unless_drained(newcomer.shake_hands(reception.limits.handshake)).await {
                    None => (),
                    Some(Ok(established)) => {
                        let connection = established.connection.clone();
                        // Apart, so that whoever has not come so far takes less.
                        Box::pin(front::http3::serve(connection, Caller { remote, secure: true }, reception)).await;
                    }
                    Some(Err(error)) => {
                        reception.site.metrics.defended(error.defence());
                        tracing::debug!(visitor = %remote, %error, "a QUIC handshake failed");
                    }
                }
            }
        };
        spawn(&reception, place, serving);
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

fn spawn(reception: &Reception, place: Place, serving: impl Future<Output = ()> + Send + 'static) {
    let counted = reception.site.metrics.visitor();
    let serving = Box::pin(serving);
    reception.stop.spawn(async move {
        serving.await;
        drop((place, counted));
    });
}
