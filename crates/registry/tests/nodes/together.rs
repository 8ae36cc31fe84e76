//! Several nodes on one registry: what each knows of the others, on the embedded engine and on etcd (the real program).
//!
//! What happens to that when etcd or the way to it fails is in `apart`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use harness::{LIMIT, until};
use jiff::SignedDuration;
use registry::engine::{Feed, Guard, Live, State, Write};
use registry::{
    CommitError, DeleteTunnelError, Embedded, Engine, EngineError, Hostname, QuickName, Registry, Revision,
};
use uuid::Uuid;

use crate::health::what_a_node_finds_out_of_a_pool_all_know;
use crate::node::{at, connection, join, named, opened};

/// Two nodes that have joined, and what keeps their engine.
pub(crate) struct Pair {
    pub(crate) here: Registry,
    pub(crate) there: Registry,
    engine: Arc<dyn Engine>,
    _etcd: Option<harness::Etcd>,
}

async fn embedded() -> Pair {
    let engine = Arc::new(Embedded::in_memory().unwrap());
    let open = async || Registry::open(engine.clone(), at(0)).await.unwrap();
    let (here, there) = (open().await, open().await);
    joined(Pair { here, there, engine, _etcd: None }).await
}

async fn etcd() -> Option<Pair> {
    let etcd = harness::Etcd::start(1).await?;
    let open = async || Registry::open(opened(&etcd.addresses()).await, at(0)).await.unwrap();
    let (here, there) = (open().await, open().await);
    let engine = Arc::new(opened(&etcd.addresses()).await);
    Some(joined(Pair { here, there, engine, _etcd: Some(etcd) }).await)
}

async fn joined(pair: Pair) -> Pair {
    for (name, registry) in [("here", &pair.here), ("there", &pair.there)] {
        join(registry, name);
    }
    for registry in [&pair.here, &pair.there] {
        let both = async || registry.snapshot().nodes().count() == 2 && registry.sees_all_nodes();
        until(LIMIT, "both nodes know each other", both).await;
    }
    pair
}

/// The tests of this file, once for each engine.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::embedded().await).await;
            })+
        }

        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(pair) = super::etcd().await {
                    super::$test(pair).await;
                }
            })+
        }
    };
}

on_each_engine![
    each_node_knows_the_connections_of_the_other,
    a_node_that_leaves_is_gone_at_once,
    many_changes_go_in_few_transactions,
    connections_elsewhere_count,
    quick_tunnels_are_swept_by_one_node_each,
    what_was_taken_off_the_list_is_put_back,
    what_a_node_finds_out_of_a_pool_all_know,
];

fn ids(registry: &Registry, tunnel: Uuid) -> Vec<Uuid> {
    let mut ids: Vec<_> = registry.snapshot().connections(tunnel).map(|connection| connection.id).collect();
    ids.sort();
    ids
}

async fn each_node_knows_the_connections_of_the_other(pair: Pair) {
    let Pair { here, there, .. } = &pair;
    assert_eq!(there.snapshot().node(here.node()).unwrap().name, "here");
    let tunnel = here.create_tunnel(at(0), named("app")).await.unwrap().id;
    let (first, second) = (connection(tunnel, at(1)), connection(tunnel, at(2)));
    let one = here.connect(first.clone());
    let other = there.connect(second.clone());
    assert_eq!(ids(here, tunnel)[..], [first.id], "one's own is there at once");
    let mut both = [first.id, second.id];
    both.sort();
    for registry in [here, there] {
        until(LIMIT, "both connections are known", async || ids(registry, tunnel) == both).await;
    }
    let snapshot = there.snapshot();
    let elsewhere: Vec<_> = snapshot.connections_elsewhere(tunnel).collect();
    assert_eq!(elsewhere.len(), 1);
    assert_eq!((elsewhere[0].0, elsewhere[0].1.as_ref()), (here.node(), &first), "all of it is told");

    one.set_config_version(7);
    let version = async || {
        let snapshot = there.snapshot();
        snapshot.connections_elsewhere(tunnel).any(|(_, connection)| connection.config_version == Some(7))
    };
    until(LIMIT, "a change of it is told", version).await;
    drop(one);
    until(LIMIT, "its end is told", async || ids(there, tunnel) == [second.id]).await;
    until(LIMIT, "the other one was told", async || here.snapshot().is_connected(tunnel)).await;
    drop(other);
    until(LIMIT, "the end of the last is told", async || !here.snapshot().is_connected(tunnel)).await;
    for registry in [here, there] {
        assert!(registry.snapshot().activity(tunnel).unwrap().inactive_at.is_some());
    }
}

async fn a_node_that_leaves_is_gone_at_once(pair: Pair) {
    let Pair { here, there, .. } = &pair;
    let tunnel = here.create_tunnel(at(0), named("app")).await.unwrap().id;
    let _presence = here.connect(connection(tunnel, at(1)));
    until(LIMIT, "the connection is known", async || there.snapshot().is_connected(tunnel)).await;
    here.leave().await;
    let gone = async || !there.snapshot().is_connected(tunnel) && there.snapshot().nodes().count() == 1;
    until(LIMIT, "node and connection are gone", gone).await;
    assert!(here.snapshot().is_connected(tunnel), "what is its own a node knows by itself");
}

async fn many_changes_go_in_few_transactions(pair: Pair) {
    let Pair { here, there, engine, .. } = &pair;
    let revision = async || engine.live().load().await.unwrap().revision;
    let (start, before) = (Instant::now(), revision().await);
    let tunnel = Uuid::new_v4();
    let connections: Vec<_> = (0..300).map(|_| connection(tunnel, at(1))).collect();
    let presences: Vec<_> = connections.iter().map(|connection| here.connect(connection.clone())).collect();
    until(LIMIT, "all connections are known", async || there.snapshot().connections(tunnel).count() == 300).await;
    drop(presences);
    until(LIMIT, "all are gone", async || !there.snapshot().is_connected(tunnel)).await;
    // Three for either, and each may begin with less than fits; more only where making them takes long.
    let transactions = revision().await - before;
    assert!(transactions <= 10 + most_within(start.elapsed()), "{transactions} transactions");

    // What came and went before anybody could be told is not told.
    let (start, before) = (Instant::now(), revision().await);
    for _ in 0..5_000 {
        drop(here.connect(connection(tunnel, at(1))));
    }
    let last = connection(tunnel, at(2));
    let _last = here.connect(last.clone());
    until(LIMIT, "the last one is known", async || ids(there, tunnel) == [last.id]).await;
    let transactions = revision().await - before;
    assert!(transactions <= 5 + most_within(start.elapsed()), "{transactions} transactions");
}

/// A node writes every 100 ms at most.
fn most_within(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / 100).unwrap()
}

async fn connections_elsewhere_count(pair: Pair) {
    let Pair { here, there, .. } = &pair;
    let tunnel = here.create_tunnel(at(0), named("app")).await.unwrap().id;
    let presence = there.connect(connection(tunnel, at(1)));
    until(LIMIT, "the connection is known", async || here.snapshot().is_connected(tunnel)).await;
    let refused = here.delete_tunnel(at(2), tunnel, false).await;
    assert!(matches!(refused, Err(DeleteTunnelError::Connected(1))), "{refused:?}");
    drop(presence);
    until(LIMIT, "its end is known", async || !here.snapshot().is_connected(tunnel)).await;
    here.delete_tunnel(at(3), tunnel, false).await.unwrap();
}

async fn quick_tunnels_are_swept_by_one_node_each(pair: Pair) {
    let Pair { here, there, .. } = &pair;
    let domain = Hostname::parse("example.test").unwrap();
    here.ensure_zone(at(0), &domain).await.unwrap();
    let mut left = Vec::new();
    for _ in 0..10 {
        left.push(here.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap().id);
    }
    let used = here.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap();
    let _presence = there.connect(connection(used.id, at(1)));
    let settled = async || {
        here.snapshot().is_connected(used.id) && there.snapshot().tunnels().count() == here.snapshot().tunnels().count()
    };
    until(LIMIT, "both know the same", settled).await;
    let hour = SignedDuration::from_hours(1);
    let sweeps = [here, there].map(|registry| registry.sweep_quick_tunnels(at(3600), hour));
    let mut swept: Vec<_> = join_all(sweeps).await.into_iter().flat_map(Result::unwrap).collect();
    swept.sort();
    left.sort();
    assert_eq!(swept, left, "each is removed once, and the one that is served elsewhere is not");
    let only = async || there.snapshot().tunnels().count() == 1 && here.snapshot().tunnels().count() == 1;
    until(LIMIT, "both know that they are gone", only).await;
}

/// By whoever may write there.
async fn what_was_taken_off_the_list_is_put_back(pair: Pair) {
    let Pair { here, there, engine, .. } = &pair;
    let tunnel = Uuid::new_v4();
    let _presence = here.connect(connection(tunnel, at(1)));
    until(LIMIT, "the connection is known", async || there.snapshot().is_connected(tunnel)).await;
    let entries = engine.live().load().await.unwrap().entries;
    let its_own = entries.into_iter().filter(|entry| entry.key.contains(&here.node().to_string()));
    let writes: Vec<_> = its_own.map(|entry| Write { key: entry.key, value: None }).collect();
    assert_eq!(writes.len(), 2);
    let mut feed = engine.live().follow(engine.live().load().await.unwrap().revision);
    let lease = engine.live().grant(LIMIT).await.unwrap();
    let removed = engine.live().commit(lease, vec![], writes).await.unwrap();
    let put_back = async {
        loop {
            let batches = feed.next().await.unwrap();
            let is_put = |write: &Write| write.value.is_some() && write.key.starts_with("connections");
            if batches.iter().any(|batch| batch.revision > removed && batch.writes.iter().any(is_put)) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, put_back).await.expect("it is put back");
    until(LIMIT, "the connection is known again", async || there.snapshot().is_connected(tunnel)).await;
    assert_eq!(there.snapshot().nodes().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_make_one_account() {
    for _ in 0..20 {
        let engine = Arc::new(Embedded::in_memory().unwrap());
        let nodes = join_all((0..8).map(|_| tokio::spawn(Registry::open(engine.clone(), at(0))))).await;
        let accounts: Vec<_> = nodes.into_iter().map(|node| node.unwrap().unwrap().snapshot().account().id).collect();
        assert!(accounts.iter().all(|account| *account == accounts[0]), "{accounts:?}");
    }
}

/// The data plane does not wait for any engine.
#[tokio::test]
async fn connecting_works_at_once_with_an_engine_that_says_nothing() {
    struct Silent(Embedded);

    impl Engine for Silent {
        fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
            self.0.load()
        }

        fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
            self.0.commit(guards, writes)
        }

        fn follow(&self, after: Revision) -> Box<dyn Feed> {
            self.0.follow(after)
        }

        fn most_at_once(&self) -> Option<usize> {
            None
        }

        fn live(&self) -> &dyn Live {
            self
        }
    }

    impl Live for Silent {
        fn grant(&self, _: Duration) -> BoxFuture<'_, Result<registry::engine::Lease, EngineError>> {
            Box::pin(std::future::pending())
        }

        fn renew(&self, _: registry::engine::Lease) -> BoxFuture<'_, Result<(), registry::engine::LeaseError>> {
            Box::pin(std::future::pending())
        }

        fn revoke(&self, _: registry::engine::Lease) -> BoxFuture<'_, Result<(), EngineError>> {
            Box::pin(std::future::pending())
        }

        fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
            Box::pin(std::future::pending())
        }

        fn commit(
            &self,
            _: registry::engine::Lease,
            _: Vec<Guard>,
            _: Vec<Write>,
        ) -> BoxFuture<'_, Result<Revision, registry::engine::LeaseError>> {
            Box::pin(std::future::pending())
        }

        fn follow(&self, after: Revision) -> Box<dyn Feed> {
            self.0.live().follow(after)
        }
    }

    let registry = Registry::open(Silent(Embedded::in_memory().unwrap()), at(0)).await.unwrap();
    join(&registry, "alone");
    let domain = Hostname::parse("example.test").unwrap();
    registry.ensure_zone(at(0), &domain).await.unwrap();
    registry.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap();
    let tunnel = Uuid::new_v4();
    let _presence = registry.connect(connection(tunnel, at(1)));
    assert!(registry.snapshot().is_connected(tunnel));
    assert_eq!(registry.snapshot().nodes().count(), 1);
    let swept = registry.sweep_quick_tunnels(at(1_000_000), SignedDuration::ZERO).await.unwrap();
    assert!(swept.is_empty(), "who knows who serves it");
    tokio::time::pause();
    tokio::time::timeout(LIMIT, registry.leave()).await.expect("nobody waits for the others for ever");
}

/// There may be hundreds of thousands of connections to read at once, and whoever connects meanwhile waits for each piece.
#[tokio::test]
async fn others_go_between_while_much_is_read() {
    const MANY: usize = 1_000;
    let engine = Arc::new(Embedded::in_memory().unwrap());
    let teller = Registry::open(engine.clone(), at(0)).await.unwrap();
    join(&teller, "teller");
    let tunnel = Uuid::from_u128(1);
    let _present: Vec<_> = (0..MANY).map(|_| teller.connect(connection(tunnel, at(0)))).collect();
    let listed = async || engine.live().load().await.unwrap().entries.len() == MANY + 1;
    until(LIMIT, "all of it is told", listed).await;

    let late = Registry::open(engine.clone(), at(0)).await.unwrap();
    let other = {
        let late = late.clone();
        tokio::spawn(async move {
            loop {
                match late.snapshot().connections(tunnel).count() {
                    0 => tokio::task::yield_now().await,
                    first => return first,
                }
            }
        })
    };
    join(&late, "late");
    let first = other.await.unwrap();
    assert!(first < MANY, "another task had no turn before {first} were read");
    until(LIMIT, "all of it is read", async || late.snapshot().connections(tunnel).count() == MANY).await;
}
