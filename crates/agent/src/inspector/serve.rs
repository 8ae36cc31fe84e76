//! The inspector's own HTTP: the page, the JSON behind it, and the stream of changes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use wire::{Body, Interim, Kind};

use super::Inspector;
use super::capture::Recording;
use super::filter::Filter;
use super::guard::{self, Right};
use super::replay::{self, Edit};
use super::store::Store;
use super::view::{self, Secrets};
use crate::handler::Requests;
use crate::listen::{accept, bind};

/// The ports that are tried when none is given; the first is where people of other tunnels look.
const USUAL_PORTS: std::ops::RangeInclusive<u16> = 4040..=4049;
/// Connections served at once: some open pages, which hold one each, and programs.
const MAX_CONNECTIONS: usize = 32;
/// How long somebody may take to send a head, or a body.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// The largest edit: a body as large as those that are kept, written in JSON's longest way, and a head.
const MAX_EDIT: usize = 2 * 1024 * 1024;
/// Replays under way at once; more would be a load test.
const MAX_REPLAYS: usize = 8;
/// How long a replay may take; an answer without an end is cut then.
const REPLAY_LIMIT: Duration = Duration::from_secs(60);
/// Changes are told to a page no more often, so that a busy tunnel costs it and us little.
const PAUSE: Duration = Duration::from_millis(100);
/// A page that has gone is found out by something being written to it.
const HEARTBEAT: Duration = Duration::from_secs(15);

const PAGE: &str = include_str!("page.html");
/// Where the page's template has the nonce.
const NONCE: &str = "{{nonce}}";

/// Opens the inspector's listener: at the address, or at the first free of the usual ports on loopback, else at any
/// port there.
///
/// # Errors
/// The address is taken, or is none of loopback: the inspector shows what visitors send and must not be reached from
/// outside.
pub async fn listen(address: Option<SocketAddr>) -> io::Result<TcpListener> {
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        let text = format!("{address} is not an address of loopback, and the inspector is for this machine only");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    bind(address, USUAL_PORTS).await
}

/// What is served.
pub(crate) struct Site {
    pub(crate) inspector: Arc<Inspector>,
    pub(crate) requests: Arc<Requests>,
}

/// One request to be sent again.
struct Replay {
    recording: Recording,
    request: Request<Body>,
}

/// What each connection needs.
struct Shared {
    site: Site,
    address: SocketAddr,
    replays: mpsc::Sender<Replay>,
    places: Arc<Semaphore>,
}

/// Answers until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, site: Site) {
    let Ok(address) = listener.local_addr() else { return };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (replays, mut wanted) = mpsc::channel(MAX_REPLAYS);
    let shared = Arc::new(Shared { site, address, replays, places: Arc::new(Semaphore::new(MAX_REPLAYS)) });
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            (stream, place) = accept(&listener, &places) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    connection(TokioIo::new(stream), shared).await;
                    drop(place);
                });
            }
            Some(replay) = wanted.recv() => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move { shared.send(replay).await });
            }
        }
    }
}

async fn connection(io: TokioIo<tokio::net::TcpStream>, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (head, body) = request.into_parts();
            let mut response = match shared.answer(&head, body).await {
                Ok(response) => response,
                Err(problem) => problem.response(),
            };
            harden(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(READ_LIMIT).serve_connection(io, service);
    if let Err(error) = served.await {
        tracing::trace!(%error, "a connection to the inspector ended");
    }
}

/// Why there is no better answer.
struct Problem(StatusCode, String);

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }

    fn response(self) -> Response<Body> {
        json_response(self.0, &json!({ "error": self.1 }))
    }
}

impl From<guard::Refused> for Problem {
    fn from(refused: guard::Refused) -> Self {
        Self(refused.status(), refused.to_string())
    }
}

impl Shared {
    async fn answer(&self, head: &Parts, body: Incoming) -> Result<Response<Body>, Problem> {
        let right = if head.uri.path() == "/" { Right::Page } else { Right::Read };
        guard::check(head, right, self.address)?;
        let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        match path[..] {
            [""] if reads => Ok(page()),
            ["api", "requests"] if reads => Ok(json_response(StatusCode::OK, &self.list(head))),
            ["api", "requests"] if head.method == Method::DELETE => {
                guard::check(head, Right::Act, self.address)?;
                self.site.inspector.store().clear();
                self.site.inspector.changed();
                Ok(json_response(StatusCode::OK, &json!({})))
            }
            ["api", "requests", id] if reads => self.show(head, id),
            ["api", "requests", id, "replay"] if head.method == Method::POST => {
                guard::check(head, Right::Act, self.address)?;
                let edit = edit(body).await?;
                self.replay(id, &edit)
            }
            ["api", "events"] if reads => Ok(events(Arc::clone(&self.site.inspector))),
            ["" | "api", ..] if !reads => {
                let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "nothing here takes that").response();
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                Ok(response)
            }
            _ => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "the inspector has /, /api/requests, /api/requests/ID, /api/requests/ID/replay and /api/events",
            )),
        }
    }

    /// The newest first.
    fn list(&self, head: &Parts) -> Value {
        let filter = parameter(head, "q").map(|text| Filter::parse(&text)).unwrap_or_default();
        let now = self.site.inspector.now();
        let store = self.site.inspector.store();
        let requests = store.since(0).rev().filter(|entry| filter.takes(entry));
        let requests: Vec<Value> = requests.map(|entry| view::summary(entry, now)).collect();
        with_facts(&store, requests)
    }

    fn show(&self, head: &Parts, id: &str) -> Result<Response<Body>, Problem> {
        let secrets = match parameter(head, "reveal").as_deref() {
            Some("1" | "true") => {
                guard::check(head, Right::Act, self.address)?;
                Secrets::Revealed
            }
            _ => Secrets::Masked,
        };
        let now = self.site.inspector.now();
        let store = self.site.inspector.store();
        let entry = id.parse().ok().and_then(|id| store.get(id)).ok_or_else(gone)?;
        Ok(json_response(StatusCode::OK, &view::detail(entry, now, secrets)))
    }

    fn replay(&self, id: &str, edit: &Edit) -> Result<Response<Body>, Problem> {
        let busy =
            || Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many replays are under way; wait for one to end");
        // Both bounds are the same, so that a replay that is taken is begun at once.
        if self.places.available_permits() == 0 {
            return Err(busy());
        }
        let inspector = &self.site.inspector;
        let (original, request) = {
            let store = inspector.store();
            let entry = id.parse().ok().and_then(|id| store.get(id)).ok_or_else(gone)?;
            let request = replay::request(entry, edit).map_err(|refused| {
                let status = if refused.is_of_edit() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CONFLICT };
                Problem::new(status, refused.to_string())
            })?;
            (entry.id, request)
        };
        let place = self.replays.try_reserve().map_err(|_| busy())?;
        let (id, recording) =
            inspector.begin(Kind::Http, &request, Some(original)).expect("replays are recorded always");
        place.send(Replay { recording, request });
        let mut response = json_response(StatusCode::CREATED, &json!({ "id": id, "replay_of": original }));
        let location = HeaderValue::from_str(&format!("/api/requests/{id}")).expect("a number is fit for a header");
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }

    /// Takes the whole answer, which is recorded on its way.
    async fn send(&self, replay: Replay) {
        let Ok(_place) = self.places.acquire().await else { return };
        let Replay { recording, request } = replay;
        let exchange = async {
            let through = recording
                .through(request, |request| self.site.requests.answer(Kind::Http, request, Interim::unwanted()));
            if let Ok(response) = through.await {
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            }
        };
        // Cut or failed: the record tells.
        let _ = timeout(REPLAY_LIMIT, exchange).await;
    }
}

fn gone() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "this request is not kept; only the latest are")
}

async fn edit(body: Incoming) -> Result<Edit, Problem> {
    let read = timeout(READ_LIMIT, Limited::new(body, MAX_EDIT).collect()).await;
    let bytes = read
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the edit did not come in time"))?
        .map_err(|error| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the edit cannot be read: {error}")))?
        .to_bytes();
    if bytes.is_empty() {
        return Ok(Edit::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("this is no edit: {error}")))
}

fn parameter(head: &Parts, name: &str) -> Option<String> {
    let query = head.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn with_facts(store: &Store, requests: Vec<Value>) -> Value {
    let limits = store.limits();
    json!({
        "requests": requests,
        "oldest": store.oldest(),
        "passed_over": store.passed_over(),
        "limits": {
            "requests": limits.requests,
            "body_bytes": limits.body,
            "total_bytes": limits.total,
            "requests_per_second": limits.rate,
        },
    })
}

/// Server-sent events: first all requests, then those that have changed, each in its latest state.
fn events(inspector: Arc<Inspector>) -> Response<Body> {
    let state = (inspector.changed.subscribe(), None, inspector);
    let events = futures_util::stream::unfold(state, |(mut changed, seen, inspector)| async move {
        let due = match seen {
            None => true,
            Some(_) => wait(&mut changed).await?,
        };
        let (text, seen) = if due {
            let store = inspector.store();
            let now = inspector.now();
            let requests = store.since(seen.unwrap_or(0)).map(|entry| view::summary(entry, now)).collect();
            (format!("data: {}\n\n", with_facts(&store, requests)), Some(store.revision()))
        } else {
            (":\n\n".to_owned(), seen)
        };
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), (changed, seen, inspector)))
    });
    let mut response = Response::new(Body::wrap(StreamBody::new(events.boxed())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Until there is something to tell (`true`), or it is time to see whether somebody listens.
async fn wait(changed: &mut watch::Receiver<()>) -> Option<bool> {
    match timeout(HEARTBEAT, changed.changed()).await {
        Ok(Ok(())) => {
            tokio::time::sleep(PAUSE).await;
            changed.mark_unchanged();
            Some(true)
        }
        Ok(Err(_)) => None,
        Err(_) => Some(false),
    }
}

/// The page may run its own script only, load nothing, and be framed by nobody.
fn page() -> Response<Body> {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = Response::new(Body::full(PAGE.replace(NONCE, &nonce)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).expect("the policy is plain ASCII"));
    response
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What every answer says, so that no other page gets at it by any way that browsers have.
fn harden(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'; sandbox"));
}
