//! Names of load balancers.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use dns::{Asker, Lead, Member, Members, Subnet};
use hickory_proto::rr::RecordType as Kind;
use registry::{LoadBalancer, LoadBalancerTerms, PoolTerms, Snapshot};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::setting::{Setting, at, record};

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
