//! Documents as people write them, and as they get them wrong.

use std::net::SocketAddr;
use std::time::Duration;

use config::{Mapping, Mistakes};

#[derive(Debug, PartialEq, Default)]
struct Service {
    name: Option<String>,
    listen: Option<SocketAddr>,
    timeout: Option<Duration>,
    verify: Option<bool>,
    hosts: Vec<String>,
    rules: Vec<(Option<String>, Option<u16>)>,
}

fn service(file: &mut Mapping<'_>) -> Service {
    Service {
        name: file.optional("name"),
        listen: file.optional("listen"),
        timeout: file.mapping("limits", |limits| limits.optional("connectTimeout")).flatten(),
        verify: file.optional("verify"),
        hosts: file.list("hosts").unwrap_or_default(),
        rules: file.mappings("rules", |rule| (rule.required("host"), rule.optional("status"))).unwrap_or_default(),
    }
}

fn lines(text: &str) -> Vec<String> {
    let mistakes: Mistakes = config::read("f.yml", text, service).expect_err("the document is wrong");
    mistakes.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_right_document_is_read() {
    let text = "
name: 17
listen: '[::1]:8443'
limits: {connectTimeout: 1m30s}
verify: no
hosts:
  - a.test
  - b.test
rules:
  - host: x
    status: 404
  - host: y
";
    let expected = Service {
        name: Some("17".into()),
        listen: Some("[::1]:8443".parse().unwrap()),
        timeout: Some(Duration::from_secs(90)),
        verify: Some(false),
        hosts: vec!["a.test".into(), "b.test".into()],
        rules: vec![(Some("x".into()), Some(404)), (Some("y".into()), None)],
    };
    assert_eq!(config::read("f.yml", text, service).unwrap(), expected);
}

#[test]
fn empty_documents_and_null_values_are_absent_keys() {
    for text in ["", "\n", "# nothing\n", "---\n", "name: ~\nlisten:\nhosts: null\n", "\u{feff}name:\n"] {
        assert_eq!(config::read("f.yml", text, service).unwrap(), Service::default(), "{text:?}");
    }
}

#[test]
fn all_mistakes_come_at_once_with_their_places() {
    let text = "
nam: x
listen: 8443
limits:
  connectTimout: 30s
  connectTimeout: 30
verify: 'true'
hosts: [a, {b: c}]
rules:
  - status: 70000
  - host: [1]
    stat: 1
";
    assert_eq!(
        lines(text),
        [
            r#"f.yml:2:1: unknown key "nam"; did you mean "name"?"#,
            r#"f.yml:3:9: "listen": found "8443", expected an address with port such as 127.0.0.1:8443 or [::1]:8443"#,
            r#"f.yml:5:3: unknown key "connectTimout"; did you mean "connectTimeout"?"#,
            r#"f.yml:6:19: "connectTimeout": found "30", expected a duration such as 30s or 1m30s ("30" has no unit; write for example 30s or 30ms)"#,
            r#"f.yml:7:9: "verify": found "true", expected true or false (without quotes)"#,
            r#"f.yml:8:12: "hosts": found a mapping, expected text"#,
            r#"f.yml:10:5: the key "host" is missing; it holds text"#,
            r#"f.yml:10:13: "status": found "70000", expected a whole number from 0 to 65535"#,
            r#"f.yml:11:11: "host": found a list, expected text"#,
            r#"f.yml:12:5: unknown key "stat"; did you mean "status"?"#,
        ]
    );
}

#[test]
fn text_that_is_not_yaml_says_where() {
    assert!(lines("name: [a\n")[0].starts_with("f.yml:2:1: this is not YAML: "));
    assert!(lines("a: b: c")[0].starts_with("f.yml:1:"));
    assert!(lines("- a\n")[0].contains("found a list, expected a mapping"));
    assert!(lines("name: *gone\n")[0].contains("not YAML"));
    assert!(lines("name: x\n---\nname: y\n")[0].contains("second document"));
}

#[test]
fn a_double_key_is_refused() {
    assert_eq!(lines("name: a\nname: b\n"), [r#"f.yml:2:1: the key "name" stands in line 1 already"#]);
}

#[test]
fn aliases_and_merges_work() {
    let text = "
limits: &limits {connectTimeout: 5s}
rules:
  - &rule {host: x, status: 1}
  - *rule
  - <<: *rule
    status: 2
";
    let service = config::read("f.yml", text, service).unwrap();
    let x = Some("x".to_owned());
    assert_eq!(service.rules, [(x.clone(), Some(1)), (x.clone(), Some(1)), (x, Some(2))]);
}

#[test]
fn aliases_that_multiply_are_refused_quickly() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    assert!(lines(&text)[0].contains("more than 100000 values"));
    assert!(lines("a: &a [*a]\n")[0].contains("part of"));
}

#[test]
fn limits_hold() {
    assert!(lines(&"[".repeat(40))[0].contains("more than 32 deep"));
    assert!(lines(&"[".repeat(500_000))[0].contains("not YAML"));
    assert!(lines(&"- ".repeat(500_000))[0].contains("more than 32 deep"));
    assert!(lines(&format!("name: {}", "x".repeat(1 << 20)))[0].contains("larger than"));
    let many: String = (0..1_001).map(|n| format!("k{n}: 1\n")).collect();
    assert!(lines(&many)[0].contains("more than 1000 keys"));
    let merged: String = (0..1_001).map(|n| format!("- &a{n} {{k{n}: 1}}\n")).collect();
    let sources: Vec<String> = (0..1_001).map(|n| format!("*a{n}")).collect();
    let merged = format!("rules:\n{merged}limits: {{<<: [{}]}}\n", sources.join(", "));
    assert!(lines(&merged).iter().any(|line| line.contains("more than 1000 keys")));
    let unknown: String = (0..150).map(|n| format!("zz{n}zz: 1\n")).collect();
    let listed = lines(&unknown);
    assert_eq!(listed.len(), 101);
    assert_eq!(listed[100], "f.yml: and 50 more");
}
