//! What `http`, `tcp` and `udp` have in common: an edge to go through, a tunnel of one's own at it, and an agent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent::Config;
use agent::edge::{Discovery, EdgeName};
use agent::ingress::Document;
use anyhow::Context as _;
use certs::tls::Roots;

use crate::bootstrap::{self, Known, QuickTunnel, Wish};
use crate::connector::Connector;
use crate::fetch::Trust;
use crate::inspect::Inspect;
use crate::local::LocalEdge;
use crate::logging::{Level, LogArgs, Logging};
use crate::problem::Problem;
use crate::remembered::Remembered;
use crate::secret::Secret;
use crate::{connector, paths};

/// The flags that say which edge.
#[derive(Debug, clap::Args)]
pub(crate) struct EdgeArgs {
    /// API address of the edge, host[:port] or URL [default: the edge on this machine]
    #[arg(long, value_name = "ADDR", env = "SNICKET_EDGE", hide_env_values = true)]
    edge: Option<String>,
    /// Name under the edge's domain [default: chosen by the edge]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Certificates to trust for the edge (its ca.pem)
    #[arg(long, value_name = "FILE", env = "SNICKET_CA", hide_env_values = true)]
    ca: Option<PathBuf>,
    /// API token of the edge, in a file; `-` is standard input
    #[arg(long, value_name = "FILE", env = "SNICKET_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// How to connect to the edge
    #[arg(long, value_name = "NAME", value_parser = ["auto", "quic", "http2"], default_value = "auto")]
    protocol: String,
    /// Data directory of the edge on this machine, when it is not the default one
    #[arg(long, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true, hide_short_help = true)]
    data: Option<PathBuf>,
}

/// The flags that say how the agent runs.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// Address of /ready and /metrics [default: localhost:20241 to 20245]
    #[arg(
        long, value_name = "ADDR", value_parser = connector::metrics_address, env = "SNICKET_METRICS",
        hide_env_values = true
    )]
    metrics: Option<SocketAddr>,
    /// Time for what is under way to end after a signal
    #[arg(long, value_name = "TIME", value_parser = super::up::duration, default_value = "30s", hide_short_help = true)]
    grace_period: Duration,
    #[command(flatten)]
    log: LogArgs,
}

impl AgentArgs {
    /// To be called first.
    pub(crate) fn start_logging(&self) -> anyhow::Result<()> {
        Logging::from(&self.log).start(Level::Warn)
    }

    /// The agent of this configuration.
    pub(crate) fn connector(&self, config: Config, inspect: Inspect) -> Connector {
        Connector { config, metrics: self.metrics, inspect, grace: self.grace_period, pidfile: None }
    }
}

/// How the edge is reached, and whom to trust.
pub(crate) struct Way {
    /// The API.
    pub(crate) api: String,
    /// Whom to trust there.
    pub(crate) trust: Trust,
    /// The certificates to trust, a file.
    pub(crate) ca: Option<PathBuf>,
    token: Option<Secret>,
    /// Where the API token is.
    pub(crate) token_file: Option<PathBuf>,
}

impl Way {
    /// Finds it. `alone` is what one can do without an edge.
    pub(crate) fn find(args: &EdgeArgs, alone: Option<&str>) -> anyhow::Result<Self> {
        let given = args.token_file.as_deref().map(Secret::read).transpose()?;
        if let Some(edge) = &args.edge {
            let trust = Trust::choose(args.ca.as_deref(), None)?;
            let token_file = args.token_file.clone();
            return Ok(Self { api: edge.clone(), trust, ca: args.ca.clone(), token: given, token_file });
        }
        let directory = args.data.clone().unwrap_or_else(paths::edge_data);
        const START: &str = "start one here with `snicket up`, name one with --edge HOST";
        let Some(local) = LocalEdge::find(&directory)? else {
            return Err(Problem::usage(
                "no edge is given, and none runs on this machine",
                match alone {
                    Some(alone) => format!("{START}, or see it alone: `{alone}`"),
                    None => START.to_owned(),
                },
            )
            .into());
        };
        let ca = args.ca.clone().unwrap_or(local.ca);
        // On one's own machine the token is at hand; where it is not readable, quick tunnels work without.
        let token = given.or_else(|| Secret::read(&local.token_file).ok());
        let token_file = token.is_some().then(|| args.token_file.clone().unwrap_or(local.token_file));
        Ok(Self { api: local.api, trust: Trust::file(&ca)?, ca: Some(ca), token, token_file })
    }

    /// The edge told its certificate over a way that was trusted already.
    fn roots(&self, known: &Known) -> Roots {
        self.ca.clone().map_or_else(|| Roots::Pem(known.ca.clone()), Roots::File)
    }
}

/// The tunnel of the last run for this origin or name, or a new one; of the wish, name and secret are filled in. An edge that has forgotten the tunnel makes it anew with the same
/// name and secret, and the same port if it can.
pub(crate) async fn tunnel(
    args: &EdgeArgs,
    way: &Way,
    known: &Known,
    origin: &str,
    wish: Wish,
) -> anyhow::Result<QuickTunnel> {
    let key = args.name.as_deref().unwrap_or(origin);
    let path = Remembered::path(&paths::state(), &format!("{} {}", way.api, known.domain), key);
    let remembered = Remembered::load(&path);
    let fresh = Wish { label: args.name.clone(), secret: None, ..wish };
    let mut wish = fresh.clone();
    if let Some(remembered) = &remembered {
        wish.label.get_or_insert_with(|| remembered.label().to_owned());
        wish.secret = Some(remembered.credentials()?.secret);
        if let Some(port) = &mut wish.port {
            port.prefer = remembered.port;
        }
    }
    let asked = bootstrap::quick_tunnel(&way.api, &way.trust, way.token.as_ref(), &wish).await;
    let tunnel = match asked {
        // Somebody else got the name meanwhile. Nobody asked for it by --name, so another one does as well.
        Err(_) if args.name.is_none() && remembered.is_some() => {
            bootstrap::quick_tunnel(&way.api, &way.trust, way.token.as_ref(), &fresh).await?
        }
        asked => asked?,
    };
    Remembered::new(&way.api, &tunnel.hostname, &tunnel.credentials, tunnel.port).store(&path)?;
    Ok(tunnel)
}

/// The configuration of an agent that serves the tunnel.
pub(crate) fn config(
    args: &EdgeArgs,
    way: &Way,
    known: &Known,
    tunnel: &QuickTunnel,
    document: Document,
) -> anyhow::Result<Config> {
    let edges = known.tunnel.iter().map(|address| address.parse()).collect::<Result<Vec<EdgeName>, _>>();
    let edges = edges.context(Problem::new("the edge tells no address for agents", "update the edge"))?;
    let mut config = connector::config(tunnel.credentials.clone(), edges, way.roots(known), document)?;
    config.discovery = Discovery::of(&known.domain, &config.edge);
    config.protocol = connector::protocol(&args.protocol);
    config.quick_hostname = Some(tunnel.hostname.clone());
    Ok(config)
}
