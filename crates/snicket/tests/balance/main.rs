//! Load balancers: several origins behind one name, at addresses and behind tunnels.

mod labels;
mod places;
mod vanished;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use harness::{Agent, Edge, LIMIT, Origin, RawOrigin, Visitor, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

/// Members of pools may be on this machine, as none of the tests has another one.
const HERE: [&str; 2] = ["--origin-networks", "127.0.0.0/8"];
const HOST: &str = "app.localhost";

/// An edge, and what its API needs to know.
struct Balanced {
    edge: Edge,
    account: String,
    zone: String,
}

impl Balanced {
    async fn start(arguments: &[&str]) -> Self {
        let edge = Edge::start_with(arguments).await;
        let (_, zones) = edge.call("GET", "/client/v4/zones?name=localhost", None).await;
        let id = |value: &Value| value.as_str().expect("an id").to_owned();
        let (zone, account) = (id(&zones["result"][0]["id"]), id(&zones["result"][0]["account"]["id"]));
        Self { edge, account, zone }
    }

    async fn make(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.edge.call("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    }

    /// A pool of these origins, in the members of the API.
    async fn pool(&self, name: &str, origins: &[Value]) -> String {
        let path = format!("/client/v4/accounts/{}/load_balancers/pools", self.account);
        let pool = self.make(&path, json!({ "name": name, "origins": origins })).await;
        pool["id"].as_str().expect("an id").to_owned()
    }

    /// Has the members of a pool asked every second for their health.
    async fn watch(&self, pool: &str, path: &str) {
        let base = format!("/client/v4/accounts/{}/load_balancers", self.account);
        let terms = json!({
            "type": "http", "path": path, "expected_codes": "200", "interval": 1, "timeout": 1, "retries": 0,
            "consecutive_down": 2,
        });
        let monitor = self.make(&format!("{base}/monitors"), terms).await;
        let change = json!({ "monitor": monitor["id"] });
        let (status, answer) = self.edge.call("PATCH", &format!("{base}/pools/{pool}"), Some(change)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// What the API says of the members of a pool, by name: well or not, and why not.
    async fn health(&self, pool: &str) -> Vec<(String, bool, String)> {
        let path = format!("/client/v4/accounts/{}/load_balancers/pools/{pool}/health", self.account);
        let (status, answer) = self.edge.call("GET", &path, None).await;
        assert_eq!(status, 200, "{answer}");
        let at_home = &answer["result"]["pop_health"]["home"]["origins"];
        let origins =
            at_home.as_array().into_iter().flatten().flat_map(|origin| origin.as_object().expect("by address"));
        let told = origins.map(|(address, health)| {
            let is_well = health["healthy"].as_bool().expect("a verdict");
            (address.clone(), is_well, health["failure_reason"].as_str().unwrap_or_default().to_owned())
        });
        told.collect()
    }

    /// A load balancer of these pools, with what else is to be said.
    async fn balancer(&self, pools: &[&str], mut terms: Value) {
        let last = pools.last().expect("a pool");
        terms["name"] = json!(HOST);
        terms["default_pools"] = json!(pools);
        terms["fallback_pool"] = json!(last);
        terms["proxied"] = json!(true);
        self.make(&format!("/client/v4/zones/{}/load_balancers", self.zone), terms).await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://{HOST}:{}{path}", self.edge.http().port())
    }

    fn visitor(&self) -> Visitor {
        self.edge.visitor()
    }

    /// What the edge has counted.
    async fn count(&self, metric: &str) -> u64 {
        let metrics = Visitor::plain(self.edge.api()).get("/metrics").await.text();
        let count = metrics.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
        count.unwrap_or_else(|| panic!("{metric} is not in {metrics}"))
    }

    /// The statuses of so many requests one after the other.
    async fn visits(&self, count: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(self.visitor().get(&self.url("/")).await.status);
        }
        statuses
    }
}

/// The right to manage tunnels, as `tunnel login` writes it.
struct Login {
    _home: TempDir,
    place: [String; 4],
}

impl Login {
    async fn of(edge: &Edge) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let cert = home.path().join("cert.pem").display().to_string();
        let api = format!("http://{}/client/v4", edge.api());
        let token_file = edge.token_file().display().to_string();
        let words = ["tunnel", "--origincert", &cert, "--api-url", &api, "login", "--token-file", &token_file];
        let (code, _, error) = edge.command(&words).await;
        assert_eq!(code, 0, "{error}");
        Self { _home: home, place: ["--api-url".into(), api, "--origincert".into(), cert] }
    }

    /// An agent of this name in the pool `web`, with what else is to be said.
    async fn member(&self, edge: &Edge, name: &str, origin: &Origin, more: &[&str]) -> Agent {
        let service = origin.service();
        let place: Vec<&str> = self.place.iter().map(String::as_str).collect();
        let words = ["--name", name, "--hostname", HOST, "--lb-pool", "web", "--url", &service];
        Agent::tunnel(edge, &[&place, &words[..], more].concat()).await
    }
}

fn at(origin: &Origin) -> Value {
    let address = origin.address();
    json!({ "name": address.port().to_string(), "address": address.ip().to_string(), "port": address.port() })
}

#[tokio::test(flavor = "multi_thread")]
async fn members_at_addresses_share_and_one_that_dies_fails_nobody() {
    let balanced = Balanced::start(&HERE).await;
    let (one, other) = (Origin::start().await, Origin::start().await);
    let pool = balanced.pool("web", &[at(&one), at(&other)]).await;
    balanced.balancer(&[&pool], json!({})).await;
    assert_eq!(balanced.visits(40).await, [200; 40]);
    // With a chance of one half each, fewer than five of 40 come in one run of ten million.
    assert!(one.requests() >= 5 && other.requests() >= 5, "{} and {}", one.requests(), other.requests());
    let answer = balanced.visitor().get(&balanced.url("/request")).await.text();
    assert!(answer.contains(HOST), "the origin sees the visitor's host: {answer}");

    let (seen, address) = (other.requests(), one.address());
    drop(one);
    assert_eq!(balanced.visits(20).await, [200; 20]);
    assert_eq!(other.requests(), seen + 20);
    let posted = balanced.visitor().post(&balanced.url("/echo"), "form").await;
    assert_eq!((posted.status, posted.text().contains("form")), (200, true), "nobody has seen it where nobody listens");

    assert!(balanced.count("snicket_edge_retries_total{why=\"origin\"}").await > 0);
    assert!(balanced.count("snicket_balance_retries_total{verdict=\"granted\"}").await > 0);
    assert_eq!(balanced.count("snicket_balance_retries_total{verdict=\"refused\"}").await, 0);
    assert_eq!(balanced.count("snicket_balance_members_out_total{why=\"unreached\"}").await, 1);
    balanced.edge.process.complaint("a member is out").await;
    let log = balanced.edge.process.stderr();
    assert_eq!(log.lines().filter(|line| line.contains("a member is out")).count(), 1, "{log}");
    drop(other);
    let _back = Origin::start_on(address).await;
    assert_eq!(balanced.visits(1).await, [200], "who comes back is asked when nobody else is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_behind_tunnels_share_and_one_that_dies_fails_nobody() {
    let balanced = Balanced::start(&[]).await;
    let (first, second) = (Origin::start().await, Origin::start().await);
    let (mut agents, mut members) = (Vec::new(), Vec::new());
    for (name, origin) in [("first", &first), ("second", &second)] {
        let token = balanced.edge.named_tunnel(name, &format!("{name}.localhost")).await;
        let token = token.to_str().expect("a name").to_owned();
        let service = origin.service();
        agents.push(Agent::tunnel(&balanced.edge, &["--url", &service, "run", "--token-file", &token]).await);
        let (_, tunnels) = balanced
            .edge
            .call("GET", &format!("/client/v4/accounts/{}/cfd_tunnel?name={name}", balanced.account), None)
            .await;
        let id = tunnels["result"][0]["id"].as_str().expect("an id");
        members.push(json!({ "name": name, "address": format!("{id}.cfargotunnel.com") }));
    }
    let pool = balanced.pool("web", &members).await;
    balanced.balancer(&[&pool], json!({})).await;
    assert_eq!(balanced.visits(40).await, [200; 40]);
    assert!(first.requests() >= 5 && second.requests() >= 5, "{} and {}", first.requests(), second.requests());

    agents.swap_remove(0).kill().await;
    let seen = second.requests();
    assert_eq!(balanced.visits(20).await, [200; 20]);
    assert_eq!(second.requests(), seen + 20);
    agents.swap_remove(0).kill().await;
    let answer = balanced.visitor().get(&balanced.url("/")).await;
    assert_eq!((answer.status, answer.text().contains("1034")), (503, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_pool_serves_until_it_is_down_and_a_session_stays_where_it_began() {
    let balanced = Balanced::start(&HERE).await;
    let (one, other, spare) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let near = balanced.pool("near", &[at(&one), at(&other)]).await;
    let far = balanced.pool("far", &[at(&spare)]).await;
    let terms = json!({
        "session_affinity": "cookie",
        "session_affinity_attributes": { "zero_downtime_failover": "sticky" },
        "adaptive_routing": { "failover_across_pools": true },
    });
    balanced.balancer(&[&near, &far], terms).await;
    let first = balanced.visitor().get(&balanced.url("/")).await;
    let cookie = first.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    assert!(cookie.starts_with("__cflb="), "{cookie}");
    for _ in 0..10 {
        let again = balanced.visitor().request("GET", &balanced.url("/"), &[("cookie", &cookie)], "").await;
        assert_eq!((again.status, again.header("set-cookie")), (200, ""));
    }
    assert!(matches!((one.requests(), other.requests()), (11, 0) | (0, 11)), "{} {}", one.requests(), other.requests());
    drop((one, other));
    let moved = balanced.visitor().request("GET", &balanced.url("/"), &[("cookie", &cookie)], "").await;
    assert_eq!((moved.status, spare.requests()), (200, 1));
    assert!(moved.header("set-cookie").starts_with("__cflb="), "the session is another member's now");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_the_edges_own_network_through_a_pool() {
    let balanced = Balanced::start(&[]).await;
    let origin = Origin::start().await;
    let named = json!({ "name": "by-name", "address": "localhost", "port": origin.address().port() });
    let pool = balanced.pool("inside", &[at(&origin), named]).await;
    balanced.balancer(&[&pool], json!({})).await;
    assert_eq!(balanced.visitor().get(&balanced.url("/")).await.status, 523);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_and_websockets_pass_to_members_at_addresses() {
    let balanced = Balanced::start(&HERE).await;
    let origin = Origin::start().await;
    let pool = balanced.pool("web", &[at(&origin)]).await;
    balanced.balancer(&[&pool], json!({})).await;
    let answer = balanced.visitor().get(&balanced.url("/bytes?n=3000000")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
    let posted = balanced.visitor().post(&balanced.url("/echo"), vec![b'x'; 2_000_000]).await;
    assert_eq!(posted.status, 200);
    let url = balanced.url("/ws").replace("http://", "ws://");
    let stream = balanced.visitor().dial(&url.parse().expect("a URL")).await;
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
    socket.send("hello".into()).await.expect("it is open");
    assert_eq!(socket.next().await.expect("an answer").expect("a message").into_data(), "hello");
}

/// An origin whose mood changes: what it does with each request.
struct Moody {
    origin: RawOrigin,
    mood: watch::Sender<&'static str>,
    requests: Arc<AtomicUsize>,
}

const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
const BROKEN: &str = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// Takes the request, and says nothing.
const STALLED: &str = "";

impl Moody {
    async fn start() -> Self {
        let (mood, requests) = (watch::Sender::new(WELL), Arc::new(AtomicUsize::new(0)));
        let (felt, counted) = (mood.subscribe(), requests.clone());
        let origin = RawOrigin::start(move |mut stream| {
            let (mut felt, counted) = (felt.clone(), counted.clone());
            async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                if !String::from_utf8_lossy(&head[..read]).contains("/health") {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                // Whoever stalls stalls for those who wait when it is well again, too.
                let answer = *felt.borrow_and_update();
                if answer == STALLED {
                    std::future::pending::<()>().await;
                }
                // The visitor may have left.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { origin: origin.await, mood, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn member(&self) -> Value {
        let service = self.origin.service();
        let port: u16 = service.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        json!({ "name": port.to_string(), "address": "127.0.0.1", "port": port })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_its_monitor_badly_is_out_until_it_answers_well() {
    let balanced = Balanced::start(&HERE).await;
    let (moody, steady) = (Moody::start().await, Moody::start().await);
    let pool = balanced.pool("web", &[moody.member(), steady.member()]).await;
    balanced.balancer(&[&pool], json!({})).await;
    balanced.watch(&pool, "/health").await;
    let is = async |verdicts: [bool; 2]| {
        until(LIMIT, "the pool's health is as expected", async || {
            let health = balanced.health(&pool).await;
            health.iter().map(|(_, is_well, _)| *is_well).eq(verdicts)
        })
        .await;
    };
    is([true, true]).await;
    moody.mood.send_replace(BROKEN);
    is([false, true]).await;
    let health = balanced.health(&pool).await;
    assert!(health[0].2.contains("500"), "the reason is told: {health:?}");
    let seen = moody.requests();
    assert_eq!(balanced.visits(20).await, [200; 20]);
    assert_eq!(moody.requests(), seen);
    assert_eq!(balanced.count("snicket_balance_members_out_total{why=\"monitor\"}").await, 1);

    moody.mood.send_replace(WELL);
    is([true, true]).await;
    // It comes back slowly, so not at once.
    until(LIMIT, "it is asked again", async || balanced.visits(1).await == [200] && moody.requests() > seen).await;
    assert_eq!(balanced.count("snicket_balance_members_back_total{why=\"monitor\"}").await, 1);
    for told in ["a member is out", "a member is back"] {
        // What is counted may not have come through the pipe yet.
        balanced.edge.process.complaint(told).await;
        let log = balanced.edge.process.stderr();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(told)).collect();
        let [line] = lines[..] else { panic!("{told} is told {} times: {log}", lines.len()) };
        assert!(line.contains("web") && line.contains("monitor"), "{line}");
    }
    assert!(balanced.edge.process.stderr().contains("500"), "the reason is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_member_that_stalls_is_served_by_another_one_once_that_is_known() {
    let balanced = Balanced::start(&HERE).await;
    let (moody, steady) = (Moody::start().await, Moody::start().await);
    let pool = balanced.pool("web", &[moody.member(), steady.member()]).await;
    balanced.balancer(&[&pool], json!({})).await;
    balanced.watch(&pool, "/health").await;
    until(LIMIT, "both are well", async || {
        let health = balanced.health(&pool).await;
        health.len() == 2 && health.iter().all(|(_, is_well, _)| *is_well)
    })
    .await;
    moody.mood.send_replace(STALLED);
    // Of twelve, one at least begins with the one that stalls, but for one time in 4,096.
    let visits: Vec<_> = (0..12)
        .map(|_| {
            let (visitor, url) = (balanced.visitor(), balanced.url("/"));
            tokio::spawn(async move { visitor.get(&url).await.status })
        })
        .collect();
    for visit in visits {
        assert_eq!(visit.await.expect("it ends"), 200);
    }
    assert_eq!(balanced.visits(10).await, [200; 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_name_a_pool_share_its_name_and_leave_with_their_end() {
    let balanced = Balanced::start(&[]).await;
    let (first, second) = (Origin::start().await, Origin::start().await);
    let login = Login::of(&balanced.edge).await;
    let run = async |name: &str, origin: &Origin| login.member(&balanced.edge, name, origin, &[]).await;
    let members = async || {
        let path = format!("/client/v4/accounts/{}/load_balancers/pools?name=web", balanced.account);
        let (_, pools) = balanced.edge.call("GET", &path, None).await;
        let origins = pools["result"][0]["origins"].as_array().cloned().unwrap_or_default();
        origins.iter().map(|origin| origin["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let place: Vec<&str> = login.place.iter().map(String::as_str).collect();
    let words = ["--name", "none", "--hostname", HOST, "--lb-pool", "no pool", "--url", "http://127.0.0.1:1"];
    let words = [&["tunnel"], &place[..], &words].concat();
    let (code, _, error) = balanced.edge.command(&words).await;
    assert!(code == 2 && error.contains("--lb-pool") && error.contains("letters, digits"), "{error}");
    let said = balanced.edge.said(&[&["tunnel"], &place[..], &["list"]].concat()).await;
    assert!(said.contains("No tunnels"), "no tunnel was made for it: {said}");
    let one = run("one", &first).await;
    assert_eq!(one.ready()["url"], format!("https://{HOST}:{}", balanced.edge.https().port()));
    assert_eq!(balanced.visits(5).await, [200; 5]);
    let other = run("other", &second).await;
    assert_eq!(members().await, ["one", "other"]);
    assert_eq!(balanced.visits(40).await, [200; 40]);
    assert!(first.requests() >= 10 && second.requests() >= 5, "{} and {}", first.requests(), second.requests());

    other.stop().await;
    assert_eq!(members().await, ["one"]);
    let seen = second.requests();
    assert_eq!(balanced.visits(10).await, [200; 10]);
    assert_eq!(second.requests(), seen);
    one.stop().await;
    assert!(members().await.is_empty(), "the pool is there for the next one");
    assert_eq!(balanced.visits(1).await, [503]);
    let again = run("again", &second).await;
    assert_eq!(members().await, ["again"]);
    assert_eq!(balanced.visits(5).await, [200; 5]);
    let died = again.kill().await;
    assert_eq!(balanced.visits(1).await, [503]);
    drop(died);
}
