//! What every engine must do: one suite, run on the embedded one and on etcd (the real program, started here).
//!
//! What only etcd has to bear (a leader that dies, a majority that is lost, TLS, users) is in `etcd.rs`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use harness::LIMIT;
use jiff::Timestamp;
use registry::engine::{Batch, Entry, Feed, FeedError, Guard, LeaseError, State, Write};
use registry::{
    CommitError, ConfigSource, Embedded, Engine, Etcd, EtcdSettings, Hostname, Item, ItemError, ItemKind, Members,
    NewRecord, NewTunnel, RecordContent, RecordEdit, RecordType, Registry, Revision, RulesetEdit, RulesetPhase,
    TunnelError, TunnelName, Which, ZoneId,
};
use serde_json::json;

/// The embedded engine's log reaches back 10,000 transactions.
const BEYOND_THE_LOG: usize = 10_001;

/// An engine to be tested, and how to make it forget.
struct Place {
    engine: Arc<dyn Engine>,
    etcd: Option<harness::Etcd>,
}

impl Place {
    fn embedded() -> Self {
        Self { engine: Arc::new(Embedded::in_memory().unwrap()), etcd: None }
    }

    async fn etcd() -> Option<Self> {
        let etcd = harness::Etcd::start(1).await?;
        let engine = Etcd::open(&settings(&etcd)).await.unwrap();
        Some(Self { engine: Arc::new(engine), etcd: Some(etcd) })
    }

    /// A second way to the same entries, as another node has it.
    async fn another(&self) -> Arc<dyn Engine> {
        match &self.etcd {
            Some(etcd) => Arc::new(Etcd::open(&settings(etcd)).await.unwrap()),
            None => self.engine.clone(),
        }
    }

    /// Something else happens in the same store, if it can be shared.
    async fn disturb(&self) {
        if let Some(etcd) = &self.etcd {
            etcd.post("kv/put", &json!({"key": "L290aGVy", "value": "eA=="})).await;
        }
    }

    /// Makes changes up to now unavailable to those who did not follow them.
    async fn forget(&self) -> Revision {
        match &self.etcd {
            Some(etcd) => {
                let revision = self.engine.commit(vec![], vec![put("forgotten", "x")]).await.unwrap();
                etcd.post("kv/compaction", &json!({"revision": revision.to_string()})).await;
                revision
            }
            None => {
                let changes = (0..BEYOND_THE_LOG).map(|_| self.engine.commit(vec![], vec![put("forgotten", "x")]));
                join_all(changes).await.into_iter().map(Result::unwrap).max().unwrap()
            }
        }
    }
}

fn settings(etcd: &harness::Etcd) -> EtcdSettings {
    EtcdSettings::parse(&format!("etcd://{}/test", etcd.addresses())).unwrap()
}

fn put(key: &str, value: &str) -> Write {
    Write { key: key.into(), value: Some(value.into()) }
}

fn remove(key: &str) -> Write {
    Write { key: key.into(), value: None }
}

fn guard(key: &str, revision: Revision) -> Guard {
    Guard { key: key.into(), revision }
}

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry { key: key.into(), value: value.into(), revision }
}

async fn next(feed: &mut Box<dyn Feed>) -> Result<Vec<Batch>, FeedError> {
    tokio::time::timeout(LIMIT, feed.next()).await.expect("the feed says nothing")
}

/// Every batch until this revision.
async fn until(feed: &mut Box<dyn Feed>, revision: Revision) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    while batches.last().is_none_or(|last| last.revision < revision) {
        batches.extend(next(feed).await.unwrap());
    }
    batches
}

/// What is there after these changes.
fn apply(state: State, batches: &[Batch]) -> BTreeMap<String, Vec<u8>> {
    let mut entries: BTreeMap<_, _> = state.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    for write in batches.iter().flat_map(|batch| &batch.writes) {
        match &write.value {
            Some(value) => drop(entries.insert(write.key.clone(), value.clone())),
            None => drop(entries.remove(&write.key)),
        }
    }
    entries
}

/// The tests of this file, once for each engine.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Place::embedded()).await;
            })+
        }

        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(place) = super::Place::etcd().await {
                    super::$test(place).await;
                }
            })+
        }
    };
}

on_each_engine![
    what_is_written_is_loaded_in_the_order_of_the_keys,
    a_transaction_is_all_or_nothing,
    a_conflict_tells_the_revision_that_shows_it,
    of_many_writers_of_one_entry_one_wins_each_round,
    concurrent_writers_lose_nothing,
    a_follower_gets_each_transaction_whole_and_in_order,
    a_follower_sees_what_changes_nothing_either,
    a_follower_that_joins_late_misses_nothing,
    a_follower_that_was_away_for_too_long_is_told_so,
    a_follower_of_the_future_is_told_to_start_over,
    a_large_state_is_loaded_whole,
    a_large_change_is_followed_whole,
    two_registries_on_one_engine_agree,
    a_tunnel_of_many_routes_is_deleted_with_them,
    more_records_than_a_transaction_takes_change_at_once,
    of_two_nodes_that_want_one_thing_at_once_one_gets_it,
    a_zone_and_a_network_take_with_them_what_they_have,
    a_registry_of_the_first_version_is_brought_forward_by_one_of_two,
    entries_go_with_their_lease,
    a_lease_lasts_while_it_is_renewed_and_no_longer,
    nothing_is_written_under_a_lease_that_has_ended,
    live_entries_and_others_do_not_hear_of_each_other,
    a_follower_of_live_entries_misses_nothing,
];

async fn what_is_written_is_loaded_in_the_order_of_the_keys(place: Place) {
    let engine = &place.engine;
    let empty = engine.load().await.unwrap();
    assert_eq!(empty.entries, []);
    let first = engine.commit(vec![], vec![put("b", "1"), put("a", "1"), put("ü/\u{10ffff}", "")]).await.unwrap();
    place.disturb().await;
    let second = engine.commit(vec![], vec![put("a", "2"), put("a", "3"), remove("b"), remove("none")]).await.unwrap();
    assert!(empty.revision < first && first < second, "{} {first} {second}", empty.revision);
    let state = engine.load().await.unwrap();
    assert!(state.revision >= second);
    assert_eq!(state.entries, [entry("a", "3", second), entry("ü/\u{10ffff}", "", first)]);
}

async fn a_transaction_is_all_or_nothing(place: Place) {
    let engine = &place.engine;
    let first = engine.commit(vec![guard("a", 0)], vec![put("a", "1"), put("b", "1")]).await.unwrap();
    let refused = engine.commit(vec![guard("b", first), guard("a", 0)], vec![put("b", "2"), put("c", "2")]).await;
    assert!(
        matches!(&refused, Err(CommitError::Conflict { key, revision }) if key == "a" && *revision == first),
        "{refused:?}"
    );
    assert_eq!(engine.load().await.unwrap().entries, [entry("a", "1", first), entry("b", "1", first)]);
    let both = vec![guard("a", first), guard("b", first), guard("c", 0)];
    let second = engine.commit(both, vec![remove("a"), put("c", "2")]).await.unwrap();
    assert_eq!(engine.load().await.unwrap().entries, [entry("b", "1", first), entry("c", "2", second)]);
    // A transaction that writes nothing only looks.
    assert_eq!(engine.commit(vec![guard("c", second)], vec![]).await.unwrap(), second);
    assert!(engine.commit(vec![guard("a", first)], vec![]).await.is_err());
}

/// Whoever waits for that revision to come by must not wait for ever, whatever else happens in the same store.
async fn a_conflict_tells_the_revision_that_shows_it(place: Place) {
    let engine = &place.engine;
    let first = engine.commit(vec![], vec![put("a", "1")]).await.unwrap();
    let mut feed = engine.follow(first);
    let gone = engine.commit(vec![guard("a", first)], vec![remove("a")]).await.unwrap();
    place.disturb().await;
    let refused = engine.commit(vec![guard("a", first)], vec![put("a", "2")]).await;
    assert!(matches!(&refused, Err(CommitError::Conflict { revision, .. }) if *revision == gone), "{refused:?}");
    assert_eq!(next(&mut feed).await.unwrap().last().unwrap().revision, gone);
}

async fn of_many_writers_of_one_entry_one_wins_each_round(place: Place) {
    let (here, there) = (&place.engine, place.another().await);
    let mut revision = 0;
    for round in 0..10 {
        let writers = (0..8).map(|writer| {
            let engine = if writer % 2 == 0 { here } else { &there };
            engine.commit(vec![guard("a", revision)], vec![put("a", &format!("{round}/{writer}"))])
        });
        let outcomes = join_all(writers).await;
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        let [winner] = won[..] else { panic!("{outcomes:?}") };
        let lost = |outcome: &&Result<_, _>| matches!(outcome, Err(CommitError::Conflict { key, revision }) if key == "a" && revision == winner);
        assert_eq!(outcomes.iter().filter(lost).count(), 7, "{outcomes:?}");
        revision = *winner;
    }
}

async fn concurrent_writers_lose_nothing(place: Place) {
    let keys: Vec<String> = (0..200).map(|index| index.to_string()).collect();
    let writers = keys.iter().map(|key| place.engine.commit(vec![], vec![put(key, "x")]));
    let mut revisions: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200, "each has a revision of its own");
    assert_eq!(place.engine.load().await.unwrap().entries.len(), 200);
}

async fn a_follower_gets_each_transaction_whole_and_in_order(place: Place) {
    let engine = &place.engine;
    let start = engine.load().await.unwrap();
    let mut feed = engine.follow(start.revision);
    let mut expected = Vec::new();
    for index in 0..20 {
        let writes = vec![put(&format!("a{index}"), "1"), put(&format!("b{index}"), "1"), remove("none")];
        let revision = engine.commit(vec![], writes).await.unwrap();
        expected.push((revision, vec![format!("a{index}"), format!("b{index}")]));
        if index % 5 == 0 {
            place.disturb().await;
        }
    }
    let batches = until(&mut feed, expected.last().unwrap().0).await;
    let keys = |batch: &Batch| -> Vec<String> {
        batch.writes.iter().filter(|write| write.value.is_some()).map(|write| write.key.clone()).collect()
    };
    let told: Vec<_> = batches.iter().map(|batch| (batch.revision, keys(batch))).collect();
    assert_eq!(told, expected);
}

/// Whoever made the change waits for it.
async fn a_follower_sees_what_changes_nothing_either(place: Place) {
    let start = place.engine.load().await.unwrap().revision;
    let mut feed = place.engine.follow(start);
    let revision = place.engine.commit(vec![], vec![remove("none")]).await.unwrap();
    assert_eq!(next(&mut feed).await.unwrap().last().unwrap().revision, revision);
}

/// Followers come at every point of a history that goes on meanwhile; from there on each gets what the history is.
async fn a_follower_that_joins_late_misses_nothing(place: Place) {
    let another = place.another().await;
    let mut states = Vec::new();
    let mut last = 0;
    for index in 0..60 {
        let key = format!("k{}", index % 7);
        let write = if index % 3 == 2 { remove(&key) } else { put(&key, &index.to_string()) };
        last = place.engine.commit(vec![], vec![write, put("last", &index.to_string())]).await.unwrap();
        if index % 10 == 0 {
            states.push(another.load().await.unwrap());
        }
    }
    let now = apply(place.engine.load().await.unwrap(), &[]);
    for state in states {
        let mut feed = another.follow(state.revision);
        let batches = until(&mut feed, last).await;
        assert!(batches.is_sorted_by(|before, after| before.revision < after.revision));
        assert_eq!(apply(state, &batches), now);
    }
}

async fn a_follower_that_was_away_for_too_long_is_told_so(place: Place) {
    let engine = &place.engine;
    let old = engine.commit(vec![], vec![put("a", "1")]).await.unwrap();
    engine.commit(vec![], vec![put("a", "2")]).await.unwrap();
    let now = place.forget().await;
    let told = next(&mut engine.follow(old)).await;
    assert!(matches!(told, Err(FeedError::Compacted)), "{told:?}");

    let state = engine.load().await.unwrap();
    assert_eq!(apply(state.clone(), &[])["a"], b"2");
    let mut feed = engine.follow(state.revision);
    let next_change = engine.commit(vec![], vec![put("a", "3")]).await.unwrap();
    assert!(next_change > now);
    assert_eq!(until(&mut feed, next_change).await.len(), 1);
}

/// As after the registry was set back to a copy.
async fn a_follower_of_the_future_is_told_to_start_over(place: Place) {
    let now = place.engine.commit(vec![], vec![put("a", "1")]).await.unwrap();
    let told = next(&mut place.engine.follow(now + 1000)).await;
    assert!(matches!(told, Err(FeedError::Compacted)), "{told:?}");
}

async fn a_large_state_is_loaded_whole(place: Place) {
    // More entries than a page takes, some of them large; with it all values are larger than one answer may be.
    let large = "x".repeat(1 << 20);
    let mut last = 0;
    for chunk in (0..6_000).collect::<Vec<_>>().chunks(100) {
        let writes = chunk.iter().map(|index| put(&format!("small/{index:05}"), &format!("value {index}")));
        last = place.engine.commit(vec![], writes.collect()).await.unwrap();
    }
    for index in 0..40 {
        last = place.engine.commit(vec![], vec![put(&format!("large/{index:02}"), &large)]).await.unwrap();
    }
    let state = place.another().await.load().await.unwrap();
    assert!(state.revision >= last);
    assert_eq!(state.entries.len(), 6_040);
    assert!(state.entries.is_sorted_by(|before, after| before.key < after.key), "no entry is there twice");
    assert!(state.entries[..40].iter().all(|entry| entry.value.len() == large.len()));
    assert_eq!(state.entries[6_039].value, b"value 5999");
}

/// Larger than what etcd puts into one message of a watch, and many at once behind it.
async fn a_large_change_is_followed_whole(place: Place) {
    let engine = &place.engine;
    let start = engine.load().await.unwrap();
    let value = "x".repeat(12_000);
    let mut last = 0;
    for round in 0..5 {
        let writes = (0..100).map(|index| put(&format!("{index:03}"), &format!("{round}{value}")));
        last = engine.commit(vec![], writes.collect()).await.unwrap();
    }
    let mut feed = engine.follow(start.revision);
    let batches = until(&mut feed, last).await;
    let whole = batches.iter().filter(|batch| batch.writes.len() == 100).count();
    // The embedded engine leaves out values that were overwritten since.
    let expected = if place.etcd.is_some() { 5 } else { 1 };
    assert_eq!((batches.len(), whole), (5, expected));
    assert_eq!(apply(start, &batches), apply(engine.load().await.unwrap(), &[]));
}

/// Long enough that none ends by itself in a test that does not wait for it.
const LIFE: Duration = Duration::from_secs(60);

async fn entries_go_with_their_lease(place: Place) {
    let (live, other) = (place.engine.live(), place.another().await);
    let (one, two) = (live.grant(LIFE).await.unwrap(), other.live().grant(LIFE).await.unwrap());
    let first = live.commit(one, vec![], vec![put("n/a", "1"), put("n/b", "1")]).await.unwrap();
    let second = other.live().commit(two, vec![guard("n/c", 0)], vec![put("n/c", "2"), put("n/b", "2")]).await.unwrap();
    let expected = [entry("n/a", "1", first), entry("n/b", "2", second), entry("n/c", "2", second)];
    assert_eq!(other.live().load().await.unwrap().entries, expected);
    let refused = live.commit(one, vec![guard("n/c", 0)], vec![put("n/a", "x")]).await;
    assert!(
        matches!(&refused, Err(LeaseError::Commit(CommitError::Conflict { key, .. })) if key == "n/c"),
        "{refused:?}"
    );

    let mut feed = other.live().follow(second);
    live.revoke(one).await.unwrap();
    let batches = next(&mut feed).await.unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].writes, [remove("n/a")], "what another lease took over stays");
    assert_eq!(live.load().await.unwrap().entries, expected[1..]);
    live.revoke(one).await.expect("it is gone already");
    other.live().revoke(two).await.unwrap();
    assert_eq!(live.load().await.unwrap().entries, []);
}

async fn a_lease_lasts_while_it_is_renewed_and_no_longer(place: Place) {
    /// Renewed so often that a busy machine may pause for most of it.
    const SHORT: Duration = Duration::from_secs(15);
    let live = place.engine.live();
    let (kept, left) = (live.grant(SHORT).await.unwrap(), live.grant(SHORT).await.unwrap());
    live.commit(kept, vec![], vec![put("kept", "")]).await.unwrap();
    let revision = live.commit(left, vec![], vec![put("left", "")]).await.unwrap();
    let mut feed = live.follow(revision);
    let renewed = async {
        let mut pace = tokio::time::interval(SHORT / 15);
        loop {
            pace.tick().await;
            live.renew(kept).await.expect("it is renewed in time");
        }
    };
    let batches = tokio::select! {
        never = renewed => never,
        batches = next(&mut feed) => batches.unwrap(),
    };
    assert_eq!(batches[0].writes, [remove("left")]);
    assert!(matches!(live.renew(left).await, Err(LeaseError::Ended)));
    live.revoke(kept).await.unwrap();
    assert_eq!(next(&mut feed).await.unwrap()[0].writes, [remove("kept")], "it was there until now");
}

/// As for a node that was stopped for too long, and wakes.
async fn nothing_is_written_under_a_lease_that_has_ended(place: Place) {
    let live = place.engine.live();
    let lease = live.grant(LIFE).await.unwrap();
    live.commit(lease, vec![], vec![put("a", "1")]).await.unwrap();
    live.revoke(lease).await.unwrap();
    let refused = live.commit(lease, vec![], vec![put("a", "2"), put("b", "2")]).await;
    assert!(matches!(refused, Err(LeaseError::Ended)), "{refused:?}");
    assert!(matches!(live.renew(lease).await, Err(LeaseError::Ended)));
    assert_eq!(live.load().await.unwrap().entries, []);
    let again = live.grant(LIFE).await.unwrap();
    live.commit(again, vec![guard("a", 0)], vec![put("a", "3")]).await.unwrap();
    assert_eq!(live.load().await.unwrap().entries.len(), 1);
}

async fn live_entries_and_others_do_not_hear_of_each_other(place: Place) {
    let (engine, live) = (&place.engine, place.engine.live());
    let lease = live.grant(LIFE).await.unwrap();
    let kept = engine.commit(vec![], vec![put("a", "kept")]).await.unwrap();
    let (mut feed, mut live_feed) = (engine.follow(kept), live.follow(live.load().await.unwrap().revision));
    let alive = live.commit(lease, vec![], vec![put("a", "live")]).await.unwrap();
    let after = engine.commit(vec![guard("a", kept)], vec![put("b", "kept")]).await.unwrap();
    assert_eq!(next(&mut feed).await.unwrap(), [Batch { revision: after, writes: vec![put("b", "kept")] }]);
    assert_eq!(next(&mut live_feed).await.unwrap(), [Batch { revision: alive, writes: vec![put("a", "live")] }]);
    assert_eq!(engine.load().await.unwrap().entries, [entry("a", "kept", kept), entry("b", "kept", after)]);
    assert_eq!(live.load().await.unwrap().entries, [entry("a", "live", alive)]);
}

async fn a_follower_of_live_entries_misses_nothing(place: Place) {
    let (another, live) = (place.another().await, place.engine.live());
    let lease = live.grant(LIFE).await.unwrap();
    let start = another.live().load().await.unwrap();
    let mut feed = another.live().follow(start.revision);
    let mut last = 0;
    for index in 0..60 {
        let key = format!("k{}", index % 7);
        let write = if index % 3 == 2 { remove(&key) } else { put(&key, &index.to_string()) };
        last = live.commit(lease, vec![], vec![write, put("last", &index.to_string())]).await.unwrap();
    }
    let batches = until(&mut feed, last).await;
    assert_eq!(batches.len(), 60);
    assert_eq!(apply(start, &batches), apply(live.load().await.unwrap(), &[]));
}

fn named(name: &str) -> NewTunnel {
    NewTunnel {
        name: TunnelName::parse(name).unwrap(),
        secret: None,
        config_source: ConfigSource::Local,
        labels: Default::default(),
    }
}

/// The typed registry on top: what one node does, the other has, and of two that want one name one gets it.
async fn two_registries_on_one_engine_agree(place: Place) {
    let now = Timestamp::UNIX_EPOCH;
    let (one, other) = (place.engine.clone(), place.another().await);
    let (here, there) = tokio::join!(Registry::open(one, now), Registry::open(other, now));
    let (here, there) = (here.unwrap(), there.unwrap());
    assert_eq!(here.snapshot().account().id, there.snapshot().account().id, "both found one account");
    for index in 0..5 {
        let name = format!("t{index}");
        let (one, other) = tokio::join!(here.create_tunnel(now, named(&name)), there.create_tunnel(now, named(&name)));
        let lost = |outcome: &Result<_, TunnelError>| matches!(outcome, Err(TunnelError::NameTaken(_)));
        assert!(one.is_ok() && lost(&other) || other.is_ok() && lost(&one), "{one:?} {other:?}");
    }
    // Each waits for what it wrote itself only.
    let last = here.snapshot().revision().max(there.snapshot().revision());
    let agreed = async || {
        let (here, there) = (here.snapshot(), there.snapshot());
        here.revision() >= last && there.revision() >= last && here.tunnels().eq(there.tunnels())
    };
    harness::until(LIMIT, "both have the same tunnels", agreed).await;
    assert_eq!(there.snapshot().tunnels().count(), 5);
    drop(here);
    there.create_tunnel(now, named("after")).await.unwrap();
}

/// More than etcd takes in one transaction.
async fn a_tunnel_of_many_routes_is_deleted_with_them(place: Place) {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::open(place.engine.clone(), now).await.unwrap();
    let zone = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap();
    let tunnel = registry.create_tunnel(now, named("many")).await.unwrap();
    let names: Vec<_> = (0..300).map(|index| Hostname::parse(&format!("h{index}.example.test")).unwrap()).collect();
    let routes = names.iter().map(|name| registry.put_route(now, zone.id, name.clone(), tunnel.id, false));
    for outcome in join_all(routes).await {
        outcome.unwrap();
    }
    registry.delete_tunnel(now, tunnel.id, false).await.unwrap();
    assert_eq!(registry.snapshot().routes().count(), 0);
    assert!(registry.snapshot().live_tunnel(tunnel.id).is_none());
    registry.create_tunnel(now, named("many")).await.unwrap();
}

/// Two nodes make large changes in one zone at once: both happen, each whole.
async fn more_records_than_a_transaction_takes_change_at_once(place: Place) {
    let now = Timestamp::UNIX_EPOCH;
    let here = Registry::open(place.engine.clone(), now).await.unwrap();
    let there = Registry::open(place.another().await, now).await.unwrap();
    let zone = here.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
    harness::until(LIMIT, "both have the zone", async || there.snapshot().zone(zone).is_some()).await;
    let creations = |side: &str| -> Vec<_> {
        let create = |index| {
            let name = Hostname::parse(&format!("{side}{index}.example.test")).unwrap();
            let content = RecordContent::parse(RecordType::A, "192.0.2.1", None, None).unwrap();
            RecordEdit::Create(NewRecord::new(name, content))
        };
        (0..300).map(create).collect()
    };
    let (left, right) = (creations("l"), creations("r"));
    let (one, other) = tokio::join!(here.edit_records(now, zone, &left), there.edit_records(now, zone, &right));
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (300, 300));
    let whole = async || [&here, &there].iter().all(|node| node.snapshot().record_count(zone) == 600);
    harness::until(LIMIT, "both have all records", whole).await;
    here.delete_zone(now, zone).await.unwrap();
    let gone = async || there.snapshot().zone(zone).is_none() && there.snapshot().record_count(zone) == 0;
    harness::until(LIMIT, "the zone is gone with its records", gone).await;
}

/// Makes an item that consists of this.
async fn make(
    registry: &Registry,
    kind: ItemKind,
    zone: Option<ZoneId>,
    terms: serde_json::Value,
) -> Result<Item, ItemError> {
    let terms = terms.as_object().unwrap().clone();
    registry.write_item(Timestamp::now(), kind, zone, Which::New, &mut |_| Ok(terms.clone())).await
}

/// The same port of one name, the one default network, the rules of one phase.
async fn of_two_nodes_that_want_one_thing_at_once_one_gets_it(place: Place) {
    let now = Timestamp::UNIX_EPOCH;
    let here = Registry::open(place.engine.clone(), now).await.unwrap();
    let there = Registry::open(place.another().await, now).await.unwrap();
    let zone = here.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
    harness::until(LIMIT, "both have the zone", async || there.snapshot().zone(zone).is_some()).await;
    for round in 0..5 {
        let wish = |ports: &str| {
            json!({ "dns": { "name": format!("h{round}.example.test") }, "protocol": format!("tcp/{ports}"),
                "origin_dns": { "name": "a.test" }, "origin_port": ports })
        };
        let (one, other) = tokio::join!(
            make(&here, ItemKind::Application, Some(zone), wish("1-20")),
            make(&there, ItemKind::Application, Some(zone), wish("20-30"))
        );
        let lost = |outcome: &Result<_, ItemError>| matches!(outcome, Err(ItemError::Taken(_)));
        assert!(one.is_ok() && lost(&other) || other.is_ok() && lost(&one), "{one:?} {other:?}");

        let wish = |name: &str| json!({ "name": format!("{name}{round}"), "is_default_network": true });
        let (one, other) = tokio::join!(
            make(&here, ItemKind::VirtualNetwork, None, wish("a")),
            make(&there, ItemKind::VirtualNetwork, None, wish("b"))
        );
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");

        let phase = RulesetPhase::ALL[round].name;
        let edit = RulesetEdit::Replace(Members::new());
        let put = async |node: &Registry| {
            let mut read = |old: Option<&Item>| edit.apply(now, old, "zone", Some(phase));
            node.write_item(now, ItemKind::Ruleset, Some(zone), Which::Named(phase), &mut read).await.unwrap().id
        };
        let (one, other) = tokio::join!(put(&here), put(&there));
        assert_eq!(one, other, "the second one found the first one's");
    }
    let last = here.snapshot().revision().max(there.snapshot().revision());
    for node in [&here, &there] {
        harness::until(LIMIT, "both have all", async || node.snapshot().revision() >= last).await;
        let snapshot = node.snapshot();
        let networks: Vec<_> = snapshot.items(ItemKind::VirtualNetwork, None).collect();
        let defaults = networks.iter().filter(|network| network.terms["is_default_network"] == true).count();
        assert_eq!((networks.len(), defaults), (11, 1));
        assert_eq!(snapshot.items(ItemKind::Application, Some(zone)).count(), 5);
        assert_eq!(snapshot.items(ItemKind::Ruleset, Some(zone)).count(), 5);
    }
}

/// More than etcd takes in one transaction.
async fn a_zone_and_a_network_take_with_them_what_they_have(place: Place) {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::open(place.engine.clone(), now).await.unwrap();
    let zone = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
    let tunnel = registry.create_tunnel(now, named("one")).await.unwrap();
    let network = make(&registry, ItemKind::VirtualNetwork, None, json!({ "name": "lab" })).await.unwrap();
    for index in 0..150 {
        let hostname = json!({ "hostname": format!("h{index}.test") });
        let route = json!({ "network": format!("10.{index}.0.0/16"), "tunnel_id": tunnel.id,
            "virtual_network_id": network.id_text() });
        make(&registry, ItemKind::CustomHostname, Some(zone), hostname).await.unwrap();
        make(&registry, ItemKind::PrivateRoute, None, route.clone()).await.unwrap();
        let mut elsewhere = route;
        elsewhere.as_object_mut().unwrap().remove("virtual_network_id");
        make(&registry, ItemKind::PrivateRoute, None, elsewhere).await.unwrap();
    }
    registry.delete_zone(now, zone).await.unwrap();
    assert_eq!(registry.snapshot().items_named(ItemKind::CustomHostname, "h1.test").count(), 0);
    let refused = registry.delete_item(ItemKind::VirtualNetwork, None, network.id, false).await;
    assert!(matches!(refused, Err(ItemError::InUse(_))), "{refused:?}");
    assert_eq!(registry.snapshot().private_routes().count(), 300);
    registry.delete_item(ItemKind::VirtualNetwork, None, network.id, true).await.unwrap();
    assert_eq!(registry.snapshot().private_routes().count(), 150);
    registry.delete_tunnel(now, tunnel.id, false).await.unwrap();
    let state = place.engine.load().await.unwrap();
    let left: Vec<_> = state.entries.iter().filter(|entry| entry.key.starts_with("items/")).collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

async fn a_registry_of_the_first_version_is_brought_forward_by_one_of_two(place: Place) {
    let now = Timestamp::UNIX_EPOCH;
    let (account, zone, tunnel) = ("0".repeat(32), "1".repeat(32), "11111111-2222-4333-8444-555555555555");
    let entry = |key: String, value: serde_json::Value| put(&key, &value.to_string());
    place
        .engine
        .commit(
            vec![],
            vec![
                entry(format!("accounts/{account}"), json!({"id": account, "name": "Snicket", "created_at": now})),
                entry(format!("zones/{zone}"), json!({"id": zone, "name": "example.test", "created_at": now})),
            ],
        )
        .await
        .unwrap();
    for chunk in (0..300).collect::<Vec<_>>().chunks(100) {
        let routes = chunk.iter().map(|index| {
            let name = format!("h{index}.example.test");
            let value = json!({"hostname": name, "tunnel": tunnel, "zone": zone, "created_at": now});
            entry(format!("routes/{name}"), value)
        });
        place.engine.commit(vec![], routes.collect()).await.unwrap();
    }
    let (one, other) = (place.engine.clone(), place.another().await);
    let (here, there) = tokio::join!(Registry::open(one, now), Registry::open(other, now));
    for registry in [here.unwrap(), there.unwrap()] {
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.record_count(zone.parse().unwrap()), 300);
        assert_eq!(snapshot.routes_of(tunnel.parse().unwrap()).count(), 300);
        assert_eq!(snapshot.account().id.to_string(), account);
    }
    let state = place.engine.load().await.unwrap();
    assert!(state.entries.iter().all(|entry| !entry.key.starts_with("routes/")));
}
