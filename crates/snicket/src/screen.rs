//! Standard output, for people or as one JSON object per line.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::json;

use crate::pile::Pile;
use crate::report;

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
        Self { json, colour: !json && !refused && io::stdout().is_terminal() }
    }

    /// From now on nobody waits for the reader of standard output: a thread of its own writes, and what the reader is too slow for
    /// is lost, and counted. For whoever serves others; a command that only tells something waits.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn detach(self) -> io::Result<()> {
        let tell = move |lost| {
            self.say(format!("({lost} lines not shown)"));
            self.event(&json!({ "event": "missed", "time": report::now(), "count": lost }));
        };
        let pile = Pile::start("screen", io::stdout(), tell)?;
        let _ = PILE.set(pile);
        Ok(())
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

/// The process's standard output, once nobody waits for its reader.
static PILE: OnceLock<Pile> = OnceLock::new();

/// Lets out what still waits, before the process ends.
pub(crate) fn flush() {
    if let Some(pile) = PILE.get() {
        pile.flush();
    }
}

/// Writes one line. A reader that has gone (`snicket tunnel list | head`) is no reason to stop serving.
fn put(line: &str) {
    let line = format!("{line}\n");
    if let Some(pile) = PILE.get() {
        return pile.put(line.as_bytes());
    }
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
