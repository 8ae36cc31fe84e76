//! The edge's end: accepts agents over both transports on one port number, and sends requests to them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use certs::{Authority, Certificates, Names};
use http::{Request, Response};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;
use wire::registration::{LocalConfiguration, Refused, Registered, Registration};
use wire::{Body, Connection, ExchangeError, Interim, Kind, Registrar};

use crate::within;

/// A node that is nothing but its tunnel listener.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) ca: String,
    pub(crate) registry: Arc<Registry>,
    directory: Arc<TempDir>,
    listeners: Vec<JoinHandle<()>>,
}

/// What the edge knows of its agents.
pub(crate) struct Registry {
    live: watch::Sender<Vec<Live>>,
    pub(crate) reports: watch::Sender<Vec<LocalConfiguration>>,
    pub(crate) registrations: watch::Sender<Vec<Registration>>,
    /// Answers to give before agents are accepted.
    pub(crate) refusals: Mutex<Vec<Refused>>,
    pub(crate) remotely_managed: bool,
}

#[derive(Clone)]
struct Live {
    id: Uuid,
    index: u8,
    connection: Connection,
}

impl Registrar for Registry {
    async fn register(&self, registration: Registration, connection: Connection) -> Result<Registered, Refused> {
        let index = registration.connection_index;
        self.registrations.send_modify(|list| list.push(registration));
        if let Some(refusal) = self.refusals.lock().unwrap().pop() {
            return Err(refusal);
        }
        let id = Uuid::new_v4();
        self.live.send_modify(|live| {
            live.retain(|other| other.index != index);
            live.push(Live { id, index, connection });
        });
        Ok(Registered {
            connection: id,
            location: "tst1".to_owned(),
            remotely_managed: self.remotely_managed,
            origin_ca: None,
        })
    }

    async fn local_configuration(&self, _: Uuid, configuration: LocalConfiguration) -> Result<(), String> {
        self.reports.send_modify(|reports| reports.push(configuration));
        Ok(())
    }

    fn closed(&self, connection: Uuid, _: &str) {
        self.live.send_modify(|live| live.retain(|other| other.id != connection));
    }
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::build(Arc::new(tempfile::tempdir().unwrap()), "127.0.0.1:0".parse().unwrap(), true, false).await
    }

    /// One whose UDP port swallows everything.
    pub(crate) async fn without_udp() -> Self {
        Self::build(Arc::new(tempfile::tempdir().unwrap()), "127.0.0.1:0".parse().unwrap(), false, false).await
    }

    pub(crate) async fn managing() -> Self {
        Self::build(Arc::new(tempfile::tempdir().unwrap()), "127.0.0.1:0".parse().unwrap(), true, true).await
    }

    /// A second node of the same authority.
    pub(crate) async fn sibling(&self) -> Self {
        Self::build(Arc::clone(&self.directory), "127.0.0.1:0".parse().unwrap(), true, false).await
    }

    /// Ends as a killed process does, and comes back at the same address.
    pub(crate) async fn restarted(mut self) -> Self {
        self.kill().await;
        Self::build(Arc::clone(&self.directory), self.address, true, false).await
    }

    pub(crate) async fn kill(&mut self) {
        for listener in self.listeners.drain(..) {
            listener.abort();
            let _ = listener.await;
        }
    }

    async fn build(directory: Arc<TempDir>, address: SocketAddr, udp: bool, remotely_managed: bool) -> Self {
        let registry = Arc::new(Registry {
            live: watch::Sender::default(),
            reports: watch::Sender::default(),
            registrations: watch::Sender::default(),
            refusals: Mutex::default(),
            remotely_managed,
        });
        let authority = Arc::new(Authority::load_or_create(directory.path(), SystemTime::now()).unwrap());
        let ca = authority.certificate_pem().to_owned();
        let names = Names { domains: vec!["edge.test".to_owned()], addresses: Vec::new() };
        let certificates = Certificates::new(authority, names).unwrap();
        let (tcp, quic) = sockets(address).await;
        let address = tcp.local_addr().unwrap();
        let tls = TlsAcceptor::from(certs::tls::tunnel_tls(&certificates).unwrap());
        let mut listeners = vec![tokio::spawn(accept_tcp(tcp, tls, Arc::clone(&registry)))];
        if udp {
            let mut settings = quinn::ServerConfig::with_crypto(certs::tls::tunnel_quic(&certificates).unwrap());
            settings.transport_config(Arc::new(wire::quic::edge_transport_config(wire::quic::Packets::Jumbo)));
            let server =
                wire::quic::Server { settings, on_loss: Arc::new(|_| {}), take_turns: Arc::new(|driver| driver) };
            let endpoint = wire::quic::endpoint(quinn::EndpointConfig::default(), Some(server), quic).unwrap();
            listeners.push(tokio::spawn(accept_quic(endpoint, Arc::clone(&registry))));
        } else {
            listeners.push(tokio::spawn(async move {
                let _held = quic;
                std::future::pending::<()>().await;
            }));
        }
        Self { address, ca, registry, directory, listeners }
    }

    /// Waits until exactly so many connections are registered.
    pub(crate) async fn has(&self, count: usize) {
        let mut live = self.registry.live.subscribe();
        within(&format!("{count} connections"), live.wait_for(|live| live.len() == count)).await.unwrap();
    }

    /// A registered connection, waited for.
    pub(crate) async fn connection(&self) -> Connection {
        let mut live = self.registry.live.subscribe();
        let live = within("a connection", live.wait_for(|live| !live.is_empty())).await.unwrap();
        live[0].connection.clone()
    }

    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.registry.live.borrow().iter().map(|live| live.connection.clone()).collect()
    }

    /// Sends a request over some connection and waits for the head of the answer.
    pub(crate) async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, ExchangeError> {
        let connection = self.connection().await;
        within("the answer", connection.exchange(Kind::Http, request, Interim::unwanted())).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(format!("https://app.test{path}")).body(Body::empty()).unwrap();
        let response = self.exchange(request).await.unwrap();
        (response.status().as_u16(), text(response.into_body()).await)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

pub(crate) async fn text(body: Body) -> String {
    let bytes = within("the body", body.collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// How often a port is tried that somebody has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The same port number for both transports, any where none is given. A fixed one may be held by the one before for a moment.
async fn sockets(mut address: SocketAddr) -> (TcpListener, std::net::UdpSocket) {
    if address.port() == 0 {
        address = harness::lasting_address();
    }
    for _ in 0..100 {
        if let Ok(tcp) = TcpListener::bind(address).await
            && let Ok(udp) = std::net::UdpSocket::bind(address)
        {
            return (tcp, udp);
        }
        // Nothing announces that a port is free.
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("{address} is not free for both TCP and UDP");
}

async fn accept_tcp(listener: TcpListener, tls: TlsAcceptor, registry: Arc<Registry>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, remote)) = listener.accept().await {
        let (tls, registry) = (tls.clone(), Arc::clone(&registry));
        connections.spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                wire::http2::edge::serve(stream, remote, registry).await;
            }
        });
    }
}

async fn accept_quic(endpoint: quinn::Endpoint, registry: Arc<Registry>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let registry = Arc::clone(&registry);
        connections.spawn(async move {
            if let Ok(connection) = incoming.await {
                wire::quic::edge::serve(connection, registry).await;
            }
        });
    }
}

/// The directory of the edge's authority, for files of a test.
impl AsRef<Path> for Edge {
    fn as_ref(&self) -> &Path {
        self.directory.path()
    }
}
