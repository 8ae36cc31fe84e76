//! The command lines and flags of README.md and docs/, put through the parser, so that the pages cannot rot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use super::Cli;

/// A command line as a page has it.
#[derive(Debug)]
struct Line {
    #[expect(dead_code, reason = "shown when a test fails")]
    page: String,
    text: String,
    /// In a block, to be typed; otherwise named in a sentence, where what is needed may be left out.
    typed: bool,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = std::fs::read_dir(root.join("docs")).expect("docs/ is there");
    let docs = docs.map(|entry| entry.expect("docs/ can be read").path());
    let mut pages: Vec<_> = docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    pages.push(root.join("README.md"));
    pages
}

fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for path in pages() {
        let text = std::fs::read_to_string(&path).expect("a page can be read").replace("\\\n", " ");
        let page = path.file_name().expect("a page has a name").to_string_lossy().into_owned();
        for (number, part) in text.split("```").enumerate() {
            let typed = number % 2 == 1;
            let texts: Vec<&str> =
                if typed { part.lines().collect() } else { part.split('`').skip(1).step_by(2).collect() };
            let found = texts.into_iter().filter_map(|text| command(text, typed));
            lines.extend(found.map(|text| Line { page: page.clone(), text, typed }));
        }
    }
    lines
}

/// What of a line is for this program, without its name, without what explains it and without what is the shell's.
fn command(line: &str, typed: bool) -> Option<String> {
    let line = line.trim().replace('\n', " ");
    let line = line.strip_prefix("sudo ").unwrap_or(&line);
    let ours = if let Some(rest) = line.strip_prefix("snicket ") {
        rest
    } else if typed && line.starts_with("podman run ") {
        line.rsplit_once(" snicket ")?.1.trim_start()
    } else if let Some(rest) = line.strip_prefix("ExecStart=/usr/local/bin/snicket ") {
        rest
    } else {
        line.strip_prefix("cargo run --release -- ")?
    };
    let end = ["  ", " < ", " > ", " | ", " #"].iter().filter_map(|end| ours.find(end)).min();
    Some(ours[..end.unwrap_or(ours.len())].to_owned())
}

/// The words of a shell, with something in the place of those that stand for something.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in text.chars() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(begun)) if letter == begun => quote = None,
            (' ', None) => words.push(String::new()),
            // Around what may be left out.
            ('[' | ']', None) => (),
            (letter, _) => words.last_mut().expect("there is always one").push(letter),
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty() && word != "…");
    words
        .map(|word| match word.as_str() {
            "CODE" => "1033".to_owned(),
            "SHELL" => "bash".to_owned(),
            "URL" => "https://www.example.test/".to_owned(),
            _ => word,
        })
        .collect()
}

#[test]
fn every_command_line_is_one_of_the_program() {
    let lines = lines();
    assert!(
        lines.iter().filter(|line| line.typed).count() > 15,
        "the pages are not read as they are written: {lines:?}"
    );
    for line in lines {
        let words = std::iter::once("snicket".to_owned()).chain(words(&line.text));
        let Err(error) = Cli::try_parse_from(words) else { continue };
        let incomplete = matches!(
            error.kind(),
            ErrorKind::MissingRequiredArgument
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        ) || error.to_string().contains("none was supplied");
        assert!(!line.typed && incomplete || error.kind() == ErrorKind::DisplayHelp, "{line:?}: {error}");
    }
}

/// Flags of container runtimes, which docs/container.md recommends.
const OF_OTHERS: [&str; 4] = ["cap-drop", "format", "read-only", "security-opt"];

#[test]
fn every_flag_is_one_of_the_program() {
    fn flags(command: &clap::Command, found: &mut BTreeSet<String>) {
        for flag in command.get_arguments() {
            let names = flag.get_long_and_visible_aliases().into_iter().flatten();
            let hidden = flag.get_all_aliases().into_iter().flatten();
            found.extend(names.chain(hidden).map(str::to_owned));
        }
        for inner in command.get_subcommands() {
            flags(inner, found);
        }
    }
    let mut known = BTreeSet::from(["help", "version"].map(str::to_owned));
    flags(&Cli::command(), &mut known);
    for path in pages() {
        let text = std::fs::read_to_string(&path).expect("a page can be read");
        let ours = text.lines().filter(|line| !["curl ", "cargo ", "podman "].iter().any(|other| line.contains(other)));
        let words = ours.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
        for flag in
            words.filter_map(|word| word.strip_prefix("--")).filter(|flag| flag.starts_with(char::is_alphabetic))
        {
            assert!(known.contains(flag) || OF_OTHERS.contains(&flag), "{}: no command has --{flag}", path.display());
        }
    }
}

#[test]
fn every_command_is_on_some_page() {
    let pages: String = pages().iter().map(|path| std::fs::read_to_string(path).expect("a page can be read")).collect();
    for command in Cli::command().get_subcommands() {
        let name = format!("snicket {}", command.get_name());
        assert!(pages.contains(&name), "no page tells of `{name}`");
    }
}
