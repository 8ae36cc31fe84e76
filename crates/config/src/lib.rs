//! YAML text into typed values, with every mistake found at once.
//!
//! The entry is [`read`]: it takes the text of one document and a function that reads the fields of its [`Mapping`] one
//! by one. Keys that nobody read are refused with the nearest known one as a suggestion; values of a wrong type say what
//! was found and what is expected; all of it comes back in one [`Mistakes`], each with line and column.
//!
//! ```
//! use std::time::Duration;
//!
//! let text = "grace-period: 1m30s\nhostname: app.example.test\n";
//! let (grace, host) = config::read("config.yml", text, |file| {
//!     (file.or("grace-period", Duration::from_secs(30)), file.optional::<String>("hostname"))
//! })?;
//! assert_eq!(grace, Duration::from_secs(90));
//! assert_eq!(host.as_deref(), Some("app.example.test"));
//! # Ok::<(), config::Mistakes>(())
//! ```
//!
//! Deliberately absent: files, the environment and defaults of any role. A caller reads the file and names it.

pub mod duration;
mod mapping;
mod mistakes;
mod suggest;
mod tree;
mod value;

pub use mapping::Mapping;
pub use mistakes::{Mistake, Mistakes, Position};
pub use value::Value;

/// Reads one YAML document whose root is a mapping. An empty document counts as an empty mapping.
///
/// `file` is only for messages. `read` is called unless the text is not YAML at all; its result is dropped when any
/// mistake was found.
///
/// # Errors
/// Every mistake of the document: text that is not YAML or beyond the limits (1 MiB, 32 levels, 100,000 values after
/// aliases), unknown and double keys, wrong types, and whatever `read` itself refused.
pub fn read<T>(file: &str, text: &str, read: impl FnOnce(&mut Mapping<'_>) -> T) -> Result<T, Mistakes> {
    let mistakes = mistakes::Collector::default();
    let value = match tree::parse(text, &mistakes) {
        Ok(root) => mapping::read_root(&root, &mistakes, read),
        Err(mistake) => {
            mistakes.add(mistake);
            None
        }
    };
    mistakes.finish(file, value)
}
