//! Services as labels of containers name them: Docker is asked which run, and tells when that changes (Engine API, plain HTTP over a Unix
//! socket).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use registry::Labels;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Named;
use super::service::{Said, Service};

/// What begins all labels that are read.
const HOSTNAME: &str = "snicket.hostname";
const PORT: &str = "snicket.port";
const POOL: &str = "snicket.pool";
const LABEL: &str = "snicket.label.";

/// A list of a thousand containers is a fifth of it.
const LARGEST_LIST: usize = 16 * 1024 * 1024;
/// For the head of an answer, and for a whole list.
const LIMIT: Duration = Duration::from_secs(10);
/// What happens meanwhile is one change: containers come and go together.
const GATHERING: Duration = Duration::from_millis(200);
/// Asked again after this time even if nothing was told.
const LOOK: Duration = Duration::from_secs(60);
/// Between two tries to reach Docker: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A container, as a list has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    network_settings: Networks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    private_port: u16,
    #[serde(default)]
    r#type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    #[serde(default)]
    networks: BTreeMap<String, Network>,
}

#[derive(Debug, Default, Deserialize)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    ip_address: String,
}

impl Container {
    /// What its labels name.
    fn service(&self) -> Result<Service, String> {
        let label = |name: &str| self.labels.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let hostname =
            label(HOSTNAME).ok_or_else(|| format!("{HOSTNAME}: a name is wanted, such as app.example.com"))?;
        let port = match label(PORT) {
            Some(port) => port.parse::<u16>().ok().filter(|port| *port != 0),
            None => self.only_port(),
        };
        let port =
            port.ok_or_else(|| format!("{PORT}: a number is wanted, since it does not listen at exactly one port"))?;
        let address = self.address().ok_or(
            "it has no IPv4 address in any network, and is not in the host's: connect it to a network that this machine \
             reaches (`docker network connect`)",
        )?;
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let url = format!("http://{address}:{port}");
        let labels = self
            .labels
            .iter()
            .filter_map(|(name, value)| Some(format!("{}={}", name.strip_prefix(LABEL)?, value.trim())));
        let labels = Labels::parse(labels.collect::<Vec<_>>().iter().map(String::as_str));
        let labels = labels.map_err(|bad| format!("{LABEL}…: {bad}"))?;
        let said = Said { hostname, url: &url, pool: label(POOL), labels, instance: Some(&self.id) };
        Service::new(said).map_err(|(part, reason)| format!("{part}: {reason}"))
    }

    /// Where it is reached. Only what is in the host's network is at the host's loopback: with that for any other one, such as of
    /// `--network none`, its labels would publish ports of the host that are not its own.
    fn address(&self) -> Option<&str> {
        let mut addresses = self.network_settings.networks.values().map(|network| network.ip_address.as_str());
        let its_own = addresses.find(|address| !address.is_empty());
        its_own.or_else(|| (self.host_config.network_mode == "host").then_some("127.0.0.1"))
    }

    fn only_port(&self) -> Option<u16> {
        let ports: BTreeSet<u16> =
            self.ports.iter().filter(|port| port.r#type != "udp").map(|port| port.private_port).collect();
        ports.first().copied().filter(|_| ports.len() == 1)
    }

    fn name(&self) -> &str {
        self.names.first().map_or(self.id.as_str(), |name| name.trim_start_matches('/'))
    }
}

/// Tells which services run, again and again as that changes. While Docker is away, what it told last stays.
pub(super) async fn follow(socket: PathBuf, named: watch::Sender<Named>) {
    let mut pause = PAUSES.0;
    loop {
        let problem = match session(&socket, &named, &mut pause).await {
            Ok(()) => anyhow!("it has ended the connection"),
            Err(problem) => problem,
        };
        tracing::warn!(socket = %socket.display(), problem = format!("{problem:#}"), "Docker cannot be asked; trying again");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Follows it as long as it answers.
async fn session(socket: &Path, named: &watch::Sender<Named>, pause: &mut Duration) -> anyhow::Result<()> {
    // Before the first list, so that nothing is missed in between.
    let mut events = ask(socket, "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D").await?.into_body();
    loop {
        let services = services(&list(socket).await?);
        // Told each time even if it is the same: whoever listens compares.
        named.send_if_modified(|before| {
            let is_news = before.as_ref() != Some(&services);
            *before = Some(services);
            is_news
        });
        *pause = PAUSES.0;
        match timeout(LOOK, events.frame()).await {
            Err(_) => continue,
            Ok(None) => return Ok(()),
            Ok(Some(frame)) => drop(frame.context("its events broke off")?),
        }
        sleep(GATHERING).await;
    }
}

/// Those that can be registered; the others are told of.
fn services(containers: &[Container]) -> Vec<Service> {
    let mut services = Vec::new();
    for container in containers.iter().filter(|container| container.state == "running") {
        match container.service() {
            Ok(service) => services.push(service),
            Err(reason) => tracing::warn!(container = container.name(), reason, "a container's labels name no service"),
        }
    }
    // In whatever order they are told.
    services.sort_by(|one, other| one.tunnel.cmp(&other.tunnel).then_with(|| one.url.cmp(&other.url)));
    services
}

async fn list(socket: &Path) -> anyhow::Result<Vec<Container>> {
    let answer = ask(socket, "/containers/json?filters=%7B%22label%22%3A%5B%22snicket.hostname%22%5D%7D").await?;
    let body = timeout(LIMIT, Limited::new(answer.into_body(), LARGEST_LIST).collect()).await;
    let body = body.context("its list did not come in time")?.map_err(|error| anyhow!("reading its list: {error}"))?;
    serde_json::from_slice(&body.to_bytes()).context("its list is not what this version knows")
}

async fn ask(socket: &Path, path: &str) -> anyhow::Result<Response<Incoming>> {
    let answer = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(dial(socket).await?)).await?;
        // Ends with the answer's body, or when nobody wants that any more.
        tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, "docker").body(Empty::<Bytes>::new())?;
        anyhow::Ok(sender.send_request(request).await?)
    };
    let answer = timeout(LIMIT, answer).await.context("it does not answer")??;
    if answer.status() != StatusCode::OK {
        bail!("it answered {}", answer.status());
    }
    Ok(answer)
}

#[cfg(unix)]
async fn dial(socket: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(socket).await
}

#[cfg(not(unix))]
async fn dial(_: &Path) -> io::Result<tokio::net::TcpStream> {
    Err(io::Error::other("Docker is asked over a Unix socket, which this system has not"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As the Engine API has one (version 1.41), but for members that nobody reads.
    fn container(labels: Value, networks: Value, ports: Value) -> Container {
        container_in("bridge", labels, networks, ports)
    }

    fn container_in(mode: &str, labels: Value, networks: Value, ports: Value) -> Container {
        let value = json!({
            "Id": "8dfafdbc3a40b9d1b9f0d8a2f1c7a1f1e2c3b4a5968778695a4b3c2d1e0f0f1e", "Names": ["/web-1"], "Image": "nginx",
            "Command": "nginx -g 'daemon off;'", "Created": 1_367_854_155, "State": "running", "Status": "Up 2 hours",
            "Labels": labels, "Ports": ports, "HostConfig": { "NetworkMode": mode },
            "NetworkSettings": { "Networks": networks }, "Mounts": [],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn labels_name_a_service() {
        let ports = json!([{ "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }, { "IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }, { "PrivatePort": 53, "Type": "udp" }]);
        let bridge = json!({ "bridge": { "IPAddress": "172.17.0.2", "Gateway": "172.17.0.1" } });
        let labels = json!({ "snicket.hostname": "app.example.com", "snicket.label.rack": "7", "maintainer": "x" });
        let service = container(labels, bridge.clone(), ports).service().unwrap();
        assert_eq!(
            (service.hostname.as_str(), service.url.as_str(), service.pool),
            ("app.example.com", "http://172.17.0.2:80", None)
        );
        assert_eq!(service.labels, Labels::parse(["rack=7"]).unwrap());
        let labels = json!({ "snicket.hostname": "app.example.com", "snicket.port": "9000", "snicket.pool": "web" });
        let service =
            container_in("host", labels, json!({ "host": { "IPAddress": "" } }), json!([])).service().unwrap();
        assert_eq!((service.url.as_str(), service.pool.as_deref()), ("http://127.0.0.1:9000", Some("web")));
        assert!(service.tunnel.ends_with("-8dfafdbc3a40"), "{}", service.tunnel);
        for (labels, said) in [
            (json!({ "snicket.hostname": "app.example.com" }), "snicket.port"),
            (json!({ "snicket.hostname": "app.example.com", "snicket.port": "0" }), "snicket.port"),
            (json!({ "snicket.hostname": "a b", "snicket.port": "80" }), "hostname"),
            (json!({ "snicket.hostname": "a.test", "snicket.port": "80", "snicket.pool": "a b" }), "pool"),
        ] {
            let problem = container(labels, bridge.clone(), json!([])).service().unwrap_err();
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn a_container_without_an_address_is_not_taken_for_the_host() {
        let labels = json!({ "snicket.hostname": "app.example.com", "snicket.port": "6379" });
        for (mode, networks) in [
            ("none", json!({ "none": { "IPAddress": "" } })),
            ("container:8dfafdbc3a40", json!({})),
            ("bridge", json!({ "bridge": { "IPAddress": "" } })),
            ("default", json!({ "host": {} })),
            ("", json!({})),
        ] {
            let container = container_in(mode, labels.clone(), networks, json!([]));
            let problem = container.service().map(|service| service.url).unwrap_err();
            assert!(problem.contains("no IPv4 address"), "{mode}: {problem}");
        }
        let bare = json!({ "Id": "8d", "State": "running", "Labels": labels });
        assert!(serde_json::from_value::<Container>(bare).unwrap().service().is_err());
    }
}
