//! Two nodes with one registry, in a real etcd.

use std::path::Path;
use std::time::Duration;

use harness::{Agent, Edge, Etcd, LIMIT, Origin, Program, lasting_address, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Without a good-bye a node is on the others' lists for so long.
const LEASE: Duration = Duration::from_secs(15);
/// Between two calls where many would come together.
const SELDOM: Duration = Duration::from_millis(200);
const TUNNELS: &str = "/client/v4/accounts/{account}/cfd_tunnel";

async fn tunnels(edge: &Edge) -> String {
    let (status, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    assert_eq!(status, 200, "{accounts}");
    TUNNELS.replace("{account}", accounts["result"][0]["id"].as_str().expect("there is one account"))
}

async fn names(edge: &Edge) -> Vec<String> {
    let (status, answer) = edge.call("GET", &tunnels(edge).await, None).await;
    assert_eq!(status, 200, "{answer}");
    let list = answer["result"].as_array().expect("a list").iter();
    list.map(|tunnel| tunnel["name"].as_str().expect("a name").to_owned()).collect()
}

async fn create(edge: &Edge, name: &str) -> (u16, Value) {
    edge.call("POST", &tunnels(edge).await, Some(json!({"name": name, "config_src": "cloudflare"}))).await
}

/// What a node's API says of the first tunnel of this list: its status, and the places where it has connections.
async fn shown(edge: &Edge, list: &str) -> (String, Vec<String>) {
    let (status, answer) = edge.call("GET", list, None).await;
    assert_eq!(status, 200, "{answer}");
    let tunnel = &answer["result"][0];
    let places = tunnel["connections"].as_array().into_iter().flatten();
    let places = places.map(|connection| connection["colo_name"].as_str().expect("a name").to_owned());
    let mut places: Vec<_> = places.collect();
    // An agent has up to four connections.
    places.dedup();
    (tunnel["status"].as_str().unwrap_or_default().to_owned(), places)
}

/// A node with this directory's key file, which the first one makes.
async fn node(etcd: &Etcd, keys: &TempDir, location: &str) -> Edge {
    let registry = format!("etcd://{}/test", etcd.addresses());
    let key = keys.path().join("registry.key");
    let key = key.to_str().expect("a name");
    Edge::start_with(&["--registry", &registry, "--secrets-key", key, "--location", location]).await
}

fn keys() -> TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_on_one_node_is_known_on_the_other() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let keys = keys();
    let (here, there) = (node(&etcd, &keys, "here").await, node(&etcd, &keys, "there").await);
    let (status, answer) = create(&here, "shared").await;
    assert_eq!(status, 200, "{answer}");
    until(LIMIT, "the other node knows the tunnel", async || names(&there).await == ["shared"]).await;
    let (status, answer) = create(&there, "shared").await;
    assert_eq!(status, 409, "the name is taken on both: {answer}");

    // What is written there serves here: the agent comes to one node with a name that the other gave.
    let origin = Origin::start().await;
    let agent = Agent::start(&there, &origin.service(), &[]).await;
    assert_eq!(there.visitor().get(&agent.url("/")).await.status, 200);
    let host = agent.host();
    let routed = async || {
        let answer = here.visitor().get(&format!("https://{host}:{}/", here.https().port())).await;
        // Known, but connected elsewhere; a name that is not known is another code.
        answer.status == 530 && answer.text().contains("1033")
    };
    until(LIMIT, "the other node knows the name", routed).await;

    // Without etcd everything that is there goes on, and changes are refused.
    etcd.kill(0).await;
    assert_eq!(there.visitor().get(&agent.url("/")).await.status, 200);
    let (status, answer) = create(&here, "meanwhile").await;
    assert_eq!(status, 503, "{answer}");
    let said = answer["errors"][0]["message"].as_str().expect("a message");
    assert!(said.contains("etcd"), "{said}");
    assert!(names(&there).await.contains(&"shared".to_owned()));

    etcd.start_again(0).await;
    until(2 * LIMIT, "changes are taken again", async || create(&there, "after").await.0 == 200).await;
    until(LIMIT, "and known", async || names(&here).await.contains(&"after".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_who_is_connected_to_any() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let keys = keys();
    let (here, mut there) = (node(&etcd, &keys, "here").await, node(&etcd, &keys, "there").await);
    let origin = Origin::start().await;
    let mut agent = Agent::start(&there, &origin.service(), &[]).await;
    let connected = ("healthy".to_owned(), vec!["there".to_owned()]);
    let list = tunnels(&here).await;
    until(LIMIT, "both nodes list the connection", async || {
        shown(&here, &list).await == connected && shown(&there, &list).await == connected
    })
    .await;
    let (code, said, problem) = here.command(&["status", "--json"]).await;
    assert_eq!(code, 0, "{problem}");
    let status: Value = serde_json::from_str(&said).expect("an event");
    let nodes = status["nodes"].as_array().expect("a list");
    let told = |place: &str| nodes.iter().find(|node| node["location"] == place).expect("the node is told");
    assert_eq!((nodes.len(), &status["node"], &told("here")["connections"]), (2, &told("here")["id"], &json!(0)));
    assert!(told("there")["connections"].as_u64() >= Some(1), "{status}");
    assert_eq!((&status["tunnels"]["total"], &status["tunnels"]["connected"]), (&json!(1), &json!(1)), "{status}");
    let (_, said, _) = here.command(&["status"]).await;
    assert!(said.contains("1, 1 of them connected") && said.contains(&there.tunnel().to_string()), "{said}");

    let (_, answer) = here.call("GET", &tunnels(&here).await, None).await;
    let path = format!("{}/{}", tunnels(&here).await, answer["result"][0]["id"].as_str().expect("an id"));
    let (status, answer) = here.call("DELETE", &path, None).await;
    assert_eq!(status, 400, "a tunnel with connections elsewhere is not deleted: {answer}");

    // A node that says good-bye is off the list at once, another one when its lease ends.
    let home = agent.stop().await;
    let gone = ("down".to_owned(), vec![]);
    until(LIMIT, "the connection is gone", async || shown(&here, &list).await == gone).await;
    agent = Agent::start_at(&there, &origin.service(), &[], home).await;
    until(LIMIT, "the connection is back", async || shown(&here, &list).await == connected).await;
    // No more often: the API takes 1,200 calls in five minutes.
    let seldom = async || {
        tokio::time::sleep(SELDOM).await;
        shown(&here, &list).await
    };
    there.kill().await;
    until(4 * LIMIT, "the node is taken for gone", async || seldom().await == gone).await;
    there.start_again().await;
    until(2 * LIMIT, "the agent is back", async || seldom().await == connected).await;
    let stopped = there.process.terminate().await;
    assert!(stopped.success(), "{stopped}");
    until(LEASE / 2, "it said good-bye", async || shown(&here, &list).await == gone).await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_etcd_from_what_it_knew() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let keys = keys();
    let mut edge = node(&etcd, &keys, "here").await;
    let origin = Origin::start().await;
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let url = agent.url("/");
    let (status, answer) = create(&edge, "before").await;
    assert_eq!(status, 200, "{answer}");
    let stopped = edge.process.terminate().await;
    assert!(stopped.success(), "{stopped}");

    etcd.kill(0).await;
    edge.start_again().await;
    let notice = edge.process.event("notice").await;
    let said = notice["text"].as_str().expect("a text");
    assert!(said.contains("etcd cannot be reached") && said.contains("takes no changes"), "{said}");
    assert!(names(&edge).await.contains(&"before".to_owned()), "what was written last is known");
    until(2 * LIMIT, "the agent is back, and served", async || edge.visitor().get(&url).await.status == 200).await;
    let (status, answer) = create(&edge, "meanwhile").await;
    assert_eq!(status, 503, "{answer}");
    let said = answer["errors"][0]["message"].as_str().expect("a message");
    assert!(said.contains("etcd cannot be reached") && said.contains("nothing was changed"), "{said}");

    etcd.start_again(0).await;
    until(2 * LIMIT, "changes are taken again", async || create(&edge, "after").await.0 == 200).await;
    let other = node(&etcd, &keys, "there").await;
    let list = tunnels(&other).await;
    let told = async || names(&other).await.contains(&"after".to_owned()) && shown(&other, &list).await.1 == ["here"];
    until(2 * LIMIT, "the others hear of it, and of who is connected", told).await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_key_file_does_not_start_and_leaves_none() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let keys = keys();
    let here = node(&etcd, &keys, "here").await;
    let (status, answer) = create(&here, "shared").await;
    assert_eq!(status, 200, "{answer}");
    let registry = format!("etcd://{}/test", etcd.addresses());
    let other = keys.path().join("other");
    let data = other.to_str().expect("a name");
    let arguments = ["--registry", &registry, "--data", data];
    let (code, said) = up(keys.path(), &arguments).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("encrypted under the key") && said.contains("--secrets-key"), "{said}");
    assert!(!other.join("registry.key").exists(), "a new key would only be taken for the right one");

    let key = keys.path().join("registry.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&key).expect("it was made").permissions().mode() & 0o777, 0o600);
    }
    std::fs::copy(&key, other.join("registry.key")).expect("it can be copied");
    let mut there = Edge::start_with(&arguments).await;
    assert_eq!(names(&there).await, ["shared"]);
    there.process.terminate().await;
    std::fs::write(other.join("registry.key"), "hunter2").expect("it can be written");
    let (code, said) = up(keys.path(), &arguments).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("line 1 is no key") && !said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_etcd_is_told_at_the_start() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let free = lasting_address();
    let nobody = format!("etcd://{free}");
    for (arguments, code, expected) in [
        (vec!["--registry", &nobody], 1, vec!["cannot be opened", &free.to_string(), "start etcd"]),
        (vec!["--registry", "etcd://etcd.example"], 1, vec!["without TLS", "--registry-ca"]),
        (vec!["--registry", "file:///x"], 2, vec!["etcd://HOST:PORT"]),
        (vec!["--registry-ca", "ca.pem"], 2, vec!["cannot read ca.pem", "--registry-ca"]),
        (vec!["--registry", &nobody, "--registry-cert", "/dev/null"], 2, vec!["belong together"]),
        (vec!["--registry-key", "/dev/null"], 2, vec!["belongs to --registry"]),
    ] {
        let (found, said) = up(home.path(), &arguments).await;
        assert_eq!(found, code, "{arguments:?}: {said}");
        for text in expected {
            assert!(said.contains(text), "{arguments:?}: {text} is not in {said}");
        }
    }
}

async fn up(home: &Path, arguments: &[&str]) -> (i32, String) {
    let listen =
        ["up", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let (code, _, said) = Program::new(home, &[&listen, arguments].concat()).run().await;
    (code, said)
}
