//! `snicket up`: a node of the edge.

mod file;
mod join;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use api::QuickTunnels;
use edge::Running;
use policy::Network;
use registry::Hostname;
use serde_json::json;
use tokio::sync::broadcast::Receiver;

use super::service::Facts;
use crate::acme::AcmeArgs;
use crate::joined::Joined;
use crate::keep::RegistryArgs;
use crate::local::LocalEdge;
use crate::logging::{Level, LogArgs, Logging};
use crate::node::{self, Blueprint, Listening, Node, Wishes, near};
use crate::notify::{self, PidFile, Watchdog};
use crate::ports::{Listen, PortRange, Wish};
use crate::problem::Problem;
use crate::ready::{self, Ready};
use crate::screen::{Paint, Screen};
use crate::secret::Secret;
use crate::signals::Signals;
use crate::whereabouts::GeoArgs;
use crate::{connector, paths, report};
use file::File;

/// Visitors without TLS. Above 1023, so that no privilege is needed; what people expect of a local web server.
pub(crate) const HTTP_PORT: u16 = 8080;
/// Visitors with TLS, for the same reasons.
pub(crate) const HTTPS_PORT: u16 = 8443;
/// Agents; the number that stock agents use.
pub(crate) const TUNNEL_PORT: u16 = 7844;
/// The REST API, next to it.
pub(crate) const API_PORT: u16 = 7845;

/// Where everybody asks who is led to a name server.
const DNS_PORT: u16 = 53;
/// And with TLS.
const DNS_TLS_PORT: u16 = 853;

/// Public ports. Below those that systems hand out by themselves (from 32768 on Linux), and as many as anybody looks
/// through.
const PORTS: PortRange = PortRange::new(20_000, 20_999);

/// How long requests may go on after the first signal; what agents use as well.
pub(crate) const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Names under it lead to this machine by themselves (RFC 6761), so that nothing has to be set up.
pub(crate) const DOMAIN: &str = "localhost";

/// Where a node is, as long as it is the only one.
const LOCATION: &str = "home";

/// A place is named in each answer and each line of the log.
const LONGEST_LOCATION: usize = 32;

const EXAMPLES: &str = "\
Examples:
  snicket up                                     on this machine only, names under localhost
  snicket up --domain tunnel.example.com --https 443 --http 80 --api 0.0.0.0:7845
  snicket up --config /etc/snicket/edge.yml      the same keys as the flags
  snicket up --http 0 --https 0 --tunnel 0 --api 0 --json

Every flag is also a variable: SNICKET_DOMAIN and so on. Flag, then environment, then file, then default.
A default port that is taken makes way to the next free one; one that was asked for must be free.";

/// Arguments of `up`. Every value is optional, so that the configuration file can fill in.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Names under this domain lead to this edge [default: localhost]
    #[arg(long, value_name = "NAME", env = "SNICKET_DOMAIN", hide_env_values = true)]
    domain: Option<String>,
    /// Registry, CA and token [default: $XDG_DATA_HOME/snicket/edge]
    #[arg(long, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE", env = "SNICKET_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Visitors without TLS: port or address [default: 8080]
    #[arg(long, value_name = "ADDR", env = "SNICKET_HTTP", hide_env_values = true)]
    http: Option<Listen>,
    /// Visitors with TLS, TCP and UDP [default: 8443]
    #[arg(long, value_name = "ADDR", env = "SNICKET_HTTPS", hide_env_values = true)]
    https: Option<Listen>,
    /// Agents, TCP and UDP; may be repeated [default: 7844]
    #[arg(long, value_name = "ADDR", env = "SNICKET_TUNNEL", value_delimiter = ',', hide_env_values = true)]
    tunnel: Vec<Listen>,
    /// REST API, on loopback unless an address is given [default: 7845]
    #[arg(long, value_name = "ADDR", env = "SNICKET_API", hide_env_values = true)]
    api: Option<Listen>,
    /// DNS for the zones, UDP and TCP [default: off]
    #[arg(long, value_name = "ADDR", env = "SNICKET_DNS", hide_env_values = true)]
    dns: Option<Listen>,
    /// DNS over TLS, beside --dns [default: off]
    #[arg(long, value_name = "ADDR", env = "SNICKET_DNS_TLS", hide_env_values = true, hide_short_help = true)]
    dns_tls: Option<Listen>,
    /// Public ports for TCP services, or off [default: 20000-20999]
    #[arg(long, value_name = "RANGE", value_parser = public_ports, env = "SNICKET_PORTS", hide_env_values = true)]
    ports: Option<PublicPorts>,
    /// Become a node of the edge whose API is there, with a key of `snicket node invite`
    #[arg(long, value_name = "HOST[:PORT]", env = "SNICKET_JOIN", hide_env_values = true)]
    join: Option<String>,
    /// That key, in a file; `-` is standard input
    #[arg(long, value_name = "FILE", env = "SNICKET_KEY_FILE", hide_env_values = true, hide_short_help = true)]
    key_file: Option<PathBuf>,
    /// That key; better in the variable, where other users do not see it
    #[arg(long, value_name = "KEY", env = "SNICKET_JOIN_KEY", hide_env_values = true, hide_short_help = true)]
    join_key: Option<Secret>,
    /// A certificate of one's own (PEM, leaf first)
    #[arg(long, value_name = "FILE", env = "SNICKET_CERT", hide_env_values = true)]
    cert: Option<PathBuf>,
    /// Its key; with --join and without --cert, that key or its file
    #[arg(long, value_name = "FILE", env = "SNICKET_KEY", hide_env_values = true)]
    key: Option<PathBuf>,
    #[command(flatten)]
    acme: AcmeArgs,
    /// Who may make quick tunnels: open, loopback, token or off [default: loopback]
    #[arg(
        long, value_name = "WHO", value_parser = quick_tunnels, env = "SNICKET_QUICK_TUNNELS",
        hide_env_values = true
    )]
    quick_tunnels: Option<QuickTunnels>,
    /// Where this node is, such as ams1 [default: home]
    #[arg(long, value_name = "NAME", value_parser = location, env = "SNICKET_LOCATION", hide_env_values = true)]
    location: Option<String>,
    #[command(flatten)]
    geo: GeoArgs,
    /// At which address other machines reach this node [default: the one by which it reaches them]
    #[arg(long, value_name = "IP", env = "SNICKET_ADVERTISE", hide_env_values = true, hide_short_help = true)]
    advertise: Option<IpAddr>,
    /// Time for requests to end after a signal [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration, env = "SNICKET_GRACE_PERIOD", hide_env_values = true)]
    grace_period: Option<Duration>,
    /// Time for an origin to begin its answer, then status 524 [default: 100s]
    #[arg(long, value_name = "TIME", value_parser = duration, env = "SNICKET_RESPONSE_TIMEOUT", hide_env_values = true)]
    response_timeout: Option<Duration>,
    /// Connections of visitors at once [default: 10000]
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = count,
        env = "SNICKET_MAX_CONNECTIONS",
        hide_env_values = true,
        hide_short_help = true
    )]
    max_connections: Option<NonZeroUsize>,
    /// Those of one address, loopback aside [default: 1000]
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = count,
        env = "SNICKET_MAX_CONNECTIONS_PER_ADDRESS",
        hide_env_values = true,
        hide_short_help = true
    )]
    max_connections_per_address: Option<NonZeroUsize>,
    /// Further networks in which members of pools may be, beside public addresses
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        env = "SNICKET_ORIGIN_NETWORKS",
        hide_env_values = true,
        hide_short_help = true
    )]
    origin_networks: Vec<Network>,
    /// Write the process id here once everything listens
    #[arg(long, value_name = "FILE", env = "SNICKET_PIDFILE", hide_env_values = true, hide_short_help = true)]
    pidfile: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

/// Whether tunnels may have public ports, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PublicPorts {
    Off,
    Range(PortRange),
}

/// Reads which public ports there may be.
fn public_ports(text: &str) -> Result<PublicPorts, String> {
    if text == "off" { Ok(PublicPorts::Off) } else { text.parse().map(PublicPorts::Range) }
}

fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a whole number from 1".to_owned())
}

/// A node's place stands in every `cf-ray`, where other letters would break the header.
fn location(text: &str) -> Result<String, String> {
    let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.is_empty() || text.len() > LONGEST_LOCATION || !fits(text) {
        return Err(format!(
            "{text:?} is no name of a place; write up to {LONGEST_LOCATION} letters, digits and hyphens"
        ));
    }
    Ok(text.to_owned())
}

/// Reads who may make quick tunnels.
fn quick_tunnels(text: &str) -> Result<QuickTunnels, String> {
    match text {
        "open" => Ok(QuickTunnels::Open),
        "loopback" => Ok(QuickTunnels::Loopback),
        "token" => Ok(QuickTunnels::Token),
        "off" => Ok(QuickTunnels::Off),
        _ => Err("write open (everybody), loopback (this machine; others with a token), token or off".to_owned()),
    }
}

/// Reads `30s` and the like.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    config::duration::parse(text).map_err(|error| error.to_string())
}

/// What a service of this edge depends on, its configuration file included.
pub(crate) fn service_facts(args: Args) -> anyhow::Result<Facts> {
    let config = args.config.clone();
    let Settings { wishes, blueprint, grace, files, .. } = Settings::merge(args)?;
    let own = blueprint.own.map(|(cert, key)| [("cert", cert), ("key", key)]);
    let lowest_public = blueprint.ports.map(|range| *range.numbers().start());
    let listeners = [wishes.http, wishes.https, wishes.api]
        .into_iter()
        .chain(wishes.tunnel)
        .chain(wishes.dns)
        .chain(wishes.dns_tls);
    Ok(Facts {
        config,
        files: own.into_iter().flatten().chain(files).collect(),
        ports: listeners.map(|wish| wish.address().port()).chain(lowest_public).collect(),
        grace: Some(grace),
        ..Facts::default()
    })
}

/// Where the registry is: as it was said, else where that of the edge is that the machine with this data directory joined.
pub(crate) fn registry_at(said: RegistryArgs, data: &Path) -> anyhow::Result<RegistryArgs> {
    if said.registry.is_some() {
        return Ok(said);
    }
    match Joined::load(data)? {
        Some(joined) => Ok(said.or(joined.registry_args(data)?)),
        None => Ok(said),
    }
}

/// What a configuration file says of the data directory and the registry.
pub(crate) fn registry_of(config: Option<&Path>) -> anyhow::Result<(Option<PathBuf>, RegistryArgs)> {
    let file = config.map(File::load).transpose()?.unwrap_or_default();
    Ok((file.data, file.registry))
}

/// Runs the edge until a signal ends it.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    join::join(&args, screen).await?;
    let settings = Settings::merge(args)?;
    settings.logging.start(Level::Info)?;
    let signals = Signals::install().context("signals cannot be watched")?;
    screen.detach().context("no thread can be started")?;
    let Listening { sockets, dns, notices } = settings.wishes.bind()?;
    let mut node = settings.blueprint.start(sockets, dns).await?;
    let token_file = settings.data.join(node::TOKEN_FILE);
    let local = describe(&node, &settings.domain, token_file);
    let announcement = local.announce(&settings.data)?;
    let _pidfile = settings.pidfile.as_deref().map(PidFile::write).transpose()?;
    // From here on, so that nothing is missed of what happens as soon as the edge is told of.
    let requests = node.running.requests();
    announce(&node, &local, &settings.data, screen);
    tell(&notices, screen);
    tell(node.notice.as_slice(), screen);
    notify::systemd("READY=1");
    let _watchdog = Watchdog::start();

    let shown = tokio::spawn(show_requests(requests, screen));
    tokio::select! {
        () = signals.draining() => (),
        () = node.keep_house(signals.clone()) => (),
    }
    // Whoever looks for an edge from now on is better told that there is none.
    drop(announcement);
    notify::systemd("STOPPING=1");
    connector::draining(settings.grace, screen);
    node.stop_ordering().await;
    // Resolvers ask another node then, which knows who is well.
    node.stop_dns().await;
    stop(&node.running, settings.grace, &signals).await;
    node.registry.leave().await;
    shown.abort();
    screen.event(&json!({ "event": "stopped", "time": report::now() }));
    Ok(())
}

/// Drains; a second signal cuts.
pub(crate) async fn stop(running: &Running, grace: Duration, signals: &Signals) {
    tokio::select! {
        _ = running.shutdown(grace) => (),
        () = signals.cut() => {
            running.shutdown(Duration::ZERO).await;
        }
    }
}

/// People find requests in the diagnostics; programs that read events get them here.
async fn show_requests(requests: Receiver<edge::RequestEvent>, screen: Screen) {
    if screen.is_json() {
        report::edge_requests(requests, screen).await;
    }
}

/// What is otherwise than the defaults say.
pub(crate) fn tell(notices: &[String], screen: Screen) {
    for notice in notices {
        screen.event(&json!({ "event": "notice", "time": report::now(), "text": notice }));
        screen.say(format!("Note: {notice}."));
    }
}

/// Flags over variables over the file over defaults.
struct Settings {
    domain: Hostname,
    data: PathBuf,
    wishes: Wishes,
    blueprint: Blueprint,
    grace: Duration,
    pidfile: Option<PathBuf>,
    logging: Logging,
    /// What else is read, by flag: for TLS to etcd and to an ACME server, the key for joining, and where visitors are.
    files: Vec<(&'static str, PathBuf)>,
}

impl Settings {
    fn merge(args: Args) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(File::load).transpose()?.unwrap_or_default();
        let data = args.data.or(file.data).unwrap_or_else(paths::edge_data);
        let joined = Joined::load(&data)?;
        let domain = args.domain.or(file.domain).or_else(|| joined.as_ref().map(|joined| joined.domain.clone()));
        let domain = domain.unwrap_or_else(|| DOMAIN.to_owned());
        let domain = Hostname::parse(&domain).with_context(|| {
            Problem::usage(format!("{domain:?} is no domain"), "write for example --domain tunnel.example.com")
        })?;
        let joins = args.join.or(file.join).is_some();
        let cert = args.cert.or(file.cert);
        // Without a certificate it is that of the joining.
        let key = args.key.or(file.key).filter(|_| cert.is_some() || !joins);
        let own = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Problem::usage("--cert and --key belong together", "give both, or neither").into()),
        };
        let acme = args.acme.or(file.acme);
        let said = args.registry.or(file.registry);
        let key_file = args.key_file.or(file.key_file).map(|path| ("key-file", path));
        let geo = args.geo.or(file.geo);
        let files = said.files().into_iter().chain(acme.files()).chain(key_file).chain(geo.files()).collect();
        let place = registry_at(said, &data)?;
        let keep = place.keep(data.clone())?;
        let public = if domain.as_str() == DOMAIN { Ipv4Addr::LOCALHOST.into() } else { everywhere() };
        let tunnel = if args.tunnel.is_empty() { file.tunnel } else { args.tunnel };
        let mut tunnel: Vec<Wish> =
            tunnel.into_iter().map(|listen| Wish::new(Some(listen), public, TUNNEL_PORT)).collect();
        if tunnel.is_empty() {
            tunnel.push(Wish::new(None, public, TUNNEL_PORT));
        }
        let wishes = Wishes {
            http: Wish::new(args.http.or(file.http), public, HTTP_PORT),
            https: Wish::new(args.https.or(file.https), public, HTTPS_PORT),
            tunnel,
            // Whoever reaches the API needs only the token, so it leaves the machine only when somebody says so.
            api: Wish::new(args.api.or(file.api), Ipv4Addr::LOCALHOST.into(), API_PORT),
            dns: args.dns.or(file.dns).map(|listen| Wish::new(Some(listen), public, DNS_PORT)),
            dns_tls: args.dns_tls.or(file.dns_tls).map(|listen| Wish::new(Some(listen), public, DNS_TLS_PORT)),
        };
        let mut logging = Logging::from(&args.log);
        logging.level = logging.level.or(file.loglevel);
        logging.file = logging.file.or(file.logfile);
        logging.form = logging.form.or(file.output);
        Ok(Self {
            blueprint: Blueprint {
                domain: domain.clone(),
                location: args.location.or(file.location).unwrap_or_else(|| LOCATION.to_owned()),
                advertise: args.advertise.or(file.advertise),
                geo,
                data: data.clone(),
                keep,
                own,
                acme: acme.client()?,
                ports: match args.ports.or(file.ports).unwrap_or(PublicPorts::Range(PORTS)) {
                    PublicPorts::Off => None,
                    PublicPorts::Range(range) => Some(range),
                },
                origin_networks: if args.origin_networks.is_empty() {
                    file.origin_networks
                } else {
                    args.origin_networks
                },
                quick_tunnels: args.quick_tunnels.or(file.quick_tunnels).unwrap_or_default(),
                limits: edge::Limits {
                    response: args.response_timeout.or(file.response_timeout).unwrap_or(edge::Limits::RESPONSE),
                    connections: args
                        .max_connections
                        .or(file.max_connections)
                        .map_or(edge::Limits::CONNECTIONS, NonZeroUsize::get),
                    connections_per_address: args
                        .max_connections_per_address
                        .or(file.max_connections_per_address)
                        .map_or(edge::Limits::CONNECTIONS_PER_ADDRESS, NonZeroUsize::get),
                    ..edge::Limits::default()
                },
            },
            domain,
            data,
            wishes,
            grace: args.grace_period.or(file.grace_period).unwrap_or(GRACE_PERIOD),
            pidfile: args.pidfile.or(file.pidfile),
            logging,
            files,
        })
    }
}

/// All addresses of both families, or of IPv4 alone where the system has no IPv6.
fn everywhere() -> IpAddr {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    if std::net::UdpSocket::bind((any, 0)).is_ok() { any } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn describe(node: &Node, domain: &Hostname, token_file: PathBuf) -> LocalEdge {
    let addresses = node.running.addresses();
    LocalEdge {
        pid: std::process::id(),
        domain: domain.to_string(),
        http: addresses.http,
        https: addresses.https,
        tunnel: addresses.tunnel.iter().copied().map(near).collect(),
        api: node::api_origin(addresses.api),
        ca: node.ca.clone(),
        token_file,
    }
}

fn announce(node: &Node, local: &LocalEdge, data: &Path, screen: Screen) {
    let ready = Ready {
        command: "up",
        url: Some(ready::url("https", &local.domain, local.https.port())),
        http_url: Some(ready::url("http", &local.domain, local.http.port())),
        dns: node.dns().map(dns::Server::address),
        dns_tls: node.dns().and_then(dns::Server::tls_address),
        ..Ready::from(local)
    };
    screen.event(&ready);
    let LocalEdge { domain, http, https, api, ca, token_file, .. } = local;
    let bound = node.running.addresses();
    screen.say(format!("An edge for names under {}\n", screen.paint(Paint::Bold, domain)));
    screen.say(format!("  visitors   https {https} (TCP and UDP), http {http}"));
    let agents: Vec<String> = bound.tunnel.iter().map(ToString::to_string).collect();
    screen.say(format!("  agents     {} (TCP and UDP)", agents.join(", ")));
    let elsewhere = if bound.api.ip().is_loopback() {
        String::new()
    } else {
        format!("; from elsewhere {}", ready::url("https", domain, bound.api.port()))
    };
    screen.say(format!("  API        {api}{elsewhere}"));
    if let Some(server) = node.dns() {
        let tls = server.tls_address().map(|address| format!(", {address} (TLS)")).unwrap_or_default();
        screen.say(format!("  DNS        {} (UDP and TCP){tls}, for the zones of the registry", server.address()));
    }
    screen.say(format!("  CA         {}", ca.display()));
    match &node.first_token {
        Some(token) => screen
            .say(format!("  API token  {token}\n             shown only this once; kept in {}", token_file.display())),
        None => screen.say(format!("  API token  in {}", token_file.display())),
    }
    let found = if data == paths::edge_data() { String::new() } else { format!(" --data {}", data.display()) };
    screen.say(format!(
        "\nNext, on this machine: snicket http 3000{found}\nFor a stock cloudflared: snicket cloudflared{found}\n\
         Ctrl-C stops.\n"
    ));
}
