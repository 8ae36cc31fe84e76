//! An API that listens, and a client of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use api::{ApiState, Facts, QuickTunnels};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use registry::{
    ConnectionRecord, Hostname, MemberId, MemberReport, MonitorTerms, NewToken, Origin, Pool, PoolReport, PortId,
    Presence, Registry,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conformance::Description;

pub(crate) type Closed = Arc<Mutex<Vec<(Uuid, Option<Uuid>)>>>;

/// An API that listens, and a client of it.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) token: String,
    pub(crate) account: String,
    pub(crate) zone: String,
    pub(crate) closed: Closed,
    /// Where calls with a valid token came from.
    pub(crate) known: Arc<Mutex<Vec<IpAddr>>>,
    pub(crate) draining: CancellationToken,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) serving: JoinHandle<()>,
    /// Which every call and its answer must fit.
    pub(crate) description: Description,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The result, after checking the envelope.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let body = self.json();
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!((&body["success"], &body["errors"], &body["messages"]), (&json!(true), &json!([]), &json!([])));
        assert_eq!(self.headers["content-type"], "application/json");
        body["result"].clone()
    }

    /// Checks for a failure with this status and code, and answers its message.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: u32) -> String {
        let body = self.json();
        assert_eq!((self.status.as_u16(), &body["errors"][0]["code"]), (status, &json!(code)), "{}", self.text);
        assert_eq!((&body["success"], &body["messages"], &body["result"]), (&json!(false), &json!([]), &Value::Null));
        if (400..500).contains(&status) && !matches!(status, 408 | 429) {
            assert_eq!(self.headers["x-should-retry"], "false");
        }
        body["errors"][0]["message"].as_str().unwrap().to_owned()
    }
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::with(QuickTunnels::Loopback, true).await
    }

    /// `tells_callers`: whether the listener says where callers come from; without, they count as remote.
    pub(crate) async fn with(quick_tunnels: QuickTunnels, tells_callers: bool) -> Self {
        Self::start_as(quick_tunnels, tells_callers, false).await
    }

    /// One whose registry other nodes can share.
    pub(crate) async fn shared() -> Self {
        Self::start_as(QuickTunnels::Loopback, true, true).await
    }

    async fn start_as(quick_tunnels: QuickTunnels, tells_callers: bool, shared: bool) -> Self {
        let registry = Registry::in_memory(Timestamp::now()).await.unwrap();
        Self::over(registry, quick_tunnels, tells_callers, shared).await
    }

    /// One of this registry.
    pub(crate) async fn over(
        registry: Registry,
        quick_tunnels: QuickTunnels,
        tells_callers: bool,
        shared: bool,
    ) -> Self {
        let now = Timestamp::now();
        let domain = Hostname::parse("example.test").unwrap();
        let zone = registry.ensure_zone(now, &domain).await.unwrap().id.to_string();
        let (_, token) = registry.create_token(now, NewToken { name: "test".into(), expires_at: None }).await.unwrap();
        let account = registry.snapshot().account().id.to_string();
        let closed = Closed::default();
        let log = closed.clone();
        let known = Arc::<Mutex<Vec<_>>>::default();
        let known_log = Arc::clone(&known);
        let draining = CancellationToken::new();
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let router = api::router(ApiState {
            registry: registry.clone(),
            close: Arc::new(move |tunnel, connector| {
                log.lock().unwrap().push((tunnel, connector));
                1
            }),
            ports: Some(api::PublicPorts {
                range: 20_000..=20_002,
                open: Arc::new(|port| Box::pin(std::future::ready(opened(port)))),
            }),
            most_visitors: 5_000,
            quick_tunnels,
            facts: Facts {
                api: any(7000),
                tunnel: vec![any(7844), "192.0.2.1:7844".parse().unwrap()],
                https: any(8443),
                http: any(8080),
                domain,
                ca: "PEM".into(),
                location: "lab01".into(),
                version: "1.2.3".into(),
            },
            gather_handover: shared.then(|| -> api::GatherHandover { Arc::new(|| Ok(handover())) }),
            node_certificate: Arc::new(|| Some(Timestamp::UNIX_EPOCH)),
            known_here: None,
            know_caller: Arc::new(move |address| known_log.lock().unwrap().push(address)),
            preview: Some(Arc::new(|pool, monitor| Box::pin(std::future::ready(previewed(&pool, &monitor))))),
            draining: draining.clone(),
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            if tells_callers {
                axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
            } else {
                axum::serve(listener, router).await.unwrap();
            }
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let description = Description::fetch(&client, address).await;
        Self { address, registry, token, account, zone, closed, known, draining, client, serving, description }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = body.into();
        let answer = self.send_unchecked(method.clone(), path, headers, body.clone()).await;
        self.description.check(&method, path, &body, &answer);
        answer
    }

    /// The same, whatever the description says of it: for thousands that are alike.
    pub(crate) async fn send_unchecked(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A call with the token; the path is below `/client/v4`.
    pub(crate) async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.send(method, &format!("/client/v4{path}"), &[("authorization", &bearer)], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, body.to_string()).await
    }

    pub(crate) fn tunnels(&self) -> String {
        format!("/accounts/{}/cfd_tunnel", self.account)
    }

    /// Makes a tunnel, and answers its path and id.
    pub(crate) async fn tunnel(&self, name: &str) -> (String, Uuid) {
        let result = self.post(&self.tunnels(), json!({ "name": name })).await.result();
        let id = result["id"].as_str().unwrap();
        (format!("{}/{id}", self.tunnels()), id.parse().unwrap())
    }

    pub(crate) fn connect(&self, tunnel: Uuid, connector: Uuid) -> Presence {
        self.registry.connect(ConnectionRecord {
            tunnel,
            connector,
            id: Uuid::new_v4(),
            index: 0,
            transport: "quic".into(),
            location: "lab01".into(),
            origin_ip: [127, 0, 0, 1].into(),
            opened_at: Timestamp::now(),
            features: vec!["serialized_headers".into()].into(),
            version: "2026.8.2".into(),
            arch: "linux_amd64".into(),
            config_version: None,
        })
    }
}

/// What a machine gets that joins.
pub(crate) fn handover() -> api::Handover {
    api::Handover {
        domain: "example.test".into(),
        registry: "etcd://10.0.0.1:2379/snicket".into(),
        registry_ca: Some("CA".into()),
        registry_cert: None,
        registry_key: None,
        secrets_key: "hunter2".into(),
        ca: "PEM".into(),
        ca_key: "hunter3".into(),
    }
}

/// Every other member answers as the monitor wants.
fn previewed(pool: &Pool, monitor: &MonitorTerms) -> PoolReport {
    let reason = |is_up: bool| (!is_up).then(|| format!("no {}", monitor.expected_codes).into());
    let member = |(at, (member, _)): (usize, (MemberId, &Origin))| MemberReport {
        member,
        is_up: at % 2 == 0,
        since: Timestamp::UNIX_EPOCH,
        reason: reason(at % 2 == 0),
        code: None,
        millis: None,
        is_unasked: false,
    };
    PoolReport { pool: pool.id, members: pool.members().enumerate().map(member).collect() }
}

/// Another program listens at port 20001.
pub(crate) fn opened(port: PortId) -> std::io::Result<()> {
    if port.number == 20_001 { Err(std::io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
}
