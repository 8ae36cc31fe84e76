use http::HeaderValue;

use super::*;

const LIMITS: Limits = Limits { requests: 4, head: 200, body: 100, total: 20_000, rate: 2 };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn begin(store: &mut Store, now: Duration, path: &str) -> Option<u64> {
    begin_with(store, now, path, Kind::Http, &HeaderMap::new())
}

fn begin_with(store: &mut Store, now: Duration, path: &str, kind: Kind, headers: &HeaderMap) -> Option<u64> {
    let beginning =
        Beginning { kind, method: &Method::GET, host: "a.test", target: path, headers, unix_ms: 0, replay_of: None };
    store.begin(now, &beginning)
}

fn ids(store: &Store) -> Vec<u64> {
    store.since(0).map(|entry| entry.id).collect()
}

#[test]
fn the_oldest_goes_when_another_comes() {
    let mut store = Store::new(LIMITS);
    for n in 0..10 {
        begin(&mut store, at(n), "/").unwrap();
    }
    assert_eq!(ids(&store), [7, 8, 9, 10]);
    assert_eq!(store.oldest(), 7);
    assert!(store.get(6).is_none() && store.get(11).is_none());
    // What comes late for one that has gone is lost.
    store.data(3, Side::Answer, b"late");
    store.finished(3, RequestOutcome::Answered(200), at(10));
    assert_eq!(ids(&store), [7, 8, 9, 10]);
}

#[test]
fn bodies_are_kept_up_to_the_limit_and_counted_beyond() {
    let mut store = Store::new(LIMITS);
    let id = begin(&mut store, at(0), "/").unwrap();
    store.data(id, Side::Request, b"short");
    store.ended(id, Side::Request, at(1));
    for _ in 0..50 {
        store.data(id, Side::Answer, &[b'x'; 7]);
    }
    store.ended(id, Side::Answer, at(1));
    let entry = store.get(id).unwrap();
    assert!(entry.request.is_whole());
    assert_eq!((&entry.request.kept[..], entry.request.kept.capacity()), (&b"short"[..], 5));
    assert_eq!((entry.answer.kept.len(), entry.answer.kept.capacity(), entry.answer.bytes), (100, 100, 350));
    assert!(!entry.answer.is_whole());
}

#[test]
fn a_body_that_goes_on_is_not_whole() {
    let mut store = Store::new(LIMITS);
    let id = begin(&mut store, at(0), "/").unwrap();
    store.data(id, Side::Request, b"part");
    assert!(!store.get(id).unwrap().request.is_whole());
}

#[test]
fn the_total_is_never_exceeded() {
    let mut store = Store::new(Limits { requests: 1000, rate: 1000, body: 3000, ..LIMITS });
    let mut random: u64 = 1;
    for n in 0..2000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = begin(&mut store, at(n), &"/".repeat(1 + (random >> 40) as usize % 300)).unwrap();
        for side in [Side::Request, Side::Answer] {
            store.data(id, side, &vec![0; (random >> 33) as usize % 2000]);
            // Older ones grow as well.
            store.data(id.saturating_sub(3), side, &vec![0; (random >> 50) as usize % 500]);
        }
        assert!(store.size <= LIMITS.total);
        assert_eq!(store.size, store.entries.iter().map(Entry::size).sum::<usize>());
    }
    assert!(store.entries.len() > 2);
    store.clear();
    assert_eq!((store.size, store.entries.len(), store.oldest()), (0, 0, 2001));
}

#[test]
fn one_that_alone_takes_too_much_goes_itself() {
    let mut store = Store::new(Limits { total: 2000, body: 5000, ..LIMITS });
    let id = begin(&mut store, at(0), "/").unwrap();
    store.data(id, Side::Answer, &[0; 4000]);
    assert_eq!((store.size, store.entries.len()), (0, 0));
    assert!(begin(&mut store, at(1), "/").is_some());
}

#[test]
fn a_flood_is_counted_and_not_recorded() {
    let mut store = Store::new(LIMITS);
    let recorded = (0..100).filter(|_| begin(&mut store, at(1), "/").is_some()).count();
    assert_eq!((recorded, store.passed_over()), (4, 96));
    // Two a second come again.
    assert!(begin(&mut store, Duration::from_millis(1400), "/").is_none());
    assert!(begin(&mut store, Duration::from_millis(1500), "/").is_some());
    assert!(begin(&mut store, Duration::from_millis(1500), "/").is_none());
    let replay = Beginning {
        kind: Kind::Http,
        method: &Method::GET,
        host: "",
        target: "/",
        headers: &HeaderMap::new(),
        unix_ms: 0,
        replay_of: Some(1),
    };
    assert!(store.begin(Duration::from_millis(1500), &replay).is_some());
    // After a rest the whole burst is there again.
    assert_eq!((0..100).filter(|_| begin(&mut store, at(60), "/").is_some()).count(), 4);
}

#[test]
fn changes_are_found_by_their_revision() {
    let mut store = Store::new(LIMITS);
    let first = begin(&mut store, at(0), "/1").unwrap();
    begin(&mut store, at(0), "/2").unwrap();
    let seen = store.revision();
    assert_eq!(store.since(seen).count(), 0);
    store.answered(first, StatusCode::OK, &HeaderMap::new(), at(1));
    assert_eq!(store.since(seen).map(|entry| entry.id).collect::<Vec<_>>(), [first]);
}

#[test]
fn phases_tell_where_the_time_went() {
    let mut store = Store::new(LIMITS);
    let id = begin(&mut store, at(10), "/").unwrap();
    let phases = |store: &Store, now| {
        let phases = store.get(id).unwrap().phases(at(now));
        phases.iter().map(|phase| (phase.name, phase.from.as_secs(), phase.length.as_secs())).collect::<Vec<_>>()
    };
    assert_eq!(phases(&store, 11), [("wait", 0, 1)]);
    store.reached(id, Stage::Dialled, at(11));
    assert_eq!(phases(&store, 13), [("connect", 1, 2)]);
    store.reached(id, Stage::Connected, at(14));
    store.reached(id, Stage::Secured, at(16));
    store.data(id, Side::Request, b"x");
    store.ended(id, Side::Request, at(17));
    store.answered(id, StatusCode::OK, &HeaderMap::new(), at(20));
    assert_eq!(
        phases(&store, 25),
        [("connect", 1, 3), ("tls", 4, 2), ("request body", 0, 7), ("wait", 6, 4), ("answer", 10, 5)]
    );
    store.finished(id, RequestOutcome::Answered(200), at(22));
    assert_eq!(phases(&store, 99).last(), Some(&("answer", 10, 2)));
}

#[test]
fn messages_are_counted_where_there_are_some() {
    let mut store = Store::new(LIMITS);
    let id = begin_with(&mut store, at(0), "/ws", Kind::WebSocket, &HeaderMap::new()).unwrap();
    store.answered(id, StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new(), at(0));
    store.data(id, Side::Request, b"\x81\x80\0\0\0\0\x81\x80\0\0\0\0");
    store.data(id, Side::Answer, b"\x81\x02hi");
    let entry = store.get(id).unwrap();
    assert_eq!(entry.request.tally().unwrap().messages, 2);
    assert_eq!(entry.answer.tally().unwrap().messages, 1);
    assert!(entry.request.kept.is_empty() && !entry.request.is_whole());

    // One that the origin refuses is answered by an ordinary page.
    let id = begin_with(&mut store, at(1), "/ws", Kind::WebSocket, &HeaderMap::new()).unwrap();
    store.answered(id, StatusCode::FORBIDDEN, &HeaderMap::new(), at(1));
    store.data(id, Side::Answer, b"no");
    assert_eq!(store.get(id).unwrap().answer.kept, b"no");

    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    let id = begin_with(&mut store, at(2), "/grpc", Kind::Http, &headers).unwrap();
    store.data(id, Side::Request, b"\0\0\0\0\x01x");
    let entry = store.get(id).unwrap();
    assert_eq!((entry.request.tally().unwrap().messages, &entry.request.kept[..]), (1, &b"\0\0\0\0\x01x"[..]));
    assert_eq!(entry.answer.tally(), None);
}
