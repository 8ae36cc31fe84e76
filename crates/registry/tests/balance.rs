//! Load balancing: what refers to what, whoever changes it at the same time.

use jiff::Timestamp;
use registry::*;
use serde_json::json;

#[tokio::test]
async fn whoever_removes_a_pool_that_another_one_refers_to_at_once_leaves_nothing_dangling() {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::in_memory(now).await.unwrap();
    let zone = registry.ensure_zone(now, &Hostname::parse("example.test").unwrap()).await.unwrap().id;
    let (mut kept, mut removed) = (0, 0);
    for round in 0..20 {
        let terms = json!({ "name": format!("p{round}"), "origins": [] });
        let pool = registry.create_pool(now, serde_json::from_value(terms).unwrap()).await.unwrap().id;
        let name = format!("b{round}.example.test");
        let terms = json!({ "name": name, "default_pools": [pool], "fallback_pool": pool });
        let create = registry.create_load_balancer(now, zone, serde_json::from_value(terms).unwrap());
        let delete = registry.delete_pool(pool);
        // Whoever is asked first often wins.
        let (created, deleted) = if round % 2 == 0 {
            tokio::join!(create, delete)
        } else {
            let (deleted, created) = tokio::join!(delete, create);
            (created, deleted)
        };
        match (created, deleted) {
            (Ok(_), Err(BalanceError::Referenced(_))) => kept += 1,
            (Err(BalanceError::Bad(_)), Ok(())) => removed += 1,
            other => panic!("{other:?}"),
        }
    }
    let snapshot = registry.snapshot();
    assert_eq!((snapshot.load_balancers_of(zone).count(), snapshot.pools().count()), (kept, kept));
    assert_eq!(kept + removed, 20);
}

#[tokio::test]
async fn of_many_who_want_one_name_at_once_one_gets_it() {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::in_memory(now).await.unwrap();
    let terms: PoolTerms = serde_json::from_value(json!({ "name": "shop", "origins": [] })).unwrap();
    let all = (0..8).map(|_| {
        let (registry, terms) = (registry.clone(), terms.clone());
        tokio::spawn(async move { registry.create_pool(now, terms).await })
    });
    let mut made = 0;
    for one in all.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error, BalanceError::NameTaken(_)), "{error}"),
        }
    }
    assert_eq!((made, registry.snapshot().pools().count()), (1, 1));
}

#[tokio::test]
async fn a_name_comes_to_its_load_balancer_the_closest_first() {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::in_memory(now).await.unwrap();
    let hostname = |name: &str| Hostname::parse(name).unwrap();
    let outer = registry.ensure_zone(now, &hostname("example.test")).await.unwrap().id;
    let inner = registry.ensure_zone(now, &hostname("in.example.test")).await.unwrap().id;
    let pool = registry.create_pool(now, serde_json::from_value(json!({ "name": "p", "origins": [] })).unwrap());
    let pool = pool.await.unwrap().id;
    let create = async |zone, name: &str, proxied: bool| {
        let terms = json!({ "name": name, "default_pools": [pool], "fallback_pool": pool, "proxied": proxied });
        registry.create_load_balancer(now, zone, serde_json::from_value(terms).unwrap()).await.unwrap().id
    };
    assert!(registry.snapshot().balancer_of("a.example.test").is_none());
    let exact = create(outer, "a.example.test", true).await;
    let wildcard = create(outer, "*.example.test", true).await;
    let closer = create(outer, "*.c.example.test", true).await;
    // This one is of DNS alone, and lies above another zone's names.
    create(outer, "dns.example.test", false).await;
    create(outer, "x.in.example.test", true).await;
    let of_inner = create(inner, "y.in.example.test", true).await;
    let tunnel = NewTunnel {
        name: TunnelName::parse("t").unwrap(),
        secret: None,
        config_source: ConfigSource::Local,
        labels: Default::default(),
    };
    let tunnel = registry.create_tunnel(now, tunnel).await.unwrap().id;
    for name in ["r.example.test", "*.r.c.example.test"] {
        registry.put_route(now, outer, hostname(name), tunnel, false).await.unwrap();
    }
    let snapshot = registry.snapshot();
    for (host, expected) in [
        ("a.example.test", Some(exact)),
        ("b.example.test", Some(wildcard)),
        ("b.b.example.test", Some(wildcard)),
        ("b.c.example.test", Some(closer)),
        ("c.example.test", Some(wildcard)),
        ("example.test", None),
        ("dns.example.test", Some(wildcard)),
        // Records of the name itself, and of a closer wildcard, go before a wildcard.
        ("r.example.test", None),
        ("a.r.c.example.test", None),
        // The inner zone alone says where its names lead.
        ("x.in.example.test", None),
        ("y.in.example.test", Some(of_inner)),
        ("other.test", None),
    ] {
        assert_eq!(snapshot.balancer_of(host).map(|balancer| balancer.id), expected, "{host}");
    }
    let renamed = |name: &'static str| {
        move |old: &LoadBalancerTerms| Ok(LoadBalancerTerms { name: Hostname::parse(name).unwrap(), ..old.clone() })
    };
    registry.change_load_balancer(now, exact, renamed("z.example.test")).await.unwrap();
    registry.delete_load_balancer(wildcard).await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.balancer_of("z.example.test").map(|balancer| balancer.id), Some(exact));
    assert!(snapshot.balancer_of("a.example.test").is_none() && snapshot.balancer_of("b.example.test").is_none());
}
