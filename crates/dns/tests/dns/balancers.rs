//! Names of load balancers.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dns::{Asker, Desk, Lead, Member, Members, Subnet};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType as Kind;
use registry::{LoadBalancer, LoadBalancerTerms, PoolTerms, Snapshot};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::setting::{Setting, at, question, record};

/// Makes a pool with these origins, and a load balancer of this name with more members.
async fn balance(setting: &Setting, name: &str, origins: Value, more: Value) {
    let terms: PoolTerms =
        serde_json::from_value(json!({ "name": name.replace(['.', '*'], "-"), "origins": origins })).unwrap();
    let pool = setting.registry.create_pool(at(1), terms).await.unwrap().id;
    let mut terms = json!({ "name": name, "default_pools": [pool], "fallback_pool": pool, "ttl": 20 });
    terms.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let terms: LoadBalancerTerms = serde_json::from_value(terms).unwrap();
    setting.registry.create_load_balancer(at(1), setting.zone("example.test"), terms).await.unwrap();
}

fn origin(address: &str, port: u16) -> Value {
    json!({ "name": address.replace([':', '.'], "-"), "address": address, "port": port })
}

#[tokio::test]
async fn they_lead_to_their_pools() {
    let setting = Setting::start().await;
    let asked = async |name: &str, kind| setting.ask(name, kind).await;
    assert!(asked("lb.example.test", Kind::A).await.starts_with("NXDomain"), "there is nothing yet");
    let origins = json!([origin("192.0.2.1", 8080), origin("192.0.2.2", 8080), origin("2001:db8::1", 0)]);
    balance(&setting, "lb.example.test", origins.clone(), json!({})).await;
    harness::until(harness::LIMIT, "the load balancer is there", async || {
        asked("lb.example.test", Kind::A).await
            == "NoError\n= lb.example.test. 20 A 192.0.2.1\n= lb.example.test. 20 A 192.0.2.2"
    })
    .await;
    assert_eq!(asked("lb.example.test", Kind::AAAA).await, "NoError\n= lb.example.test. 20 AAAA 2001:db8::1");
    let services = asked("lb.example.test", Kind::SRV).await;
    assert_eq!(services, "NoError\n= lb.example.test. 20 SRV 0 1 8080 lb.example.test.");
    assert!(asked("lb.example.test", Kind::TXT).await.starts_with("NoError\n! example.test. 300 SOA"));

    balance(&setting, "proxied.example.test", origins.clone(), json!({ "proxied": true, "ttl": null })).await;
    balance(&setting, "*.any.example.test", origins.clone(), json!({})).await;
    balance(&setting, "off.example.test", origins, json!({ "enabled": false })).await;
    setting.add(vec![record("target.example.test", "A", "192.0.2.9")]).await;
    balance(&setting, "alias.example.test", json!([origin("target.example.test", 0)]), json!({})).await;
    balance(&setting, "example.test", json!([origin("target.example.test", 0)]), json!({})).await;
    for (name, expected) in [
        ("proxied.example.test", "= proxied.example.test. 300 A 198.51.100.1"),
        ("x.any.example.test", "= x.any.example.test. 20 A 192.0.2.1\n= x.any.example.test. 20 A 192.0.2.2"),
        (
            "alias.example.test",
            "= alias.example.test. 20 CNAME target.example.test.\n= target.example.test. 300 A 192.0.2.9",
        ),
        ("example.test", "= example.test. 20 A 192.0.2.9"),
    ] {
        harness::until(harness::LIMIT, name, async || asked(name, Kind::A).await == format!("NoError\n{expected}"))
            .await;
    }
    assert!(asked("off.example.test", Kind::A).await.starts_with("NXDomain"));

    // What else is said of such a name goes on to be answered.
    let beside = vec![record("lb.example.test", "TXT", "v=spf1 -all"), record("example.test", "TXT", "of the zone")];
    setting.add(beside).await;
    for (name, text) in [("lb.example.test", "v=spf1 -all"), ("example.test", "of the zone")] {
        harness::until(harness::LIMIT, name, async || asked(name, Kind::TXT).await.contains(text)).await;
    }
    let addresses = asked("lb.example.test", Kind::A).await;
    assert!(addresses.ends_with("= lb.example.test. 20 A 192.0.2.2"), "{addresses}");
    assert!(asked("example.test", Kind::NS).await.contains("NS ns1.example.test."));
}

/// Leads each network to another place.
struct ByNetwork;

impl Members for ByNetwork {
    fn lead(&self, _: &LoadBalancer, _: &Snapshot, asker: &Asker) -> Lead {
        let near: IpAddr = "203.0.113.0".parse().unwrap();
        let is_near = asker.subnet.is_some_and(|Subnet { address, prefix }| address == near && prefix >= 24);
        let address = if is_near { "192.0.2.1" } else { "192.0.2.2" };
        Lead {
            members: vec![Member { address: address.into(), port: 0, weight: 1 }],
            ttl: 5,
            scope: Some(24),
            is_for_all: false,
        }
    }
}

/// Counts how often it leads somebody somewhere.
struct Counting {
    count: AtomicUsize,
    is_for_all: bool,
}

impl Members for Counting {
    fn lead(&self, _: &LoadBalancer, _: &Snapshot, _: &Asker) -> Lead {
        self.count.fetch_add(1, Ordering::Relaxed);
        let members = vec![Member { address: "192.0.2.1".into(), port: 0, weight: 1 }];
        Lead { members, ttl: 5, scope: None, is_for_all: self.is_for_all }
    }
}

#[tokio::test]
async fn whom_a_load_balancer_does_not_tell_apart_it_leads_alike_for_a_moment() {
    for is_for_all in [true, false] {
        let members = Arc::new(Counting { count: AtomicUsize::new(0), is_for_all });
        let setting = Setting::start_with(members.clone()).await;
        balance(&setting, "lb.example.test", json!([origin("192.0.2.1", 0)]), json!({})).await;
        let mut desk = setting.server.desk();
        let packet = question("lb.example.test", Kind::A).to_vec().unwrap();
        let mut message = Vec::new();
        let mut ask = |desk: &mut Desk| {
            desk.over_udp(&packet, "127.0.0.1".parse().unwrap(), &mut message);
            let answer = Message::from_vec(&message).unwrap();
            (answer.answers.len(), members.count.load(Ordering::Relaxed))
        };
        harness::until(harness::LIMIT, "the load balancer is there", async || {
            let mut desk = setting.server.desk();
            let mut message = Vec::new();
            desk.over_udp(&packet, "127.0.0.1".parse().unwrap(), &mut message);
            Message::from_vec(&message).unwrap().answers.len() == 1
        })
        .await;
        desk.refresh();
        // The time stands still between two calls of `refresh`.
        let (_, first) = ask(&mut desk);
        let counts: Vec<_> = (1..=50).map(|_| ask(&mut desk)).collect();
        let alike: Vec<_> = (1..=50).map(|more| (1, first + if is_for_all { 0 } else { more })).collect();
        assert_eq!(counts, alike);
        let began = std::time::Instant::now();
        while ask(&mut desk).1 == counts[49].1 {
            assert!(began.elapsed() < harness::LIMIT, "the next moment never comes");
            desk.refresh();
        }
    }
}

#[tokio::test]
async fn resolvers_say_for_whom_they_ask() {
    let Some(dig) = harness::peer("dig", "install bind9-dnsutils") else { return };
    let setting = Setting::start_with(Arc::new(ByNetwork)).await;
    balance(&setting, "lb.example.test", json!([origin("192.0.2.1", 0)]), json!({})).await;
    setting.add(vec![record("plain.example.test", "A", "192.0.2.3")]).await;
    for (name, subnet, address, said) in [
        ("lb.example.test", "203.0.113.0/24", "192.0.2.1", Some("CLIENT-SUBNET: 203.0.113.0/24/24")),
        ("lb.example.test", "198.51.100.0/25", "192.0.2.2", Some("CLIENT-SUBNET: 198.51.100.0/25/24")),
        ("lb.example.test", "2001:db8::/48", "192.0.2.2", Some("CLIENT-SUBNET: 2001:db8::/48/24")),
        // What is the same for everybody says nothing of them.
        ("plain.example.test", "203.0.113.0/24", "192.0.2.3", None),
    ] {
        let answer = ask(&dig, &setting, &[&format!("+subnet={subnet}"), name]).await;
        assert!(answer.contains(address), "{answer}");
        assert_eq!(said, said.filter(|said| answer.contains(said)), "{answer}");
        assert_eq!(answer.contains("CLIENT-SUBNET"), said.is_some(), "{answer}");
    }
    let answer = ask(&dig, &setting, &["+nocookie", "lb.example.test"]).await;
    assert!(!answer.contains("CLIENT-SUBNET") && !answer.contains("COOKIE"), "{answer}");
    assert!(ask(&dig, &setting, &["+cookie", "plain.example.test"]).await.contains("(good)"));
}

async fn ask(dig: &Path, setting: &Setting, words: &[&str]) -> String {
    let server = setting.server.address();
    let mut command = Command::new(dig);
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string()]).args(words);
    String::from_utf8(command.output().await.unwrap().stdout).unwrap()
}
