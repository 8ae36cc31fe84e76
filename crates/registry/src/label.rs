//! What people say of things, so that others can be told by it. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is said of something: keys with values, such as `release` with `canary`; at most [`Labels::MOST`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<LabelWord, LabelWord>")]
pub struct Labels(BTreeMap<LabelWord, LabelWord>);

/// The key or the value of a label: 1 to [`LabelWord::MAX_CHARS`] letters, digits, `-`, `_`, `.` and `/`, the first and the last of them a letter
/// or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelWord(Box<str>);

/// A text that is no label, or labels that are too many; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// No key and no value looks like this.
    #[error(
        "{0:?} is no key or value of a label: 1 to {most} letters, digits, -, _, . and / are wanted, the first and the last one a letter \
         or a digit",
        most = LabelWord::MAX_CHARS
    )]
    Word(Box<str>),
    /// A key and its value are wanted.
    #[error("{0:?} is no label: KEY=VALUE is wanted, such as release=canary")]
    NoPair(Box<str>),
    /// The same key twice.
    #[error("the label {0} has one value only")]
    Twice(LabelWord),
    /// More than [`Labels::MOST`].
    #[error("at most {most} labels are possible", most = Labels::MOST)]
    TooMany,
}

impl Labels {
    /// Of one thing: every node keeps them.
    pub const MOST: usize = 16;

    /// From texts such as `release=canary`.
    ///
    /// # Errors
    /// One of them is no label, a key is there twice, or they are too many.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, BadLabel> {
        let mut labels = BTreeMap::new();
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| BadLabel::NoPair(text.into()))?;
            let key: LabelWord = key.parse()?;
            if labels.insert(key.clone(), value.parse()?).is_some() {
                return Err(BadLabel::Twice(key));
            }
        }
        labels.try_into()
    }

    /// The value of this key.
    pub fn get(&self, key: &LabelWord) -> Option<&LabelWord> {
        self.0.get(key)
    }

    /// Each with its key.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelWord, &LabelWord)> {
        self.0.iter()
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<LabelWord, LabelWord>> for Labels {
    type Error = BadLabel;

    fn try_from(labels: BTreeMap<LabelWord, LabelWord>) -> Result<Self, BadLabel> {
        if labels.len() > Self::MOST { Err(BadLabel::TooMany) } else { Ok(Self(labels)) }
    }
}

impl LabelWord {
    /// Of one key or value.
    pub const MAX_CHARS: usize = 63;

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelWord {
    type Err = BadLabel;

    fn from_str(text: &str) -> Result<Self, BadLabel> {
        let is_plain = |c: char| c.is_ascii_alphanumeric();
        let fits = (1..=Self::MAX_CHARS).contains(&text.len())
            && text.chars().all(|c| is_plain(c) || matches!(c, '-' | '_' | '.' | '/'))
            && text.starts_with(is_plain)
            && text.ends_with(is_plain);
        // What is told of it is no longer than what is right.
        let shown = || text.chars().take(Self::MAX_CHARS).collect::<String>().into();
        if fits { Ok(Self(text.into())) } else { Err(BadLabel::Word(shown())) }
    }
}

impl TryFrom<String> for LabelWord {
    type Error = BadLabel;

    fn try_from(text: String) -> Result<Self, BadLabel> {
        text.parse()
    }
}

impl From<LabelWord> for String {
    fn from(word: LabelWord) -> Self {
        word.0.into()
    }
}

impl fmt::Display for LabelWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_read_as_people_and_documents_write_them() {
        let labels = Labels::parse(["release=canary", "example.com/zone=eu-1_a"]).unwrap();
        let written = json!({ "release": "canary", "example.com/zone": "eu-1_a" });
        assert_eq!(serde_json::to_value(&labels).unwrap(), written);
        assert_eq!(serde_json::from_value::<Labels>(written).unwrap(), labels);
        assert_eq!(labels.get(&"release".parse().unwrap()).unwrap().as_str(), "canary");
        assert_eq!(Labels::parse([]).unwrap(), Labels::default());
    }

    #[test]
    fn what_is_no_label_is_refused_and_shown_no_longer_than_it_may_be() {
        let long = "a".repeat(64);
        for text in
            ["a", "=b", "a=", "a= b", "-a=b", "a=b.", "ä=b", "a=b=c", &format!("{long}=b"), &format!("a={long}")]
        {
            let problem = Labels::parse([text]).unwrap_err().to_string();
            assert!(problem.contains("wanted") && problem.len() < 300, "{text}: {problem}");
        }
        assert_eq!(Labels::parse(["a=b", "a=c"]), Err(BadLabel::Twice("a".parse().unwrap())));
        let many: Vec<_> = (0..17).map(|number| format!("a{number}=b")).collect();
        assert_eq!(Labels::parse(many.iter().map(String::as_str)), Err(BadLabel::TooMany));
        assert!(Labels::parse(many[1..].iter().map(String::as_str)).is_ok());
        for value in [json!({ "a": 1 }), json!({ "a": "" }), json!({ "a b": "c" }), json!(["a"])] {
            assert!(serde_json::from_value::<Labels>(value.clone()).is_err(), "{value}");
        }
    }
}
