//! Running an agent until a signal ends it, for `http` and `tunnel` alike.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent::ingress::{Document, Rules, WarpRouting};
use agent::{Agent, Config, Event, Proxies, Running};
use anyhow::Context as _;
use certs::tls::Roots;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;
use wire::identity::Credentials;

use crate::inspect::{self, Inspect};
use crate::notify::{self, PidFile, Watchdog};
use crate::problem::Problem;
use crate::ready::Ready;
use crate::screen::Screen;
use crate::signals::Signals;
use crate::{paths, report};

/// Whoever waits longer is told for what.
const PATIENCE: Duration = Duration::from_secs(1);

/// Showing what has happened already takes no longer.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// The file that remembers a fallback to HTTP/2, in the state directory.
const PROTOCOL_MEMORY: &str = "transport";

/// An agent, and how it ends.
#[derive(Debug)]
pub(crate) struct Connector {
    /// The agent.
    pub(crate) config: Config,
    /// Where `/ready` and `/metrics` are to be; `None` is the first free of the usual ports.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether requests are recorded and shown.
    pub(crate) inspect: Inspect,
    /// How long requests may go on after the first signal.
    pub(crate) grace: Duration,
    /// Written once connected.
    pub(crate) pidfile: Option<PathBuf>,
}

/// An agent's configuration with everything at its default.
pub(crate) fn config(
    credentials: Credentials,
    edge: Vec<agent::edge::EdgeName>,
    roots: Roots,
    document: Document,
) -> anyhow::Result<Config> {
    let proxies = Proxies::from_environment()
        .context(Problem::usage("a proxy variable cannot be used", "correct the variable, or unset it"))?;
    Ok(Config {
        account_tag: credentials.account_tag,
        tunnel: credentials.tunnel,
        secret: credentials.secret,
        connector: Uuid::new_v4(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: Vec::new(),
        edge,
        edge_ip_version: agent::edge::IpVersion::Auto,
        discovery: None,
        edge_bind_address: None,
        roots,
        post_quantum: false,
        protocol: agent::Protocol::Auto,
        protocol_memory: Some(paths::state().join(PROTOCOL_MEMORY)),
        connections: agent::DEFAULT_CONNECTIONS,
        retries: None,
        max_edge_addr_retries: None,
        rpc_timeout: agent::DEFAULT_RPC_TIMEOUT,
        proxies,
        tags: Vec::new(),
        document,
        reload: None,
        flags: std::collections::BTreeMap::new(),
        quick_hostname: None,
    })
}

/// Rules that send everything to one service.
pub(crate) fn single(service: &str, overrides: agent::ingress::Overrides) -> anyhow::Result<Document> {
    let rules = Rules::single(service, overrides).map_err(|errors| {
        let reasons: Vec<String> = errors.into_iter().map(|error| error.reason).collect();
        Problem::usage(
            format!("{service} cannot be served: {}", reasons.join("; ")),
            "correct the origin or its options",
        )
    })?;
    Ok(Document { rules, warp_routing: WarpRouting::default() })
}

/// The value of `--metrics`: `host:port`, where the host is an address or `localhost`.
pub(crate) fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("{text:?} is not an address; write IP:PORT or localhost:PORT"))
}

/// The words of `--protocol`.
pub(crate) fn protocol(word: &str) -> agent::Protocol {
    match word {
        "http2" | "h2mux" => agent::Protocol::Http2,
        "quic" => agent::Protocol::Quic,
        _ => agent::Protocol::Auto,
    }
}

impl Connector {
    /// Connects, prints what `ready` makes of it, shows what happens, and ends on a signal.
    pub(crate) async fn serve(self, screen: Screen, ready: impl FnOnce(Ready, Screen)) -> anyhow::Result<()> {
        let Self { config, metrics, inspect, grace, pidfile } = self;
        let mut signals = Signals::install().context("signals cannot be watched")?;
        screen.detach().context("no thread can be started")?;
        let listener = agent::listen_metrics(metrics).await.with_context(|| {
            Problem::new(
                "cannot listen for /ready and /metrics",
                "choose another address with --metrics (port 0 = any)",
            )
        })?;
        let inspector = inspect.listen().await?;
        let mut facts = Ready {
            tunnel_id: Some(config.tunnel),
            connector_id: Some(config.connector),
            metrics: listener.local_addr().ok(),
            inspector: inspector.as_ref().and_then(|listener| listener.local_addr().ok()).map(inspect::url),
            ..Ready::default()
        };
        let edges = config.edge.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let running = Agent::start_with_inspector(config, Some(listener), inspector)
            .await
            .context(Problem::usage("the agent cannot start", "correct what is named"))?;
        let events = running.events();
        tokio::select! {
            connected = connected(&running, &edges, screen) => connected?,
            () = signals.draining() => {
                running.cut();
                running.stopped().await;
                return Ok(());
            }
        }
        if let Some(first) = running.status().borrow().connections.first() {
            facts.protocol = Some(first.transport.to_string());
            facts.tunnel = first.edge.parse().ok();
        }
        let _pidfile = pidfile.as_deref().map(PidFile::write).transpose()?;
        let inspector = facts.inspector.clone();
        ready(facts, screen);
        if let Some(url) = inspector {
            screen.say(format!("Requests are shown at {url}\n"));
        }
        notify::systemd("READY=1");
        let _watchdog = Watchdog::start();
        let shown = tokio::spawn(report::agent_events(events, screen));
        until_draining(&running, &mut signals).await;
        drain(&running, &signals, grace, screen).await;
        drop(running);
        // The last requests are told as well; with the agent gone, there is an end to the events.
        let _ = tokio::time::timeout(LAST_EVENTS, shown).await;
        screen.event(&json!({ "event": "stopped", "time": report::now() }));
        Ok(())
    }
}

async fn until_draining(running: &Running, signals: &mut Signals) {
    let draining = signals.clone();
    loop {
        tokio::select! {
            () = draining.draining() => return,
            () = signals.reload() => running.reload(),
        }
    }
}

async fn drain(running: &Running, signals: &Signals, grace: Duration, screen: Screen) {
    notify::systemd("STOPPING=1");
    draining(grace, screen);
    finish(running, grace, signals).await;
}

/// Stops the agent in order; a second signal cuts.
pub(crate) async fn finish(running: &Running, grace: Duration, signals: &Signals) {
    tokio::select! {
        () = running.shutdown(grace) => (),
        () = signals.cut() => {
            running.cut();
            running.stopped().await;
        }
    }
}

/// Says that the end has begun.
pub(crate) fn draining(grace: Duration, screen: Screen) {
    screen.event(&json!({ "event": "draining", "time": report::now(), "grace_seconds": grace.as_secs_f64() }));
    screen.say("Stopping; requests under way may finish. Press Ctrl-C again to cut them.");
}

/// Waits for the first connection. A refusal that only a person can mend ends the wait.
async fn connected(running: &Running, edges: &str, screen: Screen) -> anyhow::Result<()> {
    let mut events = running.events();
    let hint = async {
        tokio::time::sleep(PATIENCE).await;
        screen.say(format!("Connecting to the edge at {edges} …"));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ready = running.ready() => {
            if ready { Ok(()) } else { Err(Problem::new("the agent stopped before it was connected", "look at its log").into()) }
        }
        refused = permanent_refusal(&mut events) => Err(Problem::new(
            format!("the edge at {edges} refuses this agent: {refused}"),
            "check that the token or credentials are of this edge and the tunnel was not deleted",
        ).into()),
        () = hint => Ok(()),
    }
}

async fn permanent_refusal(events: &mut Receiver<Event>) -> String {
    loop {
        match events.recv().await {
            Ok(Event::ConnectFailed { reason, permanent: true, .. }) => return reason,
            Ok(_) | Err(RecvError::Lagged(_)) => (),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
