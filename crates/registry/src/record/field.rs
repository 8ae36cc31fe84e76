//! What the data of a structured record consists of: which members, in which order, each of which form. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

use super::kind::RecordType;
use super::text;
use crate::Hostname;

/// A member of a record's data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// In JSON.
    pub(super) name: &'static str,
    pub(super) form: Form,
}

/// How a member looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A whole number up to this one.
    Number(u32),
    /// A host name, or `.`.
    Host,
    /// Letters and digits.
    Tag,
    /// Text of any length, in quotes.
    Text,
    /// Text of at most 255 bytes, in quotes (RFC 1035, section 3.3).
    ShortText,
    /// Bytes in hexadecimal: all words to the end.
    Hex,
    /// Bytes in base64: all words to the end.
    Base64,
    /// The parameters of RFC 9460, section 2.1: everything to the end, or nothing.
    Parameters,
}

const BYTE: Form = Form::Number(u8::MAX as u32);
const SHORT: Form = Form::Number(u16::MAX as u32);

const fn field(name: &'static str, form: Form) -> Field {
    Field { name, form }
}

const CAA: &[Field] = &[field("flags", BYTE), field("tag", Form::Tag), field("value", Form::Text)];
const CERT: &[Field] =
    &[field("type", SHORT), field("key_tag", SHORT), field("algorithm", BYTE), field("certificate", Form::Base64)];
const DNSKEY: &[Field] =
    &[field("flags", SHORT), field("protocol", BYTE), field("algorithm", BYTE), field("public_key", Form::Base64)];
const DS: &[Field] =
    &[field("key_tag", SHORT), field("algorithm", BYTE), field("digest_type", BYTE), field("digest", Form::Hex)];
const SERVICE: &[Field] = &[field("priority", SHORT), field("target", Form::Host), field("value", Form::Parameters)];
const NAPTR: &[Field] = &[
    field("order", SHORT),
    field("preference", SHORT),
    field("flags", Form::ShortText),
    field("service", Form::ShortText),
    field("regex", Form::ShortText),
    field("replacement", Form::Host),
];
const OPENPGPKEY: &[Field] = &[field("public_key", Form::Base64)];
const SRV: &[Field] =
    &[field("priority", SHORT), field("weight", SHORT), field("port", SHORT), field("target", Form::Host)];
const SSHFP: &[Field] = &[field("algorithm", BYTE), field("type", BYTE), field("fingerprint", Form::Hex)];
const TLSA: &[Field] =
    &[field("usage", BYTE), field("selector", BYTE), field("matching_type", BYTE), field("certificate", Form::Hex)];
const URI: &[Field] = &[field("priority", SHORT), field("weight", SHORT), field("target", Form::Text)];

/// The members of this type's data; none if it is not structured, or (LOC) has rules of its own.
pub(super) fn fields(kind: RecordType) -> &'static [Field] {
    match kind {
        RecordType::Caa => CAA,
        RecordType::Cert => CERT,
        RecordType::Dnskey => DNSKEY,
        RecordType::Ds => DS,
        RecordType::Https | RecordType::Svcb => SERVICE,
        RecordType::Naptr => NAPTR,
        RecordType::Openpgpkey => OPENPGPKEY,
        RecordType::Smimea | RecordType::Tlsa => TLSA,
        RecordType::Srv => SRV,
        RecordType::Sshfp => SSHFP,
        RecordType::Uri => URI,
        RecordType::A
        | RecordType::Aaaa
        | RecordType::Cname
        | RecordType::Loc
        | RecordType::Mx
        | RecordType::Ns
        | RecordType::Ptr
        | RecordType::Txt => &[],
    }
}

impl Field {
    /// Takes this member from the front of a text, and answers its one form and what follows.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take<'a>(self, text: &'a str, origin: Option<&Hostname>) -> Result<(String, &'a str), String> {
        let text = text.trim_start();
        match self.form {
            Form::Hex | Form::Base64 => {
                let joined: String = text.split_ascii_whitespace().collect();
                Ok((self.normal(&joined, origin)?, ""))
            }
            Form::Parameters => Ok((self.normal(text, origin)?, "")),
            _ if text.is_empty() => Err("is missing".to_owned()),
            _ => {
                let (word, rest) = text::word(text)?;
                Ok((self.normal(&word.text, origin)?, rest))
            }
        }
    }

    /// The one form of a value, as it stands in a record's content.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn normal(self, value: &str, origin: Option<&Hostname>) -> Result<String, String> {
        match self.form {
            Form::Number(most) => {
                let number = value.parse::<u32>().ok().filter(|number| *number <= most);
                number.map(|number| number.to_string()).ok_or_else(|| format!("a number from 0 to {most} is wanted"))
            }
            Form::Host => host(value, origin),
            Form::Tag if is_tag(value) => Ok(value.to_ascii_lowercase()),
            Form::Tag => Err("a word of letters and digits is wanted".to_owned()),
            Form::Text => text_of(value, usize::MAX),
            Form::ShortText => text_of(value, 255),
            Form::Hex => {
                let is_hex = !value.is_empty() && value.len().is_multiple_of(2);
                let is_hex = is_hex && value.bytes().all(|byte| byte.is_ascii_hexdigit());
                if is_hex { Ok(value.to_owned()) } else { Err("pairs of hexadecimal digits are wanted".to_owned()) }
            }
            Form::Base64 if value.is_empty() => Err("base64 text is wanted".to_owned()),
            Form::Base64 => {
                STANDARD.decode(value).map(|_| value.to_owned()).map_err(|_| "base64 text is wanted".to_owned())
            }
            Form::Parameters => parameters(value),
        }
    }

    /// A normal value as JSON has it.
    pub(super) fn to_json(self, normal: &str) -> Value {
        match self.form {
            Form::Number(_) => normal.parse::<u32>().map_or(Value::Null, |number| Value::Number(Number::from(number))),
            Form::Text | Form::ShortText => match text::word(normal) {
                Ok((word, _)) => Value::String(word.text),
                Err(_) => Value::String(normal.to_owned()),
            },
            Form::Host | Form::Tag | Form::Hex | Form::Base64 | Form::Parameters => Value::String(normal.to_owned()),
        }
    }

    /// A value of JSON as text: numbers may be text, and whole ones may have a fraction of zeros. Text that stands in quotes
    /// although it need not, loses them.
    pub(super) fn of_json(self, value: &Value) -> Option<Cow<'_, str>> {
        let text = match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Number(number) => Cow::Owned(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        Some(match (self.form, text) {
            (Form::Number(_), Cow::Borrowed(text)) => Cow::Borrowed(without_fraction(text.trim())),
            (Form::Number(_), Cow::Owned(text)) => Cow::Owned(without_fraction(&text).to_owned()),
            (Form::Text | Form::ShortText, text) if text.len() >= 2 && text.starts_with('"') && text.ends_with('"') => {
                match text::words(&text).as_deref() {
                    Ok([word]) => Cow::Owned(word.text.clone()),
                    _ => text,
                }
            }
            (_, text) => text,
        })
    }
}

fn without_fraction(number: &str) -> &str {
    match number.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
        _ => number,
    }
}

fn is_tag(value: &str) -> bool {
    (1..=15).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn text_of(value: &str, most: usize) -> Result<String, String> {
    if value.len() > most {
        return Err(format!("at most {most} bytes are wanted"));
    }
    if value.chars().any(char::is_control) {
        return Err("control characters are not allowed".to_owned());
    }
    Ok(text::quoted(value))
}

/// A host name as a record's data has it: no trailing dot; `.` alone is the root. With an origin, names without a trailing
/// dot are below it, as in zone files.
pub(super) fn host(text: &str, origin: Option<&Hostname>) -> Result<String, String> {
    if text == "." {
        return Ok(text.to_owned());
    }
    let whole = match origin {
        Some(origin) if text == "@" => Cow::Borrowed(origin.as_str()),
        Some(origin) if !text.ends_with('.') => Cow::Owned(format!("{text}.{origin}")),
        _ => Cow::Borrowed(text),
    };
    let name = Hostname::parse(&whole).map_err(|problem| problem.to_string())?;
    if name.wildcard_parent().is_some() {
        return Err("a wildcard is not a host name here".to_owned());
    }
    Ok(name.into())
}

/// Parameters with one space between them, each key once.
fn parameters(text: &str) -> Result<String, String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut normal = String::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (parameter, after) = parameter(rest)?;
        let (key, value) = parameter.split_once('=').map_or((parameter, None), |(key, value)| (key, Some(value)));
        let is_key = !key.is_empty()
            && key.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && key.len() <= 63;
        if !is_key {
            return Err("parameters are wanted, such as alpn=\"h3,h2\" ipv4hint=192.0.2.1".to_owned());
        }
        if seen.contains(&key) {
            return Err(format!("the parameter {key} is there twice"));
        }
        check_parameter(key, value.map(|value| value.trim_matches('"')))?;
        seen.push(key);
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(parameter);
        rest = after.trim_start();
    }
    Ok(normal)
}

/// The parameters of a normal value, with their quotes.
pub(super) fn split_parameters(normal: &str) -> impl Iterator<Item = &str> {
    let mut rest = normal;
    std::iter::from_fn(move || {
        let (first, after) = parameter(rest).ok().filter(|(first, _)| !first.is_empty())?;
        rest = after.trim_start();
        Some(first)
    })
}

/// What zone files could not tell from something else.
const MISPLACED: &str = "quotes stand around a whole value only, and ; ( ) within quotes";

/// The first parameter of a text, quotes included.
fn parameter(text: &str) -> Result<(&str, &str), String> {
    let mut in_quotes = false;
    let mut escaped = false;
    let mut is_closed = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if !is_closed => escaped = true,
            '"' if in_quotes => (in_quotes, is_closed) = (false, true),
            '"' if text[..at].ends_with('=') && !is_closed => in_quotes = true,
            ' ' | '\t' if !in_quotes => return Ok((&text[..at], &text[at..])),
            '"' | ';' | '(' | ')' if !in_quotes => return Err(MISPLACED.to_owned()),
            _ if is_closed => return Err(MISPLACED.to_owned()),
            control if control.is_control() => return Err("control characters are not allowed".to_owned()),
            _ => (),
        }
    }
    if in_quotes || escaped {
        return Err("a quote (\") is not closed".to_owned());
    }
    Ok((text, ""))
}

/// Those keys whose values have a form that everybody knows (RFC 9460, section 7).
fn check_parameter(key: &str, value: Option<&str>) -> Result<(), String> {
    let all = |check: fn(&str) -> bool| value.is_some_and(|value| value.split(',').all(check));
    let (fits, wanted) = match key {
        "alpn" | "mandatory" => (all(|item| !item.is_empty()), "a list of words with commas"),
        "port" => (value.is_some_and(|value| value.parse::<u16>().is_ok()), "a port"),
        "ipv4hint" => (all(|item| item.parse::<std::net::Ipv4Addr>().is_ok()), "IPv4 addresses with commas"),
        "ipv6hint" => (all(|item| item.parse::<std::net::Ipv6Addr>().is_ok()), "IPv6 addresses with commas"),
        "no-default-alpn" => (value.is_none(), "no value"),
        _ => (true, ""),
    };
    if fits { Ok(()) } else { Err(format!("{key}: {wanted} is wanted")) }
}
