//! Starting without etcd, from the copy on the node's disk. With the real etcd, which is stopped and comes back.

use std::path::Path;

use harness::{Etcd, LIMIT, until};
use registry::{CommitError, EngineError, EtcdSettings, Mirror, OpenError, Registry, TunnelError};

use crate::node::{at, named, opened};

async fn mirror(etcd: &Etcd, prefix: &str, path: &Path) -> Result<Mirror, OpenError> {
    let settings = EtcdSettings::parse(&format!("etcd://{}/{prefix}", etcd.addresses())).unwrap();
    Mirror::open(&settings, path).await
}

fn names(registry: &Registry) -> Vec<String> {
    registry.snapshot().tunnels().map(|tunnel| tunnel.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_is_served_until_etcd_is_back() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.redb");
    let first = mirror(&etcd, "test", &path).await.unwrap();
    assert!(first.stand_in().is_none());
    let registry = Registry::open(first, at(0)).await.unwrap();
    registry.create_tunnel(at(1), named("one")).await.unwrap();
    let two = registry.create_tunnel(at(2), named("two")).await.unwrap();
    let known = registry.snapshot();
    drop(registry);

    // Changes that nobody tells it of, and then etcd is away.
    let other = Registry::open(opened(&etcd.addresses()).await, at(3)).await.unwrap();
    other.create_tunnel(at(3), named("three")).await.unwrap();
    other.delete_tunnel(at(3), two.id, false).await.unwrap();
    etcd.kill(0).await;

    let closed = async || !matches!(mirror(&etcd, "test", &path).await, Err(OpenError::InUse { .. }));
    until(LIMIT, "the one before lets go of the file", closed).await;
    let standing_in = mirror(&etcd, "test", &path).await.unwrap();
    assert!(matches!(standing_in.stand_in().unwrap().problem, EngineError::Unavailable(_)));
    let registry = Registry::open(standing_in, at(4)).await.unwrap();
    assert_eq!(*registry.snapshot(), *known, "all of it is there, at the same revisions");
    let refused = registry.create_tunnel(at(4), named("four")).await;
    assert!(
        matches!(refused, Err(TunnelError::Commit(CommitError::Engine(EngineError::Unavailable(_))))),
        "{refused:?}"
    );

    etcd.start_again(0).await;
    let followed = async || names(&registry) == ["one", "two", "three"];
    until(2 * LIMIT, "what happened meanwhile is known", followed).await;
    assert!(registry.snapshot().tunnel(two.id).unwrap().deleted_at.is_some());
    registry.create_tunnel(at(5), named("five")).await.unwrap();
    other.create_tunnel(at(6), named("six")).await.unwrap();
    until(LIMIT, "it follows again", async || names(&registry).contains(&"six".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_nothing_starts_that_knows_nothing() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let (known, unknown) = (directory.path().join("known.redb"), directory.path().join("unknown.redb"));
    drop(Registry::open(mirror(&etcd, "test", &known).await.unwrap(), at(0)).await.unwrap());
    etcd.kill(0).await;
    for (prefix, path) in [("test", &unknown), ("other", &known)] {
        let refused = mirror(&etcd, prefix, path).await.err().expect("there is nothing to start from");
        assert!(matches!(refused, OpenError::Engine(EngineError::Unavailable(_))), "{refused}");
    }
}

/// A newer program has been there while this one stood in: it goes on with what it has, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_program_wrote_meanwhile_is_not_touched() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.redb");
    let registry = Registry::open(mirror(&etcd, "test", &path).await.unwrap(), at(0)).await.unwrap();
    registry.create_tunnel(at(1), named("one")).await.unwrap();
    drop(registry);
    // "/test/registry/schema" and "9999" in base64, which is how etcd's JSON has them.
    let newer = serde_json::json!({"key": "L3Rlc3QvcmVnaXN0cnkvc2NoZW1h", "value": "OTk5OQ=="});
    etcd.post("kv/put", &newer).await;
    etcd.kill(0).await;
    let closed = async || !matches!(mirror(&etcd, "test", &path).await, Err(OpenError::InUse { .. }));
    until(LIMIT, "the one before lets go of the file", closed).await;
    let registry = Registry::open(mirror(&etcd, "test", &path).await.unwrap(), at(2)).await.unwrap();
    etcd.start_again(0).await;
    let refusal = async || {
        let refused = registry.create_tunnel(at(2), named("two")).await;
        matches!(refused, Err(TunnelError::Commit(CommitError::Engine(EngineError::Refused(why)))) if why.contains("9999"))
    };
    until(2 * LIMIT, "changes are refused with the reason", refusal).await;
    assert_eq!(names(&registry), ["one"]);
}
