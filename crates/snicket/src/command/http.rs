//! `snicket http`: a local service behind a URL of an edge.

mod access;

use agent::ingress::Overrides;

use self::access::{AccessArgs, Wanted};
use super::share::{self, AgentArgs, EdgeArgs, Way};
use crate::bootstrap::{self, Wish};
use crate::connector;
use crate::inspect::InspectArgs;
use crate::origin::Origin;
use crate::ready::{self, Ready};
use crate::screen::{Paint, Screen};

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
    #[command(flatten)]
    edge: EdgeArgs,
    /// `Host` to show to the origin [default: the name in the URL]
    #[arg(long, value_name = "NAME")]
    host_header: Option<String>,
    /// Believe any certificate of the origin
    #[arg(long)]
    no_tls_verify: bool,
    #[command(flatten)]
    inspect: InspectArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Shares.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    args.agent.start_logging()?;
    let Wanted { rules, new_pin } = args.access.read().await?;
    let way = Way::find(&args.edge, Some(&format!("snicket try {}", args.origin.service())))?;
    let known = bootstrap::ask(&way.api, &way.trust).await?;
    let access = Some(rules).filter(|rules| !rules.is_empty());
    let wish = Wish { access, ..Wish::default() };
    let tunnel = share::tunnel(&args.edge, &way, &known, args.origin.service(), wish).await?;
    let overrides = Overrides {
        http_host_header: args.host_header.clone(),
        no_tls_verify: args.no_tls_verify.then_some(true),
        ..Overrides::default()
    };
    let document = connector::single(args.origin.service(), overrides)?;
    let config = share::config(&args.edge, &way, &known, &tunnel, document)?;
    let connector = args.agent.connector(config, (&args.inspect).into());
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
