//! Sending a recorded request again, as it was or edited.

use std::str::FromStr as _;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde::Deserialize;
use wire::{Body, Kind};

use super::entry::Entry;
use super::mask::MASK;
use super::view::{Secrets, Shown, field, shown, target};

/// More header fields than any request has.
const MOST_HEADERS: usize = 256;

/// Changes to a request. What is left out stays as it was, and so does what stands as it was shown, masked or not.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    method: Option<String>,
    /// Path and query.
    target: Option<String>,
    /// All header fields in their order. The length of the body is not among them.
    headers: Option<Vec<(String, String)>>,
    body: Option<String>,
}

/// Why a request is not sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "only the first {kept} bytes of the body were kept, so it cannot be sent whole; edit it and give a body of your \
         own"
    )]
    Cut { kept: usize },
    #[error("the body has not come to its end yet; try again when it has")]
    Open,
    #[error("a body that broke off cannot be sent whole; edit it and give a body of your own")]
    BrokenOff,
    #[error("WebSockets are not replayed: what was said on them is not kept")]
    WebSocket,
    #[error("{0} header fields found no room in the record; edit it and give them all")]
    Headers(usize),
    #[error("{0:?} is no method that can be sent; write one such as POST")]
    Method(String),
    #[error("{0:?} is no path; write one that begins with a slash, such as /path?query")]
    Target(String),
    #[error("{0:?} cannot be a header field")]
    Header(String),
    #[error("{0} header fields are too many")]
    TooManyHeaders(usize),
    #[error("{0} holds a masked secret; reveal secrets to edit it, or leave it as it is shown")]
    Masked(String),
}

impl Refused {
    /// The edit is wrong, and not the request that was recorded.
    pub(super) fn is_of_edit(&self) -> bool {
        match self {
            Self::Cut { .. } | Self::Open | Self::BrokenOff | Self::WebSocket | Self::Headers(_) => false,
            Self::Method(_) | Self::Target(_) | Self::Header(_) | Self::TooManyHeaders(_) | Self::Masked(_) => true,
        }
    }
}

/// Why this request cannot be sent again as it was.
pub(super) fn refusal(entry: &Entry) -> Option<Refused> {
    request(entry, &Edit::default()).err()
}

/// The request to send.
pub(super) fn request(entry: &Entry, edit: &Edit) -> Result<Request<Body>, Refused> {
    match entry.kind {
        Kind::WebSocket => return Err(Refused::WebSocket),
        Kind::Http => {}
    }
    let mut headers = headers(entry, edit.headers.as_deref())?;
    let body = body(entry, edit.body.as_deref())?;
    for name in [CONNECTION, EXPECT, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if headers.remove(CONTENT_LENGTH).is_some() || !body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&entry.host)
    {
        headers.insert(HOST, host);
    }
    let mut request = Request::new(if body.is_empty() { Body::empty() } else { Body::full(body) });
    *request.method_mut() = method(entry, edit.method.as_deref())?;
    *request.uri_mut() = path(entry, edit.target.as_deref())?.into();
    *request.headers_mut() = headers;
    Ok(request)
}

fn method(entry: &Entry, edited: Option<&str>) -> Result<Method, Refused> {
    let Some(edited) = edited else { return Ok(entry.method.clone()) };
    let method = Method::from_str(edited).ok().filter(|method| *method != Method::CONNECT);
    method.ok_or_else(|| Refused::Method(edited.to_owned()))
}

fn path(entry: &Entry, edited: Option<&str>) -> Result<PathAndQuery, Refused> {
    let wanted = match edited {
        None => entry.target.as_str(),
        Some(edited) if edited == target(entry, Secrets::Masked) => entry.target.as_str(),
        Some(edited) if edited.contains(MASK) => return Err(Refused::Masked("the path".to_owned())),
        Some(edited) => edited,
    };
    let sound = wanted.starts_with('/') && !wanted.contains('#');
    let path = wanted.parse().ok().filter(|_| sound);
    path.ok_or_else(|| Refused::Target(wanted.to_owned()))
}

fn headers(entry: &Entry, edited: Option<&[(String, String)]>) -> Result<HeaderMap, Refused> {
    let recorded = &entry.request.fields;
    let mut headers = HeaderMap::new();
    let Some(edited) = edited else {
        if recorded.left_out() > 0 {
            return Err(Refused::Headers(recorded.left_out()));
        }
        for (name, value) in recorded.iter() {
            append(&mut headers, name, value)?;
        }
        return Ok(headers);
    };
    if edited.len() > MOST_HEADERS {
        return Err(Refused::TooManyHeaders(edited.len()));
    }
    let mut unused: Vec<_> = recorded.iter().collect();
    for (name, value) in edited {
        let name = name.trim().to_ascii_lowercase();
        let same = unused.iter().position(|(other, original)| {
            *other == name && [Secrets::Masked, Secrets::Revealed].iter().any(|s| field(&name, original, *s) == *value)
        });
        match same {
            Some(place) => append(&mut headers, &name, unused.remove(place).1)?,
            None if value.contains(MASK) => return Err(Refused::Masked(name)),
            None => append(&mut headers, &name, value.trim().as_bytes())?,
        }
    }
    Ok(headers)
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), Refused> {
    match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => {
            headers.append(name, value);
            Ok(())
        }
        _ => Err(Refused::Header(name.to_owned())),
    }
}

fn body(entry: &Entry, edited: Option<&str>) -> Result<Bytes, Refused> {
    let message = &entry.request;
    if let Some(edited) = edited {
        let same = [Secrets::Masked, Secrets::Revealed]
            .iter()
            .any(|secrets| matches!(shown(message, *secrets), Shown::Text(text) if text == edited));
        if !same {
            return match edited.contains(MASK) {
                true => Err(Refused::Masked("the body".to_owned())),
                false => Ok(Bytes::copy_from_slice(edited.as_bytes())),
            };
        }
    }
    if message.is_whole() {
        Ok(Bytes::copy_from_slice(&message.kept))
    } else if (message.kept.len() as u64) < message.bytes {
        Err(Refused::Cut { kept: message.kept.len() })
    } else if entry.outcome.is_none() {
        Err(Refused::Open)
    } else {
        Err(Refused::BrokenOff)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::super::entry::Side;
    use super::super::store::{Beginning, Limits, Store};
    use super::*;
    use crate::event::RequestOutcome;

    fn recorded(kind: Kind, limits: Limits) -> Store {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer hunter2"),
            ("content-type", "application/json"),
            ("content-length", "22"),
            ("expect", "100-continue"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let beginning = Beginning {
            kind,
            method: &Method::POST,
            host: "a.test",
            target: "/form?token=hunter2",
            headers: &headers,
            unix_ms: 0,
            replay_of: None,
        };
        let mut store = Store::new(limits);
        store.begin(Duration::ZERO, &beginning).unwrap();
        store.data(1, Side::Request, br#"{"password":"hunter2"}"#);
        store
    }

    fn whole() -> Store {
        let mut store = recorded(Kind::Http, Limits::DEFAULT);
        store.ended(1, Side::Request, Duration::ZERO);
        store
    }

    fn edited(store: &Store, edit: serde_json::Value) -> Result<Request<Body>, Refused> {
        request(store.get(1).unwrap(), &serde_json::from_value(edit).unwrap())
    }

    async fn bytes(request: Request<Body>) -> Bytes {
        request.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_request_goes_again_as_it_was() {
        let request = edited(&whole(), serde_json::json!({})).unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/form?token=hunter2".to_owned()));
        let headers = request.headers();
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert_eq!((&headers["host"], &headers["content-length"]), (&"a.test".parse().unwrap(), &22.into()));
        assert!(!headers.contains_key("expect"));
        assert_eq!(headers.get_all("x-twice").iter().count(), 2);
        assert_eq!(bytes(request).await, r#"{"password":"hunter2"}"#);
    }

    #[tokio::test]
    async fn what_stands_as_it_was_shown_stays_as_it_was() {
        let edit = serde_json::json!({
            "method": "PUT",
            "target": format!("/form?token={MASK}"),
            "headers": [["Authorization", format!("Bearer {MASK}")], ["x-new", "new"], ["x-twice", "2"]],
            "body": format!(r#"{{"password":"{MASK}"}}"#),
        });
        let request = edited(&whole(), edit).unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::PUT, "/form?token=hunter2".to_owned()));
        assert_eq!(
            (&request.headers()["authorization"], &request.headers()["x-new"]),
            (&"Bearer hunter2".parse().unwrap(), &"new".parse().unwrap())
        );
        assert_eq!(request.headers().get_all("x-twice").iter().collect::<Vec<_>>(), ["2"]);
        assert_eq!(bytes(request).await, r#"{"password":"hunter2"}"#);
    }

    #[tokio::test]
    async fn another_body_gets_its_own_length() {
        let request = edited(&whole(), serde_json::json!({ "body": "new" })).unwrap();
        assert_eq!(request.headers()["content-length"], "3");
        assert_eq!(bytes(request).await, "new");
        let request = edited(&whole(), serde_json::json!({ "method": "GET", "body": "", "headers": [] })).unwrap();
        assert!(!request.headers().contains_key("content-length"));
    }

    #[test]
    fn edits_that_make_no_request_are_refused() {
        for edit in [
            serde_json::json!({ "method": "A B" }),
            serde_json::json!({ "method": "CONNECT" }),
            serde_json::json!({ "target": "http://elsewhere/" }),
            serde_json::json!({ "target": "/a b" }),
            serde_json::json!({ "target": "/a#b" }),
            serde_json::json!({ "target": format!("/other?token={MASK}") }),
            serde_json::json!({ "headers": [["a b", "c"]] }),
            serde_json::json!({ "headers": [["a", "b\r\nc: d"]] }),
            serde_json::json!({ "headers": [["authorization", format!("Basic {MASK}")]] }),
            serde_json::json!({ "headers": vec![["a", "b"]; 300] }),
            serde_json::json!({ "body": format!("other {MASK}") }),
        ] {
            let refused = edited(&whole(), edit.clone()).err();
            assert!(refused.as_ref().is_some_and(Refused::is_of_edit), "{edit}: {refused:?}");
        }
    }

    #[test]
    fn a_body_that_is_not_here_whole_is_not_sent() {
        let mut cut = recorded(Kind::Http, Limits { body: 10, ..Limits::DEFAULT });
        cut.ended(1, Side::Request, Duration::ZERO);
        assert_eq!(refusal(cut.get(1).unwrap()), Some(Refused::Cut { kept: 10 }));
        assert!(edited(&cut, serde_json::json!({ "body": "whole" })).is_ok());

        let mut open = recorded(Kind::Http, Limits::DEFAULT);
        assert_eq!(refusal(open.get(1).unwrap()), Some(Refused::Open));
        open.finished(1, RequestOutcome::Left, Duration::ZERO);
        assert_eq!(refusal(open.get(1).unwrap()), Some(Refused::BrokenOff));

        let mut websocket = recorded(Kind::WebSocket, Limits::DEFAULT);
        websocket.answered(1, StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new(), Duration::ZERO);
        assert_eq!(refusal(websocket.get(1).unwrap()), Some(Refused::WebSocket));
        let small = recorded(Kind::Http, Limits { head: 40, ..Limits::DEFAULT });
        assert!(matches!(refusal(small.get(1).unwrap()), Some(Refused::Headers(_))));
    }
}
