//! The command line: what people type, and the help they read.

#[cfg(test)]
mod documents;

use clap::{Parser, Subcommand};

use crate::command::{
    api, cloudflared, completions, dns, doctor, explain, health, http, node, pools, registry, service, services,
    status, tcp, try_out, tunnel, udp, up,
};

const EXAMPLES: &str = "\
Examples:
  snicket try                       a page to look at; nothing leaves this machine
  snicket try 3000                  a URL for what runs on port 3000, on this machine only
  snicket up                        an edge on this machine; then, beside it:
  snicket http 3000                 a URL through that edge
  snicket http 3000 --edge HOST     a URL through an edge elsewhere
  snicket doctor                    what could be in the way

Exit codes: 0 done, 1 failed, 2 wrong command line or configuration.";

/// Behind the flags of the command itself.
const LAST: usize = 1000;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "snicket",
    version,
    about = "A URL for a local web server, through an edge that you run yourself.",
    after_help = EXAMPLES,
    infer_subcommands = false,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    disable_help_flag = true
)]
pub(crate) struct Cli {
    /// Print one JSON object per line, for programs
    #[arg(long, global = true, display_order = LAST)]
    pub(crate) json: bool,

    /// Print help
    // One form only: the long one, with an empty line between flags, is more than a screen.
    #[arg(long, short, global = true, display_order = LAST, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try it: an edge and an agent in one process, on this machine only
    Try(try_out::Args),
    /// Run an edge: all listeners, own certificate authority, embedded registry
    Up(Box<up::Args>),
    /// Share a local service through an edge
    Http(http::Args),
    /// Share a TCP service, such as SSH or a database, at a port of an edge
    Tcp(tcp::Args),
    /// Share a UDP service, such as DNS or a game, at a port of an edge
    Udp(udp::Args),
    /// Named tunnels, with cloudflared's commands and flags
    Tunnel(Box<tunnel::Args>),
    /// Share all services that a file or Docker names, as they come and go
    Services(Box<services::Args>),
    /// Print what a stock cloudflared needs to join this edge
    Cloudflared(cloudflared::Args),
    /// Say how an edge is: nodes, tunnels, registry
    Status(status::Args),
    /// Show and change zones and their DNS records
    Dns(Box<dns::Args>),
    /// Show and change pools: who serves, how they are, and who gets how much
    Pools(Box<pools::Args>),
    /// Call the edge's API by hand
    Api(Box<api::Args>),
    /// Let another machine become a node of this edge
    Node(Box<node::Args>),
    /// Export all that is configured, or import it
    Registry(Box<registry::Args>),
    /// Have systemd run an agent or an edge
    Service(service::Args),
    /// Say whether an agent or an edge on this machine is ready
    Health(health::Args),
    /// Look for what could be in the way
    Doctor(doctor::Args),
    /// Say what a code on an error page means, and what to do
    Explain(explain::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What fits on a terminal of ordinary height.
    const SCREEN_LINES: usize = 50;

    fn each_command(command: &mut clap::Command, visit: &mut impl FnMut(&mut clap::Command)) {
        visit(command);
        for inner in command.get_subcommands_mut() {
            each_command(inner, visit);
        }
    }

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_help_fits_one_screen_and_has_examples() {
        let mut command = Cli::command().term_width(100);
        command.build();
        each_command(&mut command, &mut |command| {
            let help = command.render_help().to_string();
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            assert!(help.contains("Example"), "{name} has no example:\n{help}");
            assert!(help.lines().count() <= SCREEN_LINES, "{name}: {} lines\n{help}", help.lines().count());
        });
    }
}
