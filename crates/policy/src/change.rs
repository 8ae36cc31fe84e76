use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// One change of the header that an origin sees: `Name: value` sets a field, `-Name` removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HeaderChange {
    /// The field has this value and no other.
    Set(HeaderName, HeaderValue),
    /// The field is not there.
    Remove(HeaderName),
}

/// Why a text is no change of a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// It is neither of the two forms.
    #[error("{0:?} is no change of a header; write 'Name: value' to set a field, or -Name to remove it")]
    Form(String),
    /// The field is not for anybody to set.
    #[error("the field {0} cannot be changed: it frames the request, or says what only the edge knows of the visitor")]
    Reserved(HeaderName),
}

/// Fields that frame a request, belong to one connection, or name the site.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "cdn-loop",
    "forwarded",
];

/// Families of fields that the edge sets itself.
const RESERVED_PREFIXES: [&str; 3] = ["cf-", "x-forwarded-", "sec-websocket-"];

impl HeaderChange {
    /// Changes a header.
    pub fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => drop(headers.insert(name, value.clone())),
            Self::Remove(name) => drop(headers.remove(name)),
        }
    }
}

fn is_reserved(name: &HeaderName) -> bool {
    // Origins that keep fields in variables read `_` for `-`.
    let name = name.as_str().replace('_', "-");
    RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl FromStr for HeaderChange {
    type Err = BadChange;

    fn from_str(text: &str) -> Result<Self, BadChange> {
        let bad = || BadChange::Form(text.to_owned());
        let (name, value) = match (text.strip_prefix('-'), text.split_once(':')) {
            (Some(name), None) => (name, None),
            (_, Some((name, value))) => (name, Some(value)),
            (None, None) => return Err(bad()),
        };
        let name: HeaderName = name.trim().parse().map_err(|_| bad())?;
        if is_reserved(&name) {
            return Err(BadChange::Reserved(name));
        }
        match value {
            None => Ok(Self::Remove(name)),
            Some(value) => {
                // Only what has one meaning everywhere; no control bytes, and nothing that is not ASCII.
                let value = value.trim();
                let is_plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
                let value = HeaderValue::from_str(value).ok().filter(|_| is_plain);
                Ok(Self::Set(name, value.ok_or_else(bad)?))
            }
        }
    }
}

impl TryFrom<String> for HeaderChange {
    type Error = BadChange;

    fn try_from(text: String) -> Result<Self, BadChange> {
        text.parse()
    }
}

impl From<HeaderChange> for String {
    fn from(change: HeaderChange) -> Self {
        change.to_string()
    }
}

impl fmt::Display for HeaderChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(name, value) => write!(f, "{name}: {}", value.to_str().unwrap_or_default()),
            Self::Remove(name) => write!(f, "-{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_and_removed() {
        let mut headers = HeaderMap::new();
        headers.append("x-env", "a".parse().unwrap());
        headers.append("x-env", "b".parse().unwrap());
        headers.append("cookie", "c=1".parse().unwrap());
        for change in ["X-Env: demo", "-Cookie", "-x-none", "x-empty:"] {
            change.parse::<HeaderChange>().unwrap().apply(&mut headers);
        }
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("x-env", "demo"), ("x-empty", "")]);
    }

    #[test]
    fn what_frames_a_request_or_speaks_for_the_edge_is_left_alone() {
        for text in ["Host: a", "-content-length", "Transfer-Encoding: chunked", "transfer_encoding: x", "CF-Ray: 1"] {
            assert!(matches!(text.parse::<HeaderChange>(), Err(BadChange::Reserved(_))), "{text}");
        }
        for text in ["", "-", "x-env", ": v", "x y: v", "-x: ", "x: a\r\ny: b", "x: ü", "-x y"] {
            assert!(text.parse::<HeaderChange>().is_err() || text == "-x: ", "{text:?}");
        }
    }
}
