//! What a document may have in it, as tables by which one reader goes. Pure.
//!
//! What is read has one form: members that are not in the table are dropped, those that are absent or `null` are as is
//! usual, and names, numbers and ids are written in one way. So reading what was read changes nothing.

mod schema;

use serde_json::{Number, Value};
use uuid::Uuid;

use super::Members;
use crate::balance::number::whole;
use crate::{BadTerms, Hostname};

/// A member of an object.
pub(super) struct Member {
    name: &'static str,
    form: Form,
    absent: Absent,
}

/// What a member that is absent, or `null`, is taken for.
#[derive(Clone, Copy)]
enum Absent {
    Refused,
    LeftOut,
    Flag(bool),
    Text(&'static str),
    Number(u32),
    /// The object that an empty one is read as.
    Object,
    List,
}

/// What a value has to be.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// True or false.
    Flag,
    /// A text of at most this many characters, none of them a control but for those of lines.
    Text(usize),
    /// The same, and not empty.
    Word(usize),
    /// A host name, kept in the form in which names are compared.
    Hostname,
    /// A whole number from the first to the second, also as `60.0` or `"60"`.
    Whole(u32, u32),
    /// One of these.
    Choice(&'static [&'static str]),
    /// An id with dashes.
    Uuid,
    /// A list, with this many items at least and at most.
    List(&'static Self, usize, usize),
    /// An object with these members.
    Object(&'static [Member]),
    /// An object whose members, at most so many, are all of this form.
    Map(&'static Self, usize),
    /// Any object; written as text it has at most this many bytes.
    Free(usize),
    /// What this makes of it.
    Own(Shape, fn(&Value) -> Result<Value, String>),
}

/// What a value looks like of which more is to be said than [`Form`] can.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Text,
    TextOrNumber,
    /// Nothing will do.
    Nothing,
}

/// A member that must be there.
pub(super) const fn must(name: &'static str, form: Form) -> Member {
    Member { name, form, absent: Absent::Refused }
}

/// A member that need not be there.
pub(super) const fn may(name: &'static str, form: Form) -> Member {
    Member { name, form, absent: Absent::LeftOut }
}

/// True or false.
pub(super) const fn flag(name: &'static str, usual: bool) -> Member {
    Member { name, form: Form::Flag, absent: Absent::Flag(usual) }
}

/// A text that is usually this.
pub(super) const fn text(name: &'static str, form: Form, usual: &'static str) -> Member {
    Member { name, form, absent: Absent::Text(usual) }
}

/// A number that is usually this.
pub(super) const fn number(name: &'static str, form: Form, usual: u32) -> Member {
    Member { name, form, absent: Absent::Number(usual) }
}

/// An object that is there, also if nothing was said.
pub(super) const fn object(name: &'static str, members: &'static [Member]) -> Member {
    Member { name, form: Form::Object(members), absent: Absent::Object }
}

/// A list of at most so many, empty if nothing was said.
pub(super) const fn list(name: &'static str, of: &'static Form, most: usize) -> Member {
    Member { name, form: Form::List(of, 0, most), absent: Absent::List }
}

/// Of a key that somebody makes up.
const MAX_KEY_CHARS: usize = 200;

pub(super) use schema::of as schema;

/// What is wrong, and where.
struct Flaw {
    place: String,
    problem: String,
}

impl Flaw {
    fn new(problem: impl Into<String>) -> Self {
        Self { place: String::new(), problem: problem.into() }
    }

    fn within(self, name: &str) -> Self {
        let separator = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        Self { place: format!("{name}{separator}{}", self.place), ..self }
    }
}

/// Reads a document.
///
/// # Errors
/// Something in it will not do: the message says where and what would be right.
pub(super) fn read(members: &'static [Member], given: &Members) -> Result<Members, BadTerms> {
    read_members(members, given).map_err(|Flaw { place, problem }| BadTerms::new(format_args!("{place}: {problem}")))
}

fn read_members(members: &'static [Member], given: &Members) -> Result<Members, Flaw> {
    let mut read = Members::new();
    for Member { name, form, absent } in members {
        let value = match (given.get(*name).filter(|value| !value.is_null()), *absent) {
            (Some(value), _) => form.read(value).map_err(|flaw| flaw.within(name))?,
            (None, Absent::Refused) => {
                return Err(Flaw::new(format!("it is missing; {} is wanted", form.wanted())).within(name));
            }
            (None, Absent::LeftOut) => continue,
            (None, Absent::Flag(usual)) => Value::from(usual),
            (None, Absent::Text(usual)) => Value::from(usual),
            (None, Absent::Number(usual)) => Value::from(usual),
            (None, Absent::Object) => form.read(&Value::Object(Members::new())).map_err(|flaw| flaw.within(name))?,
            (None, Absent::List) => Value::Array(Vec::new()),
        };
        read.insert((*name).to_owned(), value);
    }
    Ok(read)
}

impl Form {
    fn read(&self, value: &Value) -> Result<Value, Flaw> {
        let is = |fits: bool| fits.then(|| value.clone());
        let read = match self {
            Self::Flag => is(value.is_boolean()),
            Self::Text(most) => is(value.as_str().is_some_and(|text| is_text(text, *most))),
            Self::Word(most) => is(value.as_str().is_some_and(|text| !text.trim().is_empty() && is_text(text, *most))),
            Self::Hostname => {
                let text = value.as_str().ok_or_else(|| self.flaw())?;
                let name = Hostname::parse(text).map_err(|problem| Flaw::new(problem.to_string()))?;
                Some(Value::from(name.as_str()))
            }
            Self::Whole(least, most) => {
                let number = whole::<u32, _>(value).ok().filter(|number| (least..=most).contains(&number));
                number.map(|number| Value::Number(Number::from(number)))
            }
            Self::Choice(choices) => is(value.as_str().is_some_and(|text| choices.contains(&text))),
            Self::Uuid => {
                let text = value.as_str().filter(|text| text.len() == 36);
                text.and_then(|text| Uuid::try_parse(text).ok()).map(|id| Value::from(id.to_string()))
            }
            Self::List(of, least, most) => {
                let items = value.as_array().filter(|items| (*least..=*most).contains(&items.len()));
                let item = |(index, item)| of.read(item).map_err(|flaw| flaw.within(&format!("[{index}]")));
                let items = items.ok_or_else(|| self.flaw())?.iter().enumerate().map(item);
                Some(Value::Array(items.collect::<Result<_, _>>()?))
            }
            Self::Object(members) => {
                let given = value.as_object().ok_or_else(|| self.flaw())?;
                Some(Value::Object(read_members(members, given)?))
            }
            Self::Map(of, most) => {
                let given = value.as_object().filter(|given| given.len() <= *most).ok_or_else(|| self.flaw())?;
                let mut read = Members::new();
                for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                    if key.is_empty() || !is_text(key, MAX_KEY_CHARS) {
                        return Err(Flaw::new(format!("names of 1 to {MAX_KEY_CHARS} characters are wanted")));
                    }
                    read.insert(key.clone(), of.read(value).map_err(|flaw| flaw.within(key))?);
                }
                Some(Value::Object(read))
            }
            Self::Free(most) => is(value.is_object() && value.to_string().len() <= *most).map(settled),
            Self::Own(_, read) => Some(read(value).map_err(Flaw::new)?),
        };
        read.ok_or_else(|| self.flaw())
    }

    fn flaw(&self) -> Flaw {
        Flaw::new(format!("{} is wanted", self.wanted()))
    }

    /// In words.
    fn wanted(&self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Text(most) => format!("a text of at most {most} characters without controls"),
            Self::Word(most) => format!("a text of 1 to {most} characters without controls"),
            Self::Hostname => "a host name".into(),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
            Self::Uuid => "an id with dashes".into(),
            Self::List(_, least, most) => format!("a list of {least} to {most} items"),
            Self::Object(_) => "an object".into(),
            Self::Map(_, most) => format!("an object of at most {most} members"),
            Self::Free(most) => format!("an object of at most {most} bytes"),
            Self::Own(_, _) => "a value".into(),
        }
    }
}

/// With numbers that stay what they are when they are written and read: the reader is not exact in the last of 17
/// digits.
fn settled(mut value: Value) -> Value {
    const TIMES: usize = 8;
    for _ in 0..TIMES {
        match serde_json::from_str(&value.to_string()) {
            Ok(read) if read == value => break,
            Ok(read) => value = read,
            Err(_) => break,
        }
    }
    value
}

fn is_text(text: &str, most: usize) -> bool {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    text.chars().count() <= most && !text.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    static MEMBERS: [Member; 11] = [
        must("name", Form::Word(5)),
        may("host", Form::Hostname),
        flag("on", true),
        number("count", Form::Whole(1, 9), 3),
        text("mode", Form::Choice(&["a", "b"]), "b"),
        may("id", Form::Uuid),
        list("parts", &Form::Object(&[must("size", Form::Whole(0, 9))]), 2),
        object("notes", &[text("text", Form::Text(5), "")]),
        may("headers", Form::Map(&Form::Text(3), 2)),
        may("free", Form::Free(20)),
        may(
            "own",
            Form::Own(
                Shape::Text,
                |value| if value.is_string() { Ok(json!(1)) } else { Err("a text is wanted".into()) },
            ),
        ),
    ];

    fn read(given: &Value) -> Result<Value, String> {
        let given = given.as_object().unwrap();
        super::read(&MEMBERS, given).map(Value::Object).map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_is_read_has_one_form() {
        let least = json!({ "name": "x", "on": true, "count": 3, "mode": "b", "parts": [], "notes": { "text": "" } });
        assert_eq!(read(&json!({ "name": "x", "other": [1], "host": null, "notes": null })), Ok(least.clone()));
        assert_eq!(read(&least), Ok(least));
        let all = read(&json!({
            "name": "x", "host": "A.Test.", "on": false, "count": "4.0", "mode": "a", "parts": [{ "size": 1.0,
                "x": 1 }],
            "id": "0190A6F0-0000-7000-8000-000000000001", "headers": { "a": "b", "c": null }, "free": { "z": [null] },
            "own": "x",
        }))
        .unwrap();
        assert_eq!(
            (&all["host"], &all["count"], &all["parts"]),
            (&json!("a.test"), &json!(4), &json!([{ "size": 1 }]))
        );
        assert_eq!((&all["headers"], &all["free"]), (&json!({ "a": "b" }), &json!({ "z": [null] })));
        assert_eq!((&all["id"], &all["own"]), (&json!("0190a6f0-0000-7000-8000-000000000001"), &json!(1)));
    }

    #[test]
    fn what_will_not_do_is_named_by_its_place() {
        for (given, said) in [
            (json!({}), "name: it is missing; a text of 1 to 5"),
            (json!({ "name": " " }), "name: a text"),
            (json!({ "name": "abcdef" }), "name: a text"),
            (json!({ "name": "a\u{0}" }), "name: a text"),
            (json!({ "name": "x", "host": "a b" }), "host: "),
            (json!({ "name": "x", "on": "yes" }), "on: true or false"),
            (json!({ "name": "x", "count": 10 }), "count: a whole number from 1 to 9"),
            (json!({ "name": "x", "count": 1e300 }), "count: a whole"),
            (json!({ "name": "x", "mode": "c" }), "mode: one of a, b"),
            (json!({ "name": "x", "id": "0190a6f0000070008000000000000001" }), "id: an id with dashes"),
            (json!({ "name": "x", "parts": [{ "size": 1 }, {}] }), "parts[1].size: it is missing"),
            (json!({ "name": "x", "parts": [1] }), "parts[0]: an object"),
            (json!({ "name": "x", "parts": [{}, {}, {}] }), "parts: a list"),
            (json!({ "name": "x", "notes": { "text": "abcdef" } }), "notes.text: a text"),
            (json!({ "name": "x", "headers": { "a": "abcd" } }), "headers.a: a text"),
            (json!({ "name": "x", "headers": { "": "a" } }), "headers: names"),
            (json!({ "name": "x", "headers": { "a": "", "b": "", "c": "" } }), "headers: an object"),
            (json!({ "name": "x", "free": { "a": "abcdefghijklmn" } }), "free: an object of at most 20 bytes"),
            (json!({ "name": "x", "own": 1 }), "own: a text is wanted"),
        ] {
            let problem = read(&given).unwrap_err();
            assert!(problem.starts_with(said), "{given}: {problem}");
        }
    }
}
