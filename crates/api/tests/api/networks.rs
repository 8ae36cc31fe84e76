use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;
use crate::items::{NO_OBJECTS, below};

impl Edge {
    fn teamnet(&self, rest: &str) -> String {
        format!("/accounts/{}/teamnet/{rest}", self.account)
    }
}

#[tokio::test]
async fn there_is_always_one_default_network() {
    let edge = Edge::start().await;
    let networks = edge.teamnet("virtual_networks");
    let all = edge.get(&networks).await.result();
    let first = all[0].clone();
    assert_eq!(all, json!([first]));
    assert_eq!((&first["name"], &first["is_default_network"]), (&json!("default"), &json!(true)));
    assert_eq!((&first["comment"], &first["deleted_at"]), (&json!(""), &Value::Null));
    let path = below(&networks, &first);
    let revision = edge.latest();
    assert_eq!(edge.patch(&path, first.clone()).await.result(), first);
    assert_eq!(edge.latest(), revision);
    assert_eq!(edge.patch(&path, json!({ "name": "office" })).await.result()["name"], "office");
    edge.patch(&path, json!({ "is_default_network": false })).await.refused(400, 1004);
    edge.remove(&path).await.refused(412, 2412);

    let second = edge.post(&networks, json!({ "name": "lab", "comment": "c", "is_default": true })).await.result();
    assert_eq!(second["is_default_network"], true);
    let office = edge.get(&path).await.result();
    assert_eq!((&office["is_default_network"], &office["name"]), (&json!(false), &json!("office")));
    edge.post(&networks, json!({ "name": "lab" })).await.refused(409, 1013);
    for body in
        [json!({}), json!({ "name": "" }), json!({ "name": 1 }), json!({ "name": "x", "is_default_network": "yes" })]
    {
        edge.post(&networks, body).await.refused(400, 1004);
    }
    for body in NO_OBJECTS {
        edge.call(Method::POST, &networks, body).await.refused(400, 6007);
    }
    for (query, found) in [
        ("", json!([office, second])),
        ("name=lab", json!([second])),
        ("is_default=true", json!([second])),
        ("is_default_network=false", json!([office])),
        ("is_deleted=false&per_page=1000", json!([office, second])),
        ("is_deleted=true", json!([])),
    ] {
        assert_eq!(edge.get(&format!("{networks}?{query}")).await.result(), found, "{query}");
    }
    edge.remove(&path).await.refused(412, 2412);
    edge.put(&path, json!({ "name": "x" })).await.refused(405, 7001);
    edge.patch(&path, json!({ "is_default_network": true })).await.result();
    let apps = format!("/zones/{}/spectrum/apps", edge.zone);
    let app = json!({ "dns": { "name": "a.example.test" }, "protocol": "tcp/22", "origin_direct": ["tcp://10.0.0.1:22"],
        "virtual_network_id": second["id"] });
    let app = edge.post(&apps, app).await.result();
    let message = edge.remove(&format!("{}?force=true", below(&networks, &second))).await.refused(412, 2412);
    assert!(message.contains(app["id"].as_str().unwrap()), "{message}");
    edge.remove(&below(&apps, &app)).await.result();
    let gone = edge.remove(&below(&networks, &second)).await.result();
    assert!(gone["name"] == "lab" && gone["deleted_at"].is_string());
    edge.get(&below(&networks, &second)).await.refused(404, 7003);
}

#[tokio::test]
async fn a_private_route_is_made_found_changed_and_goes_with_its_tunnel() {
    let edge = Edge::start().await;
    let (routes, networks) = (edge.teamnet("routes"), edge.teamnet("virtual_networks"));
    let (tunnel_path, tunnel) = edge.tunnel("one").await;
    let (_, other) = edge.tunnel("other").await;
    let made =
        edge.post(&routes, json!({ "network": "10.1.2.3/16", "tunnel_id": tunnel, "comment": "c" })).await.result();
    let default = edge.get(&networks).await.result()[0].clone();
    assert_eq!((&made["network"], &made["tunnel_name"]), (&json!("10.1.0.0/16"), &json!("one")));
    assert_eq!((&made["virtual_network_id"], &made["virtual_network_name"]), (&default["id"], &json!("default")));
    assert_eq!((&made["deleted_at"], &made["tun_type"]), (&Value::Null, &json!("cfd_tunnel")));
    let path = below(&routes, &made);
    let revision = edge.latest();
    assert_eq!(edge.patch(&path, made.clone()).await.result(), made);
    assert_eq!((edge.latest(), edge.get(&path).await.result()), (revision, made.clone()));

    // One address of one network leads to one tunnel.
    for network in ["10.1.0.0/16", "10.0.0.0/8", "10.1.7.0/24", "0.0.0.0/0"] {
        let message = edge.post(&routes, json!({ "network": network, "tunnel_id": other })).await.refused(409, 1013);
        assert!(message.contains("10.1.0.0/16"), "{message}");
    }
    let lab = edge.post(&networks, json!({ "name": "lab" })).await.result();
    let in_lab = json!({ "network": "10.1.0.0/16", "tunnel_id": other, "virtual_network_id": lab["id"] });
    let in_lab = edge.post(&routes, in_lab).await.result();
    let sixth = edge.post(&routes, json!({ "network": "fd00::1", "tunnel_id": tunnel })).await.result();
    assert_eq!(sixth["network"], "fd00::1/128");
    let revision = edge.latest();
    for (body, said) in [
        (json!({ "tunnel_id": tunnel }), "network: it is missing"),
        (json!({ "network": "10.0.0.0/33", "tunnel_id": tunnel }), "network: "),
        (json!({ "network": 10, "tunnel_id": tunnel }), "network: "),
        (json!({ "network": "10.9.0.0/16" }), "tunnel_id: it is missing"),
        (json!({ "network": "10.9.0.0/16", "tunnel_id": lab["id"] }), "tunnel_id: there is no tunnel"),
        (
            json!({ "network": "10.9.0.0/16", "tunnel_id": tunnel, "virtual_network_id": tunnel }),
            "virtual_network_id: there is no",
        ),
        (json!({ "network": "10.9.0.0/16", "tunnel_id": tunnel, "comment": "a\u{7}" }), "comment"),
    ] {
        let message = edge.post(&routes, body.clone()).await.refused(400, 1004);
        assert!(message.starts_with(said), "{body}: {message}");
    }
    assert_eq!(edge.latest(), revision);

    for (query, found) in [
        ("is_deleted=false&tun_types=cfd_tunnel&page=1".to_owned(), json!([made, in_lab, sixth])),
        ("is_deleted=true".into(), json!([])),
        ("tun_types=gre".into(), json!([])),
        ("comment=c".into(), json!([made])),
        (format!("tunnel_id={other}"), json!([in_lab])),
        (format!("virtual_network_id={}", default["id"].as_str().unwrap()), json!([made, sixth])),
        ("network_subset=10.0.0.0/8&network_superset=10.1.1.0/24".into(), json!([made, in_lab])),
        ("network_superset=fd00::1/128".into(), json!([sixth])),
        ("existed_at=2020-01-01T00:00:00Z".into(), json!([])),
    ] {
        assert_eq!(edge.get(&format!("{routes}?{query}")).await.result(), found, "{query}");
    }
    edge.get(&format!("{routes}?network_subset=x")).await.refused(400, 1004);
    assert_eq!(edge.get(&format!("{routes}/ip/10.1.2.3")).await.result(), made);
    for address in ["fd00::1", "fd00%3A%3a1/"] {
        assert_eq!(edge.get(&format!("{routes}/ip/{address}")).await.result(), sixth);
    }
    let query = format!("?virtual_network_id={}", lab["id"].as_str().unwrap());
    assert_eq!(edge.get(&format!("{routes}/ip/10.1.2.3{query}")).await.result(), in_lab);
    edge.get(&format!("{routes}/ip/10.2.2.3")).await.refused(404, 7003);
    edge.get(&format!("{routes}/ip/x")).await.refused(400, 1004);
    edge.get(&format!("{routes}/ip/10.1.2.3?virtual_network_id={tunnel}")).await.refused(400, 1004);

    let moved =
        edge.patch(&path, json!({ "tunnel_id": other, "network": "10.2.0.0/16", "comment": null })).await.result();
    assert_eq!((&moved["tunnel_name"], &moved["comment"]), (&json!("other"), &json!("")));
    // A network goes with its routes only if that was asked for, a route always with its tunnel.
    edge.remove(&below(&networks, &lab)).await.refused(412, 2412);
    edge.remove(&format!("{}?force=true", below(&networks, &lab))).await.result();
    edge.get(&below(&routes, &in_lab)).await.refused(404, 7003);
    edge.remove(&tunnel_path).await.result();
    assert_eq!(edge.get(&routes).await.result(), json!([moved]));
    edge.get(&below(&routes, &sixth)).await.refused(404, 7003);
    let gone = edge.remove(&path).await.result();
    assert!(gone["network"] == "10.2.0.0/16" && gone["deleted_at"].is_string());
}
