//! What is shown of a request, as JSON.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::entry::{Counter, Entry, Message};
use super::fields::Fields;
use super::filter::kind_of;
use super::mask;
use crate::event::RequestOutcome;

/// Whether secrets are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    Masked,
    Revealed,
}

/// A line of the list.
pub(super) fn summary(entry: &Entry, now: Duration) -> Value {
    line(entry, now, Secrets::Masked)
}

/// All of a request.
pub(super) fn detail(entry: &Entry, now: Duration, secrets: Secrets) -> Value {
    let mut value = line(entry, now, secrets);
    let phases = entry.phases(now);
    value["phases"] = phases
        .iter()
        .map(|phase| json!({ "name": phase.name, "from_ms": millis(phase.from), "ms": millis(phase.length) }))
        .collect();
    value["request"] = message(&entry.request, secrets);
    value["answer"] = message(&entry.answer, secrets);
    value["masked"] = json!(secrets == Secrets::Masked);
    value["replay_refused"] = json!(super::replay::refusal(entry).map(|refused| refused.to_string()));
    value
}

fn line(entry: &Entry, now: Duration, secrets: Secrets) -> Value {
    let (outcome, remark) = outcome(entry);
    let messages = |message: &Message| message.tally().map(|tally| tally.messages);
    json!({
        "id": entry.id,
        "time": entry.unix_ms,
        "kind": kind_of(entry),
        "method": entry.method.as_str(),
        "host": entry.host,
        "target": target(entry, secrets),
        "status": entry.status.map(|status| status.as_u16()),
        "outcome": outcome,
        "remark": remark,
        "ms": millis(entry.timing.ended.unwrap_or(now).saturating_sub(entry.arrived)),
        "request_bytes": entry.request.bytes,
        "answer_bytes": entry.answer.bytes,
        "request_messages": messages(&entry.request),
        "answer_messages": messages(&entry.answer),
        "replay_of": entry.replay_of,
    })
}

/// A word for programs, and a remark for people where there is something to say.
fn outcome(entry: &Entry) -> (&'static str, Option<&str>) {
    match &entry.outcome {
        None => ("open", None),
        Some(RequestOutcome::Answered(_)) => ("answered", None),
        Some(RequestOutcome::Cut(_)) => ("cut", Some("the answer was cut: the visitor left, or the origin broke off")),
        Some(RequestOutcome::Failed { text, .. }) => ("failed", Some(text)),
        Some(RequestOutcome::Left) => ("left", Some("the visitor left before there was an answer")),
    }
}

fn message(message: &Message, secrets: Secrets) -> Value {
    let tally = message.tally().map(|tally| {
        json!({
            "messages": tally.messages,
            "controls": tally.controls,
            "bytes": tally.bytes,
            "broken": tally.broken,
        })
    });
    json!({
        "headers": fields(&message.fields, secrets),
        "headers_left_out": message.fields.left_out(),
        "trailers": message.trailers.as_ref().map(|trailers| fields(trailers, secrets)),
        "messages": tally,
        "body": body(message, secrets),
    })
}

fn fields(fields: &Fields, secrets: Secrets) -> Value {
    fields.iter().map(|(name, value)| json!([name, field(name, value, secrets)])).collect()
}

/// The value of one header field as it is shown.
pub(super) fn field(name: &str, value: &[u8], secrets: Secrets) -> String {
    let text = String::from_utf8_lossy(value);
    match secrets {
        Secrets::Masked => mask::header(name, &text).into_owned(),
        Secrets::Revealed => text.into_owned(),
    }
}

/// Path and query as they are shown.
pub(super) fn target(entry: &Entry, secrets: Secrets) -> Cow<'_, str> {
    match secrets {
        Secrets::Masked => mask::url(&entry.target),
        Secrets::Revealed => Cow::Borrowed(&entry.target),
    }
}

fn body(message: &Message, secrets: Secrets) -> Value {
    let mut value = json!({
        "bytes": message.bytes,
        "kept": message.kept.len(),
        "over": message.ended.is_some(),
        "whole": message.is_whole(),
    });
    match shown(message, secrets) {
        Shown::Text(text) => value["text"] = json!(text),
        Shown::Bytes(bytes) => value["base64"] = json!(STANDARD.encode(bytes)),
        Shown::Withheld(reason) => value["withheld"] = json!(reason),
    }
    value
}

/// What of a body is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown<'a> {
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// Why it is not.
    Withheld(&'static str),
}

/// The kept part of a body as it is shown. Without revealing, only what can be searched for secrets is.
pub(super) fn shown(message: &Message, secrets: Secrets) -> Shown<'_> {
    if matches!(message.counter, Counter::WebSocket(_)) {
        return Shown::Withheld("WebSocket messages are counted and not kept");
    }
    let kind = message.fields.get("content-type").unwrap_or_default().to_ascii_lowercase();
    let encoded = message.fields.get("content-encoding").is_some_and(|encoding| encoding != b"identity");
    let text = if encoded { None } else { readable(&message.kept, message.is_whole()) };
    match (text, secrets) {
        (Some(text), Secrets::Revealed) => Shown::Text(Cow::Borrowed(text)),
        (None, Secrets::Revealed) => Shown::Bytes(&message.kept),
        (Some(_), Secrets::Masked) if kind.starts_with(b"multipart/") => {
            Shown::Withheld("parts of a form may hold secrets")
        }
        (Some(text), Secrets::Masked) if kind.starts_with(b"application/x-www-form-urlencoded") => {
            Shown::Text(mask::form(text))
        }
        (Some(text), Secrets::Masked) => Shown::Text(mask::text(text)),
        (None, Secrets::Masked) => Shown::Withheld("it is compressed or not text, so secrets in it cannot be masked"),
    }
}

/// The text, if it is one; the last letter of a part may be cut.
fn readable(bytes: &[u8], whole: bool) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    // What holds zeros is not meant to be read.
    (!text.contains('\0')).then_some(text)
}

fn millis(time: Duration) -> f64 {
    // Microseconds are as fine as anybody reads.
    time.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
    use wire::Kind;

    use super::super::entry::Side;
    use super::super::store::{Beginning, Limits, Store};
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn store(request: &HeaderMap, body: &[u8]) -> Store {
        let mut store = Store::new(Limits::DEFAULT);
        let beginning = Beginning {
            kind: Kind::Http,
            method: &Method::POST,
            host: "a.test",
            target: "/login?token=hunter2&page=1",
            headers: request,
            unix_ms: 1_700_000_000_000,
            replay_of: None,
        };
        let id = store.begin(Duration::from_secs(1), &beginning).unwrap();
        store.data(id, Side::Request, body);
        store.ended(id, Side::Request, Duration::from_secs(2));
        store
    }

    #[test]
    fn no_secret_is_shown_unless_asked_for() {
        let request = headers(&[
            ("authorization", "Basic hunter2"),
            ("cookie", "sid=hunter2"),
            ("referer", "https://a.test/?code=hunter2"),
            ("content-type", "application/json"),
        ]);
        let mut store = store(&request, br#"{"user":"me","password":"hunter2"}"#);
        let answer = headers(&[("set-cookie", "sid=hunter2; Secure"), ("location", "/?access_token=hunter2")]);
        store.answered(1, StatusCode::FOUND, &answer, Duration::from_secs(3));
        store.trailers(1, Side::Answer, &headers(&[("x-secret", "hunter2")]));
        store.finished(1, RequestOutcome::Answered(302), Duration::from_secs(4));
        let entry = store.get(1).unwrap();
        let now = Duration::from_secs(9);
        let masked = detail(entry, now, Secrets::Masked);
        assert!(!masked.to_string().contains("hunter2"), "{masked}");
        assert!(!summary(entry, now).to_string().contains("hunter2"));
        assert_eq!(masked["request"]["body"]["text"], r#"{"user":"me","password":"••••••"}"#);
        assert_eq!(masked["target"], "/login?token=••••••&page=1");
        assert_eq!((&masked["ms"], &masked["status"], &masked["masked"]), (&json!(3000.0), &json!(302), &json!(true)));
        let revealed = detail(entry, now, Secrets::Revealed).to_string();
        assert_eq!(revealed.matches("hunter2").count(), 8, "{revealed}");
    }

    #[test]
    fn what_cannot_be_searched_is_withheld() {
        for (kind, body) in [
            (&[("content-encoding", "gzip")][..], &b"{}"[..]),
            (&[("content-type", "image/png")], b"\x89PNG"),
            (&[("content-type", "multipart/form-data; boundary=x")], b"--x"),
            (&[], b"a\0b"),
        ] {
            let store = store(&headers(kind), body);
            let entry = store.get(1).unwrap();
            assert!(matches!(shown(&entry.request, Secrets::Masked), Shown::Withheld(_)), "{kind:?}");
            assert!(!matches!(shown(&entry.request, Secrets::Revealed), Shown::Withheld(_)), "{kind:?}");
        }
    }

    #[test]
    fn a_letter_may_be_cut_at_the_limit_and_not_elsewhere() {
        let bytes = "né".as_bytes();
        assert_eq!(readable(&bytes[..2], false), Some("n"));
        assert_eq!(readable(&bytes[..2], true), None);
        assert_eq!(readable(b"\xC3n", false), None);
        assert_eq!(readable(bytes, true), Some("né"));
    }
}
