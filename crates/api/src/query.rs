use std::convert::Infallible;
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::ApiError;

/// The parameters of a query. Keys may repeat; whatever a handler does not ask for is passed over.
pub(crate) struct Query(Vec<(String, String)>);

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// From 1.
    pub(crate) number: usize,
    /// At least 1.
    pub(crate) size: usize,
}

impl Page {
    /// How many items are on the pages before.
    pub(crate) fn start(self) -> usize {
        self.number.saturating_sub(1).saturating_mul(self.size)
    }
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The last value of a parameter; an empty one counts as absent.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// All values of a parameter: repeated keys, and lists with commas.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.values(name).flat_map(|value| value.split(',')).filter(|value| !value.is_empty()).collect()
    }

    /// Whether a parameter is there, with a value or without.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A parameter of a type of its own.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.one(name)
            .map(|text| text.parse().map_err(|problem| ApiError::not_valid(format!("{name}: {problem}"))))
            .transpose()
    }

    pub(crate) fn page(&self, default_size: usize, max_size: usize) -> Result<Page, ApiError> {
        let number = self.count("page")?.unwrap_or(1).max(1);
        let size = self.count("per_page")?.unwrap_or(default_size).clamp(1, max_size);
        Ok(Page { number, size })
    }

    /// A whole number; some clients write it as `1.0`.
    fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let whole = match text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
            Some(_) => return Err(not_whole(name)),
            None => text,
        };
        if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(not_whole(name));
        }
        // More digits than fit is past every end, not an error.
        Ok(Some(whole.parse().unwrap_or(usize::MAX)))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

fn not_whole(name: &str) -> ApiError {
    ApiError::not_valid(format!("{name}: a whole number from 1 is wanted"))
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Option<(usize, usize)> {
        Query::parse(query).page(20, 100).ok().map(|page| (page.number, page.size))
    }

    #[test]
    fn pages_are_read_as_clients_write_them() {
        assert_eq!(page(""), Some((1, 20)));
        assert_eq!(page("page=2.0&per_page=50.0"), Some((2, 50)));
        assert_eq!(page("page=0&per_page=0"), Some((1, 1)));
        assert_eq!(page("per_page=100000&page="), Some((1, 100)));
        assert_eq!(page("page=99999999999999999999999"), Some((usize::MAX, 20)));
        for bad in ["page=x", "page=-1", "page=1.5", "page=NaN", "per_page=1e9", "page=."] {
            assert_eq!(page(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_come_repeated_or_with_commas() {
        let query = Query::parse("id=a&id=b,c&x=%20&id=");
        assert_eq!(query.all("id"), ["a", "b", "c"]);
        assert_eq!((query.one("x"), query.one("y")), (Some(" "), None));
    }
}
