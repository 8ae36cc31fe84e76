use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::tls::TUNNEL_PROBE_NAME;
use quinn::crypto::rustls::HandshakeData;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wire::Ended;
use wire::http2::ReadAhead;
use wire::quic::Packets;

use super::handshakes::{Entrance, Newcomer, shake_hands};
use super::places::{Place, Places};
use super::tcp;
use super::turns::Turns;
use crate::Limits;
use crate::defence::Defence;
use crate::fair::{Account, Fair, Fairness, Payer};
use crate::metrics::Metrics;
use crate::stop::Stop;
use crate::tunnels::{Door, Tunnels};

/// An agent's machine that answers nothing for this long is gone. Agents must be found gone within 10 s.
const SILENCE: Duration = Duration::from_secs(8);

/// What every listener for agents needs.
#[derive(Clone)]
pub(crate) struct Agents {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) metrics: Arc<Metrics>,
    /// Taken by connections that are not registered yet.
    pub(crate) places: Arc<Places>,
    pub(crate) limits: Limits,
    pub(crate) stop: Stop,
    pub(crate) fairness: Fairness,
}

impl Agents {
    /// Serves agents over TCP until the node stops.
    pub(crate) async fn over_tls(self, listener: TcpListener, tls: Arc<ServerConfig>) {
        let entrance = tcp::Entrance::new(listener, SILENCE);
        while let Some((stream, remote)) = entrance.accept(&self.stop).await {
            let Some(place) = self.place(remote) else { continue };
            let tls = Arc::clone(&tls);
            self.spawn(remote, |agents, payer| agents.dialled_over_tls(stream, remote, tls, place, payer));
        }
    }

    async fn dialled_over_tls(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        tls: Arc<ServerConfig>,
        place: Place,
        payer: Payer,
    ) {
        let stream = ReadAhead::new(Turns::new(stream));
        let stream = match timeout(self.limits.handshake, shake_hands(stream, tls)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.fairness.doubt(remote.ip());
                self.metrics.defended(Defence::BadHandshake);
                return tracing::debug!(agent = %remote, %error, "a TLS handshake failed");
            }
            Err(_) => {
                self.fairness.doubt(remote.ip());
                self.metrics.defended(Defence::SlowHandshake);
                return tracing::debug!(agent = %remote, "a TLS handshake took too long");
            }
        };
        if stream.get_ref().1.server_name() == Some(TUNNEL_PROBE_NAME) {
            return tracing::debug!(agent = %remote, "an agent has tried the way over TCP");
        }
        let door = Door::new(Arc::clone(&self.tunnels), place);
        let serving = wire::http2::edge::serve(stream, remote, Arc::clone(&door));
        // Apart, so that whoever has not come so far takes less.
        Box::pin(self.serve(serving, &door, remote, &payer)).await;
    }

    /// Serves agents over QUIC until the node stops. `jumbo` is for those whose way may take large packets.
    pub(crate) async fn over_quic(self, endpoint: quinn::Endpoint, jumbo: Arc<quinn::ServerConfig>) {
        let entrance = Entrance::new(endpoint);
        while let Some(Some(met)) = self.stop.unless_drained(entrance.next()).await {
            let newcomer = match met {
                Ok(newcomer) => newcomer,
                Err(defence) => {
                    self.metrics.defended(defence);
                    continue;
                }
            };
            let remote = newcomer.remote();
            let Some(place) = self.place(remote) else {
                newcomer.refuse();
                continue;
            };
            let newcomer = match Packets::towards(remote) {
                Packets::Usual => newcomer,
                Packets::Jumbo => newcomer.with(Arc::clone(&jumbo)),
            };
            self.spawn(remote, |agents, payer| agents.dialled_over_quic(newcomer, remote, place, payer));
        }
    }

    async fn dialled_over_quic(self, newcomer: Newcomer, remote: SocketAddr, place: Place, payer: Payer) {
        let established = match newcomer.shake_hands(self.limits.handshake, payer.clone()).await {
            Ok(established) => established,
            Err(error) => {
                self.metrics.defended(error.defence());
                return tracing::debug!(agent = %remote, %error, "a QUIC handshake failed");
            }
        };
        let connection = established.connection.clone();
        let asked = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        if asked.and_then(|data| data.server_name).as_deref() == Some(TUNNEL_PROBE_NAME) {
            tracing::debug!(agent = %remote, "an agent has tried the way over QUIC");
            return connection.close(0_u32.into(), b"");
        }
        let door = Door::new(Arc::clone(&self.tunnels), place);
        let serving = wire::quic::edge::serve(connection, Arc::clone(&door));
        Box::pin(self.serve(serving, &door, remote, &payer)).await;
    }

    /// Each connection takes its turns for itself once it is registered: many agents may have one address, and one may have several
    /// tunnels.
    fn spawn<Serving>(&self, remote: SocketAddr, serve: impl FnOnce(Self, Payer) -> Serving)
    where
        Serving: Future<Output = ()> + Send + 'static,
    {
        let payer = Payer::from(self.fairness.of(remote.ip()));
        let serving = Box::pin(serve(self.clone(), payer.clone()));
        self.stop.spawn(Fair::new(serving, self.fairness.clone(), payer));
    }

    /// A place for a connection that has not registered, if there is one. A flood is counted, and not told line by line.
    fn place(&self, remote: SocketAddr) -> Option<Place> {
        let place = self.places.take(remote.ip()).ok();
        if place.is_none() {
            self.metrics.defended(Defence::Unregistered);
            tracing::debug!(agent = %remote, "the limit of connections that are not registered is reached");
        }
        place
    }

    /// Serves a connection until it ends, or has not registered in time.
    async fn serve(&self, serving: impl Future<Output = Ended>, door: &Door, remote: SocketAddr, payer: &Payer) {
        tokio::pin!(serving);
        let Ended { reason, breach } = tokio::select! {
            ended = &mut serving => ended,
            registered = timeout(self.limits.registration, door.registered()) => match registered {
                Ok(()) => {
                    payer.becomes(Account::known());
                    // An agent that comes back is no newcomer.
                    self.fairness.prove(remote.ip());
                    serving.await
                }
                Err(_) => Ended { reason: "it did not register in time".to_owned(), breach: None },
            },
        };
        if !door.is_registered() {
            self.metrics.defended(Defence::NoRegistration);
        } else if let Some(breach) = breach {
            let defence = Defence::of_agent(breach);
            self.metrics.defended(defence);
            tracing::info!(agent = %remote, limit = defence.label(), reason, "an agent's connection was ended in defence");
        }
        tracing::debug!(agent = %remote, reason, "an agent's connection has ended");
    }
}
