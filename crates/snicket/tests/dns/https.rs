//! Questions over HTTPS (RFC 8484): by `kdig`, and as programs ask over each version of HTTP.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use harness::{Answer, Edge, Http, Visitor, peer};
use http::{Request, header};
use serde_json::json;
use tokio::process::Command;

#[path = "../visitor/http3.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it is shared with other tests, which use more of it")]
mod http3;

const MESSAGE: &str = "application/dns-message";

/// Of this type (1: A), with recursion asked for.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label is short"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind, 0, 1]);
    message
}

fn in_url(question: &[u8]) -> String {
    format!("https://example.test/dns-query?dns={}", BASE64_URL_SAFE_NO_PAD.encode(question))
}

/// An edge whose zone has an address that may be kept for two minutes.
async fn start() -> Edge {
    let edge = Edge::start_with(&["--dns", "127.0.0.1:0", "--domain", "example.test"]).await;
    let (_, zones) = edge.call("GET", "/client/v4/zones", None).await;
    let records = format!("/client/v4/zones/{}/dns_records", zones["result"][0]["id"].as_str().expect("an id"));
    for (kind, content, ttl) in [("A", "192.0.2.1", 120), ("TXT", "text", 3600)] {
        let body = json!({ "name": "www", "type": kind, "content": content, "ttl": ttl });
        let (status, made) = edge.call("POST", &records, Some(body)).await;
        assert_eq!(status, 200, "{made}");
    }
    edge
}

/// The answer's code and how many records it has.
fn told(answer: &Answer) -> (u8, u8) {
    assert_eq!((answer.status, answer.header("content-type")), (200, MESSAGE), "{}", answer.text());
    (answer.body[3] & 0xf, answer.body[7])
}

#[tokio::test(flavor = "multi_thread")]
async fn kdig_asks_over_https() {
    let Some(program) = peer("kdig", "install knot-dnsutils") else { return };
    let edge = start().await;
    let ask = async |way: &str| {
        let mut command = Command::new(&program);
        command.args([&format!("@{}", edge.https().ip()), "-p", &edge.https().port().to_string()]);
        command.arg(format!("+tls-ca={}", edge.ca().display())).args(["+https=example.test/dns-query", way]);
        command.args(["+tls-hostname=example.test", "www.example.test", "A", "www.example.test", "TXT"]);
        let output = command.output().await.expect("kdig starts");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    for way in ["+nohttps-get", "+https-get"] {
        let answer = ask(way).await;
        assert!(answer.contains("192.0.2.1") && answer.contains("\"text\""), "{answer}");
        assert!(answer.contains("HTTP/2"), "{answer}");
    }
    let metrics = Visitor::plain(edge.api()).get("/metrics").await.text();
    assert!(metrics.contains("snicket_dns_questions_total{transport=\"https\"} 4\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_ask_over_each_version() {
    let edge = start().await;
    for version in [Http::One, Http::Two] {
        let visitor = edge.visitor().over(version);
        let answer = visitor.get(&in_url(&question("www.example.test", 1))).await;
        assert_eq!((told(&answer), answer.header("cache-control")), ((0, 1), "max-age=120"));
        let typed = [("content-type", "Application/DNS-Message")];
        let url = "https://example.test/dns-query";
        let answer = visitor.request("POST", url, &typed, question("www.example.test", 16)).await;
        assert_eq!((told(&answer), answer.header("cache-control")), ((0, 1), "max-age=3600"));
        let answer = visitor.request("POST", url, &typed, question("nobody.example.test", 1)).await;
        assert_eq!((told(&answer), answer.header("cache-control")), ((3, 0), "max-age=300"), "a denial");
        let answer = visitor.request("POST", url, &typed, question("elsewhere.invalid", 1)).await;
        assert_eq!((told(&answer), answer.header("cache-control")), ((5, 0), "max-age=0"), "not ours");
        let answer = visitor.request("POST", url, &typed, question("example.test", 252)).await;
        assert_eq!(told(&answer), (5, 0), "no transfers");
        let head = visitor.request("HEAD", &in_url(&question("www.example.test", 1)), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }

    let mut visitor = http3::Visitor::connect(edge.https(), "example.test", &edge.ca()).await;
    let head = Request::post("https://example.test/dns-query").header(header::CONTENT_TYPE, MESSAGE).body(());
    let (mut send, mut receive) = visitor.request(head.expect("a request")).await;
    send.send_data(question("www.example.test", 1).into()).await.expect("it is taken");
    send.finish().await.expect("it is taken");
    let (status, fields) = receive.head().await.expect("an answer");
    assert_eq!((status, fields[header::CACHE_CONTROL].as_bytes()), (200, &b"max-age=120"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused() {
    let edge = start().await;
    let visitor = edge.visitor();
    let url = "https://example.test/dns-query";
    let good = question("www.example.test", 1);
    for (query, status) in [
        ("".to_owned(), 400),
        ("?dns=".to_owned(), 400),
        ("?dns=AAAA".to_owned(), 400),
        ("?dns=%00".to_owned(), 400),
        (format!("?dns={}=", BASE64_URL_SAFE_NO_PAD.encode(&good)), 400),
        (format!("?name=x&dns={}&dns=AAAA", BASE64_URL_SAFE_NO_PAD.encode(&good)), 200),
    ] {
        let answer = visitor.get(&format!("{url}{query}")).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
    let typed = [("content-type", MESSAGE)];
    for (method, headers, body, status) in [
        ("POST", &typed[..], Vec::new(), 400),
        ("POST", &typed, vec![0; 11], 400),
        // An answer is no question.
        ("POST", &typed, [&good[..2], &[0x81], &good[3..]].concat(), 400),
        ("POST", &typed, vec![0xff; 65_535], 400),
        ("POST", &typed, vec![0; 65_536], 413),
        ("POST", &typed, vec![0; 1 << 20], 413),
        ("POST", &[], good.clone(), 415),
        ("POST", &[("content-type", "application/json")], good.clone(), 415),
        ("PUT", &typed, good.clone(), 405),
        ("DELETE", &[], Vec::new(), 405),
    ] {
        let length = body.len();
        let answer = visitor.request(method, url, headers, body).await;
        assert_eq!(answer.status, status, "{method} of {length}: {}", answer.text());
    }
    // Scraps are answered as over TCP.
    let scrap = [&good[..4], &[0, 9], &good[6..]].concat();
    assert_eq!(told(&visitor.request("POST", url, &typed, scrap).await), (1, 0));

    // Elsewhere it is a path like any other.
    for url in
        ["https://www.example.test/dns-query", "http://example.test/dns-query", "https://example.test/dns-query/"]
    {
        let answer = visitor.request("POST", url, &typed, good.clone()).await;
        assert_eq!(answer.status, 530, "{url}: {}", answer.text());
    }
    let without = Edge::start_with(&["--domain", "example.test"]).await;
    let answer = without.visitor().request("POST", url, &typed, good).await;
    assert_eq!(answer.status, 530, "only where DNS is answered");
}
