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
