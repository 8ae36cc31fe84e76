use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sha1::{Digest as _, Sha1};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener};
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::wait::LOOK_EVERY;
use crate::{LIMIT, Stream, lasting_address};

type Body = BoxBody<Bytes, std::io::Error>;

/// Bytes of one piece of `/bytes`.
const PIECE: usize = 16 * 1024;

/// Bytes of one piece of `/drip`.
const DROP: usize = 4 * 1024;

/// What RFC 6455 section 1.3 appends to the key.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A web server for tests, HTTP/1.1 and HTTP/2 on a free port of loopback, gone when dropped.
///
/// | path | answer |
/// | --- | --- |
/// | `/echo` | the request's body as it comes, its content type, its trailers |
/// | `/request` | method, path, version and header of the request as JSON |
/// | `/status/N` | status N, body `status N` |
/// | `/slow?ms=N` | `slow`, after N milliseconds |
/// | `/hang` | nothing but reading, until the visitor leaves; see [`Origin::wait_for_hanging`] |
/// | `/events` | server-sent events: whatever [`Origin::push`] sends |
/// | `/trailers` | `body`, then the trailer `x-end: yes` |
/// | `/bytes?n=N` | N bytes of `x`, in pieces |
/// | `/drip?n=N&ms=M` | N pieces of 4 KiB, each after M milliseconds |
/// | `/truncated` | promises 1000 bytes, sends 10, hangs up |
/// | `/ws` | a WebSocket that sends back each message; chooses the first subprotocol offered |
/// | anything else | `hello from the origin` |
#[derive(Debug)]
pub struct Origin {
    service: String,
    state: Arc<State>,
    server: AbortHandle,
}

/// How an [`Origin`] fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Well.
    Well,
    /// It takes requests, and answers once it is well again.
    Stalls,
    /// It answers everything with 500.
    Fails,
}

#[derive(Debug)]
struct State {
    requests: AtomicUsize,
    by_path: Mutex<HashMap<String, usize>>,
    mood: watch::Sender<Mood>,
    connections: watch::Sender<usize>,
    hanging: watch::Sender<usize>,
    events: broadcast::Sender<String>,
    listeners: watch::Sender<usize>,
}

impl Origin {
    /// Starts it.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start() -> Self {
        Self::start_on(lasting_address()).await
    }

    /// Starts it on this address, for example that of one that was dropped.
    ///
    /// # Panics
    /// The address is taken.
    pub async fn start_on(address: SocketAddr) -> Self {
        let listener = bind(address).await;
        let address = listener.local_addr().expect("a bound socket has an address");
        Self::serve(Listener::Tcp(listener), None, format!("http://{address}"))
    }

    /// Starts it on a Unix socket at this path.
    ///
    /// # Panics
    /// The path is taken.
    pub fn start_at(path: &Path) -> Self {
        Self::serve(Listener::Unix(listen_at(path)), None, format!("unix:{}", path.display()))
    }

    /// Starts it behind TLS, with this identity.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start_secure(identity: &Identity) -> Self {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
        let port = listener.local_addr().expect("a bound socket has an address").port();
        Self::serve(Listener::Tcp(listener), Some(identity), format!("https://localhost:{port}"))
    }

    /// Starts it behind TLS on a Unix socket at this path.
    ///
    /// # Panics
    /// The path is taken.
    pub fn start_secure_at(path: &Path, identity: &Identity) -> Self {
        Self::serve(Listener::Unix(listen_at(path)), Some(identity), format!("unix+tls:{}", path.display()))
    }

    fn serve(listener: Listener, identity: Option<&Identity>, service: String) -> Self {
        let state = Arc::new(State {
            requests: AtomicUsize::new(0),
            by_path: Mutex::default(),
            mood: watch::Sender::new(Mood::Well),
            connections: watch::Sender::new(0),
            hanging: watch::Sender::new(0),
            events: broadcast::Sender::new(64),
            listeners: watch::Sender::new(0),
        });
        let tls = identity.map(|identity| identity.acceptor.clone());
        let server = tokio::spawn(serve(listener, tls, Arc::clone(&state))).abort_handle();
        Self { service, state, server }
    }

    /// The service for an agent: `http://127.0.0.1:PORT`, `https://localhost:PORT`, `unix:PATH` or `unix+tls:PATH`.
    pub fn service(&self) -> String {
        self.service.clone()
    }

    /// Where it listens.
    ///
    /// # Panics
    /// It has TLS, or listens on a Unix socket.
    pub fn address(&self) -> SocketAddr {
        let address = self.service.strip_prefix("http://").and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("{} has no address", self.service))
    }

    /// Requests seen so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Of these, those for one path.
    pub fn requests_for(&self, path: &str) -> usize {
        self.state.by_path.lock().expect("nobody panics with it").get(path).copied().unwrap_or_default()
    }

    /// Has it fare like this from now on.
    pub fn fare(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
    }

    /// Waits until exactly so many requests to `/hang` are under way; 0 after all visitors have left.
    ///
    /// # Panics
    /// It takes longer than [`LIMIT`].
    pub async fn wait_for_hanging(&self, count: usize) {
        wait_for(&self.state.hanging, count, "requests to /hang").await;
    }

    /// Waits until exactly so many connections are open.
    ///
    /// # Panics
    /// It takes longer than [`LIMIT`].
    pub async fn wait_for_connections(&self, count: usize) {
        wait_for(&self.state.connections, count, "open connections").await;
    }

    /// Sends one event to everybody who reads `/events`, once there are so many.
    ///
    /// # Panics
    /// There are not within [`LIMIT`].
    pub async fn push(&self, listeners: usize, event: &str) {
        wait_for(&self.state.listeners, listeners, "readers of /events").await;
        // A reader who left meanwhile is for the test to notice.
        let _ = self.state.events.send(event.to_owned());
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A certificate and its key.
pub struct Identity {
    acceptor: TlsAcceptor,
    pem: String,
    key: String,
}

impl Identity {
    /// Makes one for these names, self-signed.
    ///
    /// # Panics
    /// One of them is no name.
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("the names are names");
        Self::of(&cert.pem(), &signing_key.serialize_pem())
    }

    /// One that somebody else made: its certificate, with those between it and its authority behind it, and its key, both in
    /// PEM form.
    ///
    /// # Panics
    /// They do not belong together.
    pub fn of(certificate: &str, private: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("it is in PEM form");
        let key = PrivateKeyDer::from_pem_slice(private.as_bytes()).expect("the key is in PEM form");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key belongs to the certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), pem: certificate.to_owned(), key: private.to_owned() }
    }

    /// The certificate in PEM form.
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// The key in PEM form.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// An origin that does with each connection whatever the test says, for answers that no web server gives.
#[derive(Debug)]
pub struct RawOrigin {
    address: SocketAddr,
    server: AbortHandle,
}

impl RawOrigin {
    /// Starts it; `serve` gets each connection.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start<F, S>(serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
        let address = listener.local_addr().expect("a bound socket has an address");
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { address, server: server.abort_handle() }
    }

    /// The service for an agent: `http://127.0.0.1:PORT`.
    pub fn service(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    let listening = async {
        loop {
            match TcpListener::bind(address).await {
                // Who listened here just now may still do so: a process that another test starts at the same time has a copy of each
                // socket of this one until its own program begins.
                Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::time::sleep(LOOK_EVERY).await,
                bound => return bound.unwrap_or_else(|error| panic!("the origin cannot listen on {address}: {error}")),
            }
        }
    };
    let listening = tokio::time::timeout(LIMIT, listening).await;
    listening.unwrap_or_else(|_| panic!("the origin cannot listen on {address}: somebody else does"))
}

async fn wait_for(count: &watch::Sender<usize>, wanted: usize, what: &str) {
    let mut seen = count.subscribe();
    let waited = tokio::time::timeout(LIMIT, seen.wait_for(|now| *now == wanted)).await;
    assert!(waited.is_ok(), "there are {} {what}, not {wanted}", *count.borrow());
}

fn listen_at(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap_or_else(|error| panic!("the origin cannot listen at {}: {error}", path.display()))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

async fn serve(listener: Listener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    // Connections end with the server, as they do when a process dies.
    let mut connections = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        let (state, tls) = (Arc::clone(&state), tls.clone());
        connections.spawn(async move {
            let _open = Counted::new(&state, |state| &state.connections);
            let stream: Box<dyn Stream> = match tls {
                None => stream,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
            };
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            // A connection that breaks is the test's business.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

/// Counts up while it lives.
struct Counted(Arc<State>, fn(&State) -> &watch::Sender<usize>);

impl Counted {
    fn new(state: &Arc<State>, counter: fn(&State) -> &watch::Sender<usize>) -> Self {
        counter(state).send_modify(|count| *count += 1);
        Self(Arc::clone(state), counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).send_modify(|count| *count -= 1);
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    *state.by_path.lock().expect("nobody panics with it").entry(path.clone()).or_default() += 1;
    let mut mood = state.mood.subscribe();
    // The sender lives as long as the state.
    let mood = mood.wait_for(|mood| *mood != Mood::Stalls).await.map_or(Mood::Well, |mood| *mood);
    if mood == Mood::Fails {
        return Ok(status(500));
    }
    Ok(match path.as_str() {
        "/echo" => echo(request),
        // As most servers do, it takes the body before it answers.
        "/request" => {
            let (head, body) = request.into_parts();
            if body.collect().await.is_err() {
                return Ok(status(400));
            }
            describe(&head)
        }
        "/slow" => {
            // How slow this origin is, which is what the visitor asked for.
            tokio::time::sleep(Duration::from_millis(number(&request, "ms"))).await;
            text("slow")
        }
        "/hang" => {
            let _hanging = Counted::new(&state, |state| &state.hanging);
            // Only who reads on sees that a body has broken off.
            if request.into_body().collect().await.is_ok() {
                std::future::pending::<()>().await;
            }
            text("the request broke off")
        }
        "/events" => events(&state),
        "/trailers" => trailers(),
        "/bytes" => bytes(number(&request, "n")),
        "/drip" => drip(number(&request, "n"), Duration::from_millis(number(&request, "ms"))),
        "/truncated" => truncated(),
        "/ws" => websocket(request),
        path => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            Some(code) => status(code),
            None => text("hello from the origin"),
        },
    })
}

fn number(request: &Request<Incoming>, key: &str) -> u64 {
    let query = request.uri().query().unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn text(text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn status(code: u16) -> Response<Body> {
    let mut response = text(&format!("status {code}"));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if matches!(code, 204 | 304) {
        *response.body_mut() = full("");
    }
    response
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().map_err(std::io::Error::other).boxed());
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

fn describe(request: &http::request::Parts) -> Response<Body> {
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let description = json!({
        "method": request.method.as_str(),
        "path": request.uri.path_and_query().map(ToString::to_string),
        "version": format!("{:?}", request.version),
        "headers": headers,
    });
    let mut response = text(&description.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn events(state: &Arc<State>) -> Response<Body> {
    let mut events = state.events.subscribe();
    let reader = Counted::new(state, |state| &state.listeners);
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        let _reader = reader;
        while let Ok(event) = events.recv().await {
            if sender.send_data(Bytes::from(format!("data: {event}\n\n"))).await.is_err() {
                break;
            }
        }
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn trailers() -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(2);
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("yes"));
        if sender.send_data(Bytes::from_static(b"body")).await.is_ok() {
            let _ = sender.send(Frame::trailers(trailers)).await;
        }
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-end"));
    response
}

fn bytes(count: u64) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        let piece = Bytes::from(vec![b'x'; PIECE]);
        let mut left = count;
        while left > 0 {
            let size = left.min(PIECE as u64);
            let next = piece.slice(..usize::try_from(size).expect("a piece is small"));
            if sender.send_data(next).await.is_err() {
                break;
            }
            left -= size;
        }
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    response
}

fn drip(count: u64, pause: Duration) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        for _ in 0..count {
            // How slow this origin is, which is what the visitor asked for.
            tokio::time::sleep(pause).await;
            if sender.send_data(Bytes::from(vec![b'x'; DROP])).await.is_err() {
                break;
            }
        }
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count * DROP as u64));
    response
}

fn truncated() -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        let _ = sender.send_data(Bytes::from_static(b"0123456789")).await;
        sender.abort(std::io::Error::other("the test wants a broken answer"));
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(1000));
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else { return status(400) };
    let protocol = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(WEBSOCKET_GUID);
    let accept = base64::engine::general_purpose::STANDARD.encode(digest.finalize());
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.try_into().expect("base64 is a header value"));
    if let Some(first) = protocol.as_ref().and_then(|value| value.to_str().ok()).and_then(|list| list.split(',').next())
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, first.trim().parse().expect("it came in a header"));
    }
    response
}

/// An origin of UDP that answers each datagram with itself.
pub struct DatagramOrigin {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl DatagramOrigin {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// No port can be bound.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            let mut heard = vec![0; 1 << 16];
            loop {
                // An error is a visitor's who has left.
                let Ok((length, from)) = socket.recv_from(&mut heard).await else { continue };
                let _ = socket.send_to(&heard[..length], from).await;
            }
        });
        Self { address, task }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DatagramOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}
