//! Checks a configuration before it is kept and pushed: an agent that gets a bad one keeps its old one, and hardly says
//! why (section 11 of the tunnel protocol).

use registry::Hostname;
use serde_json::{Map, Value};

/// A tunnel with more rules than this is better cut into several; each request looks through them in order.
pub(crate) const MAX_RULES: usize = 10_000;

pub(crate) const DURATIONS: [&str; 4] = ["connectTimeout", "tlsTimeout", "tcpKeepAlive", "keepAliveTimeout"];
pub(crate) const SWITCHES: [&str; 6] =
    ["noHappyEyeballs", "matchSNItoHost", "noTLSVerify", "disableChunkedEncoding", "bastionMode", "http2Origin"];
pub(crate) const TEXTS: [&str; 5] = ["httpHostHeader", "originServerName", "caPool", "proxyAddress", "proxyType"];

/// Checks the document; the problem begins with the path to where it is, such as `.ingress[2].service`.
pub(crate) fn check(document: &Value) -> Result<(), String> {
    let Some(document) = document.as_object() else {
        return Err(": an object is wanted".into());
    };
    check_origin_request("", document)?;
    match document.get("warp-routing") {
        None | Some(Value::Null | Value::Object(_)) => (),
        Some(_) => return Err(".warp-routing: an object is wanted".into()),
    }
    let rules = match document.get("ingress") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(rules)) => rules,
        Some(_) => return Err(".ingress: a list of rules is wanted".into()),
    };
    if rules.len() > MAX_RULES {
        return Err(format!(".ingress: {} rules are more than {MAX_RULES}", rules.len()));
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(rule, index + 1 == rules.len()).map_err(|problem| format!(".ingress[{index}]{problem}"))?;
    }
    Ok(())
}

fn check_rule(rule: &Value, is_last: bool) -> Result<(), String> {
    let Some(rule) = rule.as_object() else { return Err(": an object is wanted".into()) };
    let hostname = text(rule, "hostname")?.unwrap_or_default();
    let path = text(rule, "path")?.unwrap_or_default();
    let any_host = hostname.is_empty() || hostname == "*";
    let catches_all = any_host && path.is_empty();
    if is_last && !catches_all {
        return Err(": the last rule must match everything, so without hostname and path; \
                    add one such as {\"service\": \"http_status:404\"}"
            .into());
    }
    if !is_last && catches_all {
        return Err(": this rule matches everything, so the rules after it never would; \
                    give it a hostname or a path, or put it last"
            .into());
    }
    if !any_host {
        Hostname::parse(hostname).map_err(|problem| format!(".hostname: {problem}"))?;
    }
    // Compiling costs more, and says hardly more: only whether it becomes too large.
    regex_syntax::parse(path).map_err(|problem| format!(".path: not a regular expression: {problem}"))?;
    let service =
        text(rule, "service")?.ok_or(".service: missing; say where requests go, such as http://localhost:8080")?;
    check_service(service).map_err(|problem| format!(".service: {problem}"))?;
    check_origin_request("", rule)
}

fn check_service(service: &str) -> Result<(), String> {
    const NAMED: [&str; 4] = ["hello_world", "hello-world", "bastion", "socks-proxy"];
    if NAMED.contains(&service) {
        return Ok(());
    }
    if let Some(status) = service.strip_prefix("http_status:") {
        return match status.parse() {
            Ok(100..=999_u16) => Ok(()),
            _ => Err("http_status: wants a status from 100 to 999".into()),
        };
    }
    if let Some(path) = service.strip_prefix("unix:").or_else(|| service.strip_prefix("unix+tls:")) {
        let is_path = !path.is_empty() && !path.contains('\0');
        return if is_path { Ok(()) } else { Err("the path of the socket is missing".into()) };
    }
    let url = url::Url::parse(service).map_err(
        |_| "not a service; use a URL such as http://localhost:8080, unix:PATH, http_status:404 or hello_world",
    )?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the URL has no host; use one such as http://localhost:8080".into());
    }
    // The URL's own path is `/` even where none was written.
    if !matches!(url.path(), "" | "/") || url.query().is_some() || service.ends_with('/') {
        return Err("the URL must not have a path, not even a slash at its end; requests keep their own".into());
    }
    Ok(())
}

fn check_origin_request(at: &str, holder: &Map<String, Value>) -> Result<(), String> {
    let settings = match holder.get("originRequest") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(settings)) => settings,
        Some(_) => return Err(format!("{at}.originRequest: an object is wanted")),
    };
    for (key, value) in settings.iter().filter(|(_, value)| !value.is_null()) {
        let key = key.as_str();
        let wanted = if DURATIONS.contains(&key) {
            (!value.is_u64()).then_some("whole seconds as a number are wanted, such as 30")
        } else if key == "keepAliveConnections" {
            (!value.is_u64()).then_some("a whole number is wanted")
        } else if key == "proxyPort" {
            (!is_port(value)).then_some("a port is wanted")
        } else if key == "ipRules" {
            (!value.as_array().is_some_and(|rules| rules.iter().all(is_ip_rule))).then_some(
                "a list is wanted, of entries such as {\"prefix\": \"10.0.0.0/8\", \"ports\": [80], \"allow\": true}",
            )
        } else if key == "access" {
            (!value.is_object()).then_some("an object is wanted")
        } else if SWITCHES.contains(&key) {
            (!value.is_boolean()).then_some("true or false is wanted")
        } else if TEXTS.contains(&key) {
            (!value.is_string()).then_some("a text is wanted")
        } else {
            None
        };
        if let Some(wanted) = wanted {
            return Err(format!("{at}.originRequest.{key}: {wanted}"));
        }
    }
    Ok(())
}

fn is_port(value: &Value) -> bool {
    value.as_u64().is_some_and(|port| u16::try_from(port).is_ok())
}

fn is_ip_rule(value: &Value) -> bool {
    let Some(rule) = value.as_object() else { return false };
    rule.iter().all(|(key, value)| match key.as_str() {
        "prefix" => value.is_string() || value.is_null(),
        "ports" => value.as_array().is_some_and(|ports| ports.iter().all(is_port)),
        "allow" => value.is_boolean(),
        _ => true,
    })
}

fn text<'a>(holder: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match holder.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!(".{key}: a text is wanted")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_as_tools_write_them_are_taken() {
        for document in [
            json!({}),
            json!({"ingress": []}),
            json!({"ingress": [{"service": "http_status:404"}], "warp-routing": {"enabled": true}}),
            json!({"ingress": [{"hostname": "", "service": "http://localhost:8080"}]}),
            json!({
                "ingress": [
                    {
                        "hostname": "app.example.test",
                        "path": "^/a",
                        "service": "http://localhost:8080",
                        "originRequest": {"connectTimeout": 10, "new": [1]},
                    },
                    {"hostname": "*.example.test", "service": "unix:/run/app.sock"},
                    {"path": "/x", "service": "https://[::1]:8443"},
                    {"hostname": "ssh.example.test", "service": "ssh://localhost:22"},
                    {"service": "hello_world", "originRequest": {}},
                ],
                "originRequest": {
                    "noTLSVerify": true,
                    "httpHostHeader": "a",
                    "proxyPort": 65535,
                    "ipRules": [{"prefix": "10.0.0.0/8", "ports": [80], "allow": true}],
                    "access": {"required": true},
                },
            }),
        ] {
            assert_eq!(check(&document), Ok(()), "{document}");
        }
    }

    #[test]
    fn mistakes_are_named_by_place() {
        let last = json!({"service": "http_status:404"});
        for (document, place) in [
            (json!(null), ": an object"),
            (json!([]), ": an object"),
            (json!({"ingress": {}}), ".ingress:"),
            (json!({"ingress": [1]}), ".ingress[0]:"),
            (json!({"ingress": [{"hostname": "a.test", "service": "http://b"}]}), ".ingress[0]: the last rule"),
            (json!({"ingress": [{"service": "http://b"}, last]}), ".ingress[0]: this rule matches everything"),
            (json!({"ingress": [{"hostname": "*", "service": "http://b"}, last]}), ".ingress[0]: this rule"),
            (json!({"ingress": [{"hostname": "a:80", "service": "http://b"}, last]}), ".ingress[0].hostname:"),
            (json!({"ingress": [{"hostname": 7, "service": "http://b"}, last]}), ".ingress[0].hostname:"),
            (json!({"ingress": [{"hostname": "a.test"}, last]}), ".ingress[0].service: missing"),
            (json!({"ingress": [{"hostname": "a.test", "service": "localhost"}, last]}), ".ingress[0].service:"),
            (json!({"ingress": [{"service": "http://b/path"}]}), ".ingress[0].service:"),
            (json!({"ingress": [{"service": "http://b/"}]}), ".ingress[0].service:"),
            (json!({"ingress": [{"service": "http://b?q"}]}), ".ingress[0].service:"),
            (json!({"ingress": [{"service": "ssh://b/path"}]}), ".ingress[0].service:"),
            (json!({"ingress": [{"service": "http_status:99"}]}), ".ingress[0].service:"),
            (json!({"ingress": [{"path": "^/(a", "service": "http://b"}, last]}), ".ingress[0].path:"),
            (json!({"originRequest": {"proxyPort": 65536}}), ".originRequest.proxyPort:"),
            (json!({"originRequest": {"ipRules": {}}}), ".originRequest.ipRules:"),
            (json!({"originRequest": {"ipRules": [{"ports": [0.5]}]}}), ".originRequest.ipRules:"),
            (json!({"originRequest": {"access": true}}), ".originRequest.access:"),
            (json!({"ingress": [{"service": "unix:"}]}), ".ingress[0].service:"),
            (json!({"originRequest": {"connectTimeout": "30s"}}), ".originRequest.connectTimeout:"),
            (json!({"originRequest": {"connectTimeout": 1.5}}), ".originRequest.connectTimeout:"),
            (
                json!({"ingress": [{"service": "hello_world", "originRequest": {"noTLSVerify": 1}}]}),
                ".ingress[0].originRequest.noTLSVerify:",
            ),
        ] {
            let problem = check(&document).unwrap_err();
            assert!(problem.starts_with(place), "{document}: {problem}");
        }
    }
}
