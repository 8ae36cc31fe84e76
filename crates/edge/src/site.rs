//! The way of a request: which site, which tunnel, dispatch, answer.

mod question;
mod resolve;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use agent::Directs;
use balance::{Board, UnderWay, Visitor};
use bytes::Bytes;
use geo::{Country, Geography};
use http::uri::{self, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use jiff::Timestamp;
use registry::{LoadBalancer, Registry, Snapshot, Versioned};
use tokio::sync::broadcast;
use tokio::time::Instant;
use wire::{Body, BodyError, Kind};

use crate::Limits;
use crate::dispatch::{self, Failure, Order};
use crate::fair::Fairness;
use crate::gate::{self, Gate, Stopped};
use crate::header::{Facts, is_of_a_connection, towards_origin, towards_visitor};
use crate::host::{Host, HostError};
use crate::members::{self, Members, Ways};
use crate::metrics::{Metrics, Present};
use crate::ray::Ray;
use crate::refusal::{self, Page};
use crate::trace;
use crate::tunnels::Tunnels;
use crate::visit::{Caller, Visit};
pub(crate) use resolve::Questions;
pub use resolve::{AnswerDns, DnsAnswer};

/// The name that agents themselves answer to, believing whatever token arrives. Visitors must not reach it through a
/// tunnel (tunnel protocol, obligation 15).
const MANAGEMENT_HOST: &str = "management.argotunnel.com";

/// Requests that nobody has read yet; who falls further behind misses some.
const EVENTS: usize = 256;

/// The status of a request whose visitor left before there was an answer; nobody is sent it.
const VISITOR_LEFT: u16 = 499;

/// One request, told when its answer begins, or its visitor leaves.
#[derive(Debug, Clone)]
pub struct RequestEvent {
    /// The value of `cf-ray`.
    pub ray: String,
    /// The method.
    pub method: Method,
    /// The host that was asked for; empty if it could not be read.
    pub host: String,
    /// The path, without the query, which may hold secrets.
    pub path: String,
    /// The answer's status; 499 if the visitor left before there was one.
    pub status: u16,
    /// The code of the refusal, if the edge itself answered.
    pub refusal: Option<u16>,
    /// What an agent said of its origin, if that is why there was no answer.
    pub detail: Option<String>,
    /// From the request's header to the answer's.
    pub time: Duration,
}

/// Answers the requests of all visitors.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) board: Arc<Board>,
    pub(crate) directs: Arc<Directs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) location: String,
    /// Who answers questions of DNS, if anybody does.
    pub(crate) questions: Arc<OnceLock<Questions>>,
    pub(crate) geography: Arc<Geography>,
    pub(crate) events: broadcast::Sender<RequestEvent>,
    pub(crate) fairness: Fairness,
}

/// Where requests are told.
pub(crate) fn events() -> broadcast::Sender<RequestEvent> {
    broadcast::Sender::new(EVENTS)
}

impl Site {
    /// Answers one request, whatever happens.
    pub(crate) async fn answer(&self, visit: Box<Visit>) -> Response<Counted> {
        let under_way = self.metrics.request();
        let ray = Ray::random().at(&self.location);
        let form = form_fields(visit.request.headers());
        let host = Host::of(visit.request.uri(), visit.request.headers());
        let remote = visit.caller.remote.ip();
        let sees_detail = sees_detail(remote);
        let mut telling = Telling::new(self, &visit.request, &ray, host.as_ref().ok());

        let mut answer = match self.carry(visit, &host, &ray).await {
            Ok(mut answer) => {
                // Errors are to be had for nothing, and so is what the edge answers itself.
                if answer.status() < StatusCode::BAD_REQUEST {
                    self.fairness.prove(remote);
                }
                towards_visitor(answer.headers_mut(), &ray);
                telling.status = answer.status().as_u16();
                answer
            }
            Err(Stopped::Answered(mut answer)) => {
                towards_visitor(answer.headers_mut(), &ray);
                telling.status = answer.status().as_u16();
                *answer
            }
            Err(Stopped::Refused(Failure { refusal, detail })) => {
                (telling.status, telling.refusal, telling.detail) = (refusal.status, Some(refusal.code), detail);
                let detail = telling.detail.as_deref().filter(|_| sees_detail);
                let page = Page { refusal, ray: telling.ray(), host: telling.host.map(Host::name), detail };
                let mut answer = page.answer(&telling.method, &form.into_iter().collect());
                answer.headers_mut().extend(gate::challenge(refusal));
                if refusal.is_of_the_request() {
                    answer.extensions_mut().insert(refusal::Last);
                }
                answer
            }
        };
        drop(telling);
        let under_way = Some(under_way).filter(|_| !answer.body().is_end_stream());
        let at_member = answer.extensions_mut().remove().filter(|_| !answer.body().is_end_stream());
        answer.map(|body| Counted { body, _under_way: under_way, _at_member: at_member })
    }

    async fn carry(
        &self,
        visit: Box<Visit>,
        host: &Result<Host, HostError>,
        ray: &HeaderValue,
    ) -> Result<Response<Body>, Stopped> {
        check(&visit, &self.limits)?;
        let host = host.as_ref().map_err(|error| match error {
            HostError::Missing => &refusal::NO_HOST,
            HostError::Conflicting => &refusal::CONFLICTING_HOST,
            HostError::Malformed => &refusal::MALFORMED_HOST,
        })?;
        let Visit { kind, request, interim, caller, address } = *visit;
        if request.uri().path() == trace::PATH {
            let facts = trace::Facts {
                node: self.registry.node(),
                location: &self.location,
                country: self.geography.of(caller.remote.ip()).country,
                host: host.name(),
                caller,
                address: &address,
                version: request.version(),
                headers: request.headers(),
                now: SystemTime::now(),
            };
            return Err(Stopped::Answered(Box::new(trace::answer(request.method(), &facts)?)));
        }
        if let Some(questions) = self.questions.get()
            && request.uri().path() == resolve::PATH
            && host.name() == questions.domain.as_str()
            && caller.is_secure()
            && kind == Kind::Http
        {
            // Apart, so that other requests are no larger for it.
            return Err(Stopped::Answered(Box::new(Box::pin(questions.answer(request, caller.remote.ip())).await)));
        }
        // One snapshot, so that no request meets a tunnel without its rules.
        let snapshot = self.registry.snapshot();
        if let Some(answer) = question::answer(&snapshot, host, &request) {
            return Err(Stopped::Answered(Box::new(answer)));
        }
        let target = target_of(&snapshot, host)?;
        let access = match &target {
            Target::Tunnel(tunnel) => snapshot.access(*tunnel),
            Target::Balancer(_) => None,
        };
        let (head, body) = request.into_parts();
        let mut order = Order { kind, head, body, interim };
        if let Some(access) = access {
            // Few tunnels have rules, and every request would be as large as what checks them.
            Box::pin(self.gate.pass(access, host.name(), caller, &mut order.head, &mut order.body)).await?;
        }
        let head = &mut order.head;
        let path = access.and_then(|access| access.path(head.uri.path()));
        let path = path.map(|path| rewritten(&path, head.uri.query())).transpose()?;
        let path = path.or_else(|| head.uri.path_and_query().cloned());
        head.uri = origin_uri(host, path, caller.is_secure())?;
        let facts = Facts { kind, visitor: &address, secure: caller.is_secure(), ray };
        towards_origin(&mut head.headers, &facts).map_err(|_| &refusal::LOOP)?;
        if let Some(access) = access {
            access.change(&mut head.headers);
        }

        let answer = match target {
            Target::Tunnel(tunnel) => dispatch::dispatch(&self.tunnels.pool(tunnel), &mut order, &self.limits).await?,
            // Apart, so that other requests are no larger for it.
            Target::Balancer(balancer) => Box::pin(self.balance(&snapshot, balancer, caller, &mut order)).await?,
        };
        // A switch of protocols that nobody asked for would turn the rest of a visitor's connection into something
        // else.
        if answer.status().is_informational()
            && (kind, answer.status()) != (Kind::WebSocket, StatusCode::SWITCHING_PROTOCOLS)
        {
            return Err((&refusal::AGENT_NONSENSE).into());
        }
        Ok(answer)
    }

    /// Gets the answer from one of a load balancer's members.
    async fn balance(
        &self,
        snapshot: &Snapshot,
        balancer: &Versioned<LoadBalancer>,
        caller: Caller,
        order: &mut Order,
    ) -> Result<Response<Body>, Failure> {
        let plan = self.board.plan(snapshot, balancer, Timestamp::now());
        let zone = snapshot.zone(balancer.zone).map(|zone| &zone.value);
        let ways = Ways {
            tunnels: &self.tunnels,
            directs: &self.directs,
            snapshot,
            security: members::security(zone, caller.is_secure()),
        };
        let address = caller.remote.ip();
        let at = self.geography.of(address);
        let visitor = Visitor {
            address,
            pop: &self.location,
            country: at.country.as_ref().map(Country::as_str),
            region: at.region,
            place: at.place,
            headers: &order.head.headers,
        };
        let members = Members::new(&plan, &visitor, ways);
        let mut answer = dispatch::dispatch(&members, order, &self.limits).await.map_err(|failure| {
            if *failure.refusal == refusal::NO_CONNECTION { Failure::from(&refusal::NO_MEMBER) } else { failure }
        })?;
        members.answered(&mut answer, caller.is_secure());
        Ok(answer)
    }
}

/// Where a site's requests go.
enum Target<'a> {
    Tunnel(uuid::Uuid),
    Balancer(&'a Versioned<LoadBalancer>),
}

fn target_of<'a>(snapshot: &'a Snapshot, host: &Host) -> Result<Target<'a>, Failure> {
    if host.name() == MANAGEMENT_HOST {
        return Err(Failure::from(&refusal::RESERVED));
    }
    if host.is_address() {
        return Err(Failure::from(&refusal::ADDRESS));
    }
    if let Some(balancer) = snapshot.balancer_of(host.name()) {
        return Ok(Target::Balancer(balancer));
    }
    match snapshot.route(host.name()) {
        Some(route) => Ok(Target::Tunnel(route.tunnel)),
        None => Err(Failure::from(&refusal::UNKNOWN_HOST)),
    }
}

/// A path that a rule has changed, with the query as it was.
fn rewritten(path: &str, query: Option<&str>) -> Result<PathAndQuery, Failure> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    text.parse().map_err(|_| Failure::from(&refusal::URI_TOO_LONG))
}

/// An agent's reason names addresses of the network behind it. It is for whoever runs the site: in the log, and on the page of
/// a visitor on this machine.
fn sees_detail(visitor: IpAddr) -> bool {
    visitor.to_canonical().is_loopback()
}

/// Tells a request when it is dropped, so that one whose visitor left is told too.
struct Telling<'a> {
    site: &'a Site,
    started: Instant,
    ray: &'a HeaderValue,
    method: Method,
    /// The host, if it could be read.
    host: Option<&'a Host>,
    path: Option<PathAndQuery>,
    status: u16,
    refusal: Option<u16>,
    detail: Option<String>,
}

impl<'a> Telling<'a> {
    fn new(site: &'a Site, request: &Request<Body>, ray: &'a HeaderValue, host: Option<&'a Host>) -> Self {
        Self {
            site,
            started: Instant::now(),
            ray,
            method: request.method().clone(),
            host,
            path: request.uri().path_and_query().cloned(),
            status: VISITOR_LEFT,
            refusal: None,
            detail: None,
        }
    }

    fn ray(&self) -> &'a str {
        self.ray.to_str().unwrap_or_default()
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let Self { site, status, refusal, .. } = *self;
        let (ray, host) = (self.ray(), self.host.map(Host::name).unwrap_or_default());
        let time = self.started.elapsed();
        site.metrics.answered(status, refusal, time);
        tracing::info!(
            ray,
            method = %self.method,
            host,
            status,
            code = refusal,
            detail = self.detail,
            ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
        if site.events.receiver_count() > 0 {
            // All receivers may have gone meanwhile.
            let _ = site.events.send(RequestEvent {
                ray: ray.to_owned(),
                method: self.method.clone(),
                host: host.to_owned(),
                path: self.path.as_ref().map_or("", PathAndQuery::path).to_owned(),
                status,
                refusal,
                detail: self.detail.take(),
                time,
            });
        }
    }
}

/// Refuses what must not reach any origin.
fn check(visit: &Visit, limits: &Limits) -> Result<(), Failure> {
    let (uri, headers) = (visit.request.uri(), visit.request.headers());
    if uri.path_and_query().is_some_and(|path| path.as_str().len() > limits.uri_bytes) {
        return Err(Failure::from(&refusal::URI_TOO_LONG));
    }
    let cut = visit.request.extensions().get::<http2::Cut>().is_some();
    if cut || headers.len() > limits.header_count || size(headers) > limits.header_bytes {
        return Err(Failure::from(&refusal::HEADER_TOO_LARGE));
    }
    // An origin would answer TRACE with the header that it got, cookies and all.
    if matches!(*visit.request.method(), Method::CONNECT | Method::TRACE) || uri.path() == "*" {
        return Err(Failure::from(&refusal::METHOD));
    }
    // Names a host and no path, which only CONNECT may.
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(Failure::from(&refusal::MALFORMED));
    }
    match visit.request.version() {
        Version::HTTP_2 | Version::HTTP_3 if is_of_a_connection(headers) => {
            return Err(Failure::from(&refusal::MALFORMED));
        }
        Version::HTTP_2 | Version::HTTP_3 => (),
        _ if !is_understood(headers) => return Err(Failure::from(&refusal::BAD_FRAMING)),
        _ => (),
    }
    let expects_other = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().any(expects_other) {
        return Err(Failure::from(&refusal::EXPECTATION));
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() || length.is_some_and(|length| !is_length(length)) {
        return Err(Failure::from(&refusal::BAD_FRAMING));
    }
    Ok(())
}

/// The body is as it is, or in chunks and nothing else: the library takes off the chunks, and any other coding would stay
/// on without a word.
fn is_understood(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

fn is_length(value: &HeaderValue) -> bool {
    let text = value.as_bytes();
    text.iter().all(u8::is_ascii_digit) && value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
}

/// As RFC 9113 section 6.5.2 counts.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn origin_uri(host: &Host, path: Option<PathAndQuery>, secure: bool) -> Result<Uri, Failure> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(host.authority().clone());
    parts.path_and_query = Some(match path {
        None => PathAndQuery::from_static("/"),
        Some(path) if path.as_str().starts_with('/') => path,
        // An absolute URI may have a query and no path.
        Some(query) => format!("/{}", query.as_str()).parse().map_err(|_| Failure::from(&refusal::MALFORMED))?,
    });
    Uri::from_parts(parts).map_err(|_| Failure::from(&refusal::MALFORMED_HOST))
}

/// What the form of a refusal depends on. A list, as few requests need it in the end.
fn form_fields(headers: &HeaderMap) -> Vec<(header::HeaderName, HeaderValue)> {
    let fields =
        |name: header::HeaderName| headers.get_all(&name).iter().map(move |value| (name.clone(), value.clone()));
    fields(header::ACCEPT).chain(fields(header::CONTENT_TYPE)).collect()
}

/// The body of an answer. Its request counts as under way until it is dropped, or not at all if it is empty.
pub(crate) struct Counted {
    body: Body,
    _under_way: Option<Present>,
    _at_member: Option<Arc<UnderWay>>,
}

impl Counted {
    /// Nothing, which nobody counts.
    pub(crate) fn nothing() -> Self {
        Self { body: Body::empty(), _under_way: None, _at_member: None }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use wire::Interim;

    use super::*;
    use crate::refusal::Refusal;

    fn checked(request: http::request::Builder) -> Result<(), &'static Refusal> {
        let visit = Visit {
            kind: Kind::Http,
            request: request.body(Body::empty()).unwrap(),
            interim: Interim::unwanted(),
            caller: Caller { remote: "192.0.2.7:1".parse().unwrap(), tls: None },
            address: HeaderValue::from_static("192.0.2.7"),
        };
        check(&visit, &Limits::default()).map_err(|failure| failure.refusal)
    }

    #[test]
    fn only_this_machine_sees_what_an_agent_says_of_its_network() {
        for (visitor, sees) in [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.7", false)] {
            assert_eq!(sees_detail(visitor.parse().unwrap()), sees, "{visitor}");
        }
    }

    fn with_headers(count: usize, bytes: usize) -> http::request::Builder {
        let mut request = Request::builder().uri("/");
        for number in 0..count {
            request = request.header(format!("x-{number:03}"), "x".repeat(bytes));
        }
        request
    }

    #[test]
    fn ordinary_requests_pass() {
        assert_eq!(
            checked(Request::builder().uri("/a?b").header("content-length", "7").header("expect", "100-Continue")),
            Ok(())
        );
    }

    #[test]
    fn an_origin_is_asked_for_a_path_whatever_the_visitor_wrote() {
        let host = Host::of(&Uri::from_static("http://a.test/"), &HeaderMap::new()).unwrap();
        for (asked, passed_on) in [("http://a.test", "/"), ("http://a.test?q", "/?q"), ("/a?q", "/a?q")] {
            let path = Uri::try_from(asked).unwrap().into_parts().path_and_query;
            assert_eq!(
                origin_uri(&host, path, true).unwrap().to_string(),
                format!("https://a.test{passed_on}"),
                "{asked}"
            );
        }
    }

    #[test]
    fn the_uri_has_a_limit() {
        let path = |length: usize| format!("/{}", "a".repeat(length - 1));
        assert_eq!(checked(Request::builder().uri(path(Limits::URI_BYTES))), Ok(()));
        assert_eq!(checked(Request::builder().uri(path(Limits::URI_BYTES + 1))), Err(&refusal::URI_TOO_LONG));
    }

    #[test]
    fn headers_have_limits() {
        assert_eq!(checked(with_headers(Limits::HEADER_COUNT, 1)), Ok(()));
        assert_eq!(checked(with_headers(Limits::HEADER_COUNT + 1, 1)), Err(&refusal::HEADER_TOO_LARGE));
        assert_eq!(checked(with_headers(1, Limits::HEADER_BYTES - 37)), Ok(()));
        assert_eq!(checked(with_headers(1, Limits::HEADER_BYTES - 36)), Err(&refusal::HEADER_TOO_LARGE));
    }

    #[test]
    fn contradictory_lengths_are_refused() {
        for lengths in [&["1", "2"][..], &["1", "1"], &["+1"], &["1,1"], &[""], &["99999999999999999999"]] {
            let mut request = Request::builder().uri("/");
            for length in lengths {
                request = request.header("content-length", *length);
            }
            assert_eq!(checked(request), Err(&refusal::BAD_FRAMING), "{lengths:?}");
        }
    }

    #[test]
    fn codings_that_would_stay_on_are_refused() {
        let coded = |codings: &[&str]| {
            let request = Request::builder().method("POST").uri("/");
            checked(codings.iter().fold(request, |request, coding| request.header("transfer-encoding", *coding)))
        };
        assert_eq!(coded(&["Chunked"]), Ok(()));
        for codings in [&["gzip, chunked"][..], &["chunked", "chunked"], &["identity", "chunked"], &[",chunked"], &[""]]
        {
            assert_eq!(coded(codings), Err(&refusal::BAD_FRAMING), "{codings:?}");
        }
    }

    #[test]
    fn fields_of_a_connection_are_refused_where_there_are_none() {
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            for version in [Version::HTTP_2, Version::HTTP_3] {
                let request = Request::builder().version(version).uri("https://a.example/").header(name, "chunked");
                assert_eq!(checked(request), Err(&refusal::MALFORMED), "{name} {version:?}");
            }
            assert_eq!(checked(Request::builder().uri("/").header(name, "chunked")), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_no_site_can_serve_is_refused() {
        assert_eq!(checked(Request::builder().method("TRACE").uri("/")), Err(&refusal::METHOD));
        assert_eq!(checked(Request::builder().uri("a.example:80")), Err(&refusal::MALFORMED));
        assert_eq!(checked(Request::builder().method("CONNECT").uri("a.example:80")), Err(&refusal::METHOD));
        assert_eq!(checked(Request::builder().method("OPTIONS").uri("*")), Err(&refusal::METHOD));
        assert_eq!(checked(Request::builder().uri("/").header("expect", "miracles")), Err(&refusal::EXPECTATION));
    }

    #[test]
    fn the_origin_sees_path_and_query_unchanged() {
        let host = Host::of(
            &"/".parse().unwrap(),
            &HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("A.example:8443"))]),
        );
        let path: PathAndQuery = "/a/../b//c%2fd?x=%zz&y".parse().unwrap();
        let uri = origin_uri(&host.unwrap(), Some(path), true).unwrap();
        assert_eq!(uri.to_string(), "https://a.example:8443/a/../b//c%2fd?x=%zz&y");
    }
}
