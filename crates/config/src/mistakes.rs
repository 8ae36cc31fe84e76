use std::cell::RefCell;
use std::fmt;

/// More mistakes than this in one document are counted, not listed: nobody reads further.
const LISTED: usize = 100;

/// A place in the text: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// One mistake in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub position: Position,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// All mistakes of one document, in the order of the text. Shown one per line as `file:line:column: text`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    file: String,
    list: Vec<Mistake>,
    unlisted: usize,
}

impl Mistakes {
    /// The mistakes, in the order of the text; at most 100 are kept.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { position, text }) in self.list.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{}:{}: {text}", self.file, position.line, position.column)?;
        }
        if self.unlisted > 0 {
            write!(f, "\n{}: and {} more", self.file, self.unlisted)?;
        }
        Ok(())
    }
}

/// Where the readers of one document put what they find.
#[derive(Debug, Default)]
pub(crate) struct Collector(RefCell<Vec<Mistake>>);

impl Collector {
    pub(crate) fn add(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    /// The value, if nothing was wrong. Without a value there is at least one mistake.
    pub(crate) fn finish<T>(self, file: &str, value: Option<T>) -> Result<T, Mistakes> {
        let mut list = self.0.into_inner();
        match value {
            Some(value) if list.is_empty() => Ok(value),
            _ => {
                list.sort_by_key(|mistake| mistake.position);
                let unlisted = list.len().saturating_sub(LISTED);
                list.truncate(LISTED);
                Err(Mistakes { file: file.to_owned(), list, unlisted })
            }
        }
    }
}
