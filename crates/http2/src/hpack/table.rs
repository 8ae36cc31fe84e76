//! What a field is once it is decoded, and the table that never changes.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode};

use super::STATIC;

/// A field, parsed once and then copied as often as it comes.
#[derive(Debug, Clone)]
pub(super) enum Field {
    Method(Method),
    Scheme(Scheme),
    Authority(Authority),
    Path(PathAndQuery),
    /// RFC 8441 section 4.
    Protocol(HeaderValue),
    Status(StatusCode),
    Header(HeaderName, HeaderValue),
    /// A field that no message may hold (RFC 9113 section 8.2); its name, and why.
    Malformed(Name, &'static str),
}

/// What stands before the value: for new values of a known name.
#[derive(Debug, Clone)]
pub(super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    Header(HeaderName),
    Malformed(&'static str),
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":status" => Self::Status,
            [b':', ..] => Self::Malformed("an unknown pseudo-header field"),
            _ => match HeaderName::from_lowercase(name) {
                Ok(name) if is_of_connection(&name) => Self::Malformed("a field that only HTTP/1.1 has"),
                Ok(name) => Self::Header(name),
                Err(_) => Self::Malformed("a field name with characters that are not allowed"),
            },
        }
    }

    pub(super) fn with(self, value: &[u8]) -> Field {
        let field = match self {
            Self::Header(name) => return header_field(name, value),
            Self::Method => Method::from_bytes(value).map(Field::Method).map_err(|_| "no method"),
            Self::Scheme => Scheme::try_from(value).map(Field::Scheme).map_err(|_| "no scheme"),
            Self::Authority => Authority::from_maybe_shared(Bytes::copy_from_slice(value))
                .map(Field::Authority)
                .map_err(|_| "no authority"),
            Self::Path if value.first() != Some(&b'/') && value != b"*" => Err("no path"),
            Self::Path => {
                PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(value)).map(Field::Path).map_err(|_| "no path")
            }
            Self::Protocol => HeaderValue::from_bytes(value).map(Field::Protocol).map_err(|_| "no protocol"),
            Self::Status => StatusCode::from_bytes(value).map(Field::Status).map_err(|_| "no status"),
            Self::Malformed(why) => Err(why),
        };
        // The name stays: other values of it may come behind.
        field.unwrap_or_else(|why| Field::Malformed(self, why))
    }
}

fn header_field(name: HeaderName, value: &[u8]) -> Field {
    if name == header::TE && value != b"trailers" {
        return Field::Malformed(Name::Header(name), "a field that only HTTP/1.1 has");
    }
    match HeaderValue::from_bytes(trimmed(value)) {
        Ok(value) => Field::Header(name, value),
        Err(_) => Field::Malformed(Name::Header(name), "a field value with characters that are not allowed"),
    }
}

impl Field {
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Method(_) => Name::Method,
            Self::Scheme(_) => Name::Scheme,
            Self::Authority(_) => Name::Authority,
            Self::Path(_) => Name::Path,
            Self::Protocol(_) => Name::Protocol,
            Self::Status(_) => Name::Status,
            Self::Header(name, _) => Name::Header(name.clone()),
            Self::Malformed(name, _) => name.clone(),
        }
    }
}

/// RFC 9113 section 8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
}

/// Blanks around a value mean nothing. Many senders leave them, where they should not (RFC 9113 section 8.2.1).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// An entry of the static table, and its size as the limit on headers counts (RFC 9113 section 6.5.2).
pub(super) fn static_field(index: usize) -> Option<(&'static Field, usize)> {
    static FIELDS: LazyLock<Vec<(Field, usize)>> = LazyLock::new(|| {
        let entry = |(name, value): &(&str, &str)| {
            // An empty value stands for none, which only a name may be taken of.
            (Name::parse(name.as_bytes()).with(value.as_bytes()), name.len() + value.len() + super::OVERHEAD)
        };
        ENTRIES.iter().map(entry).collect()
    });
    FIELDS.get(index.checked_sub(1)?).map(|(field, size)| (field, *size))
}

/// The name of an entry of the static table.
pub(super) fn static_name(index: usize) -> Option<(Name, usize)> {
    static NAMES: LazyLock<Vec<Name>> =
        LazyLock::new(|| ENTRIES.iter().map(|(name, _)| Name::parse(name.as_bytes())).collect());
    let position = index.checked_sub(1)?;
    Some((NAMES.get(position)?.clone(), ENTRIES[position].0.len()))
}

/// Where a header's name stands first.
pub(super) fn static_index(name: &HeaderName) -> Option<usize> {
    HEADERS.binary_search_by(|(known, _)| (*known).cmp(name.as_str())).ok().map(|found| HEADERS[found].1)
}

/// The headers of [`ENTRIES`], without the pseudo-headers, in the order of the alphabet.
static HEADERS: LazyLock<Vec<(&'static str, usize)>> = LazyLock::new(|| {
    let mut headers: Vec<_> = ENTRIES
        .iter()
        .zip(1..)
        .filter(|((name, _), _)| !name.starts_with(':'))
        .map(|((name, _), at)| (*name, at))
        .collect();
    headers.sort_unstable();
    headers
});

/// Appendix A.
#[rustfmt::skip]
pub(super) const ENTRIES: [(&str, &str); STATIC] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand() {
        for ((name, _), at) in ENTRIES.iter().zip(1..).filter(|((name, _), _)| !name.starts_with(':')) {
            assert_eq!(static_index(&HeaderName::from_static(name)), Some(at), "{name}");
        }
        for other in ["a", "accepted", "x-zzz", "host2", "if", "zz"] {
            assert_eq!(static_index(&HeaderName::from_static(other)), None, "{other}");
        }
    }
}
