//! Services that register themselves: as a file names them, and as labels of containers do.

use std::io;
use std::path::Path;

use harness::{Edge, LIMIT, Origin, Passing, Process, Program, Relay, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

async fn start(edge: &Edge, words: &[&str]) -> Process {
    let words = [&["services", "--json", "--protocol", "http2", "--grace-period", "2s"], words].concat();
    let mut process = Program::new(edge.home(), &words).start().await;
    process.event("ready").await;
    process
}

async fn status(edge: &Edge, host: &str) -> u16 {
    edge.visitor().get(&format!("http://{host}:{}/", edge.http().port())).await.status
}

/// Waits for the first answer of a service that is registered: on a busy machine its agent may be still on its way.
async fn served(edge: &Edge, host: &str) {
    until(LIMIT, "it is served", async || status(edge, host).await == 200).await;
}

/// Waits for what is said of a service.
async fn told(process: &mut Process, hostname: &str, state: &str) -> Value {
    process
        .event_where(|event| event["event"] == "service" && event["hostname"] == hostname && event["state"] == state)
        .await
}

/// The ids of connections of a tunnel that is not deleted; none, if there is none.
async fn connections(edge: &Edge, tunnel: &str) -> Vec<String> {
    let out = edge.said(&["tunnel", "list", "--name", tunnel, "--json"]).await;
    let Some(line) = out.lines().next() else { return Vec::new() };
    let tunnel: Value = serde_json::from_str(line).expect("an event");
    let mut ids: Vec<String> =
        tunnel["connections"].as_array().into_iter().flatten().map(|one| one["id"].to_string()).collect();
    ids.sort();
    ids
}

fn write(path: &Path, services: &[(&str, String, Option<&str>)]) {
    let mut text = if services.is_empty() { "services: []\n" } else { "services:\n" }.to_owned();
    for (hostname, url, pool) in services {
        text.push_str(&format!("  - hostname: {hostname}\n    url: {url}\n    labels: [rack=7]\n"));
        text.push_str(&pool.map(|pool| format!("    pool: {pool}\n")).unwrap_or_default());
    }
    // As editors do it: whoever reads sees the one or the other.
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("a file can be made");
    std::fs::rename(&new, path).expect("it can be put in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_s_services_come_change_and_go_without_disturbing_the_others() {
    let edge = Edge::start().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let file = edge.home().join("services.yml");
    write(&file, &[("one.localhost", one.service(), None)]);
    let mut services = start(&edge, &["services.yml"]).await;
    let first = told(&mut services, "one.localhost", "registered").await;
    assert_eq!((&first["url"], &first["labels"]["rack"]), (&one.service().into(), &"7".into()));
    served(&edge, "one.localhost").await;
    until(LIMIT, "all of its connections are there", async || {
        connections(&edge, "service-one.localhost").await.len() == 4
    })
    .await;
    let before = connections(&edge, "service-one.localhost").await;

    // One more.
    write(&file, &[("one.localhost", one.service(), None), ("two.localhost", two.service(), None)]);
    told(&mut services, "two.localhost", "registered").await;
    served(&edge, "two.localhost").await;
    assert_eq!(status(&edge, "one.localhost").await, 200);

    // A mistake changes nothing, and is told with its place.
    std::fs::write(&file, "services:\n  - hostname: one.localhost\n    url: http://localhost:1\n  - hostname: a b\n")
        .expect("written");
    let refused = services.event_where(|event| event["event"] == "configuration" && event["applied"] == false).await;
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains("services.yml:4:") && reason.contains("\"url\""), "{reason}");
    assert_eq!((status(&edge, "one.localhost").await, status(&edge, "two.localhost").await), (200, 200));

    // The same name at another place, with nobody failing in between.
    let seen = one.requests();
    write(&file, &[("one.localhost", one.service(), None), ("two.localhost", one.service(), None)]);
    {
        let mut changed = std::pin::pin!(told(&mut services, "two.localhost", "registered"));
        loop {
            tokio::select! {
                _ = &mut changed => break,
                answer = status(&edge, "two.localhost") => assert_eq!(answer, 200),
            }
        }
    }
    until(LIMIT, "the new place is asked", async || {
        status(&edge, "two.localhost").await == 200 && one.requests() > seen
    })
    .await;

    // One that goes is gone, and its tunnel with it; the other one has not noticed any of that.
    write(&file, &[("one.localhost", one.service(), None)]);
    told(&mut services, "two.localhost", "removed").await;
    until(LIMIT, "its name is gone", async || status(&edge, "two.localhost").await != 200).await;
    let is_gone = async || !edge.said(&["tunnel", "list"]).await.contains("service-two.localhost");
    until(LIMIT, "its tunnel is gone", is_gone).await;
    assert_eq!(connections(&edge, "service-one.localhost").await, before);
    assert_eq!(status(&edge, "one.localhost").await, 200);

    // The end keeps the name for the next start.
    assert!(services.terminate().await.success());
    assert!(edge.said(&["tunnel", "list"]).await.contains("service-one.localhost"));
    let _again = start(&edge, &["services.yml"]).await;
    until(LIMIT, "it is served again", async || status(&edge, "one.localhost").await == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_member_of_a_pool_moves_and_visitors_always_find_one() {
    let edge = Edge::start().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let file = edge.home().join("services.yml");
    write(&file, &[("shop.localhost", one.service(), Some("shop"))]);
    let mut services = start(&edge, &["services.yml"]).await;
    told(&mut services, "shop.localhost", "registered").await;
    until(LIMIT, "it is served", async || status(&edge, "shop.localhost").await == 200).await;
    write(&file, &[("shop.localhost", two.service(), Some("shop"))]);
    // What comes and what goes are told in the order in which they are done.
    let next = async |services: &mut Process| {
        let mut told = std::pin::pin!(services.event_where(|event| event["event"] == "service"));
        loop {
            tokio::select! {
                event = &mut told => break (event["state"].clone(), event["url"].clone()),
                answer = status(&edge, "shop.localhost") => assert_eq!(answer, 200),
            }
        }
    };
    assert_eq!(next(&mut services).await, ("registered".into(), two.service().into()));
    assert_eq!(next(&mut services).await, ("removed".into(), one.service().into()));
    until(LIMIT, "the former one's tunnel is gone", async || {
        assert_eq!(status(&edge, "shop.localhost").await, 200);
        edge.said(&["tunnel", "list"]).await.matches("service-shop-").count() == 1
    })
    .await;
    assert_eq!(status(&edge, "shop.localhost").await, 200);
    assert!(two.requests() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_does_not_take_is_told_and_disturbs_nobody() {
    let edge = Edge::start().await;
    let origin = Origin::start().await;
    write(
        &edge.home().join("s.yml"),
        &[("app.other.test", origin.service(), None), ("app.localhost", origin.service(), None)],
    );
    let mut services = start(&edge, &["s.yml"]).await;
    let failed = told(&mut services, "app.other.test", "failed").await;
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains("in no zone")), "{failed}");
    served(&edge, "app.localhost").await;
    // It is tried again.
    edge.said(&["dns", "create", "other.test"]).await;
    told(&mut services, "app.other.test", "registered").await;
    served(&edge, "app.other.test").await;

    for (words, text, said) in [
        (&["nowhere.yml"][..], "", "not usable"),
        (&["bad.yml"], "services:\n  - hostname: x y\n    url: http://localhost:1\n", "bad.yml:2:"),
        (&[], "", "FILE"),
    ] {
        std::fs::write(edge.home().join("bad.yml"), text).expect("a file can be made");
        let (code, _, error) = edge.command(&[&["services"], words].concat()).await;
        assert!(code == 2 && error.contains(said), "{words:?}: {code} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_whose_name_is_taken_is_not_left_behind() {
    let edge = Edge::start().await;
    let origin = Origin::start().await;
    edge.said(&["dns", "create", "other.test"]).await;
    edge.said(&["dns", "add", "other.test", "app", "A", "192.0.2.1"]).await;
    let file = edge.home().join("s.yml");
    write(&file, &[("app.other.test", origin.service(), None)]);
    let mut services = start(&edge, &["s.yml"]).await;
    told(&mut services, "app.other.test", "failed").await;
    write(&file, &[]);
    let is_gone = async || !edge.said(&["tunnel", "list"]).await.contains("service-app");
    until(LIMIT, "its tunnel is gone", is_gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_cannot_remove_is_removed_once_it_can() {
    let edge = Edge::start().await;
    let origin = Origin::start().await;
    let relay = Relay::start(edge.api(), Passing::All).await;
    let file = edge.home().join("s.yml");
    write(&file, &[("app.localhost", origin.service(), None)]);
    let (api, token) = (format!("http://{}", relay.address()), edge.token_file().display().to_string());
    let mut services = start(&edge, &["s.yml", "--edge", &api, "--token-file", &token]).await;
    told(&mut services, "app.localhost", "registered").await;
    relay.pass(Passing::Reset);
    write(&file, &[]);
    told(&mut services, "app.localhost", "removed").await;
    until(LIMIT, "the removal has failed", async || services.stderr().contains("is left at the edge")).await;
    let is_there = async || edge.said(&["tunnel", "list"]).await.contains("service-app");
    assert!(is_there().await);
    relay.pass(Passing::All);
    until(LIMIT, "it is gone", async || !is_there().await).await;

    // The end does not wait for what cannot be done.
    write(&file, &[("app.localhost", origin.service(), None)]);
    told(&mut services, "app.localhost", "registered").await;
    relay.pass(Passing::Reset);
    write(&file, &[]);
    told(&mut services, "app.localhost", "removed").await;
    assert!(services.terminate().await.success());
    assert!(is_there().await);
}

/// The Engine API as far as it is asked, with the answers that a Docker gives.
struct Docker {
    containers: watch::Sender<Vec<Value>>,
    server: AbortHandle,
}

impl Docker {
    fn start(path: &Path, containers: Vec<Value>) -> Self {
        let listener = UnixListener::bind(path).expect("a socket can be made");
        let containers = watch::Sender::new(containers);
        let told = containers.clone();
        let serve = async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let told = told.subscribe();
                tasks.spawn(async move { answer(stream, told).await });
            }
        };
        Self { containers, server: tokio::spawn(serve).abort_handle() }
    }
}

async fn answer(mut stream: UnixStream, mut containers: watch::Receiver<Vec<Value>>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    if request.starts_with("GET /containers/json?filters=%7B%22label%22%3A%5B%22snicket.hostname%22%5D%7D ") {
        let body = json!(*containers.borrow()).to_string();
        let head =
            "HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\nDocker-Experimental: false";
        return stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    }
    assert!(request.starts_with("GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D "), "{request}");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    while containers.changed().await.is_ok() {
        let event = json!({
            "status": "start", "Type": "container", "Action": "start", "scope": "local", "time": 1_700_000_000,
            "Actor": { "ID": "0f", "Attributes": { "image": "nginx" } },
        });
        let event = format!("{event}\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
    Ok(())
}

fn container(id: &str, labels: Value, origin: &Origin) -> Value {
    let address = origin.address();
    json!({
        "Id": id.repeat(64 / id.len()), "Names": [format!("/{id}")], "Image": "nginx", "State": "running", "Status": "Up 2 hours",
        "Labels": labels, "Ports": [{ "PrivatePort": address.port(), "Type": "tcp" }], "HostConfig": { "NetworkMode": "bridge" },
        "NetworkSettings": { "Networks": { "bridge": { "IPAddress": address.ip().to_string(), "Gateway": "172.17.0.1" } } },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_registered_by_their_labels_and_removed_when_they_stop() {
    let edge = Edge::start().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let socket = edge.home().join("docker.sock");
    let app = container("aa", json!({ "snicket.hostname": "app.localhost", "snicket.label.rack": "7" }), &one);
    let unnamed = container("bb", json!({ "snicket.hostname": "not a name" }), &one);
    let docker = Docker::start(&socket, vec![app.clone(), unnamed]);
    let flag = format!("--docker={}", socket.display());
    let mut services = start(&edge, &[&flag]).await;
    let registered = told(&mut services, "app.localhost", "registered").await;
    assert_eq!((&registered["labels"]["rack"], &registered["url"]), (&"7".into(), &one.service().into()));
    served(&edge, "app.localhost").await;
    services.complaint("labels name no service container=\"bb\"").await;

    // Two of a pool, one of which stops.
    let pooled = |id: &str, origin: &Origin| {
        container(id, json!({ "snicket.hostname": "shop.localhost", "snicket.pool": "shop" }), origin)
    };
    docker.containers.send_replace(vec![app.clone(), pooled("cc", &one), pooled("dd", &two)]);
    for _ in 0..2 {
        told(&mut services, "shop.localhost", "registered").await;
    }
    let seen = two.requests();
    until(LIMIT, "both serve", async || status(&edge, "shop.localhost").await == 200 && two.requests() > seen).await;
    docker.containers.send_replace(vec![app.clone(), pooled("cc", &one)]);
    told(&mut services, "shop.localhost", "removed").await;
    let members = async || {
        let pool: Value =
            serde_json::from_str(&edge.said(&["pools", "show", "shop", "--json"]).await).expect("an event");
        pool["members"].as_array().map(Vec::len)
    };
    until(LIMIT, "it has left the pool", async || members().await == Some(1)).await;
    for _ in 0..10 {
        assert_eq!(status(&edge, "shop.localhost").await, 200);
    }

    // Docker is away for a while: all stays, and what changed meanwhile is seen once it is back.
    docker.server.abort();
    std::fs::remove_file(&socket).expect("it can be removed");
    drop(docker);
    until(LIMIT, "that is noticed", async || services.stderr().contains("Docker cannot be asked")).await;
    assert_eq!(status(&edge, "app.localhost").await, 200);
    let more = container("ee", json!({ "snicket.hostname": "more.localhost" }), &two);
    let docker = Docker::start(&socket, vec![app, pooled("cc", &one), more]);
    told(&mut services, "more.localhost", "registered").await;
    served(&edge, "more.localhost").await;
    docker.containers.send_replace(Vec::new());
    until(LIMIT, "all are gone", async || status(&edge, "app.localhost").await != 200).await;
}
