use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Puts one beginning of a path in the place of another: `/api=/v1` makes `/v1/users` of `/api/users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rewrite {
    from: String,
    to: String,
}

/// Why a text is no rewrite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rewrite; write FROM=TO, two paths that begin with a slash, such as /api=/v1")]
pub struct BadRewrite(String);

impl Rewrite {
    /// The new path, if this one begins so. Whole segments only: `/api` is no beginning of `/apis`.
    pub(crate) fn apply(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.from.trim_end_matches('/'))?;
        if !(rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        let rest = if rest.is_empty() && self.from.ends_with('/') { return None } else { rest };
        let to = self.to.trim_end_matches('/');
        let path = format!("{to}{rest}");
        Some(if path.is_empty() { "/".to_owned() } else { path })
    }
}

/// As paths are in requests: ASCII without what ends a path.
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text.starts_with("//")
        && text.len() <= 1024
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#=\"<>\\^`{|}".contains(&byte))
}

impl FromStr for Rewrite {
    type Err = BadRewrite;

    fn from_str(text: &str) -> Result<Self, BadRewrite> {
        match text.split_once('=') {
            Some((from, to)) if is_path(from) && is_path(to) => Ok(Self { from: from.to_owned(), to: to.to_owned() }),
            _ => Err(BadRewrite(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Rewrite {
    type Error = BadRewrite;

    fn try_from(text: String) -> Result<Self, BadRewrite> {
        text.parse()
    }
}

impl From<Rewrite> for String {
    fn from(rewrite: Rewrite) -> Self {
        rewrite.to_string()
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_are_replaced() {
        for (rule, path, expected) in [
            ("/api=/v1", "/api/users", Some("/v1/users")),
            ("/api=/v1", "/api", Some("/v1")),
            ("/api=/v1", "/api/", Some("/v1/")),
            ("/api=/v1", "/apis", None),
            ("/api=/v1", "/x/api", None),
            ("/api/=/v1/", "/api/users", Some("/v1/users")),
            ("/api/=/v1/", "/api", None),
            ("/api=/", "/api/users", Some("/users")),
            ("/api=/", "/api", Some("/")),
            ("/=/app", "/users", Some("/app/users")),
            ("/=/app", "/", Some("/app/")),
            ("/a=/b", "/a/%2e%2e//c", Some("/b/%2e%2e//c")),
        ] {
            assert_eq!(rule.parse::<Rewrite>().unwrap().apply(path).as_deref(), expected, "{rule} {path}");
        }
    }

    #[test]
    fn anything_else_is_no_rewrite() {
        for text in ["", "=", "/a", "a=/b", "/a=b", "/a=//b", "/a=/b?c", "/a=/b=c", "/a b=/c", "/a=/\u{e4}"] {
            assert!(text.parse::<Rewrite>().is_err(), "{text}");
        }
    }
}
