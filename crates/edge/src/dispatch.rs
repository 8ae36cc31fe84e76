//! Gets a request answered by one of a tunnel's connections, on another one if the first fails in time.

mod choice;
mod replay;
mod retry;
mod vigil;

pub(crate) use choice::least_loaded;

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::{Request, Response, request};
use http_body::Body as _;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use wire::{Body, ExchangeError, Interim, Kind, OriginFault};

use crate::Limits;
use crate::refusal::{self, Refusal};
use replay::{Replay, Waiting};
use retry::{Attempt, Verdict};
pub(crate) use vigil::FIRST_LOOK;
use vigil::Vigil;

/// The connections of one tunnel.
pub(crate) trait Pool {
    /// One of them.
    type Carrier: Carrier;

    /// The best connection for one more request, if any but those of `tried` takes requests and is not doubted; one of the same
    /// connector as one of them only if there is no other.
    fn pick(&self, tried: &[Identity]) -> Option<Self::Carrier>;

    /// Whether there is a connection but those of `tried` that takes requests and is not doubted.
    fn has_other(&self, tried: &[Identity]) -> bool;

    /// A request is sent again.
    fn retried(&self, why: Retry);

    /// The origin itself failed a request, or was too late.
    fn origin_failed(&self, _: OriginFault) {}

    /// Turns to another origin, if there is one that this request may go to.
    fn turns(&self) -> bool {
        false
    }

    /// Waits for a connection if one is likely to come within the time; none if not, or in vain. One of `tried` that is still there
    /// after a moment will do as well, and one that is doubted when the time is up.
    fn await_one(&self, tried: &[Identity], time: Duration) -> impl Future<Output = Option<Self::Carrier>> + Send;
}

/// A connection, and the agent at its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) connection: Uuid,
    pub(crate) connector: Uuid,
}

/// Why a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The agent has not seen it.
    NotSent,
    /// The connection ended before an answer.
    Lost,
    /// Nothing was heard from the agent, answer or other.
    Silent,
    /// An origin gave no answer, and there is another one.
    Origin,
}

impl Retry {
    pub(crate) const ALL: [Self; 4] = [Self::NotSent, Self::Lost, Self::Silent, Self::Origin];

    /// As metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Origin => "origin",
        }
    }
}

/// Something that carries a request to an agent.
pub(crate) trait Carrier: Send + Sync {
    /// Which one it is.
    fn identity(&self) -> Identity;

    /// As [`wire::Connection::signs_of_life`].
    fn signs_of_life(&self) -> u64;

    /// As [`wire::Connection::ask_for_life`].
    fn ask_for_life(&self) -> Duration;

    /// Nothing is heard from the agent: until something is, other connections are better.
    fn doubt(&self);

    /// Nothing has been heard since it was doubted.
    fn is_doubted(&self) -> bool;

    /// As [`wire::Connection::exchange`].
    fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> impl Future<Output = Result<Response<Body>, ExchangeError>> + Send;
}

/// A request as the origin is to see it.
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) head: request::Parts,
    pub(crate) body: Body,
    pub(crate) interim: Interim,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) refusal: &'static Refusal,
    /// What the failure has to add to the refusal, for people.
    pub(crate) detail: Option<String>,
}

impl From<&'static Refusal> for Failure {
    fn from(refusal: &'static Refusal) -> Self {
        Self { refusal, detail: None }
    }
}

/// Sends the order over one connection after the other until one brings an answer, or it must not be tried again.
/// Takes the order's body.
pub(crate) async fn dispatch<P: Pool>(pool: &P, order: &mut Order, limits: &Limits) -> Result<Response<Body>, Failure> {
    let Order { kind, head, body, interim } = order;
    let kind = *kind;
    // Most requests have no body.
    let replay =
        (!body.is_end_stream()).then(|| Replay::new(std::mem::take(body), limits.replay_bytes, Instant::now()));
    let mut tried = Vec::new();
    let mut spent = Duration::ZERO;
    loop {
        let carrier = match pool.pick(&tried) {
            Some(carrier) => carrier,
            // Boxed, so that the many that need not wait are no larger for it.
            None => Box::pin(pool.await_one(&tried, limits.reconnect_wait)).await.ok_or(&refusal::NO_CONNECTION)?,
        };
        let started = Instant::now();
        let body = replay.as_ref().map_or_else(Body::empty, |replay| replay.body(started));
        let request = Request::from_parts(head.clone(), body);
        let mut exchange = pin!(carrier.exchange(kind, request, interim.clone()));
        let waiting = |now: Instant| match (kind, &replay) {
            (Kind::Http, Some(replay)) => replay.waiting(now),
            // What a WebSocket's visitor sends comes only after the answer.
            (Kind::Http, None) | (Kind::WebSocket, _) => Waiting::Origin(now - started),
        };
        tried.push(carrier.identity());
        let number = u32::try_from(tried.len()).unwrap_or(u32::MAX);
        let may_leave = || {
            let replayable = replay.as_ref().is_none_or(Replay::is_whole);
            let attempt = Attempt { method: &head.method, number, allowed: limits.attempts, replayable };
            retry::may_leave(attempt) && pool.has_other(&tried)
        };
        let vigil = Vigil::new(&carrier, started);
        let times = (limits.response.saturating_sub(spent), limits.body_pause);
        let outcome = in_time(exchange.as_mut(), waiting, times, vigil, may_leave).await.inspect_err(|refusal| {
            if **refusal == refusal::ORIGIN_TIMEOUT {
                pool.origin_failed(OriginFault::ResponseTimeout);
            }
        });
        let (error, why) = match outcome? {
            Ok(Ok(answer)) => {
                if let Some(replay) = &replay {
                    replay.settle();
                }
                return Ok(answer);
            }
            Ok(Err(error)) => {
                let why = match &error {
                    ExchangeError::NotSent(_) => Retry::NotSent,
                    ExchangeError::Origin(error) => {
                        pool.origin_failed(error.fault);
                        Retry::Origin
                    }
                    _ => Retry::Lost,
                };
                (error, why)
            }
            Err(Silent) => (ExchangeError::Lost("nothing is heard from the agent".into()), Retry::Silent),
        };
        if let Waiting::Origin(time) = waiting(Instant::now()) {
            spent += time;
        }
        let replayable = replay.as_ref().is_none_or(Replay::is_whole);
        let attempt = Attempt { method: &head.method, number, allowed: limits.attempts, replayable };
        match retry::after(&error, attempt) {
            Verdict::Again => {
                pool.retried(why);
                tracing::debug!(connection = %carrier.identity().connection, %error, "trying another connection");
            }
            Verdict::Elsewhere(_) if pool.turns() => {
                pool.retried(why);
                tracing::debug!(%error, "asking another origin");
            }
            Verdict::Elsewhere(refusal) | Verdict::Refuse(refusal) => {
                return Err(Failure { refusal, detail: detail(error) });
            }
        }
    }
}

/// Nothing is heard from the agent, and there is another one to ask.
struct Silent;

/// Gives the exchange up when the origin has kept the visitor waiting for longer than the first of `times`, or the visitor the
/// origin for longer than the second; and when the agent has fallen silent, if the request may go elsewhere.
async fn in_time<T>(
    mut exchange: Pin<&mut impl Future<Output = T>>,
    waiting: impl Fn(Instant) -> Waiting,
    (response, pause): (Duration, Duration),
    mut vigil: Vigil<'_, impl Carrier>,
    may_leave: impl Fn() -> bool,
) -> Result<Result<T, Silent>, &'static Refusal> {
    loop {
        let now = Instant::now();
        if vigil.is_silent(now) && may_leave() {
            return Ok(Err(Silent));
        }
        let (left, refusal) = match waiting(now) {
            Waiting::Origin(time) => (response.saturating_sub(time), &refusal::ORIGIN_TIMEOUT),
            Waiting::Visitor(time) => (pause.saturating_sub(time), &refusal::TOO_SLOW),
        };
        if left.is_zero() {
            return Err(refusal);
        }
        tokio::select! {
            biased;
            outcome = &mut exchange => return Ok(Ok(outcome)),
            // Who waits for whom may change meanwhile.
            () = sleep_until(vigil.due().min(now + left.min(pause))) => (),
        }
    }
}

/// What an agent says of its origin helps whoever runs the site; the state of the edge's connections is for its log.
fn detail(error: ExchangeError) -> Option<String> {
    match error {
        ExchangeError::Origin(error) if !error.text.is_empty() => Some(error.text),
        ExchangeError::Origin(_)
        | ExchangeError::NotSent(_)
        | ExchangeError::Lost(_)
        | ExchangeError::Protocol(_)
        | ExchangeError::RequestBody(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use http::Method;
    use http_body_util::BodyExt as _;

    use super::*;

    /// What a connection of the script does with a request.
    #[derive(Clone)]
    enum Act {
        Answer,
        /// Nothing is heard any more.
        Silence,
        /// The origin takes its time, and the agent is well.
        Late(Duration),
        NotSent,
        LostAfterBody,
        LostAfter(Duration),
        Hang,
        HangAfterBody,
    }

    #[derive(Clone)]
    struct Scripted {
        id: Uuid,
        act: Act,
        bodies: Arc<Mutex<Vec<String>>>,
        signs: Arc<AtomicU64>,
        doubted: Arc<AtomicU64>,
    }

    impl Carrier for Scripted {
        fn identity(&self) -> Identity {
            Identity { connection: self.id, connector: self.id }
        }

        fn signs_of_life(&self) -> u64 {
            self.signs.load(Ordering::Relaxed)
        }

        fn ask_for_life(&self) -> Duration {
            if !matches!(self.act, Act::Silence) {
                self.signs.fetch_add(1, Ordering::Relaxed);
            }
            Duration::from_millis(1750)
        }

        fn doubt(&self) {
            self.doubted.fetch_add(1, Ordering::Relaxed);
        }

        fn is_doubted(&self) -> bool {
            false
        }

        async fn exchange(&self, _: Kind, request: Request<Body>, _: Interim) -> Result<Response<Body>, ExchangeError> {
            match self.act {
                Act::NotSent => return Err(ExchangeError::NotSent(String::new())),
                Act::Hang | Act::Silence => std::future::pending().await,
                Act::Late(time) => {
                    tokio::time::sleep(time).await;
                    return Ok(Response::new(Body::empty()));
                }
                Act::LostAfter(time) => {
                    tokio::time::sleep(time).await;
                    return Err(ExchangeError::Lost(String::new()));
                }
                Act::Answer | Act::LostAfterBody | Act::HangAfterBody => (),
            }
            let body =
                request.into_body().collect().await.map_err(|error| ExchangeError::RequestBody(error.to_string()))?;
            self.bodies.lock().unwrap().push(String::from_utf8(body.to_bytes().to_vec()).unwrap());
            match self.act {
                Act::LostAfterBody => Err(ExchangeError::Lost(String::new())),
                Act::HangAfterBody => std::future::pending().await,
                _ => Ok(Response::new(Body::empty())),
            }
        }
    }

    /// Hands its connections out in order.
    struct Script {
        acts: Mutex<VecDeque<Act>>,
        late: Mutex<Option<(Duration, Act)>>,
        bodies: Arc<Mutex<Vec<String>>>,
        doubted: Arc<AtomicU64>,
        retries: Mutex<Vec<Retry>>,
    }

    impl Script {
        fn new(acts: impl IntoIterator<Item = Act>) -> Self {
            Self {
                acts: Mutex::new(acts.into_iter().collect()),
                late: Mutex::new(None),
                bodies: Arc::default(),
                doubted: Arc::default(),
                retries: Mutex::default(),
            }
        }

        fn carrier(&self, act: Act) -> Scripted {
            Scripted {
                id: Uuid::new_v4(),
                act,
                bodies: Arc::clone(&self.bodies),
                signs: Arc::default(),
                doubted: Arc::clone(&self.doubted),
            }
        }

        fn seen(&self) -> Vec<String> {
            self.bodies.lock().unwrap().clone()
        }
    }

    impl Pool for Script {
        type Carrier = Scripted;

        fn pick(&self, _: &[Identity]) -> Option<Scripted> {
            let act = self.acts.lock().unwrap().pop_front()?;
            Some(self.carrier(act))
        }

        fn has_other(&self, _: &[Identity]) -> bool {
            !self.acts.lock().unwrap().is_empty()
        }

        fn retried(&self, why: Retry) {
            self.retries.lock().unwrap().push(why);
        }

        async fn await_one(&self, _: &[Identity], time: Duration) -> Option<Scripted> {
            let (after, act) = self.late.lock().unwrap().take()?;
            tokio::time::sleep(after.min(time)).await;
            (after <= time).then(|| self.carrier(act))
        }
    }

    fn order(method: Method, body: Body) -> Order {
        let (head, ()) = Request::builder().method(method).uri("https://a.example/").body(()).unwrap().into_parts();
        Order { kind: Kind::Http, head, body, interim: Interim::unwanted() }
    }

    async fn outcome(script: &Script, mut order: Order) -> Result<(), &'static Refusal> {
        dispatch(script, &mut order, &Limits::default()).await.map(|_| ()).map_err(|failure| failure.refusal)
    }

    /// A body whose end never comes.
    fn endless() -> Body {
        let (sender, receiver) = tokio::sync::mpsc::channel::<()>(1);
        Body::wrap(http_body_util::StreamBody::new(Box::pin(futures_util::stream::unfold(
            (sender, receiver),
            async |(sender, mut receiver)| {
                receiver.recv().await;
                Some((Ok::<_, wire::BodyError>(http_body::Frame::data(bytes::Bytes::new())), (sender, receiver)))
            },
        ))))
    }

    #[tokio::test(start_paused = true)]
    async fn another_connection_takes_what_the_first_did_not_send() {
        let script = Script::new([Act::NotSent, Act::NotSent, Act::Answer]);
        assert_eq!(outcome(&script, order(Method::POST, Body::full("form"))).await, Ok(()));
        assert_eq!(script.seen(), ["form"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_body_goes_out_again() {
        let script = Script::new([Act::LostAfterBody, Act::Answer]);
        assert_eq!(outcome(&script, order(Method::PUT, Body::full("form"))).await, Ok(()));
        assert_eq!(script.seen(), ["form", "form"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_done_twice_unasked() {
        let script = Script::new([Act::LostAfterBody, Act::Answer]);
        let refused = outcome(&script, order(Method::POST, Body::full("order"))).await;
        assert_eq!(refused, Err(&refusal::CONNECTION_LOST));
        assert_eq!(script.seen(), ["order"]);
    }

    #[tokio::test(start_paused = true)]
    async fn too_long_a_body_goes_out_once() {
        let script = Script::new([Act::LostAfterBody, Act::Answer]);
        let body = Body::full(vec![b'x'; Limits::REPLAY_BYTES + 1]);
        assert_eq!(outcome(&script, order(Method::PUT, body)).await, Err(&refusal::CONNECTION_LOST));
        assert_eq!(script.seen().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted() {
        let script = Script::new(vec![Act::NotSent; 20]);
        assert_eq!(outcome(&script, order(Method::GET, Body::empty())).await, Err(&refusal::CONNECTION_LOST));
        assert_eq!(script.acts.lock().unwrap().len(), 20 - Limits::ATTEMPTS as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_its_way_is_waited_for() {
        let script = Script::new([Act::NotSent]);
        *script.late.lock().unwrap() = Some((Duration::from_secs(2), Act::Answer));
        assert_eq!(outcome(&script, order(Method::GET, Body::empty())).await, Ok(()));

        let script = Script::new([]);
        *script.late.lock().unwrap() = Some((Limits::RECONNECT_WAIT * 2, Act::Answer));
        assert_eq!(outcome(&script, order(Method::GET, Body::empty())).await, Err(&refusal::NO_CONNECTION));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_origin_is_given_up() {
        for act in [Act::Hang, Act::HangAfterBody] {
            let started = Instant::now();
            let script = Script::new([act]);
            assert_eq!(outcome(&script, order(Method::POST, Body::full("x"))).await, Err(&refusal::ORIGIN_TIMEOUT));
            assert_eq!(started.elapsed().as_secs(), Limits::RESPONSE.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_attempts_share_the_time_of_the_request() {
        for kind in [Kind::Http, Kind::WebSocket] {
            let started = Instant::now();
            let script = Script::new([Act::LostAfter(Limits::RESPONSE / 2), Act::Hang]);
            let order = Order { kind, ..order(Method::GET, Body::empty()) };
            assert_eq!(outcome(&script, order).await, Err(&refusal::ORIGIN_TIMEOUT));
            assert_eq!(started.elapsed().as_secs(), Limits::RESPONSE.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_who_stops_in_the_middle_is_told_so() {
        let script = Script::new([Act::HangAfterBody]);
        assert_eq!(outcome(&script, order(Method::POST, endless())).await, Err(&refusal::TOO_SLOW));
    }

    #[tokio::test(start_paused = true)]
    async fn who_meets_silence_asks_elsewhere_soon() {
        let started = Instant::now();
        let script = Script::new([Act::Silence, Act::Answer]);
        assert_eq!(outcome(&script, order(Method::GET, Body::empty())).await, Ok(()));
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        assert_eq!(*script.retries.lock().unwrap(), [Retry::Silent]);
        assert_eq!(script.doubted.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_borne_where_nobody_else_is_or_it_would_be_done_twice() {
        for (method, others) in [(Method::POST, &[Act::Answer][..]), (Method::GET, &[])] {
            let script = Script::new([Act::Silence].into_iter().chain(others.iter().cloned()));
            assert_eq!(outcome(&script, order(method, Body::empty())).await, Err(&refusal::ORIGIN_TIMEOUT));
            assert!(script.retries.lock().unwrap().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_origin_is_not_silence() {
        let script = Script::new([Act::Late(Duration::from_secs(60)), Act::NotSent]);
        assert_eq!(outcome(&script, order(Method::GET, Body::empty())).await, Ok(()));
        assert_eq!(script.doubted.load(Ordering::Relaxed), 0);
    }
}
