//! How agents find the nodes (section 2.1 of the tunnel protocol).

use hickory_proto::rr::RecordType as Kind;
use registry::{NodeId, NodeRecord};

use crate::setting::{Setting, at, host, node, question, shown};

/// The nodes of both regions, as agents learn of them: of each service in its order, the port and the addresses.
async fn discovered(setting: &Setting, zone: &str) -> Vec<(String, Vec<String>)> {
    // By one way only: between two questions, nodes may come.
    let ask = async |name: &str, kind| shown(&setting.udp(&question(name, kind)).await);
    let services = ask(&format!("_v2-origintunneld._tcp.{zone}"), Kind::SRV).await;
    let mut regions = Vec::new();
    for line in services.lines().filter(|line| line.starts_with('=')) {
        let words: Vec<&str> = line.split(' ').collect();
        let (port, target) = (words[words.len() - 2], words[words.len() - 1]);
        let answer = ask(target, Kind::A).await;
        let addresses = answer.lines().filter_map(|line| line.split_once(" A ")).map(|(_, address)| address.to_owned());
        regions.push((port.to_owned(), addresses.collect()));
    }
    regions
}

fn another(setting: &Setting, ip: &str, location: &str) -> NodeRecord {
    let node = node(&setting.registry, ip);
    NodeRecord { id: NodeId::random(), location: location.into(), name: format!("of {ip}"), ..node }
}

async fn becomes(setting: &Setting, zone: &str, expected: [&[&str]; 2]) {
    let regions = expected.map(|addresses| ("7844".to_owned(), addresses.iter().map(ToString::to_string).collect()));
    harness::until(harness::LIMIT, "the regions are these", async || discovered(setting, zone).await == regions).await;
}

#[tokio::test]
async fn two_regions_have_no_node_in_common() {
    let setting = Setting::start().await;
    setting.registry.ensure_zone(at(0), &host("argotunnel.com")).await.unwrap();
    setting.registry.ensure_zone(at(0), &host("other.test")).await.unwrap();
    let ours = "198.51.100.1";
    becomes(&setting, "example.test", [&[ours], &[ours]]).await;
    setting.registry.introduce(another(&setting, "198.51.100.2", "lab01"));
    becomes(&setting, "example.test", [&[ours], &["198.51.100.2"]]).await;
    // Those of one PoP are in one region, once there are several.
    setting.registry.introduce(another(&setting, "198.51.100.3", "lab02"));
    becomes(&setting, "argotunnel.com", [&[ours, "198.51.100.2"], &["198.51.100.3"]]).await;
    for name in ["_tcp.example.test", "v2.example.test"] {
        assert!(setting.ask(name, Kind::SRV).await.starts_with("NoError\n!"), "{name}");
    }
    assert!(setting.ask("_v2-origintunneld._tcp.other.test", Kind::SRV).await.starts_with("NXDomain"));
}
