//! `snicket services`: many services of one machine, as a file or Docker names them, each behind a name of an edge.

mod docker;
mod failures;
mod file;
mod keeper;
mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::keeper::Keeper;
use self::service::Service;
use super::status::Which;
use super::up::duration;
use crate::logging::{Level, LogArgs, Logging};
use crate::notify::{self, Watchdog};
use crate::problem::Problem;
use crate::ready::Ready;
use crate::screen::Screen;
use crate::signals::Signals;
use crate::{connector, report};

/// Where Docker listens unless it is told otherwise.
const SOCKET: &str = "/var/run/docker.sock";

const EXAMPLES: &str = "\
Examples:
  snicket services services.yml
  snicket services --docker
  snicket services services.yml --docker --edge tunnel.example.com --ca ca.pem --token-file api-token

The file, read again when it changes (or at SIGHUP):
  services:
    - hostname: app.example.com
      url: http://localhost:3000
    - hostname: shop.example.com
      url: http://localhost:3001
      pool: shop                 # with other machines behind the same name
      labels: [rack=7]

Labels of a container: snicket.hostname, snicket.port, snicket.pool, snicket.label.NAME. More: docs/discovery.md";

/// Arguments of `services`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The services, a YAML file
    #[arg(required_unless_present = "docker")]
    file: Option<PathBuf>,
    /// Containers with the label snicket.hostname, too, as the Docker at this socket runs them
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, default_missing_value = SOCKET)]
    docker: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// How to connect to the edge
    #[arg(long, value_name = "NAME", value_parser = ["auto", "quic", "http2"], default_value = "auto")]
    protocol: String,
    /// Time for requests of a service to end when it goes
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    grace_period: Duration,
    #[command(flatten)]
    log: LogArgs,
}

/// What a source names; `None`: nothing is known of it yet.
type Named = Option<Vec<Service>>;

/// Registers and serves them, until a signal.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    Logging::from(&args.log).start(Level::Warn)?;
    let signals = Signals::install().context("signals cannot be watched")?;
    let api = args.which.api()?;
    let origin = api.origin().to_owned();
    let (named_by_file, mut by_file) = watch::channel(None);
    let (named_by_docker, mut by_docker) = watch::channel(None);
    if let Some(path) = args.file.clone() {
        named_by_file.send_replace(Some(file::load(&path)?));
        tokio::spawn(file::follow(path, named_by_file, signals.clone(), screen));
    }
    if let Some(socket) = args.docker.clone() {
        tokio::spawn(docker::follow(socket, named_by_docker));
    }
    let mut keeper = Keeper::new(api, connector::protocol(&args.protocol), args.grace_period, screen).await?;
    screen.detach().context("no thread can be started")?;
    let mut watchdog = None;
    loop {
        let sources = [by_file.borrow_and_update().clone(), by_docker.borrow_and_update().clone()];
        let wanted = merged(&sources);
        let again = tokio::select! {
            again = keeper.settle(&wanted) => again,
            () = signals.draining() => break,
        };
        if watchdog.is_none() {
            announce(&origin, keeper.count(), screen);
            watchdog = Some(Watchdog::start());
        }
        tokio::select! {
            Ok(()) = by_file.changed() => (),
            Ok(()) = by_docker.changed() => (),
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => (),
            () = signals.draining() => break,
            // Without a source that still runs there is nothing to wait for but the end.
            else => signals.draining().await,
        }
    }
    notify::systemd("STOPPING=1");
    connector::draining(args.grace_period, screen);
    tokio::select! {
        () = keeper.leave() => (),
        () = signals.cut() => (),
    }
    screen.event(&json!({ "event": "stopped", "time": report::now() }));
    Ok(())
}

fn announce(api: &str, count: usize, screen: Screen) {
    screen.event(&Ready { command: "services", api: Some(api.to_owned()), ..Ready::default() });
    screen.say(format!("{count} services are registered at {api}. Ctrl-C stops.\n"));
    notify::systemd("READY=1");
}

/// All that the sources name, by their tunnels. Of two that would have the same one, the first counts.
fn merged(sources: &[Named]) -> BTreeMap<String, Service> {
    let mut wanted = BTreeMap::new();
    for service in sources.iter().flatten().flatten() {
        if wanted.len() == Service::MOST {
            tracing::warn!(most = Service::MOST, "there are more services than one agent has; the others are left out");
            break;
        }
        if let Some(other) = wanted.insert(service.tunnel.clone(), service.clone()).filter(|other| other != service) {
            tracing::warn!(
                hostname = service.hostname,
                url = service.url,
                other = other.url,
                "two services have the same name; with `pool` they share it, and as they are the first one has it"
            );
            wanted.insert(other.tunnel.clone(), other);
        }
    }
    wanted
}

/// A mistake in the command line.
fn unreadable(path: &std::path::Path) -> Problem {
    Problem::usage(
        format!("the file of services {} is not usable", path.display()),
        "correct what is named; `snicket services --help` has an example",
    )
}
