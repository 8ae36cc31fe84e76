use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::{Body, ByteStream, FlowRequest, FlowService, Kind, OriginError, OriginFault, StreamRefusal, StreamRequest};

/// What an agent does with what arrives on its connections. One handler serves all connections of a connector.
pub trait Handler: Send + Sync + 'static {
    /// Gets the origin's answer to one request.
    ///
    /// The request's URI is absolute or a bare path with the `host` header set; protocol headers (`cf-cloudflared-*`)
    /// are gone. For [`Kind::WebSocket`] the answer's status is 101 when the origin accepted, and then both bodies are
    /// raw WebSocket bytes. Dropping the future means that the visitor left: cancel the origin's request.
    fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> impl Future<Output = Result<Response<Body>, OriginError>> + Send;

    /// Connects a byte stream; the two are relayed until both ways have ended, or the visitor is gone. Dropping the future
    /// means that the visitor left.
    ///
    /// What is not overridden serves none.
    fn stream(&self, request: StreamRequest) -> impl Future<Output = Result<ByteStream, StreamRefusal>> + Send {
        let text = format!("this agent carries no byte streams, and none to {}", request.destination);
        std::future::ready(Err(OriginError::new(OriginFault::Unsupported, text).into()))
    }

    /// Accepts a flow of datagrams; what it answers carries the flow, in a task of its own, until either end is gone. Dropping
    /// the future means that the visitor left.
    ///
    /// What is not overridden serves none.
    fn flow(&self, request: FlowRequest) -> impl Future<Output = Result<FlowService, StreamRefusal>> + Send {
        let text = format!("this agent carries no datagrams, and none to {}", request.destination);
        std::future::ready(Err(OriginError::new(OriginFault::Unsupported, text).into()))
    }

    /// Applies a configuration that the edge pushed, by the version rules of section 11.2, and answers the version now in
    /// force; on refusal with the reason as well.
    fn update_configuration(
        &self,
        version: i32,
        config: Bytes,
    ) -> impl Future<Output = Result<i32, (i32, String)>> + Send;
}

/// Where interim answers (1xx) of the origin go. Advice only: what finds no edge that wants it is dropped.
#[derive(Debug)]
pub struct Interim(Option<Arc<Mutex<Way>>>);

/// The interim answers to one request, as they come.
#[derive(Debug)]
pub struct Interims(Arc<Mutex<Way>>);

/// One allocation for each request, since few have anything to send on it.
#[derive(Debug)]
struct Way {
    waiting: VecDeque<(StatusCode, HeaderMap)>,
    /// How many more may be sent.
    left: usize,
    senders: usize,
    receiver: Option<Waker>,
}

impl Interim {
    /// More interim answers than this to one request are dropped, because nothing else holds back whoever sends them:
    /// they pass every flow control. No origin has a use for so many.
    pub const MOST: usize = 16;

    /// An edge that takes no interim answers.
    pub fn unwanted() -> Self {
        Self(None)
    }

    /// Whether the edge takes any.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// A sender, and the receiver that the transport (or, at the edge, the listener) drains.
    pub fn channel() -> (Self, Interims) {
        let way = Way { waiting: VecDeque::new(), left: Self::MOST, senders: 1, receiver: None };
        let way = Arc::new(Mutex::new(way));
        (Self(Some(Arc::clone(&way))), Interims(way))
    }

    /// Passes on one interim answer. What is none is dropped, and so is 100, which the body's first poll stands for.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        let passes =
            status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
        let Some(way) = self.0.as_ref().filter(|_| passes) else { return };
        let mut way = lock(way);
        if way.left > 0 {
            way.left -= 1;
            way.waiting.push_back((status, headers));
            let receiver = way.receiver.take();
            drop(way);
            wake(receiver);
        }
    }
}

impl Clone for Interim {
    fn clone(&self) -> Self {
        if let Some(way) = &self.0 {
            lock(way).senders += 1;
        }
        Self(self.0.clone())
    }
}

impl Drop for Interim {
    fn drop(&mut self) {
        let Some(way) = &self.0 else { return };
        let mut way = lock(way);
        way.senders -= 1;
        if way.senders == 0 {
            let receiver = way.receiver.take();
            drop(way);
            wake(receiver);
        }
    }
}

impl Interims {
    /// The next one; `None` once no more can come. Cancel safe.
    pub async fn recv(&mut self) -> Option<(StatusCode, HeaderMap)> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    pub(crate) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<(StatusCode, HeaderMap)>> {
        let mut way = lock(&self.0);
        match way.waiting.pop_front() {
            Some(interim) => Poll::Ready(Some(interim)),
            None if way.senders == 0 => Poll::Ready(None),
            None => {
                match &mut way.receiver {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// One that has come already.
    pub fn try_recv(&mut self) -> Option<(StatusCode, HeaderMap)> {
        lock(&self.0).waiting.pop_front()
    }
}

impl Drop for Interims {
    fn drop(&mut self) {
        let mut way = lock(&self.0);
        // Nobody wants them any more.
        way.left = 0;
        way.waiting.clear();
        way.receiver = None;
    }
}

fn lock(way: &Mutex<Way>) -> MutexGuard<'_, Way> {
    way.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(receiver: Option<Waker>) {
    if let Some(receiver) = receiver {
        receiver.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_has_so_many_interim_answers_and_no_more() {
        let (interim, mut early) = Interim::channel();
        for status in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK] {
            interim.send(status, HeaderMap::new());
        }
        for _ in 0..2 * Interim::MOST {
            interim.clone().send(StatusCode::EARLY_HINTS, HeaderMap::new());
        }
        drop(interim);
        let mut passed = 0;
        while let Some((status, _)) = early.recv().await {
            assert_eq!(status, StatusCode::EARLY_HINTS);
            passed += 1;
        }
        assert_eq!(passed, Interim::MOST);
    }
}
