//! `snicket completions`: a script for the shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

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
pub(crate) fn run(args: &Args) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "snicket", &mut script);
    // A reader that has gone is no failure of ours.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
}
