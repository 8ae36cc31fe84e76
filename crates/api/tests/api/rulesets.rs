use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;
use crate::items::{NO_OBJECTS, below};

const FIREWALL: &str = "phases/http_request_firewall_custom/entrypoint";

fn expressions(ruleset: &Value) -> Vec<&str> {
    ruleset["rules"].as_array().unwrap().iter().map(|rule| rule["expression"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_entry_point_is_made_replaced_and_changed_rule_by_rule() {
    let edge = Edge::start().await;
    let rulesets = format!("/zones/{}/rulesets", edge.zone);
    let entry = format!("{rulesets}/{FIREWALL}");
    edge.get(&entry).await.refused(404, 10003);
    let wanted = json!({ "description": "who may not", "rules": [
        { "action": "block", "expression": "ip.src eq 192.0.2.1", "description": "one" },
        { "action": "log", "expression": "http.host contains \"a\"", "ref": "mine", "enabled": false,
            "logging": { "enabled": true },
          "action_parameters": { "any": [1, null] } },
    ]});
    let made = edge.put(&entry, wanted.clone()).await.result();
    assert_eq!((&made["name"], &made["kind"], &made["version"]), (&json!("default"), &json!("zone"), &json!("1")));
    assert_eq!(made["phase"], "http_request_firewall_custom");
    let rules = made["rules"].as_array().unwrap();
    assert_eq!((&rules[0]["ref"], &rules[1]["ref"]), (&rules[0]["id"], &json!("mine")));
    assert_eq!((&rules[0]["enabled"], &rules[0]["version"]), (&json!(true), &json!("1")));
    assert_eq!(rules[1]["action_parameters"], json!({ "any": [1, null] }));
    let path = below(&rulesets, &made);
    assert_eq!((edge.get(&entry).await.result(), edge.get(&path).await.result()), (made.clone(), made.clone()));

    // The same again, as it was sent or as it was read.
    let revision = edge.latest();
    for body in [&wanted, &made] {
        assert_eq!(edge.put(&entry, body.clone()).await.result(), made);
        assert_eq!(edge.put(&path, body.clone()).await.result(), made);
    }
    assert_eq!(edge.latest(), revision);

    let rule = json!({ "action": "block", "expression": "b", "position": { "index": 1 } });
    let more = edge.post(&format!("{path}/rules"), rule).await.result();
    assert_eq!((expressions(&more)[0], &more["version"]), ("b", &json!("2")));
    let id = |index: usize| more["rules"][index]["id"].as_str().unwrap();
    let moved = json!({ "expression": "c", "position": { "after": id(1) } });
    let moved = edge.patch(&format!("{path}/rules/{}", id(0)), moved).await.result();
    assert_eq!((expressions(&moved)[1], &moved["rules"][1]["id"]), ("c", &more["rules"][0]["id"]));
    assert_eq!((&moved["rules"][1]["version"], &moved["version"]), (&json!("2"), &json!("3")));
    assert_eq!(moved["rules"][0], rules[0], "the others stay as they are");
    let less = edge.remove(&format!("{path}/rules/{}", id(0))).await.result();
    assert_eq!((&less["rules"], &less["version"]), (&made["rules"], &json!("4")));
    assert_eq!(edge.get(&format!("{path}/versions/4")).await.result(), less);
    assert_eq!(edge.get(&format!("{path}/versions")).await.result()[0]["version"], "4");
    edge.get(&format!("{path}/versions/1")).await.refused(404, 7003);
    edge.remove(&format!("{path}/rules/{}", id(0))).await.refused(404, 7003);
    edge.patch(&format!("{path}/rules/x"), json!({})).await.refused(404, 7003);

    assert_eq!(edge.put(&entry, json!({})).await.result()["rules"], json!([]), "what replaces all is all there is");
    assert_eq!(edge.remove(&path).await.result(), json!({ "id": made["id"] }));
    edge.get(&entry).await.refused(404, 10003);
}

#[tokio::test]
async fn what_are_no_rules_is_refused_and_changes_nothing() {
    let edge = Edge::start().await;
    let rulesets = format!("/zones/{}/rulesets", edge.zone);
    let entry = format!("{rulesets}/{FIREWALL}");
    let made = edge.put(&entry, json!({ "rules": [{ "action": "block", "expression": "a" }] })).await.result();
    let path = below(&rulesets, &made);
    let revision = edge.latest();
    for (rule, said) in [
        (json!(1), "rules[0]: an object"),
        (json!({ "expression": "a" }), "rules[0].action: it is missing"),
        (json!({ "action": "rewrite", "expression": "a" }), "rules[0].action: one of block"),
        (json!({ "action": "block" }), "rules[0].expression: it is missing"),
        (json!({ "action": "block", "expression": "" }), "rules[0].expression"),
        (json!({ "action": "block", "expression": "a".repeat(4097) }), "rules[0].expression: a text of 1 to 4096"),
        (json!({ "action": "block", "expression": "a\u{0}" }), "rules[0].expression"),
        (json!({ "action": "block", "expression": "a", "enabled": 1 }), "rules[0].enabled"),
        (json!({ "action": "block", "expression": "a", "id": "x" }), "rules[0].id"),
        (
            json!({ "action": "block", "expression": "a", "action_parameters": [] }),
            "rules[0].action_parameters: an object",
        ),
        (
            json!({ "action": "block", "expression": "a", "ratelimit": { "characteristics": ["ip.src"],
                "period": 10 } }),
            "rules[0].ratelimit: only",
        ),
    ] {
        let message = edge.put(&entry, json!({ "rules": [rule] })).await.refused(400, 1004);
        assert!(message.starts_with(said), "{rule}: {message}");
    }
    for body in
        [json!({ "rules": {} }), json!({ "rules": vec![json!({ "action": "block", "expression": "a" }); 1001] })]
    {
        edge.put(&path, body).await.refused(400, 1004);
    }
    edge.put(&path, json!({ "kind": "root" })).await.refused(400, 1004);
    edge.put(&path, json!({ "phase": "http_ratelimit" })).await.refused(400, 1004);
    edge.post(&format!("{path}/rules"), json!({ "action": "block", "expression": "b", "position": { "index": 9 } }))
        .await
        .refused(400, 1004);
    for body in NO_OBJECTS {
        edge.call(Method::PUT, &entry, body).await.refused(400, 6007);
        edge.call(Method::POST, &format!("{path}/rules"), body).await.refused(400, 6007);
    }
    // A phase that others have and we do not, yet or ever.
    for phase in ["http_request_sanitize", "unheard_of"] {
        let entry = format!("{rulesets}/phases/{phase}/entrypoint");
        edge.get(&entry).await.refused(404, 10003);
        let message = edge.put(&entry, json!({ "rules": [] })).await.refused(400, 1004);
        assert!(message.contains("http_ratelimit"), "{message}");
    }
    let twin = json!({ "name": "a", "kind": "zone", "phase": "http_request_firewall_custom" });
    edge.post(&rulesets, twin).await.refused(409, 1013);
    edge.post(&rulesets, json!({ "name": "a", "kind": "custom", "phase": "http_ratelimit" })).await.refused(400, 1004);
    edge.post(&rulesets, json!({ "name": "a", "phase": "http_ratelimit" })).await.refused(400, 1004);
    assert_eq!(edge.latest(), revision);

    let limits = format!("{rulesets}/phases/http_ratelimit/entrypoint");
    let limit = json!({ "characteristics": ["ip.src", "cf.colo.id"], "period": "45", "requests_per_period": 100,
        "mitigation_timeout": 0 });
    let rule = |limit: Value| json!({ "rules": [{ "action": "block", "expression": "true", "ratelimit": limit }] });
    assert_eq!(edge.put(&limits, rule(limit)).await.result()["rules"][0]["ratelimit"]["period"], 45);
    for limit in
        [json!(null), json!({ "characteristics": [], "period": 10 }), json!({ "characteristics": ["a"], "period": 10 })]
    {
        edge.put(&limits, rule(limit)).await.refused(400, 1004);
    }
}

#[tokio::test]
async fn lists_of_rulesets_are_read_on_by_a_cursor() {
    let edge = Edge::start().await;
    let rulesets = format!("/accounts/{}/rulesets", edge.account);
    assert_eq!(edge.get(&rulesets).await.json()["result_info"], json!({ "count": 0, "per_page": 25 }));
    for index in 0..5 {
        let body = json!({ "name": format!("c{index}"), "kind": "custom", "phase": "http_request_firewall_custom" });
        edge.post(&rulesets, body).await.result();
    }
    let root = edge.put(&format!("{rulesets}/{FIREWALL}"), json!({})).await.result();
    assert_eq!(root["kind"], "root");
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = edge.get(&format!("{rulesets}?per_page=2&cursor={cursor}")).await;
        let (info, result) = (page.json()["result_info"].clone(), page.result());
        assert_eq!(info["count"], result.as_array().unwrap().len());
        names.extend(result.as_array().unwrap().iter().map(|ruleset| ruleset["name"].as_str().unwrap().to_owned()));
        assert!(result[0].get("rules").is_none());
        match info.get("cursor") {
            Some(next) => cursor = next.as_str().unwrap().to_owned(),
            None => break,
        }
        // Somebody removes what the cursor stands at.
        edge.remove(&format!("{rulesets}/{}", result[1]["id"].as_str().unwrap())).await.result();
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "default"]);
    edge.get(&format!("{rulesets}?cursor=x")).await.refused(400, 1004);
    assert_eq!(
        edge.get(&format!("/zones/{}/rulesets", edge.zone)).await.result(),
        json!([]),
        "the account's are not the zone's"
    );
}

#[tokio::test]
async fn rulesets_have_bounds_on_their_bytes_and_their_number() {
    let edge = Edge::start().await;
    let rulesets = format!("/zones/{}/rulesets", edge.zone);
    let entry = format!("{rulesets}/{FIREWALL}");
    let large = json!({ "action": "log", "expression": "true", "action_parameters": { "x": "y".repeat(30_000) } });
    let made = edge.put(&entry, json!({ "rules": vec![&large; 34] })).await.result();
    // Each body is small, and what they make together is not.
    let add = format!("{}/rules", below(&rulesets, &made));
    let message = edge.post(&add, large).await.refused(413, 1413);
    assert!(message.contains("1048576"), "{message}");
    assert_eq!(edge.get(&entry).await.result(), made);

    let of_account = format!("/accounts/{}/rulesets", edge.account);
    let custom = json!({ "name": "x", "kind": "custom", "phase": "http_request_firewall_custom", "rules": [] });
    for _ in 0..100 {
        edge.post(&of_account, custom.clone()).await.result();
    }
    edge.post(&of_account, custom).await.refused(400, 1045);
}
