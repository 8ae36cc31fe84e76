use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;

#[tokio::test]
async fn accounts_and_zones_are_found_the_way_tools_look() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/accounts").await.result()[0]["id"], edge.account.as_str());
    assert_eq!(edge.get(&format!("/accounts/{}", edge.account)).await.result()["type"], "standard");
    edge.get("/accounts/0123").await.refused(404, 7003);
    edge.get(&format!("/accounts/{}/tokens/verify", edge.account)).await.result();

    for (query, found) in [
        ("name=example.test", 1),
        ("name=EXAMPLE.test.", 1),
        ("name=a.example.test", 0),
        ("name=ends_with:.test", 1),
        ("name=contains:zzz", 0),
        ("status=active", 1),
        ("status=pending", 0),
        ("status=pending&name=example.test&match=any", 1),
        ("account.id=0123", 0),
        ("page=2", 0),
        ("per_page=1&page=1.0", 1),
        ("whatever=1", 1),
    ] {
        let answer = edge.get(&format!("/zones?{query}")).await;
        assert_eq!(answer.result().as_array().unwrap().len(), found, "{query}");
    }
    let zone = edge.get(&format!("/zones/{}", edge.zone)).await.result();
    assert_eq!((&zone["name"], &zone["status"]), (&json!("example.test"), &json!("active")));
    for field in ["owner", "plan", "meta", "name_servers", "created_on", "modified_on", "development_mode"] {
        assert!(!zone[field].is_null(), "{field}");
    }
    edge.get("/zones/00000000000000000000000000000000").await.refused(404, 7003);
    edge.get("/zones/x").await.refused(404, 7003);
    edge.get("/zones?page=x").await.refused(400, 1004);
}

#[tokio::test]
async fn a_zone_is_made_changed_and_deleted_with_all_it_has() {
    let edge = Edge::start().await;
    let account = json!({ "id": edge.account });
    let made =
        edge.post("/zones", json!({ "name": "Bücher.Test.", "account": account, "jump_start": true })).await.result();
    assert_eq!(
        (&made["name"], &made["type"], &made["paused"]),
        (&json!("xn--bcher-kva.test"), &json!("full"), &json!(false))
    );
    let path = format!("/zones/{}", made["id"].as_str().unwrap());
    edge.post("/zones", json!({ "name": "xn--bcher-kva.test" })).await.refused(400, 1061);
    for (body, said) in [
        (json!({}), "name"),
        (json!({ "name": "*.a.test" }), "wildcard"),
        (json!({ "name": "a b" }), "name"),
        (json!({ "name": "a.test", "type": "odd" }), "type"),
    ] {
        let answer = edge.post("/zones", body).await;
        assert!(answer.status == 400 && answer.text.contains(said), "{}", answer.text);
    }
    edge.post("/zones", json!({ "name": "a.test", "account": { "id": "0123" } })).await.refused(404, 7003);

    let patch = async |path: &str, body: Value| edge.call(Method::PATCH, path, body.to_string()).await;
    let changed = patch(&path, json!({ "paused": true, "plan": { "id": "x" } })).await.result();
    assert_eq!((&changed["paused"], &changed["type"]), (&json!(true), &json!("full")));
    let revision = edge.registry.snapshot().revision();
    assert_eq!(patch(&path, json!({ "paused": true })).await.result(), changed);
    assert_eq!(edge.registry.snapshot().revision(), revision, "the same again changes nothing");
    assert_eq!(edge.get(&path).await.result(), changed);

    edge.post(&format!("{path}/dns_records"), json!({ "type": "A", "name": "a", "content": "192.0.2.1" }))
        .await
        .result();
    assert_eq!(edge.call(Method::DELETE, &path, "").await.result()["id"], made["id"]);
    edge.call(Method::DELETE, &path, "").await.refused(404, 7003);
    edge.get(&path).await.refused(404, 7003);
    edge.get(&format!("{path}/dns_records")).await.refused(404, 7003);
    edge.post("/zones", json!({ "name": "xn--bcher-kva.test" })).await.result();
    assert_eq!(edge.get(&format!("{path}/dns_records")).await.result(), json!([]));
    let message = edge.call(Method::DELETE, &format!("/zones/{}", edge.zone), "").await.refused(400, 1004);
    assert!(message.contains("own domain"), "{message}");
}

#[tokio::test]
async fn settings_are_kept_and_checked() {
    let edge = Edge::start().await;
    let settings = format!("/zones/{}/settings", edge.zone);
    let all = edge.get(&settings).await.result();
    assert_eq!(all.as_array().unwrap().len(), 12);
    let usual = edge.get(&format!("{settings}/ssl")).await.result();
    assert_eq!(usual, json!({ "id": "ssl", "value": "full", "editable": true, "modified_on": null }));
    let patch = async |name: &str, value: Value| {
        edge.call(Method::PATCH, &format!("{settings}/{name}"), json!({ "value": value }).to_string()).await
    };
    let set = patch("ssl", json!("strict")).await.result();
    assert!(set["value"] == "strict" && set["modified_on"].is_string());
    assert_eq!(patch("browser_cache_ttl", json!("60.0")).await.result()["value"], 60);
    let revision = edge.registry.snapshot().revision();
    assert_eq!(patch("ssl", json!("strict")).await.result(), set);
    patch("http3", json!("on")).await.result();
    assert_eq!(edge.registry.snapshot().revision(), revision);
    for (name, value) in
        [("ssl", json!("on")), ("http3", json!(true)), ("browser_cache_ttl", json!(-1)), ("ipv6", Value::Null)]
    {
        patch(name, value).await.refused(400, 1004);
    }
    patch("unknown", json!("on")).await.refused(404, 7003);
    edge.get(&format!("{settings}/unknown")).await.refused(404, 7003);
    let dnssec = format!("/zones/{}/dnssec", edge.zone);
    assert_eq!(edge.get(&dnssec).await.result()["status"], "disabled");
    let wished = edge.call(Method::PATCH, &dnssec, r#"{"status":"active"}"#).await.result();
    // No node answers by DNS here.
    assert_eq!((&wished["status"], &wished["algorithm"]), (&json!("pending"), &json!("13")));
    let ds = format!("example.test. 3600 IN DS {} 13 2 {}", wished["key_tag"], wished["digest"].as_str().unwrap());
    assert_eq!(wished["ds"], ds);
    let off = edge.call(Method::PATCH, &dnssec, r#"{"status":"disabled"}"#).await.result();
    assert_eq!((&off["status"], &off["ds"]), (&json!("disabled"), &Value::Null));
    // Others may know the key for days.
    let again = edge.call(Method::PATCH, &dnssec, r#"{"status":"active"}"#).await.result();
    assert_eq!(again["public_key"], wished["public_key"]);
    edge.call(Method::PATCH, &dnssec, r#"{"status":"maybe"}"#).await.refused(400, 1004);
    assert_eq!(edge.get(&format!("/zones/{}/pagerules", edge.zone)).await.result(), json!([]));
}

#[tokio::test]
async fn settings_with_a_path_of_their_own_are_kept_like_the_others() {
    let edge = Edge::start().await;
    let zone = format!("/zones/{}", edge.zone);
    for (path, id) in [
        ("argo/smart_routing", "smart_routing"),
        ("argo/tiered_caching", "tiered_caching"),
        ("cache/tiered_cache_smart_topology_enable", "tiered_cache_smart_topology_enable"),
        ("cache/regional_tiered_cache", "tc_regional"),
        ("cache/cache_reserve", "cache_reserve"),
    ] {
        let path = format!("{zone}/{path}");
        let usual = edge.get(&path).await.result();
        assert_eq!(usual, json!({ "id": id, "value": "off", "editable": true, "modified_on": null }));
        let set = edge.patch(&path, json!({ "value": "on" })).await.result();
        assert!(set["value"] == "on" && set["modified_on"].is_string(), "{set}");
        let revision = edge.registry.snapshot().revision();
        assert_eq!(edge.patch(&path, set.clone()).await.result(), set);
        for value in [json!("maybe"), json!(true), Value::Null] {
            edge.patch(&path, json!({ "value": value })).await.refused(400, 1004);
        }
        assert_eq!(edge.registry.snapshot().revision(), revision);
        assert_eq!(edge.get(&path).await.result(), set);
        let gone = edge.call(Method::DELETE, &path, "").await.result();
        assert_eq!(gone, json!({ "id": id, "editable": true }));
        assert_eq!(edge.get(&path).await.result(), usual);
        edge.get(&path.replace(&edge.zone, &"0".repeat(32))).await.refused(404, 7003);
    }
    assert_eq!(edge.get(&format!("{zone}/settings")).await.result().as_array().unwrap().len(), 12);
    edge.get(&format!("{zone}/cache/unheard_of")).await.refused(404, 7000);
}

#[tokio::test]
async fn what_is_to_be_purged_is_checked_and_accepted() {
    let edge = Edge::start().await;
    let path = format!("/zones/{}/purge_cache", edge.zone);
    for body in [json!({ "purge_everything": true }), json!({ "files": ["https://www.example.test/a.css"] })] {
        assert_eq!(edge.post(&path, body).await.result(), json!({ "id": edge.zone }));
    }
    for body in ["{}", r#"{"hosts":["other.test"]}"#, r#"{"files":[],"tags":["a"]}"#] {
        edge.call(Method::POST, &path, body).await.refused(400, 1004);
    }
    for body in ["[]", "\"x\"", "{\"a\":", "{\"tags\":[1}"] {
        edge.call(Method::POST, &path, body).await.refused(400, 6007);
    }
    edge.get(&path).await.refused(405, 7001);
    edge.post("/zones/00000000000000000000000000000000/purge_cache", json!({})).await.refused(404, 7003);
}

#[tokio::test]
async fn a_zone_s_key_is_changed_step_by_step() {
    let edge = Edge::start().await;
    let path = format!("/snicket/v1/zones/{}/key", edge.zone);
    let call = async |method: Method, query: &str| {
        let bearer = format!("Bearer {}", edge.token);
        edge.send(method, &format!("{path}{query}"), &[("authorization", &bearer)], "").await
    };
    call(Method::GET, "").await.refused(404, 7003);
    call(Method::POST, "").await.refused(400, 1004);
    let dnssec = format!("/zones/{}/dnssec", edge.zone);
    let signed = edge.patch(&dnssec, json!({ "status": "active" })).await.result();
    let steady = call(Method::GET, "").await.result();
    assert_eq!((&steady["step"], &steady["ds"]), (&json!("steady"), &signed["ds"]));
    let published = call(Method::POST, "").await.result();
    assert_eq!((&published["step"], &published["ds"]), (&json!("published"), &signed["ds"]));
    assert_eq!(published["key_tags"].as_array().map(Vec::len), Some(2));
    assert!(call(Method::POST, "").await.refused(400, 1004).contains("too early"));
    let announced = call(Method::POST, "?force=true").await.result();
    assert_eq!(announced["step"], "announced");
    assert_ne!(announced["ds"], signed["ds"]);
    assert_eq!(edge.get(&dnssec).await.result()["ds"], announced["ds"], "what the registrar is to have");
    let kept = call(Method::DELETE, "").await.result();
    assert_eq!((&kept["step"], &kept["ds"]), (&json!("recalled"), &signed["ds"]));
    assert_eq!(kept["key_tags"].as_array().map(Vec::len), Some(2), "delegations may name the next one by now");
    assert!(call(Method::DELETE, "").await.refused(400, 1004).contains("too early"));
    let again = call(Method::POST, "").await.result();
    assert_eq!((&again["step"], &again["ds"]), (&json!("announced"), &announced["ds"]));
    assert!(!edge.get(&dnssec).await.text.contains("PRIVATE"));
}
