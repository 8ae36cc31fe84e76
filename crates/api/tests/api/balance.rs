use http::Method;
use jiff::Timestamp;
use registry::{MemberReport, NodeAddresses, NodeRecord, PoolId, PoolReport};
use serde_json::{Value, json};

use crate::edge::Edge;

impl Edge {
    fn balance(&self, rest: &str) -> String {
        format!("/accounts/{}/load_balancers{rest}", self.account)
    }

    async fn delete(&self, path: &str) -> crate::edge::Answer {
        self.call(Method::DELETE, path, "").await
    }

    fn revision(&self) -> u64 {
        self.registry.snapshot().revision()
    }

    /// Makes one below this path, and answers its path.
    async fn made(&self, path: &str, body: Value) -> String {
        format!("{path}/{}", self.post(path, body).await.result()["id"].as_str().unwrap())
    }
}

/// A path with an id that nothing has.
fn nobody(path: &str) -> String {
    format!("{path}/{}", "0".repeat(32))
}

#[tokio::test]
async fn a_monitor_is_made_read_replaced_changed_and_removed() {
    let edge = Edge::start().await;
    let monitors = edge.balance("/monitors");
    assert_eq!(edge.get(&monitors).await.result(), json!([]));
    let wanted = json!({
        "type": "https", "expected_codes": "2xx", "path": "/health", "interval": "90", "timeout": 3.0,
        "header": { "Host": ["example.test"] }, "description": "of the shop", "unheard_of": 1, "probe_zone": null,
    });
    let made = edge.post(&monitors, wanted.clone()).await.result();
    let path = format!("{monitors}/{}", made["id"].as_str().unwrap());
    assert_eq!((&made["interval"], &made["timeout"], &made["retries"]), (&json!(90), &json!(3), &json!(2)));
    assert_eq!((&made["method"], &made["port"], &made["probe_zone"]), (&json!("GET"), &json!(0), &json!("")));
    assert_eq!(edge.get(&path).await.result(), made);
    assert_eq!(edge.get(&path.replace(&format!("/accounts/{}", edge.account), "/user")).await.result(), made);

    // The same again, in either way, is no change.
    let revision = edge.revision();
    assert_eq!(edge.put(&path, wanted).await.result(), made);
    assert_eq!(edge.put(&path, made.clone()).await.result(), made);
    assert_eq!(edge.patch(&path, json!({ "interval": 90.0 })).await.result(), made);
    assert_eq!(edge.revision(), revision);

    let changed = edge.patch(&path, json!({ "path": "/ready", "description": null })).await.result();
    assert_eq!((&changed["path"], &changed["description"]), (&json!("/ready"), &json!("")));
    assert_eq!((&changed["type"], &changed["created_on"]), (&json!("https"), &made["created_on"]));
    let replaced = edge.put(&path, json!({ "type": "tcp", "port": 5432 })).await.result();
    assert_eq!((&replaced["interval"], &replaced["header"]), (&json!(60), &json!({})));

    let back = edge.patch(&path, json!({ "type": "http" })).await.result();
    assert_eq!(
        (&back["method"], &back["path"]),
        (&json!("GET"), &json!("/")),
        "what another type has is not in the way"
    );
    let replaced = edge.patch(&path, json!({ "type": "tcp", "port": 1 })).await.result();

    let second = edge.made(&monitors, json!({})).await;
    let list = edge.get(&monitors).await;
    assert_eq!(list.json()["result_info"]["total_count"], 2);
    assert_eq!(list.result()[0], replaced, "in the order in which they were made");
    assert_eq!(edge.get(&format!("{monitors}?page=2&per_page=1")).await.result().as_array().unwrap().len(), 1);
    assert_eq!(edge.get(&format!("{monitors}?page=2")).await.result(), json!([]));
    assert_eq!(edge.delete(&second).await.result(), json!({ "id": second.rsplit('/').next().unwrap() }));
    edge.delete(&second).await.refused(404, 7003);
}

#[tokio::test]
async fn what_is_no_monitor_is_refused_and_changes_nothing() {
    let edge = Edge::start().await;
    let monitors = edge.balance("/monitors");
    let path = edge.made(&monitors, json!({})).await;
    let revision = edge.revision();
    for (body, said) in [
        (json!({ "type": "ftp" }), "type"),
        (json!({ "type": 1 }), "type"),
        (json!({ "type": "tcp" }), "port"),
        (json!({ "expected_codes": "fine" }), "expected_codes"),
        (json!({ "interval": 10, "timeout": 5 }), "timeout"),
        (json!({ "interval": true }), "interval"),
        (json!({ "header": { "Host": "a" } }), "header.Host"),
        (json!({ "follow_redirects": "yes" }), "follow_redirects"),
    ] {
        for answer in [edge.post(&monitors, body.clone()).await, edge.patch(&path, body.clone()).await] {
            let message = answer.refused(400, 1004);
            assert!(message.contains(said), "{body}: {message}");
        }
    }
    edge.call(Method::POST, &monitors, "[]").await.refused(400, 6007);
    edge.call(Method::POST, &monitors, format!("{}1", r#"{"a":"#.repeat(10_000))).await.refused(400, 6007);
    for path in [nobody(&monitors), format!("{monitors}/x"), nobody("/user/load_balancers/monitors")] {
        edge.get(&path).await.refused(404, 7003);
        edge.put(&path, json!({})).await.refused(404, 7003);
        edge.delete(&path).await.refused(404, 7003);
    }
    edge.get(&monitors.replace(&edge.account, &"0".repeat(32))).await.refused(404, 7003);
    assert_eq!(edge.revision(), revision);
}

#[tokio::test]
async fn a_pool_is_made_read_replaced_changed_and_removed() {
    let edge = Edge::start().await;
    let (pools, monitors) = (edge.balance("/pools"), edge.balance("/monitors"));
    let monitor = edge.post(&monitors, json!({ "description": "of the shop" })).await.result()["id"].clone();
    let origin =
        json!({ "name": "a", "address": "Origin.Test.", "weight": "0.3", "header": { "Host": ["shop.test"] } });
    let wanted = json!({ "name": "shop", "origins": [origin], "monitor": monitor, "notification_email": "a@b.test" });
    let made = edge.post(&pools, wanted.clone()).await.result();
    let path = format!("{pools}/{}", made["id"].as_str().unwrap());
    let origin = json!({
        "name": "a", "address": "origin.test", "port": 0, "weight": 0.3, "enabled": true,
        "header": { "Host": ["shop.test"] }, "virtual_network_id": null, "flatten_cname": false,
    });
    assert_eq!((&made["origins"], &made["minimum_origins"]), (&json!([origin]), &json!(1)));
    assert_eq!((&made["check_regions"], &made["latitude"]), (&Value::Null, &Value::Null));
    assert_eq!(edge.get(&path).await.result(), made);
    assert_eq!(edge.get(&path.replace(&format!("/accounts/{}", edge.account), "/user")).await.result(), made);

    let revision = edge.revision();
    for body in [wanted.clone(), made.clone()] {
        assert_eq!(edge.put(&path, body.clone()).await.result(), made);
        assert_eq!(edge.patch(&path, body).await.result(), made);
    }
    assert_eq!(edge.revision(), revision);

    // Since when it is off is said, and stays.
    let off = edge.patch(&path, json!({ "enabled": false })).await.result();
    assert!(off["disabled_at"].is_string() && off["origins"] == made["origins"]);
    let still = edge.patch(&path, json!({ "description": "off" })).await.result();
    assert_eq!(still["disabled_at"], off["disabled_at"]);
    assert_eq!(edge.patch(&path, json!({ "enabled": null })).await.result()["disabled_at"], Value::Null);

    edge.post(&pools, wanted.clone()).await.refused(409, 1013);
    let other = edge.made(&pools, json!({ "name": "other", "origins": [] })).await;
    edge.patch(&other, json!({ "name": "shop" })).await.refused(409, 1013);
    assert_eq!(edge.patch(&other, json!({ "name": "third" })).await.result()["name"], "third");

    let of = async |query: &str| edge.get(&format!("{pools}{query}")).await.result().as_array().unwrap().len();
    assert_eq!((of("").await, of(&format!("?monitor={}", monitor.as_str().unwrap())).await), (2, 1));
    assert_eq!((of("?monitor=x").await, of(&format!("?monitor={}", "0".repeat(32))).await), (0, 0));

    // Who is told of all of them.
    let all = edge.patch(&pools, json!({ "notification_email": "ops@b.test" })).await.result();
    assert!(all.as_array().unwrap().iter().all(|pool| pool["notification_email"] == "ops@b.test"), "{all}");
    let revision = edge.revision();
    edge.patch(&pools, json!({ "notification_email": "ops@b.test" })).await.result();
    edge.patch(&pools, json!({ "notification_email": "nobody" })).await.refused(400, 1004);
    edge.patch(&pools, json!({})).await.refused(400, 1004);
    assert_eq!(edge.revision(), revision);

    // Nobody has asked the origins, and nothing says otherwise.
    let health = edge.get(&format!("{path}/health")).await.result();
    assert_eq!(health, json!({ "pool_id": made["id"], "pop_health": {} }));
    edge.get(&format!("{}/health", nobody(&pools))).await.refused(404, 7003);
    assert!(edge.get(&edge.balance("/regions")).await.result()["regions"].as_array().unwrap().len() > 10);
    assert_eq!(edge.get(&edge.balance("/regions/WEU")).await.result()["regions"][0]["region_code"], "WEU");
    let west = edge.get(&edge.balance("/regions/WNAM")).await.result();
    assert_eq!(west["regions"][0]["countries"][0]["country_code_a2"], "US");
    assert_eq!(west["regions"][0]["countries"][0]["country_subdivisions"][0]["subdivision_code_a2"], "AK");
    edge.get(&edge.balance("/regions/MOON")).await.refused(404, 7003);
}

#[tokio::test]
async fn what_is_referred_to_stays() {
    let edge = Edge::start().await;
    let (pools, monitors) = (edge.balance("/pools"), edge.balance("/monitors"));
    let monitor = edge.made(&monitors, json!({})).await;
    let id = monitor.rsplit('/').next().unwrap();
    let pool = edge.made(&pools, json!({ "name": "shop", "origins": [], "monitor": id })).await;
    let message = edge.delete(&monitor).await.refused(412, 2412);
    assert!(message.contains("pool shop"), "{message}");
    let referrers = edge.get(&format!("{monitor}/references")).await.result();
    assert_eq!((&referrers[0]["reference_type"], &referrers[0]["resource_name"]), (&json!("referrer"), &json!("shop")));
    let referrals = edge.get(&format!("{pool}/references")).await.result();
    assert_eq!((&referrals[0]["reference_type"], &referrals[0]["resource_id"]), (&json!("referral"), &json!(id)));
    edge.patch(&pool, json!({ "monitor": "" })).await.result();
    edge.delete(&monitor).await.result();
    edge.get(&format!("{monitor}/references")).await.refused(404, 7003);
    let message = edge.patch(&pool, json!({ "monitor": id })).await.refused(400, 1004);
    assert!(message.contains("monitor"), "{message}");
    edge.delete(&pool).await.result();
    edge.delete(&pool).await.refused(404, 7003);
    for (body, said) in [
        (json!({ "name": "a" }), "origins"),
        (json!({ "origins": [] }), "name"),
        (json!({ "name": "a", "origins": [{ "address": "a.test", "port": "x" }] }), "origins[0].port"),
        (json!({ "name": "a", "origins": [{ "address": "a b" }] }), "origins[0].address"),
        (json!({ "name": "a", "origins": [], "monitor": "0".repeat(32) }), "monitor"),
        (json!({ "name": "a", "origins": [null] }), "origins[0]"),
    ] {
        let message = edge.post(&pools, body.clone()).await.refused(400, 1004);
        assert!(message.contains(said), "{body}: {message}");
    }
    assert_eq!(edge.get(&pools).await.result(), json!([]));
}

#[tokio::test]
async fn a_load_balancer_is_made_read_replaced_changed_and_removed() {
    let edge = Edge::start().await;
    let (balancers, pools) = (format!("/zones/{}/load_balancers", edge.zone), edge.balance("/pools"));
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        ids.push(edge.post(&pools, json!({ "name": name, "origins": [] })).await.result()["id"].clone());
    }
    let wanted = json!({
        "name": "Shop.Example.Test.", "default_pools": [ids[0]], "fallback_pool": ids[1], "ttl": "60",
        "random_steering": { "pool_weights": { ids[0].as_str().unwrap(): 0.2 } },
        "rules": [{ "name": "r", "condition": "ssl", "overrides": { "steering_policy": "random" } }],
    });
    let made = edge.post(&balancers, wanted.clone()).await.result();
    let path = format!("{balancers}/{}", made["id"].as_str().unwrap());
    let below_account = edge.balance(&format!("/{}", made["id"].as_str().unwrap()));
    assert_eq!((&made["name"], &made["zone_name"]), (&json!("shop.example.test"), &json!("example.test")));
    assert_eq!((&made["ttl"], &made["steering_policy"], &made["proxied"]), (&json!(60), &json!(""), &json!(false)));
    assert_eq!(edge.get(&path).await.result(), made);
    assert_eq!(edge.get(&below_account).await.result(), made);
    for list in [&balancers, &edge.balance("")] {
        assert_eq!(edge.get(list).await.result(), json!([made]));
    }
    let revision = edge.revision();
    for body in [wanted.clone(), made.clone()] {
        assert_eq!(edge.put(&path, body.clone()).await.result(), made);
        assert_eq!(edge.patch(&path, body).await.result(), made);
    }
    assert_eq!(edge.revision(), revision);

    let changed = edge.patch(&path, json!({ "proxied": true, "session_affinity": "cookie" })).await.result();
    assert_eq!((&changed["ttl"], &changed["session_affinity_ttl"]), (&Value::Null, &json!(82_800)));
    assert_eq!(changed["rules"], made["rules"]);
    let headers = json!({ "session_affinity": "header", "session_affinity_attributes": { "headers": ["x-app"] } });
    assert_eq!(edge.patch(&below_account, headers).await.result()["session_affinity_ttl"], 1800);

    // A name is one load balancer's, and lies in the zone; records are not in its way.
    edge.post(&balancers, wanted.clone()).await.refused(409, 1013);
    edge.post(&edge.balance(""), wanted.clone()).await.refused(409, 1013);
    let record = json!({ "type": "A", "name": "shop", "content": "192.0.2.1" });
    edge.post(&format!("/zones/{}/dns_records", edge.zone), record).await.result();
    let records = edge.get(&format!("/zones/{}/dns_records", edge.zone)).await.result();
    assert_eq!(records.as_array().unwrap().len(), 1, "what a load balancer owns is not in the list");
    let with = |member: &str, value: Value| {
        let mut body = wanted.clone();
        body["name"] = json!("b.example.test");
        body[member] = value;
        body
    };
    let revision = edge.revision();
    for (body, said) in [
        (with("name", json!("a.other.test")), "name"),
        (with("default_pools", json!(["0".repeat(32)])), "no pool"),
        (with("default_pools", json!("x")), "default_pools"),
        (with("fallback_pool", Value::Null), "fallback_pool"),
        (with("steering_policy", json!("proximity")), "proximity"),
        (with("rules", json!([{ "name": "r", "priority": "x" }])), "priority"),
    ] {
        let message = edge.post(&balancers, body.clone()).await.refused(400, 1004);
        assert!(message.contains(said), "{body}: {message}");
    }
    edge.post(&edge.balance(""), with("name", json!("a.other.test"))).await.refused(400, 1004);
    for path in [nobody(&balancers), nobody(&edge.balance("")), format!("{balancers}/x")] {
        edge.get(&path).await.refused(404, 7003);
        edge.put(&path, json!({})).await.refused(404, 7003);
        edge.delete(&path).await.refused(404, 7003);
    }
    assert_eq!(edge.revision(), revision);

    // A pool that is referred to stays, by whichever member.
    for id in &ids {
        let pool = format!("{pools}/{}", id.as_str().unwrap());
        let message = edge.delete(&pool).await.refused(412, 2412);
        assert!(message.contains("shop.example.test"), "{message}");
        let referrer = &edge.get(&format!("{pool}/references")).await.result()[0];
        assert_eq!((&referrer["resource_type"], &referrer["resource_id"]), (&json!("load_balancer"), &made["id"]));
    }
    assert_eq!(edge.delete(&path).await.result(), json!({ "id": made["id"] }));
    edge.delete(&path).await.refused(404, 7003);

    // A zone takes its load balancers with it, and another one of its name does not have them.
    let zone = edge.post("/zones", json!({ "name": "other.test" })).await.result()["id"].clone();
    let other = edge.post(&edge.balance(""), with("name", json!("a.other.test"))).await.result();
    assert_eq!(other["zone_id"], zone);
    let place = json!({ "latitude": 1, "longitude": 2 });
    for id in &ids {
        edge.patch(&format!("{pools}/{}", id.as_str().unwrap()), place.clone()).await.result();
    }
    let near = edge.balance(&format!("/{}", other["id"].as_str().unwrap()));
    edge.patch(&near, json!({ "steering_policy": "proximity" })).await.result();
    let pool = format!("{pools}/{}", ids[0].as_str().unwrap());
    edge.patch(&pool, json!({ "latitude": null, "longitude": null })).await.refused(400, 1004);
    edge.delete(&format!("/zones/{}", zone.as_str().unwrap())).await.result();
    edge.get(&near).await.refused(404, 7003);
    edge.delete(&pool).await.result();
    edge.post("/zones", json!({ "name": "other.test" })).await.result();
    assert_eq!(edge.get(&format!("/zones/{}/load_balancers", zone.as_str().unwrap())).await.result(), json!([]));
}

#[tokio::test]
async fn monitors_pools_and_load_balancers_are_found_by_their_names() {
    let edge = Edge::start().await;
    let monitor = edge.post(&edge.balance("/monitors"), json!({ "description": "of the shop" })).await.result();
    let pool = json!({ "name": "Shop", "origins": [], "monitor": monitor["id"] });
    let pool = edge.post(&edge.balance("/pools"), pool).await.result();
    edge.post(&edge.balance("/pools"), json!({ "name": "other", "origins": [] })).await.result();
    let balancer = json!({ "name": "shop.example.test", "default_pools": [pool["id"]], "fallback_pool": pool["id"] });
    let balancer = edge.post(&edge.balance(""), balancer).await.result();
    let search = edge.balance("/search");
    let names = async |query: &str| {
        let found = edge.get(&format!("{search}?{query}")).await.result();
        let resources = found["resources"].as_array().unwrap().clone();
        let wrapped = if resources.is_empty() { json!([]) } else { json!([{ "resources": resources }]) };
        assert_eq!(found["items"], wrapped);
        resources.iter().map(|one| one["resource_name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(names("").await, "of the shop, Shop, other, shop.example.test");
    assert_eq!(names("query=SHOP").await, "of the shop, Shop, shop.example.test");
    assert_eq!(names("query=shop&page=2&per_page=2").await, "shop.example.test");
    assert_eq!(names("query=shop&page=2").await, "");
    assert_eq!(names(&format!("query={}", pool["id"].as_str().unwrap())).await, "Shop");
    let found = edge.get(&format!("{search}?query=shop&references=*")).await;
    assert_eq!(found.json()["result_info"]["total_count"], 3);
    let references = |index: usize| {
        let references = found.result()["resources"][index]["references"].as_array().unwrap().clone();
        references.iter().map(|one| (one["reference_type"].clone(), one["resource_id"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(references(0), [(json!("referrer"), pool["id"].clone())]);
    assert_eq!(
        references(1),
        [(json!("referral"), monitor["id"].clone()), (json!("referrer"), balancer["id"].clone())]
    );
    assert_eq!(references(2), [(json!("referral"), pool["id"].clone())]);
    edge.get(&format!("{search}?references=all")).await.refused(400, 1004);
}

#[tokio::test]
async fn a_token_for_pools_and_monitors_reaches_no_load_balancers() {
    let edge = Edge::start().await;
    let pool = edge.post(&edge.balance("/pools"), json!({ "name": "one", "origins": [] })).await.result();
    let balancer = json!({ "name": "a.example.test", "default_pools": [pool["id"]], "fallback_pool": pool["id"] });
    edge.post(&edge.balance(""), balancer.clone()).await.result();
    let policy = |group: &str| {
        let resources = json!({ format!("com.cloudflare.api.account.{}", edge.account): "*" });
        let groups = json!([{ "name": format!("Load Balancing: Monitors and Pools {group}") }]);
        json!({ "name": "t", "policies": [{ "effect": "allow", "resources": resources, "permission_groups": groups }] })
    };
    let token = async |group: &str| {
        let made = edge.post("/user/tokens", policy(group)).await.result();
        format!("Bearer {}", made["value"].as_str().unwrap())
    };
    let (read, write) = (token("Read").await, token("Write").await);
    let ask = async |bearer: &str, method: Method, path: &str, body: &Value| {
        edge.send(method, &format!("/client/v4{path}"), &[("authorization", bearer)], body.to_string()).await
    };
    for path in [edge.balance("/pools"), "/user/load_balancers/pools".to_owned()] {
        assert_eq!(ask(&read, Method::GET, &path, &json!({})).await.result()[0], pool);
        ask(&read, Method::POST, &path, &json!({ "name": "two", "origins": [] })).await.refused(403, 10000);
        ask(&write, Method::POST, &path, &json!({ "name": path.len().to_string(), "origins": [] })).await.result();
    }
    ask(&write, Method::POST, &edge.balance("/monitors"), &json!({})).await.result();
    ask(&write, Method::GET, &edge.balance(""), &json!({})).await.refused(403, 10000);
    ask(&write, Method::POST, &edge.balance(""), &balancer).await.refused(403, 10000);
    // Not even their names.
    let references = edge.balance(&format!("/pools/{}/references", pool["id"].as_str().unwrap()));
    assert_eq!(ask(&write, Method::GET, &references, &json!({})).await.result(), json!([]));
    assert_eq!(edge.get(&references).await.result().as_array().unwrap().len(), 1);
    let found = ask(&read, Method::GET, &edge.balance("/search?references=*&query=one"), &json!({})).await.result();
    assert_eq!(
        (&found["resources"][0]["resource_name"], &found["resources"][0]["references"]),
        (&json!("one"), &json!([]))
    );
}

#[tokio::test]
async fn a_token_reaches_the_load_balancers_of_its_zones_only() {
    let edge = Edge::start().await;
    let pools = edge.balance("/pools");
    let pool = edge.post(&pools, json!({ "name": "one", "origins": [] })).await.result()["id"].clone();
    let other = edge.post("/zones", json!({ "name": "other.test" })).await.result()["id"].clone();
    let other = other.as_str().unwrap();
    let terms = |name: &str| json!({ "name": name, "default_pools": [pool], "fallback_pool": pool });
    let mine = edge.post(&edge.balance(""), terms("a.example.test")).await.result();
    let theirs = edge.post(&edge.balance(""), terms("a.other.test")).await.result();
    let account = json!({ format!("com.cloudflare.api.account.{}", edge.account): "*" });
    let zone = json!({ format!("com.cloudflare.api.account.zone.{other}"): "*" });
    let policy = |effect: &str, resources: Value| {
        let groups = json!([{ "name": "Load Balancers Write" }, { "name": "Load Balancers Read" }]);
        json!({ "effect": effect, "resources": resources, "permission_groups": groups })
    };
    let token = async |policies: Value| {
        let made = edge.post("/user/tokens", json!({ "name": "t", "policies": policies })).await.result();
        format!("Bearer {}", made["value"].as_str().unwrap())
    };
    let all_but_one = token(json!([policy("allow", account), policy("deny", zone.clone())])).await;
    let only_one = token(json!([policy("allow", zone)])).await;
    let ask = async |bearer: &str, method: Method, path: &str, body: &Value| {
        edge.send(method, &format!("/client/v4{path}"), &[("authorization", bearer)], body.to_string()).await
    };
    let list = ask(&all_but_one, Method::GET, &edge.balance(""), &json!({})).await.result();
    assert_eq!(list, json!([mine]));
    let path = edge.balance(&format!("/{}", theirs["id"].as_str().unwrap()));
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        ask(&all_but_one, method, &path, &terms("a.other.test")).await.refused(404, 7003);
    }
    let made = ask(&all_but_one, Method::POST, &edge.balance(""), &terms("b.other.test")).await;
    assert!(matches!(made.status.as_u16(), 403 | 404), "{}", made.text);
    ask(&only_one, Method::GET, &edge.balance(""), &json!({})).await.refused(404, 7003);
    let of_zone = format!("/zones/{other}/load_balancers");
    assert_eq!(ask(&only_one, Method::GET, &of_zone, &json!({})).await.result(), json!([theirs]));
    ask(&only_one, Method::POST, &of_zone, &terms("b.other.test")).await.result();
    // One of another zone is not found below this one.
    let foreign = format!("{of_zone}/{}", mine["id"].as_str().unwrap());
    ask(&only_one, Method::DELETE, &foreign, &json!({})).await.refused(404, 7003);
}

#[tokio::test]
async fn the_health_of_a_pool_is_shown_by_pop_with_reason_and_since_when() {
    let edge = Edge::start().await;
    let (_, tunnel) = edge.tunnel("app").await;
    let monitor = edge.post(&edge.balance("/monitors"), json!({})).await.result()["id"].clone();
    let behind = format!("{tunnel}.cfargotunnel.com");
    let pool =
        json!({ "name": "shop", "monitor": monitor, "origins": [{ "address": "192.0.2.1" }, { "address": behind }] });
    let pool = edge.post(&edge.balance("/pools"), pool).await.result();
    // Nobody has asked; nobody has said that it does not answer.
    assert_eq!(pool["healthy"], true);
    let path = format!("{}/{}", edge.balance("/pools"), pool["id"].as_str().unwrap());
    let health = edge.get(&format!("{path}/health")).await.result();
    let pop = &health["pop_health"]["lab01"];
    assert_eq!(
        pop["origins"][0]["192.0.2.1"],
        json!({ "healthy": true, "failure_reason": "No failures", "probe": "unknown" })
    );
    let unlinked = json!({ "healthy": false, "failure_reason": "the tunnel has no connection", "probe": "unknown", "link": "down" });
    assert_eq!((&pop["origins"][1][&behind], &pop["healthy"]), (&unlinked, &json!(true)));

    let nowhere = ([127, 0, 0, 1], 0).into();
    edge.registry.introduce(NodeRecord {
        id: edge.registry.node(),
        name: "n".into(),
        location: "ams1".into(),
        region: None,
        addresses: NodeAddresses { http: nowhere, https: nowhere, tunnel: vec![], api: nowhere, dns: None },
        version: "1".into(),
        started_at: Timestamp::UNIX_EPOCH,
    });
    let id: PoolId = pool["id"].as_str().unwrap().parse().unwrap();
    let member = edge.registry.snapshot().pool(id).unwrap().members().next().unwrap().0;
    let reason = Some("HTTP 500 instead of 200".into());
    let since = Timestamp::UNIX_EPOCH;
    let told =
        MemberReport { member, is_up: false, since, reason, code: Some(500), millis: Some(12), is_unasked: false };
    edge.registry.report_health(PoolReport { pool: id, members: vec![told] });
    let health = edge.get(&format!("{path}/health")).await.result();
    let shown = json!({ "healthy": false, "failure_reason": "HTTP 500 instead of 200", "probe": "down", "response_code": 500,
        "rtt": "12ms", "since": "1970-01-01T00:00:00Z" });
    let found = json!({ "healthy": false, "origins": [{ "192.0.2.1": shown }, { (behind.clone()): unlinked }] });
    assert_eq!(health, json!({ "pool_id": pool["id"], "pop_health": { "ams1": found } }));
    assert_eq!(edge.get(&path).await.result()["healthy"], false);

    let _connection = edge.connect(tunnel, uuid::Uuid::new_v4());
    let health = edge.get(&format!("{path}/health")).await.result();
    let pop = &health["pop_health"]["ams1"];
    assert_eq!((&pop["origins"][1][&behind]["link"], &pop["healthy"]), (&json!("up"), &json!(true)));
    assert!(pop["origins"][1][&behind]["since"].is_string());
    assert_eq!(edge.get(&edge.balance("/pools")).await.result()[0]["healthy"], true);

    // Since when an origin is off is said by the registry alone.
    let off = json!([{ "address": "192.0.2.1", "enabled": false, "disabled_at": "2000-01-01T00:00:00Z" }]);
    let off = edge.patch(&path, json!({ "origins": off })).await.result()["origins"][0]["disabled_at"].clone();
    assert!(off.as_str().unwrap() > "2026");
    let still = edge
        .patch(&path, json!({ "origins": [{ "address": "192.0.2.1", "enabled": false, "name": "a" }] }))
        .await
        .result();
    assert_eq!(still["origins"][0]["disabled_at"], off);
    let on = edge.patch(&path, json!({ "origins": [{ "address": "192.0.2.1" }] })).await.result();
    assert_eq!(on["origins"][0].get("disabled_at"), None);
}

#[tokio::test]
async fn a_preview_shows_what_a_monitor_would_find() {
    let edge = Edge::start().await;
    let pools = edge.balance("/pools");
    let pool = json!({ "name": "shop", "origins": [{ "address": "192.0.2.1" }, { "address": "192.0.2.2" }] });
    let pool = edge.post(&pools, pool).await.result();
    let path = format!("{pools}/{}/preview", pool["id"].as_str().unwrap());
    let begun = edge.post(&path, json!({ "expected_codes": "204" })).await.result();
    assert_eq!(begun["pools"][pool["id"].as_str().unwrap()], "shop");
    let id = begun["preview_id"].as_str().unwrap();
    let shown = edge.balance(&format!("/preview/{id}"));
    let done = async || edge.get(&shown).await.result() != json!({});
    harness::until(harness::LIMIT, "the preview is done", done).await;
    let found = &edge.get(&shown).await.result()[pool["id"].as_str().unwrap()];
    assert_eq!((&found["healthy"], &found["origins"][0]["192.0.2.1"]["healthy"]), (&json!(true), &json!(true)));
    assert_eq!(found["origins"][1]["192.0.2.2"]["failure_reason"], "no 204");

    edge.post(&path, json!({ "expected_codes": "ok" })).await.refused(400, 1004);
    edge.post(&format!("{}/preview", nobody(&pools)), json!({})).await.refused(404, 7003);
    edge.get(&nobody(&edge.balance("/preview"))).await.refused(404, 7003);
    // Only the latest are kept.
    for _ in 0..100 {
        // A few go on at once; each ends at once here.
        let begun = async || edge.post(&path, json!({})).await.status == 200;
        harness::until(harness::LIMIT, "there is a place", begun).await;
    }
    edge.get(&shown).await.refused(404, 7003);
}

#[tokio::test]
async fn people_see_pools_whole_and_change_members_one_by_one() {
    let edge = Edge::start().await;
    let own = async |token: &str, method: Method, path: &str, body: Value| {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        edge.send(method, &format!("/snicket/v1{path}"), &[("authorization", &bearer)], body).await
    };
    let mine = edge.token.clone();
    let origins = json!([{ "name": "a", "address": "192.0.2.1" }, { "address": "b.test", "weight": 0.5, "port": 81 }]);
    let pool = edge.post(&edge.balance("/pools"), json!({ "name": "web", "origins": origins })).await.result();
    let path = format!("/pools/{}", pool["id"].as_str().unwrap());
    let shown = own(&mine, Method::GET, &path, Value::Null).await.result();
    assert_eq!(shown, own(&mine, Method::GET, "/pools/web", Value::Null).await.result());
    assert_eq!(json!([shown]), own(&mine, Method::GET, "/pools", Value::Null).await.result());
    let shares = |pool: &Value| {
        pool["members"].as_array().unwrap().iter().map(|it| it["wanted_share"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (shares(&shown), &shown["members"][1]["served_share"]),
        (vec![json!(0.6667), json!(0.3333)], &Value::Null)
    );

    // Each change is one of the member alone.
    let member = |at: usize| format!("{path}/members/{}", shown["members"][at]["id"].as_str().unwrap());
    let changed = own(&mine, Method::PATCH, &member(1), json!({ "weight": 1 })).await.result();
    assert_eq!((shares(&changed), &changed["members"][1]["port"]), (vec![json!(0.5), json!(0.5)], &json!(81)));
    let changed =
        own(&mine, Method::POST, &format!("{path}/members"), json!({ "address": "192.0.2.3" })).await.result();
    assert_eq!(changed["members"].as_array().unwrap().len(), 3);
    let (first, second) = (member(0), member(1));
    let both = tokio::join!(
        own(&mine, Method::PATCH, &first, json!({ "enabled": false })),
        own(&mine, Method::DELETE, &second, Value::Null),
    );
    assert_eq!((both.0.status, both.1.status), (200.try_into().unwrap(), 200.try_into().unwrap()));
    let shown_now = own(&mine, Method::GET, &path, Value::Null).await.result();
    assert_eq!(shares(&shown_now), [json!(0.0), json!(1.0)], "neither change undid the other: {shown_now}");

    own(&mine, Method::PATCH, &member(1), json!({ "weight": 1 })).await.refused(404, 7003);
    own(&mine, Method::PATCH, &member(0), json!({ "weight": 2 })).await.refused(400, 1004);
    own(&mine, Method::POST, &format!("{path}/members"), json!({ "address": "192.0.2.1" })).await.refused(400, 1004);
    own(&mine, Method::POST, &format!("{path}/members"), json!({})).await.refused(400, 1004);
    own(&mine, Method::POST, "/pools/none/members", json!({ "address": "a.test" })).await.refused(404, 7003);
    own(&mine, Method::DELETE, &format!("{path}/members/x"), Value::Null).await.refused(404, 7003);
    own("nobody", Method::GET, &path, Value::Null).await.refused(403, 9109);
}
