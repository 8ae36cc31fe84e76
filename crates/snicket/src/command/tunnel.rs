//! `snicket tunnel`: named tunnels with the commands, flags, variables and files of cloudflared (section 17).

mod flags;
mod ingress;
mod login;
mod manage;
mod port;
mod run;
mod session;

use agent::file::find_credentials;
use clap::Subcommand;

use flags::{Flags, Settings};
pub(crate) use login::certificate;

use super::service::Facts;
use crate::logging::Form;
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  snicket tunnel create web                      a tunnel; writes its credentials file
  snicket tunnel route dns web www.example.com   give it a name
  snicket tunnel run --url http://localhost:3000 web
  snicket tunnel --config config.yml run         rules from a file
  snicket tunnel run --token-file web.token      serve elsewhere, with nothing but the token
  snicket tunnel --url http://localhost:3000     a quick tunnel, name chosen by the edge
  snicket tunnel --name web --hostname www.example.com --url http://localhost:3000
  snicket tunnel --hostname www.example.com --lb-pool web --url http://localhost:3000

Flags stand anywhere; flag, then environment, then file, then default. All: docs/named-tunnels.md";

/// Arguments of `tunnel`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Create this tunnel if need be, give it --hostname, and run it
    #[arg(long, short = 'n', value_name = "NAME")]
    name: Option<String>,
    /// The public name, together with --name
    #[arg(long, value_name = "NAME", env = "TUNNEL_HOSTNAME", hide_env_values = true)]
    hostname: Option<String>,
    /// Share --hostname with all who name this pool
    #[arg(long, value_name = "POOL", env = "TUNNEL_LB_POOL", hide_env_values = true)]
    lb_pool: Option<String>,
    /// Form of diagnostics: default or json
    #[arg(long = "output", value_name = "FORM", env = "TUNNEL_LOG_OUTPUT", hide_env_values = true, hide = true)]
    log_form: Option<Form>,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Action>,
}

/// What to do with tunnels. Without one, the short forms of the example.
#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch the right to manage tunnels of an edge (cert.pem)
    Login(login::Args),
    /// Make a tunnel and write its credentials file
    Create(manage::Create),
    /// List tunnels
    List(manage::List),
    /// Show the connectors of a tunnel
    Info(manage::Info),
    /// Delete tunnels
    Delete(manage::Delete),
    /// Drop the connections of tunnels
    Cleanup(manage::Cleanup),
    /// Print or write what serves a tunnel from elsewhere
    Token(manage::Token),
    /// Serve a tunnel
    Run(run::Args),
    /// Give a tunnel a public name
    Route(manage::Route),
    /// Give tunnels public ports for TCP and UDP
    Port(port::Args),
    /// Look at ingress rules
    Ingress(ingress::Args),
    /// Say whether the agent on this machine is connected
    Ready(Ready),
}

const READY_EXAMPLES: &str = "\
Example:
  snicket tunnel --metrics localhost:20241 ready && echo connected";

/// Arguments of `tunnel ready`.
#[derive(Debug, clap::Args)]
#[command(after_help = READY_EXAMPLES)]
struct Ready {}

/// What a service of this agent depends on, its configuration file included.
pub(crate) fn service_facts(args: &Args) -> anyhow::Result<Facts> {
    let Settings { values, path } = args.flags.settings()?;
    let needs_tunnel = matches!(args.command, Some(Action::Run(_)));
    let has_token = values.token.is_some() || values.credentials_contents.is_some();
    let found = || find_credentials(values.tunnel.as_deref()?.parse().ok()?, values.origincert.as_deref());
    let credentials = values.credentials_file.clone().or_else(|| (needs_tunnel && !has_token).then(found).flatten());
    let knows_tunnel = !needs_tunnel || has_token || values.token_file.is_some() || credentials.is_some();
    let files = [
        ("token-file", values.token_file),
        ("credentials-file", credentials),
        ("origincert", values.origincert),
        ("cacert", values.cacert),
    ];
    Ok(Facts {
        config: path,
        files: files.into_iter().filter_map(|(flag, file)| Some((flag, file?))).collect(),
        knows_edge: !values.edge.is_empty(),
        knows_tunnel,
        grace: values.grace_period,
        ports: Vec::new(),
    })
}

/// Does what was asked.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let Args { flags, name, hostname, lb_pool, log_form, command } = args;
    match command {
        Some(Action::Login(args)) => login::run(args, &flags, screen).await,
        Some(Action::Create(args)) => manage::create(args, &flags, screen).await,
        Some(Action::List(args)) => manage::list(args, &flags, screen).await,
        Some(Action::Info(args)) => manage::info(args, &flags, screen).await,
        Some(Action::Delete(args)) => manage::delete(args, &flags, screen).await,
        Some(Action::Cleanup(args)) => manage::cleanup(args, &flags, screen).await,
        Some(Action::Token(args)) => manage::token(args, &flags, screen).await,
        Some(Action::Route(args)) => manage::route(args, &flags, screen).await,
        Some(Action::Port(args)) => port::run(args, &flags, screen).await,
        Some(Action::Ingress(args)) => ingress::run(args, &flags, screen),
        Some(Action::Ready(Ready {})) => super::health::agent(flags.metrics.as_deref(), screen).await,
        Some(Action::Run(args)) => run::run(args, &flags, log_form, screen).await,
        None => run::short(run::Wanted { name, hostname, pool: lb_pool }, &flags, log_form, screen).await,
    }
}
