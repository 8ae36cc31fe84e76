//! A registry out of one engine and into another, whatever kind they are, and imports that are broken off.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use harness::Etcd as EtcdProgram;
use jiff::Timestamp;
use registry::engine::Write;
use registry::{
    ConfigSource, Document, DocumentError, Embedded, Engine, Etcd, EtcdSettings, Hostname, ImportError, Imported,
    InvitationError, Item, ItemKind, NewTunnel, OpenError, QuickName, Registry, RulesetEdit, TunnelName, Which, import,
};
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

async fn etcd(program: &EtcdProgram, prefix: &str) -> Etcd {
    let settings = EtcdSettings::parse(&format!("etcd://{}/{prefix}", program.addresses())).unwrap();
    Etcd::open(&settings).await.unwrap()
}

async fn document(engine: &dyn Engine) -> Document {
    Document::of(&engine.load().await.unwrap()).unwrap()
}

/// Something of everything, and more than etcd takes at once.
async fn fill(registry: &Registry) {
    let domain = Hostname::parse("example.test").unwrap();
    let zone = registry.ensure_zone(at(0), &domain).await.unwrap();
    for index in 0..150 {
        let name = TunnelName::parse(&format!("t{index}")).unwrap();
        let new = NewTunnel { name, secret: None, config_source: ConfigSource::Cloudflare, labels: Default::default() };
        let tunnel = registry.create_tunnel(at(index), new).await.unwrap();
        let hostname = Hostname::parse(&format!("h{index}.example.test")).unwrap();
        registry.put_route(at(index), zone.id, hostname, tunnel.id, false).await.unwrap();
        let rules = json!({"ingress": [{"service": format!("http://localhost:{index}")}]});
        registry.put_configuration(at(index), tunnel.id, rules, ConfigSource::Cloudflare, None).await.unwrap();
    }
    registry.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap();
}

async fn filled(path: &std::path::Path) -> Document {
    let registry = Registry::open_file(path, at(0)).await.unwrap();
    fill(&registry).await;
    drop(registry);
    document(&Embedded::open(path).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_from_either_engine_to_either() {
    let directory = tempfile::tempdir().unwrap();
    let exported = filled(&directory.path().join("one.redb")).await;
    let mut text = Vec::new();
    exported.write(&mut text).unwrap();
    let read = Document::read(&text[..]).unwrap();

    let path = directory.path().join("two.redb");
    let imported = import(&Embedded::open(&path).unwrap(), &read, false).await.unwrap();
    assert_eq!(imported, Imported { written: read.len(), removed: 0 });
    let registry = Registry::open_file(&path, at(9)).await.unwrap();
    assert_eq!(registry.snapshot().tunnels().count(), 151);
    assert_eq!(registry.snapshot().routes().count(), 151);
    drop(registry);

    let Some(program) = EtcdProgram::start(1).await else { return };
    let shared = etcd(&program, "one").await;
    assert_eq!(import(&shared, &read, false).await.unwrap().written, read.len());
    let from_etcd = document(&shared).await;
    let registry = Registry::open(etcd(&program, "one").await, at(9)).await.unwrap();
    assert_eq!(registry.snapshot().tunnels().count(), 151);
    let name = TunnelName::parse("after").unwrap();
    let after = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
    registry.create_tunnel(at(9), after).await.unwrap();

    // And back, over what has changed since.
    let back = import(&etcd(&program, "one").await, &from_etcd, true).await.unwrap();
    assert_eq!(back, Imported { written: 0, removed: 2 }, "the tunnel and its name");
    let back = import(&Embedded::open(&path).unwrap(), &from_etcd, true).await.unwrap();
    assert_eq!(back, Imported { written: 0, removed: 0 });
}

#[tokio::test]
async fn what_is_there_makes_way_only_if_asked_to() {
    let directory = tempfile::tempdir().unwrap();
    let exported = filled(&directory.path().join("one.redb")).await;
    let path = directory.path().join("two.redb");
    drop(Registry::open_file(&path, at(0)).await.unwrap());
    let engine = Embedded::open(&path).unwrap();
    let before = engine.load().await.unwrap();
    let refused = import(&engine, &exported, false).await;
    assert!(matches!(refused, Err(ImportError::NotEmpty(2))), "{refused:?}");
    assert_eq!(engine.load().await.unwrap(), before);
    import(&engine, &exported, true).await.unwrap();
    assert_eq!(document(&engine).await.len(), exported.len());
}

#[tokio::test]
async fn what_nobody_could_open_is_not_imported() {
    let engine = Embedded::in_memory().unwrap();
    for (key, value) in [("tunnels/x", "{}"), ("no-kind", "{}"), ("routes/a.example.test", "{\"hostname\":1}")] {
        let head = r#"{"snicket_registry":1,"schema":1,"revision":7,"entries":1}"#;
        let text = format!("{head}\n{{\"key\":\"{key}\",\"value\":{value}}}\n");
        let refused = Document::read(text.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("line 2") && refused.contains(key), "{refused}");
    }
    let no_account = r#"{"snicket_registry":1,"schema":1,"revision":7,"entries":0}"#;
    let refused = import(&engine, &Document::read(no_account.as_bytes()).unwrap(), false).await;
    assert!(matches!(refused, Err(ImportError::Document(DocumentError::NoAccount))), "{refused:?}");
    assert_eq!(engine.load().await.unwrap().entries, []);
}

/// As after a kill between two transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_starts_with_half_an_import_and_it_can_be_run_again() {
    let Some(program) = EtcdProgram::start(1).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let exported = filled(&directory.path().join("one.redb")).await;
    let engine = Arc::new(etcd(&program, "half").await);
    let start = engine.load().await.unwrap().revision;
    let importing = {
        let (engine, exported) = (engine.clone(), exported.clone());
        tokio::spawn(async move { import(engine.as_ref(), &exported, false).await })
    };
    // Two transactions: the mark, and a part.
    let mut feed = engine.follow(start);
    let mut batches = 0;
    while batches < 2 {
        batches += feed.next().await.unwrap().len();
    }
    importing.abort();
    let ended = importing.await;
    let state = engine.load().await.unwrap();
    if ended.is_ok() || state.entries.len() > exported.len() {
        // It was too quick to be broken off: break it as it would have been.
        let mark = Write { key: "import/unfinished".into(), value: Some(b"{}".to_vec()) };
        let gone = Write { key: state.entries[0].key.clone(), value: None };
        engine.commit(vec![], vec![mark, gone]).await.unwrap();
    }
    let refused = Registry::open(etcd(&program, "half").await, at(0)).await.err().expect("half of it is missing");
    assert!(matches!(refused, OpenError::HalfImported) && refused.to_string().contains("--replace"), "{refused}");
    assert!(matches!(Document::of(&engine.load().await.unwrap()), Err(OpenError::HalfImported)));
    assert!(matches!(import(engine.as_ref(), &exported, false).await, Err(ImportError::NotEmpty(_))));
    import(engine.as_ref(), &exported, true).await.unwrap();
    let registry = Registry::open(etcd(&program, "half").await, at(0)).await.unwrap();
    assert_eq!(registry.snapshot().tunnels().count(), 151);
}

/// A restore does not make a key good again that was used since.
#[tokio::test]
async fn keys_for_joining_are_no_part_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one.redb");
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let (_, secret) = registry.invite(at(0), jiff::SignedDuration::from_hours(1)).await.unwrap();
    drop(registry);
    let engine = Embedded::open(&path).unwrap();
    let state = engine.load().await.unwrap();
    let (exported, has) =
        (Document::of(&state).unwrap(), |text: &[u8]| String::from_utf8_lossy(text).contains("invitations/"));
    let mut text = Vec::new();
    exported.write(&mut text).unwrap();
    assert!(!has(&text));
    drop(engine);

    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    registry.spend_invitation(at(1), &secret).await.unwrap();
    drop(registry);
    let engine = Embedded::open(&path).unwrap();
    import(&engine, &exported, true).await.unwrap();
    // An export of an earlier version has them.
    let entry = state.entries.iter().find(|entry| entry.key.starts_with("invitations/")).unwrap();
    let line = format!("{{\"key\":\"{}\",\"value\":{}}}\n", entry.key, String::from_utf8_lossy(&entry.value));
    let text = String::from_utf8(text).unwrap();
    let count = format!("\"entries\":{}", exported.len());
    let old = text.replace(&count, &format!("\"entries\":{}", exported.len() + 1)) + &line;
    assert!(has(old.as_bytes()));
    import(&engine, &Document::read(old.as_bytes()).unwrap(), true).await.unwrap();
    drop(engine);
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let refused = registry.spend_invitation(at(2), &secret).await;
    assert!(matches!(refused, Err(InvitationError::Spent(_))), "{refused:?}");
}

/// As somebody may write it who edits an export.
#[tokio::test]
async fn documents_that_were_edited_by_hand_are_read_as_any_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one.redb");
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &Hostname::parse("example.test").unwrap()).await.unwrap();
    let phase = "http_request_firewall_custom";
    let edit = RulesetEdit::Replace(
        json!({ "rules": [{ "action": "log", "expression": "true" }] }).as_object().unwrap().clone(),
    );
    let mut read = |old: Option<&Item>| edit.apply(at(0), old, "zone", Some(phase));
    registry.write_item(at(0), ItemKind::Ruleset, Some(zone.id), Which::Named(phase), &mut read).await.unwrap();
    drop(registry);
    let mut text = Vec::new();
    document(&Embedded::open(&path).unwrap()).await.write(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("items/rulesets/")).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        Document::read(text.replace(from, to).as_bytes())
    };
    let other_kind = ("\"kind\":\"ruleset\"", "\"kind\":\"application\"");
    for (from, to) in [
        other_kind,
        ("\"phase\":\"http_request_firewall_custom\"", "\"phase\":7"),
        ("\"action\":\"log\"", "\"action\":\"\""),
        ("\"rules\":[{", "\"rules\":[1,{"),
    ] {
        let refused = edited(from, to).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("line {line}: items/")), "{refused}");
    }
    // What has a usual value may be missing.
    let less = edited("\"version\":1}", "\"more\":1}").unwrap();
    let engine = Embedded::in_memory().unwrap();
    import(&engine, &less, false).await.unwrap();
    let registry = Registry::open(engine, at(0)).await.unwrap();
    let edited = registry.write_item(at(1), ItemKind::Ruleset, Some(zone.id), Which::Named(phase), &mut read).await;
    assert_eq!(edited.unwrap().terms["version"], 1);
}
