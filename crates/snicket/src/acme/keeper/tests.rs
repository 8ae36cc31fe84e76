use std::net::SocketAddr;

use certs::acme::PublicCertificates as _;
use certs::tls::Roots;
use certs::{Authority, Names};
use futures_util::future::join_all;
use harness::Pebble;
use registry::{
    ConfigSource, Embedded, Engine, EngineError, Keys, NewTunnel, NodeAddresses, NodeRecord, PortOptions, QuickName,
    Sealed, TunnelName,
};
use uuid::Uuid;

use super::super::deserves;
use super::*;

const LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

async fn tunnel(registry: &Registry, text: &str) -> Uuid {
    let name = TunnelName::parse(text).unwrap();
    let new = NewTunnel { name, secret: None, config_source: ConfigSource::Cloudflare, labels: Default::default() };
    registry.create_tunnel(at(0), new).await.unwrap().id
}

async fn hold(registry: &Registry, text: &str, now: Timestamp) {
    let hold = registry.begin_acme_order(now, &name(text), AcmeUrgency::Now).await.unwrap();
    let certificate = AcmeCertificate {
        name: name(text),
        chain: "chain".into(),
        key: PrivateText::new("key"),
        issuer: "authority".into(),
        not_before: now,
        not_after: now + LIFE,
    };
    registry.finish_acme_order(&hold, certificate).await.unwrap();
}

#[tokio::test]
async fn what_is_ordered_is_what_leads_here_and_is_not_there() {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let domain = name("example.test");
    let zone = registry.ensure_zone(at(0), &domain).await.unwrap().id;
    let (site, gone) = (tunnel(&registry, "site").await, tunnel(&registry, "gone").await);
    let names = ["a.example.test", "*.example.test", "o_d.example.test", "passed.example.test", "held.example.test"];
    for host in names {
        registry.put_route(at(0), zone, name(host), site, false).await.unwrap();
    }
    registry.put_route(at(0), zone, name("gone.example.test"), gone, false).await.unwrap();
    registry.delete_tunnel(at(0), gone, true).await.unwrap();
    registry.put_passthrough(&name("passed.example.test"), site, Some(PortOptions::default())).await.unwrap();
    let quick = registry.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap();
    let quick = quick.quick.expect("it has a name");
    hold(&registry, "held.example.test", at(0)).await;
    hold(&registry, "passed.example.test", at(0)).await;

    let plan = |now| {
        let snapshot = registry.snapshot();
        Plan::of(&snapshot, &domain, |_| false, now)
    };
    let first = plan(at(1));
    let renew_at = registry.snapshot().acme_certificate("held.example.test").unwrap().renew_at();
    let ahead = ["a.example.test", "example.test"].map(name).to_vec();
    assert_eq!(first, Plan { due: vec![], ahead: ahead.clone(), next: renew_at });
    let failing = registry.begin_acme_order(at(1), &name("a.example.test"), AcmeUrgency::Ahead).await.unwrap();
    registry.fail_acme_order(at(1), &failing, AcmeFailure::Usual, "nobody there").await.unwrap();
    assert_eq!(plan(at(2)).ahead, [name("example.test")]);
    let ahead = ["example.test", "a.example.test"].map(name).to_vec();
    // One whose TLS is the origin's own by now is not renewed.
    let later = plan(renew_at);
    assert_eq!((later.due, later.ahead), (vec![name("held.example.test")], ahead));
    assert_eq!(plan(at(0) + LIFE).due, [name("held.example.test")], "better late than never");
    let covered = Plan::of(&registry.snapshot(), &domain, |covered| covered.is_within(&domain), at(1));
    assert_eq!(covered, Plan { due: vec![], ahead: vec![], next: Timestamp::MAX });

    // A quick tunnel's is ordered for its first visitor, and then kept from ending.
    assert!(deserves(&registry.snapshot(), &domain, quick.as_str()));
    hold(&registry, quick.as_str(), at(0)).await;
    assert!(plan(at(0) + LIFE).due.contains(&quick));
    assert!(!deserves(&registry.snapshot(), &domain, "x.example.test"), "a wildcard's is not");
}

/// Lists this node, which answers by DNS or not.
fn introduce(registry: &Registry, dns: bool) {
    let address = SocketAddr::from(([192, 0, 2, 1], 1));
    let addresses = NodeAddresses {
        http: address,
        https: address,
        tunnel: vec![address],
        api: address,
        dns: dns.then_some(address),
    };
    let (id, name, location, version) = (registry.node(), "node".into(), "lab01".into(), "1".into());
    registry.introduce(NodeRecord { id, name, location, addresses, version, started_at: at(0), region: None });
}

#[tokio::test]
async fn one_certificate_is_ordered_for_all_names_below_one_that_nodes_answer_for() {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let domain = name("example.test");
    let zone = registry.ensure_zone(at(0), &domain).await.unwrap().id;
    let other = registry.ensure_zone(at(0), &name("other.test")).await.unwrap().id;
    let site = tunnel(&registry, "site").await;
    for host in ["a.example.test", "b.example.test", "c.deep.example.test"] {
        registry.put_route(at(0), zone, name(host), site, false).await.unwrap();
    }
    for host in ["a.other.test", "*.all.other.test", "b.all.other.test"] {
        registry.put_route(at(0), other, name(host), site, false).await.unwrap();
    }
    let ahead = |covered: &'static str, now| {
        let mut plan = Plan::of(&registry.snapshot(), &domain, |name| name.as_str() == covered, now);
        plan.ahead.sort_unstable();
        plan.ahead.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    introduce(&registry, false);
    let single =
        ["a.example.test", "a.other.test", "b.all.other.test", "b.example.test", "c.deep.example.test", "example.test"];
    assert_eq!(ahead("", at(1)), single);
    introduce(&registry, true);
    let with_wildcards = ["*.all.other.test", "*.example.test", "a.other.test", "c.deep.example.test", "example.test"];
    assert_eq!(ahead("", at(1)), with_wildcards);
    assert!(!ahead("*.example.test", at(1)).contains(&"*.example.test".to_owned()), "a file has it");

    // An authority that does not see us there sees each name by itself, and is asked again later.
    let failing = registry.begin_acme_order(at(1), &name("*.example.test"), AcmeUrgency::Ahead).await.unwrap();
    assert!(!ahead("", at(2)).contains(&"a.example.test".to_owned()), "while it is being ordered, there is hope");
    registry.fail_acme_order(at(2), &failing, AcmeFailure::Unseen, "nobody there").await.unwrap();
    let names = ahead("", at(3));
    assert!(["a.example.test", "b.example.test"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert!(!names.contains(&"*.example.test".to_owned()), "not yet");
    let names = ahead("", at(3_600));
    assert!(["a.example.test", "*.example.test"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
}

#[tokio::test]
async fn names_without_one_of_their_own_are_shown_the_wildcard_s() {
    let registry = Registry::in_memory(Timestamp::now()).await.unwrap();
    let zone = registry.ensure_zone(Timestamp::now(), &name("example.test")).await.unwrap().id;
    let site = tunnel(&registry, "site").await;
    for host in ["a.example.test", "b.example.test"] {
        registry.put_route(Timestamp::now(), zone, name(host), site, false).await.unwrap();
    }
    introduce(&registry, true);
    hold(&registry, "a.example.test", Timestamp::now()).await;
    hold(&registry, "*.example.test", Timestamp::now()).await;
    let (_, shelf) = idle_keeper(&registry);
    assert_eq!(shelf.wildcard("a.example.test"), None);
    assert_eq!(shelf.wildcard("x.example.test").as_deref(), Some("*.example.test"));
    assert_eq!(shelf.wildcard("x.y.example.test"), None);
    assert!(shelf.awaited("x.example.test").is_none() && shelf.awaited("b.example.test").is_none());
}

/// A keeper of this registry and this authority, and what visitors see.
fn keeper(registry: &Registry, directory: String, roots: &Roots) -> (Keeper, Arc<Shelf>) {
    let client = AcmeClient::new(directory, "me@example.test".into(), roots).unwrap();
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(home.path(), SystemTime::now()).unwrap();
    let names = Names { domains: vec!["example.test".into()], ..Names::default() };
    let certificates = Certificates::new(Arc::new(authority), names).unwrap();
    let (shelf, asked) = Shelf::new(registry.clone(), name("example.test"));
    (Keeper::new(registry.clone(), client, certificates, (Arc::clone(&shelf), asked)), shelf)
}

/// One that nobody asks at the authority.
fn idle_keeper(registry: &Registry) -> (Keeper, Arc<Shelf>) {
    keeper(registry, "https://127.0.0.1:1/dir".into(), &Roots::System)
}

/// As a visitor who finds out at once that there is nothing to wait for, and whoever comes later.
async fn nobody_waits(shelf: &Shelf, mut keeper: Keeper, host: &str) {
    let waiting = shelf.awaited(host).expect("it could begin as far as anybody knows");
    let ask = keeper.asked.recv().await.unwrap();
    keeper.asked_for(ask).await;
    // The longest that a visitor waits is longer.
    timeout(Duration::from_secs(5), waiting).await.expect("there is nothing to wait for");
    assert!(shelf.awaited(host).is_none(), "nor for the next visitor");
}

#[tokio::test]
async fn nobody_waits_while_as_many_orders_are_under_way_as_may_be() {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &name("example.test")).await.unwrap().id;
    let site = tunnel(&registry, "site").await;
    registry.put_route(at(0), zone, name("a.example.test"), site, false).await.unwrap();
    for index in 0..8 {
        let other = name(&format!("x{index}.example.test"));
        registry.begin_acme_order(Timestamp::now(), &other, AcmeUrgency::Now).await.unwrap();
    }
    let (keeper, shelf) = idle_keeper(&registry);
    nobody_waits(&shelf, keeper, "a.example.test").await;
}

#[tokio::test]
async fn nobody_waits_for_what_cannot_be_written() {
    let engine: Arc<dyn Engine> = Arc::new(Embedded::in_memory().unwrap());
    let (old, new) = (Keys::generate(), Keys::generate());
    let node = async |keys: &str| {
        let sealed = Sealed::open(engine.clone(), Keys::parse(keys).unwrap()).await.unwrap();
        Registry::open(sealed, at(0)).await.unwrap()
    };
    let registry = node(&old).await;
    let mut changes = registry.watch(registry.snapshot().revision());
    node(&format!("{new}{old}")).await;
    while registry.check_keys().is_ok() {
        changes.next().await.unwrap();
    }
    let (keeper, shelf) = idle_keeper(&registry);
    nobody_waits(&shelf, keeper, "example.test").await;
}

#[tokio::test]
async fn an_order_that_has_begun_is_waited_for() {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let (mut keeper, shelf) = idle_keeper(&registry);
    let waiting = shelf.awaited("example.test").unwrap();
    let ask = keeper.asked.recv().await.unwrap();
    // Another node was faster.
    registry.begin_acme_order(Timestamp::now(), &name("example.test"), AcmeUrgency::Now).await.unwrap();
    keeper.asked_for(ask).await;
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(shelf.awaited("example.test").is_some());
}

#[tokio::test]
async fn orders_that_begin_together_make_one_account() {
    let Some(pebble) = Pebble::start(Duration::from_secs(3600)).await else { return };
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let (keeper, _) = keeper(&registry, pebble.directory(), &Roots::File(pebble.ca()));
    let accounts = join_all((0..8).map(|_| keeper.orderer.account())).await;
    let first = accounts[0].as_ref().unwrap();
    assert!(accounts.iter().all(|account| account.as_ref().unwrap() == first));
    assert_eq!(pebble.accounts(), 1);
}

fn slow(_: i32) -> Result<(), AcmeError> {
    Err(AcmeError::Commit(EngineError::Slow.into()))
}

#[tokio::test]
async fn an_engine_that_takes_long_ends_no_order() {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let begin = async |now, text| registry.begin_acme_order(now, &name(text), AcmeUrgency::Now).await.unwrap();
    let over = begin(at(-1_000_000_000), "over.example.test").await;
    let order = begin(Timestamp::now(), "a.example.test").await;
    let tries = std::cell::Cell::new(0);
    let try_again = |outcome: fn(i32) -> Result<(), AcmeError>| {
        let tries = &tries;
        move || {
            tries.set(tries.get() + 1);
            std::future::ready(outcome(tries.get()))
        }
    };
    persistently(&order, try_again(|tries| if tries < 2 { slow(tries) } else { Ok(()) })).await.unwrap();
    assert_eq!(tries.replace(0), 2);
    // It is somebody else's by now, or its time is over.
    assert!(matches!(persistently(&order, try_again(|_| Err(AcmeError::Lost))).await, Err(AcmeError::Lost)));
    assert!(matches!(persistently(&over, try_again(slow)).await, Err(AcmeError::Commit(_))));
    assert_eq!(tries.get(), 2);
}
