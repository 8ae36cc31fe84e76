//! What is kept as checked documents: applications, limits of requests, custom hostnames.

use http::Method;
use serde_json::{Value, json};

use crate::edge::{Answer, Edge};

impl Edge {
    pub(crate) async fn remove(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, "").await
    }

    pub(crate) fn latest(&self) -> u64 {
        self.registry.snapshot().revision()
    }

    fn of_zone(&self, rest: &str) -> String {
        format!("/zones/{}/{rest}", self.zone)
    }
}

/// The path of what was made below this one.
pub(crate) fn below(path: &str, made: &Value) -> String {
    format!("{path}/{}", made["id"].as_str().unwrap())
}

/// Bodies that are no JSON object, and what they are refused for.
pub(crate) const NO_OBJECTS: [&str; 6] = ["[]", "1", "\"a\"", "{\"a\":", "{\"a\":NaN}", "\u{0}"];

#[tokio::test]
async fn an_application_is_made_read_replaced_listed_and_removed() {
    let edge = Edge::start().await;
    let apps = edge.of_zone("spectrum/apps");
    assert_eq!(edge.get(&apps).await.result(), json!([]));
    let wanted = json!({
        "dns": { "type": "CNAME", "name": "SSH.example.test." }, "protocol": "TCP/22",
        "origin_direct": ["tcp://192.0.2.1:22"], "proxy_protocol": "v1", "tls": null, "unheard_of": 1,
    });
    let made = edge.post(&apps, wanted.clone()).await.result();
    let path = below(&apps, &made);
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    assert_eq!((&made["dns"]["name"], &made["protocol"]), (&json!("ssh.example.test"), &json!("tcp/22")));
    assert_eq!(
        (&made["tls"], &made["traffic_type"], &made["ip_firewall"]),
        (&json!("off"), &json!("direct"), &json!(false))
    );
    assert_eq!(made["edge_ips"], json!({ "type": "dynamic", "connectivity": "all" }));
    assert!(made["created_on"].is_string() && made["modified_on"].is_string());
    assert_eq!(edge.get(&path).await.result(), made);

    let revision = edge.latest();
    assert_eq!(edge.put(&path, wanted).await.result(), made);
    assert_eq!(edge.put(&path, made.clone()).await.result(), made);
    assert_eq!(edge.latest(), revision, "the same again is no change");
    let changed = json!({
        "dns": { "name": "ssh.example.test" }, "protocol": "tcp/1000-1002", "origin_port": "2000-2002",
        "origin_dns": { "name": "origin.other.test", "ttl": "60" },
    });
    let changed = edge.put(&path, changed).await.result();
    assert_eq!((&changed["created_on"], &changed["proxy_protocol"]), (&made["created_on"], &json!("off")));
    assert_eq!(changed["origin_dns"], json!({ "name": "origin.other.test", "type": "", "ttl": 60 }));
    assert!(changed.get("origin_direct").is_none() && changed["modified_on"] != made["modified_on"]);

    let second = json!({ "dns": { "name": "a.example.test" }, "protocol": "udp/53",
        "origin_direct": ["udp://[2001:db8::1]:53"] });
    let second = edge.post(&apps, second).await.result();
    let list = edge.get(&apps).await;
    assert_eq!((&list.json()["result_info"]["total_count"], list.result()), (&json!(2), json!([changed, second])));
    let sorted = edge.get(&format!("{apps}?order=dns")).await.result();
    assert_eq!(sorted, json!([second, changed]));
    assert_eq!(edge.get(&format!("{apps}?order=dns&direction=desc&per_page=1")).await.result(), json!([changed]));
    assert_eq!(edge.get(&format!("{apps}?page=3")).await.result(), json!([]));
    assert_eq!(edge.remove(&path).await.result(), json!({ "id": made["id"] }));
    edge.remove(&path).await.refused(404, 7003);
    edge.get(&path).await.refused(404, 7003);
    edge.patch(&below(&apps, &second), json!({})).await.refused(405, 7001);
}

#[tokio::test]
async fn what_is_no_application_is_refused_and_changes_nothing() {
    let edge = Edge::start().await;
    let apps = edge.of_zone("spectrum/apps");
    let good = json!({ "dns": { "name": "a.example.test" }, "protocol": "tcp/1000-1010", "origin_port": "1-11",
        "origin_dns": { "name": "b.test" } });
    let path = below(&apps, &edge.post(&apps, good.clone()).await.result());
    let revision = edge.latest();
    for (change, said) in [
        (json!({ "dns": null }), "dns: it is missing"),
        (json!({ "dns": { "name": "other.test" } }), "dns.name: other.test does not lie in"),
        (json!({ "dns": { "name": 1 } }), "dns.name"),
        (json!({ "dns": { "name": "a.example.test", "type": "A" } }), "dns.type: one of CNAME, ADDRESS"),
        (json!({ "protocol": "tcp" }), "protocol: a protocol and a port"),
        (json!({ "protocol": "tcp/70000" }), "protocol"),
        (json!({ "protocol": 22 }), "protocol"),
        (json!({ "protocol": "tcp/22" }), "origin_port: as many ports"),
        (json!({ "origin_port": 0 }), "origin_port"),
        (json!({ "origin_port": null }), "origin_port: a port is wanted"),
        (json!({ "origin_dns": null }), "origin_direct: either"),
        (json!({ "origin_direct": ["tcp://192.0.2.1:1-11"] }), "origin_direct: either"),
        (json!({ "origin_direct": ["tcp://192.0.2.1:1-11"], "origin_dns": null }), "origin_port: only"),
        (
            json!({ "origin_direct": ["udp://192.0.2.1:1-11"], "origin_dns": null, "origin_port": null }),
            "origin_direct[0]: the protocol",
        ),
        (
            json!({ "origin_direct": ["tcp://192.0.2.1:1"], "origin_dns": null, "origin_port": null }),
            "origin_direct[0]: as many",
        ),
        (json!({ "origin_direct": ["tcp://host:1"] }), "origin_direct[0]: a protocol, an IP"),
        (json!({ "proxy_protocol": "simple" }), "proxy_protocol: simple is for UDP"),
        (json!({ "protocol": "udp/1-11", "tls": "full" }), "tls: off is wanted for UDP"),
        (json!({ "protocol": "udp/1-11", "proxy_protocol": "v1" }), "proxy_protocol: v1 is for TCP"),
        (json!({ "edge_ips": { "type": "static" } }), "edge_ips.type: dynamic"),
        (json!({ "dns": { "name": "a.example.test", "type": "ADDRESS" } }), "edge_ips: for dns.type ADDRESS"),
        (json!({ "edge_ips": { "ips": ["x"] } }), "edge_ips.ips[0]: an IP address"),
        (json!({ "virtual_network_id": "0190a6f0-0000-7000-8000-000000000001" }), "virtual_network_id: there is no"),
        (json!({ "ip_firewall": "on" }), "ip_firewall: true or false"),
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        for answer in [edge.post(&apps, body.clone()).await, edge.put(&path, body).await] {
            let message = answer.refused(400, 1004);
            assert!(message.starts_with(said), "{change}: {message}");
        }
    }
    // One port of one name is one application's.
    let taken =
        json!({ "dns": { "name": "a.example.test" }, "protocol": "tcp/1010", "origin_direct": ["tcp://192.0.2.1:1"] });
    let message = edge.post(&apps, taken.clone()).await.refused(409, 1013);
    assert!(message.contains("a.example.test at tcp/1000-1010"), "{message}");
    for body in NO_OBJECTS {
        edge.call(Method::POST, &apps, body).await.refused(400, 6007);
        edge.call(Method::PUT, &path, body).await.refused(400, 6007);
    }
    edge.call(Method::POST, &apps, r#"{"a":"#.repeat(10_000)).await.refused(400, 6007);
    edge.call(Method::POST, &apps, format!("[{}", " ".repeat(1 << 20))).await.refused(413, 1413);
    for path in
        [format!("{apps}/x"), format!("{apps}/{}", "0".repeat(32)), apps.replace(&edge.zone, &"1".repeat(32)) + "/x"]
    {
        edge.get(&path).await.refused(404, 7003);
        edge.put(&path, good.clone()).await.refused(404, 7003);
        edge.remove(&path).await.refused(404, 7003);
    }
    assert_eq!(edge.latest(), revision);
    // Beside it is another protocol, and another name.
    for change in [
        json!({ "protocol": "udp/1010", "origin_direct": ["udp://192.0.2.1:1"] }),
        json!({ "dns": { "name": "b.example.test" } }),
    ] {
        let mut body = taken.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        edge.post(&apps, body).await.result();
    }
}

#[tokio::test]
async fn a_limit_of_requests_is_kept_and_checked() {
    let edge = Edge::start().await;
    let limits = edge.of_zone("rate_limits");
    let wanted = json!({
        "match": {
            "request": { "methods": ["post", "_ALL_"], "schemes": ["HTTPS"], "url": "example.test/login*" },
            "response": { "status": [401, "403"], "origin_traffic": false, "headers": [{ "name": "X-A",
                "value": "b" }] },
        },
        "bypass": [{ "name": "url", "value": "example.test/login/ok" }],
        "threshold": 5.0, "period": "60", "action": { "mode": "ban", "timeout": 600,
            "response": { "content_type": "text/plain", "body": "no" } },
    });
    let made = edge.post(&limits, wanted.clone()).await.result();
    let path = below(&limits, &made);
    assert_eq!((&made["threshold"], &made["period"], &made["disabled"]), (&json!(5), &json!(60), &json!(false)));
    assert_eq!(made["match"]["request"]["methods"], json!(["POST", "_ALL_"]));
    assert_eq!(made["match"]["response"]["headers"][0]["op"], "eq");
    let revision = edge.latest();
    assert_eq!(edge.put(&path, made.clone()).await.result(), made);
    assert_eq!(edge.put(&path, wanted).await.result(), made);
    assert_eq!((edge.latest(), edge.get(&path).await.result()), (revision, made.clone()));
    let least = json!({ "threshold": 1, "period": 1, "action": { "mode": "managed_challenge" } });
    assert_eq!(edge.put(&path, least).await.result()["match"], json!({ "request": { "url": "*" } }));
    let revision = edge.latest();
    for (change, said) in [
        (json!({ "period": 86_401 }), "period: a whole number from 1 to 86400"),
        (json!({ "threshold": 0 }), "threshold"),
        (json!({ "threshold": "NaN" }), "threshold"),
        (json!({ "action": { "mode": "ban", "timeout": 59 } }), "action.timeout: at least"),
        (json!({ "action": { "mode": "simulate" } }), "action.timeout: at least"),
        (json!({ "action": { "mode": "fine" } }), "action.mode: one of simulate, ban"),
        (json!({ "action": null }), "action: it is missing"),
        (json!({ "match": { "request": { "url": "" } } }), "match.request.url"),
        (json!({ "match": { "request": { "schemes": ["ftp"] } } }), "match.request.schemes[0]"),
        (json!({ "match": { "response": { "status": [99] } } }), "match.response.status[0]"),
        (json!({ "bypass": [{ "name": "ip", "value": "a" }] }), "bypass[0].name"),
    ] {
        let mut body = json!({ "threshold": 5, "period": 60, "action": { "mode": "challenge" } });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = edge.put(&path, body).await.refused(400, 1004);
        assert!(message.starts_with(said), "{change}: {message}");
    }
    assert_eq!(edge.latest(), revision);
    assert_eq!(edge.get(&limits).await.json()["result_info"]["total_pages"], 1);
    assert_eq!(edge.remove(&path).await.result()["id"], made["id"]);
}

#[tokio::test]
async fn a_custom_hostname_is_kept_and_stays_pending() {
    let edge = Edge::start().await;
    let names = edge.of_zone("custom_hostnames");
    let ssl = json!({ "method": "txt", "type": "dv", "settings": { "http2": "on", "min_tls_version": "1.2" },
        "wildcard": true });
    let wanted = json!({ "hostname": "App.Customer.test", "ssl": ssl, "custom_metadata": { "plan": "a", "b": null } });
    let made = edge.post(&names, wanted.clone()).await.result();
    let path = below(&names, &made);
    assert_eq!(made["id"].as_str().unwrap().len(), 36);
    assert_eq!((&made["hostname"], &made["status"]), (&json!("app.customer.test"), &json!("pending")));
    assert_eq!((&made["ssl"]["status"], &made["ssl"]["bundle_method"]), (&json!("initializing"), &json!("ubiquitous")));
    assert_eq!(made["ownership_verification"]["name"], "_cf-custom-hostname.app.customer.test");
    assert_eq!(made["ownership_verification"]["value"], made["ownership_verification_http"]["http_body"]);
    assert_eq!(made["custom_metadata"], json!({ "plan": "a" }));
    assert_eq!(edge.get(&path).await.result(), made);
    let revision = edge.latest();
    assert_eq!(edge.patch(&path, made.clone()).await.result(), made);
    assert_eq!(edge.patch(&path, wanted.clone()).await.result(), made);
    assert_eq!(edge.latest(), revision);

    let changed = json!({ "custom_origin_server": "Origin.example.test.",
        "custom_origin_sni": ":request_host_header:", "custom_metadata": null });
    let changed = edge.patch(&path, changed).await.result();
    assert_eq!((&changed["custom_origin_server"], &changed["ssl"]), (&json!("origin.example.test"), &made["ssl"]));
    assert!(changed.get("custom_metadata").is_none());
    edge.post(&names, wanted).await.refused(409, 1013);
    let other = edge.post("/zones", json!({ "name": "other.test" })).await.result()["id"].as_str().unwrap().to_owned();
    let of_other = names.replace(&edge.zone, &other);
    edge.post(&of_other, json!({ "hostname": "app.customer.test" })).await.refused(409, 1013);
    let revision = edge.latest();
    for (change, said) in [
        (json!({ "hostname": "b.customer.test" }), "hostname: it stays app.customer.test"),
        (json!({ "hostname": "*.customer.test" }), "hostname: no wildcard"),
        (json!({ "hostname": null }), "hostname: it is missing"),
        (json!({ "custom_origin_server": "elsewhere.test" }), "custom_origin_server: elsewhere.test"),
        (json!({ "custom_origin_server": null }), "custom_origin_sni: only with"),
        (json!({ "custom_origin_sni": "a b" }), "custom_origin_sni"),
        (json!({ "ssl": { "method": "pigeon" } }), "ssl.method: one of http, txt, email"),
        (json!({ "ssl": { "custom_key": "x" } }), "ssl.custom_key: certificates of one's own"),
        (json!({ "ssl": { "settings": { "min_tls_version": 1.2 } } }), "ssl.settings.min_tls_version"),
        (json!({ "custom_metadata": { "a": 1 } }), "custom_metadata.a"),
    ] {
        let message = edge.patch(&path, change.clone()).await.refused(400, 1004);
        assert!(message.starts_with(said), "{change}: {message}");
    }
    assert_eq!(edge.latest(), revision);

    let second = edge.post(&names, json!({ "hostname": "b.test" })).await.result();
    assert_eq!(second["ssl"], Value::Null);
    for (query, found) in [
        ("", vec![&changed, &second]),
        ("hostname=customer", vec![&changed]),
        ("hostname.exact=B.test.", vec![&second]),
        ("hostname.startsWith=app.", vec![&changed]),
        ("hostname.contain=.test", vec![&changed, &second]),
        ("ssl=0", vec![&second]),
        ("ssl_status=initializing", vec![&changed]),
        ("wildcard=true", vec![&changed]),
        ("hostname_status=active", vec![]),
        ("direction=desc&per_page=1", vec![&second]),
    ] {
        assert_eq!(edge.get(&format!("{names}?{query}")).await.result(), json!(found), "{query}");
    }
    edge.get(&format!("{names}?ssl=maybe")).await.refused(400, 1004);
    edge.remove(&path).await.result();
    edge.post(&of_other, json!({ "hostname": "app.customer.test" })).await.result();
}

#[tokio::test]
async fn a_fallback_origin_is_kept() {
    let edge = Edge::start().await;
    let path = edge.of_zone("custom_hostnames/fallback_origin");
    edge.get(&path).await.refused(404, 7003);
    let made = edge.put(&path, json!({ "origin": "Origin.example.test." })).await.result();
    assert_eq!((&made["origin"], &made["errors"]), (&json!("origin.example.test"), &json!([])));
    let revision = edge.latest();
    assert_eq!(edge.put(&path, made.clone()).await.result(), made);
    for body in [json!({}), json!({ "origin": "other.test" }), json!({ "origin": "a b" })] {
        edge.put(&path, body).await.refused(400, 1004);
    }
    edge.call(Method::PUT, &path, r#"{"origin":1}"#).await.refused(400, 6007);
    assert_eq!((edge.latest(), edge.get(&path).await.result()), (revision, made));
    edge.remove(&path).await.result();
    edge.remove(&path).await.refused(404, 7003);
}

#[tokio::test]
async fn a_zone_takes_with_it_what_it_has() {
    let edge = Edge::start().await;
    let zone = edge.post("/zones", json!({ "name": "a.test" })).await.result()["id"].as_str().unwrap().to_owned();
    let path = format!("/zones/{zone}");
    for index in 0..130 {
        let body = json!({ "dns": { "name": format!("h{index}.a.test") }, "protocol": "tcp/22",
            "origin_direct": ["tcp://192.0.2.1:22"] });
        edge.post(&format!("{path}/spectrum/apps"), body).await.result();
    }
    let limit = json!({ "threshold": 5, "period": 60, "action": { "mode": "challenge" } });
    edge.post(&format!("{path}/rate_limits"), limit.clone()).await.result();
    let rules = json!({ "rules": [{ "action": "block", "expression": "true" }] });
    edge.put(&format!("{path}/rulesets/phases/http_request_firewall_custom/entrypoint"), rules).await.result();
    edge.remove(&path).await.result();
    edge.get(&format!("{path}/spectrum/apps")).await.refused(404, 7003);
    edge.post(&format!("{path}/rate_limits"), limit).await.refused(404, 7003);
    assert_eq!(edge.post("/zones", json!({ "name": "a.test" })).await.result()["id"], json!(zone));
    for list in ["spectrum/apps", "rate_limits", "rulesets"] {
        assert_eq!(edge.get(&format!("{path}/{list}")).await.result(), json!([]));
    }
}
