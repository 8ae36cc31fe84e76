//! Connections to one origin over HTTP/1.1. Each is driven by the request that uses it and not by a task of its own, so
//! that a request passes from thread to thread no more often than it has to. Only what is left of a request's body once the
//! answer begins is sent by a task: both ways then go on at their own pace.

mod answer;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use tokio::task::coop;
use tokio::time::Instant;
use wire::{Body, Interim, OriginError};

use super::AnswerBody;
use super::connect::{Connector, Io};
use super::error::{self, ConnectFailure};
use super::http1::{Head, Line, NoAnswer, Then};
pub(crate) use answer::Answer;
use answer::Home;

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
    /// The one used last at the end.
    waiting: VecDeque<Waiting>,
    /// Somebody sweeps.
    swept: bool,
}

struct Waiting {
    /// What the connection was made for.
    host: Authority,
    line: Line,
    since: Instant,
}

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

/// What an origin makes of a request for another protocol.
pub(super) enum Upgraded {
    /// The connection, and what it has said in that protocol.
    Accepted(Response<()>, Box<dyn Io>, BytesMut),
    Refused(Response<AnswerBody>),
}

impl Pool {
    /// Keeps up to `most` idle connections, for whatever hosts, since visitors may choose these; each up to `age` (zero: for as
    /// long as the origin likes).
    pub(super) fn new(connector: Connector, most: usize, age: Duration) -> Arc<Self> {
        let age = if age.is_zero() { Duration::MAX } else { age };
        Arc::new(Self { connector, most, age, idle: Mutex::default() })
    }

    /// Sends a request, whose URI is no more than path and query, on a connection for this host. The body is taken out.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        host: &Authority,
        request: &mut Request<Body>,
        interim: &Interim,
    ) -> Result<Response<AnswerBody>, Failure> {
        // Without a budget a connection that has something to say would seem silent.
        let taken = coop::unconstrained(std::future::poll_fn(|context| Poll::Ready(self.take(host, context)))).await;
        let (mut line, used) = match taken {
            Some(line) => (line, true),
            // Boxed, because few requests dial, and all would have to hold the room for it.
            None => (Box::pin(self.dial(host.host())).await?, false),
        };
        let asked = line.ask(request, interim).await.map_err(|failed| {
            let stale = used && matches!(failed, NoAnswer::Closed { silent: true, .. });
            Failure { stale, error: failed.into() }
        })?;
        let Head { status, headers, then, keeps } = asked.head;
        let Then::Body(rest) = then else { return Err(error::switched().into()) };
        let home = keeps.then(|| Home { pool: Arc::clone(self), host: host.clone() });
        let mut response = Response::new(answer::begin(rest, line, home, asked.sending));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Sends a request that asks for another protocol, on a connection of its own.
    pub(super) async fn upgrade(
        &self,
        host: &str,
        request: &mut Request<Body>,
        interim: &Interim,
    ) -> Result<Upgraded, Failure> {
        let mut line = Box::pin(self.dial(host)).await?;
        let asked = line.ask(request, interim).await.map_err(OriginError::from)?;
        let Head { status, headers, then, .. } = asked.head;
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        match then {
            Then::Body(rest) => {
                let body = answer::begin(rest, line, None, asked.sending);
                Ok(Upgraded::Refused(response.map(|()| body)))
            }
            Then::Switch | Then::Head => {
                debug_assert_eq!(
                    status,
                    StatusCode::SWITCHING_PROTOCOLS,
                    "others are no end of the wait for an answer"
                );
                let (io, said) = line.into_parts();
                Ok(Upgraded::Accepted(response, io, said))
            }
        }
    }

    async fn dial(&self, host: &str) -> Result<Line, Failure> {
        let stream = self.connector.connect(host).await.map_err(|ConnectFailure(error)| error)?;
        Ok(Line::new(stream.into_inner()))
    }

    /// A connection that waits and is still good for a request.
    fn take(&self, host: &Authority, context: &mut Context<'_>) -> Option<Line> {
        loop {
            let mut idle = self.idle();
            let at = idle.waiting.iter().rposition(|waiting| waiting.host == *host)?;
            if idle.waiting[at].since.elapsed() >= self.age {
                // The others have waited even longer.
                let old: Vec<Waiting> = idle.waiting.drain(..=at).collect();
                drop(idle);
                drop(old);
                return None;
            }
            let waiting = idle.waiting.remove(at);
            drop(idle);
            let mut line = waiting?.line;
            if line.is_silent(context) {
                return Some(line);
            }
        }
    }

    fn put(self: &Arc<Self>, host: Authority, mut line: Line) {
        if self.most == 0 {
            return;
        }
        line.rest();
        let mut idle = self.idle();
        let oldest = if idle.waiting.len() < self.most { None } else { idle.waiting.pop_front() };
        idle.waiting.push_back(Waiting { host, line, since: Instant::now() });
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
        let age = self.age;
        idle.waiting.retain_mut(|waiting| waiting.since.elapsed() < age && waiting.line.is_silent(context));
        idle.swept = !idle.waiting.is_empty();
        idle.swept
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let tidied = coop::unconstrained(async { pool.upgrade().is_some_and(|pool| pool.tidy()) });
        if !tidied.await {
            return;
        }
    }
}
