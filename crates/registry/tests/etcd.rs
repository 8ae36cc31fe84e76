//! What etcd has to bear that no embedded engine has: members that die or say nothing, a majority that is lost, limits,
//! TLS, users. With the real etcd, started here.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use harness::LIMIT;
use jiff::Timestamp;
use registry::engine::{Batch, Feed, FeedError, Guard, Write};
use registry::{
    BadEtcdSettings, CommitError, ConfigSource, Engine, EngineError, Etcd, EtcdIdentity, EtcdLogin, EtcdSettings,
    EtcdTls, NewTunnel, OpenError, Registry, Revision, TunnelError, TunnelName,
};
use serde_json::json;
use tokio::sync::watch;

fn settings(etcd: &harness::Etcd) -> EtcdSettings {
    EtcdSettings::parse(&format!("etcd://{}/test", etcd.addresses())).unwrap()
}

async fn open(etcd: &harness::Etcd) -> Etcd {
    Etcd::open(&settings(etcd)).await.unwrap()
}

async fn refused(settings: &EtcdSettings) -> OpenError {
    Etcd::open(settings).await.err().expect("etcd is not to be reached that way")
}

fn put(key: &str, value: &str) -> Write {
    Write { key: key.into(), value: Some(value.into()) }
}

async fn write(engine: &Etcd, key: &str) -> Result<Revision, CommitError> {
    engine.commit(vec![], vec![put(key, "x")]).await
}

/// Tries until etcd takes it, and answers the revision.
async fn write_at_last(engine: &Etcd, key: &str) -> Revision {
    let tried = async {
        loop {
            if let Ok(revision) = write(engine, key).await {
                return revision;
            }
        }
    };
    tokio::time::timeout(2 * LIMIT, tried).await.expect("etcd takes changes again")
}

/// Every batch until this revision, whatever goes wrong in between.
async fn follow(feed: &mut Box<dyn Feed>, revision: Revision) -> Vec<Batch> {
    let followed = async {
        let mut batches: Vec<Batch> = Vec::new();
        while batches.last().is_none_or(|last| last.revision < revision) {
            match feed.next().await {
                Ok(more) => batches.extend(more),
                Err(FeedError::Engine(_)) => (),
                Err(FeedError::Compacted) => panic!("nothing was compacted"),
            }
        }
        batches
    };
    tokio::time::timeout(2 * LIMIT, followed).await.expect("the feed reaches the revision")
}

fn named(name: &str) -> NewTunnel {
    NewTunnel {
        name: TunnelName::parse(name).unwrap(),
        secret: None,
        config_source: ConfigSource::Local,
        labels: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_missed_or_told_twice_when_the_leader_dies() {
    let Some(mut etcd) = harness::Etcd::start(3).await else { return };
    let engine = Arc::new(open(&etcd).await);
    let mut feed = engine.follow(engine.load().await.unwrap().revision);
    let written = watch::Sender::new(0);
    let mut count = written.subscribe();
    let writer = {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for index in 0..10_000 {
                match write(&engine, &index.to_string()).await {
                    Ok(revision) => kept.push((revision, index.to_string())),
                    // It may be there nevertheless, as whoever reads that is told.
                    Err(CommitError::Engine(EngineError::Uncertain(_) | EngineError::Unavailable(_))) => (),
                    Err(error) => panic!("{error}"),
                }
                written.send_replace(kept.len());
                if written.is_closed() {
                    break;
                }
            }
            kept
        })
    };
    let mut reached = async |least: usize| {
        let waited = tokio::time::timeout(2 * LIMIT, count.wait_for(|count| *count >= least)).await;
        *waited.expect("writing goes on").unwrap()
    };
    let before = reached(50).await;
    let leader = etcd.leader().await;
    etcd.kill(leader).await;
    let after = reached(before + 50).await;
    etcd.start_again(leader).await;
    reached(after + 50).await;
    drop(count);
    let kept = writer.await.unwrap();

    let batches = follow(&mut feed, kept.last().unwrap().0).await;
    assert!(batches.is_sorted_by(|before, after| before.revision < after.revision), "each comes once, in order");
    let told: Vec<_> = batches.iter().map(|batch| (batch.revision, batch.writes[0].key.clone())).collect();
    let missed: Vec<_> = kept.iter().filter(|change| !told.contains(change)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_reading_goes_on_and_changes_are_refused_until_it_is_back() {
    let Some(mut etcd) = harness::Etcd::start(3).await else { return };
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::open(open(&etcd).await, now).await.unwrap();
    let before = registry.create_tunnel(now, named("before")).await.unwrap();
    let engine = open(&etcd).await;
    let state = engine.load().await.unwrap();
    let mut feed = engine.follow(state.revision);
    let leader = etcd.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for member in others {
        etcd.kill(member).await;
    }

    // The leader that is alone takes a second to notice; what is under way then has no certain end.
    let refusal = async {
        loop {
            match write(&engine, "lost").await {
                Err(CommitError::Engine(EngineError::Uncertain(_))) => (),
                outcome => return outcome,
            }
        }
    };
    let refusal = tokio::time::timeout(2 * LIMIT, refusal).await.unwrap();
    assert!(matches!(refusal, Err(CommitError::Engine(EngineError::Unavailable(_)))), "{refusal:?}");
    let said = refusal.unwrap_err().to_string();
    assert!(said.contains("nothing was changed") && said.contains("majority"), "{said}");
    assert!(matches!(engine.load().await, Err(EngineError::Unavailable(_))));
    let told = tokio::time::timeout(2 * LIMIT, feed.next()).await.expect("a follower is told");
    assert!(matches!(told, Err(FeedError::Engine(EngineError::Unavailable(_))) | Ok(_)), "{told:?}");
    let change = registry.create_tunnel(now, named("meanwhile")).await;
    assert!(matches!(change, Err(TunnelError::Commit(CommitError::Engine(EngineError::Unavailable(_))))), "{change:?}");
    assert_eq!(registry.snapshot().tunnel_named("before").unwrap().value, before, "what was known is still served");

    for member in others {
        etcd.start_again(member).await;
    }
    let revision = write_at_last(&engine, "back").await;
    let batches = follow(&mut feed, revision).await;
    assert!(batches.iter().any(|batch| batch.writes == [put("back", "x")]), "{batches:?}");
    // An attempt with no certain end may have made it, and then it is not made twice.
    let is_there = || registry.snapshot().tunnel_named("after").is_some();
    let after = async || is_there() || registry.create_tunnel(now, named("after")).await.is_ok();
    harness::until(2 * LIMIT, "changes are taken again", after).await;
    assert!(registry.snapshot().tunnel_named("after").is_some());
}

/// A process that is stopped keeps its connections, and answers nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_says_nothing_is_left() {
    let Some(etcd) = harness::Etcd::start(3).await else { return };
    let engine = open(&etcd).await;
    let mut feed = engine.follow(engine.load().await.unwrap().revision);
    for member in 0..3 {
        // So that the watch is at some member, and each is silent once while it is there or elsewhere.
        let revision = write_at_last(&engine, &format!("before {member}")).await;
        follow(&mut feed, revision).await;
        etcd.signal(member, "STOP").await;
        let revision = write_at_last(&engine, &format!("without {member}")).await;
        let batches = follow(&mut feed, revision).await;
        etcd.signal(member, "CONT").await;
        assert_eq!(batches.last().unwrap().writes, [put(&format!("without {member}"), "x")]);
    }
}

#[tokio::test]
async fn too_large_a_change_is_refused_whole_with_the_limits() {
    let Some(etcd) = harness::Etcd::start(1).await else { return };
    let engine = open(&etcd).await;
    let many = (0..128).map(|index| put(&index.to_string(), "x")).collect();
    let guards = (0..128).map(|index| Guard { key: index.to_string(), revision: 0 }).collect();
    let long = put("long", &"x".repeat(1_600_000));
    let longer = put("longer", &"x".repeat(5_000_000));
    for (guards, writes, bytes) in [
        (vec![], many, 1_000),
        (guards, vec![put("a", "x")], 1_000),
        (vec![], vec![long], 1_600_000),
        (vec![], vec![longer], 5_000_000),
    ] {
        let refused = engine.commit(guards, writes).await.unwrap_err();
        assert!(matches!(refused, CommitError::TooLarge { bytes: found, .. } if found >= bytes), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("--max-txn-ops") && said.contains("--max-request-bytes"), "{said}");
    }
    assert_eq!(engine.load().await.unwrap().entries, []);
    let just = (0..127).map(|index| put(&index.to_string(), "x")).collect();
    engine.commit(vec![], just).await.unwrap();
}

#[tokio::test]
async fn a_full_database_is_told_as_such_and_works_again_when_there_is_room() {
    let quota = ["--quota-backend-bytes", "4000000"];
    let Some(etcd) = harness::Etcd::start_with(1, &quota, false).await else { return };
    let engine = open(&etcd).await;
    let value = "x".repeat(500_000);
    // etcd looks at its size every 100 ms, so a machine that writes quickly gets far beyond the quota before it refuses.
    let fill = async {
        loop {
            if let Err(refused) = engine.commit(vec![], vec![put("a", &value)]).await {
                return refused;
            }
        }
    };
    let refused = tokio::time::timeout(LIMIT, fill).await.expect("the quota is 4 MB");
    assert!(matches!(refused, CommitError::Engine(EngineError::Refused(_))), "{refused:?}");
    assert!(refused.to_string().contains("full"), "{refused}");
    let state = engine.load().await.unwrap();
    assert_eq!(state.entries.len(), 1, "reading goes on");

    etcd.post("kv/compaction", &json!({"revision": state.revision.to_string(), "physical": true})).await;
    etcd.post("maintenance/defragment", &json!({})).await;
    let alarms = etcd.post("maintenance/alarm", &json!({"action": "GET"})).await;
    for alarm in alarms["alarms"].as_array().unwrap() {
        let disarm = json!({"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": alarm["alarm"]});
        etcd.post("maintenance/alarm", &disarm).await;
    }
    engine.commit(vec![], vec![put("a", "small")]).await.unwrap();
}

/// Somebody set etcd back to a copy: its revisions begin anew, and nothing that comes by later may be taken for what was.
#[tokio::test]
async fn a_follower_starts_over_when_etcd_was_set_back() {
    let Some(mut etcd) = harness::Etcd::start(1).await else { return };
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::open(open(&etcd).await, now).await.unwrap();
    for index in 0..20 {
        registry.create_tunnel(now, named(&format!("t{index}"))).await.unwrap();
    }
    let engine = open(&etcd).await;
    let mut feed = engine.follow(engine.load().await.unwrap().revision);
    etcd.kill(0).await;
    etcd.start_empty(0).await;
    let told = async {
        loop {
            match feed.next().await {
                Err(FeedError::Compacted) => return,
                Err(FeedError::Engine(_)) => (),
                Ok(batches) => panic!("{batches:?}"),
            }
        }
    };
    tokio::time::timeout(2 * LIMIT, told).await.expect("the follower is told");
    let gone = async || registry.snapshot().tunnels().count() == 0;
    harness::until(2 * LIMIT, "the registry has what etcd has", gone).await;
}

#[tokio::test]
async fn what_a_newer_program_wrote_is_not_touched() {
    let Some(etcd) = harness::Etcd::start(1).await else { return };
    let schema = |value: &str| json!({"key": BASE64_STANDARD.encode("/test/registry/schema"), "value": BASE64_STANDARD.encode(value)});
    etcd.post("kv/put", &schema("3")).await;
    let error = refused(&settings(&etcd)).await;
    assert!(matches!(error, OpenError::Schema { found: 3, known: 2 }), "{error}");
    // What an older one wrote is brought forward, once.
    etcd.post("kv/put", &schema("1")).await;
    let range = json!({"key": schema("")["key"]});
    for _ in 0..2 {
        open(&etcd).await;
        let found = etcd.post("kv/range", &range).await["kvs"][0].clone();
        assert_eq!((&found["value"], &found["version"]), (&json!(BASE64_STANDARD.encode("2")), &json!("3")));
    }
    etcd.post("kv/put", &schema("what?")).await;
    let error = refused(&settings(&etcd)).await;
    assert!(matches!(&error, OpenError::Entry { key, .. } if key == "/test/registry/schema"), "{error}");
}

#[tokio::test]
async fn with_tls_both_ends_show_who_they_are() {
    let Some(etcd) = harness::Etcd::start_secure().await else { return };
    let certificates = etcd.certificates().unwrap();
    let identity = EtcdIdentity {
        certificate: certificates.certificate.clone().into_bytes(),
        key: certificates.key.clone().into_bytes(),
    };
    let ca = Some(certificates.ca.clone().into_bytes());
    let with = |tls| settings(&etcd).with_tls(tls);
    let engine = Etcd::open(&with(EtcdTls { ca: ca.clone(), identity: Some(identity.clone()) })).await.unwrap();
    let revision = write(&engine, "a").await.unwrap();
    assert_eq!(follow(&mut engine.follow(revision - 1), revision).await.len(), 1);

    // Of another authority; without a certificate; without TLS.
    let stranger = harness::Identity::new(&["stranger"]).certificate().to_owned().into_bytes();
    for wrong in [
        with(EtcdTls { ca: Some(stranger), identity: Some(identity) }),
        with(EtcdTls { ca, identity: None }),
        settings(&etcd),
    ] {
        let error = refused(&wrong).await;
        assert!(matches!(error, OpenError::Engine(EngineError::Unavailable(_))), "{error}");
        assert!(error.to_string().contains(&etcd.addresses()), "{error}");
    }
    let far = EtcdSettings::parse("etcd://etcd.example").unwrap();
    assert!(matches!(refused(&far).await, OpenError::Settings(BadEtcdSettings::Plaintext { .. })));
}

#[tokio::test]
async fn users_see_what_their_role_lets_them() {
    let Some(mut etcd) = harness::Etcd::start(1).await else { return };
    let login = |user: &str, password: &str| {
        let login = EtcdLogin { user: user.into(), password: password.into() };
        settings(&etcd).with_login(login)
    };
    let (node, guest, wrong) = (login("node", "secret"), login("guest", "secret"), login("node", "guess"));
    Etcd::open(&node).await.expect("without users any login will do");

    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let range = json!({"permType": "READWRITE", "key": encode("/test/"), "range_end": encode("/test0")});
    for (path, request) in [
        ("auth/role/add", json!({"name": "root"})),
        ("auth/role/add", json!({"name": "node"})),
        ("auth/role/grant", json!({"name": "node", "perm": range})),
        ("auth/user/add", json!({"name": "root", "password": "secret"})),
        ("auth/user/add", json!({"name": "node", "password": "secret"})),
        ("auth/user/add", json!({"name": "guest", "password": "secret"})),
        ("auth/user/grant", json!({"user": "root", "role": "root"})),
        ("auth/user/grant", json!({"user": "node", "role": "node"})),
        ("auth/enable", json!({})),
    ] {
        etcd.post(path, &request).await;
    }
    let engine = Etcd::open(&node).await.unwrap();
    let mut feed = engine.follow(engine.load().await.unwrap().revision);
    let revision = write(&engine, "a").await.unwrap();
    follow(&mut feed, revision).await;

    let live = engine.live();
    let lease = live.grant(LIMIT).await.unwrap();
    let start = live.load().await.unwrap().revision;
    live.commit(lease, vec![], vec![put("a", "x")]).await.unwrap();
    live.renew(lease).await.unwrap();
    let mut told = live.follow(start);
    assert_eq!(told.next().await.unwrap()[0].writes, [put("a", "x")]);
    live.revoke(lease).await.unwrap();
    assert_eq!(live.load().await.unwrap().entries, []);

    for (settings, reason) in
        [(&settings(&etcd), "wants a user"), (&guest, "may not do that"), (&wrong, "invalid user ID or password")]
    {
        let error = refused(settings).await;
        assert!(matches!(&error, OpenError::Engine(EngineError::Refused(why)) if why.contains(reason)), "{error}");
    }

    // A member that starts again has forgotten every token.
    etcd.kill(0).await;
    etcd.start_again(0).await;
    let revision = write_at_last(&engine, "b").await;
    assert_eq!(follow(&mut feed, revision).await.last().unwrap().writes, [put("b", "x")]);
}

#[tokio::test]
async fn where_no_etcd_is_the_error_says_where() {
    let free = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let settings = EtcdSettings::parse(&format!("etcd://{address}")).unwrap();
    let error = tokio::time::timeout(LIMIT, refused(&settings)).await.expect("it gives up in time");
    assert!(matches!(error, OpenError::Engine(EngineError::Unavailable(_))), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    // Something that takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let settings = EtcdSettings::parse(&format!("etcd://{address}")).unwrap();
    let error = tokio::time::timeout(LIMIT, refused(&settings)).await.expect("it gives up in time");
    assert!(matches!(error, OpenError::Engine(EngineError::Unavailable(_))), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
