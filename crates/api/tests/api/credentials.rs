use http::Method;
use jiff::Timestamp;
use registry::NewToken;

use crate::edge::Edge;

#[tokio::test]
async fn a_call_needs_a_valid_credential() {
    let edge = Edge::start().await;
    let verify = "/client/v4/user/tokens/verify";
    let get = |headers: Vec<(&'static str, String)>, path: &'static str| {
        let edge = &edge;
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            edge.send(Method::GET, path, &headers, "").await
        }
    };
    let good = format!("Bearer {}", edge.token);
    let zones = "/client/v4/zones";

    assert_eq!(get(vec![("authorization", good.clone())], verify).await.result()["status"], "active");
    let by_key = vec![("x-auth-email", "a@example.test".into()), ("x-auth-key", edge.token.clone())];
    assert_eq!(get(by_key, zones).await.result().as_array().unwrap().len(), 1);
    let both = vec![("x-auth-email", "a@example.test".into()), ("x-auth-key", "wrong".into()), ("authorization", good)];
    get(both, zones).await.result();

    get(vec![], zones).await.refused(400, 9106);
    for malformed in ["Bearer", "Bearer ", "Basic YTpi", "Bearer a b", &format!("Bearer {}", "x".repeat(600))] {
        let answer = get(vec![("authorization", malformed.to_owned())], zones).await;
        answer.refused(400, 6003);
        assert_eq!(answer.json()["errors"][0]["error_chain"][0]["code"], 6111);
    }
    let wrong = vec![("authorization", "Bearer snk_wrong".to_owned())];
    let message = get(wrong.clone(), zones).await.refused(403, 9109);
    assert!(!message.contains("snk_wrong"), "{message}");
    get(wrong, verify).await.refused(401, 1000);
    let unknown = vec![("x-auth-email", "a@example.test".to_owned()), ("x-auth-key", "wrong".to_owned())];
    get(unknown, zones).await.refused(403, 9103);

    let new = NewToken { name: "old".into(), expires_at: Some(Timestamp::now()) };
    let (_, expired) = edge.registry.create_token(Timestamp::now(), new).await.unwrap();
    let message = get(vec![("authorization", format!("Bearer {expired}"))], zones).await.refused(403, 9109);
    assert!(message.contains("expired"), "{message}");
    assert_eq!(*edge.known.lock().unwrap(), [edge.address.ip(); 3], "only who has shown a valid token is known");
}

#[tokio::test]
async fn too_many_calls_of_one_credential_are_told_to_wait() {
    let edge = Edge::start().await;
    let mut refused = None;
    for _ in 0..1201 {
        let answer = edge.get("/accounts").await;
        if answer.status != 200 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("1201 calls are one too many");
    refused.refused(429, 971);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&wait), "{wait}");
    assert!(!refused.headers.contains_key("x-should-retry"));
    assert!(refused.headers["ratelimit"].to_str().unwrap().contains("r=0"));
}
