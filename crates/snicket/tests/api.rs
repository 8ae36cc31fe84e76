//! Calls of the API by hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use harness::{Edge, Origin, Program};
use serde_json::{Value, json};

/// What the program printed, as the JSON documents that it is made of.
fn documents(out: &str) -> Vec<Value> {
    let read: Result<Vec<_>, _> = serde_json::Deserializer::from_str(out).into_iter().collect();
    read.unwrap_or_else(|error| panic!("{error} in {out}"))
}

async fn done(edge: &Edge, words: &[&str]) -> Vec<Value> {
    let (code, out, error) = edge.command(&[&["api"], words].concat()).await;
    assert_eq!(code, 0, "{words:?}: {error}{out}");
    documents(&out)
}

/// The names on each page.
fn names(answers: &[Value]) -> Vec<Vec<&str>> {
    let pages = answers.iter().map(|answer| answer["result"].as_array().unwrap_or_else(|| panic!("no list: {answer}")));
    pages.map(|items| items.iter().map(|item| item["name"].as_str().unwrap()).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_is_made_changed_and_removed_by_hand() {
    let edge = Edge::start().await;
    let made = done(&edge, &["POST", "/zones", "-d", r#"{"name": "one.example"}"#]).await;
    assert_eq!((&made[0]["success"], &made[0]["result"]["name"]), (&true.into(), &"one.example".into()));
    let zone = format!("/zones/{}", made[0]["result"]["id"].as_str().unwrap());

    // With the base or without it, any case of the method, and no slash.
    for path in ["/zones?name=one.example", "/client/v4/zones?name=one.example", "zones?name=one.example"] {
        assert_eq!(names(&done(&edge, &["get", path]).await), [["one.example"]], "{path}");
    }
    assert_eq!(done(&edge, &["GET", "/snicket/v1/status"]).await[0]["result"]["nodes"].as_array().unwrap().len(), 1);

    // From a file, and from standard input.
    std::fs::write(edge.home().join("paused.json"), r#"{"paused": true}"#).unwrap();
    let changed = done(&edge, &["PATCH", &zone, "-d", "@paused.json"]).await;
    assert_eq!(changed[0]["result"]["paused"], true);
    let record = json!({ "type": "TXT", "name": "note", "content": "written by hand" }).to_string();
    let words = ["api", "POST", &format!("{zone}/dns_records"), "-d", "-"];
    let (code, out, error) = Program::new(edge.home(), &words).input(&record).run().await;
    assert_eq!(code, 0, "{out}{error}");

    // What is no JSON.
    let export = format!("{zone}/dns_records/export");
    let (code, out, _) = edge.command(&["api", "GET", &export]).await;
    assert!(code == 0 && out.contains("written by hand"), "{out}");
    let (_, out, _) = edge.command(&["api", "GET", &export, "--json"]).await;
    let event = &documents(&out)[0];
    assert_eq!((&event["event"], &event["status"]), (&"answer".into(), &200.into()), "{event}");
    assert!(event["text"].as_str().is_some_and(|text| text.contains("written by hand")), "{event}");

    let removed = done(&edge, &["DELETE", &zone, "--json"]).await;
    assert_eq!((&removed[0]["event"], &removed[0]["status"]), (&"answer".into(), &200.into()), "{removed:?}");
    let (code, _, error) = edge.command(&["api", "DELETE", &zone]).await;
    assert_eq!(code, 1);
    assert!(error.contains("refused (404)") && error.contains("(code 7003)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_followed_from_page_to_page() {
    let edge = Edge::start().await;
    let wanted = ["a.example", "b.example", "c.example", "d.example"];
    for name in wanted {
        done(&edge, &["POST", "/zones", "-d", &json!({ "name": name }).to_string()]).await;
    }
    let few = "/zones?per_page=2&order=name&name=ends_with:.example";
    assert_eq!(names(&done(&edge, &["GET", few, "--page", "all"]).await), [&wanted[..2], &wanted[2..]]);
    assert_eq!(names(&done(&edge, &["GET", few, "--page", "2"]).await), [&wanted[2..]]);
    assert_eq!(names(&done(&edge, &["GET", few, "--page", "3"]).await), [&wanted[..0]]);
    assert_eq!(names(&done(&edge, &["GET", &few.replace("per_page=2&", ""), "--page", "all"]).await), [wanted]);

    // One answer a line, for programs.
    let (_, out, _) = edge.command(&["api", "GET", few, "--page", "all", "--json"]).await;
    let pages: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(pages.iter().map(|page| &page["result_info"]["page"]).collect::<Vec<_>>(), [1, 2]);

    // A list that is followed by its cursor.
    let account = done(&edge, &["GET", "/accounts"]).await[0]["result"][0]["id"].as_str().unwrap().to_owned();
    let rulesets = format!("/accounts/{account}/rulesets");
    for name in ["first", "second", "third"] {
        let body = json!({ "name": name, "kind": "custom", "phase": "http_request_firewall_custom", "rules": [] });
        done(&edge, &["POST", &rulesets, "-d", &body.to_string()]).await;
    }
    let answers = done(&edge, &["GET", &format!("{rulesets}?per_page=1"), "--page", "all"]).await;
    let mut found = names(&answers).concat();
    found.sort_unstable();
    assert_eq!(found, ["first", "second", "third"]);
    assert!(answers.len() >= 3, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_code_and_message() {
    let edge = Edge::start().await;
    let (code, out, error) = edge.command(&["api", "GET", "/nowhere"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("refused (404)") && error.contains("(code 7000)"), "{error}");
    assert_eq!(documents(&out)[0]["errors"][0]["code"], 7000, "the answer is printed, whatever it says");
    let (_, out, _) = edge.command(&["api", "GET", "/nowhere", "--json"]).await;
    let events = documents(&out);
    assert_eq!(events.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["answer", "error"]);
    assert!(events[1]["why"][0].as_str().is_some_and(|why| why.ends_with("(code 7000)")), "{out}");

    for (words, said) in [
        (&["POST", "/zones", "-d", "{name}"][..], "is no JSON"),
        (&["POST", "/zones", "-d", "@nowhere.json"], "cannot read nowhere.json"),
        (&["POST", "/zones", "--page", "2"], "--page is for lists"),
        (&["GET", "/zones", "--page", "0"], "from 1"),
        (&["FETCH", "/zones"], "PATCH"),
        (&["GET", "https://other.example/zones"], "not a URL"),
    ] {
        let (code, _, error) = edge.command(&[&["api"], words].concat()).await;
        assert!(code == 2 && error.contains(said), "{words:?}: {code} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_edge_is_asked_with_its_own_token() {
    let edge = Edge::start().await;
    let home = tempfile::tempdir().unwrap();
    let api = edge.api().to_string();
    let (ca, token) = (edge.ca().display().to_string(), edge.token_file().display().to_string());
    let words = ["api", "GET", "/zones", "--edge", &api, "--ca", &ca];
    let (code, out, error) = Program::new(home.path(), &[&words[..], &["--token-file", &token]].concat()).run().await;
    assert!(code == 0 && documents(&out)[0]["success"] == true, "{error}");

    for (token, said) in [("nobody-knows-this-one", "(code 9109)"), ("", "holds no secret")] {
        std::fs::write(home.path().join("token"), token).unwrap();
        let (code, _, error) =
            Program::new(home.path(), &[&words[..], &["--token-file", "token"]].concat()).run().await;
        assert!(code != 0 && error.contains(said), "{code} {error}");
        assert!(token.is_empty() || !error.contains(token), "a token is not told: {error}");
    }
    let (code, _, error) = Program::new(home.path(), &words).run().await;
    assert!(code == 1 && error.contains("(code 9106)"), "{error}");
    let (code, _, error) = Program::new(home.path(), &["api", "GET", "/zones"]).run().await;
    assert!(code == 2 && error.contains("no edge runs on this machine"), "{error}");
    let (code, _, error) = Program::new(home.path(), &["api", "POST", "/zones", "--data", "{}"]).run().await;
    assert!(code == 2 && error.contains("sends what comes with -d"), "{error}");

    // What is no edge at all.
    let origin = Origin::start().await;
    let words = ["api", "GET", "/", "--edge", &origin.service(), "--token-file", "token"];
    std::fs::write(home.path().join("token"), "whatever").unwrap();
    let (code, _, error) = Program::new(home.path(), &words).run().await;
    assert!(code == 1 && error.contains("is not an edge's API"), "{code} {error}");
}
