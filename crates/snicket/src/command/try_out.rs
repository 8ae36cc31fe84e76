//! `snicket try`: an edge and an agent in one process, on loopback, through a real tunnel connection.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::ingress::Overrides;
use agent::{Agent, Running};
use anyhow::Context as _;
use certs::tls::Roots;
use jiff::Timestamp;
use registry::{Hostname, QuickName, Registry, Tunnel};
use serde_json::json;
use wire::identity::{Credentials, TunnelSecret};

use crate::command::up::{DOMAIN, HTTP_PORT, HTTPS_PORT, stop, tell};
use crate::inspect::{self, Inspect, InspectArgs};
use crate::keep::{Keep, Place};
use crate::logging::{Level, LogArgs, Logging};
use crate::node::{self, Blueprint, Listening, Node, Wishes};
use crate::origin::Origin;
use crate::ports::{Listen, Wish};
use crate::problem::Problem;
use crate::ready::{self, Ready};
use crate::screen::{Paint, Screen};
use crate::signals::Signals;
use crate::whereabouts::GeoArgs;
use crate::{connector, notify, paths, report, secret};

/// Where the edge is, in `cf-ray` and the agent's log.
const LOCATION: &str = "here";

/// The file with the name, in the data directory.
const NAME_FILE: &str = "name";

/// Both ends are in this process, so whatever takes longer has gone wrong.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Nobody else waits for the requests of a trial.
const GRACE: Duration = Duration::from_secs(5);

/// An origin on this machine that takes longer to accept is shown as absent, which is only a hint.
const ORIGIN_LIMIT: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  snicket try                      a page to look at
  snicket try 3000                 what runs on port 3000
  snicket try http://127.0.0.1:3000
  snicket try 3000 --json          for programs: the first line has the URL

Nothing leaves this machine, and only the certificate authority and the name are kept.
To have others see it: `snicket up` on a machine that they reach, `snicket http 3000 --edge HOST` here.";

/// Arguments of `try`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What the URL leads to: a port, host:port or a URL. Without: a built-in page
    origin: Option<Origin>,
    /// Name in the URL [default: two words, the same on every run]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Plain HTTP: port or address [default: 8080]
    #[arg(long, value_name = "ADDR", env = "SNICKET_HTTP", hide_env_values = true)]
    http: Option<Listen>,
    /// HTTPS, TCP and UDP [default: 8443]
    #[arg(long, value_name = "ADDR", env = "SNICKET_HTTPS", hide_env_values = true)]
    https: Option<Listen>,
    /// How the agent and the edge talk
    #[arg(long, value_name = "NAME", value_parser = ["auto", "quic", "http2"], default_value = "auto")]
    protocol: String,
    #[command(flatten)]
    inspect: InspectArgs,
    /// Certificate authority and name [default: $XDG_DATA_HOME/snicket/try]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs both ends until a signal ends them.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    Logging::from(&args.log).start(Level::Warn)?;
    let signals = Signals::install().context("signals cannot be watched")?;
    screen.detach().context("no thread can be started")?;
    let data = args.data.clone().unwrap_or_else(paths::try_data);
    let origin = args.origin.clone().unwrap_or_else(Origin::hello);
    let Listening { sockets, notices, .. } = wishes(&args).bind()?;
    let domain = Hostname::parse(DOMAIN).context("localhost is a name")?;
    let blueprint = Blueprint {
        domain: domain.clone(),
        location: LOCATION.to_owned(),
        advertise: None,
        data: data.clone(),
        keep: Keep { place: Place::InMemory, data: data.clone(), secrets_key: None },
        own: None,
        acme: None,
        quick_tunnels: api::QuickTunnels::Off,
        origin_networks: Vec::new(),
        limits: edge::Limits::default(),
        ports: None,
        geo: GeoArgs::default(),
    };
    let node = blueprint.start(sockets, None).await?;
    let token = TokenFile::write(&data, &node)?;
    let (hostname, credentials) = tunnel(&node.registry, &domain, args.name.as_deref(), &data).await?;
    let inspect = Inspect::from(&args.inspect);
    let agent = connect(&node, credentials, &origin, &args.protocol, inspect).await?;
    // From here on, so that nothing is missed of what happens as soon as the URL is told.
    let (events, requests) = (agent.events(), node.running.requests());

    announce(&node, &token, &agent, &hostname, &origin, screen);
    tell(&notices, screen);
    if let Some(hint) = silence(&origin).await {
        screen.say(hint);
    }
    notify::systemd("READY=1");
    let shown = tokio::spawn(report::answers(events, screen));
    let refused = tokio::spawn(report::refusals(requests, screen));
    tokio::select! {
        () = signals.draining() => (),
        () = node.keep_house(signals.clone()) => (),
    }
    notify::systemd("STOPPING=1");
    connector::draining(GRACE, screen);
    // Both at once: an agent that were left until the edge is gone would try to reach it again.
    tokio::join!(stop(&node.running, GRACE, &signals), connector::finish(&agent, GRACE, &signals));
    shown.abort();
    refused.abort();
    screen.event(&json!({ "event": "stopped", "time": report::now() }));
    Ok(())
}

/// The API token of this run, whose registry ends with it; so does the file.
struct TokenFile(PathBuf);

impl TokenFile {
    fn write(data: &Path, node: &Node) -> anyhow::Result<Self> {
        let token = node.first_token.as_deref().context("a registry in memory has no token yet")?;
        // Several runs at once share the directory.
        let path = data.join(format!("{}.{}", node::TOKEN_FILE, std::process::id()));
        secret::write_private(&path, format!("{token}\n").as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn wishes(args: &Args) -> Wishes {
    let ip = Ipv4Addr::LOCALHOST.into();
    // Only this process uses the two others, so any port does.
    let own = Wish::Asked((ip, 0).into());
    Wishes {
        http: Wish::new(args.http, ip, HTTP_PORT),
        https: Wish::new(args.https, ip, HTTPS_PORT),
        tunnel: vec![own],
        api: own,
        dns: None,
        dns_tls: None,
    }
}

/// A quick tunnel with the wished name, else with that of the last run, else with a new one that is kept for the next.
async fn tunnel(
    registry: &Registry,
    domain: &Hostname,
    wished: Option<&str>,
    data: &Path,
) -> anyhow::Result<(Hostname, Credentials)> {
    let file = data.join(NAME_FILE);
    let kept =
        secret::read_file(&file).ok().map(|text| text.trim().to_owned()).filter(|name| domain.child(name).is_ok());
    let name = match wished.map(str::to_owned).or(kept) {
        Some(label) => QuickName::Wished { label, secret: None },
        None => QuickName::Random,
    };
    let random = matches!(name, QuickName::Random);
    let made = registry.create_quick_tunnel(Timestamp::now(), domain, name).await;
    let tunnel: Tunnel =
        made.context(Problem::usage("the name cannot be used", "a name is one label: letters, digits and dashes"))?;
    let hostname = tunnel.quick.clone().context("a quick tunnel has a host name")?;
    if random {
        let label = hostname.as_str().split('.').next().unwrap_or_default();
        secret::write_private(&file, format!("{label}\n").as_bytes())?;
    }
    let credentials = Credentials {
        account_tag: registry.snapshot().account().id.to_string(),
        tunnel: tunnel.id,
        secret: TunnelSecret::new(tunnel.secret.as_bytes().to_vec()),
        endpoint: None,
    };
    Ok((hostname, credentials))
}

async fn connect(
    node: &Node,
    credentials: Credentials,
    origin: &Origin,
    protocol: &str,
    inspect: Inspect,
) -> anyhow::Result<Running> {
    let document = connector::single(origin.service(), Overrides::default())?;
    let edges = node.running.addresses().tunnel.iter().map(|address| address.to_string().parse());
    let edges = edges.collect::<Result<Vec<_>, _>>().context("a bound address is the address of an edge")?;
    let mut config = connector::config(credentials, edges, Roots::File(node.ca.clone()), document)?;
    // On loopback nothing is in the way: no proxy, and no fallback worth remembering.
    config.proxies = agent::Proxies::none();
    config.protocol_memory = None;
    config.protocol = connector::protocol(protocol);
    let agent =
        Agent::start_with_inspector(config, None, inspect.listen().await?).await.context("the agent cannot start")?;
    match tokio::time::timeout(CONNECT_LIMIT, agent.ready()).await {
        Ok(true) => Ok(agent),
        _ => Err(Problem::new(
            "the agent and the edge in this process do not reach each other",
            "try --protocol http2; `snicket try --loglevel debug` says more",
        )
        .into()),
    }
}

/// Says when nothing listens at the origin yet.
async fn silence(origin: &Origin) -> Option<String> {
    let url = url::Url::parse(origin.service()).ok().filter(url::Url::has_host)?;
    let address = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    match tokio::time::timeout(ORIGIN_LIMIT, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        _ => Some(format!("Nothing listens at {origin} yet; visitors see an error page until something does.\n")),
    }
}

fn announce(node: &Node, token: &TokenFile, agent: &Running, hostname: &Hostname, origin: &Origin, screen: Screen) {
    let addresses = node.running.addresses();
    let url = ready::url("https", hostname.as_str(), addresses.https.port());
    let plain = ready::url("http", hostname.as_str(), addresses.http.port());
    let connection = agent.status().borrow().connections.first().map(|connection| connection.transport.to_string());
    screen.event(&Ready {
        command: "try",
        url: Some(url.clone()),
        http_url: Some(plain.clone()),
        origin: Some(origin.service().to_owned()),
        domain: Some(DOMAIN.to_owned()),
        api: Some(node::api_origin(addresses.api)),
        tunnel: addresses.tunnel.first().copied(),
        https: Some(addresses.https),
        http: Some(addresses.http),
        ca: Some(node.ca.clone()),
        token_file: Some(token.0.clone()),
        inspector: agent.inspector_address().map(inspect::url),
        protocol: connection.clone(),
        ..Ready::default()
    });
    screen.say(format!("\n{}\n{plain}\n", screen.paint(Paint::Bold, &url)));
    let protocol = connection.unwrap_or_default();
    screen.say(format!(
        "leads to {origin}, through an edge and an agent in this process ({protocol}). Only this machine sees it."
    ));
    screen.say(format!(
        "Programs trust it with its CA: {}\nBrowsers warn once; or import that file. Ctrl-C stops.\n",
        screen.paint(Paint::Dim, &format!("curl --cacert {} {url}", node.ca.display()))
    ));
    if let Some(address) = agent.inspector_address() {
        screen.say(format!("Requests are shown at {}\n", inspect::url(address)));
    }
}
