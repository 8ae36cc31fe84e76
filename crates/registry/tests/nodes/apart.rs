//! Several nodes on one etcd (the real program), when etcd, or the way to it, or a node fails.

use std::time::Duration;

use harness::{Etcd, Passing, Relay, until};
use registry::Registry;
use serde_json::json;
use uuid::Uuid;

use crate::node::{at, connection, join, named, opened};

/// A lease is 15 s, and begins anew after an election.
const GONE: Duration = Duration::from_secs(90);

async fn node(addresses: &str, name: &str) -> Registry {
    let registry = Registry::open(opened(addresses).await, at(0)).await.unwrap();
    join(&registry, name);
    registry
}

async fn sees(registry: &Registry, tunnel: Uuid, connections: usize, nodes: usize) {
    let seen = || {
        let snapshot = registry.snapshot();
        (snapshot.connections(tunnel).count(), snapshot.nodes().count())
    };
    let what = format!("{connections} connections and {nodes} nodes are seen");
    until(GONE, &what, async || seen() == (connections, nodes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_for_longer_than_its_lease_is_gone_for_the_others_and_comes_back() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let way = Relay::start(etcd.address(0), Passing::All).await;
    let far = node(&way.address().to_string(), "far").await;
    let near = node(&etcd.addresses(), "near").await;
    let tunnel = near.create_tunnel(at(0), named("app")).await.unwrap().id;
    let _one = far.connect(connection(tunnel, at(1)));
    let _two = near.connect(connection(tunnel, at(1)));
    sees(&near, tunnel, 2, 2).await;
    sees(&far, tunnel, 2, 2).await;

    way.pass(Passing::Nothing);
    let _three = far.connect(connection(tunnel, at(2)));
    assert_eq!(far.snapshot().connections(tunnel).count(), 3, "its own work goes on, and the rest is as it was");
    sees(&near, tunnel, 1, 1).await;
    let _four = near.connect(connection(tunnel, at(3)));
    let meanwhile = near.create_tunnel(at(3), named("meanwhile")).await.unwrap().id;
    assert!(far.snapshot().tunnel(meanwhile).is_none());

    way.pass(Passing::All);
    sees(&near, tunnel, 4, 2).await;
    sees(&far, tunnel, 4, 2).await;
    until(GONE, "the change is known", async || far.snapshot().tunnel(meanwhile).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_gone_when_its_lease_ends() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (dies, lives) = (node(&etcd.addresses(), "dies").await, node(&etcd.addresses(), "lives").await);
    let tunnel = Uuid::new_v4();
    let presence = dies.connect(connection(tunnel, at(1)));
    sees(&lives, tunnel, 1, 2).await;
    // Without a word: what it would have told is not told.
    drop(dies);
    drop(presence);
    assert!(lives.snapshot().is_connected(tunnel));
    sees(&lives, tunnel, 0, 1).await;
}

/// As for one that was stopped for longer than its lease, and goes on as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_lease_has_ended_tells_everything_anew() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (here, there) = (node(&etcd.addresses(), "here").await, node(&etcd.addresses(), "there").await);
    let tunnel = Uuid::new_v4();
    let presences: Vec<_> = (0..150).map(|_| here.connect(connection(tunnel, at(1)))).collect();
    sees(&there, tunnel, 150, 2).await;
    let leases = async || {
        let leases = etcd.post("lease/leases", &json!({})).await["leases"].clone();
        let ids = leases.as_array().into_iter().flatten().map(|lease| lease["ID"].as_str().unwrap().to_owned());
        let mut ids: Vec<_> = ids.collect();
        ids.sort();
        ids
    };
    let before = leases().await;
    for id in &before {
        etcd.post("lease/revoke", &json!({"ID": id})).await;
    }
    until(GONE, "both have another lease", async || {
        let after = leases().await;
        after.len() == 2 && after.iter().all(|lease| !before.contains(lease))
    })
    .await;
    sees(&there, tunnel, 150, 2).await;
    sees(&here, tunnel, 150, 2).await;
    drop(presences);
    sees(&there, tunnel, 0, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_did_is_known_though_etcd_forgot_it_while_a_node_was_away() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let way = Relay::start(etcd.address(0), Passing::All).await;
    let far = node(&way.address().to_string(), "far").await;
    let near = node(&etcd.addresses(), "near").await;
    let tunnel = near.create_tunnel(at(0), named("app")).await.unwrap().id;
    let (stays, goes) = (connection(tunnel, at(1)), connection(tunnel, at(1)));
    let _stays = near.connect(stays.clone());
    let presence = near.connect(goes.clone());
    let _own = far.connect(connection(tunnel, at(1)));
    sees(&far, tunnel, 3, 2).await;

    way.pass(Passing::Reset);
    drop(presence);
    let comes = connection(tunnel, at(2));
    let _comes = near.connect(comes.clone());
    for index in 0..10 {
        near.create_tunnel(at(2), named(&format!("t{index}"))).await.unwrap();
    }
    let revision = near.snapshot().revision();
    etcd.post("kv/compaction", &json!({"revision": revision.to_string()})).await;

    way.pass(Passing::All);
    let known = async || {
        let snapshot = far.snapshot();
        let mut ids: Vec<_> = snapshot.connections_elsewhere(tunnel).map(|(_, connection)| connection.id).collect();
        let mut expected = [stays.id, comes.id];
        ids.sort();
        expected.sort();
        ids == expected && snapshot.tunnels().count() == 11
    };
    until(GONE, "everything is known", known).await;
    sees(&near, tunnel, 3, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_what_was_known_stays_and_the_rest_follows() {
    let Some(mut etcd) = Etcd::start(3).await else { return };
    let (here, there) = (node(&etcd.addresses(), "here").await, node(&etcd.addresses(), "there").await);
    let tunnel = Uuid::new_v4();
    let first = here.connect(connection(tunnel, at(1)));
    sees(&there, tunnel, 1, 2).await;
    let leader = etcd.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for member in others {
        etcd.kill(member).await;
    }
    let _second = here.connect(connection(tunnel, at(2)));
    let _third = there.connect(connection(tunnel, at(2)));
    drop(first);
    until(GONE, "both notice", async || !here.sees_all_nodes() && !there.sees_all_nodes()).await;
    assert_eq!(there.snapshot().connections(tunnel).count(), 2, "its own, and what it knew of the other's");
    for member in others {
        etcd.start_again(member).await;
    }
    for registry in [&here, &there] {
        sees(registry, tunnel, 2, 2).await;
        until(GONE, "both know it", async || registry.sees_all_nodes()).await;
    }
}
