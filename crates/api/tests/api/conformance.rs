//! Whether calls and their answers are as the document of the API says. Every call of every test goes by here, so that
//! the document can say nothing else than what is.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use regex::Regex;
use serde_json::{Value, json};

use crate::edge::Answer;

/// The document of the API.
pub(crate) struct Description(Value);

impl Description {
    pub(crate) async fn fetch(client: &Client<HttpConnector, Full<Bytes>>, address: SocketAddr) -> Self {
        let uri: Uri = format!("http://{address}/client/v4/openapi.json").parse().unwrap();
        let answer = client.get(uri).await.unwrap();
        Self(serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap())
    }

    /// Checks a call and its answer.
    #[track_caller]
    pub(crate) fn check(&self, method: &Method, path: &str, sent: &[u8], answer: &Answer) {
        let shown = || format!("{method} {path} {}\n{} {}", String::from_utf8_lossy(sent), answer.status, answer.text);
        let Some(operation) = self.operation(method, path) else {
            let is_usual = matches!(*method, Method::HEAD | Method::OPTIONS);
            assert!(is_usual || !answer.status.is_success(), "not described: {}", shown());
            return;
        };
        let response = &operation["responses"][answer.status.as_str()];
        assert!(!response.is_null(), "the status is not described: {}", shown());
        let content = &self.resolved(response)["content"];
        let kind = answer.headers["content-type"].to_str().unwrap();
        assert!(!content[kind].is_null(), "{kind} is not described: {}", shown());
        if kind == "application/json" {
            let flaw = self.flaw(&content[kind]["schema"], &answer.json(), Others::Refused);
            assert_eq!(flaw, None, "the answer is not as described: {}", shown());
        }
        let taken = &operation["requestBody"]["content"]["application/json"]["schema"];
        if answer.status.is_success() && !taken.is_null() {
            let sent = if sent.is_empty() { json!({}) } else { serde_json::from_slice(sent).unwrap() };
            assert_eq!(
                self.flaw(taken, &sent, Others::PassedOver),
                None,
                "what was taken is not as described: {}",
                shown()
            );
        }
    }

    /// What is done by a method at a path.
    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let path = path.split('?').next()?;
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        let fits = |template: &str| {
            let is_same =
                |(one, other): (&str, &str)| if one.starts_with('{') { !other.is_empty() } else { one == other };
            template.split('/').count() == path.split('/').count()
                && template.split('/').zip(path.split('/')).all(is_same)
        };
        let paths = self.0["paths"].as_object()?;
        // What is written out goes before what stands for anything.
        let found =
            paths.keys().filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())?;
        paths[found].get(method.as_str().to_ascii_lowercase())
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        self.0.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Where and why a value does not fit a schema.
    fn flaw(&self, schema: &Value, value: &Value, others: Others) -> Option<String> {
        let schema = self.resolved(schema);
        let wrong = |word: &str| Some(format!(": {word} {}, and this is {value}", schema[word]));
        for inner in schema["allOf"].as_array().into_iter().flatten() {
            // What one of them does not have, another one may.
            if let Some(flaw) = self.flaw(inner, value, Others::RefusedInside.or(others)) {
                return Some(flaw);
            }
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let flaws: Option<Vec<_>> = choices.iter().map(|inner| self.flaw(inner, value, others)).collect();
            if let Some(flaws) = flaws {
                return Some(flaws.join(" or "));
            }
        }
        match schema.get("type") {
            Some(Value::String(kind)) if !is_of(kind, value) => return wrong("type"),
            Some(Value::Array(kinds)) if !kinds.iter().any(|kind| is_of(kind.as_str().unwrap(), value)) => {
                return wrong("type");
            }
            _ => (),
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return wrong("const");
        }
        if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
            return wrong("enum");
        }
        let size = match value {
            Value::String(text) => {
                let is_odd = |pattern: &str| !Regex::new(pattern).unwrap().is_match(text);
                if schema["pattern"].as_str().is_some_and(is_odd) {
                    return wrong("pattern");
                }
                Some((text.chars().count() as f64, "minLength", "maxLength"))
            }
            Value::Array(items) => Some((items.len() as f64, "minItems", "maxItems")),
            Value::Number(number) => Some((number.as_f64().unwrap(), "minimum", "maximum")),
            Value::Object(members) => Some((members.len() as f64, "minProperties", "maxProperties")),
            Value::Null | Value::Bool(_) => None,
        };
        if let Some((size, least, most)) = size {
            if schema[least].as_f64().is_some_and(|least| size < least) {
                return wrong(least);
            }
            if schema[most].as_f64().is_some_and(|most| size > most) {
                return wrong(most);
            }
        }
        match value {
            Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
                let flaw = self.flaw(&schema["items"], item, others.inside())?;
                Some(format!("[{index}]{flaw}"))
            }),
            Value::Object(members) => {
                let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                if let Some(name) = required.into_iter().find(|name| !members.contains_key(*name)) {
                    return Some(format!(".{name}: it is missing"));
                }
                // An object of which nothing is said may have anything.
                let is_whole =
                    others == Others::Refused && schema["properties"].as_object().is_some_and(|it| !it.is_empty());
                members.iter().find_map(|(name, member)| {
                    let inner = match (schema["properties"].get(name), &schema["additionalProperties"]) {
                        (Some(inner), _) => inner,
                        (None, Value::Bool(false)) => return Some(format!(".{name}: there is no such member")),
                        (None, Value::Null) if is_whole => return Some(format!(".{name}: it is not described")),
                        (None, inner) => inner,
                    };
                    Some(format!(".{name}{}", self.flaw(inner, member, others.inside())?))
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
}

/// What becomes of members that are not described.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Nothing, as in a body.
    PassedOver,
    /// An answer has none.
    Refused,
    /// It has none in what is inside.
    RefusedInside,
}

impl Others {
    fn inside(self) -> Self {
        if self == Self::RefusedInside { Self::Refused } else { self }
    }

    fn or(self, others: Self) -> Self {
        if others == Self::PassedOver { others } else { self }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

#[tokio::test]
async fn what_is_not_described_is_found() {
    let edge = crate::edge::Edge::start().await;
    let answer = |status: u16, text: &str| Answer {
        status: status.try_into().unwrap(),
        headers: [("content-type".parse().unwrap(), "application/json".parse().unwrap())].into_iter().collect(),
        text: text.to_owned(),
    };
    let passes = |path: &str, sent: &str, answer: Answer| {
        let check = || edge.description.check(&Method::POST, path, sent.as_bytes(), &answer);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_ok()
    };
    let good = edge.post("/zones", json!({ "name": "a.test" })).await.text;
    let zones = "/client/v4/zones";
    assert!(passes(zones, r#"{"name":"a.test"}"#, answer(200, &good)));
    assert!(!passes(zones, r#"{"name":5}"#, answer(200, &good)));
    assert!(!passes(zones, "{}", answer(200, &good)));
    assert!(!passes(zones, r#"{"name":"a.test"}"#, answer(200, &good.replace("\"paused\":false", "\"paused\":0"))));
    assert!(!passes(zones, r#"{"name":"a.test"}"#, answer(200, &good.replace("\"paused\"", "\"other\""))));
    assert!(!passes(zones, r#"{"name":"a.test"}"#, answer(200, &good.replace("\"paused\"", "\"more\":1,\"paused\""))));
    assert!(!passes(zones, r#"{"name":"a.test"}"#, answer(201, &good)));
    assert!(!passes("/client/v4/unheard-of", "", answer(200, &good)));
    let failure = |code: u32| {
        let failure =
            json!({ "success": false, "errors": [{ "code": code, "message": "" }], "messages": [], "result": null });
        answer(400, &failure.to_string())
    };
    assert!(passes(zones, "{}", failure(1004)));
    assert!(!passes(zones, "{}", failure(7003)), "that code comes with 404");
}
