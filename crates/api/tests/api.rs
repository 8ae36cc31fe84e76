//! The whole API over real connections, as its clients call it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{ApiState, Facts, QuickTunnels};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use registry::{ConnectionRecord, Hostname, NewToken, PortId, Presence, Registry};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Closed = Arc<Mutex<Vec<(Uuid, Option<Uuid>)>>>;

/// An API that listens, and a client of it.
struct Edge {
    address: SocketAddr,
    registry: Registry,
    token: String,
    account: String,
    zone: String,
    closed: Closed,
    draining: CancellationToken,
    client: Client<HttpConnector, Full<Bytes>>,
    serving: JoinHandle<()>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The result, after checking the envelope.
    #[track_caller]
    fn result(&self) -> Value {
        let body = self.json();
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!((&body["success"], &body["errors"], &body["messages"]), (&json!(true), &json!([]), &json!([])));
        assert_eq!(self.headers["content-type"], "application/json");
        body["result"].clone()
    }

    /// Checks for a failure with this status and code, and answers its message.
    #[track_caller]
    fn refused(&self, status: u16, code: u32) -> String {
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
    async fn start() -> Self {
        Self::with(QuickTunnels::Loopback, true).await
    }

    /// `tells_callers`: whether the listener says where callers come from; without, they count as remote.
    async fn with(quick_tunnels: QuickTunnels, tells_callers: bool) -> Self {
        let now = Timestamp::now();
        let registry = Registry::in_memory(now).await.unwrap();
        let domain = Hostname::parse("example.test").unwrap();
        let zone = registry.ensure_zone(now, &domain).await.unwrap().id.to_string();
        let (_, token) = registry.create_token(now, NewToken { name: "test".into(), expires_at: None }).await.unwrap();
        let account = registry.snapshot().account().id.to_string();
        let closed = Closed::default();
        let log = closed.clone();
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
        Self { address, registry, token, account, zone, closed, draining, client, serving }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A call with the token; the path is below `/client/v4`.
    async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.send(method, &format!("/client/v4{path}"), &[("authorization", &bearer)], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body.to_string()).await
    }

    fn tunnels(&self) -> String {
        format!("/accounts/{}/cfd_tunnel", self.account)
    }

    /// Makes a tunnel, and answers its path and id.
    async fn tunnel(&self, name: &str) -> (String, Uuid) {
        let result = self.post(&self.tunnels(), json!({ "name": name })).await.result();
        let id = result["id"].as_str().unwrap();
        (format!("{}/{id}", self.tunnels()), id.parse().unwrap())
    }

    fn connect(&self, tunnel: Uuid, connector: Uuid) -> Presence {
        self.registry.connect(ConnectionRecord {
            tunnel,
            connector,
            id: Uuid::new_v4(),
            index: 0,
            transport: "quic".into(),
            location: "lab01".into(),
            origin_ip: [127, 0, 0, 1].into(),
            opened_at: Timestamp::now(),
            features: vec!["serialized_headers".into()],
            version: "2026.8.2".into(),
            arch: "linux_amd64".into(),
            config_version: None,
        })
    }
}

#[tokio::test]
async fn a_call_needs_a_valid_credential() {
    let edge = Edge::start().await;
    let verify = "/client/v4/user/tokens/verify";
    let get = |headers: Vec<(&'static str, String)>, path: &'static str| {
        let edge = &edge;
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            edge.send(Method::GET, path, &headers, "").await
        }
    };
    let good = format!("Bearer {}", edge.token);
    let zones = "/client/v4/zones";

    assert_eq!(get(vec![("authorization", good.clone())], verify).await.result()["status"], "active");
    let by_key = vec![("x-auth-email", "a@example.test".into()), ("x-auth-key", edge.token.clone())];
    assert_eq!(get(by_key, zones).await.result().as_array().unwrap().len(), 1);
    let both = vec![("x-auth-email", "a@example.test".into()), ("x-auth-key", "wrong".into()), ("authorization", good)];
    get(both, zones).await.result();

    get(vec![], zones).await.refused(400, 9106);
    for malformed in ["Bearer", "Bearer ", "Basic YTpi", "Bearer a b", &format!("Bearer {}", "x".repeat(600))] {
        let answer = get(vec![("authorization", malformed.to_owned())], zones).await;
        answer.refused(400, 6003);
        assert_eq!(answer.json()["errors"][0]["error_chain"][0]["code"], 6111);
    }
    let wrong = vec![("authorization", "Bearer snk_wrong".to_owned())];
    let message = get(wrong.clone(), zones).await.refused(403, 9109);
    assert!(!message.contains("snk_wrong"), "{message}");
    get(wrong, verify).await.refused(401, 1000);
    let unknown = vec![("x-auth-email", "a@example.test".to_owned()), ("x-auth-key", "wrong".to_owned())];
    get(unknown, zones).await.refused(403, 9103);

    let new = NewToken { name: "old".into(), expires_at: Some(Timestamp::now()) };
    let (_, expired) = edge.registry.create_token(Timestamp::now(), new).await.unwrap();
    let message = get(vec![("authorization", format!("Bearer {expired}"))], zones).await.refused(403, 9109);
    assert!(message.contains("expired"), "{message}");
}

#[tokio::test]
async fn paths_are_forgiving_and_tricks_are_not_served() {
    let edge = Edge::start().await;
    edge.get("/zones/").await.result();
    edge.call(Method::GET, "/zones", "{}").await.result();
    let head = edge.call(Method::HEAD, "/zones", "").await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(edge.call(Method::OPTIONS, "/zones", "").await.status, StatusCode::NO_CONTENT);
    edge.call(Method::DELETE, "/zones", "").await.refused(405, 7001);
    edge.get("/nothing").await.refused(404, 7000);
    for trick in ["/zones/..%2f..", "/zones/%00", "/accounts/%2e%2e/cfd_tunnel", "/zones/%zz", "/zones/../zones"] {
        assert_eq!(edge.get(trick).await.status, StatusCode::NOT_FOUND, "{trick}");
    }
    let answer = edge.get("/zones").await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(answer.headers["cf-ray"].to_str().unwrap().ends_with("-LAB01"));
    assert!(answer.headers.contains_key("ratelimit"));
}

#[tokio::test]
async fn accounts_and_zones_are_found_the_way_tools_look() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/accounts").await.result()[0]["id"], edge.account.as_str());
    assert_eq!(edge.get(&format!("/accounts/{}", edge.account)).await.result()["type"], "standard");
    edge.get("/accounts/0123").await.refused(404, 7003);
    edge.get(&format!("/accounts/{}/tokens/verify", edge.account)).await.result();

    for (query, found) in [
        ("name=example.test", 1),
        ("name=EXAMPLE.test.", 1),
        ("name=a.example.test", 0),
        ("name=ends_with:.test", 1),
        ("name=contains:zzz", 0),
        ("status=active", 1),
        ("status=pending", 0),
        ("status=pending&name=example.test&match=any", 1),
        ("account.id=0123", 0),
        ("page=2", 0),
        ("per_page=1&page=1.0", 1),
        ("whatever=1", 1),
    ] {
        let answer = edge.get(&format!("/zones?{query}")).await;
        assert_eq!(answer.result().as_array().unwrap().len(), found, "{query}");
    }
    let zone = edge.get(&format!("/zones/{}", edge.zone)).await.result();
    assert_eq!((&zone["name"], &zone["status"]), (&json!("example.test"), &json!("active")));
    for field in ["owner", "plan", "meta", "name_servers", "created_on", "modified_on", "development_mode"] {
        assert!(!zone[field].is_null(), "{field}");
    }
    edge.get("/zones/00000000000000000000000000000000").await.refused(404, 7003);
    edge.get("/zones/x").await.refused(404, 7003);
    edge.get("/zones?page=x").await.refused(400, 1004);
}

#[tokio::test]
async fn a_tunnel_is_created_found_and_deleted() {
    let edge = Edge::start().await;
    let secret = STANDARD.encode([7; 32]);
    let created = edge.post(&edge.tunnels(), json!({ "name": "web", "tunnel_secret": secret })).await.result();
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["credentials_file"]["TunnelSecret"], secret.as_str());
    let token = STANDARD.decode(created["token"].as_str().unwrap()).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    assert_eq!(token, json!({ "a": edge.account, "t": id, "s": secret }));
    assert_eq!((&created["status"], &created["deleted_at"]), (&json!("inactive"), &Value::Null));

    let path = format!("{}/{id}", edge.tunnels());
    assert_eq!(edge.get(&format!("{path}/token")).await.result(), created["token"]);
    let read = edge.get(&path).await.result();
    assert!(read.get("token").is_none() && read.get("tunnel_secret").is_none());
    assert_eq!(read["name"], "web");
    edge.post(&edge.tunnels(), json!({ "name": "web" })).await.refused(409, 1013);

    let renamed = edge.call(Method::PATCH, &path, json!({ "name": "site" }).to_string()).await.result();
    assert_eq!(renamed["name"], "site");
    edge.tunnel("web").await;
    edge.call(Method::PATCH, &path, json!({ "name": "web" }).to_string()).await.refused(409, 1013);

    let deleted = edge.call(Method::DELETE, &path, "{}").await.result();
    assert!(deleted["deleted_at"].is_string());
    assert_eq!(edge.call(Method::DELETE, &path, "").await.result()["deleted_at"], deleted["deleted_at"]);
    edge.get(&format!("{path}/token")).await.refused(404, 7003);
    edge.tunnel("site").await;
}

#[tokio::test]
async fn nothing_is_half_written_by_a_bad_request() {
    let edge = Edge::start().await;
    let before = edge.registry.snapshot().revision();
    let tunnels = edge.tunnels();
    for (body, named) in [
        (json!({}), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": 5 }), "name"),
        (json!({ "name": null }), "name"),
        (json!({ "name": "a\u{0}b" }), "name"),
        (json!({ "name": "x".repeat(5000) }), "name"),
        (json!({ "name": Uuid::new_v4() }), "name"),
        (json!({ "name": "a", "tunnel_secret": "c2hvcnQ=" }), "tunnel_secret"),
        (json!({ "name": "a", "tunnel_secret": "not base64" }), "tunnel_secret"),
        (json!({ "name": "a", "config_src": "elsewhere" }), "config_src"),
    ] {
        let answer = edge.post(&tunnels, body.clone()).await;
        let code = answer.json()["errors"][0]["code"].as_u64().unwrap();
        let message = answer.refused(400, u32::try_from(code).unwrap());
        assert!(message.contains(named), "{body}: {message}");
        assert!(!message.contains("c2hvcnQ"), "{message}");
    }
    for body in ["[", "{\"name\":", "{\"name\":\"a\"}x", "\"text\"", "{\"name\":\"a\",\"name\":\"b\"}", "NaN"] {
        edge.call(Method::POST, &tunnels, body).await.refused(400, 6007);
    }
    edge.call(Method::POST, &tunnels, "[".repeat(10_000)).await.refused(400, 6007);
    edge.call(Method::POST, &tunnels, b"{\"name\":\"\xff\"}".to_vec()).await.refused(400, 6007);
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20));
    edge.call(Method::POST, &tunnels, large).await.refused(413, 1413);
    edge.post("/accounts/0123/cfd_tunnel", json!({ "name": "a" })).await.refused(404, 7003);
    for id in ["x", "00000000-0000-0000-0000-000000000000", "11111111222243338444555555555555"] {
        for (method, rest) in [
            (Method::GET, ""),
            (Method::PATCH, ""),
            (Method::DELETE, ""),
            (Method::GET, "/token"),
            (Method::GET, "/connections"),
            (Method::DELETE, "/connections"),
            (Method::GET, "/configurations"),
            (Method::PUT, "/configurations"),
        ] {
            edge.call(method, &format!("{tunnels}/{id}{rest}"), "").await.refused(404, 7003);
        }
    }
    assert_eq!(edge.registry.snapshot().revision(), before);
    assert!(edge.closed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lists_are_filtered_and_cut_into_pages() {
    let edge = Edge::start().await;
    for name in ["api-1", "api-2", "api-old", "web", "web-2"] {
        edge.tunnel(name).await;
    }
    let (gone, _) = edge.tunnel("gone").await;
    edge.call(Method::DELETE, &gone, "").await.result();
    let list = async |query: &str| {
        let answer = edge.get(&format!("{}?{query}", edge.tunnels())).await;
        let names: Vec<_> = answer
            .result()
            .as_array()
            .unwrap()
            .iter()
            .map(|tunnel| tunnel["name"].as_str().unwrap().to_owned())
            .collect();
        (names.join(" "), answer.json()["result_info"].clone())
    };
    for (query, names) in [
        ("", "api-1 api-2 api-old web web-2 gone"),
        ("is_deleted=false&page=1", "api-1 api-2 api-old web web-2"),
        ("is_deleted=true", "gone"),
        ("name=web&is_deleted=false", "web"),
        ("name_prefix=api&exclude_prefix=api-old", "api-1 api-2"),
        ("status=inactive&include_prefix=web", "web web-2"),
        ("status=healthy,degraded", ""),
        ("existed_at=2001-01-01T00:00:00Z", ""),
        ("per_page=2&page=2", "api-old web"),
        ("per_page=4&page=2", "web-2 gone"),
        ("per_page=2&page=4", ""),
        ("page=18446744073709551615&per_page=1000", ""),
    ] {
        assert_eq!(list(query).await.0, names, "{query}");
    }
    let info = json!({ "page": 2, "per_page": 4, "count": 2, "total_count": 6, "total_pages": 2 });
    assert_eq!(list("per_page=4&page=2").await.1, info);
    assert_eq!(list("name=nobody").await.1["total_pages"], 1);
    for query in ["is_deleted=maybe", "uuid=x", "existed_at=yesterday", "per_page=many"] {
        let message = edge.get(&format!("{}?{query}", edge.tunnels())).await.refused(400, 1004);
        assert!(message.starts_with(query.split('=').next().unwrap()), "{message}");
    }
    assert_eq!(edge.get(&format!("/accounts/{}/tunnels", edge.account)).await.result().as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn connections_are_listed_and_closed() {
    let edge = Edge::start().await;
    let (path, id) = edge.tunnel("web").await;
    assert_eq!(edge.get(&format!("{path}/connections")).await.result(), json!([]));
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let first = edge.connect(id, one);
    assert_eq!(edge.get(&path).await.result()["status"], "degraded");
    let others = [edge.connect(id, one), edge.connect(id, two)];
    let tunnel = edge.get(&path).await.result();
    assert_eq!((&tunnel["status"], tunnel["connections"].as_array().unwrap().len()), (&json!("healthy"), 3));
    assert_eq!(tunnel["connections"][0]["colo_name"], "lab01");
    assert!(tunnel["conns_active_at"].is_string() && tunnel["conns_inactive_at"].is_null());

    let connectors = edge.get(&format!("{path}/connections")).await.result();
    assert_eq!(connectors.as_array().unwrap().len(), 2);
    assert_eq!((&connectors[0]["id"], connectors[0]["conns"].as_array().unwrap().len()), (&json!(one), 2));
    assert_eq!(connectors[0]["version"], "2026.8.2");
    assert_eq!(edge.get(&format!("{path}/connectors/{two}")).await.result()["id"], json!(two));
    edge.get(&format!("{path}/connectors/{}", Uuid::new_v4())).await.refused(404, 7003);

    let message = edge.call(Method::DELETE, &path, "").await.refused(400, 1022);
    assert!(message.contains("3 live connections"), "{message}");
    edge.call(Method::DELETE, &format!("{path}/connections?client_id={two}"), "").await.result();
    edge.call(Method::DELETE, &format!("{path}/connections"), "").await.result();
    edge.call(Method::DELETE, &format!("{path}/connections?client_id=x"), "").await.refused(400, 1004);
    edge.call(Method::DELETE, &format!("{path}?cascade=true"), "").await.result();
    assert_eq!(*edge.closed.lock().unwrap(), [(id, Some(two)), (id, None), (id, None)]);

    drop((first, others));
    assert_eq!(edge.get(&path).await.result()["status"], "down");
}

#[tokio::test]
async fn a_configuration_is_checked_kept_and_guarded() {
    let edge = Edge::start().await;
    let (path, _) = edge.tunnel("web").await;
    let path = format!("{path}/configurations");
    let none = edge.get(&path).await.result();
    assert_eq!((&none["config"], &none["version"]), (&Value::Null, &json!(0)));

    let config = json!({
        "ingress": [
            { "hostname": "app.example.test", "service": "http://a:80", "originRequest": { "connectTimeout": 5 } },
            { "service": "http_status:404" },
        ],
    });
    let written = edge.put(&path, json!({ "config": config })).await.result();
    assert_eq!(
        (&written["version"], &written["source"], &written["config"]),
        (&json!(1), &json!("cloudflare"), &config)
    );
    assert_eq!(edge.get(&path).await.result(), written);
    let revision = edge.registry.snapshot().revision();
    assert_eq!(edge.put(&path, json!({ "config": config })).await.result(), written);
    assert_eq!(edge.registry.snapshot().revision(), revision, "the same again changes nothing");

    let bad = json!({ "config": { "ingress": [{ "hostname": "a.test", "service": "http://b" }] } });
    let message = edge.put(&path, bad).await.refused(400, 1004);
    assert!(message.starts_with("config.ingress[0]: the last rule"), "{message}");
    for body in [json!({}), json!({ "config": null }), json!({ "config": 7 })] {
        edge.put(&path, body).await.refused(400, 1004);
    }
    assert_eq!(edge.registry.snapshot().revision(), revision);

    let guarded = async |tag: &str| {
        let bearer = format!("Bearer {}", edge.token);
        let headers = [("authorization", bearer.as_str()), ("if-match", tag)];
        let body = json!({ "config": { "ingress": [{ "service": "hello_world" }] } }).to_string();
        edge.send(Method::PUT, &format!("/client/v4{path}"), &headers, body).await
    };
    guarded("\"7\"").await.refused(412, 1412);
    guarded("seven").await.refused(400, 1004);
    let answer = guarded("\"1\"").await;
    assert_eq!((&answer.result()["version"], &answer.headers["etag"]), (&json!(2), &"\"2\"".parse().unwrap()));
}

#[tokio::test]
async fn a_host_name_is_routed_by_the_cli_s_words() {
    let edge = Edge::start().await;
    let (_, one) = edge.tunnel("one").await;
    let (_, two) = edge.tunnel("two").await;
    let route = async |tunnel: &str, name: Value, overwrite: bool| {
        let path = format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
        edge.put(&path, json!({ "type": "dns", "user_hostname": name, "overwrite_existing": overwrite })).await
    };
    let (one, two) = (one.to_string(), two.to_string());
    let first = route(&one, json!("App.Example.test."), false).await.result();
    assert_eq!((&first["cname"], &first["name"]), (&json!("new"), &json!("app.example.test")));
    assert_eq!(route(&one, json!("app"), false).await.result()["cname"], "unchanged");
    let message = route(&two, json!("app.example.test"), false).await.refused(400, 81053);
    assert!(message.contains(&one), "{message}");
    assert_eq!(route(&two, json!("app.example.test"), true).await.result()["cname"], "updated");
    assert_eq!(route(&two, json!("*.example.test"), false).await.result()["cname"], "new");

    for name in [json!("app.example.com"), json!("a..b"), json!("127.0.0.1"), json!(""), Value::Null] {
        route(&one, name, false).await.refused(400, 1004);
    }
    route(&one, json!(7), false).await.refused(400, 6007);
    route("x", json!("b.example.test"), false).await.refused(404, 7003);
    route(&Uuid::new_v4().to_string(), json!("b.example.test"), false).await.refused(404, 7003);
    let path = format!("/zones/{}/tunnels/{one}/routes", edge.zone);
    let message = edge.put(&path, json!({ "type": "lb", "lb_name": "a", "lb_pool": "b" })).await.refused(400, 1004);
    assert!(message.contains("load balancers"), "{message}");
    edge.put("/zones/x/tunnels/y/routes", json!({})).await.refused(404, 7003);
    assert_eq!(edge.registry.snapshot().routes().count(), 2);
}

#[tokio::test]
async fn a_quick_tunnel_is_made_without_an_account() {
    let edge = Edge::start().await;
    let post = async |body: &str| {
        edge.send(Method::POST, "/tunnel", &[("content-type", "application/json")], body.to_owned()).await
    };
    let quick = post("").await.result();
    let hostname = quick["hostname"].as_str().unwrap();
    assert!(hostname.ends_with(".example.test"), "{hostname}");
    assert_eq!(quick["url"], format!("https://{hostname}:8443"));
    let id: Uuid = quick["id"].as_str().unwrap().parse().unwrap();
    let secret = STANDARD.decode(quick["secret"].as_str().unwrap()).unwrap();
    let snapshot = edge.registry.snapshot();
    assert!(snapshot.authenticate(quick["account_tag"].as_str().unwrap(), id, &secret).is_ok());
    assert_eq!(snapshot.route(hostname).unwrap().tunnel, id);

    let own = STANDARD.encode([9; 32]);
    let named = post(&json!({ "name": "demo", "secret": own }).to_string()).await.result();
    assert_eq!(named["hostname"], "demo.example.test");
    post(r#"{"name":"demo"}"#).await.refused(409, 1013);
    assert_eq!(post(&json!({ "name": "demo", "secret": own }).to_string()).await.result(), named);
    for body in [r#"{"name":"a.b"}"#, r#"{"name":"*"}"#, r#"{"name":""}"#, r#"{"name":"a","secret":"x"}"#] {
        post(body).await.refused(400, 1004);
    }
    post(r#"{"name":1}"#).await.refused(400, 6007);
    for (name, value) in [
        ("origin", "https://elsewhere.test"),
        ("origin", "null"),
        ("sec-fetch-site", "same-origin"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
        ("cf-connecting-ip", "192.0.2.1"),
    ] {
        edge.send(Method::POST, "/tunnel", &[(name, value)], "").await.refused(403, 10000);
    }
    let with_token = [("origin", "https://elsewhere.test"), ("authorization", &format!("Bearer {}", edge.token))];
    edge.send(Method::POST, "/tunnel", &with_token, "").await.result();
}

#[tokio::test]
async fn an_open_edge_makes_so_many_quick_tunnels_for_one_caller() {
    for tells_callers in [false, true] {
        let edge = Edge::with(QuickTunnels::Open, tells_callers).await;
        let proxied = [("x-forwarded-for", "192.0.2.1")];
        for _ in 0..30 {
            edge.send(Method::POST, "/tunnel", &proxied, "").await.result();
        }
        edge.send(Method::POST, "/tunnel", &proxied, "").await.refused(429, 971);
    }
}

#[tokio::test]
async fn quick_tunnels_are_for_those_whom_the_policy_names() {
    for (policy, tells_callers, without, with_token) in [
        (QuickTunnels::Loopback, false, 403, 200),
        (QuickTunnels::Token, true, 403, 200),
        (QuickTunnels::Off, true, 403, 403),
        (QuickTunnels::Open, false, 200, 200),
    ] {
        let edge = Edge::with(policy, tells_callers).await;
        let bearer = format!("Bearer {}", edge.token);
        let without_token = edge.send(Method::POST, "/tunnel", &[], "").await;
        assert_eq!(without_token.status, without, "{policy:?}: {}", without_token.text);
        let answer = edge.send(Method::POST, "/tunnel", &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, with_token, "{policy:?}: {}", answer.text);
        let wrong = edge.send(Method::POST, "/tunnel", &[("authorization", "Bearer wrong")], "").await;
        assert_eq!(wrong.status, 403, "{policy:?}");
    }
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn login_hands_the_credentials_to_the_agent_that_waits() {
    let edge = Edge::start().await;
    let page =
        edge.send(Method::GET, &format!("/argotunnel?aud=&callback=https%3A%2F%2Fx.test%2F{KEY}"), &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains(KEY) && page.text.contains("example.test"), "{}", page.text);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    for bad in ["/argotunnel", "/argotunnel?callback=", "/argotunnel?callback=https://x.test/%3Cscript%3E"] {
        let page = edge.send(Method::GET, bad, &[], "").await;
        assert!(page.status == 400 && !page.text.contains("<script>"), "{}", page.text);
    }

    let submit = async |token: &str| {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        edge.send(Method::POST, "/argotunnel", &form, format!("key={KEY}&zone={}&token={token}", edge.zone)).await
    };
    assert_eq!(submit("wrong").await.status, 403);
    let key_path = format!("/{KEY}");
    let polling = edge.send(Method::GET, &key_path, &[], "");
    tokio::pin!(polling);
    let early = tokio::time::timeout(Duration::from_millis(50), polling.as_mut()).await;
    assert!(early.is_err(), "a refused token hands nothing over");
    assert_eq!(edge.send(Method::HEAD, &key_path, &[], "").await.status, 404);
    assert_eq!(submit(&edge.token).await.status, 200);
    let pem = tokio::time::timeout(Duration::from_secs(5), polling).await.unwrap();
    assert_eq!(pem.status, 200);
    let encoded: String = pem.text.lines().filter(|line| !line.starts_with('-')).collect();
    let content: Value = serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap();
    assert_eq!(content, json!({ "zoneID": edge.zone, "accountID": edge.account, "apiToken": edge.token }));
    assert!(pem.text.starts_with("-----BEGIN ARGO TUNNEL TOKEN-----\n"));

    let waiting = edge.send(Method::GET, &key_path, &[], "");
    let (waited, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(30), waiting), async {
        edge.draining.cancel();
    });
    waited.expect("a node that stops lets nobody wait").refused(404, 7003);

    for none in ["/favicon.ico", "/AAEC", "/%ff"] {
        edge.send(Method::GET, none, &[], "").await.refused(404, 7000);
    }
}

#[tokio::test]
async fn an_agent_learns_all_it_needs_from_the_address_of_the_api() {
    let edge = Edge::start().await;
    let facts = edge.send(Method::GET, "/.well-known/snicket", &[], "").await.json();
    let expected = json!({
        "api": "127.0.0.1:7000",
        "tunnel": ["127.0.0.1:7844", "192.0.2.1:7844"],
        "domain": "example.test",
        "https": "127.0.0.1:8443",
        "http": "127.0.0.1:8080",
        "ports": [20_000, 20_002],
        "ca": "PEM",
        "version": "1.2.3",
        "location": "lab01",
    });
    assert_eq!(facts, expected);
    assert_eq!(edge.send(Method::GET, "/ready", &[], "").await.json()["status"], "ready");
}

#[tokio::test]
async fn too_many_calls_of_one_credential_are_told_to_wait() {
    let edge = Edge::start().await;
    let mut refused = None;
    for _ in 0..1201 {
        let answer = edge.get("/accounts").await;
        if answer.status != 200 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("1201 calls are one too many");
    refused.refused(429, 971);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&wait), "{wait}");
    assert!(!refused.headers.contains_key("x-should-retry"));
    assert!(refused.headers["ratelimit"].to_str().unwrap().contains("r=0"));
}

#[tokio::test]
async fn access_rules_and_routes_have_calls_of_their_own() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token);
    let own = async |method: Method, path: &str, body: String| {
        edge.send(method, &format!("/snicket/v1{path}"), &[("authorization", &bearer)], body).await
    };
    let (_, tunnel) = edge.tunnel("web").await;
    let access = format!("/tunnels/{tunnel}/access");
    let nothing = json!({ "allow": [], "pin": false, "basic": [], "headers": [], "rewrite": [] });
    assert_eq!(own(Method::GET, &access, String::new()).await.result(), nothing);
    let hash = format!("pbkdf2-sha256:100000:{}:{}", STANDARD.encode([1; 16]), STANDARD.encode([2; 32]));
    let rules = json!({ "version": 1, "allow": ["192.0.2.7/24"], "pin": hash, "headers": ["X-Env: demo"] });
    let shown = json!({
        "allow": ["192.0.2.0/24"], "pin": true, "basic": [], "headers": ["x-env: demo"], "rewrite": [],
    });
    assert_eq!(own(Method::PUT, &access, rules.to_string()).await.result(), shown);
    let read = own(Method::GET, &access, String::new()).await;
    assert_eq!(read.result(), shown);
    assert!(!read.text.contains("pbkdf2"), "hashes stay here: {}", read.text);
    for bad in [json!({}), json!({ "version": 1, "pin": "1234" }), json!({ "version": 1, "deny": [] })] {
        assert_eq!(own(Method::PUT, &access, bad.to_string()).await.status, 400, "{bad}");
    }
    assert!(edge.registry.snapshot().access(tunnel).is_some(), "what is refused changes nothing");
    assert_eq!(own(Method::DELETE, &access, String::new()).await.result(), nothing);
    own(Method::GET, "/tunnels/x/access", String::new()).await.refused(404, 7003);
    assert_eq!(edge.send(Method::GET, &format!("/snicket/v1{access}"), &[], "").await.status, 400, "it needs a token");

    let route = format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
    edge.put(&route, json!({ "type": "dns", "user_hostname": "www.example.test" })).await.result();
    let listed = own(Method::GET, &format!("/routes?tunnel={tunnel}"), String::new()).await.result();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["hostname"]), (1, &json!("www.example.test")));
    own(Method::DELETE, "/routes/www.example.test", String::new()).await.result();
    assert!(edge.registry.snapshot().route("www.example.test").is_none());
    own(Method::DELETE, "/routes/www.example.test", String::new()).await.refused(404, 7003);
}

#[tokio::test]
async fn a_quick_tunnel_has_its_rules_before_its_agent_comes() {
    let edge = Edge::start().await;
    let access = json!({ "version": 1, "allow": ["192.0.2.0/24"] });
    let made = edge.send(Method::POST, "/tunnel", &[], json!({ "access": access }).to_string()).await.result();
    assert_eq!(made["access"]["allow"], json!(["192.0.2.0/24"]));
    let id: Uuid = made["id"].as_str().unwrap().parse().unwrap();
    assert!(!edge.registry.snapshot().access(id).unwrap().allows([198, 51, 100, 1].into()));
    let again = json!({ "name": made["hostname"].as_str().unwrap().split('.').next(), "secret": made["secret"] });
    edge.send(Method::POST, "/tunnel", &[], again.to_string()).await.result();
    assert!(edge.registry.snapshot().access(id).is_none(), "without rules everybody may come");
}

/// Another program listens at port 20001.
fn opened(port: PortId) -> std::io::Result<()> {
    if port.number == 20_001 { Err(std::io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
}

#[tokio::test]
async fn public_ports_are_given_kept_and_refused() {
    let edge = Edge::with(QuickTunnels::Open, true).await;
    let secret = STANDARD.encode([7; 32]);
    let ask = |wish: Value| {
        let edge = &edge;
        async move { edge.send(Method::POST, "/tunnel", &[], wish.to_string()).await }
    };
    let first = ask(json!({ "name": "one", "secret": secret, "port": { "proxy_protocol": "v2" } })).await.result();
    let number = first["port"].as_u64().unwrap();
    assert!([20_000, 20_002].contains(&number), "20001 is held by somebody else: {first}");
    let again = ask(json!({ "name": "one", "secret": secret, "port": {} })).await.result();
    assert_eq!(again["port"], number, "the same name has the same port again");
    let other = 40_002 - number;
    let second = ask(json!({ "name": "two", "port": { "prefer": other } })).await.result();
    assert_eq!(second["port"], other);
    let passed = ask(json!({ "name": "three", "tls": { "max_connections": 5_001 } })).await;
    assert!(passed.status.is_client_error() && passed.text.contains("at most 5000"), "{}", passed.text);
    for (wish, said) in [
        (json!({}), "20000 to 20002"),
        (json!({ "first": 20_001, "last": 20_001 }), "cannot be opened"),
        (json!({ "first": number, "last": number }), "belongs to another tunnel"),
        (json!({ "first": 1, "last": 20_001 }), "public ports 20000 to 20002"),
        (json!({ "first": 20_002, "last": 20_000 }), "public ports 20000 to 20002"),
        (json!({ "max_connections": 0 }), "at least 1"),
        (json!({ "max_connections": 5_001 }), "at most 5000, which is half of what this edge serves at once"),
        (json!({ "proxy_protocol": "v3" }), "v3"),
    ] {
        let refused = ask(json!({ "name": "three", "secret": secret, "port": wish })).await;
        assert!(refused.status.is_client_error() && refused.text.contains(said), "{wish}: {}", refused.text);
    }
    let bearer = format!("Bearer {}", edge.token);
    let listed = edge.send(Method::GET, "/snicket/v1/ports", &[("authorization", &bearer)], "").await.result();
    let numbers: Vec<_> = listed.as_array().unwrap().iter().map(|port| port["port"].clone()).collect();
    assert_eq!(numbers, [20_000, 20_002]);
}

#[tokio::test]
async fn tunnels_that_are_there_have_ports_given_and_taken_away() {
    let edge = Edge::with(QuickTunnels::Open, true).await;
    let bearer = format!("Bearer {}", edge.token);
    let send = |method: Method, path: String, body: Value| {
        let (edge, bearer) = (&edge, &bearer);
        async move {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            edge.send(method, &path, &[("authorization", bearer)], body).await
        }
    };
    let made = edge.send(Method::POST, "/tunnel", &[], json!({ "name": "one" }).to_string()).await.result();
    let ports = format!("/snicket/v1/tunnels/{}/ports", made["id"].as_str().unwrap());
    let udp = json!({ "protocol": "udp", "service": "192.0.2.7:53", "first": 20_000, "last": 20_000 });
    let given = send(Method::POST, ports.clone(), udp.clone()).await.result();
    assert_eq!((&given["port"], &given["protocol"]), (&json!(20_000), &json!("udp")));
    assert_eq!((&given["service"], &given["idle_seconds"]), (&json!("192.0.2.7:53"), &json!(120)));
    // The same number of TCP is another port, and the first stays.
    let tcp = json!({ "service": "db.example.test", "first": 20_000, "last": 20_000 });
    assert_eq!(send(Method::POST, ports.clone(), tcp).await.result()["idle_seconds"], 3600);
    for (wish, said) in [
        (udp, "belongs to another tunnel"),
        (json!({ "service": "a b" }), "service"),
        (json!({ "service": "192.0.2.7:53", "protocol": "udp", "idle_seconds": 0 }), "idle_seconds"),
        (json!({ "service": "192.0.2.7:53", "protocol": "udp", "proxy_protocol": "v1" }), "only v2"),
        (json!({ "service": "192.0.2.7:53", "count": 2 }), "count"),
        (json!({}), "service"),
    ] {
        let refused = send(Method::POST, ports.clone(), wish.clone()).await;
        assert!(refused.status.is_client_error() && refused.text.contains(said), "{wish}: {}", refused.text);
    }
    let listed = async || {
        let ports = send(Method::GET, "/snicket/v1/ports".to_owned(), Value::Null).await.result();
        ports.as_array().unwrap().iter().map(|port| port["protocol"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, ["tcp", "udp"]);
    send(Method::DELETE, format!("{ports}/udp/20000"), Value::Null).await.result();
    assert_eq!(listed().await, ["tcp"]);
    assert!(send(Method::DELETE, format!("{ports}/udp/20000"), Value::Null).await.status.is_client_error());
}
