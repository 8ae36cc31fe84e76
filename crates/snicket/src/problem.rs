//! What a person reads when something went wrong: what, why, and what to do next.

use std::fmt;

/// The work failed.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The command line, the environment or a configuration file is wrong; the same number that the parser of flags uses.
pub(crate) const EXIT_USAGE: u8 = 2;

/// A failure with advice. Wrap it around the error that caused it with [`anyhow::Context::context`], or return it
/// alone.
#[derive(Debug)]
pub(crate) struct Problem {
    what: String,
    advice: String,
    exit: u8,
}

impl Problem {
    /// Something outside refused or was not there.
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into(), exit: EXIT_FAILURE }
    }

    /// The person asked for something that makes no sense.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into(), exit: EXIT_USAGE }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}

/// An error taken apart for printing.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Report {
    event: &'static str,
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    exit: u8,
}

impl Report {
    /// Takes the chain of causes apart; the outermost [`Problem`] gives the advice and the exit code.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let problem = error.downcast_ref::<Problem>();
        let mut said = error.to_string();
        let mut why = Vec::new();
        for cause in error.chain().skip(1) {
            let text = cause.to_string();
            // Many libraries repeat their cause in their own text.
            if !said.contains(&text) {
                said.push_str(&text);
                // A list of mistakes has one a line.
                why.extend(text.lines().map(str::to_owned));
            }
        }
        Self {
            event: "error",
            error: error.to_string(),
            why,
            advice: problem.map(|problem| problem.advice.clone()).filter(|advice| !advice.is_empty()),
            exit: problem.map_or(EXIT_FAILURE, |problem| problem.exit),
        }
    }

    /// A command line that the parser of flags refused, whose own text says it all.
    pub(crate) fn of_usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
        let error = paragraphs.next().unwrap_or_default();
        Self {
            event: "error",
            error: error.strip_prefix("error: ").unwrap_or(error).to_owned(),
            why: Vec::new(),
            advice: Some(paragraphs.collect::<Vec<_>>().join("\n")).filter(|advice| !advice.is_empty()),
            exit: EXIT_USAGE,
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        for cause in &self.why {
            write!(f, "\n  because: {cause}")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n  what to do: {}", advice.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn says_what_why_and_what_to_do() {
        let error = Err::<(), _>(anyhow::anyhow!("address in use"))
            .context(Problem::usage("cannot listen on 127.0.0.1:80", "give another port"))
            .unwrap_err();
        let report = Report::of(&error);
        assert_eq!(report.exit(), EXIT_USAGE);
        let text = report.to_string();
        assert_eq!(
            text,
            "error: cannot listen on 127.0.0.1:80\n  because: address in use\n  what to do: give another port"
        );
    }

    #[test]
    fn mistakes_are_told_one_by_one() {
        let error = anyhow::anyhow!("a.yml:1:1: one\na.yml:2:1: two").context("the file is not usable");
        assert_eq!(
            Report::of(&error).to_string(),
            "error: the file is not usable\n  because: a.yml:1:1: one\n  because: a.yml:2:1: two"
        );
    }

    #[test]
    fn a_cause_said_already_is_not_repeated() {
        let error = anyhow::anyhow!("inner").context("outer: inner");
        assert_eq!(Report::of(&error).to_string(), "error: outer: inner");
    }
}
