use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::edge::Edge;

#[tokio::test]
async fn a_tunnel_is_created_found_and_deleted() {
    let edge = Edge::start().await;
    let secret = STANDARD.encode([7; 32]);
    let created = edge.post(&edge.tunnels(), json!({ "name": "web", "tunnel_secret": secret })).await.result();
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["credentials_file"]["TunnelSecret"], secret.as_str());
    let token = STANDARD.decode(created["token"].as_str().unwrap()).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    assert_eq!(token, json!({ "a": edge.account, "t": id, "s": secret }));
    assert_eq!((&created["status"], &created["deleted_at"]), (&json!("inactive"), &Value::Null));

    let path = format!("{}/{id}", edge.tunnels());
    assert_eq!(edge.get(&format!("{path}/token")).await.result(), created["token"]);
    let read = edge.get(&path).await.result();
    assert!(read.get("token").is_none() && read.get("tunnel_secret").is_none());
    assert_eq!(read["name"], "web");
    edge.post(&edge.tunnels(), json!({ "name": "web" })).await.refused(409, 1013);

    let renamed = edge.call(Method::PATCH, &path, json!({ "name": "site" }).to_string()).await.result();
    assert_eq!(renamed["name"], "site");
    edge.tunnel("web").await;
    edge.call(Method::PATCH, &path, json!({ "name": "web" }).to_string()).await.refused(409, 1013);

    let deleted = edge.call(Method::DELETE, &path, "{}").await.result();
    assert!(deleted["deleted_at"].is_string());
    assert_eq!(edge.call(Method::DELETE, &path, "").await.result()["deleted_at"], deleted["deleted_at"]);
    edge.get(&format!("{path}/token")).await.refused(404, 7003);
    edge.tunnel("site").await;
}

#[tokio::test]
async fn connections_are_listed_and_closed() {
    let edge = Edge::start().await;
    let (path, id) = edge.tunnel("web").await;
    assert_eq!(edge.get(&format!("{path}/connections")).await.result(), json!([]));
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let first = edge.connect(id, one);
    assert_eq!(edge.get(&path).await.result()["status"], "degraded");
    let others = [edge.connect(id, one), edge.connect(id, two)];
    let tunnel = edge.get(&path).await.result();
    assert_eq!((&tunnel["status"], tunnel["connections"].as_array().unwrap().len()), (&json!("healthy"), 3));
    assert_eq!(tunnel["connections"][0]["colo_name"], "lab01");
    assert!(tunnel["conns_active_at"].is_string() && tunnel["conns_inactive_at"].is_null());

    let connectors = edge.get(&format!("{path}/connections")).await.result();
    assert_eq!(connectors.as_array().unwrap().len(), 2);
    assert_eq!((&connectors[0]["id"], connectors[0]["conns"].as_array().unwrap().len()), (&json!(one), 2));
    assert_eq!(connectors[0]["version"], "2026.8.2");
    assert_eq!(edge.get(&format!("{path}/connectors/{two}")).await.result()["id"], json!(two));
    edge.get(&format!("{path}/connectors/{}", Uuid::new_v4())).await.refused(404, 7003);

    let message = edge.call(Method::DELETE, &path, "").await.refused(400, 1022);
    assert!(message.contains("3 live connections"), "{message}");
    edge.call(Method::DELETE, &format!("{path}/connections?client_id={two}"), "").await.result();
    edge.call(Method::DELETE, &format!("{path}/connections"), "").await.result();
    edge.call(Method::DELETE, &format!("{path}/connections?client_id=x"), "").await.refused(400, 1004);
    edge.call(Method::DELETE, &format!("{path}?cascade=true"), "").await.result();
    assert_eq!(*edge.closed.lock().unwrap(), [(id, Some(two)), (id, None), (id, None)]);

    drop((first, others));
    assert_eq!(edge.get(&path).await.result()["status"], "down");
}

#[tokio::test]
async fn a_configuration_is_checked_kept_and_guarded() {
    let edge = Edge::start().await;
    let (path, _) = edge.tunnel("web").await;
    let path = format!("{path}/configurations");
    let none = edge.get(&path).await.result();
    assert_eq!((&none["config"], &none["version"]), (&Value::Null, &json!(0)));

    let config = json!({
        "ingress": [
            { "hostname": "app.example.test", "service": "http://a:80", "originRequest": { "connectTimeout": 5 } },
            { "service": "http_status:404" },
        ],
    });
    let written = edge.put(&path, json!({ "config": config })).await.result();
    assert_eq!(
        (&written["version"], &written["source"], &written["config"]),
        (&json!(1), &json!("cloudflare"), &config)
    );
    assert_eq!(edge.get(&path).await.result(), written);
    let revision = edge.registry.snapshot().revision();
    assert_eq!(edge.put(&path, json!({ "config": config })).await.result(), written);
    assert_eq!(edge.registry.snapshot().revision(), revision, "the same again changes nothing");

    let bad = json!({ "config": { "ingress": [{ "hostname": "a.test", "service": "http://b" }] } });
    let message = edge.put(&path, bad).await.refused(400, 1004);
    assert!(message.starts_with("config.ingress[0]: the last rule"), "{message}");
    for body in [json!({}), json!({ "config": null }), json!({ "config": 7 })] {
        edge.put(&path, body).await.refused(400, 1004);
    }
    assert_eq!(edge.registry.snapshot().revision(), revision);

    let guarded = async |tag: &str| {
        let bearer = format!("Bearer {}", edge.token);
        let headers = [("authorization", bearer.as_str()), ("if-match", tag)];
        let body = json!({ "config": { "ingress": [{ "service": "hello_world" }] } }).to_string();
        edge.send(Method::PUT, &format!("/client/v4{path}"), &headers, body).await
    };
    guarded("\"7\"").await.refused(412, 1412);
    guarded("seven").await.refused(400, 1004);
    let answer = guarded("\"1\"").await;
    assert_eq!((&answer.result()["version"], &answer.headers["etag"]), (&json!(2), &"\"2\"".parse().unwrap()));
}

#[tokio::test]
async fn a_host_name_is_routed_by_the_cli_s_words() {
    let edge = Edge::start().await;
    let (_, one) = edge.tunnel("one").await;
    let (_, two) = edge.tunnel("two").await;
    let route = async |tunnel: &str, name: Value, overwrite: bool| {
        let path = format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
        edge.put(&path, json!({ "type": "dns", "user_hostname": name, "overwrite_existing": overwrite })).await
    };
    let (one, two) = (one.to_string(), two.to_string());
    let first = route(&one, json!("App.Example.test."), false).await.result();
    assert_eq!((&first["cname"], &first["name"]), (&json!("new"), &json!("app.example.test")));
    assert_eq!(route(&one, json!("app"), false).await.result()["cname"], "unchanged");
    let message = route(&two, json!("app.example.test"), false).await.refused(400, 81053);
    assert!(message.contains(&one), "{message}");
    assert_eq!(route(&two, json!("app.example.test"), true).await.result()["cname"], "updated");
    assert_eq!(route(&two, json!("*.example.test"), false).await.result()["cname"], "new");

    for name in [json!("app.example.com"), json!("a..b"), json!("127.0.0.1"), json!(""), Value::Null] {
        route(&one, name, false).await.refused(400, 1004);
    }
    route(&one, json!(7), false).await.refused(400, 6007);
    route("x", json!("b.example.test"), false).await.refused(404, 7003);
    route(&Uuid::new_v4().to_string(), json!("b.example.test"), false).await.refused(404, 7003);
    edge.put("/zones/x/tunnels/y/routes", json!({})).await.refused(404, 7003);
    assert_eq!(edge.registry.snapshot().routes().count(), 2);
}

#[tokio::test]
async fn a_tunnel_becomes_a_member_of_a_pool_and_leaves_it() {
    let edge = Edge::start().await;
    let (one, two) = (edge.tunnel("one").await.1.to_string(), edge.tunnel("two").await.1.to_string());
    let path = |tunnel: &str| format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
    let join = async |tunnel: &str, name: &str, pool: &str| {
        edge.put(&path(tunnel), json!({ "type": "lb", "lb_name": name, "lb_pool": pool })).await
    };
    let leave = async |tunnel: &str, pool: &str| {
        edge.call(Method::DELETE, &path(tunnel), json!({ "lb_pool": pool }).to_string()).await
    };
    let told = |load_balancer: &str, pool: &str, name: &str| json!({ "load_balancer": load_balancer, "pool": pool, "name": name });
    assert_eq!(join(&one, "App.Example.test.", "web").await.result(), told("new", "new", "app.example.test"));
    assert_eq!(join(&one, "app", "web").await.result(), told("unchanged", "unchanged", "app.example.test"));
    assert_eq!(join(&two, "app.example.test", "web").await.result(), told("unchanged", "updated", "app.example.test"));
    assert_eq!(join(&two, "app.example.test", "spare").await.result(), told("updated", "new", "app.example.test"));
    let revision = edge.registry.snapshot().revision();
    assert_eq!(join(&two, "app.example.test", "spare").await.status, 200);
    assert_eq!(edge.registry.snapshot().revision(), revision, "what is so already is not written");
    let pools = format!("/accounts/{}/load_balancers/pools?name=web", edge.account);
    let names = async || {
        let pool = edge.get(&pools).await.result()[0].clone();
        pool["origins"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["one", "two"]);
    assert_eq!(leave(&one, "web").await.result(), json!({ "pool": "updated" }));
    assert_eq!(leave(&one, "web").await.result(), json!({ "pool": "unchanged" }));
    assert_eq!(names().await, ["two"]);

    join(&one, "app.example.com", "web").await.refused(400, 1004);
    let message = join(&one, "app.example.test", "no pool").await.refused(400, 1004);
    assert!(message.starts_with("lb_pool:"), "{message}");
    join("x", "app.example.test", "web").await.refused(404, 7003);
    join(&Uuid::new_v4().to_string(), "app.example.test", "web").await.refused(404, 7003);
    leave(&one, "nobody").await.refused(404, 7003);
    for body in [json!({ "type": "lb" }), json!({ "type": "lb", "lb_name": "app.example.test" })] {
        edge.put(&path(&one), body).await.refused(400, 1004);
    }
    edge.registry.delete_tunnel(jiff::Timestamp::now(), one.parse().unwrap(), false).await.unwrap();
    join(&one, "app.example.test", "web").await.refused(404, 7003);
}

#[tokio::test]
async fn access_rules_and_routes_have_calls_of_their_own() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token);
    let own = async |method: Method, path: &str, body: String| {
        edge.send(method, &format!("/snicket/v1{path}"), &[("authorization", &bearer)], body).await
    };
    let (_, tunnel) = edge.tunnel("web").await;
    let access = format!("/tunnels/{tunnel}/access");
    let nothing = json!({ "allow": [], "pin": false, "basic": [], "headers": [], "rewrite": [] });
    assert_eq!(own(Method::GET, &access, String::new()).await.result(), nothing);
    let hash = format!("pbkdf2-sha256:100000:{}:{}", STANDARD.encode([1; 16]), STANDARD.encode([2; 32]));
    let rules = json!({ "version": 1, "allow": ["192.0.2.7/24"], "pin": hash, "headers": ["X-Env: demo"] });
    let shown = json!({
        "allow": ["192.0.2.0/24"], "pin": true, "basic": [], "headers": ["x-env: demo"], "rewrite": [],
    });
    assert_eq!(own(Method::PUT, &access, rules.to_string()).await.result(), shown);
    let read = own(Method::GET, &access, String::new()).await;
    assert_eq!(read.result(), shown);
    assert!(!read.text.contains("pbkdf2"), "hashes stay here: {}", read.text);
    for bad in [json!({}), json!({ "version": 1, "pin": "1234" }), json!({ "version": 1, "deny": [] })] {
        assert_eq!(own(Method::PUT, &access, bad.to_string()).await.status, 400, "{bad}");
    }
    assert!(edge.registry.snapshot().access(tunnel).is_some(), "what is refused changes nothing");
    assert_eq!(own(Method::DELETE, &access, String::new()).await.result(), nothing);
    own(Method::GET, "/tunnels/x/access", String::new()).await.refused(404, 7003);
    assert_eq!(edge.send(Method::GET, &format!("/snicket/v1{access}"), &[], "").await.status, 400, "it needs a token");

    let route = format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
    edge.put(&route, json!({ "type": "dns", "user_hostname": "www.example.test" })).await.result();
    let listed = own(Method::GET, &format!("/routes?tunnel={tunnel}"), String::new()).await.result();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["hostname"]), (1, &json!("www.example.test")));
    own(Method::DELETE, "/routes/www.example.test", String::new()).await.result();
    assert!(edge.registry.snapshot().route("www.example.test").is_none());
    own(Method::DELETE, "/routes/www.example.test", String::new()).await.refused(404, 7003);
}

#[tokio::test]
async fn one_rule_at_a_time_leaves_the_others_alone() {
    let edge = Edge::start().await;
    let (tunnel, id) = edge.tunnel("web").await;
    let configuration = format!("{tunnel}/configurations");
    let bearer = format!("Bearer {}", edge.token);
    let call = async |method: Method, query: &str, version: Option<&str>, body: Value| {
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(version.map(|version| ("if-match", version)));
        edge.send(method, &format!("/snicket/v1/tunnels/{id}/rules{query}"), &headers, body.to_string()).await
    };
    let none = call(Method::GET, "", None, json!({})).await;
    assert_eq!(
        (&none.headers["etag"], none.result()),
        (&"\"0\"".parse().unwrap(), json!({ "tunnel_id": id, "version": 0, "rules": [] }))
    );
    let rule = json!({ "hostname": "A.Example.test", "service": "http://localhost:1", "path": null });
    let made = call(Method::PUT, "", Some("\"0\""), rule.clone()).await;
    let kept = json!({ "hostname": "a.example.test", "service": "http://localhost:1" });
    let last = json!({ "service": "http_status:404" });
    assert_eq!((&made.headers["etag"], &made.result()["rules"]), (&"\"1\"".parse().unwrap(), &json!([kept, last])));
    assert_eq!(edge.get(&configuration).await.result()["config"]["ingress"], json!([kept, last]));
    let revision = edge.latest();
    assert_eq!(call(Method::PUT, "", None, rule).await.result()["version"], 1, "the same again is no change");
    assert_eq!(edge.latest(), revision);
    let path = json!({ "hostname": "a.example.test", "path": "^/x", "service": "http://localhost:2",
        "originRequest": { "connectTimeout": 5 } });
    call(Method::PUT, "", Some("\"7\""), path.clone()).await.refused(412, 1412);
    assert_eq!(call(Method::PUT, "", Some("*"), path.clone()).await.result()["rules"], json!([path, kept, last]));
    for (body, said) in [
        (json!({ "hostname": "a.example.test" }), "ingress[1].service"),
        (json!({ "hostname": "a b", "service": "http://x" }), "hostname"),
        (json!({ "hostname": 1, "service": "http://x" }), "hostname"),
        (json!({ "path": "(", "service": "http://x" }), ".path"),
        (json!({ "service": "http://x/path" }), ".service"),
    ] {
        let message = call(Method::PUT, "", None, body.clone()).await.refused(400, 1004);
        assert!(message.contains(said), "{body}: {message}");
    }
    call(Method::PUT, "", None, json!([1])).await.refused(400, 6007);
    call(Method::PUT, "", Some("three"), path.clone()).await.refused(400, 1004);
    call(Method::DELETE, "?hostname=b.example.test", None, json!({})).await.refused(404, 7003);
    call(Method::DELETE, "", None, json!({})).await.refused(400, 1004);
    let gone = call(Method::DELETE, "?hostname=a.example.test&path=%5E%2Fx", Some("\"2\""), json!({})).await;
    assert_eq!((&gone.result()["rules"], &gone.result()["version"]), (&json!([kept, last]), &json!(3)));

    // What an agent has in its own file is not for the edge to change.
    let (_, other) = edge.tunnel("local").await;
    let local = json!({ "ingress": [{ "service": "http://localhost:1" }] });
    edge.registry
        .put_configuration(jiff::Timestamp::now(), other, local, registry::ConfigSource::Local, None)
        .await
        .unwrap();
    let path = format!("/snicket/v1/tunnels/{other}/rules");
    let answer = edge.send(Method::PUT, &path, &[("authorization", &bearer)], kept.to_string()).await;
    assert!(answer.refused(400, 1004).contains("own file"));
    let unknown = format!("/snicket/v1/tunnels/{}/rules", Uuid::new_v4());
    edge.send(Method::GET, &unknown, &[("authorization", &bearer)], "").await.refused(404, 7003);
}

#[tokio::test]
async fn of_many_who_write_a_rule_each_at_once_nobody_loses_one() {
    let edge = Edge::start().await;
    let (tunnel, id) = edge.tunnel("web").await;
    let bearer = format!("Bearer {}", edge.token);
    let path = format!("/snicket/v1/tunnels/{id}/rules");
    let put = async |index: usize| {
        let rule = json!({ "hostname": format!("h{index}.example.test"), "service": "http://localhost:1" });
        edge.send(Method::PUT, &path, &[("authorization", &bearer)], rule.to_string()).await.result()
    };
    futures_util::future::join_all((0..12).map(put)).await;
    let written = edge.get(&format!("{tunnel}/configurations")).await.result();
    assert_eq!((&written["version"], written["config"]["ingress"].as_array().unwrap().len()), (&json!(12), 13));
}

#[tokio::test]
async fn nobody_gets_a_token_that_opens_nothing() {
    let edge = Edge::start().await;
    let (path, _) = edge.tunnel("shop").await;
    for asked in ["management", "management/logs"] {
        let message = edge.post(&format!("{path}/{asked}"), json!({ "resources": ["logs"] })).await.refused(422, 1422);
        assert!(message.contains("no agent's logs"), "{message}");
        let nobody = format!("{}/{}/{asked}", edge.tunnels(), Uuid::new_v4());
        edge.post(&nobody, json!({ "resources": ["logs"] })).await.refused(404, 7003);
    }
}
