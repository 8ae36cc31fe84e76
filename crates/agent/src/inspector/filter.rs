use super::entry::Entry;
use super::mask;
use crate::event::RequestOutcome;
use wire::Kind;

/// Longer filters are cut; nobody types them.
const LONGEST: usize = 512;

/// Words that a request must have, in the form that the page's field takes too: `method:post status:5xx path:/api`, any
/// other word anywhere in the line of the list; `-` before a word means that the request must not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    wanted: bool,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Method(String),
    /// Digits, or `x` for any.
    Status(String),
    Host(String),
    Path(String),
    Kind(String),
    Any(String),
}

impl Filter {
    pub(super) fn parse(text: &str) -> Self {
        let mut text = text.to_lowercase();
        text.truncate(text.floor_char_boundary(LONGEST));
        Self(text.split_whitespace().map(Word::parse).collect())
    }

    pub(super) fn takes(&self, entry: &Entry) -> bool {
        self.0.iter().all(|word| word.what.is_in(entry) == word.wanted)
    }
}

impl Word {
    fn parse(word: &str) -> Self {
        let (wanted, word) = match word.strip_prefix('-') {
            Some(word) if !word.is_empty() => (false, word),
            _ => (true, word),
        };
        let what = match word.split_once(':') {
            Some(("method", value)) => What::Method(value.to_owned()),
            Some(("status", value)) => What::Status(value.to_owned()),
            Some(("host", value)) => What::Host(value.to_owned()),
            Some(("path", value)) => What::Path(value.to_owned()),
            Some(("kind", value)) => What::Kind(value.to_owned()),
            _ => What::Any(word.to_owned()),
        };
        Self { wanted, what }
    }
}

impl What {
    fn is_in(&self, entry: &Entry) -> bool {
        // What is not shown is not searched either, or it could be found out letter by letter.
        let path = || mask::url(&entry.target).to_lowercase();
        match self {
            Self::Method(method) => entry.method.as_str().eq_ignore_ascii_case(method),
            Self::Status(pattern) => has_status(entry, pattern),
            Self::Host(host) => entry.host.to_lowercase().contains(host),
            Self::Path(part) => path().contains(part),
            Self::Kind(kind) => kind == kind_of(entry),
            Self::Any(text) => {
                format!("{} {}", entry.method, entry.host).to_lowercase().contains(text)
                    || path().contains(text)
                    || entry.status.is_some_and(|status| status.as_str() == text)
            }
        }
    }
}

/// `404`, `4xx`, `open` (under way), `failed` (no answer).
fn has_status(entry: &Entry, pattern: &str) -> bool {
    match pattern {
        "open" => entry.outcome.is_none(),
        "failed" => matches!(entry.outcome, Some(RequestOutcome::Failed { .. } | RequestOutcome::Left)),
        _ => entry.status.is_some_and(|status| {
            let status = status.as_str();
            status.len() == pattern.len() && status.chars().zip(pattern.chars()).all(|(a, b)| b == 'x' || a == b)
        }),
    }
}

/// The word for what an exchange is.
pub(super) fn kind_of(entry: &Entry) -> &'static str {
    match entry.kind {
        Kind::WebSocket => "websocket",
        Kind::Http if matches!(entry.request.counter, super::entry::Counter::Grpc(_)) => "grpc",
        Kind::Http => "http",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, Method, StatusCode};

    use super::super::store::{Beginning, Limits, Store};
    use super::*;

    #[test]
    fn all_words_must_fit() {
        let mut store = Store::new(Limits::DEFAULT);
        let beginning = Beginning {
            kind: Kind::Http,
            method: &Method::POST,
            host: "App.test:8443",
            target: "/api/users?token=hunter2",
            headers: &HeaderMap::new(),
            unix_ms: 0,
            replay_of: None,
        };
        let id = store.begin(Duration::ZERO, &beginning).unwrap();
        assert!(Filter::parse("status:open").takes(store.get(id).unwrap()));
        store.answered(id, StatusCode::NOT_FOUND, &HeaderMap::new(), Duration::ZERO);
        store.finished(id, RequestOutcome::Answered(404), Duration::ZERO);
        for (filter, taken) in [
            ("", true),
            ("post", true),
            ("  app.TEST  users ", true),
            ("method:post status:4xx path:/api host:app kind:http", true),
            ("404", true),
            ("status:404", true),
            ("status:40", false),
            ("status:5xx", false),
            ("status:open", false),
            ("method:get", false),
            ("-status:4xx", false),
            ("-get", true),
            ("-", false),
            ("kind:websocket", false),
            ("hunter2", false),
            ("path:hunter", false),
        ] {
            assert_eq!(Filter::parse(filter).takes(store.get(id).unwrap()), taken, "{filter:?}");
        }
        // A limit in the middle of a letter.
        Filter::parse(&"é".repeat(1000)).takes(store.get(id).unwrap());
    }
}
