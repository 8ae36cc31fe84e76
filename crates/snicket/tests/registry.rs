//! `snicket registry`: out of one place and into another.

use std::path::Path;

use harness::{Agent, Edge, Etcd, LIMIT, Origin, Program, until};
use serde_json::json;

async fn run(home: &Path, words: &[&str]) -> (i32, String, String) {
    Program::new(home, words).run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_from_a_file_serves_from_etcd() {
    let origin = Origin::start().await;
    let mut edge = Edge::start().await;
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let url = agent.url("/");
    assert_eq!(edge.visitor().get(&url).await.status, 200);
    let home = tempfile::tempdir().expect("a directory can be made");
    let file = home.path().join("backup.jsonl");
    let file = file.to_str().expect("a name");
    let data = edge.token_file().parent().expect("it is in the data directory").to_owned();
    let data = data.to_str().expect("a name");
    let export = ["registry", "export", "--data", data, file];
    let (code, _, said) = run(home.path(), &export).await;
    assert_eq!(code, 1, "the edge runs: {said}");
    assert!(said.contains("in use") && said.contains("stop the edge"), "{said}");
    edge.process.terminate().await;
    let (code, said, problem) = run(home.path(), &export).await;
    assert_eq!(code, 0, "{problem}");
    assert!(said.contains("secrets") && said.contains(file), "{said}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
    let (_, text, _) = run(home.path(), &["registry", "export", "--data", data]).await;
    assert_eq!(text, std::fs::read_to_string(file).expect("it can be read"));

    let Some(etcd) = Etcd::start(1).await else { return };
    let registry = format!("etcd://{}/moved", etcd.addresses());
    let import = ["registry", "import", "--registry", &registry, "--data", data, file];
    let (code, _, said) = run(home.path(), &import).await;
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = run(home.path(), &import).await;
    assert_eq!(code, 1);
    assert!(said.contains("not empty") && said.contains("--replace"), "{said}");
    let (code, said, _) = run(home.path(), &[&import[..], &["--replace", "--json"]].concat()).await;
    let event: serde_json::Value = serde_json::from_str(&said).expect("an event");
    assert_eq!((code, &event["written"], &event["removed"]), (0, &json!(0), &json!(0)), "{said}");

    // The agent comes back to the same tunnel, wherever that is kept.
    let ports = ["http", "https", "tunnel", "api"].map(|name| (format!("--{name}"), edge.ready()[name].clone()));
    let address = |value: &serde_json::Value| match value.as_array() {
        Some(several) => several[0].as_str().expect("an address").to_owned(),
        None => value.as_str().expect("an address").trim_start_matches("http://").to_owned(),
    };
    let words: Vec<String> = ports.into_iter().flat_map(|(flag, value)| [flag, address(&value)]).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["--registry", &registry, "--data", data]).collect();
    let moved = Edge::start_with(&words).await;
    until(2 * LIMIT, "it is served", async || moved.visitor().get(&url).await.status == 200).await;
    drop(agent);
}

#[tokio::test]
async fn what_is_wrong_is_told_before_anything_is_written() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let data = home.path().join("data");
    let data = data.to_str().expect("a name");
    let file = home.path().join("text");
    std::fs::write(&file, "hello\n").expect("a file can be made");
    let file = file.to_str().expect("a name");
    for (words, code, expected) in [
        (vec!["export", "--data", data], 1, "there is no registry"),
        (vec!["import", "--data", data, "/nowhere"], 2, "cannot read /nowhere"),
        (vec!["import", "--data", data, file], 1, "no exported registry"),
    ] {
        let (found, _, said) = run(home.path(), &[&["registry"], &words[..]].concat()).await;
        assert_eq!(found, code, "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    assert!(!Path::new(data).exists());
}
