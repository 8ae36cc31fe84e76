//! Standard output, for people or as one JSON object per line.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

/// Where a command prints its results. Diagnostics go to standard error by way of `tracing`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    json: bool,
    colour: bool,
}

/// The few colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Success.
    Green,
    /// Redirections and warnings.
    Yellow,
    /// Failure.
    Red,
    /// What is there for reference only.
    Dim,
    /// What the eye should find first.
    Bold,
}

impl Screen {
    /// Colour only for a terminal, and never with a non-empty `NO_COLOR` (no-color.org).
    pub(crate) fn new(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colour: !json && !refused && std::io::stdout().is_terminal() }
    }

    /// Whether the reader is a program.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One line for people; nothing with `--json`.
    pub(crate) fn say(self, text: impl AsRef<str>) {
        if !self.json {
            put(text.as_ref());
        }
    }

    /// One object for programs; nothing without `--json`.
    pub(crate) fn event(self, event: &impl Serialize) {
        if self.json {
            let line = serde_json::to_string(event).expect("events are plain structs with string keys");
            put(&line);
        }
    }

    /// The text in colour where colour is wanted.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Green => "32",
            Paint::Yellow => "33",
            Paint::Red => "31",
            Paint::Dim => "2",
            Paint::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Writes one line. A reader that has gone (`snicket tunnel list | head`) is no reason to stop serving.
fn put(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}
