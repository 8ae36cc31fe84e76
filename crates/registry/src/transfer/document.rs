use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{is_apart, is_half_imported};
use crate::engine::{Entry, Revision, State};
use crate::resource::Resource as _;
use crate::schema::{FIRST, SCHEMA, Schema};
use crate::{OpenError, Snapshot};

/// The form of the text.
const FORM: u64 = 1;
/// A line is an entry: 1.5 MiB in etcd, and in a file not much more than the 10 MiB of the largest body. Rulesets from
/// before there was a bound may have more.
const LONGEST_LINE: u64 = 128 << 20;

/// A registry's configuration, as text: one JSON object a line. The first says what follows:
///
/// ```json
/// {"snicket_registry":1,"schema":2,"revision":4711,"entries":2}
/// {"key":"accounts/…","value":{…}}
/// {"key":"tunnels/…","value":{…}}
/// ```
///
/// Secrets are in it as they are.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// The registry's when it was exported.
    pub revision: Revision,
    pub(super) entries: BTreeMap<String, Value>,
}

/// Secrets do not print.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document({} entries at {})", self.entries.len(), self.revision)
    }
}

/// Why a text is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line of it.
    #[error("line {line}: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A newer version of this program wrote it.
    #[error("it has form {form} and schema {schema}, and this version knows {FORM} and {SCHEMA} at most")]
    Newer {
        /// Of the text.
        form: u64,
        /// Of the entries.
        schema: u64,
    },
    /// Some of it is missing.
    #[error("it has {found} entries, and its first line says {expected}; perhaps its end is missing")]
    Incomplete {
        /// As the first line says.
        expected: usize,
        /// As there are.
        found: usize,
    },
    /// It is of a registry in which no node has ever been.
    #[error("it has no account, so no node could work with it")]
    NoAccount,
    /// An entry of no meaning.
    #[error("the entry {key} is of no use: {problem}")]
    Entry {
        /// Its key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    snicket_registry: u64,
    schema: u64,
    revision: Revision,
    entries: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: std::borrow::Cow<'a, str>,
    value: std::borrow::Cow<'a, Value>,
}

impl Document {
    /// Everything that an engine has.
    ///
    /// # Errors
    /// An entry is damaged, or an import was broken off.
    pub fn of(state: &State) -> Result<Self, OpenError> {
        let mut entries = BTreeMap::new();
        if is_half_imported(state) {
            return Err(OpenError::HalfImported);
        }
        for entry in state.entries.iter().filter(|entry| !is_apart(&entry.key)) {
            let damaged =
                |error: serde_json::Error| OpenError::Entry { key: entry.key.clone(), problem: error.to_string() };
            entries.insert(entry.key.clone(), serde_json::from_slice(&entry.value).map_err(damaged)?);
        }
        Ok(Self { revision: state.revision, entries })
    }

    /// The version of what its entries mean.
    fn schema(&self) -> u64 {
        let version = self.entries.get(&Schema { version: SCHEMA }.key().0);
        version.and_then(|entry| entry["version"].as_u64()).unwrap_or(FIRST)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the text.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let head = Head {
            snicket_registry: FORM,
            schema: self.schema(),
            revision: self.revision,
            entries: self.entries.len(),
        };
        serde_json::to_writer(&mut out, &head)?;
        out.write_all(b"\n")?;
        for (key, value) in &self.entries {
            let line = Line { key: key.into(), value: std::borrow::Cow::Borrowed(value) };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Reads the text.
    ///
    /// # Errors
    /// It is none, is not whole, or of a newer version, or an entry is none that this version can read.
    pub fn read(mut text: impl BufRead) -> Result<Self, DocumentError> {
        let mut number = 0;
        let mut line = || -> Result<Option<(usize, Vec<u8>)>, DocumentError> {
            let mut bytes = Vec::new();
            number += 1;
            text.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
            if bytes.len() as u64 == LONGEST_LINE {
                return Err(DocumentError::Line { line: number, problem: "it is longer than 128 MiB".into() });
            }
            Ok((!bytes.is_empty()).then_some((number, bytes)))
        };
        let wrong = |line, error: serde_json::Error| DocumentError::Line { line, problem: error.to_string() };
        let (_, first) = line()?.unwrap_or_default();
        let no_head =
            |_| DocumentError::Line { line: 1, problem: "it is no first line of an exported registry".into() };
        let head: Head = serde_json::from_slice(&first).map_err(no_head)?;
        if head.snicket_registry > FORM || head.schema > SCHEMA {
            return Err(DocumentError::Newer { form: head.snicket_registry, schema: head.schema });
        }
        let mut entries = BTreeMap::new();
        while let Some((number, bytes)) = line()? {
            let Line { key, value } = serde_json::from_slice(&bytes).map_err(|error| wrong(number, error))?;
            let useless =
                |problem| DocumentError::Line { line: number, problem: format!("{key} is of no use: {problem}") };
            Snapshot::check_entry(&key, value.to_string().as_bytes()).map_err(useless)?;
            if entries.insert(key.clone().into_owned(), value.into_owned()).is_some() {
                return Err(DocumentError::Line { line: number, problem: format!("{key} is there twice") });
            }
        }
        if entries.len() != head.entries {
            return Err(DocumentError::Incomplete { expected: head.entries, found: entries.len() });
        }
        // Earlier versions wrote what this one leaves out.
        entries.retain(|key, _| !is_apart(key));
        Ok(Self { revision: head.revision, entries })
    }

    /// As an engine would have it.
    pub(super) fn state(&self) -> State {
        let entry = |(key, value): (&String, &Value)| Entry {
            key: key.clone(),
            value: value.to_string().into_bytes(),
            revision: self.revision,
        };
        State { revision: self.revision, entries: self.entries.iter().map(entry).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"snicket_registry":1,"schema":1,"revision":7,"entries":1}"#;

    fn refused(text: &str) -> String {
        Document::read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_document_survives_being_written_and_read() {
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into(), revision: 3 };
        let entries = vec![entry("a/1", r#"{"x":["ü",1.5,null]}"#), entry("b/2", "{}")];
        let document = Document::of(&State { revision: 9, entries }).unwrap();
        let mut text = Vec::new();
        document.write(&mut text).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert_eq!(Document::read(&text[..]).unwrap(), document);
        assert!(!format!("{document:?}").contains('ü'));
    }

    #[test]
    fn the_largest_entry_can_be_read_again() {
        let value = serde_json::json!({ "rules": "x".repeat(17 << 20) }).to_string();
        let entries = vec![Entry { key: "items/1".into(), value: value.into(), revision: 3 }];
        let document = Document::of(&State { revision: 9, entries }).unwrap();
        let mut text = Vec::new();
        document.write(&mut text).unwrap();
        assert!(Document::read(&text[..]).unwrap() == document);
    }

    #[test]
    fn what_is_no_document_is_refused_with_the_line() {
        let entry = r#"{"key":"a/1","value":{}}"#;
        for (text, reason) in [
            (String::new(), "line 1"),
            ("hello\n".into(), "line 1"),
            (format!("{HEAD}\n"), "0 entries"),
            (format!("{HEAD}\n{entry}\n{entry}\n"), "line 3: a/1 is there twice"),
            (format!("{HEAD}\n{{\"key\":1}}\n"), "line 2"),
            (format!("{HEAD}\n{}\n", &entry[..20]), "line 2"),
            (format!("{HEAD}\n{}\n", entry.replace("a/1", "no-kind")), "line 2: no-kind is of no use"),
            (HEAD.replace("schema\":1", "schema\":99"), "schema 99"),
            (HEAD.replace("registry\":1", "registry\":2"), "form 2"),
        ] {
            let said = refused(&text);
            assert!(said.contains(reason), "{text:?}: {said}");
        }
        assert_eq!(Document::read(format!("{HEAD}\n{entry}").as_bytes()).unwrap().len(), 1);
    }
}
