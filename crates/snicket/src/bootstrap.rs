//! The first questions to an edge: what it is, and a quick tunnel.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::{Method, StatusCode};
use registry::PortProtocol;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;
use wire::identity::{Credentials, OriginCert, TunnelSecret};

use crate::command::place::Place;
use crate::fetch::{Fetch, Sent, TIME_LIMIT, Trust};
use crate::ports::PortRange;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::Secret;
use crate::v4::api_url;

/// Nobody waits longer to learn that no edge is there.
const LIMIT: Duration = Duration::from_secs(5);

/// What an edge says of itself at `/.well-known/snicket`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Known {
    /// Quick tunnels get names under it.
    pub(crate) domain: String,
    /// Where agents go, `host:port`.
    pub(crate) tunnel: Vec<String>,
    /// Where visitors with TLS go, `host:port`.
    pub(crate) https: String,
    /// Where visitors without go, `host:port`.
    pub(crate) http: String,
    /// The certificate to trust, PEM.
    pub(crate) ca: String,
}

impl Known {
    /// The ports of visitors with and without TLS.
    pub(crate) fn ports(&self) -> (u16, u16) {
        let port =
            |address: &str, usual| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(usual);
        (port(&self.https, 443), port(&self.http, 80))
    }
}

/// A quick tunnel as an edge hands it out (section 16.3).
#[derive(Debug, Clone)]
pub(crate) struct QuickTunnel {
    /// The public name.
    pub(crate) hostname: String,
    /// The right to serve it.
    pub(crate) credentials: Credentials,
    /// The public port, if one was wished for.
    pub(crate) port: Option<u16>,
}

/// A quick tunnel's name, the secret that proves it is one's own, and who may visit it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// The first label of the name.
    pub(crate) label: Option<String>,
    /// The secret of the tunnel that had the name before.
    pub(crate) secret: Option<TunnelSecret>,
    /// Who may visit it; everybody, if there is nothing.
    pub(crate) access: Option<policy::Access>,
    /// A public port; none, if there is nothing.
    pub(crate) port: Option<PortWish>,
    /// The origin ends visitors' TLS by itself, which are served so; the edge does, if there is nothing.
    pub(crate) tls: Option<StreamWish>,
}

/// How visitors of a byte stream are served. What is left out is up to the edge.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamWish {
    /// `v1` or `v2`.
    pub(crate) proxy_protocol: Option<String>,
    /// Connections at once.
    pub(crate) max_connections: Option<NonZeroUsize>,
    /// Time without a byte; zero is for ever.
    pub(crate) idle: Option<Duration>,
}

/// A public port that leads to a tunnel. What is left out is up to the edge.
#[derive(Debug, Clone)]
pub(crate) struct PortWish {
    /// What visitors speak.
    pub(crate) protocol: PortProtocol,
    /// So many in a row.
    pub(crate) count: u16,
    /// Which ones will do.
    pub(crate) range: Option<PortRange>,
    /// The one to take if it is free.
    pub(crate) prefer: Option<u16>,
    /// How its visitors are served.
    pub(crate) stream: StreamWish,
}

impl PortWish {
    /// For this origin.
    pub(crate) fn new(origin: &Place, range: Option<PortRange>, stream: StreamWish) -> Self {
        Self { protocol: origin.protocol(), count: origin.count(), range, prefer: None, stream }
    }

    /// As the edge's API takes it.
    pub(crate) fn json(&self) -> Value {
        let mut wish = self.stream.json();
        if self.protocol != PortProtocol::Tcp {
            wish["protocol"] = self.protocol.to_string().into();
        }
        if self.count > 1 {
            wish["count"] = self.count.into();
        }
        let range = self.range.map(PortRange::numbers);
        set(&mut wish, "first", range.as_ref().map(|range| *range.start()));
        set(&mut wish, "last", range.as_ref().map(|range| *range.end()));
        set(&mut wish, "prefer", self.prefer);
        wish
    }
}

impl StreamWish {
    fn json(&self) -> Value {
        let mut wish = json!({});
        set(&mut wish, "proxy_protocol", self.proxy_protocol.as_deref());
        set(&mut wish, "max_connections", self.max_connections.map(NonZeroUsize::get));
        set(&mut wish, "idle_seconds", self.idle.map(|idle| idle.as_secs()));
        wish
    }
}

fn set(wish: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        wish[key] = value.into();
    }
}

/// The URL of `/.well-known/snicket` at this API.
pub(crate) fn url(api: &str) -> anyhow::Result<Url> {
    at(api, "/.well-known/snicket")
}

fn at(api: &str, path: &str) -> anyhow::Result<Url> {
    let mut url = api_url(api)?;
    url.set_path(path);
    Ok(url)
}

/// Asks an edge what it is.
pub(crate) async fn ask(api: &str, trust: &Trust) -> anyhow::Result<Known> {
    let url = url(api)?;
    let fetch = Fetch { method: Method::GET, url: &url, token: None, body: None, trust, limit: LIMIT };
    let answer = fetch.send().await.with_context(|| unreachable(api))?;
    let no_edge = || {
        Problem::new(
            format!("what answers at {api} is not a snicket edge"),
            "give the address of the edge's API (`snicket up` prints it), not that of its visitors",
        )
    };
    if answer.status() != StatusCode::OK {
        return Err(anyhow!("it answered {}", answer.status()).context(no_edge()));
    }
    serde_json::from_slice(answer.body()).with_context(no_edge)
}

fn unreachable(api: &str) -> Problem {
    Problem::new(
        format!("cannot reach the edge's API at {api}"),
        "check that the edge runs (`snicket up`), that its API listens there (`--api`), and for https that --ca names \
         its ca.pem and the host lies in its domain",
    )
}

/// Asks for a quick tunnel at a service such as an edge's API.
pub(crate) async fn quick_tunnel(
    service: &str,
    trust: &Trust,
    token: Option<&Secret>,
    wish: &Wish,
) -> anyhow::Result<QuickTunnel> {
    let url = at(service, "/tunnel")?;
    let mut body = json!({});
    if let Some(label) = &wish.label {
        body["name"] = label.as_str().into();
    }
    if let Some(secret) = &wish.secret {
        body["secret"] = secret.to_base64().into();
    }
    if let Some(access) = &wish.access {
        body["access"] = serde_json::to_value(access).context("access rules are plain JSON")?;
    }
    if let Some(port) = &wish.port {
        body["port"] = port.json();
    }
    if let Some(tls) = &wish.tls {
        body["tls"] = tls.json();
    }
    let fetch =
        Fetch { method: Method::POST, url: &url, token, body: Some(Sent::Json(body)), trust, limit: TIME_LIMIT };
    let answer = fetch.send().await.with_context(|| unreachable(service))?;
    let value: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    // An edge that does not know the rules would let everybody in.
    if wish.access.is_some() && answer.status() == StatusCode::OK && value.pointer("/result/access").is_none() {
        return Err(Problem::new(
            format!("the edge at {service} cannot keep visitors out"),
            "update the edge, or share without --pin, --basic, --allow, --header and --rewrite",
        )
        .into());
    }
    if wish.port.is_some()
        && answer.status() == StatusCode::OK
        && value.pointer("/result/port").is_none_or(Value::is_null)
    {
        return Err(Problem::new(format!("the edge at {service} has no public ports"), "update the edge").into());
    }
    if let Some(PortWish { protocol, count, .. }) = &wish.port
        && answer.status() == StatusCode::OK
        && (*protocol != PortProtocol::Tcp || *count > 1)
        && value.pointer("/result/port_protocol") != Some(&protocol.to_string().into())
    {
        let what = format!("the edge at {service} is of a version without ports of UDP, or several in a row");
        return Err(Problem::new(what, "update the edge").into());
    }
    if wish.tls.is_some()
        && answer.status() == StatusCode::OK
        && value.pointer("/result/tls") != Some(&Value::Bool(true))
    {
        return Err(Problem::new(format!("the edge at {service} passes no TLS through"), "update the edge").into());
    }
    match read(&value) {
        Some(tunnel) if answer.status() == StatusCode::OK => Ok(tunnel),
        _ => Err(refusal(service, answer.status(), &value)),
    }
}

fn read(answer: &Value) -> Option<QuickTunnel> {
    let result = answer.get("result")?;
    let text = |key: &str| result.get(key).and_then(Value::as_str);
    let credentials = Credentials {
        account_tag: text("account_tag")?.to_owned(),
        tunnel: text("id")?.parse::<Uuid>().ok()?,
        secret: TunnelSecret::from_base64(text("secret")?).ok()?,
        endpoint: None,
    };
    let port = result.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    Some(QuickTunnel { hostname: text("hostname")?.to_owned(), credentials, port })
}

fn refusal(service: &str, status: StatusCode, answer: &Value) -> anyhow::Error {
    let said = answer.pointer("/errors/0/message").and_then(Value::as_str).unwrap_or("it gave no reason");
    let advice = match status {
        StatusCode::CONFLICT if said.contains("port") => "choose another --port, or leave the choice to the edge",
        StatusCode::BAD_REQUEST if said.contains("port") => "ask for a port that the edge has (`snicket up --ports`)",
        StatusCode::CONFLICT => "choose another --name; a name can be taken back only where it was used before",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "give the edge's API token with --token-file",
        StatusCode::BAD_REQUEST => "a name is one label: letters, digits and dashes",
        StatusCode::TOO_MANY_REQUESTS => "wait a minute and try again",
        _ => "check that this is the API of a snicket edge",
    };
    anyhow!("{said}")
        .context(Problem::new(format!("the edge at {service} gives no tunnel ({})", status.as_u16()), advice))
}

/// How long one poll for the outcome of a login is held open by the edge, and some more.
const POLL_LIMIT: Duration = Duration::from_secs(65);

/// So often it is polled, as the reference does.
const POLLS: usize = 10;

/// Has a person open a page of the edge and give the API token there, and waits for what belongs into cert.pem (section
/// 16.2).
pub(crate) async fn login(api: &str, trust: &Trust, screen: Screen) -> anyhow::Result<OriginCert> {
    let mut key = [0; 32];
    key[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    key[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    let key = URL_SAFE.encode(key);
    let poll = at(api, &format!("/{key}"))?;
    let mut page = at(api, "/argotunnel")?;
    page.query_pairs_mut().append_pair("aud", "").append_pair("callback", poll.as_str());
    screen.event(&json!({ "event": "login_page", "url": page.as_str() }));
    screen.say(format!("Open this page, and give the edge's API token there:\n\n{page}\n\nWaiting …"));
    for _ in 0..POLLS {
        let fetch = Fetch { method: Method::GET, url: &poll, token: None, body: None, trust, limit: POLL_LIMIT };
        let answer = fetch.send().await.with_context(|| unreachable(api))?;
        if answer.status() == StatusCode::OK {
            return OriginCert::parse(answer.body()).context("the edge handed over something else than a cert.pem");
        }
        if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return Err(anyhow!("it answered {}", answer.status()).context(unreachable(api)));
        }
    }
    Err(Problem::new("nobody gave the token within ten minutes", "run it again, or give the token with --token-file")
        .into())
}
