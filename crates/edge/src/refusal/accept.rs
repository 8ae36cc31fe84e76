use http::{HeaderMap, header};

/// In which form a visitor wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Html,
    Json,
    /// JSON under the name of RFC 9457.
    ProblemJson,
    Text,
}

/// The forms in the order of our own preference, and the type of each.
const FORMS: [(Form, &str, &str); 4] = [
    (Form::Text, "text", "plain"),
    (Form::Html, "text", "html"),
    (Form::Json, "application", "json"),
    (Form::ProblemJson, "application", "problem+json"),
];

/// Picks the form that `accept` weighs highest (RFC 9110 section 12.5.1). Plain text when there is no preference:
/// browsers name HTML, and everything else is read by people in a terminal.
pub(super) fn preferred(headers: &HeaderMap) -> Form {
    let ranges: Vec<Range<'_>> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    let mut best = (Form::Text, 0);
    for (form, kind, subtype) in FORMS {
        let weight = weight(&ranges, kind, subtype);
        if weight > best.1 {
            best = (form, weight);
        }
    }
    best.0
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// Thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let weight = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, thousandths);
        Some(Self { kind, subtype, weight })
    }

    /// How closely the range names a type; none if it does not.
    fn precision(&self, kind: &str, subtype: &str) -> Option<u8> {
        if self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype) {
            Some(2)
        } else if self.kind.eq_ignore_ascii_case(kind) && self.subtype == "*" {
            Some(1)
        } else if self.kind == "*" && self.subtype == "*" {
            Some(0)
        } else {
            None
        }
    }
}

/// The weight that the most precise range gives to a type.
fn weight(ranges: &[Range<'_>], kind: &str, subtype: &str) -> u16 {
    ranges
        .iter()
        .filter_map(|range| range.precision(kind, subtype).map(|precision| (precision, range.weight)))
        .max_by_key(|(precision, _)| *precision)
        .map_or(0, |(_, weight)| weight)
}

/// `0.8` is 800; what is no weight counts as none.
fn thousandths(text: &str) -> u16 {
    match text.trim().parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn form(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        preferred(&headers)
    }

    #[test]
    fn each_kind_of_visitor_gets_its_form() {
        assert_eq!(form("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"), Form::Html);
        assert_eq!(form("application/json"), Form::Json);
        assert_eq!(form("application/problem+json, application/json;q=0.9"), Form::ProblemJson);
        assert_eq!(form("application/json;q=0.5, text/html;q=0.4"), Form::Json);
        assert_eq!(form("*/*"), Form::Text);
        assert_eq!(form("text/*;q=0.3, text/html;q=0.7"), Form::Html);
        assert_eq!(preferred(&HeaderMap::new()), Form::Text);
    }

    #[test]
    fn nonsense_is_plain_text() {
        for accept in ["", "x", "text/html;q=x", "text/html;q=7", "application/json;q=0", ";;,,/", "image/png"] {
            assert_eq!(form(accept), Form::Text, "{accept}");
        }
    }
}
