//! Starting a node of the edge: certificates, registry, sockets and API, for `up` and `try` alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use api::{ApiState, Facts, PublicPorts, QuickTunnels};
use certs::{Authority, Certificates, Names};
use edge::{Addresses, Edge, Pair, Running, Sockets, bind_pair, bind_tcp};
use jiff::Timestamp;
use registry::{EngineError, Etcd, EtcdSettings, Hostname, NewToken, OpenError, Registry};

use crate::ports::{Bound, PortRange, Wish, bind};
use crate::problem::Problem;
use crate::secret;
use crate::signals::Signals;

/// The API token's file in the data directory.
pub(crate) const TOKEN_FILE: &str = "api-token";

/// The registry's file in the data directory.
const REGISTRY_FILE: &str = "registry.redb";

/// Where a node listens.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// Visitors without TLS.
    pub(crate) http: Wish,
    /// Visitors with TLS.
    pub(crate) https: Wish,
    /// Agents.
    pub(crate) tunnel: Vec<Wish>,
    /// The REST API.
    pub(crate) api: Wish,
}

/// Sockets, and what had to be changed to get them.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Bound and listening.
    pub(crate) sockets: Sockets,
    /// One sentence for each default port that was taken.
    pub(crate) notices: Vec<String>,
}

impl Wishes {
    /// Binds everything, or nothing.
    pub(crate) fn bind(&self) -> anyhow::Result<Listening> {
        let mut notices = Vec::new();
        let http = bind("http", self.http, bind_tcp)?;
        note(&mut notices, "http", &http, |socket| socket.local_addr().ok());
        let https = bind("https", self.https, bind_pair)?;
        note(&mut notices, "https", &https, pair_address);
        let mut tunnel = Vec::new();
        for wish in &self.tunnel {
            let pair = bind("tunnel", *wish, bind_pair)?;
            note(&mut notices, "tunnel", &pair, pair_address);
            tunnel.push(pair.sockets);
        }
        let api = bind("api", self.api, bind_tcp)?;
        note(&mut notices, "api", &api, |socket| socket.local_addr().ok());
        let sockets = Sockets { http: http.sockets, https: https.sockets, tunnel, api: api.sockets };
        Ok(Listening { sockets, notices })
    }
}

fn pair_address(pair: &Pair) -> Option<SocketAddr> {
    pair.tcp.local_addr().ok()
}

fn note<T>(notices: &mut Vec<String>, purpose: &str, bound: &Bound<T>, address: impl Fn(&T) -> Option<SocketAddr>) {
    if let (Some(taken), Some(address)) = (bound.instead_of, address(&bound.sockets)) {
        notices.push(format!("port {taken} is taken, so {purpose} is on {}", address.port()));
    }
}

/// Where the registry is kept.
#[derive(Debug, Clone)]
pub(crate) enum Keep {
    /// In the data directory.
    OnDisk,
    /// For this process only.
    InMemory,
    /// In etcd, together with other nodes.
    Etcd(Box<EtcdSettings>),
}

/// What a node is made of, before it starts.
pub(crate) struct Blueprint {
    /// Visitors' names lie under it.
    pub(crate) domain: Hostname,
    /// Where the node is.
    pub(crate) location: String,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where the registry is kept.
    pub(crate) keep: Keep,
    /// A certificate of one's own and its key.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
    /// Who may make quick tunnels.
    pub(crate) quick_tunnels: QuickTunnels,
    /// What visitors and agents may use up.
    pub(crate) limits: edge::Limits,
    /// The public ports that tunnels may have.
    pub(crate) ports: Option<PortRange>,
}

/// A node at work.
pub(crate) struct Node {
    /// The edge.
    pub(crate) running: Running,
    /// Its registry.
    pub(crate) registry: Registry,
    /// Its certificates.
    pub(crate) certificates: Arc<Certificates>,
    /// The certificate to trust, a file.
    pub(crate) ca: PathBuf,
    /// The API token, if it was made just now.
    pub(crate) first_token: Option<String>,
    /// Others have the same registry, and connections that are not known here.
    is_one_of_many: bool,
}

impl Blueprint {
    /// Starts the node on these sockets.
    pub(crate) async fn start(self, sockets: Sockets) -> anyhow::Result<Node> {
        let Self { domain, location, data, keep, own, quick_tunnels, limits, ports } = self;
        secret::make_private_dir(&data).with_context(|| {
            Problem::new(format!("cannot make the data directory {}", data.display()), "name another one with --data")
        })?;
        let addresses = sockets.addresses().context("the sockets were bound above")?;
        let (ca, certificates) = certificates(&data, &domain, &addresses, own)?;
        let registry = open_registry(&data, &keep).await?;
        let now = Timestamp::now();
        registry.ensure_zone(now, &domain).await.context("the registry takes no changes")?;
        let token_file = data.join(TOKEN_FILE);
        let write = |token: &str| match keep {
            Keep::OnDisk | Keep::Etcd(_) => secret::write_private(&token_file, format!("{token}\n").as_bytes()),
            Keep::InMemory => Ok(()),
        };
        let is_one_of_many = matches!(keep, Keep::Etcd(_));
        let mut first_token = registry.create_first_token(now, write).await?;
        if first_token.is_none() && is_one_of_many && !token_file.exists() {
            // Another node made the first one, and nobody can read it out of the registry.
            let new = NewToken { name: format!("first token at {location}"), expires_at: None };
            let (_, secret) = registry.create_token(now, new).await?;
            write(&secret)?;
            first_token = Some(secret);
        }
        let config = edge::Config { location: location.clone(), limits, ports: ports.map(PortRange::numbers) };
        let facts = Facts {
            api: addresses.api,
            tunnel: addresses.tunnel.clone(),
            https: addresses.https,
            http: addresses.http,
            domain: domain.clone(),
            ca: secret::read_file(&ca).context("the authority's certificate was written above")?,
            location,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let state_of_api = registry.clone();
        let running = Edge::start(&config, sockets, registry.clone(), &certificates, |connections| {
            let draining = connections.draining();
            let opening = connections.clone();
            let ports = ports.map(|range| PublicPorts {
                range: range.numbers(),
                open: Arc::new(move |id| {
                    let opening = opening.clone();
                    Box::pin(async move { opening.open_port(id).await })
                }),
            });
            let close = Arc::new(move |tunnel, connector| connections.close(tunnel, connector));
            // No port keeps everybody else out.
            let most_visitors = (limits.connections / 2).max(1);
            api::router(ApiState {
                registry: state_of_api,
                close,
                ports,
                most_visitors,
                quick_tunnels,
                facts,
                draining,
            })
        })
        .with_context(|| Problem::new("the edge cannot start", "see the reason above"))?;
        Ok(Node { running, registry, certificates, ca, first_token, is_one_of_many })
    }
}

fn certificates(
    data: &Path,
    domain: &Hostname,
    addresses: &Addresses,
    own: Option<(PathBuf, PathBuf)>,
) -> anyhow::Result<(PathBuf, Arc<Certificates>)> {
    let authority = Authority::load_or_create(data, SystemTime::now()).with_context(|| {
        Problem::new(
            "the certificate authority cannot be used",
            format!(
                "check {}; with both ca.pem and ca.key moved away a new one is made, which everybody must trust anew",
                data.display()
            ),
        )
    })?;
    let ca = authority.certificate_path().to_owned();
    let listeners =
        [addresses.http, addresses.https, addresses.api].into_iter().chain(addresses.tunnel.iter().copied());
    let named: Vec<IpAddr> = listeners.map(|address| address.ip()).filter(|ip| !ip.is_unspecified()).collect();
    let names = Names { domains: vec![domain.to_string()], addresses: named };
    let certificates = Certificates::new(Arc::new(authority), names).context("certificates cannot be made")?;
    if let Some((chain, key)) = own {
        certificates.use_own(&chain, &key).with_context(|| {
            Problem::usage(
                "the certificate of --cert and --key cannot be used",
                "give a PEM chain, leaf first, and the leaf's key",
            )
        })?;
    }
    Ok((ca, certificates))
}

async fn open_registry(data: &Path, keep: &Keep) -> anyhow::Result<Registry> {
    let now = Timestamp::now();
    match keep {
        Keep::InMemory => Registry::in_memory(now).await.context("the registry cannot be made"),
        Keep::OnDisk => {
            let path = data.join(REGISTRY_FILE);
            let what = format!("the registry {} cannot be opened", path.display());
            Registry::open_file(&path, now).await.map_err(|error| unopened(error, what))
        }
        Keep::Etcd(settings) => {
            let open = async { Registry::open(Etcd::open(settings).await?, now).await };
            open.await.map_err(|error| unopened(error, "the registry in etcd cannot be opened".to_owned()))
        }
    }
}

fn unopened(error: OpenError, what: String) -> anyhow::Error {
    let advice = match &error {
        OpenError::InUse { .. } => "stop the edge that uses this directory, or give this one its own with --data",
        OpenError::Schema { .. } => "update this program, or choose another directory (--data) or prefix (--registry)",
        OpenError::Settings(_) => "correct what --registry, --registry-ca, --registry-cert and --registry-key say",
        OpenError::Engine(EngineError::Unavailable(_) | EngineError::Uncertain(_)) => {
            "start etcd, or correct --registry; edges that run already do without it meanwhile"
        }
        OpenError::Engine(EngineError::Refused(_)) => "give this node what etcd asks for",
        OpenError::Entry { .. } | OpenError::Founding(_) => "see the reason above; a copy brings back what is damaged",
        OpenError::File { .. }
        | OpenError::Engine(EngineError::Storage(_) | EngineError::Closed | EngineError::Slow) => {
            "check the disk; a damaged file is restored from a copy, or moved away to start anew without its tunnels"
        }
    };
    anyhow::Error::new(error).context(Problem::new(what, advice))
}

/// An address that this machine can dial: a listener on all addresses is reached by loopback.
pub(crate) fn near(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The URL of the API for this machine: without TLS on loopback, since nobody else is on that way.
pub(crate) fn api_origin(address: SocketAddr) -> String {
    let address = near(address);
    let scheme = if address.ip().is_loopback() { "http" } else { "https" };
    format!("{scheme}://{address}")
}

/// How often a certificate of one's own is looked at for a renewal; `certs` asks for about half a minute.
const RENEWAL_CHECK: Duration = Duration::from_secs(30);

/// How often quick tunnels that nobody serves any more are swept away.
const SWEEP: Duration = Duration::from_secs(3600);

/// A quick tunnel lives this long without a connection, so that a name survives a holiday.
const QUICK_TUNNEL_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

impl Node {
    /// What has to be done from time to time while the node runs, and when a signal asks for it. Never ends.
    pub(crate) async fn keep_house(&self, mut signals: Signals) {
        let mut renewal = tokio::time::interval(RENEWAL_CHECK);
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                _ = renewal.tick() => self.renew().await,
                () = signals.reload() => self.renew().await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn renew(&self) {
        let certificates = Arc::clone(&self.certificates);
        match tokio::task::spawn_blocking(move || certificates.reload_own()).await {
            Ok(Ok(true)) => tracing::info!("the certificate on disk has changed and is in use"),
            Ok(Ok(false)) => (),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the certificate on disk has changed and cannot be used; the old one stays")
            }
            Err(error) => tracing::error!(%error, "looking for a renewed certificate failed"),
        }
    }

    async fn sweep(&self) {
        // A quick tunnel that nobody serves here may be served at another node.
        if self.is_one_of_many {
            return;
        }
        match self.registry.sweep_quick_tunnels(Timestamp::now(), QUICK_TUNNEL_LIFE).await {
            Ok(removed) if removed.is_empty() => (),
            Ok(removed) => {
                tracing::info!(count = removed.len(), "removed quick tunnels that nobody has served for 30 days")
            }
            Err(error) => tracing::warn!(%error, "quick tunnels cannot be swept"),
        }
    }
}
