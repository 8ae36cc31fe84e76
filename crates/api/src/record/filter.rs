//! Which records of a zone are wanted, and in which order.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use registry::{Hostname, Record, RecordSet, RecordType, Snapshot, Versioned, Zone};

use crate::error::ApiError;
use crate::query::Query;

/// The conditions of a list.
pub(super) struct Filter {
    conditions: Vec<Condition>,
    /// One condition is enough.
    any: bool,
    order: Option<Order>,
    pub(super) is_descending: bool,
}

enum Condition {
    Type(Option<RecordType>),
    Text(Subject, Test, String),
    Proxied(bool),
    HasComment(bool),
    /// Whether a tag of that name must be there or must not.
    HasTag(String, bool),
    Search(String),
    /// One or all of them.
    Tags(Vec<Self>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Name,
    Content,
    Comment,
    Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Exact,
    Contains,
    StartsWith,
    EndsWith,
}

/// A record with those of its name.
pub(super) type Found<'a> = (&'a RecordSet, &'a Record);

#[derive(Debug, Clone, Copy)]
enum Order {
    /// By the whole name.
    Name,
    By(Column),
}

#[derive(Debug, Clone, Copy)]
enum Column {
    Type,
    Content,
    Ttl,
    Proxied,
}

/// A text condition's ending in the query.
const TESTS: [(&str, Test); 4] = [
    (".exact", Test::Exact),
    (".contains", Test::Contains),
    (".startswith", Test::StartsWith),
    (".endswith", Test::EndsWith),
];

impl Filter {
    pub(super) fn read(query: &Query) -> Result<Self, ApiError> {
        let mut conditions = Vec::new();
        // A type that there is not simply matches nothing.
        conditions.extend(query.one("type").map(|kind| Condition::Type(kind.parse().ok())));
        for (name, subject) in [("name", Subject::Name), ("content", Subject::Content), ("comment", Subject::Comment)] {
            text_conditions(query, name, subject, &mut conditions);
        }
        conditions.extend(query.parsed("proxied")?.map(Condition::Proxied));
        // Whatever stands behind them, or nothing.
        conditions.extend(query.has("comment.present").then_some(Condition::HasComment(true)));
        conditions.extend(query.has("comment.absent").then_some(Condition::HasComment(false)));
        conditions.extend(query.one("search").map(|text| Condition::Search(text.to_lowercase())));
        let mut tags = Vec::new();
        text_conditions(query, "tag", Subject::Tag, &mut tags);
        let named = |name: &str| query.one(name).map(str::to_lowercase);
        tags.extend(named("tag.present").map(|tag| Condition::HasTag(tag, true)));
        tags.extend(named("tag.absent").map(|tag| Condition::HasTag(tag, false)));
        if !tags.is_empty() {
            conditions.push(Condition::Tags(tags, query.one("tag_match") == Some("any")));
        }
        let order = match query.one("order") {
            Some("type") => Some(Order::By(Column::Type)),
            Some("name") => Some(Order::Name),
            Some("content") => Some(Order::By(Column::Content)),
            Some("ttl") => Some(Order::By(Column::Ttl)),
            Some("proxied") => Some(Order::By(Column::Proxied)),
            Some(_) | None => None,
        };
        let is_descending = query.one("direction") == Some("desc");
        Ok(Self { conditions, any: query.one("match") == Some("any"), order, is_descending })
    }

    /// Whether every record is wanted, in the order in which they were made.
    pub(super) fn takes_all(&self) -> bool {
        self.conditions.is_empty() && self.order.is_none()
    }

    /// Whether finding them takes no time however many there are. A content may be that of all of them.
    pub(super) fn is_quick(&self) -> bool {
        self.takes_all() || self.exact_name().is_some()
    }

    /// The one name that can be meant.
    fn exact_name(&self) -> Option<&String> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Text(Subject::Name, Test::Exact, name) if !self.any => Some(name),
            _ => None,
        })
    }

    /// The one content that can be meant.
    fn exact_content(&self) -> Option<&String> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Text(Subject::Content, Test::Exact, content) if !self.any => Some(content),
            _ => None,
        })
    }

    /// The records that are wanted, in order.
    pub(super) fn find<'a>(&self, snapshot: &'a Snapshot, zone: &Zone) -> Vec<Found<'a>> {
        let mut found: Vec<Found<'a>> = match (self.exact_name(), self.exact_content()) {
            (Some(name), _) => {
                let set = snapshot.records_named(zone, name).into_iter();
                self.among(set.flat_map(|set| set.records.iter().map(move |record| (set, record))), zone)
            }
            (None, Some(content)) => self.among(snapshot.records_with_content(zone.id, content), zone),
            (None, None) => self.among(snapshot.records(zone.id), zone),
        };
        match self.order {
            Some(Order::Name) => found.sort_by_cached_key(|(set, _)| set.name(&zone.name)),
            Some(Order::By(column)) => found.sort_by(|(_, one), (_, other)| compare(column, one, other)),
            None => (),
        }
        if self.is_descending {
            found.reverse();
        }
        found
    }

    fn among<'a>(
        &self,
        records: impl Iterator<Item = (&'a Arc<Versioned<RecordSet>>, &'a Record)>,
        zone: &Zone,
    ) -> Vec<Found<'a>> {
        // One for all names: there may be a hundred thousand.
        let mut name = String::new();
        let records = records.map(|(set, record)| (&set.value, record));
        records
            .filter(|(set, record)| {
                set.write_name(&zone.name, &mut name);
                self.takes(&name, record)
            })
            .collect()
    }

    fn takes(&self, name: &str, record: &Record) -> bool {
        let mut verdicts = self.conditions.iter().map(|condition| condition.takes(name, record));
        if self.any && !self.conditions.is_empty() { verdicts.any(|taken| taken) } else { verdicts.all(|taken| taken) }
    }
}

fn text_conditions(query: &Query, name: &str, subject: Subject, conditions: &mut Vec<Condition>) {
    let wanted = |text: &str| match subject {
        // A name in the one form that names have; anything else is taken as it is.
        Subject::Name => Hostname::parse(text).map_or_else(|_| text.to_lowercase(), String::from),
        Subject::Content => bare(text.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(text)).to_lowercase(),
        Subject::Comment | Subject::Tag => text.to_lowercase(),
    };
    conditions.extend(query.one(name).map(|text| Condition::Text(subject, Test::Exact, wanted(text))));
    for (ending, test) in TESTS {
        let text = query.one(&format!("{name}{ending}"));
        let wanted = |text: &str| if test == Test::Exact { wanted(text) } else { text.to_lowercase() };
        conditions.extend(text.map(|text| Condition::Text(subject, test, wanted(text))));
    }
}

/// As contents of TXT records are compared.
fn bare(text: &str) -> Cow<'_, str> {
    registry::bare_text(text)
}

impl Condition {
    fn takes(&self, name: &str, record: &Record) -> bool {
        let notes = record.notes.as_deref();
        match self {
            Self::Type(kind) => *kind == Some(record.content.kind()),
            Self::Text(Subject::Name, test, wanted) => test.takes(name, wanted),
            Self::Text(Subject::Content, test, wanted) => test.takes(&record.content.bare_text(), wanted),
            Self::Text(Subject::Comment, test, wanted) => {
                notes.and_then(|notes| notes.comment.as_deref()).is_some_and(|comment| test.takes(comment, wanted))
            }
            Self::Text(Subject::Tag, test, wanted) => {
                notes.is_some_and(|notes| notes.tags.iter().any(|tag| test.takes(tag, wanted)))
            }
            Self::Proxied(wanted) => record.proxied == *wanted,
            Self::HasComment(wanted) => notes.is_some_and(|notes| notes.comment.is_some()) == *wanted,
            Self::HasTag(name, wanted) => {
                let is_named = |tag: &str| tag.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
                notes.is_some_and(|notes| notes.tags.iter().any(|tag| is_named(tag))) == *wanted
            }
            Self::Search(wanted) => {
                let comment = notes.and_then(|notes| notes.comment.as_deref()).unwrap_or_default();
                let texts = [name, record.content.text(), comment, record.content.kind().name()];
                texts.iter().any(|text| Test::Contains.takes(text, wanted))
                    || notes.is_some_and(|notes| notes.tags.iter().any(|tag| Test::Contains.takes(tag, wanted)))
            }
            Self::Tags(conditions, any) => {
                let mut verdicts = conditions.iter().map(|condition| condition.takes(name, record));
                if *any { verdicts.any(|taken| taken) } else { verdicts.all(|taken| taken) }
            }
        }
    }
}

impl Test {
    /// `wanted` is in lower case.
    fn takes(self, text: &str, wanted: &str) -> bool {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii());
        let text = if is_lower { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) };
        match self {
            Self::Exact => *text == *wanted,
            Self::Contains => text.contains(wanted),
            Self::StartsWith => text.starts_with(wanted),
            Self::EndsWith => text.ends_with(wanted),
        }
    }
}

fn compare(column: Column, one: &Record, other: &Record) -> Ordering {
    match column {
        Column::Type => one.content.kind().name().cmp(other.content.kind().name()),
        Column::Content => one.content.text().cmp(other.content.text()),
        Column::Ttl => one.ttl.cmp(&other.ttl),
        Column::Proxied => one.proxied.cmp(&other.proxied),
    }
}
