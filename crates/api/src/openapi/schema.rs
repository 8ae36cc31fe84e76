//! JSON Schema (2020-12), as far as this API needs it. Pure.
//!
//! A schema is written once, as what is kept, and read in two ways: what is taken for it is more than what is answered
//! ([`Schema::taken`], [`Schema::answered`]).

use serde_json::{Map, Value, json};

/// What a value may be.
#[derive(Debug, Clone)]
pub(crate) struct Schema(Value);

/// A member of an object.
pub(crate) struct Member {
    name: &'static str,
    schema: Schema,
    presence: Presence,
}

enum Presence {
    /// In every body and every answer.
    Always,
    /// Perhaps in either.
    Perhaps,
    /// In every answer; left out of a body it is this.
    Usual(Value),
}

/// Under which a schema with a name of its own is in the document; the assembly takes it out.
pub(super) const NAME: &str = "x-name";
/// At a number that is also taken as a text; what is taken or answered has it no more.
const LENIENT: &str = "x-lenient";
/// At a member that is in every answer; what is taken or answered has it no more.
const USUAL: &str = "x-usual";
/// At a member that is `null` in no body; what is taken or answered has it no more.
const NOT_NULL: &str = "x-not-null";
/// What is said of a schema from outside, and stays outside when the schema becomes a part of another one.
const OUTSIDE: [&str; 4] = ["default", "description", USUAL, NOT_NULL];

/// A member that is always there.
pub(crate) fn must(name: &'static str, schema: Schema) -> Member {
    Member { name, schema, presence: Presence::Always }
}

/// A member that need not be there.
pub(crate) fn may(name: &'static str, schema: Schema) -> Member {
    Member { name, schema, presence: Presence::Perhaps }
}

/// A member that is this where nothing was said.
pub(crate) fn usual(name: &'static str, schema: Schema, value: impl Into<Value>) -> Member {
    Member { name, schema, presence: Presence::Usual(value.into()) }
}

impl Member {
    /// With words about it.
    pub(crate) fn about(self, words: &str) -> Self {
        Self { schema: self.schema.about(words), ..self }
    }

    /// It is left out, or something, and in no body `null`.
    pub(crate) fn not_null(mut self) -> Self {
        self.schema.0[NOT_NULL] = true.into();
        self
    }
}

/// An object with these members, and perhaps others that nobody looks at.
pub(crate) fn object<const N: usize>(members: [Member; N]) -> Schema {
    Schema(json!({ "type": "object", "properties": {} })).with(members)
}

/// An object whose members are all like this.
pub(crate) fn map(of: Schema) -> Schema {
    Schema(json!({ "type": "object", "additionalProperties": of.0 }))
}

/// A list of these.
pub(crate) fn list(of: Schema) -> Schema {
    Schema(json!({ "type": "array", "items": of.0 }))
}

/// Any text.
pub(crate) fn text() -> Schema {
    Schema(json!({ "type": "string" }))
}

/// A text of this form.
pub(crate) fn like(pattern: &str) -> Schema {
    Schema(json!({ "type": "string", "pattern": pattern }))
}

/// One of these texts.
pub(crate) fn one_of(texts: &[&str]) -> Schema {
    Schema(json!({ "type": "string", "enum": texts }))
}

/// True or false.
pub(crate) fn flag() -> Schema {
    Schema(json!({ "type": "boolean" }))
}

/// A whole number, also taken as `60.0` or `"60"`.
pub(crate) fn whole(least: u64, most: u64) -> Schema {
    integer(least, most).lenient()
}

/// A whole number, taken as such only.
pub(crate) fn integer(least: u64, most: u64) -> Schema {
    Schema(json!({ "type": "integer", "minimum": least, "maximum": most }))
}

/// How many there are of something.
pub(crate) fn count() -> Schema {
    Schema(json!({ "type": "integer", "minimum": 0 }))
}

/// A number, also taken as a text.
pub(crate) fn fraction(least: f64, most: f64) -> Schema {
    Schema(json!({ "type": "number", "minimum": least, "maximum": most })).lenient()
}

/// A moment (RFC 3339).
pub(crate) fn time() -> Schema {
    Schema(json!({ "type": "string", "format": "date-time" }))
}

/// An id of most things.
pub(crate) fn id() -> Schema {
    like("^[0-9a-f]{32}$")
}

/// An id with dashes.
pub(crate) fn uuid() -> Schema {
    Schema(json!({ "type": "string", "format": "uuid" }))
}

/// A host name.
pub(crate) fn hostname() -> Schema {
    text().least(1).most(255)
}

/// What is said of something, keys with values.
pub(crate) fn labels() -> Schema {
    map(text().least(1).most(registry::LabelWord::MAX_CHARS))
}

/// Anything.
pub(crate) fn anything() -> Schema {
    Schema(json!({}))
}

/// Nothing.
pub(crate) fn null() -> Schema {
    Schema(json!({ "type": "null" }))
}

/// One of these.
pub(crate) fn any_of<const N: usize>(schemas: [Schema; N]) -> Schema {
    Schema(json!({ "anyOf": Vec::from(schemas.map(|schema| schema.0)) }))
}

impl From<Value> for Schema {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Schema {
    /// With a name of its own, by which it is in the document once.
    pub(crate) fn named(self, name: &str) -> Self {
        self.and(NAME, name)
    }

    /// With words about it.
    pub(crate) fn about(self, words: &str) -> Self {
        self.and("description", words)
    }

    /// A list with so many items at least, or a text with so many characters.
    pub(crate) fn least(self, least: usize) -> Self {
        let keyword = if self.is_list() { "minItems" } else { "minLength" };
        self.and(keyword, least)
    }

    /// A list with so many items at most, or a text with so many characters.
    pub(crate) fn most(self, most: usize) -> Self {
        let keyword = if self.is_list() { "maxItems" } else { "maxLength" };
        self.and(keyword, most)
    }

    /// An object without other members.
    pub(crate) fn closed(self) -> Self {
        self.and("additionalProperties", false)
    }

    /// An object with these members as well, or instead of those of the same name.
    pub(crate) fn with<const N: usize>(mut self, members: [Member; N]) -> Self {
        for Member { name, schema: Self(mut schema), presence } in members {
            let required = required(&mut self.0);
            required.retain(|required| required != name);
            match presence {
                Presence::Always => required.push(name.into()),
                Presence::Perhaps => (),
                Presence::Usual(value) => {
                    schema["default"] = value;
                    schema[USUAL] = true.into();
                }
            }
            self.0["properties"][name] = schema;
        }
        self
    }

    /// What is kept of this kind.
    pub(crate) fn of_items(kind: registry::ItemKind) -> Self {
        let mut schema = Self(kind.schema()).lenient();
        walk(&mut schema.0, &|value| {
            if value.get("default").is_some() {
                value[USUAL] = true.into();
            }
        });
        schema
    }

    /// What a member of it is; anything if it has none of this name.
    pub(crate) fn member(&self, name: &str) -> Self {
        Self(self.0["properties"].get(name).cloned().unwrap_or_default())
    }

    /// What each item of it is, if it is a list.
    pub(crate) fn items(&self) -> Self {
        Self(self.0["items"].clone())
    }

    /// Or `null`.
    pub(crate) fn or_null(mut self) -> Self {
        make_nullable(&mut self.0);
        self
    }

    /// All numbers in it are taken as texts, too.
    pub(crate) fn lenient(mut self) -> Self {
        let mark = |value: &mut Value| {
            if value.get("type").is_some_and(|kind| kind == "integer" || kind == "number") {
                value[LENIENT] = true.into();
            }
        };
        walk(&mut self.0, &mark);
        self
    }

    /// As a body has it: what need not be there may be `null` as well.
    pub(super) fn taken(self) -> Value {
        self.settled("Body", &|value| {
            let present = required(value).clone();
            for (name, property) in properties(value) {
                drop_mark(property, USUAL);
                if !(drop_mark(property, NOT_NULL) || present.contains(&Value::from(name.as_str()))) {
                    make_nullable(property);
                }
            }
            // As is usual in maps, too.
            if let Some(member) = value.get_mut("additionalProperties").filter(|member| member.is_object()) {
                make_nullable(member);
            }
            if drop_mark(value, LENIENT) {
                let pattern = if value["type"] == "integer" { r"^\s*[0-9]+(\.0*)?\s*$" } else { r"^\s*-?[0-9.]+\s*$" };
                put_beside(value, json!({ "type": "string", "pattern": pattern }));
            }
        })
    }

    /// As a body has it that changes something: what is not there stays.
    pub(super) fn changed(self) -> Value {
        let mut change = self.changes();
        if let Some(name) = change.0.get(NAME).and_then(Value::as_str) {
            change.0[NAME] = format!("{name}Change").into();
        }
        change.taken()
    }

    /// With all members left to whoever changes something.
    pub(crate) fn changes(mut self) -> Self {
        required(&mut self.0).clear();
        properties(&mut self.0).for_each(|(_, property)| {
            drop_mark(property, "default");
        });
        self
    }

    /// As an answer has it: what is usual is there.
    pub(super) fn answered(self) -> Value {
        self.settled("", &|value| {
            drop_mark(value, LENIENT);
            let mut there = Vec::new();
            for (name, property) in properties(value) {
                drop_mark(property, NOT_NULL);
                if drop_mark(property, USUAL) | drop_mark(property, "default") {
                    there.push(Value::from(name.as_str()));
                }
            }
            required(value).extend(there);
        })
    }

    /// With all schemas in it, and itself, as this makes them; those with names get this behind them.
    fn settled(mut self, suffix: &str, settle: &dyn Fn(&mut Value)) -> Value {
        walk(&mut self.0, &|value| {
            if let Some(name) = value.get(NAME).and_then(Value::as_str) {
                value[NAME] = format!("{name}{suffix}").into();
            }
            settle(value);
            clean(value);
        });
        self.0
    }

    /// Whether it is a text without bounds.
    pub(super) fn is_any_text(&self) -> bool {
        self.0 == json!({ "type": "string" })
    }

    fn is_list(&self) -> bool {
        self.0["type"] == "array"
    }

    fn and(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0[keyword] = value.into();
        self
    }
}

/// The names of the members that must be there.
fn required(schema: &mut Value) -> &mut Vec<Value> {
    let required = &mut schema["required"];
    if required.is_null() {
        *required = json!([]);
    }
    required.as_array_mut().expect("it is a list wherever it is")
}

fn properties(schema: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
}

/// Removes a keyword; answers whether it was there.
fn drop_mark(schema: &mut Value, keyword: &str) -> bool {
    schema.as_object_mut().is_some_and(|schema| schema.remove(keyword).is_some())
}

fn make_nullable(schema: &mut Value) {
    let is_plain = ["enum", "const", NAME, LENIENT].iter().all(|word| schema.get(word).is_none());
    match schema.get("type") {
        Some(Value::String(name)) if name == "null" => (),
        Some(Value::String(name)) if is_plain => schema["type"] = json!([name, "null"]),
        // Anything may be `null` already.
        None if schema.get("anyOf").is_none() && is_plain => (),
        _ => put_beside(schema, json!({ "type": "null" })),
    }
}

/// Lets a value be this as well.
fn put_beside(schema: &mut Value, other: Value) {
    let said = OUTSIDE.map(|word| schema.as_object_mut().and_then(|schema| schema.remove(word)));
    match schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        Some(choices) if !choices.contains(&other) => choices.push(other),
        Some(_) => (),
        None => *schema = json!({ "anyOf": [schema.take(), other] }),
    }
    for (word, value) in OUTSIDE.into_iter().zip(said) {
        if let Some(value) = value {
            schema[word] = value;
        }
    }
}

/// Without lists that are empty, and what is usually nothing.
fn clean(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        let is_idle = |word: &str, value: &Value| match word {
            "required" => value.as_array().is_some_and(Vec::is_empty),
            "default" => value.is_null(),
            _ => false,
        };
        schema.retain(|word, value| !is_idle(word, value));
    }
}

/// Shows each schema in a schema, those inside first.
pub(super) fn walk(schema: &mut Value, visit: &dyn Fn(&mut Value)) {
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword).filter(|inner| inner.is_object()) {
            walk(inner, visit);
        }
    }
    let members = schema.get_mut("properties").and_then(Value::as_object_mut);
    members.into_iter().flat_map(Map::values_mut).for_each(|inner| walk(inner, visit));
    for keyword in ["anyOf", "allOf"] {
        let inner = schema.get_mut(keyword).and_then(Value::as_array_mut);
        inner.into_iter().flatten().for_each(|inner| walk(inner, visit));
    }
    visit(schema);
}
