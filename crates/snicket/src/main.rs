//! The program `snicket`: parses the command line, starts roles, prints for people or as JSON lines.

mod acme;
mod bootstrap;
mod cli;
mod command;
mod connector;
mod fetch;
mod heap;
mod inspect;
mod joined;
mod keep;
mod local;
mod logging;
mod node;
mod notify;
mod origin;
mod paths;
mod pile;
mod ports;
mod problem;
mod ready;
mod remembered;
mod report;
mod screen;
mod secret;
mod signals;
mod table;
mod v4;
mod whereabouts;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use problem::Report;
use screen::Screen;

/// Tasks that a busy thread goes through before it looks at what the network has brought. Each step of a request waits for such a look: with the
/// usual 61, some milliseconds while an attack keeps all threads busy. A look takes about a microsecond.
const TURNS: u32 = 16;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let screen = Screen::new(cli.json);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(TURNS)
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command, screen)));
    logging::flush();
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let report = Report::of(&error);
            screen.event(&report);
            eprintln!("{report}");
            ExitCode::from(report.exit())
        }
    };
    screen::flush();
    code
}

/// Ends as the parser of flags would, be it that help was asked for, after telling a program what is wrong.
fn refuse(error: &clap::Error) -> ! {
    let json = std::env::args_os().any(|word| word == "--json");
    if error.use_stderr() {
        Screen::new(json).event(&Report::of_usage(error));
    }
    error.exit()
}

async fn run(command: Command, screen: Screen) -> anyhow::Result<()> {
    // Ends with the runtime.
    tokio::spawn(heap::keep_small());
    match command {
        Command::Try(args) => command::try_out::run(args, screen).await,
        Command::Up(args) => command::up::run(*args, screen).await,
        Command::Http(args) => command::http::run(args, screen).await,
        Command::Tcp(args) => command::tcp::run(args, screen).await,
        Command::Udp(args) => command::udp::run(args, screen).await,
        Command::Tunnel(args) => command::tunnel::run(*args, screen).await,
        Command::Services(args) => command::services::run(*args, screen).await,
        Command::Cloudflared(args) => command::cloudflared::run(args, screen).await,
        Command::Status(args) => command::status::run(args, screen).await,
        Command::Api(args) => command::api::run(*args, screen).await,
        Command::Dns(args) => command::dns::run(*args, screen).await,
        Command::Pools(args) => command::pools::run(*args, screen).await,
        Command::Node(args) => command::node::run(*args, screen).await,
        Command::Registry(args) => command::registry::run(*args, screen).await,
        Command::Service(args) => command::service::run(args, screen),
        Command::Health(args) => command::health::run(args, screen).await,
        Command::Doctor(args) => command::doctor::run(args, screen).await,
        Command::Explain(args) => command::explain::run(&args, screen),
        Command::Completions(args) => {
            command::completions::run(&args, screen);
            Ok(())
        }
    }
}
