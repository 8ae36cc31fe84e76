//! An edge and an agent on loopback, connected.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use wire::identity::TunnelSecret;
use wire::registration::{BASE_FEATURES, LocalConfiguration, Refused, Registered, Registration};
use wire::{
    AgentConnection, Body, BodyError, ByteStream, ConnectError, Connection, Ended, Extensions, FlowRequest,
    FlowService, Handler, Interim, Kind, OriginError, OriginFault, Registrar, StreamRefusal, StreamRequest, Transport,
};

/// Longer than anything here takes; a test that waits so long has failed.
pub const LONG: Duration = Duration::from_secs(30);

pub const RPC_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for what must happen.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

/// Makes a test of each transport out of one function.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod over_http2 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(wire::Transport::Http2).await;
            })*
        }
        mod over_quic {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(wire::Transport::Quic).await;
            })*
        }
    };
}
pub(crate) use both;

/// What the node of the rig has seen, and how it answers.
pub struct Node {
    refusal: Option<Refused>,
    remotely_managed: bool,
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Debug)]
pub enum Event {
    Registered(Box<Registration>, Connection),
    LocalConfiguration(Uuid, LocalConfiguration),
    Closed(Uuid, String),
}

impl Node {
    pub fn new(refusal: Option<Refused>) -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { refusal, remotely_managed: false, events }), receiver)
    }
}

impl Registrar for Node {
    async fn register(&self, registration: Registration, connection: Connection) -> Result<Registered, Refused> {
        let _ = self.events.send(Event::Registered(Box::new(registration), connection));
        match &self.refusal {
            Some(refused) => Err(refused.clone()),
            None => Ok(Registered {
                connection: CONNECTION,
                location: "lab01".into(),
                remotely_managed: self.remotely_managed,
                origin_ca: None,
            }),
        }
    }

    async fn local_configuration(&self, connection: Uuid, configuration: LocalConfiguration) -> Result<(), String> {
        if configuration.starts_with(b"{") {
            let _ = self.events.send(Event::LocalConfiguration(connection, configuration));
            Ok(())
        } else {
            Err("the configuration is not JSON".into())
        }
    }

    fn closed(&self, connection: Uuid, reason: &str) {
        let _ = self.events.send(Event::Closed(connection, reason.into()));
    }
}

pub const CONNECTION: Uuid = Uuid::from_u128(0x4094_b3fa_2d9c_420d_82b7_a6eb_4e82_c3ca);

type Serve =
    dyn Fn(Kind, Request<Body>, Interim) -> BoxFuture<'static, Result<Response<Body>, OriginError>> + Send + Sync;

type Accept = dyn Fn(FlowRequest) -> BoxFuture<'static, Result<FlowService, StreamRefusal>> + Send + Sync;

type Connect = dyn Fn(StreamRequest) -> BoxFuture<'static, Result<ByteStream, StreamRefusal>> + Send + Sync;

/// An origin made of functions.
pub struct Origin {
    serve: Box<Serve>,
    connect: Option<Box<Connect>>,
    accept: Option<Box<Accept>>,
    version: Mutex<i32>,
    /// A configuration takes one while it is applied.
    pub configuring: Semaphore,
    /// Configurations that have arrived.
    pub configurations: watch::Sender<usize>,
}

impl Origin {
    pub fn new<F, Fut>(serve: F) -> Arc<Self>
    where
        F: Fn(Kind, Request<Body>, Interim) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, OriginError>> + Send + 'static,
    {
        Arc::new(Self::serving(serve))
    }

    fn serving<F, Fut>(serve: F) -> Self
    where
        F: Fn(Kind, Request<Body>, Interim) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, OriginError>> + Send + 'static,
    {
        let serve = Box::new(move |k, r, i| -> BoxFuture<'static, _> { Box::pin(serve(k, r, i)) });
        let (configuring, configurations) = (Semaphore::new(1), watch::Sender::default());
        Self { serve, connect: None, accept: None, version: Mutex::new(-1), configuring, configurations }
    }

    /// Connects byte streams; to requests it answers nothing.
    pub fn connecting<F, Fut>(connect: F) -> Arc<Self>
    where
        F: Fn(StreamRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<ByteStream, StreamRefusal>> + Send + 'static,
    {
        let mut origin = Self::serving(|_, _, _| async { Ok(Response::new(Body::empty())) });
        origin.connect = Some(Box::new(move |request| Box::pin(connect(request))));
        Arc::new(origin)
    }

    /// Accepts flows; to requests it answers nothing.
    pub fn accepting<F, Fut>(accept: F) -> Arc<Self>
    where
        F: Fn(FlowRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<FlowService, StreamRefusal>> + Send + 'static,
    {
        let mut origin = Self::serving(|_, _, _| async { Ok(Response::new(Body::empty())) });
        origin.accept = Some(Box::new(move |request| Box::pin(accept(request))));
        Arc::new(origin)
    }

    /// Answers `hello`.
    pub fn hello() -> Arc<Self> {
        Self::new(|_, _, _| async { Ok(Response::new(Body::full("hello"))) })
    }

    /// Answers what it gets, trailers included, as it comes.
    pub fn echo() -> Arc<Self> {
        Self::new(|_, request: Request<Body>, _| async { Ok(Response::new(request.into_body())) })
    }
}

impl Handler for Origin {
    async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, OriginError> {
        (self.serve)(kind, request, interim).await
    }

    async fn stream(&self, request: StreamRequest) -> Result<ByteStream, StreamRefusal> {
        match &self.connect {
            Some(connect) => connect(request).await,
            None => Err(no_answer().into()),
        }
    }

    async fn flow(&self, request: FlowRequest) -> Result<FlowService, StreamRefusal> {
        match &self.accept {
            Some(accept) => accept(request).await,
            None => Err(no_answer().into()),
        }
    }

    async fn update_configuration(&self, version: i32, config: Bytes) -> Result<i32, (i32, String)> {
        self.configurations.send_modify(|count| *count += 1);
        let _turn = self.configuring.acquire().await.unwrap();
        let mut current = self.version.lock().unwrap();
        if !config.starts_with(b"{") {
            return Err((*current, "no document".into()));
        }
        *current = version.max(*current);
        Ok(*current)
    }
}

/// A connected pair.
pub struct Rig {
    pub edge: Connection,
    pub agent: AgentConnection,
    pub registered: Registered,
    pub registration: Registration,
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Answers why the edge's end of the connection ended.
    pub served: JoinHandle<Ended>,
}

impl Rig {
    /// Our agent with everything it can do.
    pub async fn new(transport: Transport, origin: Arc<Origin>) -> Self {
        Self::with(transport, origin, Extensions::ALL).await
    }

    /// An agent that announces no extension, as a stock one.
    pub async fn stock(transport: Transport, origin: Arc<Origin>) -> Self {
        Self::with(transport, origin, Extensions::default()).await
    }

    pub async fn with(transport: Transport, origin: Arc<Origin>, extensions: Extensions) -> Self {
        Self::announcing(transport, origin, registration(extensions)).await
    }

    /// An agent that says this of itself.
    pub async fn announcing(transport: Transport, origin: Arc<Origin>, registration: Registration) -> Self {
        let (node, mut events) = Node::new(None);
        let (served, connected) = connect_as(transport, node, origin, registration).await;
        let (registered, agent) = connected.unwrap();
        let Some(Event::Registered(registration, edge)) = events.recv().await else { panic!("no registration") };
        Self { edge, agent, registered, registration: *registration, events, served }
    }

    /// Sends a GET and reads the answer whole.
    pub async fn get(&self, uri: &str) -> Response<Bytes> {
        whole(self.edge.exchange(Kind::Http, get(uri), Interim::unwanted()).await.unwrap()).await.unwrap()
    }

    /// Waits until nothing is under way at either end.
    pub async fn idle(&self) {
        until(|| self.edge.in_flight() == 0 && self.agent.in_flight() == 0).await;
    }
}

/// How often something is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for a condition that other tasks bring about: a count, which nothing announces. It is looked at often, and only
/// the limit of [`soon`] ends the wait without it.
pub async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

/// Waits until an agent has noticed the end of its control stream.
pub async fn until_err(agent: &AgentConnection) {
    soon(async { while agent.update_local_configuration("{}".into()).await.is_ok() {} }).await;
}

pub type Connected = Result<(Registered, AgentConnection), ConnectError>;

/// Connects an agent to an edge over real sockets.
pub async fn connect(
    transport: Transport,
    node: Arc<Node>,
    origin: Arc<Origin>,
    extensions: Extensions,
) -> (JoinHandle<Ended>, Connected) {
    connect_as(transport, node, origin, registration(extensions)).await
}

/// The same with an agent that says this of itself.
pub async fn connect_as(
    transport: Transport,
    node: Arc<Node>,
    origin: Arc<Origin>,
    registration: Registration,
) -> (JoinHandle<Ended>, Connected) {
    match transport {
        Transport::Http2 => {
            let (edge, agent) = tcp().await;
            let remote = edge.peer_addr().unwrap();
            let (server, client) = tls("h2.cftunnel.com", b"");
            let name = "h2.cftunnel.com".try_into().unwrap();
            let (edge, agent) = tokio::join!(
                tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(edge),
                tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, agent),
            );
            let served = tokio::spawn(wire::http2::edge::serve(edge.unwrap(), remote, node));
            (served, wire::http2::agent::connect(agent.unwrap(), &registration, origin, RPC_TIMEOUT).await)
        }
        Transport::Quic => {
            let (edge, agent) = quic().await;
            let served = tokio::spawn(wire::quic::edge::serve(edge, node));
            (served, wire::quic::agent::connect(agent, &registration, origin, RPC_TIMEOUT).await)
        }
    }
}

/// An HTTP/2 connection over a stream that is not TCP, for tests with a clock of their own.
pub async fn connect_over<E, A>(
    edge: E,
    agent: A,
    node: Arc<Node>,
    origin: Arc<Origin>,
) -> (JoinHandle<Ended>, Connected)
where
    E: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let served = tokio::spawn(wire::http2::edge::serve(edge, remote, node));
    (served, wire::http2::agent::connect(agent, &registration(Extensions::ALL), origin, RPC_TIMEOUT).await)
}

pub fn registration(extensions: Extensions) -> Registration {
    Registration {
        account_tag: "acc0123456789abcdef".into(),
        secret: TunnelSecret::new((0..32).collect()),
        tunnel: Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555),
        connection_index: 0,
        connector: Uuid::from_u128(0x1efd_11b3_a34d_440c_9afc_4d64_08a6_cd9b),
        features: BASE_FEATURES.iter().map(ToString::to_string).chain(extensions.features()).collect(),
        version: "0.1.0".into(),
        arch: "linux_amd64".into(),
        origin_local_ip: Some(Ipv4Addr::LOCALHOST.into()),
        previous_attempts: 0,
    }
}

/// Both ends of a TCP connection on loopback: the edge's, the agent's.
pub async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, dialled) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.unwrap().0, dialled.unwrap())
}

/// Both ends of a QUIC connection on loopback: the edge's, the agent's.
pub async fn quic() -> (quinn::Connection, quinn::Connection) {
    let (endpoint, client) = quic_listener();
    let address = endpoint.local_addr().unwrap();
    let (accepted, dialled) =
        tokio::join!(async { endpoint.accept().await.unwrap().await }, quic_dial(address, client));
    (accepted.unwrap(), dialled)
}

/// An edge's endpoint, and what an agent needs to trust it.
pub fn quic_listener() -> (quinn::Endpoint, rustls::ClientConfig) {
    quic_listener_with(Arc::new(|driver| driver))
}

/// The same, with turns for what drives its connections.
pub fn quic_listener_with(take_turns: wire::quic::TakeTurns) -> (quinn::Endpoint, rustls::ClientConfig) {
    let (server, client) = tls("quic.cftunnel.com", wire::quic::ALPN);
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
    let mut settings = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    settings.transport_config(Arc::new(wire::quic::edge_transport_config(wire::quic::Packets::Jumbo)));
    let server = wire::quic::Server { settings, on_loss: Arc::new(|_| {}), take_turns };
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    (wire::quic::endpoint(quinn::EndpointConfig::default(), Some(server), socket).unwrap(), client)
}

pub async fn quic_dial(address: SocketAddr, client: rustls::ClientConfig) -> quinn::Connection {
    quic_dial_with(address, client, wire::quic::agent_transport_config(wire::quic::Packets::Jumbo)).await
}

pub async fn quic_dial_with(
    address: SocketAddr,
    client: rustls::ClientConfig,
    transport: quinn::TransportConfig,
) -> quinn::Connection {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = wire::quic::endpoint(wire::quic::agent_endpoint_config(), None, socket).unwrap();
    endpoint.connect_with(config, address, "quic.cftunnel.com").unwrap().await.unwrap()
}

/// TLS for both ends, with a certificate made for the occasion. An empty protocol: no ALPN, as on TCP.
fn tls(name: &str, protocol: &[u8]) -> (rustls::ServerConfig, rustls::ClientConfig) {
    let certified = rcgen::generate_simple_self_signed(vec![name.into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let protocols: Vec<_> = Some(protocol.to_vec()).filter(|protocol| !protocol.is_empty()).into_iter().collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols.clone_from(&protocols);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = protocols;
    (server, client)
}

pub fn get(uri: &str) -> Request<Body> {
    Request::get(uri).header("accept-encoding", "identity").body(Body::empty()).unwrap()
}

pub fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

/// Reads a body to its end.
pub async fn whole(response: Response<Body>) -> Result<Response<Bytes>, BodyError> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, soon(body.collect()).await?.to_bytes()))
}

/// The next data of a body; `None`: its end, or trailers.
pub async fn data(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
    let frame = soon(body.frame()).await?;
    frame.map(|frame| frame.into_data().ok()).transpose()
}

/// A body that a test feeds. Dropping the sender ends it.
pub fn fed() -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let (gone, left) = oneshot::channel();
    let body = Fed { receiver, _gone: gone };
    (Feed { sender, left }, Body::wrap(body))
}

pub struct Feed {
    sender: mpsc::Sender<Result<http_body::Frame<Bytes>, String>>,
    left: oneshot::Receiver<()>,
}

impl Feed {
    pub async fn data(&self, bytes: impl Into<Bytes>) {
        soon(self.sender.send(Ok(http_body::Frame::data(bytes.into())))).await.expect("the body is there");
    }

    pub async fn trailers(&self, trailers: HeaderMap) {
        soon(self.sender.send(Ok(http_body::Frame::trailers(trailers)))).await.expect("the body is there");
    }

    pub async fn fail(&self, reason: &str) {
        soon(self.sender.send(Err(reason.into()))).await.expect("the body is there");
    }

    /// Waits until whoever has the body drops it.
    pub async fn dropped(self) {
        let _ = soon(self.left).await;
    }
}

struct Fed {
    receiver: mpsc::Receiver<Result<http_body::Frame<Bytes>, String>>,
    _gone: oneshot::Sender<()>,
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, String>>> {
        self.receiver.poll_recv(context)
    }
}

/// Says when it is dropped.
pub struct Bell(pub Option<oneshot::Sender<()>>);

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(bell) = self.0.take() {
            let _ = bell.send(());
        }
    }
}

pub fn no_answer() -> OriginError {
    OriginError::new(OriginFault::Refused, "nobody listens on port 1")
}

pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
