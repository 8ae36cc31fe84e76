//! Numbers as clients write them: `60`, `60.0` or `"60"`. Pure.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// A whole number that fits.
pub(crate) fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let number = match number(&Value::deserialize(deserializer)?) {
        // Up to there every whole number is exact.
        Some(number) if number.fract() == 0.0 && (0.0..=9e15).contains(&number) => T::try_from(number as u64).ok(),
        Some(_) | None => None,
    };
    number.ok_or_else(|| D::Error::custom("a whole number is wanted, not below 0 and not too large"))
}

/// [`whole`], where there may be none.
pub(super) fn some_whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => whole(value).map(Some).map_err(D::Error::custom),
    }
}

/// A number with at most six digits behind the point: such a one stays what it is, however often it is written and read.
pub(super) fn fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    const STEPS: f64 = 1e6;
    let number = number(&Value::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("a number is wanted"))?;
    let rounded = (number * STEPS).round() / STEPS;
    // Also of what is too large to be rounded; and there is one zero only.
    if rounded.is_finite() { Ok(rounded + 0.0) } else { Err(D::Error::custom("a smaller number is wanted")) }
}

/// [`fraction`], where there may be none.
pub(super) fn some_fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => fraction(value).map(Some).map_err(D::Error::custom),
    }
}

/// A [`fraction`] for each.
pub(super) fn weights<'de, K: Ord + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<K, f64>, D::Error> {
    let weights = BTreeMap::<K, Value>::deserialize(deserializer)?;
    let read =
        |(pool, weight)| Ok((pool, fraction(weight).map_err(|error: serde_json::Error| D::Error::custom(error))?));
    weights.into_iter().map(read).collect()
}

/// Of origins and pools.
pub(super) fn usual_weight() -> f64 {
    1.0
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let text = text.trim();
            // What else Rust would take (inf, nan, 1e400, +1) no client writes.
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
            text.parse().ok().filter(|_| is_plain)
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_come_in_three_forms() {
        for value in [json!(60), json!(60.0), json!("60"), json!("60.0"), json!(" 60 ")] {
            assert_eq!(whole::<u16, _>(&value).ok(), Some(60), "{value}");
        }
        for value in [
            json!(-1),
            json!(60.5),
            json!("sixty"),
            json!(""),
            json!("."),
            json!(true),
            json!(65_536),
            json!(1e300),
            json!("inf"),
            json!("+1"),
            json!([]),
        ] {
            assert!(whole::<u16, _>(&value).is_err(), "{value}");
        }
    }
}
