use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::tls::TUNNEL_PROBE_NAME;
use quinn::crypto::rustls::HandshakeData;
use rustls::ServerConfig;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::tcp;
use crate::Limits;
use crate::stop::Stop;
use crate::tunnels::{Door, Tunnels};

/// An agent's machine that answers nothing for this long is gone. Agents must be found gone within 10 s.
const SILENCE: Duration = Duration::from_secs(8);

/// Bytes taken from the socket at once; the TLS library alone would take a quarter of a record.
const READ: usize = 64 << 10;

/// What every listener for agents needs.
#[derive(Clone)]
pub(crate) struct Agents {
    pub(crate) tunnels: Arc<Tunnels>,
    /// Taken by connections that are not registered yet.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) limits: Limits,
    pub(crate) stop: Stop,
}

impl Agents {
    /// Serves agents over TCP until the node stops.
    pub(crate) async fn over_tls(self, listener: TcpListener, tls: Arc<ServerConfig>) {
        let acceptor = TlsAcceptor::from(tls);
        while let Some((stream, remote)) = tcp::accept(&listener, &self.stop).await {
            let Some(place) = self.place(remote) else { continue };
            tcp::tune(&stream, SILENCE);
            self.stop.spawn(self.clone().dialled_over_tls(stream, remote, acceptor.clone(), place));
        }
    }

    async fn dialled_over_tls(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        acceptor: TlsAcceptor,
        place: OwnedSemaphorePermit,
    ) {
        let stream = match timeout(self.limits.handshake, acceptor.accept(BufReader::with_capacity(READ, stream))).await
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(agent = %remote, %error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!(agent = %remote, "a TLS handshake took too long"),
        };
        if stream.get_ref().1.server_name() == Some(TUNNEL_PROBE_NAME) {
            return tracing::debug!(agent = %remote, "an agent has tried the way over TCP");
        }
        let door = Door::new(self.tunnels, place);
        let serving = wire::http2::edge::serve(stream, remote, Arc::clone(&door));
        serve(serving, &door, remote, self.limits).await;
    }

    /// Serves agents over QUIC until the node stops.
    pub(crate) async fn over_quic(self, endpoint: quinn::Endpoint) {
        loop {
            let incoming = tokio::select! {
                () = self.stop.drained() => return,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            // With half of the places taken, agents show first that their address is theirs.
            if self.places.available_permits() < self.limits.unregistered / 2 && incoming.may_retry() {
                // It fails only for those that cannot be asked.
                let _ = incoming.retry();
                continue;
            }
            let remote = incoming.remote_address();
            let Some(place) = self.place(remote) else {
                incoming.refuse();
                continue;
            };
            self.stop.spawn(self.clone().dialled_over_quic(incoming, remote, place));
        }
    }

    async fn dialled_over_quic(self, incoming: quinn::Incoming, remote: SocketAddr, place: OwnedSemaphorePermit) {
        let handshake = async { incoming.accept()?.await };
        let connection = match timeout(self.limits.handshake, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(agent = %remote, %error, "a QUIC handshake failed"),
            Err(_) => return tracing::debug!(agent = %remote, "a QUIC handshake took too long"),
        };
        let asked = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        if asked.and_then(|data| data.server_name).as_deref() == Some(TUNNEL_PROBE_NAME) {
            tracing::debug!(agent = %remote, "an agent has tried the way over QUIC");
            return connection.close(0_u32.into(), b"");
        }
        let door = Door::new(self.tunnels, place);
        let serving = wire::quic::edge::serve(connection, Arc::clone(&door));
        serve(serving, &door, remote, self.limits).await;
    }

    fn place(&self, remote: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            tracing::warn!(agent = %remote, "the limit of connections that are not registered is reached");
        }
        place
    }
}

/// Serves a connection until it ends, or has not registered in time.
async fn serve(serving: impl Future<Output = String>, door: &Door, remote: SocketAddr, limits: Limits) {
    tokio::pin!(serving);
    let reason = tokio::select! {
        reason = &mut serving => reason,
        registered = timeout(limits.registration, door.registered()) => match registered {
            Ok(()) => serving.await,
            Err(_) => "it did not register in time".to_owned(),
        },
    };
    tracing::debug!(agent = %remote, reason, "an agent's connection has ended");
}
