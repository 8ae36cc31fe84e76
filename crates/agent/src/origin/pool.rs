//! Connections to one origin over HTTP/1.1. Each is driven by the request that uses it and not by a task of its own, so
//! that a request passes from thread to thread no more often than it has to. Only a request with a body leaves its
//! connection to a task once the answer begins: both ways then go on at their own pace.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use tokio::time::Instant;
use wire::{Body, OriginError, OriginFault};

use super::connect::{Connector, Stream};
use super::error::{ConnectFailure, from_client};
use super::web::{MAX_ANSWER_HEAD, MAX_ANSWER_HEADERS};

/// How often idle connections are looked at: those that the origin has closed, and those that are too old, go.
const SWEEP: Duration = Duration::from_secs(5);

/// The connections of one rule that wait for a request.
pub(super) struct Pool {
    connector: Connector,
    /// At most so many wait.
    most: usize,
    /// No longer than this.
    age: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// By the host that the connection was made for, the one used last at the end.
    lines: HashMap<Authority, Vec<Waiting>>,
    /// For all hosts together.
    count: usize,
    /// Somebody sweeps.
    swept: bool,
}

struct Waiting {
    line: Box<Line>,
    since: Instant,
}

/// A connection and the handle by which it is given requests.
struct Line {
    /// Dropped at its end: what it has not taken up of a request comes back only then.
    connection: Option<Connection>,
    sender: http1::SendRequest<Body>,
    /// It has answered before.
    used: bool,
}

type Connection = http1::Connection<Stream, Body>;

/// Why there is no answer.
pub(super) struct Failure {
    /// The connection had served before, and ended before a byte of the answer.
    pub(super) stale: bool,
    pub(super) error: OriginError,
}

impl From<OriginError> for Failure {
    fn from(error: OriginError) -> Self {
        Self { stale: false, error }
    }
}

impl Pool {
    /// Keeps up to `most` idle connections, for whatever hosts, since visitors may choose these; each up to `age` (zero: for as
    /// long as the origin likes).
    pub(super) fn new(connector: Connector, most: usize, age: Duration) -> Arc<Self> {
        let age = if age.is_zero() { Duration::MAX } else { age };
        Arc::new(Self { connector, most, age, idle: Mutex::default() })
    }

    /// Sends a request, whose URI is no more than path and query, on a connection for this host.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        host: Authority,
        mut request: Request<Body>,
    ) -> Result<Response<Answer>, Failure> {
        loop {
            let mut line = match self.take(&host) {
                Some(line) => line,
                // Boxed, because few requests dial, and all would have to hold the room for it.
                None => Line::new(Box::pin(self.dial(host.host())).await?),
            };
            let uploads = !request.body().is_end_stream();
            let mut failed = match line.send(request).await {
                Ok(response) => {
                    line.used = true;
                    let lease = Lease { pool: Arc::clone(self), host, line };
                    return Ok(Answer::begin(response, lease, uploads).await);
                }
                Err(failed) => failed,
            };
            match failed.take_message() {
                // The connection ended while it waited, and nothing was sent on it.
                Some(message) if line.used => request = message,
                _ => {
                    let error = from_client(failed.error());
                    return Err(Failure { stale: line.used && error.fault == OriginFault::Closed, error });
                }
            }
        }
    }

    /// Sends a request that asks for an upgrade, on a connection of its own.
    pub(super) async fn upgrade(&self, host: &str, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let (mut sender, connection) = Box::pin(self.dial(host)).await?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|error| from_client(&error).into())
    }

    async fn dial(&self, host: &str) -> Result<(http1::SendRequest<Body>, Connection), Failure> {
        let stream = self.connector.connect(host).await.map_err(|ConnectFailure(error)| error)?;
        open(stream).await.map_err(|error| from_client(&error).into())
    }

    fn take(&self, host: &Authority) -> Option<Box<Line>> {
        let mut idle = self.idle();
        let Idle { lines, count, .. } = &mut *idle;
        let waiting = lines.get_mut(host)?;
        let Waiting { line, since } = waiting.pop()?;
        *count -= 1;
        if since.elapsed() < self.age {
            return Some(line);
        }
        // The others have waited even longer.
        *count -= waiting.len();
        waiting.clear();
        None
    }

    fn put(self: &Arc<Self>, host: Authority, line: Box<Line>) {
        if self.most == 0 {
            return;
        }
        let mut idle = self.idle();
        let oldest = idle.add(host, line, self.most);
        let swept = std::mem::replace(&mut idle.swept, true);
        drop(idle);
        // Closing it takes a while, in which nobody is to wait for the lock.
        drop(oldest);
        if !swept {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Lets those go that are closed or too old; `false`: there are no others.
    fn tidy(&self) -> bool {
        let mut idle = self.idle();
        // Whoever takes a connection polls it anew.
        let context = &mut Context::from_waker(Waker::noop());
        idle.lines.retain(|_, waiting| {
            waiting.retain_mut(|Waiting { line, since }| since.elapsed() < self.age && !line.drive(context));
            !waiting.is_empty()
        });
        idle.count = idle.lines.values().map(Vec::len).sum();
        idle.swept = !idle.lines.is_empty();
        idle.swept
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// Adds one; answers the one that has to go for it.
    fn add(&mut self, host: Authority, line: Box<Line>, most: usize) -> Option<Waiting> {
        let oldest = if self.count < most { None } else { self.oldest() };
        if self.lines.len() > most {
            self.lines.retain(|_, waiting| !waiting.is_empty());
        }
        self.lines.entry(host).or_default().push(Waiting { line, since: Instant::now() });
        self.count += 1;
        oldest
    }

    /// Takes out the one that has waited longest.
    fn oldest(&mut self) -> Option<Waiting> {
        let hosts = self.lines.values_mut().filter(|waiting| !waiting.is_empty());
        let longest = hosts.min_by_key(|waiting| waiting[0].since)?;
        self.count -= 1;
        Some(longest.remove(0))
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if !pool.upgrade().is_some_and(|pool| pool.tidy()) {
            return;
        }
    }
}

async fn open(stream: Stream) -> hyper::Result<(http1::SendRequest<Body>, Connection)> {
    http1::Builder::new()
        // The names that HTTP/1 servers expect; some old ones compare them as text.
        .title_case_headers(true)
        .max_headers(MAX_ANSWER_HEADERS)
        .max_buf_size(MAX_ANSWER_HEAD as usize)
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(stream)
        .await
}

impl Line {
    fn new((sender, connection): (http1::SendRequest<Body>, Connection)) -> Box<Self> {
        Box::new(Self { connection: Some(connection), sender, used: false })
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|context| {
            // It takes the request up, and brings the answer, be it that it failed.
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Reads and writes what can be; `true`: the connection has ended.
    fn drive(&mut self, context: &mut Context<'_>) -> bool {
        let Some(connection) = &mut self.connection else { return true };
        // Why it ended is told to the request and the body that it carried.
        let over = Pin::new(connection).poll(context).is_ready();
        if over {
            self.connection = None;
        }
        over
    }

    /// Both messages are through, and the connection takes another request.
    fn is_free(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// A connection that is to return to its pool.
struct Lease {
    pool: Arc<Pool>,
    host: Authority,
    line: Box<Line>,
}

impl Lease {
    /// Drives the connection by a task until both messages are through: an origin may answer and still want the rest of the
    /// request, and a visitor may read nothing of the answer before it has sent that.
    fn detach(self) {
        let Self { pool, host, mut line } = self;
        tokio::spawn(async move {
            std::future::poll_fn(|context| match line.drive(context) || line.is_free() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            if line.is_free() {
                pool.put(host, line);
            }
        });
    }
}

/// The body of an answer; it drives its connection, and returns it at its end.
pub(crate) struct Answer {
    body: Incoming,
    /// `None`: a task drives it, or it has been returned.
    lease: Option<Lease>,
}

impl Answer {
    async fn begin(response: Response<Incoming>, lease: Lease, uploads: bool) -> Response<Self> {
        let mut answer = response.map(|body| Self { body, lease: Some(lease) });
        std::future::poll_fn(|context| {
            // Nobody polls a body that is empty.
            if answer.body().is_end_stream() {
                answer.body_mut().release(context);
            } else if uploads && let Some(lease) = answer.body_mut().lease.take() {
                lease.detach();
            }
            Poll::Ready(())
        })
        .await;
        answer
    }

    /// Gives the connection up, since the body has ended.
    fn release(&mut self, context: &mut Context<'_>) {
        let Some(mut lease) = self.lease.take() else { return };
        if lease.line.drive(context) {
            return;
        }
        if lease.line.is_free() {
            lease.pool.put(lease.host, lease.line);
        } else {
            lease.detach();
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(lease) = &mut self.lease {
            lease.line.drive(context);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || self.body.is_end_stream() => self.release(context),
            Poll::Ready(None) => self.release(context),
            Poll::Ready(Some(Err(_))) => self.lease = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
