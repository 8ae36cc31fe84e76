//! `snicket completions`: a script for the shell.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::cli::Cli;
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  snicket completions bash > ~/.local/share/bash-completion/completions/snicket
  snicket completions zsh > ~/.zfunc/_snicket
  snicket completions fish > ~/.config/fish/completions/snicket.fish";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args, screen: Screen) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "snicket", &mut script);
    let script = String::from_utf8(script).expect("scripts are text");
    screen.event(&json!({ "event": "completions", "shell": args.shell.to_string(), "script": script }));
    screen.say(script.trim_end());
}
