//! `tunnel run` and the short forms: serving a tunnel.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::edge::{Discovery, EdgeName, IpVersion};
use agent::file::{self, FileConfig, reported_flags};
use agent::ingress::{Document, WarpRouting};
use agent::{Reload, Tag};
use anyhow::Context as _;
use certs::tls::Roots;
use registry::Labels;
use registry::PoolTerms;
use uuid::Uuid;
use wire::identity::{Credentials, TunnelSecret};

use super::flags::{Flags, Settings};
use super::manage::{make, route_to, zone_of};
use super::session::Session;
use crate::bootstrap::{self, Known, QuickTunnel, Wish};
use crate::connector::{self, Connector, metrics_address};
use crate::fetch::Trust;
use crate::inspect::Inspect;
use crate::local::LocalEdge;
use crate::logging::{Form, Level};
use crate::node::host_name;
use crate::problem::Problem;
use crate::ready::{self, Ready};
use crate::screen::{Paint, Screen};
use crate::secret::{Secret, read_file};

const EXAMPLES: &str = "\
Examples:
  snicket tunnel run --token-file web.token
  TUNNEL_TOKEN=… snicket tunnel run
  snicket tunnel run --url http://localhost:3000 web
  snicket tunnel --config config.yml run
  snicket tunnel --edge tunnel.example.com:7844 --cacert ca.pem run --token-file web.token

SIGHUP, or a change of the file, reads the rules again; nothing is dropped.";

/// Arguments of `tunnel run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Name or id; not needed with a token, or with `tunnel:` in the file
    tunnel: Option<String>,
    /// The tunnel's token; better in a file or in TUNNEL_TOKEN, where other users do not see it
    #[arg(long, value_name = "TOKEN", env = "TUNNEL_TOKEN", hide_env_values = true)]
    token: Option<Secret>,
    /// The same in a file; `-` is standard input
    #[arg(long, value_name = "FILE", env = "TUNNEL_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// The content of a credentials file
    #[arg(long, value_name = "JSON", env = "TUNNEL_CRED_CONTENTS", hide_env_values = true)]
    credentials_contents: Option<Secret>,
    /// Form of diagnostics: default or json
    #[arg(long = "output", value_name = "FORM", env = "TUNNEL_LOG_OUTPUT", hide_env_values = true, hide = true)]
    log_form: Option<Form>,
}

/// Serves a named tunnel.
pub(super) async fn run(args: Args, flags: &Flags, form: Option<Form>, screen: Screen) -> anyhow::Result<()> {
    let settings = flags.settings()?;
    start_log(&settings, flags, args.log_form.or(form))?;
    flags.warn_of_labels();
    let credentials = credentials(&args, &settings).await?;
    let way = Way::find(&settings)?;
    let known = way.known(&settings);
    let connector = connector(&settings, flags, credentials, way)?;
    let rules = connector.config.document.rules.clone();
    connector
        .serve(screen, |facts, screen| {
            let ready = Ready { command: "tunnel run", ..known.or(facts) };
            screen.event(&ready);
            screen.say(format!(
                "Connected ({}); serving tunnel {}:",
                ready.protocol.as_deref().unwrap_or_default(),
                ready.tunnel_id.unwrap_or_default()
            ));
            for rule in rules.iter() {
                let hostname = rule.hostname.as_ref().map_or_else(|| "any name".to_owned(), ToString::to_string);
                let path = rule.path.as_ref().map(|path| format!(" {path}")).unwrap_or_default();
                screen.say(format!("  {hostname}{path} -> {}", rule.service));
            }
            screen.say("");
        })
        .await
}

/// What a tunnel is to be, without a subcommand.
pub(super) struct Wanted {
    /// The tunnel's.
    pub(super) name: Option<String>,
    /// The public name.
    pub(super) hostname: Option<String>,
    /// The pool that the tunnel is to be a member of.
    pub(super) pool: Option<String>,
}

/// Without a subcommand: a named tunnel made, routed and run in one, or a quick tunnel.
pub(super) async fn short(wanted: Wanted, flags: &Flags, form: Option<Form>, screen: Screen) -> anyhow::Result<()> {
    let settings = flags.settings()?;
    start_log(&settings, flags, form)?;
    let name = wanted.name.or_else(|| settings.values.name.clone());
    let hostname = wanted.hostname.or_else(|| settings.values.hostname.clone());
    let pool = wanted.pool.or_else(|| settings.values.lb_pool.clone());
    if let Some(pool) = &pool {
        // Before a tunnel is made for it.
        PoolTerms::check_name("--lb-pool", pool)
            .context(Problem::usage(format!("{pool:?} is no name of a pool"), "write for example --lb-pool web"))?;
    }
    match (name, hostname) {
        (_, None) if pool.is_some() => Err(Problem::usage(
            "--lb-pool shares a public name, and none is given",
            "name it with --hostname",
        )
        .into()),
        (Some(name), hostname) => named(&name, hostname, pool, &flags.labels()?, &settings, flags, screen).await,
        (None, Some(hostname)) => {
            let labels = flags.labels()?;
            let name = match &pool {
                // Each machine is a member by itself, and so is each release on it.
                Some(pool) => {
                    let values = labels.iter().map(|(_, value)| format!("-{value}")).collect::<String>();
                    format!("{pool}-{}{values}", host_name().as_deref().unwrap_or(&hostname))
                }
                // The reference's short form without a name; the name of the tunnel is then the public one.
                None => hostname.clone(),
            };
            named(&name, Some(hostname), pool, &labels, &settings, flags, screen).await
        }
        (None, None) if serves_something(&settings.values) => quick(&settings, flags, screen).await,
        (None, None) => Err(Problem::usage(
            "nothing to do",
            "give a subcommand (`snicket tunnel run` serves what config.yml names), --url for a quick tunnel, or --name \
             and --url",
        )
        .into()),
    }
}

fn serves_something(values: &FileConfig) -> bool {
    values.single.url.is_some() || values.single.hello_world || values.single.unix_socket.is_some()
}

fn start_log(settings: &Settings, flags: &Flags, form: Option<Form>) -> anyhow::Result<()> {
    settings.logging(form)?.start(Level::Info)?;
    for flag in flags.without_effect() {
        tracing::warn!("{flag} has no effect here");
    }
    Ok(())
}

async fn named(
    name: &str,
    hostname: Option<String>,
    pool: Option<String>,
    labels: &Labels,
    settings: &Settings,
    flags: &Flags,
    screen: Screen,
) -> anyhow::Result<()> {
    let session = Session::open(settings).await?;
    let query = format!("is_deleted=false&name={}", crate::v4::encode(name));
    let existing = session.api.tunnels(&session.account, &query).await?.into_iter().next();
    let (tunnel, credentials) = match existing {
        Some(tunnel) => {
            if !labels.is_empty() && tunnel.labels != *labels {
                session.api.label(&session.account, tunnel.id, labels).await?;
            }
            let credentials = fetch_credentials(&session, tunnel.id).await?;
            (tunnel, credentials)
        }
        None => {
            let path = settings.values.credentials_file.as_deref();
            let (tunnel, path) = make(&session, name, TunnelSecret::generate(), labels, path).await?;
            screen.say(format!("Created tunnel {name}; its credentials are in {}", path.display()));
            (tunnel, read_credentials(&path)?)
        }
    };
    let (mut public, mut membership) = (None, None);
    match (&hostname, pool) {
        (Some(hostname), Some(pool)) => {
            let zone = zone_of(&session, hostname).await?;
            public = Some(session.api.route_lb(&zone, tunnel.id, hostname, &pool).await?.name);
            membership = Some((zone, pool));
        }
        (Some(hostname), None) => public = Some(route_to(&session, &tunnel, hostname, false).await?.1),
        (None, _) => (),
    }
    let mut way = Way::find(settings)?;
    if way.local.is_none() {
        way.told = bootstrap::ask(session.api.origin(), session.api.trust()).await.ok();
    }
    let known = Ready { api: Some(session.api.origin().to_owned()), ..way.known(settings) };
    let ports = way.visitors();
    let connector = connector(settings, flags, credentials, way)?;
    let service = service(&connector.config.document);
    let own = connector.config.connector;
    connector
        .serve(screen, |facts, screen| {
            let address = |scheme: &str, port: fn((u16, u16)) -> u16| {
                public.as_ref().map(|name| ready::url(scheme, name, ports.map_or_else(|| usual(scheme), port)))
            };
            let ready = Ready {
                command: "tunnel",
                url: address("https", |ports| ports.0),
                http_url: address("http", |ports| ports.1),
                origin: Some(service),
                ..known.or(facts)
            };
            announce(&ready, screen);
        })
        .await?;
    if let Some((zone, pool)) = membership
        && let Err(error) = session.api.leave_pool(&zone, tunnel.id, &pool, own).await
    {
        // Nobody is led to a tunnel without a connection; the pool just goes on naming it.
        tracing::warn!(pool, %error, "the pool still has this tunnel among its members");
    }
    Ok(())
}

async fn quick(settings: &Settings, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    flags.warn_of_labels();
    let values = &settings.values;
    let named = values.quick_service.clone().or_else(|| values.api_url.clone());
    let local = LocalEdge::meant(named.as_deref())?;
    let api = named.or_else(|| local.as_ref().map(|local| local.api.clone())).ok_or_else(|| {
        Problem::usage(
            "no edge to give a quick tunnel",
            "start one here (`snicket up`), or name one with --quick-service URL --edge HOST --cacert FILE",
        )
    })?;
    let ca = values.cacert.clone().or_else(|| local.as_ref().map(|local| local.ca.clone()));
    let trust = Trust::choose(ca.as_deref(), None)?;
    // On one's own machine the token is at hand; where it is not readable, quick tunnels may work without.
    let token = local.as_ref().and_then(|local| Secret::read(&local.token_file).ok());
    let QuickTunnel { hostname, credentials, .. } =
        bootstrap::quick_tunnel(&api, &trust, token.as_ref(), &Wish::default()).await?;
    // An edge of ours says where its visitors and agents go; other services of quick tunnels do not.
    let told = bootstrap::ask(&api, &trust).await.ok();
    let mut way = match &told {
        Some(told) if values.edge.is_empty() => Way {
            edge: told.tunnel.clone(),
            domain: Some(told.domain.clone()),
            roots: values.cacert.clone().map_or_else(|| Roots::Pem(told.ca.clone()), Roots::File),
            local: None,
            told: None,
        },
        _ => Way::find(settings)?,
    };
    (way.local, way.told) = (local.or(way.local), told);
    let known = Ready { api: Some(api), ..way.known(settings) };
    let ports = way.visitors();
    let mut connector = connector(settings, flags, credentials, way)?;
    connector.config.quick_hostname = Some(hostname.clone());
    let service = service(&connector.config.document);
    connector
        .serve(screen, |facts, screen| {
            let (https, http) = ports.unwrap_or_else(|| (usual("https"), usual("http")));
            let ready = Ready {
                command: "tunnel",
                url: Some(ready::url("https", &hostname, https)),
                http_url: Some(ready::url("http", &hostname, http)),
                origin: Some(service),
                ..known.or(facts)
            };
            announce(&ready, screen);
        })
        .await
}

fn usual(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

fn announce(ready: &Ready, screen: Screen) {
    screen.event(ready);
    if let Some(url) = &ready.url {
        screen.say(format!("\n{}\n", screen.paint(Paint::Bold, url)));
    }
    screen.say(format!(
        "leads to {} ({}). Ctrl-C stops.\n",
        ready.origin.as_deref().unwrap_or_default(),
        ready.protocol.as_deref().unwrap_or_default()
    ));
}

fn service(document: &Document) -> String {
    document.rules.iter().last().map(|rule| rule.service.to_string()).unwrap_or_default()
}

/// Where the edge takes agents, and whom to trust.
struct Way {
    edge: Vec<String>,
    /// Under which its own DNS tells its nodes.
    domain: Option<String>,
    roots: Roots,
    /// The edge, if it is the one on this machine.
    local: Option<LocalEdge>,
    /// What the edge's API says of the edge, if it was asked.
    told: Option<Known>,
}

/// Who names one place without a port means the edge as a whole.
fn domain_of(edge: &[String]) -> Option<String> {
    match edge {
        [name] if !name.contains(':') => Some(name.clone()),
        _ => None,
    }
}

impl Way {
    fn find(settings: &Settings) -> anyhow::Result<Self> {
        let values = &settings.values;
        let given = values.cacert.clone().map(Roots::File);
        if !values.edge.is_empty() {
            let roots = given.unwrap_or(Roots::System);
            let domain = domain_of(&values.edge);
            return Ok(Self { edge: values.edge.clone(), domain, roots, local: None, told: None });
        }
        let api = values.api_url.as_deref();
        let Some(local) = LocalEdge::meant(api)? else {
            let elsewhere = api.map(|api| format!("no edge is given, and that of {api} is not on this machine"));
            return Err(Problem::usage(
                elsewhere.unwrap_or_else(|| "no edge is given, and none runs on this machine".to_owned()),
                "name one with --edge HOST:7844 (TUNNEL_EDGE) and its certificate with --cacert ca.pem \
                 (TUNNEL_CACERT), or start one here: `snicket up`",
            )
            .into());
        };
        Ok(Self {
            edge: local.tunnel.iter().map(ToString::to_string).collect(),
            domain: None,
            roots: given.unwrap_or_else(|| Roots::File(local.ca.clone())),
            local: Some(local),
            told: None,
        })
    }

    /// The ports of visitors with and without TLS, where they are known.
    fn visitors(&self) -> Option<(u16, u16)> {
        let local = self.local.as_ref().map(|local| (local.https.port(), local.http.port()));
        self.told.as_ref().map(Known::ports).or(local)
    }

    /// What there is to say of the edge. Agents alone learn nothing but the address that they dial.
    fn known(&self, settings: &Settings) -> Ready {
        let values = &settings.values;
        let given = Ready { api: values.api_url.clone(), ca: values.cacert.clone(), ..Ready::default() };
        let local = self.local.as_ref().map(Ready::from).unwrap_or_default();
        given.or(local).or(self.told.as_ref().map(Ready::from).unwrap_or_default())
    }
}

/// In the reference's order: token, its file, contents, the file, then a search by the tunnel's id (section 16.1).
async fn credentials(args: &Args, settings: &Settings) -> anyhow::Result<Credentials> {
    let values = &settings.values;
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(Secret::read(path)?),
        (None, None) => match (&values.token, &values.token_file) {
            (Some(token), _) => Some(Secret::new(token)),
            (None, Some(path)) => Some(Secret::read(path)?),
            (None, None) => None,
        },
    };
    if let Some(token) = token {
        return Credentials::from_token(token.reveal()).context(Problem::usage(
            "the token cannot be read",
            "copy it whole; `snicket tunnel token NAME` prints it again",
        ));
    }
    let contents =
        args.credentials_contents.clone().or_else(|| values.credentials_contents.as_deref().map(Secret::new));
    if let Some(contents) = contents {
        return Credentials::from_json(contents.reveal().as_bytes()).context(Problem::usage(
            "the credentials' contents cannot be read",
            "give the content of a credentials file",
        ));
    }
    if let Some(path) = &values.credentials_file {
        return read_credentials(path);
    }
    let Some(tunnel) = args.tunnel.clone().or_else(|| values.tunnel.clone()) else {
        return Err(Problem::usage(
            "which tunnel?",
            "give its name or id, a token (--token-file, TUNNEL_TOKEN), or `tunnel:` in config.yml",
        )
        .into());
    };
    if let Ok(id) = tunnel.parse::<Uuid>() {
        let cert = values.origincert.clone().or_else(file::find_origincert);
        if let Some(path) = file::find_credentials(id, cert.as_deref()) {
            return read_credentials(&path);
        }
    }
    let session = Session::open(settings).await.with_context(|| {
        format!("there are no credentials for tunnel {tunnel} on this machine, and no edge can be asked for them")
    })?;
    let id = session.api.find(&session.account, &tunnel).await?.id;
    fetch_credentials(&session, id).await
}

/// From the file that `create` wrote, else from the edge.
async fn fetch_credentials(session: &Session, id: Uuid) -> anyhow::Result<Credentials> {
    let beside = session.directory.join("cert.pem");
    if let Some(path) = file::find_credentials(id, Some(&beside)) {
        return read_credentials(&path);
    }
    let token = session.api.token(&session.account, id).await?;
    Credentials::from_token(token.reveal()).context("the edge's token cannot be read")
}

fn read_credentials(path: &Path) -> anyhow::Result<Credentials> {
    let refuse = || {
        Problem::usage(
            format!("the credentials file {} cannot be used", path.display()),
            "check the path and who may read it; `snicket tunnel token --credentials-file FILE NAME` writes it anew",
        )
    };
    let text = read_file(path).with_context(refuse)?;
    Credentials::from_json(text.as_bytes()).with_context(refuse)
}

fn connector(settings: &Settings, flags: &Flags, credentials: Credentials, way: Way) -> anyhow::Result<Connector> {
    let values = &settings.values;
    let edges = way.edge.iter().map(|text| text.parse()).collect::<Result<Vec<EdgeName>, _>>();
    let edges = edges.context(Problem::usage("--edge is not usable", "write host:port"))?;
    let document =
        document(values).map_err(|reason| Problem::usage(reason, "correct the rule, --url or the options"))?;
    let mut config = connector::config(credentials, edges, way.roots, document)?;
    config.features = values.features.clone();
    config.edge_ip_version = match values.edge_ip_version.as_deref() {
        Some("4") => IpVersion::V4,
        Some("6") => IpVersion::V6,
        _ => IpVersion::Auto,
    };
    config.edge_bind_address = values.edge_bind_address;
    config.discovery = way.domain.and_then(|domain| match flags.dial.edge_resolver {
        Some(resolver) => Some(Discovery::at(&domain, vec![resolver])),
        None => Discovery::of(&domain, &config.edge),
    });
    config.post_quantum = values.post_quantum.unwrap_or(false);
    config.protocol = connector::protocol(values.protocol.as_deref().unwrap_or("auto"));
    config.connections = values.ha_connections.unwrap_or(agent::DEFAULT_CONNECTIONS);
    (config.retries, config.max_edge_addr_retries) = (values.retries, values.max_edge_addr_retries);
    config.rpc_timeout = values.rpc_timeout.unwrap_or(agent::DEFAULT_RPC_TIMEOUT);
    config.flags = reported_flags(values);
    let tags = values.tag.iter().map(|tag| tag.parse()).collect::<Result<Vec<Tag>, _>>();
    config.tags = tags.context(Problem::usage("a tag cannot be used", "write NAME=VALUE"))?;
    config.reload = settings.path.clone().map(|path| reload(path, flags.clone()));
    let metrics = values.metrics.as_deref().map(metrics_address).transpose();
    let metrics = metrics.map_err(|reason| Problem::usage(reason, "see --metrics"))?;
    Ok(Connector {
        config,
        metrics,
        inspect: flags.inspect.map_or(Inspect::Off, |address| Inspect::At(Some(address))),
        grace: values.grace_period.unwrap_or(agent::DEFAULT_GRACE),
        pidfile: values.pidfile.clone(),
    })
}

/// The rules of the file, else what the flags of a single origin mean.
fn document(values: &FileConfig) -> Result<Document, String> {
    if let Some(document) = &values.document {
        return Ok(document.clone());
    }
    let rules = values
        .single
        .rules(&values.origin_request)
        .map_err(|errors| errors.into_iter().map(|error| error.reason).collect::<Vec<_>>().join("; "))?;
    Ok(Document { rules, warp_routing: WarpRouting::default() })
}

fn reload(path: PathBuf, flags: Flags) -> Reload {
    let file = path.clone();
    let load = move || {
        let written = FileConfig::load(&file).map_err(|error| error.to_string())?;
        document(&flags.over(written))
    };
    Reload { path, load: Arc::new(load) }
}
