//! Two nodes with one registry, in a real etcd.

use std::path::Path;

use harness::{Agent, Edge, Etcd, LIMIT, Origin, Program, until};
use serde_json::{Value, json};

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

async fn node(etcd: &Etcd, location: &str) -> Edge {
    let registry = format!("etcd://{}/test", etcd.addresses());
    Edge::start_with(&["--registry", &registry, "--location", location]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_on_one_node_is_known_on_the_other() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let (here, there) = (node(&etcd, "here").await, node(&etcd, "there").await);
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
async fn what_is_wrong_with_etcd_is_told_at_the_start() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free");
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
