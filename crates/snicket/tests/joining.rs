//! A machine becomes a node of an edge by one command and a key, over a registry in a real etcd that asks for certificates.

use std::path::Path;

use harness::{Edge, Etcd, Identity, LIMIT, Origin, Program, until};
use serde_json::{Value, json};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name")
}

/// The first node, which is told everything.
async fn first(etcd: &Etcd, files: &TempDir) -> Edge {
    let certificates = etcd.certificates().expect("it was started with TLS");
    let write = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).expect("a file can be made");
        text(&path).to_owned()
    };
    let (ca, certificate, key) = (
        write("etcd-ca.pem", &certificates.ca),
        write("etcd.pem", &certificates.certificate),
        write("etcd.key", &certificates.key),
    );
    let registry = format!("etcd://{}/test", etcd.addresses());
    let way = ["--registry", &registry, "--registry-ca", &ca, "--registry-cert", &certificate, "--registry-key", &key];
    Edge::start_with(&[&way[..], &["--location", "here"]].concat()).await
}

async fn invited(edge: &Edge) -> String {
    let said = edge.said(&["node", "invite", "--for", "10m", "--json"]).await;
    let event: Value = serde_json::from_str(&said).expect("an event");
    event["key"].as_str().expect("a key").to_owned()
}

async fn path_of_tunnels(edge: &Edge) -> String {
    let (status, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    assert_eq!(status, 200, "{accounts}");
    format!("/client/v4/accounts/{}/cfd_tunnel", accounts["result"][0]["id"].as_str().expect("there is one account"))
}

async fn create(edge: &Edge, name: &str) {
    let (status, answer) = edge.call("POST", &path_of_tunnels(edge).await, Some(json!({ "name": name }))).await;
    assert_eq!(status, 200, "{answer}");
}

async fn tunnels(edge: &Edge) -> Vec<String> {
    let (status, answer) = edge.call("GET", &path_of_tunnels(edge).await, None).await;
    assert_eq!(status, 200, "{answer}");
    let list = answer["result"].as_array().expect("a list").iter();
    list.map(|tunnel| tunnel["name"].as_str().expect("a name").to_owned()).collect()
}

/// What `up` says that does not start.
async fn up(arguments: &[&str], key: Option<&str>) -> (i32, String) {
    let home = directory();
    let listen =
        ["up", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let program = Program::new(home.path(), &[&listen, arguments].concat());
    let program = key.into_iter().fold(program, |program, key| program.env("SNICKET_JOIN_KEY", key));
    let (code, _, said) = program.run().await;
    let left: Vec<_> = std::fs::read_dir(home.path().join(".local/share/snicket/edge")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    (code, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_with_nothing_but_a_key_which_is_good_once() {
    let Some(etcd) = Etcd::start_secure().await else { return };
    let files = directory();
    let here = first(&etcd, &files).await;
    create(&here, "before").await;
    let key = invited(&here).await;
    let host = here.api().to_string();
    let data = files.path().join("there");
    let at = ["--data", text(&data), "--location", "there"];
    let joining = [&at[..], &["--join", &host]].concat();
    // A machine that cannot keep what it gets leaves the key as good as it was.
    let (code, said) = up(&["--data", "/proc/no-such-place", "--join", &host], Some(&key)).await;
    assert!(code != 0 && said.contains("cannot write"), "{said}");
    let mut there = Edge::start_at(directory(), &joining, &[("SNICKET_JOIN_KEY", &key)]).await;
    assert_eq!(tunnels(&there).await, ["before"]);
    let nodes = async || {
        let status: Value = serde_json::from_str(&here.said(&["status", "--json"]).await).expect("an event");
        status["nodes"].as_array().expect("a list").len()
    };
    until(LIMIT, "the first node lists the second", async || nodes().await == 2).await;
    let [ca, other_ca] = [here.ca(), there.ca()].map(|path| std::fs::read_to_string(path).expect("it is there"));
    assert_eq!(ca, other_ca, "visitors who trust one node trust both");
    let url = format!("https://app.localhost:{}/", there.https().port());
    assert_eq!(here.visitor().get(&url).await.status, 530, "a visitor of the first verifies the second");
    assert!(there.said(&["status", "--data", text(&data)]).await.contains("certificate until"));

    let (code, said) = up(&["--join", &host], Some(&key)).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("was used at") && said.contains("node invite"), "{said}");
    assert!(!said.contains(&key), "{said}");

    // Started again as before it does not ask again, and needs nothing of it any more.
    let stopped = there.process.terminate().await;
    assert!(stopped.success(), "{stopped}");
    there.start_again().await;
    there.process.terminate().await;
    let there = Edge::start_with(&at).await;
    create(&there, "after").await;
    until(LIMIT, "the first node knows it", async || tunnels(&here).await.contains(&"after".to_owned())).await;
    #[cfg(unix)]
    for file in std::fs::read_dir(&data).expect("it is there") {
        use std::os::unix::fs::PermissionsExt as _;
        let file = file.expect("a file");
        let mode = file.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file:?}");
    }
}

/// When the certificate that this node shows ends.
async fn certificate_until(edge: &Edge) -> Value {
    let (status, answer) = edge.call("GET", "/snicket/v1/status", None).await;
    assert_eq!(status, 200, "{answer}");
    answer["result"]["certificates"]["node_expires_at"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_former_authority_are_good_until_that_is_ended() {
    let Some(etcd) = Etcd::start_secure().await else { return };
    let files = directory();
    let here = first(&etcd, &files).await;
    let joined = async |host: &Edge, key: &str| {
        Edge::start_at(directory(), &["--join", &host.api().to_string()], &[("SNICKET_JOIN_KEY", key)]).await
    };
    let there = joined(&here, &invited(&here).await).await;
    let (first_key, second_key) = (invited(&here).await, invited(&there).await);
    let renewed = async |before: &[Value; 2]| {
        until(LIMIT, "both nodes have new certificates", async || {
            certificate_until(&here).await != before[0] && certificate_until(&there).await != before[1]
        })
        .await;
    };
    let before = [certificate_until(&here).await, certificate_until(&there).await];
    let said = here.said(&["registry", "rotate-authority", "nodes"]).await;
    assert!(said.contains("rotate-authority nodes --end"), "{said}");
    renewed(&before).await;
    // Under the one before and under the new one, by the node that did it and by the one that heard of it.
    let third_key = invited(&there).await;
    let fingerprint = |key: &str| key.rsplit_once('.').expect("it has one").1.to_owned();
    assert_ne!(fingerprint(&first_key), fingerprint(&third_key));
    let _by_former = joined(&there, &first_key).await;
    let _by_new = joined(&here, &third_key).await;

    let before = [certificate_until(&here).await, certificate_until(&there).await];
    there.said(&["registry", "rotate-authority", "nodes", "--end"]).await;
    renewed(&before).await;
    let (code, said) = up(&["--join", &here.api().to_string()], Some(&second_key)).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("rotated since the key was made") && said.contains("the key was not sent"), "{said}");
    let _by_new = joined(&there, &invited(&here).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_in_between_gets_nothing() {
    let Some(etcd) = Etcd::start_secure().await else { return };
    let files = directory();
    let here = first(&etcd, &files).await;
    let key = invited(&here).await;
    let stranger = Origin::start_secure(&Identity::new(&["join.node.snicket.internal", "localhost"])).await;
    let between = stranger.service().replace("https://", "");
    let (code, said) = up(&["--join", &between], Some(&key)).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no node of the edge that the key is of; the key was not sent"), "{said}");
    assert_eq!(stranger.requests(), 0);

    // The same for another edge, whose node is one all right.
    let Some(other_etcd) = Etcd::start_secure().await else { return };
    let other_files = directory();
    let other = first(&other_etcd, &other_files).await;
    let (code, said) = up(&["--join", &other.api().to_string()], Some(&key)).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the key was not sent"), "{said}");

    // The key is as good as before; given as a file this time.
    let file = files.path().join("join.key");
    std::fs::write(&file, format!("{key}\n")).expect("a file can be made");
    let there = Edge::start_with(&["--join", &here.api().to_string(), "--key-file", text(&file)]).await;
    assert_eq!(tunnels(&there).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_join_is_told_why() {
    let Some(etcd) = Etcd::start_secure().await else { return };
    let files = directory();
    let here = first(&etcd, &files).await;
    let host = here.api().to_string();
    let key = invited(&here).await;
    let wrong = format!("snj_{}.{}", "A".repeat(43), key.rsplit_once('.').expect("it has a dot").1);
    let data = here.token_file().parent().expect("it is in a directory").to_owned();
    for (arguments, key, code, expected) in [
        (vec!["--join", &host], None, 2, "needs a key"),
        (vec!["--join", &host], Some("hunter2"), 2, "copy it whole"),
        (vec!["--join", "http://x"], Some(&*key), 2, "HOST:PORT"),
        (vec!["--join", &host, "--registry", "etcd://127.0.0.1:1"], Some(&*key), 2, "leave these out"),
        (vec!["--join", &host, "--data", text(&data)], Some(&*key), 1, "an edge of its own"),
        (vec!["--join", &host], Some(&*wrong), 1, "not one of this edge's"),
        (vec!["--join", "127.0.0.1:1"], Some(&*key), 1, "cannot reach"),
    ] {
        let (found, said) = up(&arguments, key).await;
        assert_eq!(found, code, "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    let alone = Edge::start().await;
    let (code, _, said) = alone.command(&["node", "invite"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("snicket registry export"), "{said}");
    let (status, answer) = alone.call("POST", "/snicket/v1/join", Some(json!({ "key": key }))).await;
    assert_eq!((status, &answer["errors"][0]["code"]), (409, &json!(1409)), "{answer}");
}
