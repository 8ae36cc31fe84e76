//! What people see and change by commands of their own: zones with their records, and pools with their members.

use harness::{Edge, Program};
use serde_json::Value;

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
        assert!(error.contains(said), "{words:?}: {error}");
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
