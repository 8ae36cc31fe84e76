//! What the fuzz target of questions and the replay of its corpus do with one input.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dns::{Config, Desk, Reply, Server, Unchecked, bind};
use hickory_proto::op::Message;
use jiff::Timestamp;
use registry::{Hostname, ItemKind, NewRecord, RecordContent, RecordEdit, Registry, Which};

/// Who asks.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What is asked for: something of each kind that answers are made in another way for.
const RECORDS: [(&str, &str, &str); 12] = [
    ("a.test", "MX", "10 a.test"),
    ("a.test", "CNAME", "b.a.test"),
    ("b.a.test", "A", "192.0.2.1"),
    ("b.a.test", "AAAA", "2001:db8::1"),
    ("c.a.test", "CNAME", "d.a.test"),
    ("d.a.test", "CNAME", "b.a.test"),
    ("e.a.test", "CNAME", "e.a.test"),
    ("x.y.z.a.test", "TXT", "x"),
    ("*.w.a.test", "CNAME", "c.a.test"),
    ("n.a.test", "NS", "ns.n.a.test"),
    ("ns.n.a.test", "A", "192.0.2.53"),
    ("s.a.test", "SRV", "1 2 3 b.a.test"),
];

/// Asks with the input over UDP and TCP. Whatever it is, nothing is answered, or something that others can read.
pub(crate) fn question(data: &[u8]) {
    let mut desk = desk().lock().unwrap_or_else(PoisonError::into_inner);
    let mut message = Vec::new();
    // The second time from the prepared ones.
    for _ in 0..2 {
        let reply = desk.over_udp(data, HERE, &mut message);
        check(data, reply, &message);
        assert!(message.len() <= 1232);
    }
    let reply = desk.over_tcp(data, HERE, &mut message);
    check(data, reply, &message);
    // An answer is not answered, so that nobody talks for ever.
    let answer = message.clone();
    assert_eq!(desk.over_udp(&answer, HERE, &mut message), Reply::Silence);
}

fn check(asked: &[u8], reply: Reply, message: &[u8]) {
    match reply {
        Reply::Silence | Reply::Limited => assert!(message.is_empty()),
        Reply::Answer { code, .. } => {
            let read = Message::from_vec(message).unwrap_or_else(|error| panic!("{error}: {message:?}"));
            assert_eq!(read.metadata.id.to_be_bytes(), asked[..2]);
            assert_eq!(u16::from(read.metadata.response_code), code);
            let is_like =
                |question: &hickory_proto::op::Query| read.answers.iter().any(|it| it.name == *question.name());
            assert!(read.answers.is_empty() || read.queries.iter().all(is_like));
        }
    }
}

fn desk() -> &'static Mutex<Desk> {
    static DESK: OnceLock<Mutex<Desk>> = OnceLock::new();
    DESK.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let server = runtime.block_on(start());
        let desk = server.desk();
        // Both are wanted to the end.
        std::mem::forget((server, runtime));
        Mutex::new(desk)
    })
}

async fn start() -> Server {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::in_memory(now).await.expect("a registry in memory opens");
    let domain = Hostname::parse("a.test").expect("is a name");
    let zone = registry.ensure_zone(now, &domain).await.expect("a zone can be made").id;
    for (name, kind, content) in RECORDS {
        let content = RecordContent::parse(kind.parse().expect("is a type"), content, None, None);
        let record = NewRecord::new(Hostname::parse(name).expect("is a name"), content.expect("is data"));
        registry.edit_records(now, zone, &[RecordEdit::Create(record)]).await.expect("a record can be made");
    }
    let key = [("name", "key.test"), ("algo", "hmac-sha256"), ("secret", "AAECAwQFBgcICQoLDA0ODw==")];
    let key = || Ok(key.map(|(member, text)| (member.to_owned(), text.into())).into_iter().collect());
    registry.write_item(now, ItemKind::TransferKey, None, Which::New, &mut |_| key()).await.expect("a key can be made");
    let sockets = bind("127.0.0.1:0".parse().expect("is an address"), 1).expect("a port is free");
    Server::start(Config { domain }, sockets, registry, Arc::new(Unchecked)).expect("a server starts")
}
