//! Gets a request answered by one of a tunnel's connections, on another one if the first fails in time.

mod choice;
mod replay;
mod retry;

pub(crate) use choice::least_loaded;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response, request};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use wire::{Body, ExchangeError, Interim, Kind};

use crate::Limits;
use crate::refusal::{self, Refusal};
use replay::{Replay, Waiting};
use retry::{Attempt, Verdict};

/// The connections of one tunnel.
pub(crate) trait Pool {
    /// One of them.
    type Carrier: Carrier;

    /// The best connection for one more request, if any but those of `tried` takes requests; one of the same connector as one of them
    /// only if there is no other.
    fn pick(&self, tried: &[Identity]) -> Option<Self::Carrier>;

    /// Waits for a connection if one is likely to come within the time; none if not, or in vain. One of `tried` that is still there
    /// after a moment will do as well.
    fn await_one(&self, tried: &[Identity], time: Duration) -> impl Future<Output = Option<Self::Carrier>> + Send;
}

/// A connection, and the agent at its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) connection: Uuid,
    pub(crate) connector: Uuid,
}

/// Something that carries a request to an agent.
pub(crate) trait Carrier: Send + Sync {
    /// Which one it is.
    fn identity(&self) -> Identity;

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
pub(crate) async fn dispatch<P: Pool>(pool: &P, order: Order, limits: &Limits) -> Result<Response<Body>, Failure> {
    let Order { kind, head, body, interim } = order;
    let replay = Replay::new(body, limits.replay_bytes, Instant::now());
    let mut tried = Vec::new();
    let mut spent = Duration::ZERO;
    loop {
        let carrier = match pool.pick(&tried) {
            Some(carrier) => carrier,
            None => pool.await_one(&tried, limits.reconnect_wait).await.ok_or(&refusal::NO_CONNECTION)?,
        };
        let started = Instant::now();
        let request = Request::from_parts(head.clone(), replay.body(started));
        let exchange = carrier.exchange(kind, request, interim.clone());
        let waiting = |now: Instant| match kind {
            Kind::Http => replay.waiting(now),
            // What a WebSocket's visitor sends comes only after the answer.
            Kind::WebSocket => Waiting::Origin(now - started),
        };
        let error = match in_time(exchange, waiting, limits.response.saturating_sub(spent), limits.body_pause).await? {
            Ok(answer) => {
                replay.settle();
                return Ok(answer);
            }
            Err(error) => error,
        };
        if let Waiting::Origin(time) = waiting(Instant::now()) {
            spent += time;
        }
        tried.push(carrier.identity());
        let number = u32::try_from(tried.len()).unwrap_or(u32::MAX);
        let attempt = Attempt { method: &head.method, number, allowed: limits.attempts, replayable: replay.is_whole() };
        match retry::after(&error, attempt) {
            Verdict::Again => {
                tracing::debug!(connection = %carrier.identity().connection, %error, "trying another connection");
            }
            Verdict::Refuse(refusal) => return Err(Failure { refusal, detail: detail(error) }),
        }
    }
}

/// Gives the exchange up when the origin has kept the visitor waiting for longer than `response`, or the visitor the origin
/// for longer than `pause`.
async fn in_time<T>(
    exchange: impl Future<Output = T>,
    waiting: impl Fn(Instant) -> Waiting,
    response: Duration,
    pause: Duration,
) -> Result<T, &'static Refusal> {
    let mut exchange = pin!(exchange);
    loop {
        let now = Instant::now();
        let (left, refusal) = match waiting(now) {
            Waiting::Origin(time) => (response.saturating_sub(time), &refusal::ORIGIN_TIMEOUT),
            Waiting::Visitor(time) => (pause.saturating_sub(time), &refusal::TOO_SLOW),
        };
        if left.is_zero() {
            return Err(refusal);
        }
        tokio::select! {
            outcome = &mut exchange => return Ok(outcome),
            // Who waits for whom may change meanwhile.
            () = sleep_until(now + left.min(pause)) => (),
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
    use std::sync::{Arc, Mutex};

    use http::Method;
    use http_body_util::BodyExt as _;

    use super::*;

    /// What a connection of the script does with a request.
    #[derive(Clone)]
    enum Act {
        Answer,
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
    }

    impl Carrier for Scripted {
        fn identity(&self) -> Identity {
            Identity { connection: self.id, connector: self.id }
        }

        async fn exchange(&self, _: Kind, request: Request<Body>, _: Interim) -> Result<Response<Body>, ExchangeError> {
            match self.act {
                Act::NotSent => return Err(ExchangeError::NotSent(String::new())),
                Act::Hang => std::future::pending().await,
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
    }

    impl Script {
        fn new(acts: impl IntoIterator<Item = Act>) -> Self {
            Self { acts: Mutex::new(acts.into_iter().collect()), late: Mutex::new(None), bodies: Arc::default() }
        }

        fn carrier(&self, act: Act) -> Scripted {
            Scripted { id: Uuid::new_v4(), act, bodies: Arc::clone(&self.bodies) }
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

    async fn outcome(script: &Script, order: Order) -> Result<(), &'static Refusal> {
        dispatch(script, order, &Limits::default()).await.map(|_| ()).map_err(|failure| failure.refusal)
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
}
