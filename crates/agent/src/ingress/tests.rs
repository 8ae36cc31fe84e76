use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn rules(list: &[(&str, &str, &str)]) -> Result<Rules, Vec<RuleError>> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let drafts: Vec<RuleDraft> = list
        .iter()
        .map(|(hostname, path, service)| RuleDraft {
            hostname: text(hostname),
            path: text(path),
            service: text(service),
            overrides: Overrides::default(),
        })
        .collect();
    Rules::build(&drafts, &Overrides::default())
}

fn service_for(rules: &Rules, host: &str, path: &str) -> String {
    rules.find(host, path).1.service.to_string()
}

#[test]
fn the_first_rule_that_matches_wins() {
    let rules = rules(&[
        ("app.example.test", "/api", "http://localhost:1"),
        ("app.example.test", "", "http://localhost:2"),
        ("*.example.test", "", "http://localhost:3"),
        ("münchen.example", "", "http://localhost:4"),
        ("*.münchen.example", r"\.(jpg|png)$", "http://localhost:5"),
        ("", "^/status$", "http_status:204"),
        ("", "", "http_status:404"),
    ])
    .unwrap();
    for (host, path, expected) in [
        ("app.example.test", "/v1/api/x", "http://localhost:1"),
        ("app.example.test", "/%61pi", "http://localhost:1"),
        ("app.example.test:8443", "/", "http://localhost:2"),
        ("APP.example.TEST", "/", "http://localhost:2"),
        ("b.example.test", "/", "http://localhost:3"),
        ("a.b.example.test", "/", "http://localhost:3"),
        ("example.test", "/", "http_status:404"),
        (".example.test", "/", "http_status:404"),
        ("badexample.test", "/", "http_status:404"),
        ("xn--mnchen-3ya.example", "/", "http://localhost:4"),
        ("a.xn--mnchen-3ya.example", "/x.jpg", "http://localhost:5"),
        ("a.xn--mnchen-3ya.example", "/x.gif", "http_status:404"),
        ("[::1]:80", "/status", "http_status:204"),
        ("", "/status/", "http_status:404"),
    ] {
        assert_eq!(service_for(&rules, host, path), expected, "{host}{path}");
    }
}

#[test]
fn services_are_read_as_the_reference_reads_them() {
    for (text, shown) in [
        ("http://localhost", "http://localhost:80"),
        ("ws://localhost:81", "http://localhost:81"),
        ("wss://[::1]", "https://[::1]:443"),
        ("https://app.internal:8443", "https://app.internal:8443"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix+tls:/run/app.sock", "unix+tls:/run/app.sock"),
        ("hello-world", "hello_world"),
        ("http_status:599", "http_status:599"),
        ("tcp://db:5432", "tcp://db:5432"),
        ("rdp://pc", "rdp://pc:3389"),
        ("anything://host:1", "anything://host:1"),
        ("bastion", "bastion"),
        ("socks-proxy", "socks-proxy"),
    ] {
        assert_eq!(Service::parse(text, false).unwrap().to_string(), shown);
    }
    for text in ["http://localhost/path", "https://localhost:1/", "http://localhost?x=1"] {
        assert!(matches!(Service::parse(text, false), Err(ServiceError::Path(_))), "{text}");
    }
    for text in ["http_status:99", "http_status:1000", "http_status:", "http_status:x"] {
        assert!(matches!(Service::parse(text, false), Err(ServiceError::Status(_))), "{text}");
    }
    for text in ["", "localhost", "http://", "unix:", "/a/b", "http://a b"] {
        assert!(matches!(Service::parse(text, false), Err(ServiceError::Malformed(_))), "{text}");
    }
    assert!(matches!(Service::parse("http://x", true), Ok(Service::Bastion)));
}

#[test]
fn all_problems_of_all_rules_are_found() {
    let errors = rules(&[
        ("", "", "http://localhost:1"),
        ("app.example.test:80", "", "http://localhost:1"),
        ("a.*.test", "", "http://localhost:1/x"),
        ("*bad.test", "(", "http_status:1"),
        ("x.test", "", ""),
    ])
    .unwrap_err();
    let found: Vec<_> = errors.iter().map(|error| (error.index, error.field)).collect();
    assert_eq!(
        found,
        [
            (0, Field::Rule),
            (1, Field::Hostname),
            (2, Field::Hostname),
            (2, Field::Service),
            (3, Field::Hostname),
            (3, Field::Path),
            (3, Field::Service),
            (4, Field::Rule),
            (4, Field::Service),
        ]
    );
}

#[test]
fn path_expressions_cannot_eat_the_memory() {
    let errors = rules(&[("", r"(\w{1000}){1000}", "http_status:200"), ("", "", "http_status:404")]).unwrap_err();
    assert_eq!(errors[0].field, Field::Path);
    let mut room = MAX_PATTERNS;
    for _ in 0..1000 {
        PathPattern::compile("^/plain/prefix", &mut room).unwrap();
    }
    assert_eq!(room, MAX_PATTERNS - 1000 * PATTERN_SIZES[0]);
    // More than 256 KiB.
    let large = r"\w{15}";
    let mut room = PATTERN_SIZES[3] + PATTERN_SIZES[0];
    assert!(PathPattern::compile(large, &mut room).is_ok());
    let error = PathPattern::compile(large, &mut room).unwrap_err();
    assert!(error.contains("of all rules together"), "{error}");
    assert!(PathPattern::compile("^/plain", &mut room).is_ok(), "what is small still fits");
}

#[test]
fn pushed_documents_are_read() {
    let document = Document::from_json(
        br#"{"ingress":[{"hostname":"a.test","path":"/x","service":"https://localhost:1",
             "originRequest":{"connectTimeout":5,"noTLSVerify":true}},
            {"service":"http_status:404"}],
            "originRequest":{"connectTimeout":7,"httpHostHeader":"h.test","unknown":1},
            "warp-routing":{"enabled":true,"connectTimeout":2},"also":"unknown"}"#,
    )
    .unwrap();
    let first = document.rules.iter().next().unwrap();
    assert_eq!(first.options.connect_timeout, Duration::from_secs(5));
    assert!(first.options.no_tls_verify);
    assert_eq!(first.options.http_host_header.as_deref(), Some("h.test"));
    assert_eq!(document.rules.iter().nth(1).unwrap().options.connect_timeout, Duration::from_secs(7));
    assert_eq!(document.warp_routing.connect_timeout, Duration::from_secs(2));
}

#[test]
fn documents_without_rules_answer_503() {
    for text in ["{}", r#"{"ingress":[]}"#, r#"{"ingress":null}"#] {
        let document = Document::from_json(text.as_bytes()).unwrap();
        assert_eq!(service_for(&document.rules, "any", "/"), "http_status:503");
    }
}

#[test]
fn wrong_documents_are_refused() {
    for text in [
        "null",
        "[]",
        "",
        "{",
        r#"{"ingress":[{"service":"http://a/b"}]}"#,
        r#"{"ingress":[{"hostname":"a.test","service":"http_status:200"}]}"#,
        r#"{"originRequest":{"connectTimeout":1.5}}"#,
        r#"{"originRequest":{"connectTimeout":"5s"}}"#,
        r#"{"originRequest":{"connectTimeout":-1}}"#,
        r#"{"ingress":[{"service":"http://a","originRequest":{"access":{"required":true,"audTag":["a"]}}}]}"#,
    ] {
        assert!(Document::from_json(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_report_leaves_defaults_out() {
    let document = Document::from_json(
        br#"{"ingress":[{"hostname":"a.test","service":"http://localhost:1"},{"service":"http_status:404"}],
            "originRequest":{"tlsTimeout":3,"connectTimeout":30}}"#,
    )
    .unwrap();
    let flags = BTreeMap::from([("protocol".to_owned(), "quic".to_owned())]);
    let report: Value = serde_json::from_slice(&document.report(&flags)).unwrap();
    assert_eq!(
        report,
        json!({
            "__configuration_flags": {"protocol": "quic"},
            "ingress": [
                {"hostname": "a.test", "service": "http://localhost:1", "originRequest": {"tlsTimeout": 3}},
                {"service": "http_status:404", "originRequest": {"tlsTimeout": 3}},
            ],
            "warp-routing": {"connectTimeout": 5, "tcpKeepAlive": 30},
        })
    );
    // What is spelled out reads as the same configuration.
    let all = document.spelled_out(4);
    let again = Document::from_json(all["config"].to_string().as_bytes()).unwrap();
    assert_eq!(again.report(&flags), document.report(&flags));
    assert_eq!(all["version"], 4);
    assert_eq!(all["config"]["originRequest"]["tlsTimeout"], 3, "the document's own defaults");
    let last = &all["config"]["ingress"][1];
    assert_eq!((&last["hostname"], last.get("path")), (&json!(""), Some(&Value::Null)));
    assert_eq!(all["config"]["ingress"][1]["originRequest"]["keepAliveTimeout"], 90);
}
