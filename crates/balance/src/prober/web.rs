//! Questions over HTTP: to a member at an address over a connection of their own, to one behind a tunnel through that.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use registry::{AuthorityPurpose, MonitorTerms, MonitorType};
use rustls::pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::Url;

use super::question::{Answer, Problem, Search, Subject, is_expected};
use super::{Asker, ByteStream, ProbeBody};
use crate::plan::Target;

/// So much of an answer is looked at, in bytes: a page for questions about health is short.
const MOST_BODY: usize = 64 << 10;
/// More are a loop.
const MOST_REDIRECTS: usize = 5;
/// Who asks, unless the monitor says otherwise.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("snicket-health/", env!("CARGO_PKG_VERSION")));

/// Where a question goes, and under which name.
pub(super) struct Door<'a> {
    pub(super) target: &'a Target,
    pub(super) url: &'a Url,
    pub(super) is_http2: bool,
    pub(super) is_insecure: bool,
}

/// An answer, and what keeps its connection going.
pub(super) struct Exchange {
    pub(super) response: Response<ProbeBody>,
    _connection: Option<Driver>,
}

/// A connection's own task, which ends with the question.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn ask(asker: &Asker, subject: &Subject, monitor: &MonitorTerms) -> Answer {
    let scheme = if monitor.kind == MonitorType::Https { "https" } else { "http" };
    let mut url = url_of(scheme, subject, monitor, &monitor.path)?;
    for _ in 0..=MOST_REDIRECTS {
        let door = Door { target: &subject.target, url: &url, is_http2: false, is_insecure: monitor.allow_insecure };
        let exchange = exchange(asker, &door, request(monitor, &url)?).await?;
        let status = exchange.response.status();
        if monitor.follow_redirects
            && status.is_redirection()
            && let Some(next) = redirect(&url, exchange.response.headers().get(header::LOCATION))?
        {
            url = next;
            continue;
        }
        return judge(monitor, exchange).await;
    }
    Err(format!("more than {MOST_REDIRECTS} redirects").into())
}

async fn judge(monitor: &MonitorTerms, exchange: Exchange) -> Answer {
    let status = exchange.response.status().as_u16();
    let fault = |reason: String| Problem { code: Some(status), ..reason.into() };
    if !is_expected(&monitor.expected_codes, status) {
        return Err(fault(format!("HTTP {status} instead of {}", monitor.expected_codes)));
    }
    if monitor.expected_body.is_empty() {
        return Ok(Some(status));
    }
    let mut body = exchange.response.into_body();
    let mut text = Search::new(&monitor.expected_body);
    let mut left = MOST_BODY;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|problem| fault(format!("the answer broke off: {problem}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let data = &data[..data.len().min(left)];
        if text.is_found(data) {
            return Ok(Some(status));
        }
        left -= data.len();
        if left == 0 {
            break;
        }
    }
    Err(fault("the answer has not the text that is expected".to_owned()))
}

/// Where a member is asked. The URL's port is the one that is asked.
pub(super) fn url_of(scheme: &str, subject: &Subject, monitor: &MonitorTerms, path: &str) -> Result<Url, Problem> {
    let usual = if scheme == "https" { 443 } else { 80 };
    let text = format!("{scheme}://{}{path}", subject.host(monitor));
    let mut url = Url::parse(&text).map_err(|problem| format!("{text:?} is no URL: {problem}"))?;
    // A port in the name by which it is asked is for the member to see, not for us to go to.
    if !matches!(subject.target, Target::Tunnel(_)) {
        let _ = url.set_port(Some(subject.port(monitor, usual)));
    }
    Ok(url)
}

fn request(monitor: &MonitorTerms, url: &Url) -> Result<Request<Bytes>, Problem> {
    let bad = |problem: http::Error| format!("the monitor's request is not valid: {problem}");
    let mut request = Request::builder().method(&*monitor.method).uri(url.as_str()).body(Bytes::new()).map_err(bad)?;
    for (name, values) in &monitor.header {
        for value in values {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                request.headers_mut().append(name, value);
            }
        }
    }
    request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
    Ok(request)
}

/// Where an answer sends one on to; `None`: nowhere. Only to the same host, and to the same port or the usual ones, since whoever runs a
/// member is not to choose what a node asks in its own network.
fn redirect(from: &Url, location: Option<&HeaderValue>) -> Result<Option<Url>, Problem> {
    let Some(location) = location.and_then(|location| location.to_str().ok()) else { return Ok(None) };
    let to = from.join(location).map_err(|problem| format!("it redirects to no URL: {problem}"))?;
    if !matches!(to.scheme(), "http" | "https") || to.host() != from.host() {
        return Err("it redirects to another host, which is not asked".into());
    }
    let port = to.port_or_known_default();
    if port != from.port_or_known_default() && !matches!(port, Some(80 | 443)) {
        return Err("it redirects to another port, which is not asked".into());
    }
    Ok(Some(to))
}

/// Has a request answered.
pub(super) async fn exchange(asker: &Asker, door: &Door<'_>, request: Request<Bytes>) -> Result<Exchange, Problem> {
    if let Target::Tunnel(tunnel) = door.target {
        let response = asker.reach.exchange(*tunnel, request).await?;
        return Ok(Exchange { response: response.map(bounded), _connection: None });
    }
    let host = door.url.host_str().unwrap_or_default();
    let port = door.url.port_or_known_default().unwrap_or_default();
    let stream = asker.reach.connect(door.target, host, port).await?;
    let stream: Box<dyn ByteStream> = match door.url.scheme() {
        "https" => Box::new(encrypted(asker, door, stream, host).await?),
        _ => stream,
    };
    send(stream, request, door.is_http2).await
}

async fn encrypted(
    asker: &Asker,
    door: &Door<'_>,
    stream: Box<dyn ByteStream>,
    host: &str,
) -> Result<impl ByteStream + use<>, Problem> {
    let protocol: &[u8] = if door.is_http2 { b"h2" } else { b"http/1.1" };
    let snapshot = asker.registry.snapshot();
    let authority = snapshot.authority(AuthorityPurpose::Origin).map(|authority| authority.trusted(Timestamp::now()));
    let settings = asker.tls.settings(door.is_insecure, protocol, authority);
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| format!("{host:?} is no name for a certificate"))?;
    let stream = TlsConnector::from(settings).connect(name, stream).await;
    Ok(stream.map_err(|problem| format!("TLS: {problem}"))?)
}

async fn send(stream: Box<dyn ByteStream>, request: Request<Bytes>, is_http2: bool) -> Result<Exchange, Problem> {
    let failed = |problem: hyper::Error| Problem::from(format!("no answer: {}", deepest(&problem)));
    let (io, request) = (TokioIo::new(stream), request.map(Full::new));
    let (response, driver) = if is_http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }));
        (sender.send_request(request).await.map_err(failed)?, driver)
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }));
        (sender.send_request(in_origin_form(request)).await.map_err(failed)?, driver)
    };
    Ok(Exchange { response: response.map(bounded), _connection: Some(driver) })
}

/// Whoever reads all of an answer reads no more than is looked at.
fn bounded<B>(body: B) -> ProbeBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // The text may end within the last piece, which may be larger than what is looked at.
    Limited::new(body, 2 * MOST_BODY).boxed_unsync()
}

/// HTTP/1.1 has the host in a header.
fn in_origin_form<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if let Some(host) = host {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    *request.uri_mut() = path.into();
    request
}

/// What is said at the bottom of an error.
fn deepest(problem: &dyn std::error::Error) -> String {
    let mut problem = problem;
    while let Some(below) = problem.source() {
        problem = below;
    }
    problem.to_string()
}
