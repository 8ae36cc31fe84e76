//! One rule of a tunnel's configuration at a time: of our own, below `/snicket/v1`. Whoever changes a rule this way
//! leaves those of others alone, which writing the whole configuration does not.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use http::{HeaderMap, header};
use jiff::Timestamp;
use registry::{BadTerms, ConfigSource, Configuration, ConfigurationError, Hostname, Members};
use serde_json::{Value, json};
use uuid::Uuid;

use super::configuration::{version, with_etag};
use super::document;
use crate::access::find;
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// For which requests a rule is: what tells it from all others of its tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// In the form in which names are compared; empty for any.
    hostname: String,
    /// A regular expression; empty for any.
    path: String,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(tunnel): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let tunnel = find(&snapshot, &tunnel)?;
    Ok(shown(tunnel, snapshot.configuration(tunnel).map(|configuration| &configuration.value)))
}

/// Writes the rule for a hostname and path, in the place of the one that is for the same, or else before the first one
/// that would take its requests.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(tunnel): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let rule: Members = body::json(body, body::SMALL).await?;
    change(&shared, &tunnel, &headers, &|document| put_rule(document, &rule)).await
}

/// Removes the rule for a hostname and path.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(tunnel): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    let place = Place::parse(query.one("hostname").unwrap_or_default(), query.one("path").unwrap_or_default());
    let place = place.map_err(ApiError::not_valid)?;
    let tunnel_id = find(&shared.state.registry.snapshot(), &tunnel)?;
    let snapshot = shared.state.registry.snapshot();
    let present = snapshot.configuration(tunnel_id).map(|configuration| rules_of(&configuration.document));
    if position(present.unwrap_or_default(), &place).is_none() {
        return Err(ApiError::no_object(&format!(
            "/tunnels/{tunnel_id}/rules: there is no rule for {}",
            place.shown()
        )));
    }
    change(&shared, &tunnel, &headers, &|document| remove_rule(document, &place)).await
}

async fn change(
    shared: &Shared,
    tunnel: &str,
    headers: &HeaderMap,
    edit: &(dyn Fn(&mut Value) -> Result<(), String> + Sync),
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), tunnel)?;
    let if_match = headers.get(header::IF_MATCH).map(version).transpose()?.flatten();
    let mut read = |old: Option<&Configuration>| {
        if old.is_some_and(|old| old.source == ConfigSource::Local) {
            let problem =
                "the rules are those of the agent's own file; change them there, or write a whole configuration once";
            return Err(ConfigurationError::Bad(BadTerms::new(problem)));
        }
        let mut document = old.map_or_else(|| json!({}), |old| old.document.clone());
        let checked = edit(&mut document).and_then(|()| {
            document::check(&document).map_err(|problem| format!("the configuration would not be valid{problem}"))
        });
        checked.map_err(|problem| ConfigurationError::Bad(BadTerms::new(problem)))?;
        Ok(document)
    };
    let write =
        registry.edit_configuration(Timestamp::now(), id, ConfigSource::Cloudflare, if_match, &mut read).await?;
    Ok(shown(id, Some(&write.configuration)))
}

fn shown(tunnel: Uuid, configuration: Option<&Configuration>) -> axum::response::Response {
    let version = configuration.map_or(0, |configuration| configuration.version);
    let rules = configuration.map(|configuration| rules_of(&configuration.document)).unwrap_or_default();
    with_etag(version, success(json!({ "tunnel_id": tunnel, "version": version, "rules": rules })))
}

fn rules_of(document: &Value) -> &[Value] {
    document["ingress"].as_array().map(Vec::as_slice).unwrap_or_default()
}

impl Place {
    fn parse(hostname: &str, path: &str) -> Result<Self, String> {
        let hostname = match hostname {
            "" | "*" => String::new(),
            name => Hostname::parse(name).map_err(|problem| format!("hostname: {problem}"))?.as_str().to_owned(),
        };
        Ok(Self { hostname, path: path.to_owned() })
    }

    /// Of a rule, if it says so in texts.
    fn of(rule: &Members) -> Result<Self, String> {
        let text = |name: &str| match rule.get(name) {
            None | Some(Value::Null) => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| format!("{name}: a text is wanted")),
        };
        Self::parse(text("hostname")?, text("path")?)
    }

    fn is_everything(&self) -> bool {
        self.hostname.is_empty() && self.path.is_empty()
    }

    /// Whether every request that the other one is for is one of this one's, as far as names say.
    fn takes_all_of(&self, other: &Self) -> bool {
        let same_name = self.hostname == other.hostname;
        let below = self.hostname.strip_prefix('*').is_some_and(|parent| other.hostname.ends_with(parent));
        self.path.is_empty() && (self.hostname.is_empty() || same_name || below)
    }

    fn shown(&self) -> String {
        match (self.hostname.as_str(), self.path.as_str()) {
            ("", "") => "everything".into(),
            (hostname, path) => format!("{hostname} {path}").trim().to_owned(),
        }
    }
}

fn place_of(rule: &Value) -> Option<Place> {
    rule.as_object().and_then(|rule| Place::of(rule).ok())
}

fn position(rules: &[Value], place: &Place) -> Option<usize> {
    rules.iter().position(|rule| place_of(rule).is_some_and(|other| other == *place))
}

fn ingress(document: &mut Value) -> Result<&mut Vec<Value>, String> {
    let ingress = &mut document["ingress"];
    if ingress.is_null() {
        *ingress = json!([]);
    }
    ingress.as_array_mut().ok_or_else(|| "the configuration has no list of rules".into())
}

fn put_rule(document: &mut Value, rule: &Members) -> Result<(), String> {
    let place = Place::of(rule)?;
    let mut rule: Members =
        rule.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect();
    for (name, text) in [("hostname", &place.hostname), ("path", &place.path)] {
        rule.remove(name);
        if !text.is_empty() {
            rule.insert(name.to_owned(), text.as_str().into());
        }
    }
    let rules = ingress(document)?;
    match position(rules, &place) {
        Some(present) => rules[present] = rule.into(),
        None => {
            let takes_all = |other: &Value| place_of(other).is_some_and(|other| other.takes_all_of(&place));
            let at = rules.iter().position(takes_all).unwrap_or(rules.len());
            rules.insert(at, rule.into());
        }
    }
    // The last rule has to be for everything.
    if !rules.last().and_then(place_of).is_some_and(|last| last.is_everything()) {
        rules.push(json!({ "service": "http_status:404" }));
    }
    Ok(())
}

fn remove_rule(document: &mut Value, place: &Place) -> Result<(), String> {
    let rules = ingress(document)?;
    if place.is_everything() && rules.len() > 1 {
        return Err("the rule for everything stays while there are others; write another one in its place".into());
    }
    if let Some(present) = position(rules, place) {
        rules.remove(present);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(document: &mut Value, rule: Value) -> Result<(), String> {
        put_rule(document, rule.as_object().unwrap())?;
        document::check(document)
    }

    fn services(document: &Value) -> String {
        let names = rules_of(document).iter().map(|rule| rule["service"].as_str().unwrap());
        names
            .map(|service| service.trim_start_matches("http://").trim_start_matches("http_status:"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_rule_comes_before_those_that_would_take_its_requests() {
        let mut document = json!({ "originRequest": { "noTLSVerify": true } });
        for (rule, expected) in [
            (json!({ "hostname": "*.a.test", "service": "http://w" }), "w 404"),
            (json!({ "hostname": "B.a.test.", "service": "http://b" }), "b w 404"),
            (json!({ "hostname": "b.a.test", "path": "^/x", "service": "http://x" }), "x b w 404"),
            (json!({ "hostname": "c.test", "service": "http://c" }), "x b w c 404"),
            (json!({ "path": "^/y", "service": "http://y" }), "x b w c y 404"),
            (json!({ "hostname": "b.a.test", "path": null, "service": "http://n" }), "x n w c y 404"),
            (json!({ "hostname": "*", "service": "http://all" }), "x n w c y all"),
            (json!({ "service": "http_status:503" }), "x n w c y 503"),
        ] {
            put(&mut document, rule.clone()).unwrap();
            assert_eq!(services(&document), expected, "{rule}");
        }
        assert_eq!(rules_of(&document)[1]["hostname"], "b.a.test");
        assert_eq!(document["originRequest"]["noTLSVerify"], true);
        for (hostname, path, expected) in [("b.A.test", "", "x w c y 503"), ("", "^/y", "x w c 503")] {
            remove_rule(&mut document, &Place::parse(hostname, path).unwrap()).unwrap();
            assert_eq!(services(&document), expected);
        }
        remove_rule(&mut document, &Place::parse("", "").unwrap()).unwrap_err();
        assert!(put(&mut document, json!({ "hostname": 7, "service": "http://x" })).is_err());
        assert!(put(&mut document, json!({ "hostname": "d.test", "service": "nonsense" })).is_err());
    }
}
