use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Host, Process, Program, Visitor, lasting_address};

/// A running `snicket up`, on loopback and free ports.
#[derive(Debug)]
pub struct Edge {
    /// The process.
    pub process: Process,
    ready: Value,
    home: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    host: Option<Arc<Host>>,
}

impl Edge {
    /// Starts an edge with domain `localhost`.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts an edge on a host, with files in this home directory: visitors and agents reach it at the host's address, the API
    /// is the host's own.
    pub async fn start_on(host: Arc<Host>, home: TempDir, arguments: &[&str]) -> Self {
        let address = host.address();
        let ports = ["http", "https", "tunnel"].map(|name| (name, format!("{address}:0")));
        let ports = [&ports[..], &[("api", "127.0.0.1:0".to_owned())]].concat();
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let (process, ready) = Self::spawn(Some(&host), home.path(), &ports, &arguments, &[]).await;
        Self { process, ready, home, arguments, variables: Vec::new(), host: Some(host) }
    }

    /// Starts an edge with more arguments of `up`.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_at(tempfile::tempdir().expect("a directory can be made"), arguments, &[]).await
    }

    /// The same with files in this home directory, and more variables.
    pub async fn start_at(home: TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let ports = ["http", "https", "tunnel", "api"].map(|name| (name, lasting_address().to_string()));
        let (process, ready) = Self::spawn(None, home.path(), &ports, &arguments, &variables).await;
        Self { process, ready, home, arguments, variables, host: None }
    }

    async fn spawn(
        host: Option<&Host>,
        home: &Path,
        ports: &[(&str, String)],
        arguments: &[String],
        variables: &[(String, String)],
    ) -> (Process, Value) {
        let mut words = vec!["up".to_owned(), "--json".to_owned()];
        for (name, address) in ports {
            if !arguments.iter().any(|word| word == &format!("--{name}")) {
                words.extend([format!("--{name}"), address.clone()]);
            }
        }
        words.extend_from_slice(arguments);
        let program = program(host, home, &words);
        let program = variables.iter().fold(program, |program, (name, value)| program.env(name, value));
        let mut process = program.start().await;
        let ready = process.event("ready").await;
        (process, ready)
    }

    /// Kills the edge as a power failure would.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts it again after its end, with the same data on the same ports.
    pub async fn start_again(&mut self) {
        let named = |name: &str| self.arguments.iter().any(|word| word == &format!("--{name}"));
        let ports = ["http", "https", "tunnel", "api"].into_iter().filter(|name| !named(name));
        let ports: Vec<_> = ports.map(|name| (name, self.address(name).to_string())).collect();
        let (process, ready) =
            Self::spawn(self.host.as_deref(), self.home.path(), &ports, &self.arguments, &self.variables).await;
        self.process = process;
        self.ready = ready;
    }

    /// The ready event.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Where visitors without TLS go.
    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// Where visitors with TLS go, TCP and UDP.
    pub fn https(&self) -> SocketAddr {
        self.address("https")
    }

    /// Where agents go, TCP and UDP.
    pub fn tunnel(&self) -> SocketAddr {
        self.address("tunnel")
    }

    /// Where the API is.
    pub fn api(&self) -> SocketAddr {
        self.address("api")
    }

    fn address(&self, name: &str) -> SocketAddr {
        address(&self.ready, name)
    }

    /// The certificate authority's file.
    pub fn ca(&self) -> PathBuf {
        text(&self.ready, "ca").into()
    }

    /// The API token's file.
    pub fn token_file(&self) -> PathBuf {
        text(&self.ready, "token_file").into()
    }

    /// The API token.
    ///
    /// # Panics
    /// Its file cannot be read.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).expect("the token's file can be read").trim().to_owned()
    }

    /// The home directory of the edge, for programs that are to find it without being told.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A visitor who trusts this edge.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.https(), self.http(), &self.ca())
    }

    /// Calls the API: status, and the JSON answered.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = Visitor::plain(self.api())
            .request(
                method,
                path,
                &[("authorization", &format!("Bearer {}", self.token())), ("content-type", "application/json")],
                body,
            )
            .await;
        let value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        (answer.status, value)
    }

    /// Runs a command of the program to its end, as the person who runs this edge: exit code, standard output, standard
    /// error.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        program(self.host.as_deref(), self.home.path(), arguments).run().await
    }

    /// What a command prints that succeeds.
    ///
    /// # Panics
    /// It fails.
    pub async fn said(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.command(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {out}{error}");
        out
    }

    /// Makes a named tunnel, leads this host name (or wildcard) to it, and answers the file of its token.
    ///
    /// # Panics
    /// One of the names is taken.
    pub async fn named_tunnel(&self, name: &str, hostname: &str) -> PathBuf {
        self.said(&["tunnel", "create", name]).await;
        self.said(&["tunnel", "route", "dns", name, hostname]).await;
        let file = self.home.path().join(format!("{name}.token"));
        std::fs::write(&file, self.said(&["tunnel", "token", name]).await).expect("the token can be written");
        file
    }
}

fn program(host: Option<&Host>, home: &Path, arguments: &[impl AsRef<OsStr>]) -> Program {
    match host {
        Some(host) => Program::on(host, home, arguments),
        None => Program::new(home, arguments),
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Process,
    ready: Value,
    home: TempDir,
}

impl Agent {
    /// Starts `snicket http SERVICE` through this edge, with more arguments.
    pub async fn start(edge: &Edge, service: &str, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        Self::start_at(edge, service, arguments, home).await
    }

    /// The same with files in this home directory, to be the same agent again.
    pub async fn start_at(edge: &Edge, service: &str, arguments: &[&str], home: TempDir) -> Self {
        Self::publish("http", edge, service, arguments, home).await
    }

    /// Starts `snicket tcp ORIGIN` through this edge, with more arguments.
    pub async fn tcp(edge: &Edge, origin: &str, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        Self::tcp_at(edge, origin, arguments, home).await
    }

    /// The same with files in this home directory, to be the same agent again.
    pub async fn tcp_at(edge: &Edge, origin: &str, arguments: &[&str], home: TempDir) -> Self {
        Self::publish("tcp", edge, origin, arguments, home).await
    }

    /// Starts `snicket udp ORIGIN` through this edge, with more arguments.
    pub async fn udp(edge: &Edge, origin: &str, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        Self::udp_at(edge, origin, arguments, home).await
    }

    /// The same with files in this home directory, to be the same agent again.
    pub async fn udp_at(edge: &Edge, origin: &str, arguments: &[&str], home: TempDir) -> Self {
        Self::publish("udp", edge, origin, arguments, home).await
    }

    async fn publish(command: &str, edge: &Edge, origin: &str, arguments: &[&str], home: TempDir) -> Self {
        let api = edge.api().to_string();
        let ca = edge.ca().display().to_string();
        let words = [command, origin, "--edge", &api, "--ca", &ca, "--metrics", "127.0.0.1:0", "--json"];
        Self::spawn(&[&words[..], arguments].concat(), home).await
    }

    /// Starts `snicket tunnel …` with these arguments, told the way to this edge, for example `["run", "--token-file",
    /// path]`.
    pub async fn tunnel(edge: &Edge, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let tunnel = edge.tunnel().to_string();
        let ca = edge.ca().display().to_string();
        let words = ["tunnel", "--edge", &tunnel, "--cacert", &ca, "--metrics", "127.0.0.1:0", "--json"];
        Self::spawn(&[&words[..], arguments].concat(), home).await
    }

    async fn spawn(words: &[&str], home: TempDir) -> Self {
        let mut process = Program::new(home.path(), words).start().await;
        let ready = process.event("ready").await;
        Self { process, ready, home }
    }

    /// Ends the agent, and answers its home directory for [`Agent::start_at`].
    pub async fn stop(mut self) -> TempDir {
        self.process.terminate().await;
        self.home
    }

    /// Kills the agent as a power failure would, and answers its home directory.
    pub async fn kill(mut self) -> TempDir {
        self.process.kill().await;
        self.home
    }

    /// The ready event.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The URL of this path, which begins with a slash, over TLS.
    pub fn url(&self, path: &str) -> String {
        join(&self.ready, "url", path)
    }

    /// The same without TLS.
    pub fn http_url(&self, path: &str) -> String {
        join(&self.ready, "http_url", path)
    }

    /// The public name, without a port.
    pub fn host(&self) -> String {
        host(text(&self.ready, "url"))
    }

    /// The public port of `tcp`, on loopback.
    pub fn port(&self) -> SocketAddr {
        let port = self.ready["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        (Ipv4Addr::LOCALHOST, port.unwrap_or_else(|| panic!("the ready event has no port: {}", self.ready))).into()
    }

    /// Where `/ready` and `/metrics` are.
    pub fn metrics(&self) -> SocketAddr {
        address(&self.ready, "metrics")
    }
}

/// A running `snicket try`.
#[derive(Debug)]
pub struct Try {
    /// The process.
    pub process: Process,
    ready: Value,
    _home: TempDir,
}

impl Try {
    /// Starts it on free ports, with more arguments: first the origin, if there is to be one.
    pub async fn start(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let words = ["try", "--http", "0", "--https", "0", "--json"];
        let mut process = Program::new(home.path(), &[&words[..], arguments].concat()).start().await;
        let ready = process.event("ready").await;
        Self { process, ready, _home: home }
    }

    /// The ready event.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The URL of this path, which begins with a slash, over TLS.
    pub fn url(&self, path: &str) -> String {
        join(&self.ready, "url", path)
    }

    /// The same without TLS.
    pub fn http_url(&self, path: &str) -> String {
        join(&self.ready, "http_url", path)
    }

    /// A visitor who trusts it.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(address(&self.ready, "https"), address(&self.ready, "http"), Path::new(text(&self.ready, "ca")))
    }
}

fn text<'a>(ready: &'a Value, key: &str) -> &'a str {
    ready[key].as_str().unwrap_or_else(|| panic!("the ready event has no {key}: {ready}"))
}

fn address(ready: &Value, key: &str) -> SocketAddr {
    let value = text(ready, key);
    let value = value.split_once("://").map_or(value, |(_, rest)| rest);
    value.parse().unwrap_or_else(|_| panic!("{key} in the ready event is no address: {ready}"))
}

fn join(ready: &Value, key: &str, path: &str) -> String {
    format!("{}{path}", text(ready, key).trim_end_matches('/'))
}

fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned()
}
