use std::future::Future;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::{Body, Kind, OriginError};

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
pub struct Interim(Option<mpsc::Sender<(StatusCode, HeaderMap)>>);

impl Interim {
    /// More interim answers than this for one request are dropped: no origin has a use for so many.
    pub const CAPACITY: usize = 8;

    /// An edge that takes no interim answers.
    pub fn unwanted() -> Self {
        Self(None)
    }

    /// A sender, and the receiver that the transport (or, at the edge, the listener) drains.
    pub fn channel() -> (Self, mpsc::Receiver<(StatusCode, HeaderMap)>) {
        let (sender, receiver) = mpsc::channel(Self::CAPACITY);
        (Self(Some(sender)), receiver)
    }

    /// Passes on one interim answer; statuses other than 1xx, and 101, are dropped.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        if status.is_informational()
            && status != StatusCode::SWITCHING_PROTOCOLS
            && let Some(sender) = &self.0
        {
            // Full or closed: an interim answer is advice, so it is dropped.
            let _ = sender.try_send((status, headers));
        }
    }
}
