//! The registry as its users see it, with the embedded engine in memory and in a file.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use registry::*;
use serde_json::json;
use uuid::Uuid;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn host(name: &str) -> Hostname {
    Hostname::parse(name).unwrap()
}

fn named(name: &str) -> NewTunnel {
    NewTunnel {
        name: TunnelName::parse(name).unwrap(),
        secret: None,
        config_source: ConfigSource::Local,
        labels: Default::default(),
    }
}

async fn open() -> (Registry, Zone) {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &host("example.test")).await.unwrap();
    (registry, zone)
}

fn connection(tunnel: Uuid, opened_at: Timestamp) -> ConnectionRecord {
    ConnectionRecord {
        tunnel,
        connector: Uuid::new_v4(),
        id: Uuid::new_v4(),
        index: 0,
        transport: "quic".into(),
        location: "lab01".into(),
        origin_ip: [127, 0, 0, 1].into(),
        opened_at,
        features: Features::default(),
        version: "1".into(),
        arch: "linux_amd64".into(),
        config_version: None,
    }
}

#[tokio::test]
async fn a_file_brings_everything_back_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let account = registry.snapshot().account().id;
    let zone = registry.ensure_zone(at(0), &host("example.test")).await.unwrap();
    let tunnel = registry.create_tunnel(at(1), named("one")).await.unwrap();
    registry.put_route(at(1), zone.id, host("a.example.test"), tunnel.id, false).await.unwrap();
    registry.put_configuration(at(1), tunnel.id, json!({"x": 1}), ConfigSource::Cloudflare, None).await.unwrap();
    let rules = policy::Access { headers: vec!["x-env: demo".parse().unwrap()], ..policy::Access::default() };
    registry.put_access(tunnel.id, rules.clone()).await.unwrap();
    let full = |_: &str| Err(CommitError::Engine(EngineError::Storage("no room for the token's file".into())));
    assert!(registry.create_first_token(at(1), full).await.is_err());
    let mut kept = String::new();
    let keep = |secret: &str| {
        kept.push_str(secret);
        Ok::<(), CommitError>(())
    };
    let secret = registry.create_first_token(at(1), keep).await.unwrap().unwrap();
    assert_eq!(kept, secret);
    assert_eq!(registry.create_first_token(at(1), full).await.unwrap(), None);
    let presence = registry.connect(connection(tunnel.id, at(2)));
    let before = registry.snapshot();

    drop(presence);
    drop(registry);
    let registry = Registry::open_file(&path, at(3)).await.unwrap();
    let after = registry.snapshot();
    assert_eq!(after.revision(), before.revision());
    assert_eq!(after.account().id, account);
    assert_eq!(registry.ensure_zone(at(4), &host("example.test")).await.unwrap(), zone);
    assert_eq!(after.tunnel_named("one").unwrap().secret, tunnel.secret);
    assert_eq!(after.route("a.example.test").unwrap().tunnel, tunnel.id);
    assert_eq!(after.configuration(tunnel.id).unwrap().version, 1);
    assert!(after.authorize(&secret, at(5)).is_ok());
    assert!(!after.is_connected(tunnel.id), "live state ends with the process");
    let file = std::fs::read(&path).unwrap();
    assert!(!file.windows(secret.len()).any(|window| window == secret.as_bytes()), "only a token's hash is kept");
}

#[tokio::test]
async fn a_name_belongs_to_one_tunnel_until_that_is_deleted() {
    let (registry, _) = open().await;
    let first = registry.create_tunnel(at(1), named("web")).await.unwrap();
    let twin = registry.create_tunnel(at(2), named("web")).await;
    assert!(matches!(twin, Err(TunnelError::NameTaken(_))));

    registry.delete_tunnel(at(3), first.id, false).await.unwrap();
    let second = registry.create_tunnel(at(4), named("web")).await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.tunnel_named("web").unwrap().id, second.id);
    let listed: Vec<_> = snapshot.tunnels().map(|tunnel| (tunnel.id, tunnel.deleted_at)).collect();
    assert_eq!(listed, [(first.id, Some(at(3))), (second.id, None)]);

    let again = registry.delete_tunnel(at(9), first.id, false).await.unwrap();
    assert_eq!(again.deleted_at, Some(at(3)), "deleting again changes nothing");
    assert!(matches!(registry.delete_tunnel(at(9), Uuid::new_v4(), false).await, Err(DeleteTunnelError::NotFound(_))));
}

#[tokio::test]
async fn of_many_who_want_one_name_at_once_one_gets_it() {
    let (registry, _) = open().await;
    let writers: Vec<_> = (0..50)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.create_tunnel(at(1), named("web")).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for writer in writers {
        winners += usize::from(writer.await.unwrap());
    }
    assert_eq!((winners, registry.snapshot().tunnels().count()), (1, 1));
}

#[tokio::test]
async fn a_tunnel_changes_name_and_secret() {
    let (registry, _) = open().await;
    let tunnel = registry.create_tunnel(at(1), named("old")).await.unwrap();
    registry.create_tunnel(at(1), named("other")).await.unwrap();
    let name = |text: &str| TunnelChange { name: TunnelName::parse(text).ok(), ..TunnelChange::default() };

    let taken = registry.change_tunnel(tunnel.id, name("other")).await;
    assert!(matches!(taken, Err(TunnelError::NameTaken(_))));
    let secret = Secret::from_bytes(&[7; 32]).ok();
    registry.change_tunnel(tunnel.id, TunnelChange { secret, ..name("new") }).await.unwrap();
    let snapshot = registry.snapshot();
    assert!(snapshot.tunnel_named("old").is_none());
    assert!(snapshot.tunnel_named("new").unwrap().secret.matches(&[7; 32]));

    let revision = snapshot.revision();
    registry.change_tunnel(tunnel.id, name("new")).await.unwrap();
    assert_eq!(registry.snapshot().revision(), revision, "no change, no revision");

    let turn = registry.snapshot().balance_revision();
    let labels = Labels::parse(["release=canary"]).unwrap();
    let labelled = TunnelChange { labels: Some(labels.clone()), ..TunnelChange::default() };
    registry.change_tunnel(tunnel.id, labelled).await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.tunnel_named("new").unwrap().labels, labels);
    assert!(snapshot.balance_revision() > turn, "whoever leads to its pools hears of it");
}

#[tokio::test]
async fn deleting_a_tunnel_takes_its_routes_along_but_not_its_connections() {
    let (registry, zone) = open().await;
    let tunnel = registry.create_tunnel(at(1), named("web")).await.unwrap();
    registry.put_route(at(1), zone.id, host("a.example.test"), tunnel.id, false).await.unwrap();
    registry.put_route(at(1), zone.id, host("*.b.example.test"), tunnel.id, false).await.unwrap();
    registry.put_configuration(at(1), tunnel.id, json!({}), ConfigSource::Local, None).await.unwrap();
    let _presence = registry.connect(connection(tunnel.id, at(2)));

    let refused = registry.delete_tunnel(at(3), tunnel.id, false).await;
    assert!(matches!(refused, Err(DeleteTunnelError::Connected(1))));
    assert!(registry.snapshot().route("a.example.test").is_some(), "nothing was half done");

    registry.delete_tunnel(at(3), tunnel.id, true).await.unwrap();
    let snapshot = registry.snapshot();
    assert!(snapshot.route("a.example.test").is_none() && snapshot.route("x.b.example.test").is_none());
    assert_eq!(snapshot.routes_of(tunnel.id).count(), 0);
    assert!(snapshot.configuration(tunnel.id).is_none());
    assert!(snapshot.is_connected(tunnel.id));
}

#[tokio::test]
async fn what_is_written_while_a_tunnel_is_deleted_goes_with_it() {
    let (registry, zone) = open().await;
    let tunnel = registry.create_tunnel(at(1), named("web")).await.unwrap().id;
    // All three decide by the same snapshot: the deletion sees neither the route nor the configuration.
    let (_, _, deleted) = tokio::join!(
        registry.put_route(at(2), zone.id, host("a.example.test"), tunnel, false),
        registry.put_configuration(at(2), tunnel, json!({}), ConfigSource::Local, None),
        registry.delete_tunnel(at(2), tunnel, false),
    );
    assert!(deleted.is_ok());
    let snapshot = registry.snapshot();
    assert!(snapshot.route("a.example.test").is_none() && snapshot.routes_of(tunnel).next().is_none());
    assert!(snapshot.configuration(tunnel).is_none());
}

#[tokio::test]
async fn a_host_name_takes_its_own_route_then_the_closest_wildcard() {
    let (registry, zone) = open().await;
    let mut ids = Vec::new();
    for (name, pattern) in [("a", "a.example.test"), ("b", "*.example.test"), ("c", "*.c.example.test")] {
        let tunnel = registry.create_tunnel(at(1), named(name)).await.unwrap();
        registry.put_route(at(1), zone.id, host(pattern), tunnel.id, false).await.unwrap();
        ids.push(tunnel.id);
    }
    let snapshot = registry.snapshot();
    let leads = |name: &str| snapshot.route(name).map(|route| route.tunnel);
    assert_eq!(leads("a.example.test"), Some(ids[0]));
    assert_eq!(leads("z.example.test"), Some(ids[1]));
    assert_eq!(leads("y.z.example.test"), Some(ids[1]));
    assert_eq!(leads("y.c.example.test"), Some(ids[2]));
    assert_eq!(leads("x.y.c.example.test"), Some(ids[2]));
    assert_eq!(leads("c.example.test"), Some(ids[1]), "a wildcard does not cover its own parent");
    for nobody in ["example.test", "test", "", ".", "example.test.evil", "*.example.test"] {
        assert!(leads(nobody).is_none() || nobody.starts_with('*'), "{nobody:?}");
    }
    assert_eq!(snapshot.zone_of("*.c.example.test").unwrap().id, zone.id);
    assert!(snapshot.zone_of("example.com").is_none());
}

#[tokio::test]
async fn a_route_is_overwritten_only_on_demand() {
    let (registry, zone) = open().await;
    let one = registry.create_tunnel(at(1), named("one")).await.unwrap().id;
    let two = registry.create_tunnel(at(1), named("two")).await.unwrap().id;
    let name = host("app.example.test");
    let put = |tunnel, overwrite| registry.put_route(at(2), zone.id, name.clone(), tunnel, overwrite);

    assert_eq!(put(one, false).await.unwrap(), RouteWrite::New);
    let revision = registry.snapshot().revision();
    assert_eq!(put(one, false).await.unwrap(), RouteWrite::Unchanged);
    assert!(matches!(put(two, false).await, Err(RouteError::Taken { tunnel, .. }) if tunnel == one));
    assert_eq!(registry.snapshot().revision(), revision);
    assert_eq!(put(two, true).await.unwrap(), RouteWrite::Updated);
    assert_eq!(registry.snapshot().routes_of(one).count(), 0);

    assert!(matches!(put(Uuid::new_v4(), true).await, Err(RouteError::NoTunnel(_))));
    let foreign = registry.put_route(at(2), zone.id, host("example.com"), one, true).await;
    assert!(matches!(foreign, Err(RouteError::OutsideZone { .. })));
    let nowhere = registry.put_route(at(2), ZoneId::random(), name.clone(), one, true).await;
    assert!(matches!(nowhere, Err(RouteError::NoZone(_))));

    registry.delete_route(&name).await.unwrap();
    assert!(matches!(registry.delete_route(&name).await, Err(RouteError::NotFound(_))));
}

#[tokio::test]
async fn a_configuration_counts_its_versions_and_guards_them() {
    let (registry, _) = open().await;
    let id = registry.create_tunnel(at(1), named("web")).await.unwrap().id;
    let put = |document, source, if_match| registry.put_configuration(at(2), id, document, source, if_match);
    use ConfigSource::{Cloudflare, Local};

    assert_eq!(put(json!({"v": 1}), Local, None).await.unwrap().configuration.version, 1);
    let same = put(json!({"v": 1}), Local, None).await.unwrap();
    assert_eq!((same.changed, same.configuration.version), (false, 1));
    let moved = put(json!({"v": 2}), Cloudflare, Some(7)).await;
    assert!(matches!(moved, Err(ConfigurationError::Moved(1))));
    assert_eq!(put(json!({"v": 2}), Cloudflare, Some(1)).await.unwrap().configuration.version, 2);
    assert_eq!(registry.snapshot().tunnel(id).unwrap().config_source, Cloudflare);
    assert!(matches!(put(json!({}), Local, None).await, Err(ConfigurationError::ManagedAtEdge)));
}

#[tokio::test]
async fn two_writers_with_the_same_version_do_not_both_win() {
    let (registry, _) = open().await;
    let id = registry.create_tunnel(at(1), named("web")).await.unwrap().id;
    let write =
        |value: i32| registry.put_configuration(at(2), id, json!({ "v": value }), ConfigSource::Cloudflare, Some(0));
    let (first, second) = tokio::join!(write(1), write(2));
    assert!(first.is_ok() != second.is_ok());
}

#[tokio::test]
async fn quick_tunnels_get_names_that_nobody_else_has() {
    let (registry, _) = open().await;
    let domain = host("example.test");
    let quick = registry.create_quick_tunnel(at(1), &domain, QuickName::Random).await.unwrap();
    let hostname = quick.quick.clone().unwrap();
    assert!(hostname.is_within(&domain) && hostname.as_str().split('.').count() == 3, "{hostname}");
    assert_eq!(registry.snapshot().route(hostname.as_str()).unwrap().tunnel, quick.id);

    let wish = |label: &str, secret: Option<Secret>| {
        registry.create_quick_tunnel(at(1), &domain, QuickName::Wished { label: label.into(), secret })
    };
    let secret = Secret::random();
    let demo = wish("demo", Some(secret.clone())).await.unwrap();
    assert!(matches!(wish("demo", None).await, Err(QuickTunnelError::Taken(_))));
    assert!(matches!(wish("demo", Some(Secret::random())).await, Err(QuickTunnelError::Taken(_))));
    assert_eq!(wish("DEMO", Some(secret)).await.unwrap().id, demo.id, "its owner gets it back");
    for label in ["", "a.b", "*", "a b", "-"] {
        assert!(matches!(wish(label, None).await, Err(QuickTunnelError::BadName(_))), "{label}");
    }
    let foreign = registry.create_quick_tunnel(at(1), &host("example.com"), QuickName::Random).await;
    assert!(matches!(foreign, Err(QuickTunnelError::NoZone(_))));
}

#[tokio::test]
async fn quick_tunnels_that_were_left_are_swept() {
    let (registry, _) = open().await;
    let domain = host("example.test");
    let hour = SignedDuration::from_hours(1);
    let left = registry.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap();
    let used = registry.create_quick_tunnel(at(0), &domain, QuickName::Random).await.unwrap();
    registry.create_tunnel(at(0), named("kept")).await.unwrap();
    let presence = registry.connect(connection(used.id, at(1)));

    assert!(registry.sweep_quick_tunnels(at(3599), hour).await.unwrap().is_empty());
    assert_eq!(registry.sweep_quick_tunnels(at(3600), hour).await.unwrap(), [left.id]);
    let snapshot = registry.snapshot();
    assert!(snapshot.tunnel(left.id).is_none() && snapshot.route(left.quick.unwrap().as_str()).is_none());
    assert_eq!(snapshot.tunnels().count(), 2);

    drop(presence);
    let ended = registry.snapshot().activity(used.id).unwrap().inactive_at.unwrap();
    assert_eq!(registry.sweep_quick_tunnels(ended.max(at(0)) + hour, hour).await.unwrap(), [used.id]);
}

#[tokio::test]
async fn a_quick_tunnel_that_nobody_came_to_serve_does_not_last() {
    let (registry, _) = open().await;
    let month = SignedDuration::from_hours(30 * 24);
    let quick =
        async || registry.create_quick_tunnel(at(0), &host("example.test"), QuickName::Random).await.unwrap().id;
    let (unserved, served) = (quick().await, quick().await);
    drop(registry.connect(connection(served, at(1))));
    assert!(registry.sweep_quick_tunnels(at(3599), month).await.unwrap().is_empty());
    assert_eq!(registry.sweep_quick_tunnels(at(3600), month).await.unwrap(), [unserved]);
}

#[tokio::test]
async fn only_the_right_secret_of_the_right_account_serves_a_tunnel() {
    let (registry, _) = open().await;
    let tunnel = registry.create_tunnel(at(1), named("web")).await.unwrap();
    let snapshot = registry.snapshot();
    let account = snapshot.account().id.to_string();
    let secret = tunnel.secret.as_bytes();
    assert_eq!(snapshot.authenticate(&account, tunnel.id, secret).unwrap().id, tunnel.id);
    let refused = |account: &str, id, secret: &[u8]| snapshot.authenticate(account, id, secret).unwrap_err();
    assert_eq!(refused(&account, tunnel.id, &[0; 32]), TunnelRefused::WrongSecret);
    assert_eq!(refused(&account, tunnel.id, &[]), TunnelRefused::WrongSecret);
    assert_eq!(refused("other", tunnel.id, secret), TunnelRefused::WrongAccount);
    assert_eq!(refused(&account, Uuid::new_v4(), secret), TunnelRefused::Unknown);
    registry.delete_tunnel(at(2), tunnel.id, false).await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.authenticate(&account, tunnel.id, secret).unwrap_err(), TunnelRefused::Deleted);
}

#[tokio::test]
async fn api_tokens_end() {
    let (registry, _) = open().await;
    let new = NewToken { name: "ci".into(), expires_at: Some(at(10)) };
    let (token, secret) = registry.create_token(at(1), new).await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.authorize(&secret, at(9)).unwrap().id, token.id);
    assert_eq!(snapshot.authorize(&secret, at(10)), Err(TokenRefused::Expired));
    assert_eq!(snapshot.authorize("snk_nobody", at(9)), Err(TokenRefused::Unknown));
    assert!(secret.len() >= 40);
    assert!(format!("{token:?}").contains("TokenHash(…)"), "not even the hash is printed");
}

#[tokio::test]
async fn connections_are_listed_while_they_last() {
    let (registry, _) = open().await;
    let tunnel = registry.create_tunnel(at(1), named("web")).await.unwrap().id;
    assert_eq!(registry.snapshot().activity(tunnel), None);
    let first = registry.connect(connection(tunnel, at(2)));
    let second = registry.connect(connection(tunnel, at(3)));
    second.set_config_version(4);
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.connections(tunnel).count(), 2);
    assert!(snapshot.connections(tunnel).any(|connection| connection.config_version == Some(4)));
    drop(first);
    assert_eq!(registry.snapshot().activity(tunnel), Some(Activity { active_at: at(2), inactive_at: None }));
    drop(second);
    let snapshot = registry.snapshot();
    assert!(!snapshot.is_connected(tunnel) && snapshot.activity(tunnel).unwrap().inactive_at.is_some());
}

#[tokio::test]
async fn watchers_see_every_change_or_start_over() {
    let (registry, zone) = open().await;
    let start = registry.snapshot().revision();
    let mut watch = registry.watch(start);
    let tunnel = registry.create_tunnel(at(1), named("web")).await.unwrap();
    registry.put_route(at(1), zone.id, host("a.example.test"), tunnel.id, false).await.unwrap();

    let Some(Event::Changes { revision, changes }) = watch.next().await else { panic!("no changes") };
    assert_eq!(revision, start + 1);
    assert!(matches!(&changes[..], [Change::Tunnel(id, Some(_))] if *id == tunnel.id), "{changes:?}");
    let Some(Event::Changes { changes, .. }) = watch.next().await else { panic!("no changes") };
    assert!(matches!(&changes[..], [Change::Records(_, host, Some(_))] if &**host == "a"));
    assert!(tokio::time::timeout(Duration::from_millis(20), watch.next()).await.is_err(), "nothing else happened");

    let mut late = registry.watch(0);
    assert!(matches!(late.next().await, Some(Event::Changes { revision: 1, .. }) | Some(Event::Resync(_))));

    for index in 0..1100 {
        registry.put_configuration(at(1), tunnel.id, json!(index), ConfigSource::Local, None).await.unwrap();
    }
    let Some(Event::Resync(snapshot)) = watch.next().await else { panic!("fell behind unnoticed") };
    assert_eq!(snapshot.configuration(tunnel.id).unwrap().version, 1100);
    registry.delete_tunnel(at(2), tunnel.id, false).await.unwrap();
    let Some(Event::Changes { changes, .. }) = watch.next().await else { panic!("no changes") };
    assert!(changes.iter().any(|change| matches!(change, Change::Configuration(_, None))), "{changes:?}");
    drop(registry);
    assert!(watch.next().await.is_none());
}

/// Set for the process that is going to be killed: where its file is.
const VICTIM: &str = "SNICKET_TEST_REGISTRY_OF_VICTIM";

#[test]
fn what_was_acknowledged_survives_a_kill_in_mid_write() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    if let Some(path) = std::env::var_os(VICTIM) {
        return runtime.block_on(write_for_ever(Path::new(&path)));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["what_was_acknowledged_survives_a_kill_in_mid_write", "--exact", "--nocapture"])
        .env(VICTIM, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let is_name = |line: &String| line.starts_with("wrote ");
    let mut acknowledged: Vec<String> = lines.by_ref().filter(is_name).take(50).collect();
    victim.kill().unwrap();
    victim.wait().unwrap();
    acknowledged.extend(lines.filter(is_name).filter(|line| line.ends_with('.')));
    assert!(acknowledged.len() >= 50);

    let registry = runtime.block_on(Registry::open_file(&path, at(1))).unwrap();
    let snapshot = registry.snapshot();
    for line in &acknowledged {
        let name = line.trim_start_matches("wrote ").trim_end_matches('.');
        assert!(snapshot.tunnel_named(name).is_some(), "{name}");
    }
    // A tunnel and its name are one transaction: whatever is there is whole.
    assert!(snapshot.tunnels().all(|tunnel| snapshot.tunnel_named(tunnel.name.as_str()).is_some()));
}

async fn write_for_ever(path: &Path) {
    let registry = Registry::open_file(path, at(0)).await.unwrap();
    for count in 0.. {
        let tunnel = registry.create_tunnel(at(0), named(&format!("t{count}"))).await.unwrap();
        println!("wrote {}.", tunnel.name);
    }
}

#[tokio::test]
async fn access_rules_belong_to_a_tunnel_and_go_with_it() {
    let (registry, _) = open().await;
    let rules = policy::Access { allow: vec!["192.0.2.0/24".parse().unwrap()], ..policy::Access::default() };
    let tunnel = registry.create_tunnel(at(1), named("one")).await.unwrap();
    registry.put_access(tunnel.id, rules.clone()).await.unwrap();
    let written = registry.snapshot().revision();
    assert_eq!(registry.snapshot().access(tunnel.id), Some(&rules));
    registry.put_access(tunnel.id, rules.clone()).await.unwrap();
    assert_eq!(registry.snapshot().revision(), written, "the same again changes nothing");
    registry.put_access(tunnel.id, policy::Access::default()).await.unwrap();
    assert_eq!(registry.snapshot().access(tunnel.id), None);
    registry.put_access(tunnel.id, rules.clone()).await.unwrap();
    registry.delete_tunnel(at(2), tunnel.id, false).await.unwrap();
    assert_eq!(registry.snapshot().access(tunnel.id), None);
    for gone in [tunnel.id, Uuid::new_v4()] {
        assert!(matches!(registry.put_access(gone, rules.clone()).await, Err(AccessError::NotFound(_))));
    }
}

#[tokio::test]
async fn a_port_belongs_to_one_tunnel_and_goes_with_it() {
    let (registry, _) = open().await;
    let one = registry.create_tunnel(at(0), named("one")).await.unwrap();
    let two = registry.create_tunnel(at(0), named("two")).await.unwrap();
    let options = PortOptions { proxy_protocol: Some(ProxyProtocol::V2), ..PortOptions::default() };
    let port = |id: PortId, service: &str, options: &PortOptions| {
        [NewPort { id, service: service.to_owned(), options: options.clone() }]
    };
    let (first, usual) = (PortId::tcp(20_000), PortOptions::default());
    registry.put_ports(at(1), one.id, &port(first, "one.test", &options)).await.unwrap();
    let taken = registry.put_ports(at(2), two.id, &port(first, "two.test", &usual)).await;
    assert!(matches!(taken, Err(PortError::Taken(taken)) if taken == first));
    // The same number of UDP is another port.
    let udp = PortId::udp(20_000);
    registry.put_ports(at(2), two.id, &port(udp, "two.test", &usual)).await.unwrap();
    registry.put_ports(at(2), one.id, &port(first, "one.test", &usual)).await.unwrap();
    let snapshot = registry.snapshot();
    let found = snapshot.port(first).unwrap();
    assert_eq!((found.tunnel, found.created_at, found.options.proxy_protocol), (one.id, at(1), None));

    registry.put_ports(at(3), one.id, &port(PortId::tcp(20_001), "one.test", &options)).await.unwrap();
    let both = [port(first, "two.test", &usual), port(udp, "two.test", &usual)].concat();
    registry.put_ports(at(3), two.id, &both).await.unwrap();
    registry.delete_tunnel(at(4), one.id, false).await.unwrap();
    let of = |snapshot: &Snapshot| snapshot.ports().map(|port| (port.id(), port.tunnel)).collect::<Vec<_>>();
    assert_eq!(of(&registry.snapshot()), [(first, two.id), (udp, two.id)]);
    let gone = registry.put_ports(at(5), one.id, &port(PortId::tcp(20_002), "one.test", &usual)).await;
    assert!(matches!(gone, Err(PortError::NoTunnel(_))));
    assert!(matches!(registry.delete_port(one.id, udp).await, Err(PortError::NotItsPort(_))));
    registry.delete_port(two.id, udp).await.unwrap();
    assert_eq!(of(&registry.snapshot()), [(first, two.id)]);
}

#[tokio::test]
async fn ports_that_are_added_at_once_are_all_there() {
    let (registry, _) = open().await;
    let one = registry.create_tunnel(at(0), named("one")).await.unwrap();
    let two = registry.create_tunnel(at(0), named("two")).await.unwrap();
    let options = PortOptions::default();
    let port = |number| NewPort { id: PortId::tcp(number), service: "one.test".to_owned(), options: options.clone() };
    let ports: Vec<NewPort> = (20_000..20_008).map(port).collect();
    let adding = ports.iter().map(|port| registry.add_port(at(1), one.id, port));
    for added in futures_util::future::join_all(adding).await {
        added.unwrap();
    }
    assert_eq!(registry.snapshot().ports_of(one.id).count(), 8);
    let again = registry.add_port(at(2), one.id, &port(20_000)).await;
    assert!(matches!(again, Err(PortError::ItsOwn(id)) if id == PortId::tcp(20_000)));
    let taken = registry.add_port(at(2), two.id, &port(20_000)).await;
    assert!(matches!(taken, Err(PortError::Taken(_))));
}

#[test]
fn ids_of_ports_lead_back() {
    for id in [PortId::tcp(1), PortId::udp(65_535)] {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    for text in ["", "x", "65536", "1/tcp", "/udp"] {
        assert!(text.parse::<PortId>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn tls_is_left_to_the_tunnel_that_the_name_leads_to() {
    let (registry, zone) = open().await;
    let one = registry.create_tunnel(at(0), named("one")).await.unwrap();
    let two = registry.create_tunnel(at(0), named("two")).await.unwrap();
    let name = host("a.example.test");
    let nobody = registry.put_passthrough(&name, one.id, Some(PortOptions::default())).await;
    assert!(matches!(nobody, Err(PassthroughError::NotItsName { .. })));
    registry.put_route(at(1), zone.id, name.clone(), one.id, false).await.unwrap();
    registry.put_passthrough(&name, one.id, Some(PortOptions::default())).await.unwrap();
    assert_eq!(registry.snapshot().passthrough("a.example.test").map(|found| found.tunnel), Some(one.id));
    assert!(registry.snapshot().passes_any());
    registry.put_route(at(2), zone.id, name.clone(), two.id, true).await.unwrap();
    assert!(registry.snapshot().passthrough("a.example.test").is_none(), "the name leads elsewhere now");
    registry.put_passthrough(&name, two.id, Some(PortOptions::default())).await.unwrap();
    assert_eq!(registry.snapshot().passthrough("a.example.test").map(|found| found.tunnel), Some(two.id));
    registry.put_passthrough(&name, two.id, None).await.unwrap();
    assert!(!registry.snapshot().passes_any());
    registry.put_passthrough(&name, two.id, Some(PortOptions::default())).await.unwrap();
    registry.delete_tunnel(at(3), two.id, false).await.unwrap();
    assert!(!registry.snapshot().passes_any());
}
