//! Who asks in somebody else's name floods nobody through us.

use std::net::IpAddr;

use dns::{Desk, Reply};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType as Kind;
use hickory_proto::rr::rdata::opt::EdnsOption;

use crate::setting::{Setting, question, record};

/// What became of so many questions: whole answers, those that were cut, and those that were kept back.
fn flood(desk: &mut Desk, from: &str, count: usize, asked: impl Fn(usize) -> Message) -> [usize; 3] {
    let from: IpAddr = from.parse().unwrap();
    let (mut fates, mut message) = ([0; 3], Vec::new());
    for number in 0..count {
        match desk.over_udp(&asked(number).to_vec().unwrap(), from, &mut message) {
            Reply::Answer { is_cut: false, .. } => fates[0] += 1,
            Reply::Answer { .. } => fates[1] += 1,
            Reply::Limited | Reply::Silence => fates[2] += 1,
        }
    }
    fates
}

async fn flooded() -> Setting {
    let setting = Setting::start().await;
    setting.add(vec![record("a.example.test", "A", "192.0.2.1"), record("*.w.example.test", "A", "192.0.2.1")]).await;
    setting
}

#[tokio::test]
async fn a_flood_of_one_question_is_cut_off() {
    let setting = flooded().await;
    let desk = &mut setting.server.desk();
    let asked = |_| question("a.example.test", Kind::A);
    // The time stands still between two calls of `refresh`.
    assert_eq!(flood(desk, "203.0.113.1", 1_000, asked), [400, 300, 300]);
    assert_eq!(flood(desk, "203.0.114.1", 100, asked), [100, 0, 0], "others notice nothing");
    let other = |_| question("a.example.test", Kind::TXT);
    assert_eq!(flood(desk, "203.0.113.1", 100, other), [100, 0, 0], "nor do other questions");
    // What is cut can be read, and sends whoever really asks to TCP.
    let mut message = Vec::new();
    let cut = loop {
        let packet = question("a.example.test", Kind::A).to_vec().unwrap();
        if let Reply::Answer { .. } = desk.over_udp(&packet, "203.0.113.9".parse().unwrap(), &mut message) {
            break Message::from_vec(&message).unwrap();
        }
    };
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
}

#[tokio::test]
async fn names_that_are_made_up_count_as_one() {
    let setting = flooded().await;
    let desk = &mut setting.server.desk();
    let missing = |number: usize| question(&format!("x{number}.example.test"), Kind::A);
    assert_eq!(flood(desk, "203.0.113.1", 1_000, missing), [400, 300, 300]);
    let wild = |number: usize| question(&format!("x{number}.w.example.test"), Kind::A);
    assert_eq!(flood(desk, "203.0.114.1", 1_000, wild), [400, 300, 300]);
    let foreign = |number: usize| question(&format!("x{number}.elsewhere.test"), Kind::A);
    assert_eq!(flood(desk, "203.0.115.1", 1_000, foreign), [400, 300, 300]);
}

#[tokio::test]
async fn who_shows_a_cookie_is_not_limited() {
    let setting = flooded().await;
    let desk = &mut setting.server.desk();
    let with_cookie = |cookie: &[u8]| {
        let mut asked = question("a.example.test", Kind::A);
        asked.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(10, cookie.to_vec()));
        asked
    };
    let from = "203.0.113.1";
    let mut message = Vec::new();
    desk.over_udp(&with_cookie(b"abcdefgh").to_vec().unwrap(), from.parse().unwrap(), &mut message);
    let answer = Message::from_vec(&message).unwrap();
    let given = answer.edns.as_ref().and_then(|edns| edns.option(10.into())).cloned();
    let Some(EdnsOption::Unknown(10, cookie)) = given else { panic!("no cookie in {answer:?}") };
    assert!(cookie.len() == 24 && cookie.starts_with(b"abcdefgh"));
    assert_eq!(flood(desk, from, 1_000, |_| with_cookie(&cookie)), [1_000, 0, 0]);
    // Nor is anybody else's taken for its own.
    assert!(flood(desk, "203.0.114.1", 1_000, |_| with_cookie(&cookie))[0] < 1_000);
}

#[tokio::test]
async fn transfers_and_signatures_that_are_refused_are_limited_too() {
    let setting = flooded().await;
    let desk = &mut setting.server.desk();
    for (from, kind) in [("203.0.113.1", Kind::AXFR), ("203.0.114.1", Kind::IXFR)] {
        let fates = flood(desk, from, 1_000, |_| question("example.test", kind));
        assert!(fates[0] < 1_000 && fates[2] > 0, "{kind}: {fates:?}");
    }
    // By a key that nobody has.
    let signed = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/question/tsig_unknown")).unwrap();
    let mut message = Vec::new();
    let kept_back = (0..1_000)
        .filter(|_| desk.over_udp(&signed, "203.0.115.1".parse().unwrap(), &mut message) == Reply::Limited)
        .count();
    assert!(kept_back > 0);
}
