use std::rc::Rc;

use crate::mistakes::{Collector, Mistake, Position};
use crate::suggest::nearest;
use crate::tree::{Data, Entry, Node};
use crate::value::Value;

/// A mapping that is being read field by field.
///
/// Each reading method makes its key known. What is left unread when the reader returns is refused. A key whose value is
/// empty or `null` counts as absent. After a mistake a reading method answers as if the key were absent, so that reading
/// goes on and finds the rest.
pub struct Mapping<'d> {
    position: Position,
    entries: &'d [Entry],
    known: Vec<&'static str>,
    mistakes: &'d Collector,
}

impl<'d> Mapping<'d> {
    /// Reads a scalar.
    pub fn optional<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let node = self.take(key)?;
        self.scalar(key, node)
    }

    /// Reads a scalar, or takes `default` when the key is absent.
    pub fn or<T: Value>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// Reads a scalar that must be there.
    pub fn required<T: Value>(&mut self, key: &'static str) -> Option<T> {
        if self.take(key).is_none() {
            self.mistake(self.position, format!("the key {key:?} is missing; it holds {}", T::EXPECTED));
        }
        self.optional(key)
    }

    /// Reads a scalar by a function of the caller; its error text is shown after the key.
    pub fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text: String = self.optional(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(key, reason);
                None
            }
        }
    }

    /// Reads one of several words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                format!(
                    "found {text:?}, expected one of {}{}",
                    words.join(", "),
                    did_you_mean(text, words.iter().copied())
                )
            })
        })
    }

    /// Reads a list of scalars; a lone scalar counts as a list of one.
    pub fn list<T: Value>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let node = self.take(key)?;
        match &node.data {
            Data::Sequence(items) => Some(items.iter().filter_map(|item| self.scalar(key, item)).collect()),
            Data::Scalar { .. } => self.scalar(key, node).map(|value| vec![value]),
            Data::Mapping(_) => {
                self.mistake(
                    node.position,
                    format!("{key:?}: found a mapping, expected a list, each item {}", T::EXPECTED),
                );
                None
            }
        }
    }

    /// Reads a mapping inside this one.
    pub fn mapping<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Mapping<'_>) -> T) -> Option<T> {
        let node = self.take(key)?;
        read_node(key, node, self.mistakes, read)
    }

    /// Reads a list of mappings.
    pub fn mappings<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Mapping<'_>) -> T) -> Option<Vec<T>> {
        let node = self.take(key)?;
        let Data::Sequence(items) = &node.data else {
            let found = node.found();
            self.mistake(
                node.position,
                format!("{key:?}: found {found}, expected a list of mappings, each beginning with \"- \""),
            );
            return None;
        };
        Some(items.iter().filter_map(|item| read_node(key, item, self.mistakes, &mut read)).collect())
    }

    /// Accepts keys without reading them.
    pub fn accept(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Refuses the value of a key for a reason of the caller; at the mapping's own place when the key is absent.
    pub fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        self.mistake(self.position_of(key), format!("{key:?}: {}", reason.into()));
    }

    /// Where the mapping begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Where the value of a key stands, for a mistake that shows only later; the mapping's own place when the key is
    /// absent.
    pub fn position_of(&self, key: &str) -> Position {
        self.entry(key).map_or(self.position, |entry| entry.value.position)
    }

    /// Refuses something at another place of the same document, found only when all of it was read.
    pub fn refuse_at(&mut self, position: Position, reason: impl Into<String>) {
        self.mistake(position, reason.into());
    }

    fn entry(&self, key: &str) -> Option<&'d Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn take(&mut self, key: &'static str) -> Option<&'d Rc<Node>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entry(key).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    fn scalar<T: Value>(&self, key: &str, node: &Node) -> Option<T> {
        let wrong = |reason: String| {
            let reason = if reason.is_empty() { reason } else { format!(" ({reason})") };
            self.mistake(node.position, format!("{key:?}: found {}, expected {}{reason}", node.found(), T::EXPECTED));
        };
        let Data::Scalar { text, plain } = &node.data else {
            wrong(String::new());
            return None;
        };
        T::from_scalar(text, *plain).map_err(wrong).ok()
    }

    fn mistake(&self, position: Position, text: String) {
        self.mistakes.add(Mistake { position, text });
    }

    fn refuse_unknown(&self) {
        for Entry { key, position, .. } in self.entries {
            if !self.known.contains(&key.as_str()) {
                let shown: String = key.chars().take(40).collect();
                let hint = did_you_mean(key, self.known.iter().copied());
                self.mistake(*position, format!("unknown key {shown:?}{hint}"));
            }
        }
    }
}

/// Reads the root, which is a mapping or empty.
pub(crate) fn read_root<T>(root: &Node, mistakes: &Collector, read: impl FnOnce(&mut Mapping<'_>) -> T) -> Option<T> {
    if root.is_null() {
        let mut mapping = Mapping { position: root.position, entries: &[], known: Vec::new(), mistakes };
        return Some(read(&mut mapping));
    }
    read_node("the file", root, mistakes, read)
}

fn read_node<T>(key: &str, node: &Node, mistakes: &Collector, read: impl FnOnce(&mut Mapping<'_>) -> T) -> Option<T> {
    let Data::Mapping(entries) = &node.data else {
        let text = format!("{key:?}: found {}, expected a mapping of keys and values (key: value)", node.found());
        mistakes.add(Mistake { position: node.position, text });
        return None;
    };
    let mut mapping = Mapping { position: node.position, entries, known: Vec::new(), mistakes };
    let value = read(&mut mapping);
    mapping.refuse_unknown();
    Some(value)
}

fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}
