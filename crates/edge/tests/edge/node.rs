use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::tls::{self, Roots};
use certs::{Authority, Certificates, Names};
use edge::{Addresses, Config, Connections, Edge, Limits, Running};
use jiff::Timestamp;
use registry::{ConfigSource, Hostname, NewTunnel, Registry, Tunnel, TunnelName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;
use wire::identity::TunnelSecret;
use wire::registration::{BASE_FEATURES, Registered, Registration};
use wire::{AgentConnection, ConnectError, Extensions, Transport};

use crate::origin::Origin;

/// Longer than anything on loopback takes, shorter than a person's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A limit that is short for a test which waits for it, and leaves a busy machine time for what is to be done under it.
pub(crate) const AMPLE: Duration = Duration::from_secs(3);

pub(crate) const BOTH: [Transport; 2] = [Transport::Http2, Transport::Quic];

/// A node with one zone, `edge.test`.
pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) registry: Registry,
    pub(crate) connections: Connections,
    pub(crate) ca: String,
    _directory: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::configured(limits, None).await
    }

    /// A node on which tunnels may have these ports.
    pub(crate) async fn with_ports(limits: Limits, ports: RangeInclusive<u16>) -> Self {
        Self::configured(limits, Some(ports)).await
    }

    async fn configured(limits: Limits, ports: Option<RangeInclusive<u16>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(directory.path(), SystemTime::now()).unwrap());
        let ca = authority.certificate_pem().to_owned();
        let names = Names { domains: vec!["edge.test".into()], addresses: Vec::new() };
        let certificates = Certificates::new(authority, names).unwrap();
        let registry = Registry::in_memory(Timestamp::now()).await.unwrap();
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets = edge::listen(&Addresses { http: free, https: free, tunnel: vec![free], api: free }).unwrap();
        let config =
            Config { location: "lab01".into(), limits, ports, origins: Arc::new(|_| true), geography: Arc::default() };
        let mut handle = None;
        let running = Edge::start(&config, sockets, registry.clone(), &certificates, |connections| {
            handle = Some(connections);
            axum::Router::new().route("/hello", axum::routing::get(|| std::future::ready("hello")))
        })
        .unwrap();
        Self { running, registry, connections: handle.unwrap(), ca, _directory: directory }
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        self.running.addresses()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::Pem(self.ca.clone())
    }

    /// A tunnel that answers to `NAME.edge.test`.
    pub(crate) async fn tunnel(&self, name: &str, config_source: ConfigSource) -> Tunnel {
        let now = Timestamp::now();
        let zone = self.registry.ensure_zone(now, &Hostname::parse("edge.test").unwrap()).await.unwrap();
        let new = NewTunnel {
            name: TunnelName::parse(name).unwrap(),
            secret: None,
            config_source,
            labels: Default::default(),
        };
        let tunnel = self.registry.create_tunnel(now, new).await.unwrap();
        let hostname = Hostname::parse(&format!("{name}.edge.test")).unwrap();
        self.registry.put_route(now, zone.id, hostname, tunnel.id, false).await.unwrap();
        tunnel
    }

    /// A node, a tunnel called `app` and one connection of an agent of ours.
    pub(crate) async fn with_app(transport: Transport) -> (Self, Arc<Origin>, Agent) {
        let node = Self::start().await;
        let origin = Origin::new();
        let tunnel = node.tunnel("app", ConfigSource::Local).await;
        let agent = node.agent(&tunnel, transport).connect(&origin).await.unwrap();
        (node, origin, agent)
    }

    pub(crate) fn agent(&self, tunnel: &Tunnel, transport: Transport) -> Dial {
        Dial {
            address: self.addresses().tunnel[0],
            roots: self.roots(),
            transport,
            registration: Registration {
                account_tag: self.registry.snapshot().account().id.to_string(),
                secret: TunnelSecret::new(tunnel.secret.as_bytes().to_vec()),
                tunnel: tunnel.id,
                connection_index: 0,
                connector: Uuid::new_v4(),
                features: BASE_FEATURES.into_iter().map(str::to_owned).chain(Extensions::ALL.features()).collect(),
                version: "test".into(),
                arch: "linux_amd64".into(),
                origin_local_ip: None,
                previous_attempts: 0,
            },
        }
    }
}

/// An agent about to dial.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    pub(crate) roots: Roots,
    pub(crate) transport: Transport,
    pub(crate) registration: Registration,
}

/// A registered connection of an agent.
pub(crate) struct Agent {
    pub(crate) registered: Registered,
    pub(crate) connection: AgentConnection,
    _endpoint: Option<quinn::Endpoint>,
}

impl Dial {
    pub(crate) async fn connect(&self, origin: &Arc<Origin>) -> Result<Agent, ConnectError> {
        let (connected, endpoint) = match self.transport {
            Transport::Http2 => {
                let stream = self.tls().await.map_err(|error| ConnectError::Lost(error.to_string()))?;
                let connect = wire::http2::agent::connect(stream, &self.registration, Arc::clone(origin), PATIENCE);
                (connect.await, None)
            }
            Transport::Quic => {
                let (endpoint, connection) = self.quic(tls::TUNNEL_QUIC_NAME).await;
                let connect = wire::quic::agent::connect(connection, &self.registration, Arc::clone(origin), PATIENCE);
                (connect.await, Some(endpoint))
            }
        };
        let (registered, connection) = connected?;
        Ok(Agent { registered, connection, _endpoint: endpoint })
    }

    /// The TLS connection of an agent that has not said yet who it is.
    pub(crate) async fn tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let tls = TlsConnector::from(tls::agent_tls(&self.roots, false).unwrap());
        tls.connect(tls::TUNNEL_HTTP2_NAME.try_into().unwrap(), tcp).await
    }

    pub(crate) async fn quic(&self, name: &str) -> (quinn::Endpoint, quinn::Connection) {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = wire::quic::endpoint(wire::quic::agent_endpoint_config(), None, socket).unwrap();
        let mut client = quinn::ClientConfig::new(tls::agent_quic(&self.roots, false).unwrap());
        client.transport_config(Arc::new(wire::quic::agent_transport_config(wire::quic::Packets::Jumbo)));
        let connection = endpoint.connect_with(client, self.address, name).unwrap().await.unwrap();
        (endpoint, connection)
    }
}

/// How often something is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until something is so, which nobody announces; whether it is.
pub(crate) async fn comes_about(is_so: impl AsyncFn() -> bool) -> bool {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.is_ok()
}

/// Waits until something is so, which nobody announces.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    assert!(comes_about(is_so).await, "it never came about: {what}");
}
