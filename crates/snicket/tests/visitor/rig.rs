//! An edge with one agent over each transport, all for the same origin; or with rules of the test's own.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use harness::{Agent, Edge, RequestBody};
use http::Uri;

use crate::visit::{self, Answer, Exchange, Over, full};

/// What agents connect by.
pub(crate) const TRANSPORTS: [&str; 2] = ["http2", "quic"];

pub(crate) struct Rig {
    pub(crate) edge: Edge,
    /// In the order of [`TRANSPORTS`].
    pub(crate) agents: Vec<Agent>,
}

impl Rig {
    /// Starts all of it; the service is where the origin is, as an agent is told.
    pub(crate) async fn start(service: &str) -> Self {
        Self::start_with(&[], service).await
    }

    /// The same with more arguments for the edge.
    pub(crate) async fn start_with(arguments: &[&str], service: &str) -> Self {
        let edge = Edge::start_with(arguments).await;
        let agents = TRANSPORTS.map(|transport| start(&edge, service, transport));
        let agents = futures_util::future::join_all(agents).await;
        for (agent, transport) in agents.iter().zip(TRANSPORTS) {
            assert_eq!(agent.ready()["protocol"], transport, "{}", agent.ready());
        }
        Self { edge, agents }
    }

    /// Every version of HTTP that visitors speak, through each transport.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Way<'_>> {
        self.ways_over(&Over::ALL)
    }

    /// These versions, through each transport.
    pub(crate) fn ways_over<'a>(&'a self, versions: &'a [Over]) -> impl Iterator<Item = Way<'a>> {
        self.agents
            .iter()
            .flat_map(move |agent| versions.iter().map(move |over| Way { edge: &self.edge, agent, over: *over }))
    }
}

async fn start(edge: &Edge, service: &str, transport: &str) -> Agent {
    Agent::start(edge, service, &["--protocol", transport]).await
}

/// One way from a visitor to the origin.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) agent: &'a Agent,
    pub(crate) over: Over,
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} through {}", self.over, self.agent.ready()["protocol"])
    }
}

impl Way<'_> {
    /// The URL of this path on this way.
    pub(crate) fn url(&self, path: &str) -> Uri {
        let url = if self.over == Over::Plain { self.agent.http_url(path) } else { self.agent.url(path) };
        url.parse().unwrap()
    }

    /// Sends a request, whose body goes on by itself; nothing of the answer has been read yet.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &[u8])],
        body: RequestBody,
    ) -> Exchange {
        let mut request = http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        visit::open(self.edge, self.over, request.body(body).unwrap()).await
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &[u8])],
        body: impl Into<Bytes>,
    ) -> Answer {
        let exchange = self.open(method, path, headers, full(body)).await;
        exchange.answer().await.unwrap_or_else(|error| panic!("{self}: {method} {path}: {error}"))
    }

    /// Gets a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }
}

/// An edge of whose domain every name leads to one tunnel, for agents with rules of the test's own.
pub(crate) struct Ruled {
    pub(crate) edge: Edge,
    token: PathBuf,
}

impl Ruled {
    pub(crate) async fn start() -> Self {
        let edge = Edge::start().await;
        let token = edge.named_tunnel("ruled", "*.localhost").await;
        Self { edge, token }
    }

    /// Starts an agent with this configuration file. It is to be stopped before the next one starts.
    pub(crate) async fn agent(&self, transport: &str, config: &str) -> Agent {
        let file = self.edge.home().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let (file, token) = (file.display().to_string(), self.token.display().to_string());
        let words = ["--config", &file, "--protocol", transport, "run", "--token-file", &token];
        let agent = Agent::tunnel(&self.edge, &words).await;
        assert_eq!(agent.ready()["protocol"], transport, "{}", agent.ready());
        agent
    }
}

/// A rule for `NAME.localhost` with these `originRequest` keys.
pub(crate) fn rule(name: &str, service: &str, options: &str) -> String {
    format!("  - hostname: {name}.localhost\n    service: {service}\n    originRequest: {{{options}}}\n")
}
