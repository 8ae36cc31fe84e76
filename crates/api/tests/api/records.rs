use http::Method;
use serde_json::{Value, json};

use crate::edge::Edge;

impl Edge {
    fn records(&self) -> String {
        format!("/zones/{}/dns_records", self.zone)
    }

    /// Makes a record, and answers it.
    pub(crate) async fn record(&self, body: Value) -> Value {
        self.post(&self.records(), body).await.result()
    }

    /// The contents of the records that a query finds, in order.
    async fn contents(&self, query: &str) -> String {
        let answer = self.get(&format!("{}?{query}", self.records())).await;
        let result = answer.result();
        let contents: Vec<_> =
            result.as_array().unwrap().iter().map(|record| record["content"].as_str().unwrap().to_owned()).collect();
        assert_eq!(answer.json()["result_info"]["count"], contents.len());
        contents.join(" ")
    }
}

#[tokio::test]
async fn a_record_is_made_read_changed_and_deleted() {
    let edge = Edge::start().await;
    let made = edge.record(json!({ "type": "a", "name": "WWW", "content": "192.0.2.1", "ttl": "120.0" })).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    let expected = json!({
        "id": id, "zone_id": edge.zone, "zone_name": "example.test", "name": "www.example.test", "type": "A",
        "content": "192.0.2.1", "proxiable": true, "proxied": false, "ttl": 120, "settings": {}, "meta": {},
        "comment": null, "tags": [], "created_on": made["created_on"], "modified_on": made["created_on"],
    });
    assert_eq!(made, expected);
    let path = format!("{}/{id}", edge.records());
    assert_eq!(edge.get(&path).await.result(), made);

    let changed =
        edge.patch(&path, json!({ "comment": "main site", "tags": ["team:web"], "proxied": true })).await.result();
    assert_eq!(
        (&changed["ttl"], &changed["comment"], &changed["proxied"]),
        (&json!(1), &json!("main site"), &json!(true))
    );
    assert_eq!(changed["comment_modified_on"], changed["modified_on"]);
    let revision = edge.registry.snapshot().revision();
    for _ in 0..2 {
        assert_eq!(edge.put(&path, changed.clone()).await.result(), changed, "what was read is sent back");
        assert_eq!(edge.patch(&path, json!({ "name": "www.EXAMPLE.test." })).await.result(), changed);
    }
    assert_eq!(edge.registry.snapshot().revision(), revision, "and changes nothing");

    let cleared = edge.patch(&path, json!({ "comment": null, "tags": null })).await.result();
    assert_eq!((&cleared["comment"], &cleared["tags"]), (&Value::Null, &json!([])));
    let replaced = edge.put(&path, json!({ "type": "TXT", "name": "@", "content": "\"v=1\"" })).await.result();
    assert_eq!((&replaced["name"], &replaced["content"]), (&json!("example.test"), &json!("\"v=1\"")));
    assert_eq!((&replaced["proxied"], &replaced["created_on"]), (&json!(false), &made["created_on"]));
    assert_eq!(edge.call(Method::DELETE, &path, "{}").await.result(), json!({ "id": id }));
    for method in [Method::DELETE, Method::GET, Method::PUT, Method::PATCH] {
        let body = json!({ "type": "A", "name": "www", "content": "192.0.2.1" });
        edge.call(method, &path, body.to_string()).await.refused(404, 81044);
    }
}

#[tokio::test]
async fn data_comes_as_members_or_as_text_and_goes_as_both() {
    let edge = Edge::start().await;
    let data =
        json!({ "priority": "10", "weight": 5.0, "port": 5060, "target": "sip.example.test.", "service": "_sip" });
    let made = edge.record(json!({ "type": "SRV", "name": "_sip._tcp", "data": data })).await;
    let members = json!({ "priority": 10, "weight": 5, "port": 5060, "target": "sip.example.test" });
    assert_eq!((&made["content"], &made["priority"]), (&json!("10 5 5060 sip.example.test"), &json!(10)));
    assert_eq!(made["data"], members);
    let path = format!("{}/{}", edge.records(), made["id"].as_str().unwrap());
    let changed = edge.patch(&path, json!({ "priority": 20 })).await.result();
    assert_eq!((&changed["content"], &changed["data"]["priority"]), (&json!("20 5 5060 sip.example.test"), &json!(20)));
    let text = edge.record(json!({ "type": "CAA", "name": "@", "content": "0 issue ca.example" })).await;
    assert_eq!(text["content"], "0 issue \"ca.example\"");
    assert_eq!(text["data"], json!({ "flags": 0, "tag": "issue", "value": "ca.example" }));
    let mail = edge.record(json!({ "type": "MX", "name": "@", "content": "mx.example.test.", "priority": "5" })).await;
    assert_eq!((&mail["content"], &mail["priority"]), (&json!("mx.example.test"), &json!(5)));
    assert!(mail.get("data").is_none());
    let apex = edge.record(json!({ "type": "CNAME", "name": "apex", "content": "@" })).await;
    assert_eq!(apex["content"], "example.test");
}

#[tokio::test]
async fn what_is_no_record_is_refused_with_its_reason() {
    let edge = Edge::start().await;
    let a = |name: &str, content: &str| json!({ "type": "A", "name": name, "content": content });
    edge.record(a("a", "192.0.2.1")).await;
    edge.record(json!({ "type": "CNAME", "name": "c", "content": "a.example.test" })).await;
    let revision = edge.registry.snapshot().revision();
    for (body, code, chain, said) in [
        (a("x", "192.0.2"), 1004, 9005, "IPv4"),
        (json!({ "type": "AAAA", "name": "x", "content": "192.0.2.1" }), 1004, 9006, "IPv6"),
        (json!({ "type": "CNAME", "name": "x", "content": "a b" }), 1004, 9007, "host name"),
        (json!({ "type": "A", "name": "x", "content": "192.0.2.1", "ttl": 59 }), 1004, 9021, "ttl"),
        (json!({ "type": "A", "name": "x", "content": "192.0.2.1", "ttl": 86_401 }), 1004, 9021, "ttl"),
        (json!({ "type": "TXT", "name": "x", "content": "x", "proxied": true }), 1004, 9041, "proxied"),
        (a("x.elsewhere.test.", "192.0.2.1"), 1004, 9000, "zone"),
        (a("a..b", "192.0.2.1"), 1004, 9000, "name"),
        (a("a.*", "192.0.2.1"), 1004, 9000, "name"),
        (a("", "192.0.2.1"), 1004, 9000, "name"),
        (json!({ "type": "A", "content": "192.0.2.1" }), 1004, 9000, "name"),
        (json!({ "type": "WKS", "name": "x", "content": "x" }), 1004, 9101, "type"),
        (json!({ "name": "x", "content": "x" }), 1004, 9101, "type"),
        (json!({ "type": "A", "name": "x" }), 1004, 9101, "content"),
        (json!({ "type": "MX", "name": "x", "content": "a.test" }), 1004, 9101, "priority"),
        (json!({ "type": "MX", "name": "x", "content": "a.test", "priority": 65_536 }), 1004, 9101, "priority"),
        (
            json!({ "type": "SRV", "name": "x", "data": { "priority": 1, "weight": 2, "port": 3 } }),
            1004,
            9101,
            "target",
        ),
        (
            json!({ "type": "A", "name": "x", "content": "192.0.2.1", "comment": "x".repeat(501) }),
            1004,
            9300,
            "comment",
        ),
        (a("a", "192.0.2.1"), 81058, 0, "exists"),
        (json!({ "type": "A", "name": "a", "content": "192.0.2.1", "ttl": 300 }), 81057, 0, "exists"),
        (json!({ "type": "CNAME", "name": "a", "content": "x.test" }), 81053, 0, "exists"),
        (json!({ "type": "CNAME", "name": "c", "content": "x.test" }), 81053, 0, "exists"),
        (a("c", "192.0.2.1"), 81054, 0, "CNAME"),
    ] {
        let answer = edge.post(&edge.records(), body.clone()).await;
        let message = answer.refused(400, code);
        assert!(message.contains(said), "{body}: {message}");
        let found = &answer.json()["errors"][0]["error_chain"][0]["code"];
        assert_eq!(found, &if chain == 0 { Value::Null } else { json!(chain) }, "{body}");
    }
    for body in [json!({ "type": "A", "name": "x", "content": 1 }), json!({ "type": "A", "ttl": "soon" }), json!([])] {
        edge.post(&edge.records(), body).await.refused(400, 6007);
    }
    edge.post("/zones/x/dns_records", a("x", "192.0.2.1")).await.refused(404, 7003);
    edge.get(&format!("/zones/{}/dns_records", "0".repeat(32))).await.refused(404, 7003);
    assert_eq!(edge.registry.snapshot().revision(), revision);
}

#[tokio::test]
async fn lists_of_records_are_filtered_ordered_and_cut() {
    let edge = Edge::start().await;
    for body in [
        json!({ "type": "A", "name": "a", "content": "192.0.2.1", "comment": "First One", "tags": ["team:web", "x:1"] }),
        json!({ "type": "A", "name": "a", "content": "192.0.2.2", "ttl": 300, "tags": ["team:ops"] }),
        json!({ "type": "AAAA", "name": "b", "content": "2001:db8::1", "proxied": true }),
        json!({ "type": "TXT", "name": "t", "content": "\"Say\" \"This\"" }),
        json!({ "type": "CNAME", "name": "*.w", "content": "a.example.test" }),
    ] {
        edge.record(body).await;
    }
    let (a1, a2, b, t, w) = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "\"Say\" \"This\"", "a.example.test");
    for (query, expected) in [
        ("", vec![a1, a2, b, t, w]),
        ("type=A", vec![a1, a2]),
        ("type=a&name=A.example.TEST.", vec![a1, a2]),
        ("type=PTR", vec![]),
        ("type=NONE", vec![]),
        ("name=a.example.test&content=192.0.2.2", vec![a2]),
        ("name.exact=a.example.test&per_page=1", vec![a1]),
        ("name=a", vec![]),
        ("name=*.w.example.test", vec![w]),
        ("name.startswith=a.", vec![a1, a2]),
        ("name.endswith=W.example.test", vec![w]),
        ("name.contains=.w.", vec![w]),
        ("content=saythis", vec![t]),
        ("content.exact=%22SayThis%22", vec![t]),
        ("content=A.example.test.", vec![w]),
        ("content.contains=db8", vec![b]),
        ("proxied=true", vec![b]),
        ("comment=first%20one", vec![a1]),
        ("comment.contains=FIRST", vec![a1]),
        ("comment.present=", vec![a1]),
        ("comment.absent=true&type=A", vec![a2]),
        ("tag=team:web", vec![a1]),
        ("tag.present=team", vec![a1, a2]),
        ("tag.absent=team&type=TXT", vec![t]),
        ("tag=team:web&tag.present=x", vec![a1]),
        ("tag=team:ops&tag.present=x&tag_match=any", vec![a1, a2]),
        ("search=db8", vec![b]),
        ("search=FIRST", vec![a1]),
        ("type=TXT&name=b.example.test&match=any", vec![b, t]),
        ("order=content", vec![t, a1, a2, b, w]),
        ("order=name&direction=desc&type=A", vec![a2, a1]),
        ("order=ttl&direction=desc&per_page=1", vec![a2]),
        ("direction=desc&per_page=2", vec![w, t]),
        ("per_page=2&page=2", vec![b, t]),
        ("per_page=2.0&page=3.0", vec![w]),
        ("per_page=2&page=4", vec![]),
        ("page=99999999999999999999", vec![]),
        ("unknown=1", vec![a1, a2, b, t, w]),
    ] {
        assert_eq!(edge.contents(query).await, expected.join(" "), "{query}");
    }
    let info = edge.get(&format!("{}?per_page=2&page=3", edge.records())).await.json()["result_info"].clone();
    assert_eq!(info, json!({ "page": 3, "per_page": 2, "count": 1, "total_count": 5, "total_pages": 3 }));
    edge.get(&format!("{}?proxied=maybe", edge.records())).await.refused(400, 1004);
    // Every page of many, exactly once.
    let posts: Vec<_> =
        (0..250).map(|index| json!({ "type": "A", "name": format!("n{index}"), "content": "192.0.2.9" })).collect();
    edge.post(&format!("{}/batch", edge.records()), json!({ "posts": posts })).await.result();
    let mut seen = Vec::new();
    for page in 1.. {
        let result = edge.get(&format!("{}?content=192.0.2.9&page={page}", edge.records())).await.result();
        let names = result.as_array().unwrap().iter().map(|record| record["name"].as_str().unwrap().to_owned());
        let before = seen.len();
        seen.extend(names);
        if seen.len() == before {
            break;
        }
    }
    let expected: Vec<_> = (0..250).map(|index| format!("n{index}.example.test")).collect();
    assert_eq!(seen, expected, "in the order in which they were posted");
}

#[tokio::test]
async fn a_batch_happens_in_order_and_wholly_or_not_at_all() {
    let edge = Edge::start().await;
    let path = format!("{}/batch", edge.records());
    let old = edge.record(json!({ "type": "A", "name": "old", "content": "192.0.2.1" })).await;
    let kept = edge.record(json!({ "type": "A", "name": "kept", "content": "192.0.2.2" })).await;
    let put = edge.record(json!({ "type": "TXT", "name": "text", "content": "one", "comment": "gone" })).await;
    let batch = json!({
        "posts": [{ "type": "CNAME", "name": "old", "content": "kept.example.test" }],
        "puts": [{ "id": put["id"], "type": "TXT", "name": "text", "content": "two" }],
        "patches": [{ "id": kept["id"], "ttl": 300 }],
        "deletes": [{ "id": old["id"] }],
    });
    let result = edge.post(&path, batch).await.result();
    assert_eq!(result["deletes"], json!([old]));
    assert_eq!((&result["patches"][0]["ttl"], &result["patches"][0]["content"]), (&json!(300), &json!("192.0.2.2")));
    assert_eq!((&result["puts"][0]["content"], &result["puts"][0]["comment"]), (&json!("two"), &Value::Null));
    assert_eq!(result["posts"][0]["name"], "old.example.test");

    let revision = edge.registry.snapshot().revision();
    let posts: Vec<_> =
        (0..300).map(|index| json!({ "type": "A", "name": format!("n{index}"), "content": "192.0.2.9" })).collect();
    let mut twins = posts.clone();
    twins.push(json!({ "type": "CNAME", "name": "n7", "content": "x.test" }));
    edge.post(&path, json!({ "posts": twins })).await.refused(400, 81053);
    let mut bad = posts.clone();
    bad.push(json!({ "type": "A", "name": "x", "content": "nonsense" }));
    let message = edge.post(&path, json!({ "posts": bad, "deletes": [{ "id": kept["id"] }] })).await.refused(400, 1004);
    assert!(message.contains("posts[300]."), "{message}");
    edge.post(&path, json!({ "posts": posts, "deletes": [{ "id": old["id"] }] })).await.refused(404, 81044);
    edge.post(&path, json!({ "deletes": [{}] })).await.refused(400, 1004);
    assert_eq!(edge.contents("content=192.0.2.9").await, "");
    let left = edge.registry.snapshot();
    assert_eq!(left.record_count(edge.zone.parse().unwrap()), 3);
    // A refusal of more than a transaction takes may hold and release the zone, and nothing else.
    assert!(left.revision() <= revision + 4, "{} {revision}", left.revision());

    let result = edge.post(&path, json!({ "posts": posts })).await.result();
    assert_eq!(result["posts"].as_array().unwrap().len(), 300);
    assert_eq!(
        edge.post(&path, json!({})).await.result(),
        json!({ "deletes": [], "patches": [], "puts": [], "posts": [] })
    );
    let many: Vec<_> = (0..5001).map(|_| json!({ "id": kept["id"] })).collect();
    edge.post(&path, json!({ "patches": many })).await.refused(400, 6007);
}

#[tokio::test]
async fn zone_files_go_out_and_come_in() {
    let edge = Edge::start().await;
    edge.record(json!({ "type": "A", "name": "a", "content": "192.0.2.1", "proxied": true })).await;
    edge.record(json!({ "type": "MX", "name": "@", "content": "mx.elsewhere.test", "priority": 10 })).await;
    let exported = edge.get(&format!("{}/export", edge.records())).await;
    assert_eq!(exported.headers["content-type"], "text/plain; charset=utf-8");
    let lines = [
        "example.test.\t1\tIN\tMX\t10 mx.elsewhere.test.",
        "a.example.test.\t1\tIN\tA\t192.0.2.1 ; cf_tags=cf-proxied:true",
    ];
    assert_eq!(exported.text.lines().skip(1).collect::<Vec<_>>(), lines);

    let import = async |file: &str, proxied: &str| {
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"z\"\r\n\r\n{file}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"proxied\"\r\n\r\n{proxied}\r\n--b--\r\n"
        );
        let bearer = format!("Bearer {}", edge.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "multipart/form-data; boundary=b")];
        edge.send(Method::POST, &format!("/client/v4{}/import", edge.records()), &headers, body).await
    };
    let file = "$TTL 300\n@ SOA a b 1 2 3 4 5\na A 192.0.2.1\nb A 192.0.2.2\n  TXT hello\n";
    assert_eq!(import(file, "true").await.result(), json!({ "recs_added": 2, "total_records_parsed": 3 }));
    assert_eq!(import(file, "true").await.result()["recs_added"], 0, "a second time there is nothing to add");
    assert_eq!(edge.contents("name=b.example.test&proxied=true").await, "192.0.2.2");
    let revision = edge.registry.snapshot().revision();
    for (file, code, said) in [
        ("c A 192.0.2.3\nd A nonsense\n", 1004, "line 2"),
        ("c A 192.0.2.3\nb CNAME c\n", 81053, "line 2"),
        ("c A 192.0.2.3\n$INCLUDE x\n", 1004, "line 2"),
    ] {
        let message = import(file, "").await.refused(400, code);
        assert!(message.contains(said), "{message}");
    }
    let message = import("", "maybe").await.refused(400, 1004);
    assert!(message.contains("proxied"), "{message}");
    edge.call(Method::POST, &format!("{}/import", edge.records()), b"\xff\xfe".to_vec()).await.refused(400, 1004);
    assert_eq!(edge.registry.snapshot().revision(), revision);
    edge.call(Method::POST, &format!("{}/import", edge.records()), "plain TXT text\n").await.result();
    assert_eq!(edge.contents("name=plain.example.test").await, "text");
    // More than one step.
    let many: String = (0..2500).map(|index| format!("m{index} A 192.0.2.4\n")).collect();
    assert_eq!(import(&many, "false").await.result()["recs_added"], 2500);
    assert_eq!(
        import(&edge.get(&format!("{}/export", edge.records())).await.text, "false").await.result()["recs_added"],
        0
    );
}

#[tokio::test]
async fn a_record_by_hand_and_the_agent_s_words_are_the_same() {
    let edge = Edge::start().await;
    let (_, tunnel) = edge.tunnel("web").await;
    let target = format!("{tunnel}.cfargotunnel.com");
    let record = edge.record(json!({ "type": "CNAME", "name": "app", "content": target, "proxied": true })).await;
    let leads = |name: &str| edge.registry.snapshot().route(name).map(|route| route.tunnel);
    assert_eq!(leads("app.example.test"), Some(tunnel));
    let route = format!("/zones/{}/tunnels/{tunnel}/routes", edge.zone);
    let route = async |name: &str| edge.put(&route, json!({ "type": "dns", "user_hostname": name })).await;
    assert_eq!(route("app.example.test").await.result()["cname"], "unchanged");
    assert_eq!(route("*.b.example.test").await.result()["cname"], "new");
    let listed = edge.get(&format!("{}?name=*.b.example.test", edge.records())).await.result();
    assert_eq!((&listed[0]["content"], &listed[0]["proxied"]), (&json!(target), &json!(true)));
    edge.record(json!({ "type": "A", "name": "www", "content": "192.0.2.1" })).await;
    let message = route("www.example.test").await.refused(400, 81053);
    assert!(message.contains("record of type A"), "{message}");
    edge.call(Method::DELETE, &format!("{}/{}", edge.records(), record["id"].as_str().unwrap()), "").await.result();
    assert_eq!(leads("app.example.test"), None);
}
