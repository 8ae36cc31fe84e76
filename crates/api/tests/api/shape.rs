use http::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::edge::Edge;

#[tokio::test]
async fn paths_are_forgiving_and_tricks_are_not_served() {
    let edge = Edge::start().await;
    edge.get("/zones/").await.result();
    edge.call(Method::GET, "/zones", "{}").await.result();
    let head = edge.call(Method::HEAD, "/zones", "").await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(edge.call(Method::OPTIONS, "/zones", "").await.status, StatusCode::NO_CONTENT);
    edge.call(Method::DELETE, "/zones", "").await.refused(405, 7001);
    edge.get("/nothing").await.refused(404, 7000);
    for trick in ["/zones/..%2f..", "/zones/%00", "/accounts/%2e%2e/cfd_tunnel", "/zones/%zz", "/zones/../zones"] {
        assert_eq!(edge.get(trick).await.status, StatusCode::NOT_FOUND, "{trick}");
    }
    let answer = edge.get("/zones").await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(answer.headers["cf-ray"].to_str().unwrap().ends_with("-LAB01"));
    assert!(answer.headers.contains_key("ratelimit"));
}

#[tokio::test]
async fn nothing_is_half_written_by_a_bad_request() {
    let edge = Edge::start().await;
    let before = edge.registry.snapshot().revision();
    let tunnels = edge.tunnels();
    for (body, named) in [
        (json!({}), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": 5 }), "name"),
        (json!({ "name": null }), "name"),
        (json!({ "name": "a\u{0}b" }), "name"),
        (json!({ "name": "x".repeat(5000) }), "name"),
        (json!({ "name": Uuid::new_v4() }), "name"),
        (json!({ "name": "a", "tunnel_secret": "c2hvcnQ=" }), "tunnel_secret"),
        (json!({ "name": "a", "tunnel_secret": "not base64" }), "tunnel_secret"),
        (json!({ "name": "a", "config_src": "elsewhere" }), "config_src"),
    ] {
        let answer = edge.post(&tunnels, body.clone()).await;
        let code = answer.json()["errors"][0]["code"].as_u64().unwrap();
        let message = answer.refused(400, u32::try_from(code).unwrap());
        assert!(message.contains(named), "{body}: {message}");
        assert!(!message.contains("c2hvcnQ"), "{message}");
    }
    let record = json!({ "type": "A", "name": "a", "content": "192.0.2.1", "settings": [true] });
    edge.post(&format!("/zones/{}/dns_records", edge.zone), record).await.refused(400, 6007);
    let pool = json!({ "name": "a", "origins": [["a", "192.0.2.1"]] });
    edge.post("/user/load_balancers/pools", pool).await.refused(400, 1004);
    for list in [r#"["a"]"#, r#"["a",null,null]"#, "[]", "[null]"] {
        edge.call(Method::POST, &tunnels, list).await.refused(400, 6007);
    }
    for body in ["[", "{\"name\":", "{\"name\":\"a\"}x", "\"text\"", "{\"name\":\"a\",\"name\":\"b\"}", "NaN"] {
        edge.call(Method::POST, &tunnels, body).await.refused(400, 6007);
    }
    edge.call(Method::POST, &tunnels, "[".repeat(10_000)).await.refused(400, 6007);
    edge.call(Method::POST, &tunnels, b"{\"name\":\"\xff\"}".to_vec()).await.refused(400, 6007);
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20));
    edge.call(Method::POST, &tunnels, large).await.refused(413, 1413);
    edge.post("/accounts/0123/cfd_tunnel", json!({ "name": "a" })).await.refused(404, 7003);
    for id in ["x", "00000000-0000-0000-0000-000000000000", "11111111222243338444555555555555"] {
        for (method, rest) in [
            (Method::GET, ""),
            (Method::PATCH, ""),
            (Method::DELETE, ""),
            (Method::GET, "/token"),
            (Method::GET, "/connections"),
            (Method::DELETE, "/connections"),
            (Method::GET, "/configurations"),
            (Method::PUT, "/configurations"),
        ] {
            edge.call(method, &format!("{tunnels}/{id}{rest}"), "").await.refused(404, 7003);
        }
    }
    assert_eq!(edge.registry.snapshot().revision(), before);
    assert!(edge.closed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lists_are_filtered_and_cut_into_pages() {
    let edge = Edge::start().await;
    for name in ["api-1", "api-2", "api-old", "web", "web-2"] {
        edge.tunnel(name).await;
    }
    let (gone, _) = edge.tunnel("gone").await;
    edge.call(Method::DELETE, &gone, "").await.result();
    let list = async |query: &str| {
        let answer = edge.get(&format!("{}?{query}", edge.tunnels())).await;
        let names: Vec<_> = answer
            .result()
            .as_array()
            .unwrap()
            .iter()
            .map(|tunnel| tunnel["name"].as_str().unwrap().to_owned())
            .collect();
        (names.join(" "), answer.json()["result_info"].clone())
    };
    for (query, names) in [
        ("", "api-1 api-2 api-old web web-2 gone"),
        ("is_deleted=false&page=1", "api-1 api-2 api-old web web-2"),
        ("is_deleted=true", "gone"),
        ("name=web&is_deleted=false", "web"),
        ("name_prefix=api&exclude_prefix=api-old", "api-1 api-2"),
        ("status=inactive&include_prefix=web", "web web-2"),
        ("status=healthy,degraded", ""),
        ("existed_at=2001-01-01T00:00:00Z", ""),
        ("per_page=2&page=2", "api-old web"),
        ("per_page=4&page=2", "web-2 gone"),
        ("per_page=2&page=4", ""),
        ("page=18446744073709551615&per_page=1000", ""),
    ] {
        assert_eq!(list(query).await.0, names, "{query}");
    }
    let info = json!({ "page": 2, "per_page": 4, "count": 2, "total_count": 6, "total_pages": 2 });
    assert_eq!(list("per_page=4&page=2").await.1, info);
    assert_eq!(list("name=nobody").await.1["total_pages"], 1);
    for query in ["is_deleted=maybe", "uuid=x", "existed_at=yesterday", "per_page=many"] {
        let message = edge.get(&format!("{}?{query}", edge.tunnels())).await.refused(400, 1004);
        assert!(message.starts_with(query.split('=').next().unwrap()), "{message}");
    }
    assert_eq!(edge.get(&format!("/accounts/{}/tunnels", edge.account)).await.result().as_array().unwrap().len(), 6);
}
