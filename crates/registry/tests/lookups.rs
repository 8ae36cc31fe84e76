//! Records are found by their content, whatever became of them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use registry::*;

const NAMES: [&str; 4] = ["a.example.test", "b.example.test", "c.example.test", "example.test"];
const CONTENTS: [&str; 5] = ["One", "\"one\"", "\"o\" \"NE\"", "two", "Drei für ÄÖÜ"];
const FOLDED: [&str; 4] = ["one", "two", "drei für äöü", "\"one\""];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn text(name: &str, content: &str) -> NewRecord {
    let content = RecordContent::parse(RecordType::Txt, content, None, None).unwrap();
    NewRecord::new(Hostname::parse(name).unwrap(), content)
}

fn check(snapshot: &Snapshot, zone: ZoneId) {
    for folded in FOLDED {
        let has = |record: &Record| record.content.bare_text().to_lowercase() == folded;
        let looked_through: Vec<_> = snapshot.records(zone).map(|(_, record)| record).filter(|r| has(r)).collect();
        let looked_up: Vec<_> = snapshot.records_with_content(zone, folded).map(|(_, record)| record).collect();
        assert_eq!(looked_up, looked_through, "{folded}");
    }
}

/// Records come, go, move to other names and change their content, several in one transaction.
#[tokio::test]
async fn a_look_up_finds_what_a_look_at_all_finds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &Hostname::parse("example.test").unwrap()).await.unwrap().id;
    let other = registry.ensure_zone(at(0), &Hostname::parse("example.net").unwrap()).await.unwrap().id;
    registry.edit_records(at(0), other, &[RecordEdit::Create(text("example.net", "one"))]).await.unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut made = 0;
    for step in 0..400 {
        let snapshot = registry.snapshot();
        let mut present: Vec<RecordId> = snapshot.records(zone).map(|(_, record)| record.id).collect();
        let mut edits = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let record = text(NAMES[random.random_range(0..4)], CONTENTS[random.random_range(0..5)]);
            let chosen = (!present.is_empty()).then(|| present.swap_remove(random.random_range(0..present.len())));
            edits.push(match (chosen, random.random_range(0..4)) {
                (None, _) | (_, 0) => RecordEdit::Create(record),
                (Some(id), 1) => RecordEdit::Delete(id),
                (Some(id), _) => RecordEdit::Change(id, Box::new(move |_, _| Ok(record.clone()))),
            });
        }
        // Twins are refused, and then nothing of it happens.
        made += usize::from(registry.edit_records(at(step), zone, &edits).await.is_ok());
        check(&registry.snapshot(), zone);
    }
    assert!(made > 50, "{made}");
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.records_with_content(other, "one").count(), 1, "each zone has its own");
    drop(registry);
    let again = Registry::open_file(&path, at(500)).await.unwrap().snapshot();
    assert_eq!(*again, *snapshot, "nothing is left over of what went");
}
