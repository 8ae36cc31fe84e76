//! The document of the API itself. Whether it is true, every call of the other tests is looked at for (`conformance`).

use http::{Method, StatusCode};
use serde_json::Value;

use crate::edge::Edge;

async fn document(edge: &Edge) -> Value {
    let answer = edge.send(Method::GET, "/client/v4/openapi.json", &[], "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
    })
}

#[tokio::test]
async fn it_is_served_to_everybody_and_may_be_kept() {
    let edge = Edge::start().await;
    let answer = edge.send(Method::GET, "/client/v4/openapi.json", &[], "").await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    assert!(answer.text.len() < 512 << 10, "{} bytes", answer.text.len());
    assert_eq!(edge.get("/zones").await.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn it_describes_every_operation_in_full() {
    let document = document(&Edge::start().await).await;
    let mut ids = std::collections::HashSet::new();
    for (path, method, operation) in operations(&document) {
        let is = |word: &str| operation.get(word).is_some();
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
        assert!(is("summary") && is("tags") && operation["responses"].get("200").is_some(), "{method} {path}");
        let is_guarded = path.starts_with("/client/v4") || path.starts_with("/snicket/v1");
        let is_open = path.ends_with("/ips") || path.ends_with("/openapi.json") || path.ends_with("/join");
        assert_eq!(is("security"), is_guarded && !is_open, "{method} {path}");
    }
    assert!(ids.len() > 150, "{}", ids.len());
    let permission = |method: &str, path: &str| document["paths"][path][method]["x-permission-group"].clone();
    assert_eq!(permission("post", "/client/v4/zones/{zone}/dns_records"), "DNS Write");
    assert_eq!(permission("get", "/client/v4/accounts/{account}/cfd_tunnel/{tunnel}/token"), "Cloudflare Tunnel Write");
    assert_eq!(permission("post", "/snicket/v1/invitations"), "all of them");
    assert_eq!(permission("get", "/client/v4/zones"), Value::Null);
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_nothing_of_the_making_is_left() {
    fn look(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    assert!(!name.starts_with("x-") || name == "x-permission-group", "{name}: {member}");
                    if let (Some(reference), true) = (member.as_str(), name == "$ref") {
                        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                    }
                    look(document, member);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| look(document, item)),
            _ => (),
        }
    }
    let document = document(&Edge::start().await).await;
    look(&document, &document);
}

#[tokio::test]
async fn bounds_of_bodies_are_those_that_hold() {
    let document = document(&Edge::start().await).await;
    let schema = |name: &str| &document["components"]["schemas"][name];
    assert_eq!(schema("NewZoneBody")["required"], serde_json::json!(["name"]));
    assert_eq!(schema("RecordBody")["properties"]["tags"]["maxItems"], 20);
    assert_eq!(schema("MonitorBody")["properties"]["retries"]["anyOf"][0]["maximum"], 10);
    assert_eq!(schema("Monitor")["properties"]["retries"]["maximum"], 10);
    assert!(schema("MonitorChange").get("required").is_none());
}
