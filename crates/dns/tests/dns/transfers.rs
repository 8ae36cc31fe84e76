//! What goes to other name servers, and to whom.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType as Kind;
use registry::*;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::UdpSocket;

use crate::setting::{Setting, at, host, proxied, question, read, record, shown, write};

impl Setting {
    async fn item(&self, kind: ItemKind, zone: Option<ZoneId>, terms: serde_json::Value) -> ItemId {
        let terms = terms.as_object().unwrap().clone();
        let item = self.registry.write_item(at(2), kind, zone, Which::New, &mut |_| Ok(terms.clone())).await;
        item.unwrap().id
    }

    /// Transfers the zone to a peer with this address, and so to all who ask from it.
    async fn transfer_to(&self, zone: &str, peer: serde_json::Value) {
        let peer = self.item(ItemKind::TransferPeer, None, peer).await;
        let terms = json!({ "peers": [peer.to_string()], "enabled": true });
        self.item(ItemKind::TransferOut, Some(self.zone(zone)), terms).await;
    }

    /// All messages of a transfer, up to the second start of authority.
    async fn messages(&self, asked: &Message) -> Vec<Message> {
        let mut stream = self.connect().await;
        write(&mut stream, &asked.to_vec().unwrap()).await;
        let mut messages = Vec::new();
        let mut starts = 0;
        loop {
            let message = Message::from_vec(&read(&mut stream).await).unwrap();
            assert_eq!(message.metadata.id, asked.metadata.id);
            starts += message.answers.iter().filter(|record| record.record_type() == Kind::SOA).count();
            let is_last = starts == 2 || message.metadata.response_code != ResponseCode::NoError;
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// The records of a transfer but for the starts of authority, without times to live.
    async fn transferred(&self, zone: &str) -> Vec<String> {
        let messages = self.messages(&question(zone, Kind::AXFR)).await;
        let records: Vec<_> = messages.iter().flat_map(|message| &message.answers).collect();
        let (first, rest) = records.split_first().unwrap();
        let (last, rest) = rest.split_last().unwrap();
        assert_eq!((first.record_type(), first), (Kind::SOA, last));
        let line =
            |record: &&hickory_proto::rr::Record| format!("{} {} {}", record.name, record.record_type(), record.data);
        let mut lines: Vec<String> = rest.iter().map(line).collect();
        lines.sort();
        lines
    }

    /// Makes a load balancer of this name, with a pool of its own.
    async fn balance(&self, name: &str, origins: serde_json::Value) -> (PoolId, LoadBalancerId) {
        let terms = json!({ "name": name.replace('.', "-"), "origins": origins });
        let pool = self.registry.create_pool(at(3), serde_json::from_value(terms).unwrap()).await.unwrap().id;
        let terms = json!({ "name": name, "default_pools": [pool], "fallback_pool": pool });
        let terms: LoadBalancerTerms = serde_json::from_value(terms).unwrap();
        let zone = self.registry.snapshot().zone_of(name).unwrap().id;
        (pool, self.registry.create_load_balancer(at(3), zone, terms).await.unwrap().id)
    }

    /// Waits until what transfers follow from has been written, and with it the zone's serial number come to the latest change.
    async fn settle(&self, zone: &str) {
        let id = self.zone(zone);
        harness::until(harness::LIMIT, "the zone is ready", async || {
            let snapshot = self.registry.snapshot();
            snapshot.transfer_view(id).is_some() && self.serial(zone).await == snapshot.revision()
        })
        .await;
    }

    async fn serial(&self, zone: &str) -> u64 {
        let messages = self.messages(&question(zone, Kind::AXFR)).await;
        let hickory_proto::rr::RData::SOA(soa) = &messages[0].answers[0].data else { panic!("{messages:?}") };
        soa.serial.into()
    }

    /// Waits until the zone has a serial number that is due to the latest change, and then has this line or not.
    async fn follows(&self, zone: &str, line: &str, has: bool) {
        let changed = self.registry.snapshot().revision();
        harness::until(harness::LIMIT, line, async || self.serial(zone).await >= changed).await;
        let lines = self.transferred(zone).await;
        assert_eq!(lines.iter().any(|it| it == line), has, "{line}: {lines:?}");
    }

    async fn refusal(&self, asked: &Message) -> ResponseCode {
        self.messages(asked).await[0].metadata.response_code
    }
}

const HERE: &str = "127.0.0.1";

#[tokio::test]
async fn a_transfer_holds_what_a_static_server_can_answer() {
    let setting = Setting::start().await;
    setting.registry.ensure_zone(at(0), &host("inner.example.test")).await.unwrap();
    setting.registry.ensure_zone(at(0), &host("other.test")).await.unwrap();
    setting
        .add(vec![
            record("example.test", "MX", "10 mail.example.test"),
            record("example.test", "CNAME", "web.other.test"),
            record("web.other.test", "A", "192.0.2.80"),
            record("mail.example.test", "A", "192.0.2.25"),
            record("mail.example.test", "A", "192.0.2.26"),
            record("alias.example.test", "CNAME", "elsewhere.invalid"),
            proxied("www.example.test", "A", "192.0.2.99"),
            proxied("tunnel.example.test", "CNAME", "0190a6f0-0000-7000-8000-000000000001.cfargotunnel.com"),
            record("tunnel.example.test", "TXT", "beside"),
            record("*.wild.example.test", "TXT", "wild"),
            record("cut.example.test", "NS", "ns.cut.example.test"),
            record("ns.cut.example.test", "A", "192.0.2.53"),
            record("ns.cut.example.test", "TXT", "theirs"),
            record("a.inner.example.test", "A", "192.0.2.7"),
        ])
        .await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    assert_eq!(
        setting.transferred("example.test").await,
        [
            "*.wild.example.test. TXT wild",
            "alias.example.test. CNAME elsewhere.invalid.",
            "cut.example.test. NS ns.cut.example.test.",
            "example.test. A 192.0.2.80",
            "example.test. MX 10 mail.example.test.",
            "example.test. NS ns1.example.test.",
            "example.test. NS ns2.example.test.",
            "inner.example.test. NS ns1.example.test.",
            "inner.example.test. NS ns2.example.test.",
            "mail.example.test. A 192.0.2.25",
            "mail.example.test. A 192.0.2.26",
            "ns.cut.example.test. A 192.0.2.53",
            "ns1.example.test. A 198.51.100.1",
            "ns2.example.test. A 198.51.100.1",
            "tunnel.example.test. A 198.51.100.1",
            "tunnel.example.test. TXT beside",
            "www.example.test. A 198.51.100.1",
        ]
    );
}

#[tokio::test]
async fn what_follows_from_elsewhere_is_a_change_of_the_zone() {
    let setting = Setting::start().await;
    let other = setting.registry.ensure_zone(at(0), &host("other.test")).await.unwrap().id;
    setting
        .add(vec![record("example.test", "CNAME", "web.other.test"), record("web.other.test", "A", "192.0.2.80")])
        .await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    setting.settle("example.test").await;

    let origin = |address: &str| json!({ "name": address, "address": address });
    let origins = json!([origin("192.0.2.1"), origin("192.0.2.2")]);
    let (pool, balancer) = setting.balance("lb.example.test", origins).await;
    setting.follows("example.test", "lb.example.test. A 192.0.2.1", true).await;
    let disable = |old: &PoolTerms| {
        let mut terms = old.clone();
        terms.origins[0].enabled = false;
        Ok(terms)
    };
    setting.registry.change_pool(at(4), pool, disable).await.unwrap();
    setting.follows("example.test", "lb.example.test. A 192.0.2.1", false).await;
    setting.registry.delete_load_balancer(balancer).await.unwrap();
    setting.follows("example.test", "lb.example.test. A 192.0.2.2", false).await;

    let inner = setting.registry.ensure_zone(at(5), &host("inner.example.test")).await.unwrap().id;
    setting.follows("example.test", "inner.example.test. NS ns1.example.test.", true).await;
    setting.registry.delete_zone(at(6), inner).await.unwrap();
    setting.follows("example.test", "inner.example.test. NS ns1.example.test.", false).await;

    let snapshot = setting.registry.snapshot();
    let (_, old) = snapshot.records(other).next().unwrap();
    let edits = [RecordEdit::Delete(old.id), RecordEdit::Create(record("web.other.test", "A", "192.0.2.81"))];
    setting.registry.edit_records(at(7), other, &edits).await.unwrap();
    setting.follows("example.test", "example.test. A 192.0.2.81", true).await;

    // What it does not follow from is none.
    let before = setting.serial("example.test").await;
    setting.add(vec![record("mail.other.test", "A", "192.0.2.25")]).await;
    setting.add(vec![record("new.example.test", "A", "192.0.2.1")]).await;
    setting.follows("example.test", "new.example.test. A 192.0.2.1", true).await;
    assert!(setting.serial("example.test").await == before + 2, "one change of each zone");
}

#[tokio::test]
async fn nothing_of_former_transfers_is_kept() {
    let setting = Setting::start().await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    setting.settle("example.test").await;
    let zone = setting.zone("example.test");
    let turn = async |is_on: bool| {
        let out = setting.registry.snapshot().items(ItemKind::TransferOut, Some(zone)).next().unwrap().id;
        let mut read = |old: Option<&Item>| {
            let mut terms = old.unwrap().terms.clone();
            terms.insert("enabled".into(), is_on.into());
            Ok(terms)
        };
        let kind = ItemKind::TransferOut;
        setting.registry.write_item(at(4), kind, Some(zone), Which::One(out), &mut read).await.unwrap();
    };
    turn(false).await;
    let is_gone = || setting.registry.snapshot().transfer_view(zone).is_none();
    harness::until(harness::LIMIT, "it is removed", async || is_gone()).await;
    turn(true).await;
    setting.settle("example.test").await;
}

#[tokio::test]
async fn zones_within_are_found_by_who_has_the_outer_one() {
    let setting = Setting::start().await;
    let named = |servers: &[&str]| {
        let vanity_name_servers = servers.iter().map(|server| host(server)).collect();
        ZoneTraits { vanity_name_servers, ..ZoneTraits::default() }
    };
    let traits = named(&["ns.inner.example.test", "dns.elsewhere.test"]);
    let inner = setting.registry.create_zone(at(1), &host("inner.example.test"), traits).await.unwrap().id;
    setting.add(vec![record("dns.inner.example.test", "AAAA", "2001:db8::53")]).await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    setting.settle("example.test").await;
    let within = async || {
        let mut lines = setting.transferred("example.test").await;
        lines.retain(|line| line.contains("inner"));
        lines
    };
    assert_eq!(
        within().await,
        [
            "inner.example.test. NS dns.elsewhere.test.",
            "inner.example.test. NS ns.inner.example.test.",
            "ns.inner.example.test. A 198.51.100.1",
        ]
    );
    let change = |traits: &mut ZoneTraits, _: &mut ZoneSettings| *traits = named(&["dns.inner.example.test"]);
    setting.registry.change_zone(at(4), inner, change).await.unwrap();
    setting.follows("example.test", "inner.example.test. NS dns.inner.example.test.", true).await;
    assert!(within().await.contains(&"dns.inner.example.test. AAAA 2001:db8::53".into()));
}

#[tokio::test]
async fn load_balancers_that_lead_to_names_are_aliases_where_they_are_alone() {
    let setting = Setting::start().await;
    let origin = |port: u16| json!([{ "name": "one", "address": "target.example.test", "port": port }]);
    for (name, port) in [("alone.example.test", 0), ("port.example.test", 8080), ("text.example.test", 0)] {
        setting.balance(name, origin(port)).await;
    }
    let text = record("text.example.test", "TXT", "beside");
    setting.add(vec![record("target.example.test", "A", "192.0.2.9"), text]).await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    let mut lines = setting.transferred("example.test").await;
    lines.retain(|line| !line.starts_with("example.test.") && !line.starts_with("ns"));
    assert_eq!(
        lines,
        [
            "alone.example.test. CNAME target.example.test.",
            "port.example.test. A 192.0.2.9",
            "port.example.test. SRV 0 1 8080 target.example.test.",
            "target.example.test. A 192.0.2.9",
            "text.example.test. A 192.0.2.9",
            "text.example.test. TXT beside",
        ]
    );
}

#[tokio::test]
async fn a_zone_is_not_transferred_without_what_a_name_outside_leads_to() {
    let setting = Setting::start().await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    setting.settle("example.test").await;
    // Each system knows it without asking anybody.
    setting.add(vec![record("example.test", "CNAME", "localhost")]).await;
    let asked = question("example.test", Kind::AXFR);
    // Either it is refused, or it is whole.
    harness::until(harness::LIMIT, "it is transferred", async || {
        let refusal = setting.refusal(&asked).await;
        assert!(matches!(refusal, ResponseCode::NoError | ResponseCode::ServFail), "{refusal}");
        refusal == ResponseCode::NoError
    })
    .await;
    let lines = setting.transferred("example.test").await;
    assert!(lines.contains(&"example.test. A 127.0.0.1".into()), "{lines:?}");
    // And then it is written for all nodes.
    let has_name =
        || setting.registry.snapshot().transfer_view(setting.zone("example.test")).unwrap().1.outside.len() == 1;
    harness::until(harness::LIMIT, "it is written", async || has_name()).await;
}

#[tokio::test]
async fn a_large_zone_comes_in_many_messages() {
    let setting = Setting::start().await;
    let zone = setting.zone("example.test");
    let record = |number: usize| record(&format!("host-{number}.example.test"), "TXT", &format!("\"{number:0>200}\""));
    let records: Vec<_> = (0..2_000).map(|number| RecordEdit::Create(record(number))).collect();
    for some in records.chunks(1_000) {
        setting.registry.edit_records(at(1), zone, some).await.unwrap();
    }
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    let messages = setting.messages(&question("example.test", Kind::AXFR)).await;
    assert!(messages.len() > 20, "{}", messages.len());
    assert!(messages[0].queries.len() == 1 && messages[1..].iter().all(|message| message.queries.is_empty()));
    let texts = messages.iter().flat_map(|message| &message.answers).filter(|it| it.record_type() == Kind::TXT);
    assert_eq!(texts.count(), 2_000);
}

#[tokio::test]
async fn only_peers_of_a_zone_get_it() {
    let setting = Setting::start().await;
    setting.registry.ensure_zone(at(0), &host("other.test")).await.unwrap();
    let asked = question("example.test", Kind::AXFR);
    assert_eq!(setting.refusal(&asked).await, ResponseCode::Refused, "to nobody");
    setting.transfer_to("example.test", json!({ "name": "there", "ip": "192.0.2.1" })).await;
    assert_eq!(setting.refusal(&asked).await, ResponseCode::Refused, "to another one");
    let range = json!({ "name": "lo", "ip_range": "127.0.0.0/8" });
    let range = setting.item(ItemKind::TransferAcl, None, range).await;
    assert_eq!(setting.refusal(&asked).await, ResponseCode::NoError, "to whoever asks for it from here");
    setting.registry.delete_item(ItemKind::TransferAcl, None, range, false).await.unwrap();
    assert_eq!(setting.refusal(&asked).await, ResponseCode::Refused);
    assert_eq!(setting.refusal(&question("other.test", Kind::AXFR)).await, ResponseCode::Refused, "another zone");
    assert_eq!(setting.refusal(&question("a.example.test", Kind::AXFR)).await, ResponseCode::NotAuth, "no zone");
    let key =
        json!({ "name": "key.test", "algo": "hmac-sha256", "secret": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" });
    let key = setting.item(ItemKind::TransferKey, None, key).await;
    setting.transfer_to("other.test", json!({ "name": "here", "ip": HERE, "tsig_id": key.to_string() })).await;
    assert_eq!(setting.refusal(&question("other.test", Kind::AXFR)).await, ResponseCode::Refused, "without its key");
    let metrics = setting.server.metrics().text();
    assert!(metrics.contains("snicket_dns_transfers_total 1\n"), "{metrics}");
    assert!(metrics.contains("snicket_dns_transfers_refused_total 6\n"), "{metrics}");

    // Nor can it be signed meanwhile.
    let zone = setting.zone("example.test");
    assert!(matches!(
        setting.registry.sign_zone(at(3), zone, true).await,
        Err(ZoneError::Transferred(name)) if name == host("example.test")
    ));
}

#[tokio::test]
async fn who_is_current_gets_nothing_else() {
    let setting = Setting::start().await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    setting.settle("example.test").await;
    let start = setting.messages(&question("example.test", Kind::AXFR)).await[0].answers[0].clone();
    let hickory_proto::rr::RData::SOA(soa) = &start.data else { panic!("{start}") };
    let serial = soa.serial;
    let ask = |serial: u32| {
        let mut soa = soa.clone();
        soa.serial = serial;
        let mut asked = question("example.test", Kind::IXFR);
        let mut authority = start.clone();
        authority.data = hickory_proto::rr::RData::SOA(soa);
        asked.authorities.push(authority);
        asked
    };
    let mut stream = setting.connect().await;
    for known in [serial, serial.wrapping_add(5)] {
        write(&mut stream, &ask(known).to_vec().unwrap()).await;
        let answer = Message::from_vec(&read(&mut stream).await).unwrap();
        assert_eq!(answer.answers, std::slice::from_ref(&start), "{known}");
    }
    // An older one, or one that is older in the circle of these numbers.
    for known in [serial.wrapping_sub(1), serial.wrapping_add(u32::MAX / 2 + 5)] {
        assert!(setting.messages(&ask(known)).await.iter().map(|message| message.answers.len()).sum::<usize>() > 2);
    }
    // By datagram there is only what is current.
    let answer = setting.udp(&ask(1)).await;
    assert_eq!(answer.answers, [start]);
    assert_eq!(shown(&setting.udp(&question("example.test", Kind::AXFR)).await), "Refused not-aa");
}

#[tokio::test]
async fn peers_are_told_of_changes() {
    let setting = Setting::start().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE, "port": port })).await;
    let hear = async || {
        let mut packet = [0; 512];
        let received = tokio::time::timeout(harness::LIMIT, peer.recv_from(&mut packet)).await.expect("in time");
        let (length, from) = received.unwrap();
        let message = Message::from_vec(&packet[..length]).unwrap();
        assert_eq!(from.ip(), HERE.parse::<IpAddr>().unwrap());
        assert_eq!(message.metadata.op_code, hickory_proto::op::OpCode::Notify);
        assert_eq!(message.queries[0].to_string(), "example.test. IN SOA");
        (message, from)
    };
    setting.settle("example.test").await;
    let (mut first, _) = hear().await;
    let (mut again, mut from) = hear().await;
    // It was not answered, so it comes again. What was told before the zone was ready comes no more.
    while first.metadata.id != again.metadata.id {
        first = again;
        (again, from) = hear().await;
    }
    again.metadata.message_type = hickory_proto::op::MessageType::Response;
    peer.send_to(&again.to_vec().unwrap(), from).await.unwrap();
    harness::until(harness::LIMIT, "it is known that it was heard", async || {
        setting.server.metrics().text().contains("snicket_dns_notifies_total{outcome=\"heard\"} 1\n")
    })
    .await;
    setting.add(vec![record("new.example.test", "A", "192.0.2.1")]).await;
    hear().await;
}

#[tokio::test]
async fn what_an_authority_looks_for_is_answered_and_transferred_while_an_order_lasts() {
    let setting = Setting::start().await;
    setting.add(vec![record("_acme-challenge.own.example.test", "TXT", "another's")]).await;
    setting.transfer_to("example.test", json!({ "name": "here", "ip": HERE })).await;
    setting.registry.ensure_zone(at(1), &host("_acme-challenge.apart.example.test")).await.unwrap();
    harness::until(harness::LIMIT, "a denial is prepared", async || {
        setting.ask("_acme-challenge.apart.example.test", Kind::TXT).await.starts_with("NoError")
    })
    .await;
    let mut holds = Vec::new();
    for name in ["*.example.test", "*.own.example.test", "*.apart.example.test", "single.example.test"] {
        let hold = setting.registry.begin_acme_order(at(3), &host(name), AcmeUrgency::Now).await.unwrap();
        let answer = AcmeAnswer { token: "t".into(), key_authorization: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ".into() };
        setting.registry.answer_acme_order(&hold, answer).await.unwrap();
        holds.push(hold);
    }
    // The SHA-256 of the text above, in base64url.
    let text = "54EkHsluyzRW-6FLcU0UScYSS3_jbBnzwHOFb47BqO0";
    let texts = async |name: &str| {
        let answer = setting.ask(name, Kind::TXT).await;
        answer.lines().filter_map(|line| line.split_once(" TXT ")).map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
    };
    harness::until(harness::LIMIT, "it is answered", async || texts("_acme-challenge.example.test").await == [text])
        .await;
    harness::until(harness::LIMIT, "beside another's", async || {
        texts("_acme-challenge.own.example.test").await.len() == 2
    })
    .await;
    harness::until(harness::LIMIT, "in a zone of its own", async || {
        texts("_acme-challenge.apart.example.test").await == [text]
    })
    .await;
    assert!(texts("_acme-challenge.single.example.test").await.is_empty(), "it is looked for elsewhere");
    let transferred = setting.transferred("example.test").await;
    let count = transferred.iter().filter(|line| line.starts_with("_acme") && line.ends_with(text)).count();
    assert_eq!(count, 2, "{transferred:?}");
    for hold in &holds {
        setting.registry.fail_acme_order(at(4), hold, AcmeFailure::Unseen, "gone").await.unwrap();
    }
    harness::until(harness::LIMIT, "it is gone", async || texts("_acme-challenge.example.test").await.is_empty()).await;
    assert!(!setting.transferred("example.test").await.iter().any(|line| line.ends_with(text)));
}

#[tokio::test]
async fn other_questions_go_on_behind_a_transfer() {
    let setting = Setting::start().await;
    let mut stream = setting.connect().await;
    write(&mut stream, &question("example.test", Kind::AXFR).to_vec().unwrap()).await;
    write(&mut stream, &question("example.test", Kind::NS).to_vec().unwrap()).await;
    assert_eq!(Message::from_vec(&read(&mut stream).await).unwrap().metadata.response_code, ResponseCode::Refused);
    assert_eq!(Message::from_vec(&read(&mut stream).await).unwrap().answers.len(), 2);
    write(&mut stream, b"scrap").await;
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}
