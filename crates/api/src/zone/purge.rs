//! Purging the cache: checked and answered. There is no cache yet from which anything would go (docs/api.md says so).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use registry::{Hostname, Zone};
use serde_json::{Map, Value, json};
use url::Url;

use super::find;
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

/// As many as the original takes at once.
pub(crate) const MOST: usize = 100;
/// Of a tag, as in the original.
pub(crate) const MAX_TAG_BYTES: usize = 1024;
/// Of a URL, or the part of one: what visitors may ask for at most is shorter.
const MAX_URL_BYTES: usize = 32 << 10;

/// Checks one item.
type Check = fn(&Value, &Zone) -> Result<(), String>;

/// How what is to go is named: the member, and what each of its items has to be.
const WAYS: [(&str, Check); 4] =
    [("files", check_file), ("tags", check_tag), ("hosts", check_host), ("prefixes", check_prefix)];

pub(crate) async fn purge(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Body) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = find(&snapshot, &id)?;
    let members: Map<String, Value> = body::json(body, body::SMALL).await?;
    check(&members, zone).map_err(ApiError::not_valid)?;
    Ok(success(json!({ "id": zone.id })))
}

fn check(members: &Map<String, Value>, zone: &Zone) -> Result<(), String> {
    let given = |name: &&str| members.get(*name).is_some_and(|value| !value.is_null());
    let mut named = WAYS.iter().filter(|(name, _)| given(name));
    let (first, second) = (named.next(), named.next());
    match (given(&"purge_everything"), first, second) {
        (true, None, _) if members["purge_everything"] == true => Ok(()),
        (true, None, _) => Err("purge_everything: true is wanted".into()),
        (false, Some((name, check_item)), None) => {
            let items = members[*name].as_array().filter(|items| (1..=MOST).contains(&items.len()));
            let items = items.ok_or_else(|| format!("{name}: a list of 1 to {MOST} is wanted"))?;
            let check_item =
                |(index, item)| check_item(item, zone).map_err(|problem| format!("{name}[{index}]: {problem}"));
            items.iter().enumerate().try_for_each(check_item)
        }
        _ => Err("exactly one of purge_everything, files, tags, hosts and prefixes is wanted".into()),
    }
}

fn check_file(item: &Value, zone: &Zone) -> Result<(), String> {
    let (url, headers) = match item {
        Value::Object(members) => (members.get("url"), members.get("headers")),
        url => (Some(url), None),
    };
    let url = url.and_then(Value::as_str).filter(|url| url.len() <= MAX_URL_BYTES).and_then(|url| Url::parse(url).ok());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or("a URL is wanted, such as https://www.example.com/style.css")?;
    check_name(url.host_str().unwrap_or_default(), zone)?;
    match headers {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(headers)) if headers.values().all(Value::is_string) => Ok(()),
        Some(_) => Err("headers: an object of texts is wanted".into()),
    }
}

fn check_tag(item: &Value, _: &Zone) -> Result<(), String> {
    let is_tag = |tag: &str| (1..=MAX_TAG_BYTES).contains(&tag.len()) && !tag.contains(char::is_control);
    let wanted = || format!("a tag of 1 to {MAX_TAG_BYTES} bytes is wanted");
    item.as_str().filter(|tag| is_tag(tag)).map(drop).ok_or_else(wanted)
}

fn check_host(item: &Value, zone: &Zone) -> Result<(), String> {
    check_name(item.as_str().ok_or("a host name is wanted")?, zone)
}

fn check_prefix(item: &Value, zone: &Zone) -> Result<(), String> {
    let prefix = item.as_str().filter(|prefix| prefix.len() <= MAX_URL_BYTES && !prefix.contains(['?', '#']));
    let prefix = prefix.filter(|prefix| !prefix.contains("://"));
    let prefix =
        prefix.ok_or("a host name and a path without scheme and query are wanted, such as www.example.com/a/")?;
    check_name(prefix.split('/').next().unwrap_or_default(), zone)
}

fn check_name(name: &str, zone: &Zone) -> Result<(), String> {
    let name = Hostname::parse(name).map_err(|problem| problem.to_string())?;
    if name.is_within(&zone.name) { Ok(()) } else { Err(format!("{name} does not lie in the zone {}", zone.name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let text =
            r#"{"id":"00000000000000000000000000000001","name":"example.test","created_at":"2026-01-01T00:00:00Z"}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_way_at_a_time_is_taken() {
        for body in [
            json!({ "purge_everything": true }),
            json!({ "purge_everything": true, "files": null }),
            json!({ "files": ["https://example.test/a", { "url": "http://A.example.test",
                "headers": { "Origin": "x" } }] }),
            json!({ "tags": ["a", "b"] }),
            json!({ "hosts": ["www.Example.test."] }),
            json!({ "prefixes": ["www.example.test/a/b", "example.test"] }),
        ] {
            assert_eq!(check(body.as_object().unwrap(), &zone()), Ok(()), "{body}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (body, said) in [
            (json!({}), "exactly one"),
            (json!({ "purge_everything": true, "tags": ["a"] }), "exactly one"),
            (json!({ "tags": ["a"], "hosts": ["example.test"] }), "exactly one"),
            (json!({ "purge_everything": false }), "purge_everything: true"),
            (json!({ "purge_everything": 1 }), "purge_everything: true"),
            (json!({ "files": [] }), "files: a list"),
            (json!({ "files": "https://example.test/a" }), "files: a list"),
            (json!({ "tags": vec!["a"; MOST + 1] }), "tags: a list"),
            (json!({ "files": ["https://example.test/a", "/a"] }), "files[1]: a URL"),
            (json!({ "files": ["ftp://example.test/a"] }), "files[0]: a URL"),
            (json!({ "files": ["https://other.test/a"] }), "files[0]: other.test"),
            (json!({ "files": [{ "url": "https://example.test", "headers": { "a": 1 } }] }), "files[0]: headers"),
            (json!({ "tags": [""] }), "tags[0]"),
            (json!({ "hosts": ["badexample.test"] }), "hosts[0]: badexample.test"),
            (json!({ "hosts": [1] }), "hosts[0]"),
            (json!({ "prefixes": ["https://example.test/a"] }), "prefixes[0]"),
            (json!({ "prefixes": ["example.test/a?b"] }), "prefixes[0]"),
        ] {
            let problem = check(body.as_object().unwrap(), &zone()).unwrap_err();
            assert!(problem.starts_with(said), "{body}: {problem}");
        }
    }
}
