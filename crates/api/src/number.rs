use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A whole number, which clients write as `60`, `60.0` or `"60"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole(pub(crate) u32);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
        u32::try_from(number).map(Whole).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
        u32::try_from(number).map(Whole).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
        let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        // Just checked to fit.
        if is_whole { Ok(Whole(number as u32)) } else { Err(E::invalid_value(Unexpected::Float(number), &self)) }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Whole, E> {
        let whole = match text.trim().split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
            Some(_) | None => text.trim(),
        };
        let is_number = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
        let number = whole.parse().ok().filter(|_| is_number).map(Whole);
        number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A member that was given, be it as `null`: PATCH takes that for "back to the usual", and an absent one for "as it is".
pub(crate) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<u32> {
        serde_json::from_str::<Whole>(text).ok().map(|number| number.0)
    }

    #[test]
    fn numbers_come_in_three_forms() {
        for text in ["60", "60.0", "\"60\"", "\"60.0\"", "6e1", "\" 60 \""] {
            assert_eq!(read(text), Some(60), "{text}");
        }
        for text in ["-1", "60.5", "\"sixty\"", "\"\"", "\".\"", "true", "4294967296", "1e300", "\"+1\"", "[]"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
