//! The prober with real members: what each kind of monitor takes for well, and that the registry hears of it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use balance::prober::{self, ByteStream, ProbeBody, Prober, Reach};
use balance::{Board, Target, Visitor};
use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use harness::{LIMIT, until};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use registry::{
    ConfigSource, ConnectionRecord, Embedded, Features, Hostname, MemberHealth, NewTunnel, NodeAddresses, NodeRecord,
    PoolId, Registry, TunnelName,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// An origin whose status can be changed, and which notes what it is asked.
#[derive(Clone)]
struct App {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl App {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let app = Self { address: listener.local_addr().unwrap(), status, asked: Arc::default() };
        let served = app.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (app, tls) = (served.clone(), tls.clone());
                tokio::spawn(async move {
                    let stream: Box<dyn ByteStream> = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                        None => Box::new(stream),
                    };
                    let service = service_fn(|request| ready(Ok::<_, hyper::Error>(app.answer(&request))));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        app
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        self.asked.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
        let answer = Response::builder();
        let answer = match request.uri().path() {
            "/moved" => answer.status(302).header("location", "/health"),
            "/away" => answer.status(302).header("location", "http://192.0.2.1/health"),
            "/round" => answer.status(302).header("location", "/round"),
            _ => answer.status(self.status.load(Ordering::Relaxed)),
        };
        answer.body(Full::from("All is WELL.")).unwrap()
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

/// Reaches members at addresses straight, and one tunnel's by answering for it.
struct Direct {
    tunnel: App,
    /// Nobody is reached.
    is_cut_off: bool,
}

impl Reach for Direct {
    fn exchange(&self, _: Uuid, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ProbeBody>, Box<str>>> {
        let answer = self.tunnel.answer(&request).map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(ready(Ok(answer)))
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        _: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, Box<str>>> {
        if self.is_cut_off {
            return Box::pin(ready(Err("the network is unreachable".into())));
        }
        Box::pin(async move { prober::dial(target, port).await.map_err(|problem| problem.to_string().into()) })
    }

    fn addresses<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Vec<IpAddr>, Box<str>>> {
        Box::pin(ready(match target {
            Target::Address(address, _) => Ok(vec![*address]),
            Target::Name(..) | Target::Tunnel(_) => Err("it has no address".into()),
        }))
    }
}

/// A node that asks.
struct Node {
    registry: Registry,
    prober: Prober,
    /// What is behind tunnels.
    tunnel: App,
    _running: DropGuard,
}

impl Node {
    async fn start() -> Self {
        Self::of(Arc::new(Embedded::in_memory().unwrap()), false).await
    }

    /// One of several that share an engine.
    async fn of(engine: Arc<Embedded>, is_cut_off: bool) -> Self {
        let registry = Registry::open(engine, Timestamp::now()).await.unwrap();
        let nowhere = ([127, 0, 0, 1], 0).into();
        registry.join(NodeRecord {
            id: registry.node(),
            name: "n".into(),
            location: "lab01".into(),
            region: None,
            addresses: NodeAddresses { http: nowhere, https: nowhere, tunnel: vec![], api: nowhere, dns: None },
            version: "1".into(),
            started_at: Timestamp::now(),
        });
        let tunnel = App::start(None).await;
        let (stop, reach) = (CancellationToken::new(), Arc::new(Direct { tunnel: tunnel.clone(), is_cut_off }));
        let prober = Prober::new(registry.clone(), reach);
        tokio::spawn(prober.clone().run(stop.clone()));
        Self { registry, prober, tunnel, _running: stop.drop_guard() }
    }

    /// A pool of these origins, asked every two seconds as this says.
    async fn pool(&self, name: &str, monitor: Value, origins: Value) -> PoolId {
        let now = Timestamp::now();
        let mut terms = json!({ "interval": 2, "timeout": 2, "retries": 0 });
        terms.as_object_mut().unwrap().extend(monitor.as_object().unwrap().clone());
        let monitor = self.registry.create_monitor(now, serde_json::from_value(terms).unwrap()).await.unwrap().id;
        let pool = json!({ "name": name, "monitor": monitor, "origins": origins });
        self.registry.create_pool(now, serde_json::from_value(pool).unwrap()).await.unwrap().id
    }

    async fn at(&self, name: &str, monitor: Value, address: SocketAddr) -> PoolId {
        self.pool(name, monitor, json!([{ "address": address.ip().to_string(), "port": address.port() }])).await
    }

    /// A tunnel, and an origin behind it.
    async fn tunnel_origin(&self) -> (Uuid, Value) {
        let name = TunnelName::parse("t").unwrap();
        let tunnel = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
        let tunnel = self.registry.create_tunnel(Timestamp::now(), tunnel).await.unwrap().id;
        (tunnel, json!({ "address": format!("{tunnel}.cfargotunnel.com"), "header": { "Host": ["shop.test"] } }))
    }

    fn first(&self, pool: PoolId) -> MemberHealth {
        self.registry.snapshot().health(pool).unwrap().members.remove(0)
    }

    /// Waits until something is known of a pool's first member.
    async fn known(&self, pool: PoolId) -> (bool, Option<String>, Option<u16>) {
        until(LIMIT, "it was asked", async || self.first(pool).probe.is_some()).await;
        let health = self.first(pool);
        (health.is_well(), health.reason().map(str::to_owned), health.probe.unwrap().code)
    }
}

fn connection(tunnel: Uuid) -> ConnectionRecord {
    ConnectionRecord {
        tunnel,
        connector: Uuid::new_v4(),
        id: Uuid::new_v4(),
        index: 0,
        transport: "quic".into(),
        location: "lab01".into(),
        origin_ip: [127, 0, 0, 1].into(),
        opened_at: Timestamp::now(),
        features: Features::default(),
        version: "1".into(),
        arch: "linux_amd64".into(),
        config_version: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_well_if_its_code_and_text_are_as_expected() {
    let (node, app) = (Node::start().await, App::start(None).await);
    let header = json!({ "Host": ["shop.test"], "x-check": ["1"] });
    let terms =
        json!({ "path": "/health?a=b", "header": header, "expected_codes": "2xx,418", "expected_body": "is well" });
    let pool = node.at("a", terms, app.address).await;
    assert_eq!(node.known(pool).await, (true, None, Some(200)));
    let (uri, headers) = app.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (&*uri, &headers["host"], &headers["x-check"]),
        ("/health?a=b", &"shop.test".parse().unwrap(), &"1".parse().unwrap())
    );
    let since = node.first(pool).since();

    app.set(503);
    until(LIMIT, "it fails", async || !node.first(pool).is_well()).await;
    assert_eq!(node.known(pool).await, (false, Some("HTTP 503 instead of 2xx,418".to_owned()), Some(503)));
    assert!(node.first(pool).since() > since);
    app.set(418);
    until(LIMIT, "it is well again", async || node.first(pool).is_well()).await;

    let other = node.at("b", json!({ "expected_codes": "418", "expected_body": "unwell" }), app.address).await;
    let (is_well, reason, code) = node.known(other).await;
    assert_eq!(
        (is_well, reason.as_deref(), code),
        (false, Some("the answer has not the text that is expected"), Some(418))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_followed_to_the_same_host_only() {
    let (node, app) = (Node::start().await, App::start(None).await);
    for (number, (path, follows, expected)) in [
        ("/moved", true, None),
        ("/moved", false, Some("HTTP 302 instead of 200")),
        ("/away", true, Some("it redirects to another host, which is not asked")),
        ("/round", true, Some("more than 5 redirects")),
    ]
    .into_iter()
    .enumerate()
    {
        let terms = json!({ "path": path, "follow_redirects": follows });
        let pool = node.at(&format!("p{number}"), terms, app.address).await;
        let (is_well, reason, _) = node.known(pool).await;
        assert_eq!((is_well, reason.as_deref()), (expected.is_none(), expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_unless_the_monitor_says_otherwise() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let settings = settings.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let (node, app) = (Node::start().await, App::start(Some(TlsAcceptor::from(Arc::new(settings)))).await);
    let any = node.at("any", json!({ "type": "https", "allow_insecure": true }), app.address).await;
    assert_eq!(node.known(any).await, (true, None, Some(200)));
    let checked = node.at("checked", json!({ "type": "https" }), app.address).await;
    let (is_well, reason, code) = node.known(checked).await;
    assert!(!is_well && code.is_none() && reason.as_deref().unwrap().starts_with("TLS: "), "{reason:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_wants_a_connection_and_smtp_a_greeting() {
    let node = Node::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 mail.test ESMTP\r\n").await;
        }
    });
    let tcp = |port: u16| json!({ "type": "tcp", "port": port });
    let open = node.at("open", tcp(address.port()), address).await;
    assert_eq!(node.known(open).await, (true, None, None));
    let shut = node.at("shut", tcp(closed.port()), closed).await;
    let (is_well, reason, _) = node.known(shut).await;
    assert!(!is_well && reason.unwrap().contains("refused"));
    let mail = node.at("mail", json!({ "type": "smtp" }), address).await;
    assert_eq!(node.known(mail).await, (true, None, Some(220)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_wants_a_service_that_says_it_serves() {
    let node = Node::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop.v1.Shop", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("shop.v1.Stock", tonic_health::ServingStatus::NotServing).await;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    for (name, path, expected) in [
        ("all", "", None),
        ("shop", "shop.v1.Shop", None),
        ("stock", "shop.v1.Stock", Some("it says that it is not serving (2)")),
        ("other", "other", Some("gRPC status 5 instead of 0")),
    ] {
        let pool = node.at(name, json!({ "type": "grpc", "path": path }), address).await;
        let (is_well, reason, code) = node.known(pool).await;
        assert_eq!((is_well, reason.as_deref(), code), (expected.is_none(), expected, Some(200)));
    }
    reporter.set_service_status("shop.v1.Shop", tonic_health::ServingStatus::NotServing).await;
    let shop = node.registry.snapshot().pool_named("shop").unwrap().id;
    until(LIMIT, "it serves no more", async || !node.first(shop).is_well()).await;
}

/// Whether this machine lets us send echoes at all.
fn may_ping() -> bool {
    let open = |kind| socket2::Socket::new(socket2::Domain::IPV4, kind, Some(socket2::Protocol::ICMPV4));
    open(socket2::Type::DGRAM).or_else(|_| open(socket2::Type::RAW)).is_ok()
}

#[tokio::test]
async fn who_answers_an_echo_is_up_and_where_none_may_be_sent_nothing_is_known() {
    let node = Node::start().await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let open = socket.local_addr().unwrap().port();
    let closed = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let ping = node.pool("ping", json!({ "type": "icmp_ping" }), json!([{ "address": "127.0.0.1" }])).await;
    let at = |port| json!([{ "address": "127.0.0.1", "port": port }]);
    let taken = node.pool("taken", json!({ "type": "udp_icmp" }), at(open)).await;
    let refused = node.pool("refused", json!({ "type": "udp_icmp" }), at(closed)).await;
    if !may_ping() {
        for pool in [ping, taken, refused] {
            until(LIMIT, "it is said why", async || node.first(pool).unasked.is_some()).await;
            let member = node.first(pool);
            assert!(member.is_well() && member.probe.is_none());
            assert!(member.unasked.unwrap().contains("ping_group_range"));
        }
        return;
    }
    for pool in [ping, taken] {
        assert_eq!(node.known(pool).await, (true, None, None));
    }
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        let ping = node.pool("ping6", json!({ "type": "icmp_ping" }), json!([{ "address": "::1" }])).await;
        assert_eq!(node.known(ping).await, (true, None, None));
    }
    let (is_up, reason, _) = node.known(refused).await;
    assert!(!is_up && reason.as_ref().unwrap().contains("takes no datagrams"), "{reason:?}");
}

#[tokio::test]
async fn no_echo_passes_through_a_tunnel_and_that_is_no_verdict() {
    let node = Node::start().await;
    let (tunnel, origin) = node.tunnel_origin().await;
    let pool = node.pool("a", json!({ "type": "icmp_ping" }), json!([origin])).await;
    let _connection = node.registry.connect(connection(tunnel));
    until(LIMIT, "it is said why", async || node.first(pool).unasked.is_some()).await;
    let member = node.first(pool);
    assert!(member.is_well() && member.probe.is_none() && member.unasked.unwrap().contains("tunnel"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_behind_a_tunnel_is_asked_through_it_and_only_while_it_has_a_connection() {
    let node = Node::start().await;
    let (registry, now) = (&node.registry, Timestamp::now());
    let (tunnel, origin) = node.tunnel_origin().await;
    let pool = node.pool("a", json!({ "path": "/health" }), json!([origin])).await;

    // Visitors are led as the node's board says.
    let zone = registry.ensure_zone(now, &Hostname::parse("shop.test").unwrap()).await.unwrap().id;
    let terms = json!({ "name": "shop.test", "proxied": true, "default_pools": [pool], "fallback_pool": pool });
    registry.create_load_balancer(now, zone, serde_json::from_value(terms).unwrap()).await.unwrap();
    let board = Arc::new(Board::at("lab01"));
    let stop = CancellationToken::new();
    let _fresh = stop.clone().drop_guard();
    tokio::spawn(prober::keep_fresh(registry.clone(), board.clone(), stop));
    let snapshot = registry.snapshot();
    let plan = board.plan(&snapshot, snapshot.balancer_of("shop.test").unwrap(), Timestamp::now());
    let is_down = || {
        let standing = plan.members().next().unwrap().vitals().standing(Timestamp::now());
        standing == balance::Standing::Down
    };
    assert!(is_down());
    let connection = registry.connect(connection(tunnel));
    assert_eq!(node.known(pool).await, (true, None, Some(200)));
    assert_eq!(node.tunnel.asked.lock().unwrap()[0].0, "http://shop.test/health");
    until(LIMIT, "it is led to", async || !is_down()).await;
    let headers = HeaderMap::new();
    let address = [192, 0, 2, 1].into();
    let visitor = Visitor { address, pop: "lab01", country: None, region: None, place: None, headers: &headers };
    let mut walk = plan.walk(&visitor, Timestamp::now(), 1);
    assert_eq!(walk.next(|_| true).unwrap().target, Target::Tunnel(tunnel));

    node.tunnel.set(500);
    until(LIMIT, "the probe takes it out", async || is_down() && !node.first(pool).is_well()).await;
    assert!(node.first(pool).link.unwrap().is_up);
    node.tunnel.set(200);
    until(LIMIT, "it is led to again", async || !is_down()).await;
    drop(connection);
    until(LIMIT, "the link takes it out, and nobody asks", async || is_down() && node.first(pool).probe.is_none())
        .await;
    assert_eq!(node.first(pool).reason(), Some("the tunnel has no connection"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_tunnel_comes_back_is_asked_before_the_next_round() {
    let node = Node::start().await;
    let (tunnel, origin) = node.tunnel_origin().await;
    let beside = App::start(None).await;
    let straight = json!({ "address": "127.0.0.1", "port": beside.address.port() });
    let monitor = json!({ "interval": 3600, "timeout": 5 });
    let pool = node.pool("a", monitor, json!([straight, origin])).await;
    node.known(pool).await;
    let probe = async || node.registry.snapshot().health(pool).unwrap().members[1].probe.is_some();
    assert!(!probe().await);
    let _connection = node.registry.connect(connection(tunnel));
    until(LIMIT, "it is asked", probe).await;
    assert_eq!(beside.asked.lock().unwrap().len(), 1, "the others have their time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_follows_what_is_configured() {
    let (node, app) = (Node::start().await, App::start(None).await);
    let pool = node.at("a", json!({ "interval": 3600, "timeout": 5 }), app.address).await;
    // Nobody knows when within the first seconds; but a change is asked at once, and not after an hour.
    assert_eq!(node.known(pool).await, (true, None, Some(200)));
    let monitor = node.registry.snapshot().pool(pool).unwrap().terms.monitor.unwrap();
    let change =
        |old: &registry::MonitorTerms| Ok(registry::MonitorTerms { expected_codes: "204".into(), ..old.clone() });
    node.registry.change_monitor(Timestamp::now(), monitor, change).await.unwrap();
    until(LIMIT, "it is asked anew", async || !node.first(pool).is_well()).await;
    let without = |old: &registry::PoolTerms| Ok(registry::PoolTerms { monitor: None, ..old.clone() });
    node.registry.change_pool(Timestamp::now(), pool, without).await.unwrap();
    assert_eq!((node.first(pool).is_well(), node.first(pool).probe), (true, None));
    let nobody = async || node.registry.snapshot().health_reports(pool).next().is_none();
    until(LIMIT, "nothing is said of it any more", nobody).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_asks_once_and_changes_nothing() {
    let (node, app) = (Node::start().await, App::start(None).await);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let origins = json!([{ "address": "127.0.0.1", "port": app.address.port() },
        { "address": "127.0.0.1", "port": closed.port() }]);
    let pool = json!({ "name": "a", "origins": origins });
    let pool = node.registry.create_pool(Timestamp::now(), serde_json::from_value(pool).unwrap()).await.unwrap();
    let monitor = json!({ "path": "/", "expected_codes": "200", "retries": 1, "consecutive_up": 3 });
    let monitor = serde_json::from_value::<registry::MonitorTerms>(monitor).unwrap().checked().unwrap();
    let found = node.prober.preview(&pool, &monitor).await;
    let (expected, found): (Vec<_>, _) = (pool.members().map(|(id, _)| id).collect(), found.members);
    assert_eq!(found.iter().map(|found| found.member).collect::<Vec<_>>(), expected);
    assert_eq!((found[0].is_up, found[0].code, found[1].is_up), (true, Some(200), false));
    assert!(found[1].reason.as_ref().unwrap().contains("refused"));
    assert!(node.registry.snapshot().health_reports(pool.id).next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_outvoted() {
    let engine = Arc::new(Embedded::in_memory().unwrap());
    let nodes =
        [Node::of(engine.clone(), true).await, Node::of(engine.clone(), false).await, Node::of(engine, false).await];
    let all = async || nodes.iter().all(|node| node.registry.snapshot().nodes().count() == 3);
    until(LIMIT, "all nodes know each other", all).await;
    let app = App::start(None).await;
    let pool = nodes[1].at("a", json!({}), app.address).await;
    let voices = |node: &Node| node.registry.snapshot().health(pool)?.members.remove(0).probe.map(|probe| probe.voices);
    let asked = async || nodes.iter().all(|node| voices(node) == Some((2, 3)));
    until(LIMIT, "two of three reach it", asked).await;
    assert!(nodes.iter().all(|node| node.first(pool).is_well()));
    app.set(500);
    let failed = async || nodes.iter().all(|node| !node.first(pool).is_well());
    until(LIMIT, "nobody has a good answer of it", failed).await;
    assert_eq!(voices(&nodes[0]).map(|(_, all)| all), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_behind_a_tunnel_is_asked_only_by_the_node_that_has_its_connection() {
    let engine = Arc::new(Embedded::in_memory().unwrap());
    let nodes =
        [Node::of(engine.clone(), false).await, Node::of(engine.clone(), false).await, Node::of(engine, false).await];
    let all = async || nodes.iter().all(|node| node.registry.snapshot().nodes().count() == 3);
    until(LIMIT, "all nodes know each other", all).await;
    let (tunnel, behind) = nodes[0].tunnel_origin().await;
    let _connection = nodes[0].registry.connect(connection(tunnel));
    let linked = async || nodes.iter().all(|node| node.registry.snapshot().is_connected(tunnel));
    until(LIMIT, "all nodes know of the connection", linked).await;
    let app = App::start(None).await;
    let beside = json!({ "address": app.address.ip().to_string(), "port": app.address.port() });
    let pool = nodes[0].pool("a", json!({}), json!([behind, beside])).await;
    let voices = |node: &Node| -> Vec<_> {
        let health = node.registry.snapshot().health(pool);
        let members = health.into_iter().flat_map(|health| health.members);
        members.map(|member| member.probe.map(|probe| probe.voices)).collect()
    };
    let told = async || nodes.iter().all(|node| voices(node) == [Some((1, 1)), Some((3, 3))]);
    until(LIMIT, "one asks through the tunnel, and three beside it", told).await;
    // Each of them has asked again by now.
    let rounds = app.asked.lock().unwrap().len() + 6;
    until(LIMIT, "all have asked twice more", async || app.asked.lock().unwrap().len() >= rounds).await;
    assert!(told().await);
    let asked = nodes.each_ref().map(|node| node.tunnel.asked.lock().unwrap().len());
    assert!(asked[0] > 0 && asked[1..] == [0, 0], "{asked:?}");
}
