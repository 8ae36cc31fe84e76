use http::Method;

use crate::edge::Edge;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn people_get_a_page_and_programs_what_they_always_got() {
    let edge = Edge::start().await;
    let page = edge.send(Method::GET, "/", &[("accept", BROWSER)], "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.text.starts_with("<!doctype html>") && !page.text.contains("{{"), "{}", page.text);
    let head = edge.send(Method::HEAD, "/", &[("accept", BROWSER)], "").await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));

    edge.send(Method::GET, "/", &[], "").await.refused(404, 7000);
    edge.send(Method::GET, "/", &[("accept", "*/*")], "").await.refused(404, 7000);
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        edge.send(method, "/", &[("accept", BROWSER)], "").await.refused(404, 7000);
    }
    edge.send(Method::GET, "/client/v4", &[("accept", BROWSER)], "").await.refused(400, 9106);
    edge.send(Method::GET, "/favicon.ico", &[("accept", BROWSER)], "").await.refused(404, 7000);
}

#[tokio::test]
async fn the_page_runs_its_own_script_only_and_is_nobodys_frame() {
    let edge = Edge::start().await;
    let mut policies = Vec::new();
    for _ in 0..2 {
        let page = edge.send(Method::GET, "/", &[("accept", BROWSER)], "").await;
        let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
        let nonce = policy.split_once("script-src 'nonce-").unwrap().1.split_once('\'').unwrap().0.to_owned();
        assert_eq!((nonce.len(), page.text.matches(&format!("nonce=\"{nonce}\"")).count()), (32, 2), "{policy}");
        for said in ["default-src 'none'", "connect-src 'self'", "form-action 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(said), "{said} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let header = |name: &str| page.headers[name].to_str().unwrap();
        assert_eq!([header("referrer-policy"), header("x-frame-options")], ["no-referrer", "DENY"]);
        assert_eq!([header("cache-control"), header("x-content-type-options")], ["no-store", "nosniff"]);
        policies.push(policy);
    }
    assert_ne!(policies[0], policies[1], "each answer has a nonce of its own");
}
