use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field::{self, Field, Form};
use super::kind::RecordType;
use super::refusal::{BadRecord, RecordFlaw};
use super::{location, text};
use crate::Hostname;

/// Of one string of a TXT record (RFC 1035, section 3.3).
const STRING_BYTES: usize = 255;

/// The type and the data of a record, in the one form in which they are kept, compared and shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordContent {
    #[serde(rename = "type")]
    kind: RecordType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u16>,
    #[serde(rename = "content")]
    text: Box<str>,
}

impl RecordContent {
    /// Longer data is refused: the longest that people have are TXT records with keys, of less than half of it.
    pub const MAX_BYTES: usize = 4096;

    /// Reads the data of a record as people and tools write it. The priority may stand beside it or, as its first number,
    /// in it. With an origin, host names without a trailing dot are below it, as in zone files.
    ///
    /// # Errors
    /// It is not data of that type.
    pub fn parse(
        kind: RecordType,
        text: &str,
        priority: Option<u16>,
        origin: Option<&Hostname>,
    ) -> Result<Self, BadRecord> {
        if text.len() > Self::MAX_BYTES {
            return Err(bad(kind, format!("at most {} bytes are wanted", Self::MAX_BYTES)));
        }
        let of = |text: String, priority: Option<u16>| Self { kind, priority, text: text.into() };
        match kind {
            RecordType::A => match text.trim().parse::<Ipv4Addr>() {
                Ok(address) => Ok(of(address.to_string(), None)),
                Err(_) => Err(bad(kind, "a valid IPv4 address is wanted, such as 192.0.2.1")),
            },
            RecordType::Aaaa => match text.trim().parse::<Ipv6Addr>() {
                Ok(address) => Ok(of(address.to_string(), None)),
                Err(_) => Err(bad(kind, "a valid IPv6 address is wanted, such as 2001:db8::1")),
            },
            RecordType::Cname | RecordType::Ns | RecordType::Ptr => {
                let host = field::host(text.trim(), origin).map_err(|problem| bad(kind, problem))?;
                Ok(of(host, None))
            }
            RecordType::Mx => {
                let (priority, host) = exchange(text.trim(), priority)?;
                let host = field::host(host, origin).map_err(|problem| bad(kind, problem))?;
                Ok(of(host, Some(priority)))
            }
            RecordType::Txt => {
                check_text(text)?;
                Ok(of(text.to_owned(), None))
            }
            RecordType::Loc => {
                let normal = location::parse(text).map_err(|problem| bad(kind, problem))?;
                Ok(of(normal, None))
            }
            _ => Self::structured(kind, &with_priority(kind, text, priority), origin),
        }
    }

    fn structured(kind: RecordType, text: &str, origin: Option<&Hostname>) -> Result<Self, BadRecord> {
        let mut normal = String::new();
        let mut rest = text;
        for field in field::fields(kind) {
            let (value, after) = field.take(rest, origin).map_err(|problem| bad_field(kind, *field, problem))?;
            push(&mut normal, &value);
            rest = after;
        }
        if !rest.trim().is_empty() {
            return Err(bad(kind, format!("it goes on behind its end, with {:?}", rest.trim())));
        }
        Self::checked(kind, normal)
    }

    /// Reads the data of a record member by member. Members that it has not are passed over.
    ///
    /// # Errors
    /// A member is missing, or not what it should be.
    pub fn from_data(kind: RecordType, data: &Map<String, Value>, priority: Option<u16>) -> Result<Self, BadRecord> {
        if kind == RecordType::Loc {
            let text = location::of_json(data).map_err(|problem| bad(kind, problem))?;
            return Ok(Self { kind, priority: None, text: text.into() });
        }
        let fields = field::fields(kind);
        if fields.is_empty() {
            // Some clients put the little that plain types have into an object, too.
            let content = data.get("content").or_else(|| data.get("target")).or_else(|| data.get("value"));
            let content = content.and_then(Value::as_str);
            let content = content.ok_or_else(|| bad(kind, "content is wanted; records of this type have no data"))?;
            return Self::parse(kind, content, priority, None);
        }
        let mut normal = String::new();
        for field in fields {
            let given = data.get(field.name).filter(|value| !value.is_null());
            let value = match (given, field.name, field.form) {
                (Some(value), ..) => field.of_json(value),
                (None, "priority", _) => priority.map(|priority| Cow::Owned(priority.to_string())),
                (None, _, Form::Parameters) => Some(Cow::Borrowed("")),
                (None, ..) => None,
            };
            let value = value.ok_or_else(|| bad_field(kind, *field, "is missing, or no text or number".to_owned()))?;
            let value = field.normal(&value, None).map_err(|problem| bad_field(kind, *field, problem))?;
            push(&mut normal, &value);
        }
        if normal.len() > Self::MAX_BYTES {
            return Err(bad(kind, format!("at most {} bytes are wanted", Self::MAX_BYTES)));
        }
        Self::checked(kind, normal)
    }

    /// What follows from several members together.
    fn checked(kind: RecordType, text: String) -> Result<Self, BadRecord> {
        let content = Self { kind, priority: None, text: text.into() };
        let words: Vec<&str> = content.text.split(' ').collect();
        let digits = match (kind, &words[..]) {
            (RecordType::Tlsa | RecordType::Smimea, [_, _, "1", digest]) => Some((64, *digest)),
            (RecordType::Tlsa | RecordType::Smimea, [_, _, "2", digest]) => Some((128, *digest)),
            (RecordType::Ds, [_, _, "1", digest]) => Some((40, *digest)),
            (RecordType::Ds, [_, _, "2", digest]) => Some((64, *digest)),
            (RecordType::Ds, [_, _, "4", digest]) => Some((96, *digest)),
            (RecordType::Sshfp, [_, "1", print]) => Some((40, *print)),
            (RecordType::Sshfp, [_, "2", print]) => Some((64, *print)),
            _ => None,
        };
        match digits {
            Some((wanted, found)) if found.len() != wanted => {
                Err(bad(kind, format!("a digest of that type has {wanted} hexadecimal digits, not {}", found.len())))
            }
            _ => Ok(content),
        }
    }

    /// Its type.
    pub fn kind(&self) -> RecordType {
        self.kind
    }

    /// The data as text: that of RFC 1035 and its successors with host names in full and without trailing dots; that of TXT
    /// as it was given, that of MX without the priority.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same as clients of the API read it: those of types whose data they take for that of a zone file have the dot behind a host
    /// name.
    pub fn shown(&self) -> Cow<'_, str> {
        if self.has_dots() { Cow::Owned(self.to_rdata()) } else { Cow::Borrowed(&self.text) }
    }

    /// Whether clients read host names in it with their trailing dot, as octoDNS does.
    fn has_dots(&self) -> bool {
        matches!(self.kind, RecordType::Naptr | RecordType::Https | RecordType::Svcb)
    }

    /// The number by which several records of one service are ordered, where there is one.
    pub fn priority(&self) -> Option<u16> {
        match field::fields(self.kind).first() {
            Some(first) if first.name == "priority" => self.text.split(' ').next()?.parse().ok(),
            _ => self.priority,
        }
    }

    /// With another priority.
    ///
    /// # Errors
    /// Records of this type have none.
    pub fn with_priority(&self, priority: u16) -> Result<Self, BadRecord> {
        match (self.kind, field::fields(self.kind).first()) {
            (RecordType::Mx, _) => Ok(Self { priority: Some(priority), ..self.clone() }),
            (_, Some(first)) if first.name == "priority" => {
                let rest = self.text.split_once(' ').map_or("", |(_, rest)| rest);
                Ok(Self { text: format!("{priority} {rest}").trim_end().into(), ..self.clone() })
            }
            // Tools send one with every type.
            _ => Ok(self.clone()),
        }
    }

    /// The data member by member, as clients of the API read it; `None` for types whose data is one text.
    pub fn data(&self) -> Option<Map<String, Value>> {
        if self.kind == RecordType::Loc {
            return Some(location::to_json(&self.text));
        }
        let fields = field::fields(self.kind);
        let mut rest = &*self.text;
        let mut data = Map::new();
        for field in fields {
            let (value, after) = field.take(rest, None).ok()?;
            let value = if field.form == Form::Host && self.has_dots() { dotted(&value) } else { value };
            data.insert(field.name.to_owned(), field.to_json(&value));
            rest = after;
        }
        (!fields.is_empty()).then_some(data)
    }

    /// The data as zone files have it: the priority in it, host names with a trailing dot, text in quotes.
    pub fn to_rdata(&self) -> String {
        match self.kind {
            RecordType::A | RecordType::Aaaa | RecordType::Loc => self.text.to_string(),
            RecordType::Cname | RecordType::Ns | RecordType::Ptr => dotted(&self.text),
            RecordType::Mx => format!("{} {}", self.priority.unwrap_or_default(), dotted(&self.text)),
            RecordType::Txt if is_quoted(&self.text) => self.text.to_string(),
            RecordType::Txt => strings(&self.text),
            _ => {
                let mut rdata = String::new();
                let mut rest = &*self.text;
                for field in field::fields(self.kind) {
                    let Ok((value, after)) = field.take(rest, None) else { break };
                    push(&mut rdata, &if field.form == Form::Host { dotted(&value) } else { value });
                    rest = after;
                }
                rdata
            }
        }
    }

    /// Whether DNS would take both for the same record.
    pub fn is_same(&self, other: &Self) -> bool {
        if self.kind != other.kind || self.priority != other.priority {
            return false;
        }
        match self.kind {
            RecordType::Txt => self.text == other.text || self.bare_text() == other.bare_text(),
            // Parameters may stand in quotes, and need not.
            RecordType::Https | RecordType::Svcb => {
                self.text == other.text || self.to_wire().is_some_and(|wire| other.to_wire() == Some(wire))
            }
            RecordType::Ds | RecordType::Tlsa | RecordType::Smimea | RecordType::Sshfp => {
                self.text.eq_ignore_ascii_case(&other.text)
            }
            _ => self.text == other.text,
        }
    }

    /// The text for comparisons: of TXT without the outer quotes, and with adjacent strings joined.
    pub fn bare_text(&self) -> Cow<'_, str> {
        match self.kind {
            RecordType::Txt => bare(&self.text),
            _ => Cow::Borrowed(&self.text),
        }
    }

    /// The same in lower case, by which records are looked up.
    pub fn folded_text(&self) -> Cow<'_, str> {
        match self.bare_text() {
            text if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) => text,
            text => Cow::Owned(text.to_lowercase()),
        }
    }
}

/// A host name in full as zone files have it.
fn dotted(host: &str) -> String {
    if host == "." { host.to_owned() } else { format!("{host}.") }
}

/// Whether a text is one or more strings in quotes, and nothing else.
fn is_quoted(text: &str) -> bool {
    text.starts_with('"')
        && text::words(text).is_ok_and(|words| words.iter().all(|word| word.quoted && word.text.len() <= STRING_BYTES))
}

/// A text as strings in quotes, none longer than DNS takes.
fn strings(text: &str) -> String {
    let mut strings = String::new();
    let mut rest = &*bare(text);
    while !rest.is_empty() {
        let end = (0..=STRING_BYTES.min(rest.len())).rev().find(|end| rest.is_char_boundary(*end)).unwrap_or_default();
        let (string, after) = rest.split_at(end);
        push(&mut strings, &text::quoted(string));
        rest = after;
    }
    strings
}

/// A text without its outer quotes, and with adjacent strings joined.
pub fn bare(text: &str) -> Cow<'_, str> {
    if !text.starts_with('"') {
        return Cow::Borrowed(text);
    }
    match text::words(text) {
        Ok(words) if words.iter().all(|word| word.quoted) => {
            Cow::Owned(words.into_iter().map(|word| word.text).collect())
        }
        _ => Cow::Borrowed(text),
    }
}

fn check_text(text: &str) -> Result<(), BadRecord> {
    if text.is_empty() {
        return Err(bad(RecordType::Txt, "a text is wanted"));
    }
    if text.chars().any(|character| character.is_control() && character != '\t') {
        return Err(bad(RecordType::Txt, "control characters are not allowed"));
    }
    Ok(())
}

/// Priority and host of an MX record.
fn exchange(text: &str, priority: Option<u16>) -> Result<(u16, &str), BadRecord> {
    let in_text = text.split_once([' ', '\t']).and_then(|(first, host)| Some((first.parse().ok()?, host.trim())));
    match (in_text, priority) {
        (Some((found, host)), None) => Ok((found, host)),
        (Some((found, host)), Some(beside)) if found == beside => Ok((found, host)),
        (_, Some(priority)) => Ok((priority, text)),
        (None, None) => Err(BadRecord::new(RecordFlaw::Data, "priority: MX records need one, from 0 to 65535")),
    }
}

/// The content with the priority in front, where it stands beside it and the content lacks it.
fn with_priority(kind: RecordType, text: &str, priority: Option<u16>) -> Cow<'_, str> {
    let words = || text::words(text).map_or(0, |words| words.len());
    match (kind, priority) {
        (RecordType::Srv, Some(priority)) if words() == 3 => Cow::Owned(format!("{priority} {text}")),
        (RecordType::Uri, Some(priority)) if words() == 2 => Cow::Owned(format!("{priority} {text}")),
        _ => Cow::Borrowed(text),
    }
}

fn push(content: &mut String, value: &str) {
    if !content.is_empty() && !value.is_empty() {
        content.push(' ');
    }
    content.push_str(value);
}

fn bad(kind: RecordType, problem: impl std::fmt::Display) -> BadRecord {
    BadRecord::new(RecordFlaw::Content(kind), format!("content of a record of type {kind}: {problem}"))
}

fn bad_field(kind: RecordType, field: Field, problem: String) -> BadRecord {
    BadRecord::new(RecordFlaw::Data, format!("data.{} of a record of type {kind}: {problem}", field.name))
}
