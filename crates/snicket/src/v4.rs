//! The edge's REST API as a person's commands use it (section 16.4).

mod pools;
mod zones;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use registry::{AuthorityPurpose, Labels, NodeAddresses, NodeId, PortProtocol};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::bootstrap::PortWish;
use crate::fetch::{Fetch, Sent, TIME_LIMIT, Trust, origin_of};
use crate::problem::Problem;
use crate::secret::Secret;

pub(crate) use pools::{Member, Pool, Split};
pub(crate) use zones::{Record, Zone};

/// Path of the API below scheme, host and port.
pub(crate) const BASE_PATH: &str = "/client/v4";

/// Path of what only our own edges have.
pub(crate) const OWN_PATH: &str = "/snicket/v1";

/// The code for what needs a registry that several nodes share.
const STANDS_ALONE: i64 = 1409;

/// The code for an authority before the present one that has to be ended first, as the message says.
const STILL_TRUSTED: i64 = 1410;

/// Tunnels asked for in one page.
const PER_PAGE: usize = 100;

/// Pages read before a list is taken to be endless.
pub(crate) const MOST_PAGES: usize = 1_000;

/// A tunnel as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tunnel {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its name.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created_at: Option<String>,
    /// When it was deleted.
    pub(crate) deleted_at: Option<String>,
    /// Its connections.
    #[serde(default)]
    pub(crate) connections: Vec<Conn>,
    /// What is said of it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(crate) labels: Labels,
}

/// One connection of a tunnel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Conn {
    /// The node's location.
    #[serde(default)]
    pub(crate) colo_name: String,
    /// Its id.
    #[serde(default)]
    pub(crate) id: Option<Uuid>,
    /// Lost, and expected back.
    #[serde(default)]
    pub(crate) is_pending_reconnect: bool,
    /// The agent's address.
    #[serde(default)]
    pub(crate) origin_ip: Option<String>,
    /// Since when.
    #[serde(default)]
    pub(crate) opened_at: Option<String>,
}

/// One connector of a tunnel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Connector {
    /// Its id.
    pub(crate) id: Uuid,
    /// The agent's version.
    #[serde(default)]
    pub(crate) version: String,
    /// Operating system and processor.
    #[serde(default)]
    pub(crate) arch: String,
    /// Since when it runs.
    #[serde(default)]
    pub(crate) run_at: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub(crate) features: Vec<String>,
    /// Its connections.
    #[serde(default)]
    pub(crate) conns: Vec<Conn>,
}

/// What `route lb` did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Balanced {
    /// `new`, `updated` or `unchanged`.
    pub(crate) load_balancer: String,
    /// The same of the pool.
    pub(crate) pool: String,
    /// The public name.
    #[serde(default)]
    pub(crate) name: String,
}

/// What `route dns` did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Routed {
    /// `new`, `updated` or `unchanged`.
    #[serde(default)]
    pub(crate) cname: String,
    /// The public name.
    #[serde(default)]
    pub(crate) name: String,
}

/// A public port of the edge, as its API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Port {
    /// Its number.
    pub(crate) port: u16,
    /// What its visitors speak.
    pub(crate) protocol: PortProtocol,
    /// The tunnel that it leads to.
    pub(crate) tunnel_id: Uuid,
    /// The name of that.
    pub(crate) tunnel_name: Option<String>,
    /// What it leads to at the agents.
    pub(crate) service: String,
    /// Whether an agent is connected.
    pub(crate) connected: bool,
    /// What the origin is told about each visitor.
    pub(crate) proxy_protocol: Option<String>,
    /// Visitors at once.
    pub(crate) max_connections: usize,
    /// Seconds after which what is silent ends.
    pub(crate) idle_seconds: u64,
    /// When the tunnel got it.
    pub(crate) created_at: Option<String>,
}

/// How an edge is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The node that was asked.
    pub(crate) node: NodeId,
    /// What is known of the registry.
    pub(crate) registry: RegistryStatus,
    /// The nodes that run.
    pub(crate) nodes: Vec<Node>,
    /// The tunnels, in numbers.
    pub(crate) tunnels: TunnelCounts,
    /// Certificates that nobody has to care for. Nodes of older versions say nothing of them.
    #[serde(default)]
    pub(crate) certificates: Certificates,
}

/// Certificates that are renewed by themselves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Certificates {
    /// When the node's own for other nodes ends; `None`: it has none yet.
    pub(crate) node_expires_at: Option<Timestamp>,
    /// Whether there is an authority for origins.
    pub(crate) origin_authority: bool,
    /// How many names have one of a public authority or are to have one.
    pub(crate) total: usize,
    /// Those with a problem first, then those that end first; not all if there are very many.
    pub(crate) list: Vec<Certificate>,
}

/// A name's certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Certificate {
    /// The name.
    pub(crate) name: String,
    /// `absent`, `ordering`, `valid`, `due` or `failed`; there may be one that is valid in any but the first.
    pub(crate) state: String,
    /// Who signed it.
    pub(crate) issuer: Option<String>,
    /// It is valid from then on.
    pub(crate) not_before: Option<Timestamp>,
    /// And until then.
    pub(crate) expires_at: Option<Timestamp>,
    /// A new one is ordered then.
    pub(crate) renew_at: Option<Timestamp>,
    /// Why the last order failed, if it did.
    pub(crate) last_error: Option<String>,
    /// When.
    pub(crate) failed_at: Option<Timestamp>,
    /// When the next one begins at the earliest.
    pub(crate) retry_at: Option<Timestamp>,
}

/// An authority that signs.
#[derive(Deserialize)]
pub(crate) struct Authority {
    /// The hash of its certificate.
    pub(crate) fingerprint: String,
    /// The one before.
    pub(crate) former: Option<Former>,
}

/// An authority that is trusted still.
#[derive(Deserialize)]
pub(crate) struct Former {
    /// The hash of its certificate.
    pub(crate) fingerprint: String,
    /// `None`: until somebody ends it.
    pub(crate) until: Option<Timestamp>,
}

/// A key by which one more machine becomes a node.
#[derive(Deserialize)]
pub(crate) struct Invited {
    /// The key.
    pub(crate) key: String,
    /// Good for nothing from then on.
    pub(crate) expires_at: Timestamp,
    /// Where the node's API listens.
    pub(crate) api: SocketAddr,
}

/// What a node knows of its registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RegistryStatus {
    /// The latest change.
    pub(crate) revision: u64,
    /// Whether the nodes are as they say now, and not as they said last.
    pub(crate) hears_all_nodes: bool,
}

/// A node that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Which.
    pub(crate) id: NodeId,
    /// The machine's name.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) location: String,
    /// Where others reach it.
    pub(crate) addresses: NodeAddresses,
    /// Its program's version.
    pub(crate) version: String,
    /// Since when it runs.
    pub(crate) started_at: Timestamp,
    /// Agents' connections to it.
    pub(crate) connections: usize,
}

/// Tunnels that are not deleted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TunnelCounts {
    /// All.
    pub(crate) total: usize,
    /// Those with a connection.
    pub(crate) connected: usize,
    /// The connections of all.
    pub(crate) connections: usize,
}

/// The answer's envelope. `result` is read only when the call worked.
#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    errors: Vec<ApiError>,
    #[serde(default)]
    result: Value,
    result_info: Option<PageInfo>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    code: i64,
    message: String,
}

/// Why an edge did not do what it was asked for, in its own words.
#[derive(Debug)]
pub(crate) struct Refusal(Vec<ApiError>);

impl Refusal {
    /// Whether one of these is among the reasons.
    pub(crate) fn has(&self, codes: &[i64]) -> bool {
        self.0.iter().any(|error| codes.contains(&error.code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said: Vec<String> = self.0.iter().map(|error| format!("{} (code {})", error.message, error.code)).collect();
        f.write_str(&said.join("; "))
    }
}

impl std::error::Error for Refusal {}

#[derive(Debug, Deserialize)]
struct PageInfo {
    #[serde(default)]
    total_count: usize,
}

/// The API of one edge, and who calls it.
#[derive(Debug)]
pub(crate) struct Api {
    base: Url,
    token: Option<Secret>,
    trust: Trust,
}

impl Api {
    /// `base` is the URL up to and with `/client/v4`; a bare host and port is completed.
    pub(crate) fn new(base: &str, token: Option<Secret>, trust: Trust) -> anyhow::Result<Self> {
        Ok(Self { base: api_url(base)?, token, trust })
    }

    /// Scheme, host and port, for messages.
    pub(crate) fn origin(&self) -> &str {
        origin_of(&self.base)
    }

    /// Whose certificates are believed.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Where it is, up to and with `/client/v4`.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Sends a call, whatever is answered to it.
    pub(crate) async fn send(&self, method: Method, url: &Url, body: Option<Value>) -> anyhow::Result<Response<Bytes>> {
        self.send_within(TIME_LIMIT, method, url, body.map(Sent::Json)).await
    }

    async fn send_within(
        &self,
        limit: Duration,
        method: Method,
        url: &Url,
        body: Option<Sent>,
    ) -> anyhow::Result<Response<Bytes>> {
        let fetch = Fetch { method, url, token: self.token.as_ref(), body, trust: &self.trust, limit };
        fetch.send().await.with_context(|| {
            Problem::new(
                format!("cannot reach the edge's API at {}", self.origin()),
                "check that the edge runs (`snicket up`), --api-url, and for https --cacert",
            )
        })
    }

    /// The first account; one installation has one.
    pub(crate) async fn account(&self) -> anyhow::Result<String> {
        let accounts: Vec<Named> = self.call(Method::GET, "/accounts", None).await?;
        accounts.into_iter().next().map(|account| account.id).context("the edge's API shows no account")
    }

    /// The zone that a name lies in, by asking for it and its parents in turn.
    pub(crate) async fn zone_of(&self, name: &str) -> anyhow::Result<Option<String>> {
        for name in with_parents(name) {
            if let Some(zone) = self.zone_id(name).await? {
                return Ok(Some(zone));
            }
        }
        Ok(None)
    }

    /// The zone of exactly this name, if there is one.
    pub(crate) async fn zone_id(&self, name: &str) -> anyhow::Result<Option<String>> {
        let zones: Vec<Named> = self.call(Method::GET, &format!("/zones?name={}", encode(name)), None).await?;
        Ok(zones.into_iter().next().map(|zone| zone.id))
    }

    /// Makes a tunnel; the answer holds the tunnel alone, the secret stays with the caller.
    pub(crate) async fn create(
        &self,
        account: &str,
        name: &str,
        secret: &str,
        labels: &Labels,
    ) -> anyhow::Result<Tunnel> {
        let mut body = json!({ "name": name, "tunnel_secret": secret });
        if !labels.is_empty() {
            body["labels"] = json!(labels);
        }
        self.call(Method::POST, &format!("/accounts/{account}/cfd_tunnel"), Some(body)).await
    }

    /// Gives a tunnel these labels instead of those that it has.
    pub(crate) async fn label(&self, account: &str, tunnel: Uuid, labels: &Labels) -> anyhow::Result<Tunnel> {
        let body = json!({ "labels": labels });
        self.call(Method::PATCH, &format!("/accounts/{account}/cfd_tunnel/{tunnel}"), Some(body)).await
    }

    /// Tunnels that match a query such as `is_deleted=false&name=web`.
    pub(crate) async fn tunnels(&self, account: &str, query: &str) -> anyhow::Result<Vec<Tunnel>> {
        self.all(&format!("/accounts/{account}/cfd_tunnel?{query}"), PER_PAGE).await
    }

    /// A list to its end, page by page of this size; the path has a query already.
    async fn all<T: DeserializeOwned>(&self, path: &str, per_page: usize) -> anyhow::Result<Vec<T>> {
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let path = format!("{path}&page={page}&per_page={per_page}");
            let (mut read, info): (Vec<T>, _) = self.call_paged(Method::GET, &path, None).await?;
            let count = read.len();
            all.append(&mut read);
            if count < per_page || info.is_none_or(|info| all.len() >= info.total_count) {
                break;
            }
        }
        Ok(all)
    }

    /// A tunnel by its id or its name.
    pub(crate) async fn find(&self, account: &str, id_or_name: &str) -> anyhow::Result<Tunnel> {
        if let Ok(id) = id_or_name.parse::<Uuid>() {
            return self.call(Method::GET, &format!("/accounts/{account}/cfd_tunnel/{id}"), None).await;
        }
        let query = format!("is_deleted=false&name={}", encode(id_or_name));
        self.tunnels(account, &query).await?.into_iter().next().ok_or_else(|| {
            Problem::new(
                format!("there is no tunnel named {id_or_name:?} at {}", self.origin()),
                format!("`snicket tunnel list` shows those that exist; `snicket tunnel create {id_or_name}` makes it"),
            )
            .into()
        })
    }

    /// Connectors of a tunnel.
    pub(crate) async fn connectors(&self, account: &str, tunnel: Uuid) -> anyhow::Result<Vec<Connector>> {
        self.call(Method::GET, &format!("/accounts/{account}/cfd_tunnel/{tunnel}/connections"), None).await
    }

    /// Deletes a tunnel, with `cascade` even while connections exist.
    pub(crate) async fn delete(&self, account: &str, tunnel: Uuid, cascade: bool) -> anyhow::Result<()> {
        let query = if cascade { "?cascade=true" } else { "" };
        self.call::<Value>(Method::DELETE, &format!("/accounts/{account}/cfd_tunnel/{tunnel}{query}"), None)
            .await
            .map(drop)
    }

    /// Drops connections of a tunnel: all, or those of one connector.
    pub(crate) async fn cleanup(&self, account: &str, tunnel: Uuid, connector: Option<Uuid>) -> anyhow::Result<()> {
        let query = connector.map(|id| format!("?client_id={id}")).unwrap_or_default();
        let path = format!("/accounts/{account}/cfd_tunnel/{tunnel}/connections{query}");
        self.call::<Value>(Method::DELETE, &path, None).await.map(drop)
    }

    /// The token that serves a tunnel.
    pub(crate) async fn token(&self, account: &str, tunnel: Uuid) -> anyhow::Result<Secret> {
        let text: String =
            self.call(Method::GET, &format!("/accounts/{account}/cfd_tunnel/{tunnel}/token"), None).await?;
        Ok(Secret::new(&text))
    }

    /// Makes a tunnel a member of a pool behind a name.
    pub(crate) async fn route_lb(&self, zone: &str, tunnel: Uuid, name: &str, pool: &str) -> anyhow::Result<Balanced> {
        let body = json!({ "type": "lb", "lb_name": name, "lb_pool": pool });
        self.call(Method::PUT, &format!("/zones/{zone}/tunnels/{tunnel}/routes"), Some(body)).await
    }

    /// Takes a tunnel out of a pool, unless it has other connectors than this one.
    pub(crate) async fn leave_pool(
        &self,
        zone: &str,
        tunnel: Uuid,
        pool: &str,
        connector: Uuid,
    ) -> anyhow::Result<Value> {
        let body = json!({ "lb_pool": pool, "connector_id": connector });
        self.call(Method::DELETE, &format!("/zones/{zone}/tunnels/{tunnel}/routes"), Some(body)).await
    }

    /// Gives a tunnel a public name.
    pub(crate) async fn route_dns(
        &self,
        zone: &str,
        tunnel: Uuid,
        name: &str,
        overwrite: bool,
    ) -> anyhow::Result<Routed> {
        let body = json!({ "type": "dns", "user_hostname": name, "overwrite_existing": overwrite });
        self.call(Method::PUT, &format!("/zones/{zone}/tunnels/{tunnel}/routes"), Some(body)).await
    }

    /// Takes a name from this tunnel, if it leads there.
    pub(crate) async fn remove_route(&self, tunnel: Uuid, name: &str) -> anyhow::Result<()> {
        let routes: Vec<Value> = self.own(Method::GET, &format!("/routes?tunnel={tunnel}&per_page=1000"), None).await?;
        if routes.iter().any(|route| route["hostname"] == name) {
            self.own::<Value>(Method::DELETE, &format!("/routes/{name}"), None).await?;
        }
        Ok(())
    }

    /// How the edge is.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        self.own(Method::GET, "/status", None).await
    }

    /// Makes a key by which one more machine becomes a node, good for so long.
    pub(crate) async fn invite(&self, life: Duration) -> anyhow::Result<Invited> {
        self.own(Method::POST, "/invitations", Some(json!({ "for_seconds": life.as_secs() }))).await
    }

    /// Has a new authority of nodes or of origins sign from now on.
    pub(crate) async fn rotate_authority(&self, purpose: AuthorityPurpose) -> anyhow::Result<Authority> {
        self.own(Method::POST, &format!("/authorities/{}", purpose.plural()), None).await
    }

    /// Has the one before be trusted no more.
    pub(crate) async fn end_former_authority(&self, purpose: AuthorityPurpose) -> anyhow::Result<Authority> {
        self.own(Method::DELETE, &format!("/authorities/{}/former", purpose.plural()), None).await
    }

    /// The public ports of all tunnels.
    pub(crate) async fn ports(&self) -> anyhow::Result<Vec<Port>> {
        self.own(Method::GET, "/ports", None).await
    }

    /// Gives a tunnel a public port that leads to this service.
    pub(crate) async fn add_port(&self, tunnel: Uuid, service: &str, wish: &PortWish) -> anyhow::Result<Port> {
        let mut body = wish.json();
        body["service"] = service.into();
        self.own(Method::POST, &format!("/tunnels/{tunnel}/ports"), Some(body)).await
    }

    /// Takes a public port from a tunnel.
    pub(crate) async fn remove_port(&self, tunnel: Uuid, protocol: PortProtocol, number: u16) -> anyhow::Result<()> {
        let path = format!("/tunnels/{tunnel}/ports/{protocol}/{number}");
        self.own::<Value>(Method::DELETE, &path, None).await.map(drop)
    }

    async fn own<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<T> {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{OWN_PATH}{path}"));
        url.set_query(query);
        self.call_at(method, &url, body).await.map(|(result, _)| result)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<T> {
        self.call_paged(method, path, body).await.map(|(result, _)| result)
    }

    async fn call_paged<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(T, Option<PageInfo>)> {
        let url = Url::parse(&format!("{}{path}", self.base)).context("the API's URL")?;
        self.call_at(method, &url, body).await
    }

    async fn call_at<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        body: Option<Value>,
    ) -> anyhow::Result<(T, Option<PageInfo>)> {
        self.read(&self.send(method, url, body).await?)
    }

    /// What an answer says, if it is one of success.
    fn read<T: DeserializeOwned>(&self, answer: &Response<Bytes>) -> anyhow::Result<(T, Option<PageInfo>)> {
        let status = answer.status();
        let envelope = serde_json::from_slice::<Envelope>(answer.body());
        if status != StatusCode::OK {
            return Err(self.refusal(status, envelope.map(|envelope| envelope.errors).unwrap_or_default()));
        }
        let envelope = envelope.with_context(|| self.not_ours())?;
        if !envelope.success {
            return Err(self.refusal(status, envelope.errors));
        }
        let result = serde_json::from_value(envelope.result).with_context(|| self.not_ours())?;
        Ok((result, envelope.result_info))
    }

    fn not_ours(&self) -> Problem {
        Problem::new(
            format!("what answers at {} is not an edge's API", self.origin()),
            "check --api-url; it ends in /client/v4",
        )
    }

    fn refusal(&self, status: StatusCode, errors: Vec<ApiError>) -> anyhow::Error {
        let says = |code| errors.iter().any(|error| error.code == code);
        let (stands_alone, says_what_to_do) = (says(STANDS_ALONE), says(STILL_TRUSTED));
        let advice = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "the token or cert.pem belongs to another edge, was revoked or may not do that; fetch a new one with \
                 `snicket tunnel login`, or name another one with --token-file"
            }
            StatusCode::NOT_FOUND => "check the id or name; somebody may have removed it",
            StatusCode::CONFLICT if stands_alone => "see docs/run-an-edge.md, several nodes on one registry",
            StatusCode::CONFLICT if says_what_to_do => "",
            StatusCode::CONFLICT => "choose another name, or delete what has it",
            StatusCode::TOO_MANY_REQUESTS => "wait a minute and try again",
            _ if status.is_server_error() => "look at the edge's log",
            _ => "",
        };
        let problem = Problem::new(format!("the edge at {} refused ({})", self.origin(), status.as_u16()), advice);
        if errors.is_empty() { problem.into() } else { anyhow::Error::new(Refusal(errors)).context(problem) }
    }
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

/// A name and its parents, the nearest first.
pub(crate) fn with_parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
}

/// Completes what people write: `edge.example`, `edge.example:7845`, `https://edge.example/client/v4`.
pub(crate) fn api_url(text: &str) -> anyhow::Result<Url> {
    let refuse = || {
        Problem::usage(
            format!("{text:?} is not the URL of an API"),
            "write for example https://edge.example:7845/client/v4, or host:port",
        )
    };
    let parsed = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("https://{text}")) };
    let mut url = parsed.with_context(refuse)?;
    if !text.contains("://") {
        // An edge's API answers in plain only to its own machine.
        if is_loopback(&url) {
            url = Url::parse(&format!("http://{text}")).with_context(refuse)?;
        }
        if url.port().is_none() && !text.ends_with(":443") {
            // The setter fails only for a URL without a host, which is refused below.
            let _ = url.set_port(Some(crate::command::up::API_PORT));
        }
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(refuse().into());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(if path.is_empty() { BASE_PATH } else { &path });
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Percent-encodes a value of a query.
pub(crate) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_api_are_completed() {
        for (text, url) in [
            ("127.0.0.1:7845", "http://127.0.0.1:7845/client/v4"),
            ("edge.example", "https://edge.example:7845/client/v4"),
            ("192.0.2.1:443", "https://192.0.2.1/client/v4"),
            ("[::1]", "http://[::1]:7845/client/v4"),
            ("https://edge.example", "https://edge.example/client/v4"),
            ("http://localhost:1/client/v4/", "http://localhost:1/client/v4"),
        ] {
            assert_eq!(api_url(text).unwrap().as_str(), url, "{text}");
        }
        for text in ["", "ftp://x", "http://"] {
            assert!(api_url(text).is_err(), "{text}");
        }
    }
}
