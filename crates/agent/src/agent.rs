//! The shell around the supervisor: a task that dials and watches, and the handle that stops it.

mod connection;
mod running;
mod shell;
mod watch_file;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::Extensions;
use wire::identity::TunnelSecret;
use wire::registration::{BASE_FEATURES, Registration};

use crate::dial::Dialer;
use crate::edge::{Discovery, EdgeName, IpVersion};
use crate::event::{Event, Status};
use crate::handler::{Configuration, Requests};
use crate::ingress::Document;
use crate::inspector::{self, Inspector};
use crate::memory;
use crate::metrics::{Facts, Metrics, serve};
use crate::origin::PrepareError;
use crate::proxy::Proxies;
use crate::supervisor::Protocol;
pub use running::Running;
use running::Stop;

/// Events that wait for a slow listener; older ones are lost to it, which it is told.
const EVENTS: usize = 1024;

/// The number of parallel connections (section 1).
pub const DEFAULT_CONNECTIONS: NonZeroU8 = NonZeroU8::new(4).expect("four is not zero");
/// Limit for each call to the edge (section 3).
pub const DEFAULT_RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests under way may take after a stop was asked for (section 10).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Everything an agent has to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who owns the tunnel.
    pub account_tag: String,
    /// The tunnel.
    pub tunnel: Uuid,
    /// Proves the right to serve it.
    pub secret: TunnelSecret,
    /// This running agent.
    pub connector: Uuid,
    /// The agent's version, as reported.
    pub version: String,
    /// Features to announce beyond those that the agent has anyway.
    pub features: Vec<String>,
    /// Where the edge's own DNS is asked for its nodes.
    pub discovery: Option<Discovery>,
    /// Ways into the edge where that says nothing; at least one. Even and odd entries form two regions.
    pub edge: Vec<EdgeName>,
    /// Which family of addresses is dialled.
    pub edge_ip_version: IpVersion,
    /// The local address to dial from; fixes the family.
    pub edge_bind_address: Option<IpAddr>,
    /// Which roots the edge is verified with.
    pub roots: certs::tls::Roots,
    /// Hybrid post-quantum key exchange or none at all.
    pub post_quantum: bool,
    /// The transport.
    pub protocol: Protocol,
    /// Where a fallback is remembered across runs; `None`: nowhere.
    pub protocol_memory: Option<PathBuf>,
    /// Parallel connections.
    pub connections: NonZeroU8,
    /// How often the pause after a failure doubles, from one second; five times without it.
    pub retries: Option<u32>,
    /// QUIC may fail this often in a row before HTTP/2 is dialled at all. Without it HTTP/2 is dialled beside QUIC.
    pub max_edge_addr_retries: Option<u32>,
    /// Limit for each call to the edge.
    pub rpc_timeout: Duration,
    /// Proxies on the way to the edge, for HTTP/2, and to origins.
    pub proxies: Proxies,
    /// Added to each request as `Cf-Warp-Tag-<Name>`.
    pub tags: Vec<Tag>,
    /// The rules to begin with.
    pub document: Document,
    /// Where they are read again.
    pub reload: Option<Reload>,
    /// Flags that are reported to the edge with the local configuration.
    pub flags: BTreeMap<String, String>,
    /// The hostname of a quick tunnel, for `/quicktunnel` and the metrics.
    pub quick_hostname: Option<String>,
}

/// A file whose rules are applied whenever it changes.
#[derive(Clone)]
pub struct Reload {
    /// The file that is watched.
    pub path: PathBuf,
    /// Reads it; the error is for people, one mistake a line. May block.
    pub load: Arc<dyn Fn() -> Result<Document, String> + Send + Sync>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reload({})", self.path.display())
    }
}

/// A name and value that each request carries to the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    name: HeaderName,
    value: HeaderValue,
}

/// A text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no tag; write NAME=VALUE with letters, digits and dashes in the name")]
pub struct TagError(String);

impl Tag {
    /// Makes a tag.
    ///
    /// # Errors
    /// The name or value cannot stand in a header.
    pub fn new(name: &str, value: &str) -> Result<Self, TagError> {
        let wrong = || TagError(format!("{name}={value}"));
        if name.is_empty() {
            return Err(wrong());
        }
        let name = HeaderName::try_from(format!("cf-warp-tag-{name}")).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        Ok(Self { name, value })
    }
}

impl std::str::FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let (name, value) = text.split_once('=').ok_or_else(|| TagError(text.to_owned()))?;
        Self::new(name.trim(), value.trim())
    }
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TLS settings towards the edge.
    #[error(transparent)]
    Certs(#[from] certs::CertsError),
    /// The settings towards an origin.
    #[error(transparent)]
    Origin(#[from] PrepareError),
    /// No way into the edge was given.
    #[error("no address of an edge is given; give one with --edge HOST:PORT")]
    NoEdge,
}

/// The connector. [`Agent::start`] is the entry.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Starts dialling in a task of its own. `metrics`: a listener for the endpoint of section 15.1, see
    /// [`crate::listen_metrics`].
    ///
    /// An edge that cannot be reached is no error: it is tried again until the agent is stopped, and told as events.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, metrics: Option<TcpListener>) -> Result<Running, StartError> {
        Self::start_with_inspector(config, metrics, None).await
    }

    /// The same with an inspector at this listener, see [`crate::listen_inspector`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with_inspector(
        config: Config,
        metrics: Option<TcpListener>,
        inspector: Option<TcpListener>,
    ) -> Result<Running, StartError> {
        if config.edge.is_empty() {
            return Err(StartError::NoEdge);
        }
        let (events, since_start) = broadcast::channel(EVENTS);
        let requests = Arc::new(requests(&config, &events, inspector.is_some())?);
        let dialer = Arc::new(dialer(&config, &requests.metrics)?);
        let (status_sender, status) = watch::channel(Status::default());
        let (stop_sender, stop) = watch::channel(Stop::No);
        let (reload_sender, reload) = mpsc::channel(1);
        let (cut, done) = (CancellationToken::new(), CancellationToken::new());
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|bound| bound.local_addr().ok());
        let (metrics_address, inspector_address) = (address(&metrics), address(&inspector));

        let remembered = match &config.protocol_memory {
            Some(path) => memory::load(path, std::time::SystemTime::now()).await,
            None => None,
        };
        let facts = Arc::new(Facts {
            connector: config.connector,
            tunnel: config.tunnel,
            quick_hostname: config.quick_hostname.clone(),
            status: status.clone(),
            requests: Arc::clone(&requests),
        });
        let endpoint = metrics.map(|listener| serve(listener, facts));
        let inspecting = inspector.zip(requests.inspector.clone()).map(|(listener, inspector)| {
            inspector::serve(listener, inspector::Site { inspector, requests: Arc::clone(&requests) })
        });
        let shell = shell::Shell {
            registration: registration(&config),
            discovery: config.discovery,
            names: config.edge,
            ip_version: config.edge_ip_version,
            connections: config.connections,
            protocol: config.protocol,
            retries: config.retries,
            max_edge_addr_retries: config.max_edge_addr_retries,
            memory: config.protocol_memory,
            remembered,
            dialer,
            requests: Arc::clone(&requests),
            status: status_sender,
            stop,
            cut: cut.clone(),
        };
        let watching = config.reload.map(|file| watch_file::watch(file, reload, Arc::clone(&requests.configuration)));
        let finished = done.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                () = shell.run() => {}
                _ = async { tokio::join!(endless(endpoint), endless(inspecting), endless(watching)) } => {}
            }
            drop(finished);
        });
        Ok(Running {
            events,
            since_start: Mutex::new(Some(since_start)),
            status,
            stop: stop_sender,
            reload: reload_sender,
            metrics_address,
            inspector_address,
            cut: cut.clone(),
            _cut_when_dropped: cut.drop_guard(),
            done,
        })
    }
}

/// Work that ends only with the agent; there may be none.
async fn endless(work: Option<impl Future<Output = ()>>) {
    if let Some(work) = work {
        work.await;
    }
    std::future::pending().await
}

fn requests(config: &Config, events: &broadcast::Sender<Event>, inspected: bool) -> Result<Requests, PrepareError> {
    let metrics = Arc::new(Metrics::new(&config.version));
    if let Some(hostname) = &config.quick_hostname {
        metrics.user_hostnames.with_label_values(&[hostname]).inc();
    }
    let configuration = Configuration::new(
        config.document.clone(),
        config.flags.clone(),
        config.proxies.clone(),
        events.clone(),
        Arc::clone(&metrics),
    )?;
    Ok(Requests {
        flows: Arc::default(),
        configuration: Arc::new(configuration),
        tags: tags(config),
        events: events.clone(),
        metrics,
        inspector: inspected.then(Inspector::new),
    })
}

fn dialer(config: &Config, metrics: &Arc<Metrics>) -> Result<Dialer, certs::CertsError> {
    Ok(Dialer::new(
        certs::tls::agent_tls(&config.roots, config.post_quantum)?,
        certs::tls::agent_quic(&config.roots, config.post_quantum)?,
        config.edge_bind_address,
        config.proxies.clone(),
        config.rpc_timeout,
        Arc::clone(metrics),
    ))
}

/// Every request carries the connector's id, and the tags of the command line.
fn tags(config: &Config) -> Vec<(HeaderName, HeaderValue)> {
    let id = HeaderValue::from_str(&config.connector.to_string()).expect("a UUID is fit for a header");
    let id = (HeaderName::from_static("cf-warp-tag-id"), id);
    config.tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).chain([id]).collect()
}

fn registration(config: &Config) -> Registration {
    let mut features: Vec<String> = BASE_FEATURES.map(str::to_owned).to_vec();
    features.extend(Extensions::ALL.features());
    if config.post_quantum {
        features.push("postquantum".to_owned());
    }
    for feature in &config.features {
        if !features.contains(feature) {
            features.push(feature.clone());
        }
    }
    Registration {
        account_tag: config.account_tag.clone(),
        secret: config.secret.clone(),
        tunnel: config.tunnel,
        connection_index: 0,
        connector: config.connector,
        features,
        version: config.version.clone(),
        arch: architecture(),
        origin_local_ip: None,
        previous_attempts: 0,
    }
}

/// `<os>_<arch>` in the words of the reference.
fn architecture() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        arch => arch,
    };
    format!("{os}_{arch}")
}

/// Tells an event to listeners and, briefly, to the log.
fn tell(requests: &Requests, event: Event) {
    match &event {
        Event::Connected(connection) => tracing::info!(
            index = connection.index, location = %connection.location,
            transport = %connection.transport, edge = %connection.edge,
            "connected to the edge"
        ),
        Event::Disconnected { index, reason } => tracing::info!(index, %reason, "the connection to the edge has ended"),
        Event::ConnectFailed { index, edge, transport, reason, .. } => {
            tracing::warn!(index, %edge, %transport, %reason, "no connection to the edge");
        }
        Event::LookUpFailed { reason } => tracing::warn!(%reason, "the edge is not found"),
        Event::FellBack { reason } => tracing::info!("{reason}"),
        Event::Request(_)
        | Event::Stream(_)
        | Event::Flow(_)
        | Event::ConfigurationApplied { .. }
        | Event::ConfigurationRefused { .. } => {}
    }
    requests.tell(event);
}
