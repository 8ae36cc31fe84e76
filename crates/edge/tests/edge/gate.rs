//! Access rules: who is kept out, what the origin sees of those who are let in.

use http::{HeaderMap, Request};
use policy::{Access, Basic, Hashed};
use registry::ConfigSource;
use wire::Body;

use crate::node::{Agent, BOTH, Node};
use crate::origin::Origin;
use crate::visitor::{ALL, Reply, Way, get, post};

/// As fast as the rules allow.
fn hashed(password: &str) -> Hashed {
    Hashed::with_iterations(password.as_bytes(), [5; 16], Hashed::MIN_ITERATIONS)
}

async fn guarded(rules: Access) -> (Node, std::sync::Arc<Origin>, Agent) {
    let node = Node::start().await;
    let origin = Origin::new();
    let tunnel = node.tunnel("app", ConfigSource::Local).await;
    node.registry.put_access(tunnel.id, rules).await.unwrap();
    let agent = node.agent(&tunnel, BOTH[0]).connect(&origin).await.unwrap();
    (node, origin, agent)
}

fn with(mut request: Request<Body>, fields: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn only_visitors_of_the_right_networks_are_let_in() {
    let only = |network: &str| Access { allow: vec![network.parse().unwrap()], ..Access::default() };
    let (node, origin, _agent) = guarded(only("192.0.2.0/24")).await;
    for way in ALL {
        // What a visitor says of its address is not believed.
        let lies = with(get("/hello"), &[("x-forwarded-for", "192.0.2.1"), ("cf-connecting-ip", "192.0.2.1")]);
        let reply = node.visit(way, lies).await;
        assert_eq!(reply.status, 403, "{way:?}");
        assert!(reply.text().contains("1020"), "{}", reply.text());
    }
    assert_eq!(origin.count(), 0);
    let tunnel = node.registry.snapshot().tunnel_named("app").unwrap().id;
    node.registry.put_access(tunnel, only("127.0.0.0/8")).await.unwrap();
    for way in ALL {
        assert_eq!(node.visit(way, get("/hello")).await.status, 200, "{way:?}");
    }
}

#[tokio::test]
async fn a_name_and_a_password_are_needed() {
    let basic = vec![Basic { user: "ann".into(), password: hashed("correct horse") }];
    let (node, origin, _agent) = guarded(Access { basic, ..Access::default() }).await;
    let refused = |reply: &Reply| {
        assert_eq!(reply.status, 401, "{}", reply.text());
        assert!(field(&reply.headers, "www-authenticate").starts_with("Basic realm="), "{:?}", reply.headers);
    };
    // `ann:wrong horse`, `bob:correct horse`, a token, nothing.
    for shown in ["Basic YW5uOndyb25nIGhvcnNl", "Basic Ym9iOmNvcnJlY3QgaG9yc2U=", "Bearer x"] {
        refused(&node.visit(Way::Http2, with(get("/hello"), &[("authorization", shown)])).await);
    }
    refused(&node.visit(Way::Http1, get("/hello")).await);
    assert_eq!(origin.count(), 0);
    for way in ALL {
        let right = with(get("/hello"), &[("authorization", "Basic YW5uOmNvcnJlY3QgaG9yc2U=")]);
        assert_eq!(node.visit(way, right).await.status, 200, "{way:?}");
        assert!(!origin.last().headers.contains_key("authorization"), "it is the edge's, not the origin's");
    }
}

fn form(pin: &str, back: &str) -> Request<Body> {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.append_pair("pin", pin).append_pair("back", back);
    post("/.snicket/pin", Body::full(body.finish()))
}

#[tokio::test]
async fn a_pin_opens_the_site_for_a_browser() {
    let (node, origin, _agent) = guarded(Access { pin: Some(hashed("24681357")), ..Access::default() }).await;
    let page = node.visit(Way::Http2, with(get("/hello?a=1&b='x'"), &[("accept", "text/html,*/*;q=0.8")])).await;
    assert_eq!(page.status, 401);
    assert!(page.text().contains("value=\"/hello?a=1&amp;b=&#39;x&#39;"), "{}", page.text());
    assert!(field(&page.headers, "content-security-policy").contains("frame-ancestors 'none'"));
    let program = node.visit(Way::Http1, get("/hello")).await;
    assert!(program.status == 401 && program.text().contains("1070"), "{}", program.text());
    let wrong = node.visit(Way::Http2, form("12345678", "/")).await;
    assert!(wrong.status == 403 && wrong.text().contains("not the PIN"), "{}", wrong.text());
    let right = node.visit(Way::Http2, form("24681357", "/hello?a=1")).await;
    assert_eq!((right.status, field(&right.headers, "location")), (303, "/hello?a=1"));
    let cookie = field(&right.headers, "set-cookie");
    for attribute in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let elsewhere = node.visit(Way::Plain, form("24681357", "//evil.example")).await;
    assert_eq!(field(&elsewhere.headers, "location"), "/");
    assert!(!field(&elsewhere.headers, "set-cookie").contains("Secure"), "a browser would not send it back");
    assert_eq!(origin.count(), 0);

    let pair = cookie.split(';').next().unwrap();
    let both = format!("theme=dark; {pair}");
    for way in ALL {
        assert_eq!(node.visit(way, with(get("/hello"), &[("cookie", &both)])).await.status, 200, "{way:?}");
        assert_eq!(field(&origin.last().headers, "cookie"), "theme=dark", "the cookie is the edge's");
    }
    let forged = format!("{}x", pair);
    assert_eq!(node.visit(Way::Http1, with(get("/hello"), &[("cookie", &forged)])).await.status, 401);
}

#[tokio::test]
async fn guesses_run_out() {
    let (node, origin, _agent) = guarded(Access { pin: Some(hashed("24681357")), ..Access::default() }).await;
    for number in 0..10 {
        assert_eq!(node.visit(Way::Http1, form(&format!("1111{number}"), "/")).await.status, 403, "{number}");
    }
    // Even the right one, so that nobody learns which it is.
    let refused = node.visit(Way::Http1, form("24681357", "/")).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn the_origin_sees_changed_fields_and_paths() {
    let rules = Access {
        headers: ["x-env: demo", "-x-secret", "-user-agent"].map(|text| text.parse().unwrap()).into(),
        rewrite: vec!["/api=/hello".parse().unwrap()],
        ..Access::default()
    };
    let (node, origin, _agent) = guarded(rules).await;
    for way in ALL {
        let request = with(get("/api?q=%2f"), &[("x-secret", "1"), ("x-env", "prod"), ("user-agent", "x")]);
        assert_eq!(node.visit(way, request).await.text(), "hello", "{way:?}");
        let seen = origin.last();
        assert_eq!(seen.uri.path_and_query().unwrap().as_str(), "/hello?q=%2f");
        let all: Vec<_> = seen.headers.get_all("x-env").iter().collect();
        assert_eq!(all, ["demo"]);
        assert!(!seen.headers.contains_key("x-secret") && !seen.headers.contains_key("user-agent"));
        assert_eq!(field(&seen.headers, "cf-connecting-ip"), "127.0.0.1");
    }
}
