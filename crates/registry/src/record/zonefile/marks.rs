//! What zone files do not know of a record, in a comment behind it, as files of the original have it: people's comment, then `cf_tags=` and
//! tags with commas between. A tag's value, or a whole tag, that would be misread is a string of JSON. Tags that begin with `cf-` and
//! are no such strings are the record's settings. Pure.

use std::fmt::Write as _;

use super::super::{NewRecord, Record, RecordSettings};

const TAGS: &str = "cf_tags=";
/// Of tags that are none of people's.
const OURS: &str = "cf-";
const PROXIED: &str = "cf-proxied";
const FLATTEN: &str = "cf-flatten-cname";
const IPV4_ONLY: &str = "cf-ipv4-only";
const IPV6_ONLY: &str = "cf-ipv6-only";

/// What is noted about a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Marks {
    pub(super) comment: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) settings: RecordSettings,
    /// `None`: nothing is said.
    pub(super) proxied: Option<bool>,
}

impl Marks {
    /// Of what stands behind a record's data; whatever it is, it can be read.
    pub(super) fn parse(text: &str) -> Self {
        let (comment, tags) = text.rsplit_once(TAGS).map_or((text, None), |(comment, tags)| (comment, Some(tags)));
        let comment: String = comment.trim().chars().take(NewRecord::MAX_COMMENT_CHARS).collect();
        let mut marks = Self { comment: Some(comment).filter(|comment| !comment.is_empty()), ..Self::default() };
        tags.map(split).unwrap_or_default().into_iter().for_each(|tag| marks.take(tag));
        marks
    }

    fn take(&mut self, tag: &str) {
        let (name, value) = tag.split_once(':').map_or((tag, ""), |(name, value)| (name.trim(), value.trim()));
        let place = match name {
            PROXIED => &mut self.proxied,
            FLATTEN => &mut self.settings.flatten_cname,
            IPV4_ONLY => &mut self.settings.ipv4_only,
            IPV6_ONLY => &mut self.settings.ipv6_only,
            // A later version, or the original, may have more.
            _ if tag.starts_with(OURS) => return,
            _ => return self.tags.extend(read(tag)),
        };
        *place = if value.is_empty() { Some(true) } else { value.parse().ok() };
    }

    /// Behind a record's data; nothing, if nothing is noted.
    pub(super) fn of(record: &Record) -> String {
        let notes = record.notes();
        let comment = notes.comment.as_deref().unwrap_or_default();
        // A comment has one line, and no end but that.
        let comment: String = comment.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let mut tags: Vec<String> = notes.tags.iter().map(|tag| write(tag)).collect();
        let settings = [
            (FLATTEN, notes.settings.flatten_cname),
            (IPV4_ONLY, notes.settings.ipv4_only),
            (IPV6_ONLY, notes.settings.ipv6_only),
            (PROXIED, record.content.kind().is_proxiable().then_some(record.proxied)),
        ];
        tags.extend(settings.into_iter().filter_map(|(name, value)| Some(format!("{name}:{}", value?))));
        let mut text = String::new();
        if !comment.trim().is_empty() {
            let _ = write!(text, " ; {}", comment.trim());
        }
        // Where the comment has the word in it, there has to be a later one.
        if !tags.is_empty() || comment.contains(TAGS) {
            let _ = write!(text, "{} {TAGS}{}", if text.is_empty() { " ;" } else { "" }, tags.join(","));
        }
        text
    }
}

/// A tag as it stands in the file.
fn write(tag: &str) -> String {
    let is_plain =
        |text: &str| !text.contains(|letter: char| matches!(letter, '"' | '=' | ',' | '\\') || letter.is_control());
    // So that no tag has the word in it that tags stand behind.
    let json = |text: &str| serde_json::Value::from(text).to_string().replace('=', "\\u003d");
    let is_trim = tag.trim() == tag && !tag.starts_with(OURS);
    match tag.split_once(':') {
        _ if is_trim && is_plain(tag) => tag.to_owned(),
        Some((name, value)) if is_trim && is_plain(name) => format!("{name}:{}", json(value)),
        _ => json(tag),
    }
}

/// A tag as people have it; `None`: it is empty.
fn read(tag: &str) -> Option<String> {
    let json = |text: &str| serde_json::from_str::<String>(text).ok();
    let tag = match (tag.starts_with('"'), tag.split_once(":\"")) {
        (true, _) => json(tag).unwrap_or_else(|| tag.to_owned()),
        (false, Some((name, _))) => {
            let value = &tag[name.len() + 1..];
            json(value).map_or_else(|| tag.to_owned(), |value| format!("{name}:{value}"))
        }
        (false, None) => tag.to_owned(),
    };
    Some(tag).filter(|tag| !tag.is_empty())
}

/// At commas outside of quotes.
fn split(tags: &str) -> Vec<&str> {
    let (mut in_quotes, mut escaped) = (false, false);
    let is_end = |letter: char| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            ',' => return !in_quotes,
            _ => (),
        }
        false
    };
    tags.split(is_end).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_so_that_they_are_read_again() {
        let tags = [
            "plain",
            "team:web",
            "a:b,c",
            "a,b",
            "quote:\"",
            "back\\slash",
            " spaced ",
            "cf-proxied:true",
            "eq:a=b",
            "a:b:c",
            "line:a\nb",
            "name:",
            ":value",
            "ünï:cödé",
            "{\"json\":1}",
            "\"quoted\"",
            "a:\"b\"",
            "cf_tags=x",
        ];
        let line: Vec<String> = tags.iter().map(|tag| write(tag)).collect();
        assert!(!line.iter().any(|tag| tag.contains('\n')), "{line:?}");
        let marks = Marks::parse(&format!(" why cf_tags={}", line.join(",")));
        assert_eq!(marks.tags, tags);
    }

    #[test]
    fn what_others_write_is_read() {
        let marks =
            Marks::parse(" a note; more  cf_tags=cf-proxied:true,env:prod,cf-flatten-cname,empty:\"\",cf-new:1,x");
        assert_eq!((marks.comment.as_deref(), marks.proxied), (Some("a note; more"), Some(true)));
        assert_eq!(
            (&marks.tags[..], marks.settings.flatten_cname),
            (&["env:prod", "empty:", "x"].map(String::from)[..], Some(true))
        );
        for (text, comment, proxied) in [
            ("", None, None),
            (" only this ", Some("only this"), None),
            ("cf_tags=cf-proxied:maybe", None, None),
            ("a cf_tags=b cf_tags=cf-proxied:false", Some("a cf_tags=b"), Some(false)),
            ("cf_tags=\"open", None, None),
        ] {
            let marks = Marks::parse(text);
            assert_eq!((marks.comment.as_deref(), marks.proxied), (comment, proxied), "{text}");
        }
        assert_eq!(Marks::parse(&"x".repeat(600)).comment.unwrap().len(), NewRecord::MAX_COMMENT_CHARS);
    }
}
