use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use harness::{Answer, Edge, LIMIT, Process, Program, Visitor, until};
use serde_json::Value;
use tempfile::TempDir;

/// Both transports, as `--protocol` names them.
pub(crate) const TRANSPORTS: [&str; 2] = ["quic", "http2"];

/// Connections that an agent holds by default.
pub(crate) const CONNECTIONS: usize = 4;

/// A named tunnel of an edge with a name of its own under its domain.
pub(crate) struct Tunnel {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) token: PathBuf,
    pub(crate) credentials: String,
    ca: PathBuf,
    edge: SocketAddr,
    https: SocketAddr,
    http: SocketAddr,
}

/// An agent that serves a named tunnel.
pub(crate) struct Connector {
    pub(crate) process: Process,
    pub(crate) ready: Value,
}

impl Connector {
    pub(crate) fn metrics(&self) -> SocketAddr {
        self.ready["metrics"].as_str().expect("the agent tells where its metrics are").parse().expect("an address")
    }
}

impl Tunnel {
    pub(crate) async fn create(edge: &Edge, name: &str) -> Self {
        let created = said(edge, &["tunnel", "create", "--json", name]).await;
        let created: Value = serde_json::from_str(created.lines().next().expect("a line")).expect("JSON");
        let host = format!("{name}.localhost");
        said(edge, &["tunnel", "route", "dns", name, &host]).await;
        let token = edge.home().join(format!("{name}.token"));
        std::fs::write(&token, said(edge, &["tunnel", "token", name]).await).expect("the token can be written");
        Self {
            name: name.to_owned(),
            id: created["id"].as_str().expect("an id").to_owned(),
            host,
            token,
            credentials: created["credentials_file"].as_str().expect("a path").to_owned(),
            ca: edge.ca(),
            edge: edge.tunnel(),
            https: edge.https(),
            http: edge.http(),
        }
    }

    /// `tunnel … run` with these arguments, which dials this address.
    pub(crate) fn program(&self, home: &Path, edge: SocketAddr, arguments: &[&str]) -> Program {
        let (edge, ca) = (edge.to_string(), self.ca.display().to_string());
        let token = self.token.display().to_string();
        let words = ["tunnel", "--edge", &edge, "--cacert", &ca, "--metrics", "127.0.0.1:0", "--json"];
        Program::new(home, &[&words[..], &["run", "--token-file", &token], arguments].concat())
    }

    /// Runs an agent that dials the edge.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Connector {
        self.run_through(self.edge, arguments).await
    }

    /// Runs an agent that dials this address, where the edge is to be found.
    pub(crate) async fn run_through(&self, edge: SocketAddr, arguments: &[&str]) -> Connector {
        let home = home();
        let mut process = self.program(home.path(), edge, arguments).start().await;
        let ready = process.event("ready").await;
        Connector { process, ready }
    }

    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.host, self.https.port())
    }

    /// Without TLS, which is cheap for many requests.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.host, self.http.port())
    }
}

pub(crate) fn home() -> TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

/// What a command of the edge's owner prints; it succeeds.
pub(crate) async fn said(edge: &Edge, words: &[&str]) -> String {
    let (code, out, error) = edge.command(words).await;
    assert_eq!(code, 0, "{words:?}: {out}{error}");
    out
}

/// Asks until the answer has this status; tells how long that took.
pub(crate) async fn until_status(visitor: &Visitor, url: &str, status: u16) -> Duration {
    let started = Instant::now();
    until(LIMIT, &format!("{url} answers {status}"), async || visitor.get(url).await.status == status).await;
    started.elapsed()
}

/// The account of an edge. It is asked for once: a token has 1,200 calls in five minutes, and whoever waits looks often.
async fn account(edge: &Edge) -> String {
    static KNOWN: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    let known = KNOWN.lock().expect("nobody panics with it").get(edge.home()).cloned();
    if let Some(account) = known {
        return account;
    }
    let (_, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    let account = accounts["result"][0]["id"].as_str().expect("there is one account").to_owned();
    KNOWN.lock().expect("nobody panics with it").insert(edge.home().to_owned(), account.clone());
    account
}

/// Connections of a tunnel as the edge's API lists them.
pub(crate) async fn connections(edge: &Edge, tunnel: &str) -> Vec<Value> {
    let path = format!("/client/v4/accounts/{}/cfd_tunnel/{tunnel}/connections", account(edge).await);
    let (status, answer) = edge.call("GET", &path, None).await;
    assert_eq!(status, 200, "{answer}");
    let connectors = answer["result"].as_array().cloned().unwrap_or_default();
    connectors.iter().flat_map(|connector| connector["conns"].as_array().cloned().unwrap_or_default()).collect()
}

/// Waits until an agent has lost a connection, and tells why it thinks so.
pub(crate) async fn disconnected(process: &mut Process) -> String {
    let event = process.event_where(|event| event["event"] == "connection" && event["state"] == "disconnected").await;
    event["reason"].as_str().unwrap_or_default().to_owned()
}

/// Waits until an agent has made a connection again.
pub(crate) async fn connected(process: &mut Process) -> Value {
    process.event_where(|event| event["event"] == "connection" && event["state"] == "connected").await
}

/// An answer as text for a failed assertion.
pub(crate) fn shown(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.text().lines().next().unwrap_or_default())
}
