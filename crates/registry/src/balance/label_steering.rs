//! How the visitors of a pool are shared out among its members by one of their labels. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::number::weights;
use super::{BadTerms, check_share};
use crate::LabelWord;

/// Which share of a pool's visitors the members with each value of a label get, however many these are: 90 for those with
/// `release=stable` and 10 for those with `release=canary`, for example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelSteering {
    /// The key of the label.
    pub key: LabelWord,
    /// By its values, compared with each other: 0 to [`LabelSteering::MAX_WEIGHT`]. Those with 0, and members with none of these values,
    /// are there only for when nobody else is well.
    #[serde(deserialize_with = "weights")]
    pub weights: BTreeMap<LabelWord, f64>,
    /// Since when values have the weight 0, by the registry's own account; whatever is sent in is passed over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disabled_at: BTreeMap<LabelWord, Timestamp>,
}

impl LabelSteering {
    /// Of one value.
    pub const MAX_WEIGHT: f64 = 1000.0;
    /// In one pool.
    pub const MAX_VALUES: usize = 16;

    /// Refuses what will not do.
    pub(super) fn check(&self) -> Result<(), BadTerms> {
        let bad = |problem: &str| Err(BadTerms::of("label_steering.weights", problem));
        if self.weights.len() > Self::MAX_VALUES {
            return bad("at most 16 values are possible");
        }
        for (value, weight) in &self.weights {
            check_share(&format!("label_steering.weights.{value}"), *weight, Self::MAX_WEIGHT)?;
        }
        if !self.weights.values().any(|weight| *weight > 0.0) {
            return bad("one value at least is wanted whose weight is above 0");
        }
        Ok(())
    }

    /// Notes since when values have the weight 0: as in the former terms, else since now.
    pub(super) fn note_disabled(&mut self, old: Option<&Self>, now: Timestamp) {
        let old = old.filter(|old| old.key == self.key);
        let since = |value| old.and_then(|old| old.disabled_at.get(value).copied()).unwrap_or(now);
        let without = self.weights.iter().filter(|(_, weight)| **weight == 0.0);
        self.disabled_at = without.map(|(value, _)| (value.clone(), since(value))).collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<LabelSteering, String> {
        let steering: LabelSteering = serde_json::from_value(value).map_err(|error| error.to_string())?;
        steering.check().map_err(|error| error.to_string())?;
        Ok(steering)
    }

    fn weighted(weights: Value) -> Value {
        json!({ "key": "release", "weights": weights })
    }

    #[test]
    fn weights_are_read_and_what_will_not_do_is_refused() {
        let steering = read(weighted(json!({ "stable": 90, "canary": "10", "old": 0.5 }))).unwrap();
        assert_eq!(steering.weights.values().copied().collect::<Vec<_>>(), [10.0, 0.5, 90.0]);
        let many: BTreeMap<_, _> = (0..17).map(|number| (format!("v{number}"), 1)).collect();
        for (value, wanted) in [
            (json!({ "weights": { "a": 1 } }), "key"),
            (json!({ "key": "", "weights": { "a": 1 } }), "label"),
            (weighted(json!({})), "above 0"),
            (weighted(json!({ "a": 0 })), "above 0"),
            (weighted(json!({ "a": -1 })), "weights.a"),
            (weighted(json!({ "a": 1001 })), "weights.a"),
            (weighted(json!({ "a": "much" })), "number"),
            (weighted(json!({ "a b": 1 })), "label"),
            (weighted(json!(many)), "16"),
        ] {
            let problem = read(value.clone()).unwrap_err();
            assert!(problem.contains(wanted), "{value}: {problem}");
        }
    }

    #[test]
    fn it_is_noted_since_when_a_value_has_no_weight() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let noted = |weights: Value, old: Option<&LabelSteering>, now| {
            let mut steering = read(weighted(weights)).unwrap();
            steering.note_disabled(old, at(now));
            steering
        };
        let first = noted(json!({ "a": 1, "b": 0 }), None, 1);
        let second = noted(json!({ "a": 1, "b": 0, "c": 0 }), Some(&first), 2);
        let since =
            |steering: &LabelSteering| steering.disabled_at.values().map(|at| at.as_second()).collect::<Vec<_>>();
        assert_eq!((since(&first), since(&second)), (vec![1], vec![1, 2]));
        assert!(noted(json!({ "a": 1, "b": 2 }), Some(&second), 3).disabled_at.is_empty());
        let other = LabelSteering { key: "other".parse().unwrap(), ..second };
        assert_eq!(
            since(&noted(json!({ "a": 1, "b": 0 }), Some(&other), 4)),
            [4],
            "values of another label are others"
        );
    }
}
