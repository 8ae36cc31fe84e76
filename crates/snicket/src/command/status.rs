//! `snicket status`: how the edge is, as one of its nodes knows it.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::fetch::Trust;
use crate::local::LocalEdge;
use crate::paths;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::Secret;
use crate::table::Table;
use crate::v4::{Api, Certificate, Certificates, Node, Status};

/// Between two looks, with `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  snicket status
  snicket status --watch
  snicket status --edge https://tunnel.example.com:7845 --ca ca.pem --token-file api-token --json";

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Look again every two seconds
    #[arg(long)]
    watch: bool,
}

/// Which edge is meant, and who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// API address of a node, host[:port] or URL [default: the edge on this machine]
    #[arg(long, global = true, value_name = "ADDR", env = "SNICKET_EDGE", hide_env_values = true)]
    edge: Option<String>,
    /// Certificates to trust for it (its ca.pem)
    #[arg(long, global = true, value_name = "FILE", env = "SNICKET_CA", hide_env_values = true, requires = "edge")]
    ca: Option<PathBuf>,
    /// API token, in a file; `-` is standard input
    #[arg(long, global = true, value_name = "FILE", env = "SNICKET_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// Data directory of the edge on this machine, when it is not the default one
    #[arg(long, global = true, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
}

/// Asks and prints, once or until a signal.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let api = args.which.api()?;
    loop {
        let status = api.status().await;
        if args.watch && !screen.is_json() && std::io::stdout().is_terminal() {
            // To the top left, and everything below is empty.
            screen.say("\x1b[H\x1b[2J");
        }
        match status {
            Ok(status) => show(&status, screen)?,
            // Whoever watches wants to see it come back.
            Err(error) if args.watch => {
                screen.event(&json!({ "event": "unreachable", "error": error.to_string() }));
                screen.say(format!("{error:#}"));
            }
            Err(error) => return Err(error),
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Which {
    /// Its API.
    pub(crate) fn api(&self) -> anyhow::Result<Api> {
        // Who is used to curl sends a body by --data.
        if let Some(directory) = self.data.as_deref().filter(|directory| !directory.is_dir()) {
            let what = format!("--data: there is no directory {}", directory.display());
            return Err(Problem::usage(
                what,
                "name the data directory of an edge; `snicket api` sends what comes with -d",
            )
            .into());
        }
        let directory = self.data.clone().unwrap_or_else(paths::edge_data);
        let local = if self.edge.is_some() { None } else { LocalEdge::find(&directory)? };
        let (edge, ca, token_file) = match (&self.edge, local) {
            (Some(edge), _) => (edge.clone(), self.ca.clone(), self.token_file.clone()),
            (None, Some(local)) => (local.api, Some(local.ca), self.token_file.clone().or(Some(local.token_file))),
            (None, None) => {
                let advice =
                    "start one (`snicket up`), or name one with --edge HOST --ca ca.pem --token-file api-token";
                return Err(Problem::usage("no edge runs on this machine", advice).into());
            }
        };
        let token = token_file.as_deref().map(Secret::read).transpose()?;
        Api::new(&edge, token, Trust::choose(ca.as_deref(), None)?)
    }
}

fn show(status: &Status, screen: Screen) -> anyhow::Result<()> {
    let mut event = Map::from_iter([("event".to_owned(), Value::from("status"))]);
    if let Value::Object(keys) = serde_json::to_value(status).context("a status is plain JSON")? {
        event.extend(keys);
    }
    screen.event(&event);
    let mut table = Table::new(&["NODE", "PLACE", "AGENTS AT", "VERSION", "SINCE", "CONNECTIONS"]);
    for node in &status.nodes {
        let Node { name, location, addresses, version, started_at, connections, .. } = node;
        let agents: Vec<String> = addresses.tunnel.iter().map(ToString::to_string).collect();
        let name = if node.id == status.node { format!("{name} (asked)") } else { name.clone() };
        let since = format!("{started_at:.0}");
        table.row([name, location.clone(), agents.join(" "), version.clone(), since, connections.to_string()]);
    }
    screen.say(table.to_string());
    let tunnels = &status.tunnels;
    screen.say(format!(
        "\nTunnels   {}, {} of them connected ({} connections)",
        tunnels.total, tunnels.connected, tunnels.connections
    ));
    let heard = if status.registry.hears_all_nodes { "" } else { "; the other nodes are as they were last heard of" };
    screen.say(format!("Registry  at revision {}{heard}", status.registry.revision));
    if let Some(until) = status.certificates.node_expires_at {
        screen.say(format!("Node      certificate until {until:.0}, renewed by itself"));
    }
    show_certificates(&status.certificates, screen);
    Ok(())
}

fn show_certificates(certificates: &Certificates, screen: Screen) {
    if certificates.list.is_empty() {
        return;
    }
    let mut table = Table::new(&["CERTIFICATE", "STATE", "ISSUER", "EXPIRES", "LAST ERROR"]);
    for certificate in &certificates.list {
        let Certificate { name, state, issuer, expires_at, last_error, .. } = certificate;
        let expires = expires_at.map(|time| format!("{time:.0}")).unwrap_or_default();
        let (issuer, problem) = (issuer.clone().unwrap_or_default(), last_error.clone().unwrap_or_default());
        table.row([name.clone(), state.clone(), issuer, expires, problem]);
    }
    screen.say(format!("\n{table}"));
    if certificates.list.len() < certificates.total {
        screen.say(format!("and {} more without a problem", certificates.total - certificates.list.len()));
    }
}
