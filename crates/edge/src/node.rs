use std::future::Ready;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use agent::Directs;
use axum::Router;
use axum::routing::get;
use balance::Board;
use balance::prober::{self, Prober};
use certs::{Certificates, CertsError, tls};
use http::HeaderValue;
use jiff::Timestamp;
use quinn::crypto::rustls::QuicServerConfig;
use registry::{AuthorityPurpose, Hostname, Registry};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use wire::quic::Packets;

use crate::connections::Connections;
use crate::fair::Fairness;
use crate::flows::Flows;
use crate::front::{self, Reception};
use crate::gate::Gate;
use crate::listen;
use crate::metrics::{Metrics, members};
use crate::ports;
use crate::reach;
use crate::site::{self, AnswerDns, Questions, RequestEvent, Site};
use crate::sockets::{Pair, Sockets};
use crate::stop::Stop;
use crate::streams::Streams;
use crate::tunnels::Tunnels;
use crate::{Addresses, Config};

/// How long agents may take to part once no request is under way.
const PARTING: Duration = Duration::from_secs(2);
/// Seconds for which a visitor may remember that there is HTTP/3.
const HTTP3_KNOWN: u32 = 24 * 3600;
/// Between two looks at the authority for origins.
const LOOK: Duration = Duration::from_secs(1);
/// How long closing messages may take to leave after everything else has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// One node of the edge: its listeners, and the way of each request from a visitor to an agent.
#[derive(Debug, Clone, Copy)]
pub struct Edge;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be used.
    #[error("a socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// The TLS settings cannot be made.
    #[error(transparent)]
    Certificates(#[from] CertsError),
}

/// A node at work. Dropping it does not stop it; [`Running::shutdown`] does.
pub struct Running {
    addresses: Addresses,
    /// Ends what serves visitors and callers of the API.
    visits: Stop,
    /// Ends what serves agents, which visits need to the last.
    agents: Stop,
    tunnels: Arc<Tunnels>,
    endpoints: Vec<quinn::Endpoint>,
    events: broadcast::Sender<RequestEvent>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    questions: Arc<OnceLock<Questions>>,
}

impl Edge {
    /// Starts a node on these sockets. `api` makes the API's router from the handle on the connections of agents; the
    /// metrics are added to it.
    ///
    /// # Errors
    ///
    /// A socket or the TLS settings cannot be used. Nothing runs then.
    pub fn start(
        config: &Config,
        sockets: Sockets,
        registry: Registry,
        certificates: &Arc<Certificates>,
        api: impl FnOnce(Connections) -> Router,
    ) -> Result<Running, StartError> {
        let addresses = sockets.addresses()?;
        let (visits, agents) = (Stop::default(), Stop::default());
        let metrics = Arc::new(Metrics::new());
        let events = site::events();
        let tunnels = Tunnels::new(
            registry.clone(),
            config.location.clone(),
            &config.limits,
            Arc::clone(&metrics),
            agents.clone(),
        );
        let (board, members_of) = (Arc::new(Board::at(&config.location)), registry.clone());
        let directs = Arc::new(Directs::new(Arc::clone(&config.origins)));
        let questions = Arc::<OnceLock<Questions>>::default();
        let fairness = Fairness::new(metrics.known_networks());
        let site = Site {
            questions: Arc::clone(&questions),
            registry: registry.clone(),
            gate: Gate::new(),
            tunnels: Arc::clone(&tunnels),
            board: Arc::clone(&board),
            directs: Arc::clone(&directs),
            metrics: Arc::clone(&metrics),
            limits: config.limits,
            location: config.location.clone(),
            geography: Arc::clone(&config.geography),
            events: events.clone(),
            fairness: fairness.clone(),
        };
        let reception = Arc::new(Reception {
            site: Arc::new(site),
            limits: config.limits,
            stop: visits.clone(),
            fairness: fairness.clone(),
            alt_svc: HeaderValue::try_from(format!("h3=\":{}\"; ma={HTTP3_KNOWN}", addresses.https.port())).ok(),
        });

        let visitor_tls = tls::visitor_tls(certificates)?;
        let api_tls = tls::api_tls(certificates)?;
        let tunnel_tls = tls::tunnel_tls(certificates)?;
        let http = tokio_listener(sockets.http)?;
        let (https, https_udp) = pair(sockets.https)?;
        let visitors_settings =
            quic_settings(tls::visitor_quic(certificates)?, front::http3::transport_config(config.limits.streams));
        let visitors_quic = endpoint(https_udp, certificates, visitors_settings, &metrics, &fairness)?;
        let tunnel_listeners = tunnel_listeners(sockets.tunnel, certificates, &metrics, &fairness)?;
        let dialled = tunnel_listeners.iter().map(|(_, quic, _)| quic.clone());
        let endpoints = std::iter::once(visitors_quic.clone()).chain(dialled).collect();
        let streams = Arc::new(Streams {
            registry,
            tunnels: Arc::clone(&tunnels),
            metrics: Arc::clone(&metrics),
            limits: config.limits,
            open: Mutex::default(),
            fairness: fairness.clone(),
        });
        let api_listener = tokio_listener(sockets.api)?;
        let (promises, asked) = ports::promises();
        let ways = reach::Ways { tunnels: Arc::clone(&tunnels), directs: Arc::clone(&directs) };
        let prober = Prober::new(members_of.clone(), Arc::new(ways));
        let counted =
            metrics_of(Arc::clone(&metrics), Arc::clone(certificates), Arc::clone(&board), members_of.clone());
        let router =
            api(Connections::new(Arc::clone(&tunnels), promises, prober.clone(), Arc::clone(&board), fairness.clone()))
                .route("/metrics", get(counted));

        // From here on nothing can fail any more.
        let limits = config.limits;
        let places = listen::Places::of_visitors(&limits);
        agents.spawn(Arc::clone(&tunnels).follow());
        agents.spawn(keep_trust(directs, members_of.clone(), agents.clone()));
        agents.spawn(balance::keep_history(members_of.clone(), Arc::clone(&board), agents.draining()));
        agents.spawn(prober::keep_fresh(members_of, Arc::clone(&board), agents.draining()));
        agents.spawn(prober.run(agents.draining()));
        if let Some(range) = config.ports.clone() {
            let flows =
                Flows::new(Arc::clone(&streams), listen::Places::of_flows(&limits), visits.clone(), fairness.clone());
            let setting = ports::Setting {
                streams: Arc::clone(&streams),
                places: Arc::clone(&places),
                flows,
                stop: visits.clone(),
                fairness: fairness.clone(),
                address: addresses.https.ip(),
                range,
            };
            visits.spawn(ports::keep(setting, asked));
        }
        let listener = listen::Agents {
            tunnels: Arc::clone(&tunnels),
            metrics: Arc::clone(&reception.site.metrics),
            places: listen::Places::of_newcomers(&limits),
            limits,
            stop: agents.clone(),
            fairness: fairness.clone(),
        };
        for (tcp, quic, jumbo) in tunnel_listeners {
            agents.spawn(listener.clone().over_tls(tcp, Arc::clone(&tunnel_tls)));
            agents.spawn(listener.clone().over_quic(quic, jumbo));
        }
        visits.spawn(listen::visitors_in_plain(http, Arc::clone(&reception), Arc::clone(&places)));
        visits.spawn(listen::visitors_over_tls(
            https,
            listen::Door { tls: Arc::clone(&visitor_tls), certificates: Arc::clone(certificates), streams },
            Arc::clone(&reception),
            Arc::clone(&places),
        ));
        visits.spawn(listen::visitors_over_quic(visitors_quic, reception, places));
        visits.spawn(listen::api(
            api_listener,
            api_tls,
            router,
            limits,
            visits.clone(),
            fairness,
            Arc::clone(&metrics),
        ));
        Ok(Running { addresses, visits, agents, tunnels, endpoints, events, metrics, board, questions })
    }
}

impl Running {
    /// The addresses as bound.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What this node knows of load balancers' members.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Tells each request from now on, when its answer begins. Who reads too slowly misses some.
    pub fn requests(&self) -> broadcast::Receiver<RequestEvent> {
        self.events.subscribe()
    }

    /// Shows these metrics, too, in the text form of Prometheus: of what runs beside the edge in the same program. Once.
    pub fn count_also(&self, others: impl Fn() -> String + Send + Sync + 'static) {
        self.metrics.count_also(Box::new(others));
    }

    /// Answers questions of DNS over HTTPS at this name from now on (RFC 8484). Once.
    pub fn answer_dns(&self, domain: Hostname, answer: AnswerDns) {
        let _ = self.questions.set(Questions { domain, answer });
    }

    /// Takes nothing new, lets what is under way finish for up to `grace`, cuts off the rest, and answers whether
    /// there was none. Dropping the future cuts nothing; call it again with no grace for that.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.visits.drain();
        self.agents.drain();
        let in_time = tokio::select! {
            in_time = self.finish(grace) => in_time,
            // The system refuses newcomers over TCP by itself once nobody listens.
            never = listen::refuse_newcomers(&self.endpoints) => match never {},
        };
        for endpoint in &self.endpoints {
            endpoint.close(0_u32.into(), b"");
        }
        for endpoint in &self.endpoints {
            // A visitor that has vanished is not waited for.
            let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        }
        in_time
    }

    /// Visits first, and then the agents that they need.
    async fn finish(&self, grace: Duration) -> bool {
        let in_time = self.visits.finish(grace).await;
        self.tunnels.drain();
        self.agents.finish(grace.min(PARTING)).await;
        in_time
    }
}

impl Sockets {
    /// The addresses as bound.
    ///
    /// # Errors
    ///
    /// The system does not know one.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            http: self.http.local_addr()?,
            https: self.https.tcp.local_addr()?,
            tunnel: self.tunnel.iter().map(|pair| pair.tcp.local_addr()).collect::<io::Result<Vec<SocketAddr>>>()?,
            api: self.api.local_addr()?,
        })
    }
}

/// Has those who are asked at addresses judged by the authority for origins that there is.
async fn keep_trust(directs: Arc<Directs>, registry: Registry, stop: Stop) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.unless_drained(looks.tick()).await.is_some() {
        let (snapshot, now) = (registry.snapshot(), Timestamp::now());
        let authority = snapshot.authority(AuthorityPurpose::Origin);
        if let Some(Err(error)) = authority.map(|authority| directs.trust(&authority.trusted(now))) {
            tracing::warn!(%error, "the authority for origins' certificates cannot be used");
        }
    }
}

/// Answers with everything that the node counts.
fn metrics_of(
    metrics: Arc<Metrics>,
    certificates: Arc<Certificates>,
    board: Arc<Board>,
    registry: Registry,
) -> impl Fn() -> Ready<String> + Clone {
    move || {
        if let Some(tally) = certificates.tally() {
            metrics.ordered(tally);
        }
        let of_members = members::text(&board, &registry.snapshot());
        std::future::ready(metrics.text() + &of_members + &board.news().text())
    }
}

fn pair(pair: Pair) -> io::Result<(TcpListener, std::net::UdpSocket)> {
    Ok((tokio_listener(pair.tcp)?, pair.udp))
}

/// Where agents dial: over TCP, over QUIC, and with which settings over QUIC those whose way may take large packets.
type TunnelListener = (TcpListener, quinn::Endpoint, Arc<quinn::ServerConfig>);

fn tunnel_listeners(
    pairs: Vec<Pair>,
    certificates: &Arc<Certificates>,
    metrics: &Arc<Metrics>,
    fairness: &Fairness,
) -> Result<Vec<TunnelListener>, StartError> {
    let listeners = pairs.into_iter().map(|sockets| {
        let (tcp, udp) = pair(sockets)?;
        let crypto = tls::tunnel_quic(certificates)?;
        let usual = quic_settings(crypto, wire::quic::edge_transport_config(Packets::Usual));
        let mut jumbo = usual.clone();
        jumbo.transport_config(Arc::new(wire::quic::edge_transport_config(Packets::Jumbo)));
        Ok((tcp, endpoint(udp, certificates, usual, metrics, fairness)?, Arc::new(jumbo)))
    });
    listeners.collect()
}

fn tokio_listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn quic_settings(crypto: Arc<QuicServerConfig>, transport: quinn::TransportConfig) -> quinn::ServerConfig {
    let mut settings = quinn::ServerConfig::with_crypto(crypto);
    settings.transport_config(Arc::new(transport));
    settings
}

fn endpoint(
    socket: std::net::UdpSocket,
    certificates: &Certificates,
    settings: quinn::ServerConfig,
    metrics: &Arc<Metrics>,
    fairness: &Fairness,
) -> io::Result<quinn::Endpoint> {
    let metrics = Arc::clone(metrics);
    let server = wire::quic::Server {
        settings,
        on_loss: Arc::new(move |packets| metrics.lost_packets(packets)),
        take_turns: listen::take_turns(fairness.clone()),
    };
    wire::quic::endpoint(tls::quic_endpoint(certificates, socket.local_addr()?), Some(server), socket)
}
