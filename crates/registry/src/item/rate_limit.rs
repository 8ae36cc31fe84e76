//! Limits of requests, in the form before rulesets. Pure.

use http::{HeaderName, Method};
use serde_json::Value;

use super::form::{Form, Member, Shape, flag, list, may, must, object, text};
use super::{Check, ItemError, MOST, Members, Rules, bad};

pub(super) static RULES: Rules =
    Rules { name: "rate-limits", title: "rate limit", has_uuid: false, most: MOST, members: &MEMBERS, check, index };

/// As in the original.
const MAX_PERIOD: u32 = 86_400;
/// Of a body that is answered.
const MAX_BODY_CHARS: usize = 10_240;
/// Of a pattern; what visitors may ask for at most is longer, and matches a shorter one.
const MAX_URL_CHARS: usize = 1024;

static MEMBERS: [Member; 8] = [
    flag("disabled", false),
    text("description", Form::Text(1024), ""),
    object("match", &MATCH),
    list(
        "bypass",
        &Form::Object(&[must("name", Form::Choice(&["url"])), must("value", Form::Word(MAX_URL_CHARS))]),
        100,
    ),
    must("threshold", Form::Whole(1, 1_000_000_000)),
    must("period", Form::Whole(1, MAX_PERIOD)),
    must("action", Form::Object(&ACTION)),
    may("correlate", Form::Object(&[text("by", Form::Choice(&["nat"]), "nat")])),
];

static MATCH: [Member; 2] = [
    object(
        "request",
        &[
            may("methods", Form::List(&Form::Own(Shape::Text, read_method), 1, 20)),
            may("schemes", Form::List(&Form::Choice(&["HTTP", "HTTPS", "_ALL_"]), 1, 2)),
            text("url", Form::Word(MAX_URL_CHARS), "*"),
        ],
    ),
    may(
        "response",
        Form::Object(&[
            may("status", Form::List(&Form::Whole(100, 999), 1, 100)),
            may("origin_traffic", Form::Flag),
            may("headers", Form::List(&Form::Object(&HEADER), 0, 20)),
        ]),
    ),
];

static HEADER: [Member; 3] = [
    must("name", Form::Own(Shape::Text, read_header)),
    text("op", Form::Choice(&["eq", "ne"]), "eq"),
    must("value", Form::Text(1024)),
];

static ACTION: [Member; 3] = [
    must("mode", Form::Choice(&["simulate", "ban", "challenge", "js_challenge", "managed_challenge"])),
    may("timeout", Form::Whole(1, MAX_PERIOD)),
    may(
        "response",
        Form::Object(&[
            must("content_type", Form::Choice(&["text/plain", "text/xml", "application/json"])),
            must("body", Form::Text(MAX_BODY_CHARS)),
        ]),
    ),
];

fn read_method(value: &Value) -> Result<Value, String> {
    let text = value.as_str().unwrap_or_default();
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_ascii_uppercase().into()),
        Err(_) => Err("a method, or _ALL_, is wanted".into()),
    }
}

fn read_header(value: &Value) -> Result<Value, String> {
    let name = value.as_str().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    name.map(|_| value.clone()).ok_or_else(|| "the name of a header is wanted".into())
}

fn index(_: &Members) -> Option<&str> {
    None
}

fn check(check: &mut Check<'_>) -> Result<(), ItemError> {
    let terms = &check.new.terms;
    let action = &terms["action"];
    if matches!(action["mode"].as_str(), Some("ban" | "simulate")) {
        let period = terms["period"].as_u64();
        if action.get("timeout").and_then(Value::as_u64) < period {
            return Err(bad("action.timeout", "at least as many seconds as the period are wanted"));
        }
    }
    Ok(())
}
