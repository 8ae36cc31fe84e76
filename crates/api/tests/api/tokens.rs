use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::edge::{Answer, Edge};

/// A policy that gives permissions by the names of their groups.
fn allow(resources: Value, groups: &[&str]) -> Value {
    let groups: Vec<_> = groups.iter().map(|name| json!({ "name": name })).collect();
    json!({ "effect": "allow", "resources": resources, "permission_groups": groups })
}

fn zone(id: &str) -> Value {
    json!({ format!("com.cloudflare.api.account.zone.{id}"): "*" })
}

impl Edge {
    /// Makes a token, and answers its id and secret.
    async fn token_that(&self, policies: Value) -> (String, String) {
        let made = self.post("/user/tokens", json!({ "name": "limited", "policies": policies })).await.result();
        (made["id"].as_str().unwrap().to_owned(), made["value"].as_str().unwrap().to_owned())
    }

    async fn with_token(&self, secret: &str, method: Method, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {secret}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, &format!("/client/v4{path}"), &[("authorization", &bearer)], body).await
    }
}

#[tokio::test]
async fn a_token_is_made_read_changed_rolled_and_deleted() {
    let edge = Edge::start().await;
    let policies = json!([allow(zone(&edge.zone), &["DNS Write"])]);
    let body = json!({ "name": "ci", "policies": policies, "expires_on": "2099-01-01T00:00:00Z" });
    let made = edge.post("/user/tokens", body).await.result();
    let (id, secret) = (made["id"].as_str().unwrap(), made["value"].as_str().unwrap());
    assert_eq!((&made["status"], &made["policies"][0]["resources"]), (&json!("active"), &zone(&edge.zone)));
    assert_eq!(made["policies"][0]["permission_groups"][0]["name"], "DNS Write");
    let path = format!("/user/tokens/{id}");
    let read = edge.get(&path).await.result();
    assert!(read.get("value").is_none(), "the secret is told once");
    assert_eq!(read["expires_on"], "2099-01-01T00:00:00Z");
    assert_eq!(edge.get(&format!("/accounts/{}/tokens/{id}", edge.account)).await.result(), read);
    let verify = async |secret: &str| edge.with_token(secret, Method::GET, "/user/tokens/verify", Value::Null).await;
    let expected = json!({ "id": id, "status": "active", "expires_on": "2099-01-01T00:00:00Z" });
    assert_eq!(verify(secret).await.result(), expected);

    let revision = edge.registry.snapshot().revision();
    assert_eq!(edge.put(&path, read.clone()).await.result(), read, "what was read is sent back");
    assert_eq!(edge.registry.snapshot().revision(), revision, "and changes nothing");
    let own = edge.get("/user/tokens").await.result()[0].clone();
    edge.put(&format!("/user/tokens/{}", own["id"].as_str().unwrap()), own).await.result();
    assert_eq!(edge.registry.snapshot().revision(), revision, "also of a token that may do everything");

    let rolled = edge.put(&format!("{path}/value"), json!({})).await.result();
    verify(secret).await.refused(401, 1000);
    let secret = rolled.as_str().unwrap();
    let off = json!({ "name": "ci", "policies": policies, "status": "disabled" });
    assert_eq!(edge.put(&path, off).await.result()["status"], "disabled");
    assert_eq!(verify(secret).await.result()["status"], "disabled");
    edge.with_token(secret, Method::GET, "/zones", Value::Null).await.refused(403, 9109);
    assert_eq!(edge.get("/user/tokens").await.result().as_array().unwrap().len(), 2);
    assert_eq!(edge.call(Method::DELETE, &path, "").await.result(), json!({ "id": id }));
    edge.call(Method::DELETE, &path, "").await.refused(404, 7003);
    verify(secret).await.refused(401, 1000);

    for (body, said) in [
        (json!({}), "name"),
        (json!({ "name": "a" }), "policies"),
        (json!({ "name": "a", "policies": [] }), "policies"),
        (json!({ "name": "a", "policies": [allow(zone("x"), &["DNS Read"])] }), "policies[0].resources"),
        (json!({ "name": "a", "policies": [allow(json!({}), &["DNS Read"])] }), "policies[0]"),
        (json!({ "name": "a", "policies": [allow(zone(&edge.zone), &["Nothing Read"])] }), "permission_groups"),
        (json!({ "name": "a", "policies": policies, "condition": { "request_ip": { "in": ["x"] } } }), "request_ip.in"),
        (json!({ "name": "a", "policies": policies, "status": "odd" }), "status"),
        (json!({ "name": "", "policies": policies }), "name"),
    ] {
        let message = edge.post("/user/tokens", body).await.refused(400, 1004);
        assert!(message.contains(said), "{said}: {message}");
    }
    edge.post("/user/tokens", json!({ "name": "a", "expires_on": "soon" })).await.refused(400, 6007);
    let groups = edge.get("/user/tokens/permission_groups").await.result();
    assert!(groups.as_array().unwrap().iter().any(|group| group["name"] == "DNS Write" && group["scopes"].is_array()));
}

#[tokio::test]
async fn a_token_sees_and_changes_only_what_its_policies_say() {
    let edge = Edge::start().await;
    let other = edge.post("/zones", json!({ "name": "other.test" })).await.result();
    let other = other["id"].as_str().unwrap();
    let (_, tunnel) = edge.tunnel("web").await;
    let (_, secret) = edge.token_that(json!([allow(zone(&edge.zone), &["DNS Write", "Zone Read"])])).await;
    let ask = async |method: Method, path: String, body: Value| edge.with_token(&secret, method, &path, body).await;
    let get = async |path: String| ask(Method::GET, path, Value::Null).await;
    let a = json!({ "type": "A", "name": "a", "content": "192.0.2.1" });

    let zones = get("/zones".into()).await;
    assert_eq!((zones.result().as_array().unwrap().len(), &zones.result()[0]["id"]), (1, &json!(edge.zone)));
    assert_eq!(get("/zones?name=other.test".into()).await.result(), json!([]));
    assert_eq!(get("/accounts".into()).await.result(), json!([]));
    assert_eq!(get("/memberships".into()).await.result(), json!([]));
    ask(Method::POST, format!("/zones/{}/dns_records", edge.zone), a.clone()).await.result();
    get(format!("/zones/{}", edge.zone)).await.result();
    // May see the zone, and not change it.
    ask(Method::PATCH, format!("/zones/{}", edge.zone), json!({ "paused": true })).await.refused(403, 1009);
    ask(Method::DELETE, format!("/zones/{}", edge.zone), Value::Null).await.refused(403, 1009);
    get(format!("/zones/{}/settings", edge.zone)).await.refused(403, 10000);
    ask(Method::POST, "/zones".into(), json!({ "name": "new.test" })).await.refused(403, 1009);
    // What is there and what is not look the same.
    let nobody = "0".repeat(32);
    for (method, rest, body) in [
        (Method::GET, "", Value::Null),
        (Method::DELETE, "", Value::Null),
        (Method::GET, "/dns_records", Value::Null),
        (Method::POST, "/dns_records", a.clone()),
        (Method::POST, "/dns_records/batch", json!({})),
        (Method::GET, "/settings/ssl", Value::Null),
    ] {
        let hidden = ask(method.clone(), format!("/zones/{other}{rest}"), body.clone()).await;
        let absent = ask(method, format!("/zones/{nobody}{rest}"), body).await;
        let hidden = hidden.refused(404, 7003);
        assert_eq!(hidden.replace(other, &nobody), absent.refused(404, 7003), "{rest}");
    }
    for path in
        [format!("/accounts/{}/cfd_tunnel", edge.account), format!("/accounts/{}/cfd_tunnel/{tunnel}", edge.account)]
    {
        get(path).await.refused(404, 7003);
    }
    get("/user/tokens".into()).await.refused(403, 10000);
    get("/unheard-of".into()).await.refused(403, 10000);
    // A name leads to a tunnel by a record; one in another zone is that one's.
    let routes = format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
    let route = |name: &str| json!({ "type": "dns", "user_hostname": name });
    ask(Method::PUT, routes.clone(), route("b.example.test")).await.result();
    ask(Method::PUT, routes, route("b.other.test")).await.refused(404, 7003);
    edge.put(&format!("/zones/{other}/tunnels/{tunnel}/routes"), route("c.other.test")).await.result();
    let bearer = format!("Bearer {secret}");
    let own = async |method: Method, path: &str| {
        edge.send(method, &format!("/snicket/v1{path}"), &[("authorization", &bearer)], "").await
    };
    assert_eq!(own(Method::GET, "/routes").await.result().as_array().unwrap().len(), 1);
    own(Method::DELETE, "/routes/c.other.test").await.refused(404, 7003);
    own(Method::GET, "/ports").await.refused(403, 10000);
    own(Method::DELETE, "/routes/b.example.test").await.result();

    // Reading is not writing, and what is denied is denied.
    let all =
        json!({ format!("com.cloudflare.api.account.{}", edge.account): { "com.cloudflare.api.account.zone.*": "*" } });
    let deny = json!({ "effect": "deny", "resources": zone(other), "permission_groups": [{ "name": "DNS Read" }] });
    let (_, reader) = edge.token_that(json!([allow(all, &["DNS Read"]), deny])).await;
    let records = |zone: &str| format!("/zones/{zone}/dns_records");
    edge.with_token(&reader, Method::GET, &records(&edge.zone), Value::Null).await.result();
    edge.with_token(&reader, Method::POST, &records(&edge.zone), a.clone()).await.refused(403, 1009);
    edge.with_token(&reader, Method::GET, &records(other), Value::Null).await.refused(404, 7003);
    // Of the account as a whole.
    let account = json!({ format!("com.cloudflare.api.account.{}", edge.account): "*" });
    let (_, tunnels) = edge.token_that(json!([allow(account, &["Cloudflare Tunnel Read"])])).await;
    let path = format!("/accounts/{}/cfd_tunnel", edge.account);
    edge.with_token(&tunnels, Method::GET, &path, Value::Null).await.result();
    edge.with_token(&tunnels, Method::POST, &path, json!({ "name": "x" })).await.refused(403, 10000);
    let answer = edge.send(Method::POST, "/tunnel", &[("authorization", &format!("Bearer {tunnels}"))], "").await;
    answer.refused(403, 10000);
}

#[tokio::test]
async fn nobody_makes_or_takes_a_token_that_may_do_more() {
    let edge = Edge::start().await;
    let account = json!({ format!("com.cloudflare.api.account.{}", edge.account): "*" });
    let (own, secret) = edge.token_that(json!([allow(account.clone(), &["API Tokens Write", "DNS Read"])])).await;
    let ask = async |method: Method, path: &str, body: Value| edge.with_token(&secret, method, path, body).await;
    let small = json!({ "name": "small", "policies": [allow(zone(&edge.zone), &["DNS Read"])] });
    let made = ask(Method::POST, "/user/tokens", small.clone()).await.result();
    let large = json!({ "name": "large", "policies": [allow(account, &["DNS Write"])] });
    ask(Method::POST, "/user/tokens", large.clone()).await.refused(403, 10000);
    let path = format!("/user/tokens/{}", made["id"].as_str().unwrap());
    ask(Method::PUT, &path, large).await.refused(403, 10000);
    let first = edge.get("/user/tokens").await.result()[0]["id"].as_str().unwrap().to_owned();
    assert_ne!(first, own);
    for (method, path) in [
        (Method::PUT, format!("/user/tokens/{first}")),
        (Method::PUT, format!("/user/tokens/{first}/value")),
        (Method::DELETE, format!("/user/tokens/{first}")),
    ] {
        ask(method, &path, small.clone()).await.refused(403, 10000);
    }
    ask(Method::PUT, &format!("{path}/value"), json!({})).await.result();
    ask(Method::DELETE, &path, Value::Null).await.result();
    edge.get("/zones").await.result();
}

#[tokio::test]
async fn tokens_have_their_times_and_places() {
    let edge = Edge::start().await;
    let policies = json!([allow(zone(&edge.zone), &["Zone Read"])]);
    let token = async |terms: Value| {
        let mut body = json!({ "name": "t", "policies": policies });
        body.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        edge.post("/user/tokens", body).await.result()["value"].as_str().unwrap().to_owned()
    };
    let zones = async |secret: &str| edge.with_token(secret, Method::GET, "/zones", Value::Null).await;
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    let message = zones(&token(json!({ "not_before": in_an_hour })).await).await.refused(403, 9109);
    assert!(message.contains("yet"), "{message}");
    let message = zones(&token(json!({ "expires_on": "2020-01-01T00:00:00Z" })).await).await.refused(403, 9109);
    assert!(message.contains("expired"), "{message}");
    let expired = token(json!({ "expires_on": "2020-01-01T00:00:00Z" })).await;
    let verified = edge.with_token(&expired, Method::GET, "/user/tokens/verify", Value::Null).await.result();
    assert_eq!(verified["status"], "expired");
    let from = |ip: Value| json!({ "condition": { "request_ip": ip } });
    zones(&token(from(json!({ "in": ["127.0.0.0/8"] }))).await).await.result();
    zones(&token(from(json!({ "in": ["127.0.0.0/8"], "not_in": ["127.0.0.1/32"] }))).await).await.refused(403, 9109);
    zones(&token(from(json!({ "in": ["192.0.2.0/24"] }))).await).await.refused(403, 9109);
    zones(&token(from(json!({ "not_in": ["192.0.2.0/24"] }))).await).await.result();
}

#[tokio::test]
async fn whoever_asks_who_he_is_is_told() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/user").await.result()["id"], edge.account.as_str());
    let memberships = edge.get("/memberships").await.result();
    assert_eq!(
        (&memberships[0]["status"], &memberships[0]["account"]["id"]),
        (&json!("accepted"), &json!(edge.account))
    );
    let ips = edge.send(Method::GET, "/client/v4/ips", &[], "").await.result();
    assert!(ips["ipv4_cidrs"].is_array() && ips["ipv6_cidrs"].is_array() && ips["etag"].is_string());
}
