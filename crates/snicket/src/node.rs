//! Starting a node of the edge: certificates, registry, sockets and API, for `up` and `try` alike.

mod handover;
mod identity;
mod leading;
mod record;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use api::{ApiState, Facts, PublicPorts, QuickTunnels};
use certs::acme::AcmeClient;
use certs::{Authority, Certificates, Names};
use edge::{Addresses, BindError, Edge, Pair, Running, Sockets, bind_pair, bind_tcp};
use geo::Geography;
use jiff::Timestamp;
use policy::Network;
use registry::{AuthorityPurpose, Change, Hostname, NewToken, Registry};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::identity::Identity;
use self::leading::Leading;
pub(crate) use self::record::host_name;
use crate::acme::{Keeper, Shelf};
use crate::keep::{Keep, Place};
use crate::ports::{Bound, PortRange, Wish, bind};
use crate::problem::Problem;
use crate::secret;
use crate::signals::Signals;
use crate::whereabouts::GeoArgs;

/// The API token's file in the data directory.
pub(crate) const TOKEN_FILE: &str = "api-token";

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
    /// Who asks for names of the zones; `None`: nobody is answered.
    pub(crate) dns: Option<Wish>,
    /// The same with TLS; only beside that.
    pub(crate) dns_tls: Option<Wish>,
}

/// Sockets, and what had to be changed to get them.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Bound and listening.
    pub(crate) sockets: Sockets,
    /// Those for DNS, if there is to be any.
    pub(crate) dns: Option<DnsSockets>,
    /// One sentence for each default port that was taken.
    pub(crate) notices: Vec<String>,
}

/// Those that answer by DNS.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    plain: dns::Sockets,
    tls: Option<TcpListener>,
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
        let dns_tls = self.dns_tls.map(|wish| bind("dns-tls", wish, bind_tcp)).transpose()?;
        let dns = self.dns.map(|wish| bind("dns", wish, bind_dns)).transpose()?;
        let dns = match (dns, dns_tls) {
            (Some(plain), tls) => Some(DnsSockets { plain: plain.sockets, tls: tls.map(|bound| bound.sockets) }),
            (None, None) => None,
            (None, Some(_)) => {
                let advice = "add --dns, for example --dns 53";
                return Err(Problem::usage("--dns-tls answers only beside --dns", advice).into());
            }
        };
        let sockets = Sockets { http: http.sockets, https: https.sockets, tunnel, api: api.sockets };
        Ok(Listening { sockets, dns, notices })
    }
}

/// One thread for each processor answers.
fn bind_dns(address: SocketAddr, purpose: &'static str) -> Result<dns::Sockets, BindError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    dns::bind(address, threads).map_err(|error| BindError {
        address: error.address,
        transport: error.transport,
        purpose,
        source: error.source,
    })
}

fn pair_address(pair: &Pair) -> Option<SocketAddr> {
    pair.tcp.local_addr().ok()
}

fn note<T>(notices: &mut Vec<String>, purpose: &str, bound: &Bound<T>, address: impl Fn(&T) -> Option<SocketAddr>) {
    if let (Some(taken), Some(address)) = (bound.instead_of, address(&bound.sockets)) {
        notices.push(format!("port {taken} is taken, so {purpose} is on {}", address.port()));
    }
}

/// What a node is made of, before it starts.
pub(crate) struct Blueprint {
    /// Visitors' names lie under it.
    pub(crate) domain: Hostname,
    /// Where the node is.
    pub(crate) location: String,
    /// At which address other machines reach it; `None`: the one by which it reaches others.
    pub(crate) advertise: Option<IpAddr>,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where the registry is kept.
    pub(crate) keep: Keep,
    /// A certificate of one's own and its key.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
    /// Orders certificates of a public authority.
    pub(crate) acme: Option<AcmeClient>,
    /// Who may make quick tunnels.
    pub(crate) quick_tunnels: QuickTunnels,
    /// Where members of pools may be, beside public addresses.
    pub(crate) origin_networks: Vec<Network>,
    /// What visitors and agents may use up.
    pub(crate) limits: edge::Limits,
    /// The public ports that tunnels may have.
    pub(crate) ports: Option<PortRange>,
    /// Where the node is, and what says where its visitors are.
    pub(crate) geo: GeoArgs,
}

/// A node at work.
pub(crate) struct Node {
    /// The edge.
    pub(crate) running: Running,
    /// Its registry.
    pub(crate) registry: Registry,
    /// Its certificates.
    pub(crate) certificates: Arc<Certificates>,
    /// What orders public certificates.
    ordering: Option<Ordering>,
    /// What answers for the zones.
    dns: Option<dns::Server>,
    /// The certificate to trust, a file.
    pub(crate) ca: PathBuf,
    /// The API token, if it was made just now.
    pub(crate) first_token: Option<String>,
    /// What is otherwise than it should be, in one sentence.
    pub(crate) notice: Option<String>,
    identity: Identity,
    geography: Arc<Geography>,
}

/// A task that orders certificates until it is told to stop.
struct Ordering {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Blueprint {
    /// Starts the node on these sockets.
    pub(crate) async fn start(self, sockets: Sockets, dns: Option<DnsSockets>) -> anyhow::Result<Node> {
        let Self {
            domain,
            location,
            advertise,
            data,
            keep,
            own,
            acme,
            quick_tunnels,
            origin_networks,
            limits,
            ports,
            geo,
        } = self;
        let geography = Arc::new(geo.open()?);
        secret::make_private_dir(&data).with_context(|| {
            Problem::new(format!("cannot make the data directory {}", data.display()), "name another one with --data")
        })?;
        let addresses = sockets.addresses().context("the sockets were bound above")?;
        let (ca, certificates) = certificates(&data, &domain, &addresses, own)?;
        let now = Timestamp::now();
        let (registry, notice) = keep.open_registry(now).await?;
        registry.ensure_zone(now, &domain).await.context("the registry takes no changes")?;
        let zones = registry.clone();
        certificates.use_more(move |name| zones.snapshot().zone_of(name).is_some());
        // What follows works without; the first certificate that is asked for tries again.
        if let Err(problem) = api::ensure_authority(&registry, now, AuthorityPurpose::Origin).await {
            tracing::warn!(%problem, "there is no authority for origins' certificates yet");
        }
        let identity = Identity::default();
        if let Err(problem) = identity.renew(&registry, &certificates, now.into()).await {
            tracing::warn!(%problem, "this node has no certificate of its own yet");
        }
        let token_file = data.join(TOKEN_FILE);
        let write = |token: &str| match keep.place {
            Place::OnDisk | Place::Etcd(_) => secret::write_private(&token_file, format!("{token}\n").as_bytes()),
            Place::InMemory => Ok(()),
        };
        let is_one_of_many = matches!(keep.place, Place::Etcd(_));
        let mut first_token = registry.create_first_token(now, write).await?;
        if first_token.is_none() && is_one_of_many && !token_file.exists() {
            // Another node made the first one, and nobody can read it out of the registry.
            let new = NewToken { name: format!("first token at {location}"), expires_at: None };
            let (_, secret) = registry.create_token(now, new).await?;
            write(&secret)?;
            first_token = Some(secret);
        }
        let dns_address = dns.as_ref().and_then(|sockets| sockets.plain.tcp.local_addr().ok());
        let place = (location.as_str(), geography.home().region);
        let record = record::describe(registry.node(), place, (&addresses, dns_address), advertise, now);
        if is_one_of_many {
            registry.join(record);
        } else {
            registry.introduce(record);
        }
        let keeper = acme.map(|client| {
            let (shelf, asked) = Shelf::new(registry.clone(), domain.clone());
            certificates.use_public(shelf.clone());
            Keeper::new(registry.clone(), client, certificates.clone(), (shelf, asked))
        });
        let (dns_domain, dns_location) = (domain.clone(), location.clone());
        let config = edge::Config {
            location: location.clone(),
            limits,
            ports: ports.map(PortRange::numbers),
            origins: Arc::new(move |address| {
                policy::is_public(address) || origin_networks.iter().any(|network| network.contains(address))
            }),
            geography: Arc::clone(&geography),
        };
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
        let gather_handover = handover::of(&keep, &data, &domain);
        let shown = Arc::clone(&certificates);
        let node_certificate =
            Arc::new(move || shown.node().and_then(|used| Timestamp::try_from(used.expires_at).ok()));
        let running = Edge::start(&config, sockets, registry.clone(), &certificates, |connections| {
            let draining = connections.draining();
            let opening = connections.clone();
            let prober = connections.prober().clone();
            let preview: api::Preview = Arc::new(move |pool, monitor| {
                let prober = prober.clone();
                Box::pin(async move { prober.preview(&pool, &monitor).await })
            });
            let board = Arc::clone(connections.board());
            let known_here: api::KnownHere = Arc::new(move |member| {
                let answered = board.answered(member, Timestamp::now());
                let changes = board.health_changes(member);
                api::MemberHere { requests: answered.all, recent: answered.recent, changes }
            });
            let ports = ports.map(|range| PublicPorts {
                range: range.numbers(),
                open: Arc::new(move |id| {
                    let opening = opening.clone();
                    Box::pin(async move { opening.open_port(id).await })
                }),
            });
            let knowing = connections.clone();
            let know_caller = Arc::new(move |address| knowing.know(address));
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
                gather_handover,
                preview: Some(preview),
                known_here: Some(known_here),
                know_caller,
                node_certificate,
                draining,
            })
        })
        .with_context(|| Problem::new("the edge cannot start", "see the reason above"))?;
        let dns = dns.map(|sockets| {
            let leading = Leading {
                board: Arc::clone(running.board()),
                location: dns_location,
                geography: Arc::clone(&geography),
            };
            let server = answer_by_dns(sockets, dns_domain, &registry, leading, &certificates);
            server.with_context(|| Problem::new("the edge cannot answer by DNS", "see the reason above"))
        });
        let dns = dns.transpose()?;
        if let Some(server) = &dns {
            let metrics = Arc::clone(server.metrics());
            running.count_also(move || metrics.text());
            let answer = server.over_https();
            let answer = move |question: &[u8], from| {
                answer(question, from).map(|(message, seconds)| edge::DnsAnswer { message, seconds })
            };
            running.answer_dns(domain.clone(), Box::new(answer));
        }
        let ordering = keeper.map(|keeper| {
            let (stop, stopping) = oneshot::channel();
            let stopping = async {
                let _ = stopping.await;
            };
            Ordering { stop, task: tokio::spawn(keeper.run(stopping)) }
        });
        Ok(Node { running, registry, certificates, ordering, dns, ca, first_token, notice, identity, geography })
    }
}

fn answer_by_dns(
    sockets: DnsSockets,
    domain: Hostname,
    registry: &Registry,
    leading: Leading,
    certificates: &Arc<Certificates>,
) -> anyhow::Result<dns::Server> {
    let config = dns::Config { domain };
    let mut server = dns::Server::start(config, sockets.plain, registry.clone(), Arc::new(leading))?;
    if let Some(listener) = sockets.tls {
        listener.set_nonblocking(true)?;
        server.answer_over_tls(listener, certs::tls::dns_tls(certificates)?)?;
    }
    Ok(server)
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

/// Whether certificates of nodes may be another authority's from now on.
fn has_new_signer(event: &registry::Event) -> bool {
    match event {
        registry::Event::Changes { changes, .. } => {
            changes.iter().any(|change| matches!(change, Change::Authority(AuthorityPurpose::Node)))
        }
        registry::Event::Resync(_) => true,
    }
}

/// How often quick tunnels that nobody serves any more are swept away.
const SWEEP: Duration = Duration::from_secs(3600);

/// A quick tunnel lives this long without a connection, so that a name survives a holiday.
const QUICK_TUNNEL_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

impl Node {
    /// What has to be done from time to time while the node runs, and when a signal asks for it. Never ends.
    pub(crate) async fn keep_house(&self, mut signals: Signals) {
        let mut renewal = tokio::time::interval(RENEWAL_CHECK);
        let mut sweep = tokio::time::interval(SWEEP);
        let mut changes = self.registry.watch(self.registry.snapshot().revision());
        loop {
            tokio::select! {
                Some(event) = changes.next() => {
                    if has_new_signer(&event) {
                        self.renew().await;
                    }
                }
                _ = renewal.tick() => self.look_again().await,
                () = signals.reload() => self.look_again().await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    /// Orders no more certificates, and gives the names back that are being ordered.
    pub(crate) async fn stop_ordering(&mut self) {
        if let Some(Ordering { stop, task }) = self.ordering.take() {
            let _ = stop.send(());
            if let Err(error) = task.await {
                tracing::error!(%error, "what orders certificates has failed");
            }
        }
    }

    /// What answers for the zones, if anything does.
    pub(crate) fn dns(&self) -> Option<&dns::Server> {
        self.dns.as_ref()
    }

    /// Answers for the zones no more.
    pub(crate) async fn stop_dns(&mut self) {
        if let Some(server) = self.dns.take() {
            server.shutdown().await;
        }
    }

    /// Looks whether files have changed that others write.
    async fn look_again(&self) {
        self.renew().await;
        self.reload_geography().await;
    }

    /// Reads again what says where visitors are, if it has changed.
    async fn reload_geography(&self) {
        let geography = Arc::clone(&self.geography);
        match tokio::task::spawn_blocking(move || geography.reload()).await {
            Ok(Ok(true)) => tracing::info!("the database of --geo has changed and is in use"),
            Ok(Ok(false)) => (),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database of --geo has changed and cannot be used; the old one stays")
            }
            Err(error) => tracing::error!(%error, "looking for a new database of --geo failed"),
        }
    }

    async fn renew(&self) {
        let Self { identity, registry, certificates, .. } = self;
        if let Err(problem) = identity.renew(registry, certificates, SystemTime::now()).await {
            tracing::warn!(%problem, "this node's own certificate cannot be renewed; the old one stays");
        }
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
        match self.registry.sweep_quick_tunnels(Timestamp::now(), QUICK_TUNNEL_LIFE).await {
            Ok(removed) if removed.is_empty() => (),
            Ok(removed) => {
                tracing::info!(count = removed.len(), "removed quick tunnels that nobody has served for 30 days")
            }
            Err(error) => tracing::warn!(%error, "quick tunnels cannot be swept"),
        }
    }
}
