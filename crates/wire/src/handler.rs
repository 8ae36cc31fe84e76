use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::mpsc;

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

/// Where interim answers (1xx) of the origin go. Advice only: what finds no room, or no edge that wants it, is dropped.
#[derive(Debug, Clone)]
pub struct Interim(Option<Way>);

#[derive(Debug, Clone)]
struct Way {
    /// Boxed, because the channel's room is allocated for a dozen at once, and most requests never have one.
    sender: mpsc::Sender<Box<(StatusCode, HeaderMap)>>,
    /// Clones count together.
    left: Arc<AtomicUsize>,
}

/// The interim answers to one request, as they come.
#[derive(Debug)]
pub struct Interims(mpsc::Receiver<Box<(StatusCode, HeaderMap)>>);

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
        let (sender, receiver) = mpsc::channel(Self::MOST);
        (Self(Some(Way { sender, left: Arc::new(AtomicUsize::new(Self::MOST)) })), Interims(receiver))
    }

    /// Passes on one interim answer. What is none is dropped, and so is 100, which the body's first poll stands for.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        let passes =
            status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
        let Some(Way { sender, left }) = self.0.as_ref().filter(|_| passes) else { return };
        let counted = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if counted.is_ok() {
            // Closed: nobody wants them any more.
            let _ = sender.try_send(Box::new((status, headers)));
        }
    }
}

impl Interims {
    /// The next one; `None` once no more can come. Cancel safe.
    pub async fn recv(&mut self) -> Option<(StatusCode, HeaderMap)> {
        self.0.recv().await.map(|interim| *interim)
    }

    /// One that has come already.
    pub fn try_recv(&mut self) -> Option<(StatusCode, HeaderMap)> {
        self.0.try_recv().ok().map(|interim| *interim)
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
