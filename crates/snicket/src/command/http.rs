//! `snicket http`: a local service behind a URL of an edge.

mod access;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent::edge::EdgeName;
use agent::ingress::Overrides;
use anyhow::Context as _;
use certs::tls::Roots;
use policy::Access;

use self::access::{AccessArgs, Wanted};
use crate::bootstrap::{self, Known, QuickTunnel, Wish};
use crate::connector::{self, Connector};
use crate::fetch::Trust;
use crate::inspect::InspectArgs;
use crate::local::LocalEdge;
use crate::logging::{Level, LogArgs, Logging};
use crate::origin::Origin;
use crate::paths;
use crate::problem::Problem;
use crate::ready::{self, Ready};
use crate::remembered::Remembered;
use crate::screen::{Paint, Screen};
use crate::secret::Secret;

const EXAMPLES: &str = "\
Examples:
  snicket http 3000                                  through the edge on this machine
  snicket http 3000 --edge tunnel.example.com --ca ca.pem
  snicket http 3000 --name web --token-file token    a name of one's own choice
  snicket http https://localhost:8443 --no-tls-verify
  snicket http 3000 --pin                            visitors need the PIN that is shown
  snicket http 3000 --basic ann --allow 192.0.2.0/24 --header -Cookie --rewrite /api=/v1

The same name comes again on the next run. What is needed for that is kept in $XDG_STATE_HOME/snicket.";

/// Arguments of `http`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What the URL leads to: a port, host:port or a URL
    origin: Origin,
    /// API address of the edge, host[:port] or URL [default: the edge on this machine]
    #[arg(long, value_name = "ADDR", env = "SNICKET_EDGE", hide_env_values = true)]
    edge: Option<String>,
    /// Name in the URL [default: chosen by the edge]
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
    /// `Host` to show to the origin [default: the name in the URL]
    #[arg(long, value_name = "NAME")]
    host_header: Option<String>,
    /// Believe any certificate of the origin
    #[arg(long)]
    no_tls_verify: bool,
    /// Address of /ready and /metrics [default: localhost:20241 to 20245]
    #[arg(
        long, value_name = "ADDR", value_parser = connector::metrics_address, env = "SNICKET_METRICS",
        hide_env_values = true
    )]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    inspect: InspectArgs,
    /// Time for requests to end after a signal
    #[arg(long, value_name = "TIME", value_parser = super::up::duration, default_value = "30s", hide_short_help = true)]
    grace_period: Duration,
    /// Data directory of the edge on this machine, when it is not the default one
    #[arg(long, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true, hide_short_help = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Shares.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    Logging::from(&args.log).start(Level::Warn)?;
    let Wanted { rules, new_pin } = args.access.read().await?;
    let way = Way::find(&args)?;
    let known = bootstrap::ask(&way.api, &way.trust).await?;
    let tunnel = tunnel(&args, &way, &known, &rules).await?;
    let overrides = Overrides {
        http_host_header: args.host_header.clone(),
        no_tls_verify: args.no_tls_verify.then_some(true),
        ..Overrides::default()
    };
    let document = connector::single(args.origin.service(), overrides)?;
    let edges = known.tunnel.iter().map(|address| address.parse()).collect::<Result<Vec<EdgeName>, _>>();
    let edges = edges.context(Problem::new("the edge tells no address for agents", "update the edge"))?;
    let mut config = connector::config(tunnel.credentials, edges, way.roots(&known), document)?;
    config.protocol = connector::protocol(&args.protocol);
    config.quick_hostname = Some(tunnel.hostname.clone());
    let connector = Connector {
        config,
        metrics: args.metrics,
        inspect: (&args.inspect).into(),
        grace: args.grace_period,
        pidfile: None,
    };
    let (https, http) = known.ports();
    let ready = |facts: Ready, screen: Screen| {
        let ready = Ready {
            command: "http",
            url: Some(ready::url("https", &tunnel.hostname, https)),
            http_url: Some(ready::url("http", &tunnel.hostname, http)),
            origin: Some(args.origin.service().to_owned()),
            api: Some(way.api.clone()),
            ca: way.ca.clone(),
            token_file: way.token_file.clone(),
            pin: new_pin,
            ..Ready::from(&known).or(facts)
        };
        announce(&ready, &args.origin, screen);
    };
    connector.serve(screen, ready).await
}

/// How the edge is reached, and whom to trust.
struct Way {
    api: String,
    trust: Trust,
    ca: Option<PathBuf>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
}

impl Way {
    fn find(args: &Args) -> anyhow::Result<Self> {
        let given = args.token_file.as_deref().map(Secret::read).transpose()?;
        if let Some(edge) = &args.edge {
            let trust = Trust::choose(args.ca.as_deref(), None)?;
            let token_file = args.token_file.clone();
            return Ok(Self { api: edge.clone(), trust, ca: args.ca.clone(), token: given, token_file });
        }
        let directory = args.data.clone().unwrap_or_else(paths::edge_data);
        let Some(local) = LocalEdge::find(&directory)? else {
            return Err(Problem::usage(
                "no edge is given, and none runs on this machine",
                format!(
                    "start one here with `snicket up`, name one with --edge HOST, or see it alone: `snicket try {}`",
                    args.origin.service()
                ),
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

/// The tunnel of the last run, or a new one. An edge that has forgotten the tunnel makes it anew with the same name and
/// secret.
async fn tunnel(args: &Args, way: &Way, known: &Known, rules: &Access) -> anyhow::Result<QuickTunnel> {
    let key = args.name.as_deref().unwrap_or_else(|| args.origin.service());
    let path = Remembered::path(&paths::state(), &format!("{} {}", way.api, known.domain), key);
    let remembered = Remembered::load(&path);
    let access = Some(rules).filter(|rules| !rules.is_empty());
    let mut wish = Wish { label: args.name.clone(), secret: None, access: access.cloned() };
    if let Some(remembered) = &remembered {
        wish.label.get_or_insert_with(|| remembered.label().to_owned());
        wish.secret = Some(remembered.credentials()?.secret);
    }
    let asked = bootstrap::quick_tunnel(&way.api, &way.trust, way.token.as_ref(), &wish).await;
    let tunnel = match asked {
        // Somebody else got the name meanwhile. Nobody asked for it by --name, so another one does as well.
        Err(_) if args.name.is_none() && remembered.is_some() => {
            bootstrap::quick_tunnel(
                &way.api,
                &way.trust,
                way.token.as_ref(),
                &Wish { access: wish.access.clone(), ..Wish::default() },
            )
            .await?
        }
        asked => asked?,
    };
    Remembered::new(&way.api, &tunnel.hostname, &tunnel.credentials).store(&path)?;
    Ok(tunnel)
}

fn announce(ready: &Ready, origin: &Origin, screen: Screen) {
    screen.event(ready);
    let (url, plain) = (ready.url.as_deref().unwrap_or_default(), ready.http_url.as_deref().unwrap_or_default());
    screen.say(format!("\n{}\n{plain}\n", screen.paint(Paint::Bold, url)));
    if let Some(pin) = &ready.pin {
        screen.say(format!("PIN for visitors: {}\n", screen.paint(Paint::Bold, pin)));
    }
    let protocol = ready.protocol.as_deref().unwrap_or_default();
    screen.say(format!(
        "leads to {origin}, through {} ({protocol}). Ctrl-C stops.",
        ready.api.as_deref().unwrap_or_default()
    ));
    if let Some(ca) = &ready.ca {
        let hint = format!("curl --cacert {} {url}", ca.display());
        screen.say(format!("Programs trust it with the edge's CA: {}\n", screen.paint(Paint::Dim, &hint)));
    }
}
