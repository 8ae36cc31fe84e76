//! Changes come into the answers at once, and nothing is lost meanwhile.

use hickory_proto::rr::RecordType as Kind;
use registry::{RecordEdit, RecordType};

use crate::setting::{Setting, at, host, node, proxied, question, record, shown};

#[tokio::test]
async fn prepared_answers_change_with_their_zones() {
    let setting = Setting::start().await;
    let zone = setting.zone("example.test");
    let asked = || setting.ask("a.example.test", Kind::A);
    let becomes = async |what: &str, expected: &str| {
        harness::until(harness::LIMIT, what, async || asked().await.starts_with(expected)).await;
    };
    assert!(asked().await.starts_with("NXDomain"));
    setting.add(vec![record("a.example.test", "A", "192.0.2.1")]).await;
    becomes("it is there", "NoError\n= a.example.test. 300 A 192.0.2.1").await;
    let snapshot = setting.registry.snapshot();
    let (_, kept) = snapshot.records(zone).next().unwrap();
    setting.registry.edit_records(at(2), zone, &[RecordEdit::Delete(kept.id)]).await.unwrap();
    becomes("it is gone", "NXDomain").await;
    setting.add(vec![record("*.example.test", "CNAME", "b.example.test")]).await;
    becomes("a wildcard answers", "NoError\n= a.example.test. 300 CNAME b.example.test.").await;
    // The answer goes on into another zone, which comes later.
    setting.registry.ensure_zone(at(3), &host("b.example.test")).await.unwrap();
    setting.add(vec![record("b.example.test", "A", "192.0.2.3")]).await;
    becomes(
        "the inner zone answers",
        "NoError\n= a.example.test. 300 CNAME b.example.test.\n= b.example.test. 300 A 192.0.2.3",
    )
    .await;
    setting.registry.delete_zone(at(4), zone).await.unwrap();
    becomes("the zone is gone", "Refused").await;
}

#[tokio::test]
async fn nodes_that_come_and_go_are_in_the_answers() {
    let setting = Setting::start().await;
    setting.add(vec![proxied("www.example.test", "A", "192.0.2.1")]).await;
    assert_eq!(setting.ask("www.example.test", Kind::A).await, "NoError\n= www.example.test. 300 A 198.51.100.1");
    setting.registry.introduce(node(&setting.registry, "198.51.100.2"));
    harness::until(harness::LIMIT, "the node has moved", async || {
        setting.ask("www.example.test", Kind::A).await == "NoError\n= www.example.test. 300 A 198.51.100.2"
            && setting.ask("ns1.example.test", Kind::A).await == "NoError\n= ns1.example.test. 60 A 198.51.100.2"
    })
    .await;
}

#[tokio::test]
async fn serial_numbers_count_up_with_changes_of_the_zone_alone() {
    let setting = Setting::start().await;
    let other = setting.registry.ensure_zone(at(0), &host("other.test")).await.unwrap().id;
    let serial = async |zone: &str| {
        let answer = setting.ask(zone, Kind::SOA).await;
        answer.split(' ').rev().nth(4).unwrap().parse::<u64>().unwrap()
    };
    harness::until(harness::LIMIT, "the new zone is there", async || {
        serial("other.test").await == setting.registry.snapshot().revision()
    })
    .await;
    let before = serial("example.test").await;
    let edit = RecordEdit::Create(record("a.other.test", "A", "192.0.2.1"));
    setting.registry.edit_records(at(1), other, &[edit]).await.unwrap();
    harness::until(harness::LIMIT, "the zone has changed", async || {
        serial("other.test").await == setting.registry.snapshot().revision()
    })
    .await;
    assert_eq!(serial("example.test").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_is_lost_while_records_change() {
    let setting = Setting::start().await;
    setting.add(vec![record("a.example.test", "A", "192.0.2.1")]).await;
    let zone = setting.zone("example.test");
    let registry = setting.registry.clone();
    let changing = tokio::spawn(async move {
        for round in 0..200 {
            let name = format!("h{round}.example.test");
            registry
                .edit_records(at(round), zone, &[RecordEdit::Create(record(&name, "A", "192.0.2.1"))])
                .await
                .unwrap();
        }
    });
    let mut asked = 0;
    while !changing.is_finished() || asked < 500 {
        let answer = setting.udp(&question("a.example.test", Kind::A)).await;
        assert_eq!(shown(&answer), "NoError\n= a.example.test. 300 A 192.0.2.1");
        asked += 1;
    }
    changing.await.unwrap();
    assert!(RecordType::ALL.len() > 1);
}
