//! The tables as JSON Schema, by which others describe what they take. Pure.

use serde_json::{Value, json};

use super::{Absent, Form, MAX_KEY_CHARS, Member, Shape};

/// Of a document with these members.
pub(in super::super) fn of(members: &[Member]) -> Value {
    let mut schema = json!({ "type": "object", "properties": {}, "required": [] });
    for Member { name, form, absent } in members {
        let mut member = form.schema();
        let usual = match absent {
            Absent::Refused => {
                schema["required"].as_array_mut().expect("written as a list").push((*name).into());
                None
            }
            Absent::LeftOut => None,
            Absent::Flag(usual) => Some(json!(usual)),
            Absent::Text(usual) => Some(json!(usual)),
            Absent::Number(usual) => Some(json!(usual)),
            Absent::Object => Some(json!({})),
            Absent::List => Some(json!([])),
        };
        if let Some(usual) = usual {
            member["default"] = usual;
        }
        schema["properties"][name] = member;
    }
    schema
}

impl Form {
    fn schema(&self) -> Value {
        match self {
            Self::Flag => json!({ "type": "boolean" }),
            Self::Text(most) => json!({ "type": "string", "maxLength": most }),
            Self::Word(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
            Self::Hostname => json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
            Self::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Self::Choice(choices) => json!({ "type": "string", "enum": choices }),
            Self::Uuid => json!({ "type": "string", "format": "uuid" }),
            Self::List(of, least, most) => {
                json!({ "type": "array", "items": of.schema(), "minItems": least, "maxItems": most })
            }
            Self::Object(members) => of(members),
            Self::Map(of, most) => json!({
                "type": "object", "maxProperties": most, "additionalProperties": of.schema(),
                "propertyNames": { "minLength": 1, "maxLength": MAX_KEY_CHARS },
            }),
            Self::Free(_) => json!({ "type": "object" }),
            Self::Own(Shape::Text, _) => json!({ "type": "string" }),
            Self::Own(Shape::TextOrNumber, _) => json!({ "type": ["string", "number"] }),
            Self::Own(Shape::Nothing, _) => json!({ "type": "null" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{flag, list, may, must, number};
    use super::*;

    #[test]
    fn a_table_s_schema_says_what_must_be_there_and_what_is_usual() {
        static MEMBERS: [Member; 5] = [
            must("name", Form::Word(5)),
            may("id", Form::Uuid),
            flag("on", true),
            number("count", Form::Whole(1, 9), 3),
            list("parts", &Form::Object(&[must("size", Form::Whole(0, 9))]), 2),
        ];
        let part = json!({
            "type": "object", "required": ["size"],
            "properties": { "size": { "type": "integer", "minimum": 0, "maximum": 9 } },
        });
        let expected = json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 5 },
                "id": { "type": "string", "format": "uuid" },
                "on": { "type": "boolean", "default": true },
                "count": { "type": "integer", "minimum": 1, "maximum": 9, "default": 3 },
                "parts": { "type": "array", "items": part, "minItems": 0, "maxItems": 2, "default": [] },
            },
        });
        assert_eq!(of(&MEMBERS), expected);
    }
}
