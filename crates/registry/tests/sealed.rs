//! Secrets that are encrypted in the engine: nothing of them is there to be read, whoever has the key reads all, and nobody
//! else starts.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;

use harness::{LIMIT, until};
use jiff::Timestamp;
use registry::engine::{State, Write};
use registry::{
    AcmeUrgency, ConfigSource, Document, Embedded, Engine, EngineError, Etcd, EtcdSettings, Hostname, Item, ItemError,
    ItemKind, Keys, Mirror, NewTunnel, OpenError, Registry, Sealed, Secret, TunnelName, Which, import,
};
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

fn file(path: &Path) -> Arc<dyn Engine> {
    Arc::new(Embedded::open(path).unwrap())
}

async fn etcd(addresses: &str) -> Arc<dyn Engine> {
    let settings = EtcdSettings::parse(&format!("etcd://{addresses}/test")).unwrap();
    Arc::new(Etcd::open(&settings).await.unwrap())
}

async fn node(engine: Arc<dyn Engine>, text: &str) -> Result<Registry, OpenError> {
    Registry::open(Sealed::open(engine, keys(text)).await?, at(0)).await
}

async fn tunnel(registry: &Registry, name: &str) -> Secret {
    let name = TunnelName::parse(name).unwrap();
    let new = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
    registry.create_tunnel(at(1), new).await.unwrap().secret
}

fn secret_of(registry: &Registry, name: &str) -> Option<Secret> {
    registry.snapshot().tunnel_named(name).map(|tunnel| tunnel.secret.clone())
}

fn holds(state: &State, secret: &Secret) -> bool {
    let text = secret.to_base64();
    state.entries.iter().any(|entry| String::from_utf8_lossy(&entry.value).contains(&text))
}

fn is_closed<T>(outcome: &Result<T, OpenError>) -> bool {
    matches!(outcome, Err(OpenError::Engine(EngineError::Sealed { .. })))
}

#[tokio::test]
async fn a_registry_from_before_is_encrypted_forward() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let mut secrets = Vec::new();
    for index in 0..250 {
        secrets.push(tunnel(&registry, &format!("t{index}")).await);
    }
    let rules = policy::Access { headers: vec!["x-key: hunter2".parse().unwrap()], ..policy::Access::default() };
    let served = registry.snapshot().tunnel_named("t0").unwrap().id;
    registry.put_access(served, rules.clone()).await.unwrap();
    drop(registry);
    let before = file(&path).load().await.unwrap();
    assert!(secrets.iter().all(|secret| holds(&before, secret)));

    let text = Keys::generate();
    let registry = node(file(&path), &text).await.unwrap();
    assert_eq!(secret_of(&registry, "t7").as_ref(), Some(&secrets[7]));
    assert_eq!(registry.snapshot().access(served), Some(&rules));
    secrets.push(tunnel(&registry, "after").await);
    let known = registry.snapshot();
    drop(registry);
    let after = file(&path).load().await.unwrap();
    assert!(!secrets.iter().any(|secret| holds(&after, secret)));
    assert!(!after.entries.iter().any(|entry| String::from_utf8_lossy(&entry.value).contains("hunter2")));

    let registry = node(file(&path), &text).await.unwrap();
    assert_eq!(*registry.snapshot(), *known);
    drop(registry);
    assert!(is_closed(&node(file(&path), &Keys::generate()).await));
    let without = Registry::open_file(&path, at(0)).await;
    assert!(matches!(without, Err(OpenError::Entry { .. })), "without any key nobody takes it for something else");
}

#[tokio::test]
async fn another_key_is_told_before_there_is_any_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let text = Keys::generate();
    drop(node(file(&path), &text).await.unwrap());
    let refused = node(file(&path), &Keys::generate()).await;
    assert!(is_closed(&refused));
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("encrypted under the key"), "{said}");
    node(file(&path), &text).await.unwrap();
}

#[tokio::test]
async fn keys_are_rotated_by_putting_another_one_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let (old, new) = (Keys::generate(), Keys::generate());
    let registry = node(file(&path), &old).await.unwrap();
    let secret = tunnel(&registry, "one").await;
    drop(registry);
    // Known, and not in use yet.
    let registry = node(file(&path), &format!("{old}{new}")).await.unwrap();
    drop(registry);
    assert!(is_closed(&node(file(&path), &new).await));
    let registry = node(file(&path), &format!("{new}{old}")).await.unwrap();
    assert_eq!(secret_of(&registry, "one"), Some(secret.clone()));
    drop(registry);
    assert!(is_closed(&node(file(&path), &old).await), "nothing is under the old one any more");
    let registry = node(file(&path), &new).await.unwrap();
    assert_eq!(secret_of(&registry, "one"), Some(secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_one_key_share_secrets_and_the_copy_on_disk_shows_none() {
    let Some(mut program) = harness::Etcd::start(1).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.redb");
    let text = Keys::generate();
    let settings = EtcdSettings::parse(&format!("etcd://{}/test", program.addresses())).unwrap();
    let here = node(Arc::new(Mirror::open(&settings, &path).await.unwrap()), &text).await.unwrap();
    let there = node(etcd(&program.addresses()).await, &text).await.unwrap();
    let secret = tunnel(&there, "one").await;
    until(LIMIT, "the other node knows it", async || secret_of(&here, "one").as_ref() == Some(&secret)).await;
    assert!(!holds(&etcd(&program.addresses()).await.load().await.unwrap(), &secret));
    assert!(is_closed(&node(etcd(&program.addresses()).await, &Keys::generate()).await));

    drop(here);
    let free = async || Embedded::open(&path).is_ok();
    until(LIMIT, "it lets go of the file", free).await;
    assert!(!holds(&file(&path).load().await.unwrap(), &secret));
    program.kill(0).await;
    let stands_in = Mirror::open(&settings, &path).await.unwrap();
    assert!(stands_in.stand_in().is_some());
    let here = node(Arc::new(stands_in), &text).await.unwrap();
    assert_eq!(secret_of(&here, "one"), Some(secret));
    program.start_again(0).await;
    let after = async || {
        let name = TunnelName::parse("after").unwrap();
        here.create_tunnel(
            at(2),
            NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() },
        )
        .await
        .is_ok()
    };
    until(2 * LIMIT, "changes are taken again", after).await;
    until(LIMIT, "and known", async || secret_of(&there, "after").is_some()).await;
}

#[tokio::test]
async fn a_node_without_the_key_of_now_lets_nobody_in_and_encrypts_nothing() {
    let engine: Arc<dyn Engine> = Arc::new(Embedded::in_memory().unwrap());
    let (old, new) = (Keys::generate(), Keys::generate());
    let left_behind = node(engine.clone(), &old).await.unwrap();
    tunnel(&left_behind, "one").await;
    tunnel(&left_behind, "deleted").await;
    let ahead = node(engine, &format!("{new}{old}")).await.unwrap();
    let id = ahead.snapshot().tunnel_named("one").unwrap().id;
    let rules = policy::Access { allow: vec!["192.0.2.0/24".parse().unwrap()], ..Default::default() };
    ahead.put_access(id, rules.clone()).await.unwrap();
    let known = |registry: &Registry| registry.snapshot().access(id).map(|access| access.allow.clone());
    let closed = vec!["255.255.255.255".parse().unwrap()];
    until(LIMIT, "nobody is let in", async || known(&left_behind).as_ref() == Some(&closed)).await;
    assert_eq!(known(&ahead), Some(rules.allow));

    // Whether it was deleted cannot be known.
    let deleted = ahead.snapshot().tunnel_named("deleted").unwrap().id;
    ahead.delete_tunnel(at(1), deleted, false).await.unwrap();
    let lives =
        |registry: &Registry, id| registry.snapshot().tunnel(id).is_some_and(|tunnel| tunnel.deleted_at.is_none());
    until(LIMIT, "it is gone", async || !lives(&left_behind, deleted)).await;
    assert!(lives(&ahead, id));

    let name = TunnelName::parse("two").unwrap();
    let new_one = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
    let refused = left_behind.create_tunnel(at(1), new_one).await.unwrap_err().to_string();
    assert!(refused.contains("encrypted under the key"), "{refused}");
    assert!(left_behind.check_keys().is_err() && ahead.check_keys().is_ok());

    // A certificate whose key cannot be kept is not ordered.
    let host = Hostname::parse("a.example.test").unwrap();
    let refused = left_behind.begin_acme_order(at(1), &host, AcmeUrgency::Now).await.unwrap_err().to_string();
    assert!(refused.contains("give this node their key file"), "{refused}");
    assert_eq!(ahead.snapshot().acme_orders().count(), 0);
    ahead.begin_acme_order(at(1), &host, AcmeUrgency::Now).await.unwrap();
}

/// As when etcd has let go of the changes that it missed.
#[tokio::test]
async fn a_node_that_reads_everything_anew_goes_on_without_what_it_has_no_key_for() {
    let engine: Arc<dyn Engine> = Arc::new(Embedded::in_memory().unwrap());
    let (old, new) = (Keys::generate(), Keys::generate());
    let left_behind = Sealed::open(engine.clone(), keys(&old)).await.unwrap();
    assert!(left_behind.load().await.is_ok());
    let ahead = node(engine.clone(), &format!("{new}{old}")).await.unwrap();
    tunnel(&ahead, "one").await;
    let id = ahead.snapshot().tunnel_named("one").unwrap().id;
    let rules = policy::Access { allow: vec!["192.0.2.0/24".parse().unwrap()], ..Default::default() };
    ahead.put_access(id, rules).await.unwrap();

    let state = left_behind.load().await.unwrap();
    let has = |kind: &str| state.entries.iter().any(|entry| entry.key.starts_with(kind));
    assert!(has("accounts/") && !has("tunnels/"));
    let rules = state.entries.iter().find(|entry| entry.key.starts_with("access/")).expect("nobody, instead");
    assert!(String::from_utf8_lossy(&rules.value).contains("255.255.255.255"));
    assert!(left_behind.locked_out().is_some());
    let beside = Sealed::over(engine, keys(&old)).load().await;
    assert!(matches!(beside, Err(EngineError::Sealed { .. })), "a command does not take half for the whole");
}

#[tokio::test]
async fn the_largest_document_fits_into_etcd() {
    let Some(program) = harness::Etcd::start(1).await else { return };
    let registry = node(etcd(&program.addresses()).await, &Keys::generate()).await.unwrap();
    let write = async |bytes: usize| {
        let rule = |bytes: usize| json!({ "action": "log", "expression": "true", "action_parameters": { "x": "y".repeat(bytes) } });
        let mut rules = vec![rule(30_000); bytes / 30_000];
        rules.push(rule(bytes % 30_000));
        let terms = json!({ "kind": "custom", "phase": "http_request_firewall_custom", "rules": rules });
        let mut read = |_: Option<&Item>| Ok(terms.as_object().unwrap().clone());
        registry.write_item(at(1), ItemKind::Ruleset, None, Which::New, &mut read).await
    };
    // The rules have some bytes beside these.
    let largest = (1 << 20) - 8_000;
    write(largest).await.unwrap();
    let refused = write(1 << 20).await;
    assert!(matches!(refused, Err(ItemError::TooLarge(_))), "{refused:?}");
}

/// Whoever writes to etcd past the nodes breaks what he writes, and nothing else.
#[tokio::test]
async fn an_entry_that_somebody_changed_is_gone_and_the_node_works_on() {
    let engine: Arc<dyn Engine> = Arc::new(Embedded::in_memory().unwrap());
    let registry = node(engine.clone(), &Keys::generate()).await.unwrap();
    tunnel(&registry, "one").await;
    tunnel(&registry, "two").await;
    let entries = engine.load().await.unwrap().entries;
    let mut tunnels = entries.iter().filter(|entry| entry.key.starts_with("tunnels/"));
    let (changed, other) = (tunnels.next().unwrap(), tunnels.next().unwrap());
    let write = Write { key: changed.key.clone(), value: Some(other.value.clone()) };
    engine.commit(vec![], vec![write]).await.unwrap();
    until(LIMIT, "it is gone", async || registry.snapshot().tunnels().count() == 1).await;
    assert!(registry.check_keys().is_ok());
    tunnel(&registry, "three").await;
}

#[tokio::test]
async fn what_is_exported_is_read_under_any_key() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one.redb"), directory.path().join("two.redb"));
    let (first, second) = (Keys::generate(), Keys::generate());
    let registry = node(file(&one), &first).await.unwrap();
    let secret = tunnel(&registry, "one").await;
    drop(registry);
    let document = Document::of(&Sealed::over(file(&one), keys(&first)).load().await.unwrap()).unwrap();
    import(&Sealed::over(file(&two), keys(&second)), &document, false).await.unwrap();
    assert!(!holds(&file(&two).load().await.unwrap(), &secret));
    let registry = node(file(&two), &second).await.unwrap();
    assert_eq!(secret_of(&registry, "one"), Some(secret));
    drop(registry);
    let again = import(&Sealed::over(file(&two), keys(&second)), &document, true).await.unwrap();
    assert_eq!((again.written, again.removed), (0, 0), "what tells of the key is no part of it");
    drop(node(file(&two), &second).await.unwrap());
}
