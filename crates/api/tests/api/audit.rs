use serde_json::json;

use crate::edge::Edge;

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let edge = Edge::start().await;
    let log = format!("/accounts/{}/audit_logs", edge.account);
    assert_eq!(edge.get(&log).await.result(), json!([]));
    let zone = edge.post("/zones", json!({ "name": "audited.example" })).await.result();
    let zone = zone["id"].as_str().unwrap();
    let records = format!("/zones/{zone}/dns_records");
    let record = json!({ "type": "A", "name": "a", "content": "192.0.2.1", "ttl": 60 });
    let record = edge.post(&records, record).await.result();
    edge.get(&records).await.result();
    // What changes nothing, or is refused, is no change.
    let path = format!("{records}/{}", record["id"].as_str().unwrap());
    edge.patch(&path, json!({ "ttl": 60 })).await.result();
    edge.post("/zones", json!({ "name": "audited.example" })).await.refused(400, 1061);

    let entries = edge.get(&log).await.result();
    let all = entries.as_array().unwrap();
    assert_eq!(all.len(), 2, "{entries}");
    let (newest, oldest) = (&all[0], &all[1]);
    assert_eq!((&oldest["action"]["type"], &oldest["resource"]["type"]), (&json!("create"), &json!("zones")));
    assert_eq!((&oldest["resource"]["id"], &oldest["actor"]["ip"]), (&json!(zone), &json!("127.0.0.1")));
    let metadata = &newest["metadata"];
    assert_eq!((&metadata["method"], &metadata["path"]), (&json!("POST"), &json!(records)));
    assert_eq!(metadata["revision"].as_u64(), Some(edge.registry.snapshot().revision()));
    assert!(metadata["ray"].as_str().is_some_and(|ray| ray.len() > 16), "{metadata}");
    assert!(newest["actor"]["id"].as_str().is_some_and(|id| id.len() == 32), "{newest}");

    let count = async |query: &str| edge.get(&format!("{log}?{query}")).await.result().as_array().unwrap().len();
    let id = newest["id"].as_str().unwrap();
    for (query, wanted) in [
        (format!("id={id}"), 1),
        ("action.type=create".into(), 2),
        ("action.type=delete".into(), 0),
        ("actor.ip=127.0.0.1".into(), 2),
        ("actor.ip=10.0.0.0/8".into(), 0),
        ("zone.name=audited.example".into(), 1),
        ("zone.name=none.example".into(), 0),
        ("since=2020-01-01".into(), 2),
        ("before=2020-01-01T00:00:00Z".into(), 0),
        ("per_page=1&page=2".into(), 1),
        ("page=2".into(), 0),
    ] {
        assert_eq!(count(&query).await, wanted, "{query}");
    }
    assert_eq!(edge.get(&format!("{log}?direction=asc")).await.result()[0], *oldest);
    assert_eq!(edge.get("/user/audit_logs").await.result(), entries);
    for bad in ["since=yesterday", "actor.ip=x", "direction=up"] {
        assert_eq!(edge.get(&format!("{log}?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_change_of_thousands_of_records_is_one_entry() {
    let edge = Edge::start().await;
    let zone = edge.post("/zones", json!({ "name": "large.example" })).await.result();
    let path = format!("/zones/{}/dns_records/batch", zone["id"].as_str().unwrap());
    let posts: Vec<_> =
        (0..300).map(|i| json!({ "type": "A", "name": format!("n{i}"), "content": "192.0.2.1", "ttl": 60 })).collect();
    edge.post(&path, json!({ "posts": posts })).await.result();
    let entries = edge.get("/user/audit_logs").await.result();
    assert_eq!(entries.as_array().unwrap().len(), 2, "{entries}");
}
