//! What stands on the wire: sizes, letters, and packets that nobody should send.

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::RecordType as Kind;
use tokio::io::AsyncReadExt as _;

use crate::setting::{Setting, question, read, record, shown, write};

#[tokio::test]
async fn letters_are_answered_as_they_were_asked() {
    let setting = Setting::start().await;
    setting.add(vec![record("www.example.test", "A", "192.0.2.1")]).await;
    // The second time from the prepared ones.
    for name in ["wWw.eXample.TEST", "WWW.example.test", "wWw.eXample.TEST"] {
        let answer = setting.udp(&question(name, Kind::A)).await;
        assert_eq!(answer.queries[0].name().to_ascii(), format!("{name}."));
        assert_eq!(shown(&answer), format!("NoError\n= {name}. 300 A 192.0.2.1"));
    }
}

#[tokio::test]
async fn long_answers_are_cut_over_udp() {
    let setting = Setting::start().await;
    let text = "x".repeat(200);
    let records = (0..8).map(|number| record("long.example.test", "TXT", &format!("{number}{text}"))).collect();
    setting.add(records).await;
    let whole = setting.tcp(&question("long.example.test", Kind::TXT)).await;
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (8, false));
    let cut = setting.udp(&question("long.example.test", Kind::TXT)).await;
    assert_eq!(shown(&cut), "NoError tc");

    // Between what is taken with EDNS and without.
    let records = (0..3).map(|number| record("mid.example.test", "TXT", &format!("{number}{text}"))).collect();
    setting.add(records).await;
    let mut plain = question("mid.example.test", Kind::TXT);
    assert_eq!(setting.udp(&plain).await.answers.len(), 3);
    plain.edns = None;
    let cut = setting.udp(&plain).await;
    assert!(cut.metadata.truncation && cut.edns.is_none() && cut.answers.is_empty());
    // Whoever takes much gets no more than what is never cut into fragments.
    let mut large = question("long.example.test", Kind::TXT);
    large.edns.as_mut().unwrap().set_max_payload(65_000);
    assert!(setting.udp(&large).await.metadata.truncation);
}

#[tokio::test]
async fn what_is_not_done_is_refused() {
    let setting = Setting::start().await;
    let ask = async |message: &Message| {
        let answer = setting.udp(message).await;
        (answer.metadata.response_code, answer.metadata.id)
    };
    let plain = question("example.test", Kind::A);
    for opcode in [OpCode::Notify, OpCode::Update, OpCode::Status] {
        let mut other = plain.clone();
        other.metadata.op_code = opcode;
        assert_eq!(ask(&other).await, (ResponseCode::NotImp, 0x1234));
    }
    assert_eq!(ask(&question("example.test", Kind::AXFR)).await.0, ResponseCode::Refused);
    let mut newer = plain.clone();
    newer.edns.as_mut().unwrap().set_version(1);
    assert_eq!(u16::from(ask(&newer).await.0), 16);
    let mut chaos = plain.clone();
    chaos.queries[0].query_class = hickory_proto::rr::DNSClass::CH;
    assert_eq!(ask(&chaos).await.0, ResponseCode::Refused);
    let mut two = plain.clone();
    two.add_query(plain.queries[0].clone());
    assert_eq!(ask(&two).await.0, ResponseCode::FormErr);
}

#[tokio::test]
async fn scraps_and_answers_are_not_answered() {
    let setting = Setting::start().await;
    let mut answer = question("example.test", Kind::A);
    answer.metadata.message_type = hickory_proto::op::MessageType::Response;
    for silent in [vec![], vec![0; 11], answer.to_vec().unwrap()] {
        assert_eq!(setting.udp_bytes(&silent).await, None, "{silent:?}");
    }
}

#[tokio::test]
async fn several_questions_go_over_one_connection() {
    let setting = Setting::start().await;
    setting.add(vec![record("a.example.test", "A", "192.0.2.1")]).await;
    let mut stream = setting.connect().await;
    for id in 0..50 {
        let mut message = question("a.example.test", Kind::A);
        message.metadata.id = id;
        write(&mut stream, &message.to_vec().unwrap()).await;
    }
    for id in 0..50 {
        assert_eq!(Message::from_vec(&read(&mut stream).await).unwrap().metadata.id, id);
    }
    // A scrap ends it.
    write(&mut stream, b"scrap").await;
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
}

#[tokio::test]
async fn who_opens_too_many_connections_loses_those_that_have_nothing_to_do() {
    let setting = Setting::start().await;
    let asked = question("example.test", Kind::SOA).to_vec().unwrap();
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = setting.connect().await;
        // It has a place once it is answered.
        write(&mut stream, &asked).await;
        read(&mut stream).await;
        streams.push(stream);
    }
    let mut late = setting.connect().await;
    write(&mut late, &asked).await;
    read(&mut late).await;
    let mut rest = [0];
    assert!(matches!(streams[0].read(&mut rest).await, Ok(0) | Err(_)), "the oldest one makes room");
    for stream in &mut streams[1..] {
        write(stream, &asked).await;
        read(stream).await;
    }
    assert!(setting.server.metrics().text().contains("snicket_dns_displaced_total 1\n"));
    assert!(setting.server.metrics().text().contains("snicket_dns_turned_away_total 0\n"));
}

#[tokio::test]
async fn what_was_asked_is_counted() {
    let setting = Setting::start().await;
    setting.add(vec![record("a.example.test", "A", "192.0.2.1")]).await;
    for _ in 0..3 {
        setting.ask("a.example.test", Kind::A).await;
    }
    let counted = async || setting.server.metrics().text();
    harness::until(harness::LIMIT, "all is counted", async || {
        let text = counted().await;
        // Each question over UDP has another one behind it, for a mark.
        [
            "questions_total{transport=\"udp\"} 6\n",
            "questions_total{transport=\"tcp\"} 3\n",
            "answers_total{code=\"noerror\"} 6\n",
            "answers_total{code=\"refused\"} 3\n",
        ]
        .iter()
        .all(|line| text.contains(line))
    })
    .await;
}
