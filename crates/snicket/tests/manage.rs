//! What people see and change by commands of their own: zones with their records, and pools with their members.

use harness::{Edge, LIMIT, Origin, Program, Visitor, until};
use serde_json::{Value, json};

fn events(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// What a command refuses to do: the exit code, and what is said.
async fn refused(edge: &Edge, words: &[&str]) -> (i32, String) {
    let (code, out, error) = edge.command(words).await;
    assert_ne!(code, 0, "{words:?}: {out}");
    (code, error)
}

/// The names, types and contents of a zone.
async fn records(edge: &Edge, zone: &str) -> Vec<String> {
    let out = edge.said(&["dns", "list", zone, "--json"]).await;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |event: &Value| [&event["name"], &event["type"], &event["content"]].map(text).join(" ");
    events(&out).iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_and_records_are_made_seen_and_removed() {
    let edge = Edge::start().await;
    assert!(edge.said(&["dns", "create", "example.test"]).await.contains("snicket up --dns"));
    let said = edge.said(&["dns"]).await;
    assert!(said.lines().any(|line| line.starts_with("example.test  full  active")), "{said}");
    let zones = events(&edge.said(&["dns", "--json"]).await);
    assert!(zones.iter().any(|zone| zone["event"] == "zone" && zone["name"] == "example.test"), "{zones:?}");

    for (words, said) in [
        (&["www", "A", "192.0.2.1", "--proxied"][..], "www.example.test A 192.0.2.1 (TTL auto, proxied)"),
        (&["@", "MX", "10", "mail.example.net", "--ttl", "3600"], "example.test MX 10 mail.example.net (TTL 3600)"),
        (&["_sip._tcp", "SRV", "1", "2", "5060", "sip"], "_sip._tcp.example.test SRV 1 2 5060 sip (TTL auto)"),
        (
            &["*.a", "TXT", "v=spf1 -all", "--comment", "no mail", "--tag", "team:web"],
            "*.a.example.test TXT v=spf1 -all",
        ),
        (&["www.example.test.", "A", "192.0.2.2"], "www.example.test A 192.0.2.2"),
    ] {
        let told = edge.said(&[&["dns", "add", "example.test"], words].concat()).await;
        assert!(told.contains(said), "{words:?}: {told}");
    }
    let said = edge.said(&["dns", "list", "example.test"]).await;
    assert!(said.contains("v=spf1 -all  ; no mail, team:web") && said.contains("10 mail.example.net"), "{said}");
    let said = edge.said(&["dns", "list", "example.test", "--name", "www", "--type", "a"]).await;
    assert_eq!(said.lines().count(), 3, "{said}");

    // What is there is told, and written over on request.
    let twin = ["dns", "add", "example.test", "www", "A", "192.0.2.1"];
    let (code, error) = refused(&edge, &twin).await;
    assert!(
        code == 1 && error.contains("(code 8105") && error.contains("snicket dns list example.test --name"),
        "{error}"
    );
    let said = edge.said(&["dns", "add", "example.test", "www", "A", "192.0.2.7", "--replace", "--json"]).await;
    assert_eq!((&events(&said)[0]["event"], &events(&said)[0]["ttl"]), (&"record".into(), &1.into()));
    let said = edge.said(&["dns", "list", "example.test", "--type", "A", "--json"]).await;
    assert_eq!(events(&said).len(), 1, "{said}");

    // One that is meant, or several that are said to be.
    edge.said(&["dns", "add", "example.test", "www", "A", "192.0.2.8"]).await;
    let (code, error) = refused(&edge, &["dns", "rm", "example.test", "www"]).await;
    assert!(
        code == 2 && error.contains("192.0.2.7") && error.contains("192.0.2.8") && error.contains("--all"),
        "{error}"
    );
    let gone = edge.said(&["dns", "rm", "example.test", "www", "A", "192.0.2.7", "--json"]).await;
    assert_eq!(
        (&events(&gone)[0]["event"], &events(&gone)[0]["content"]),
        (&"record_removed".into(), &"192.0.2.7".into())
    );
    edge.said(&["dns", "rm", "example.test", "@", "MX", "10", "mail.example.net"]).await;
    edge.said(&["dns", "rm", "example.test", "www", "--all"]).await;
    assert_eq!(
        records(&edge, "example.test").await,
        ["_sip._tcp.example.test SRV 1 2 5060 sip", "*.a.example.test TXT v=spf1 -all"]
    );

    for (words, said) in [
        (&["list", "other.test"][..], "snicket dns create other.test"),
        (&["add", "example.test", "www", "A", "nowhere"], "IPv4"),
        (&["add", "example.test", "www.other.test.", "A", "192.0.2.1"], "does not lie in the zone"),
        (&["add", "example.test", "www", "WKS", "x"], "is wanted"),
        (&["add", "example.test", "www", "A", "192.0.2.1", "--ttl", "5"], "seconds from 60"),
        (&["rm", "example.test", "nobody"], "snicket dns list example.test --name"),
        (&["rm", "example.test", "nobody", "A", "x"], "IPv4"),
        (&["import", "example.test", "nowhere.zone"], "cannot read nowhere.zone"),
        (&["create", "a b"], "name:"),
    ] {
        let (_, error) = refused(&edge, &[&["dns"], words].concat()).await;
        assert!(error.contains(said) && !error.contains("posts["), "{words:?}: {error}");
    }

    assert!(edge.said(&["dns", "delete", "example.test"]).await.contains("example.test"));
    let (_, error) = refused(&edge, &["dns", "list", "example.test"]).await;
    assert!(error.contains("there is no zone \"example.test\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_goes_out_as_a_file_and_comes_in_again() {
    let edge = Edge::start().await;
    for zone in ["one.test", "two.test"] {
        edge.said(&["dns", "create", zone]).await;
    }
    edge.said(&["dns", "add", "one.test", "www", "A", "192.0.2.1", "--proxied"]).await;
    edge.said(&["dns", "add", "one.test", "@", "TXT", "hello \"you\"; \\ 100%"]).await;
    let said = edge.said(&["dns", "export", "one.test", "one.zone"]).await;
    assert!(said.starts_with("2 records"), "{said}");
    let file = edge.home().join("one.zone");
    let text = std::fs::read_to_string(&file).expect("it was written");
    assert_eq!(edge.said(&["dns", "export", "one.test"]).await.trim_end(), text.trim_end());
    let exported = events(&edge.said(&["dns", "export", "one.test", "--json"]).await);
    assert_eq!((&exported[0]["event"], &exported[0]["text"]), (&"exported".into(), &text.clone().into()));

    std::fs::write(edge.home().join("two.zone"), text.replace("one.test", "two.test")).expect("a file can be written");
    let said = edge.said(&["dns", "import", "two.test", "two.zone"]).await;
    assert!(said.contains("Added 2 of the 2 records"), "{said}");
    // From standard input, and nothing twice.
    let words = ["dns", "import", "two.test", "-", "--json"];
    let (code, out, error) = Program::new(edge.home(), &words).input(&text.replace("one.test", "two.test")).run().await;
    let event = &events(&out)[0];
    assert_eq!((code, &event["records"], &event["added"]), (0, &2.into(), &0.into()), "{error}");
    assert_eq!(
        edge.said(&["dns", "export", "two.test"]).await,
        edge.said(&["dns", "export", "one.test"]).await.replace("one.test", "two.test")
    );

    std::fs::write(edge.home().join("bad.zone"), "b A 192.0.2.2\na A nowhere\n").expect("a file can be written");
    let (code, error) = refused(&edge, &["dns", "import", "two.test", "bad.zone"]).await;
    assert!(code == 1 && error.contains("line 2") && error.contains("IPv4"), "{error}");
    assert_eq!(records(&edge, "two.test").await.len(), 2, "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_is_signed_and_its_ds_record_is_told() {
    let edge = Edge::start().await;
    edge.said(&["dns", "create", "example.test"]).await;
    assert!(edge.said(&["dns", "dnssec", "example.test"]).await.contains("not signed"));
    let said = edge.said(&["dns", "dnssec", "example.test", "on"]).await;
    assert!(said.contains("example.test. 3600 IN DS ") && said.contains("snicket up --dns"), "{said}");
    let event = &events(&edge.said(&["dns", "dnssec", "example.test", "--json"]).await)[0];
    assert_eq!(
        (&event["event"], &event["zone"], &event["status"]),
        (&"dnssec".into(), &"example.test".into(), &"pending".into())
    );
    assert!(said.contains(event["digest"].as_str().expect("a digest")), "{event}");
    assert!(edge.said(&["dns", "dnssec", "example.test", "off"]).await.contains("take it away there"));
    let (code, _) = refused(&edge, &["dns", "dnssec", "example.test", "perhaps"]).await;
    assert_eq!(code, 2);
}

/// A pool of these members behind a name of the edge's domain.
async fn pool(edge: &Edge, members: &[(&str, &Origin)], is_watched: bool) {
    let (_, zones) = edge.call("GET", "/client/v4/zones?name=localhost", None).await;
    let (zone, account) = (&zones["result"][0]["id"], &zones["result"][0]["account"]["id"]);
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    let base = format!("/client/v4/accounts/{}/load_balancers", text(account));
    let make = async |path: &str, body: Value| {
        let (status, answer) = edge.call("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"]["id"].clone()
    };
    let terms = json!({ "type": "http", "interval": 1, "timeout": 1, "retries": 0, "consecutive_down": 2 });
    let monitor = if is_watched { make(&format!("{base}/monitors"), terms).await } else { Value::Null };
    let origins: Vec<_> = members
        .iter()
        .map(|(name, origin)| {
            let address = origin.address();
            json!({ "name": name, "address": address.ip().to_string(), "port": address.port() })
        })
        .collect();
    let pool = make(&format!("{base}/pools"), json!({ "name": "web", "origins": origins, "monitor": monitor })).await;
    let terms = json!({ "name": "app.localhost", "proxied": true, "default_pools": [pool], "fallback_pool": pool });
    make(&format!("/client/v4/zones/{}/load_balancers", text(zone)), terms).await;
}

async fn visits(edge: &Edge, count: usize) {
    for _ in 0..count {
        let url = format!("http://app.localhost:{}/", edge.http().port());
        assert_eq!(edge.visitor().get(&url).await.status, 200);
    }
}

async fn shown(edge: &Edge) -> Value {
    events(&edge.said(&["pools", "show", "web", "--json"]).await).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_seen_weighed_drained_and_switched() {
    let edge = Edge::start_with(&["--origin-networks", "127.0.0.0/8"]).await;
    assert!(edge.said(&["pools"]).await.contains("No pools"));
    let (one, two, third) = (Origin::start().await, Origin::start().await, Origin::start().await);
    pool(&edge, &[("one", &one), ("two", &two)], false).await;
    let said = edge.said(&["pools"]).await;
    assert!(said.contains("web   healthy  2 of 2   no       app.localhost"), "{said}");

    // Weights, and what follows from them.
    let said = edge.said(&["pools", "set-weight", "web", "two", "0.25"]).await;
    assert!(said.contains("20.0 % of the visitors"), "{said}");
    visits(&edge, 40).await;
    let pool = shown(&edge).await;
    let member = |at: usize| &pool["members"][at];
    assert_eq!((&member(0)["wanted_share"], &member(1)["wanted_share"]), (&json!(0.8), &json!(0.2)));
    assert_eq!(member(0)["requests"].as_u64().unwrap() + member(1)["requests"].as_u64().unwrap(), 40);
    assert_eq!(member(0)["recent_requests"], one.requests());
    let served = member(0)["served_share"].as_f64().unwrap();
    assert!((served - one.requests() as f64 / 40.0).abs() < 0.001, "{served}");
    let said = edge.said(&["pools", "show", "web"]).await;
    assert!(said.contains(&format!("{:.1}%", served * 100.0)) && said.contains("40 requests"), "{said}");
    let metrics = Visitor::plain(edge.api()).request("GET", "/metrics", &[], String::new()).await;
    let metrics = String::from_utf8(metrics.body.to_vec()).expect("text");
    let id = member(0)["id"].as_str().unwrap();
    assert!(
        metrics.lines().any(|line| line.starts_with("snicket_edge_member_requests_total")
            && line.contains(id)
            && line.ends_with(&format!(" {}", one.requests()))),
        "{metrics}"
    );
    assert!(!metrics.contains("\"one\"") && !metrics.contains("\"web\""), "names are for those with a token");

    // Nobody new, and back.
    let said = edge.said(&["pools", "drain", "web", "two"]).await;
    assert!(said.contains("snicket pools set-weight web two 0.25"), "{said}");
    let before = two.requests();
    visits(&edge, 20).await;
    assert_eq!(two.requests(), before);
    assert!(edge.said(&["pools", "enable", "web", "two"]).await.contains("set-weight web two 1"));
    edge.said(&["pools", "set-weight", "web", "two", "1"]).await;
    edge.said(&["pools", "disable", "web", "one"]).await;
    let before = one.requests();
    visits(&edge, 10).await;
    assert_eq!(one.requests(), before);
    assert!(edge.said(&["pools", "show", "web"]).await.contains("disabled"));
    edge.said(&["pools", "enable", "web", "one"]).await;

    // By a label, which nobody has yet.
    let said = edge.said(&["pools", "split", "web", "release", "stable=9", "canary=1"]).await;
    assert!(said.contains("by release: canary 1, stable 9") && said.contains("No member has release=canary"), "{said}");
    assert_eq!(shown(&edge).await["label_steering"]["weights"], json!({ "stable": 9.0, "canary": 1.0 }));
    assert!(edge.said(&["pools", "show", "web"]).await.contains("SPLIT     by release"));
    edge.said(&["pools", "split", "web", "--off"]).await;
    assert!(shown(&edge).await["label_steering"].is_null());

    // One more, and less.
    let place = third.address().to_string();
    let said = edge.said(&["pools", "add", "web", &place, "--name", "three", "--weight", "0.5", "--json"]).await;
    assert_eq!(
        (&events(&said)[0]["event"], &events(&said)[0]["member"]["weight"]),
        (&"member_added".into(), &0.5.into())
    );
    // Of 80, with a chance of one fifth each, none comes in one run of 50 millions.
    visits(&edge, 80).await;
    assert!(third.requests() > 0);
    edge.said(&["pools", "remove", "web", "one", &place]).await;
    assert_eq!(shown(&edge).await["members"].as_array().unwrap().len(), 1);

    for (words, said) in [
        (&["show", "nothing"][..], "`snicket pools` lists"),
        (&["set-weight", "web", "nobody", "1"], "snicket pools show web"),
        (&["set-weight", "web", "two", "2"], "from 0 to 1"),
        (&["add", "web", "http://a.test"], "198.51.100.7:8080"),
        (&["add", "web", &two.address().to_string()], "same address"),
        (&["split", "web", "release"], "VALUE=WEIGHT"),
        (&["split", "web", "release", "canary"], "such as canary=10"),
        (&["split", "web", "release", "canary=-1"], "from 0 to 1000"),
        (&["split", "web", "release", "canary=0"], "above 0"),
        (&["remove", "web", "two", "nobody"], "no member \"nobody\""),
    ] {
        let (_, error) = refused(&edge, &[&["pools"], words].concat()).await;
        assert!(error.contains(said), "{words:?}: {error}");
    }
    assert_eq!(shown(&edge).await["members"].as_array().unwrap().len(), 1, "all or none is taken out");
    edge.said(&["pools", "disable", "web"]).await;
    assert!(edge.said(&["pools"]).await.contains("disabled"));
    edge.said(&["pools", "enable", "web"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_to_a_member_is_told() {
    let edge = Edge::start_with(&["--origin-networks", "127.0.0.0/8"]).await;
    let (stays, dies) = (Origin::start().await, Origin::start().await);
    pool(&edge, &[("stays", &stays), ("dies", &dies)], true).await;
    let history = async |at: usize| shown(&edge).await["members"][at]["history"].as_array().unwrap().clone();
    until(LIMIT, "it is seen well", async || !history(1).await.is_empty()).await;
    drop(dies);
    until(LIMIT, "it is seen to be gone", async || history(1).await.len() == 2).await;
    let changes = history(1).await;
    assert_eq!((&changes[0]["healthy"], &changes[1]["healthy"]), (&false.into(), &true.into()));
    assert!(changes[0]["at"].as_str() >= changes[1]["at"].as_str(), "{changes:?}");
    assert_eq!(history(0).await.len(), 1);
    let said = edge.said(&["pools", "show", "web"]).await;
    let reason = changes[0]["reason"].as_str().expect("a reason");
    assert!(said.contains(&format!("dies    unhealthy: {reason}")), "{said}");
    assert!(edge.said(&["pools"]).await.contains("1 of 2"));
}
