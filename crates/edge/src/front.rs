//! The protocols of visitors. Each turns what comes into a [`Visit`] and gives the answer back as the protocol has it.

mod ask;
mod http1;
mod http2;
pub(crate) mod http3;
pub(crate) mod prefixed;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::Kind;

use crate::Limits;
use crate::defence::Defence;
use crate::fair::Fairness;
use crate::site::{Counted, Site};
use crate::stop::Stop;
use crate::visit::{Caller, Visit};

/// What every connection of visitors needs.
pub(crate) struct Reception {
    pub(crate) site: Arc<Site>,
    pub(crate) limits: Limits,
    pub(crate) stop: Stop,
    pub(crate) fairness: Fairness,
    /// Tells visitors who came over TLS and TCP where HTTP/3 is.
    pub(crate) alt_svc: Option<HeaderValue>,
}

impl Reception {
    /// Boxed, because each function on the way would hold the room for it.
    async fn answer(&self, visit: Box<Visit>) -> http::Response<Counted> {
        let over_tls = visit.caller.is_secure() && visit.request.version() != http::Version::HTTP_3;
        let mut answer = self.site.answer(visit).await;
        if let (true, Some(alt_svc)) = (over_tls, &self.alt_svc) {
            answer.headers_mut().insert(header::ALT_SVC, alt_svc.clone());
        }
        answer
    }
}

/// Serves a connection whose protocol its first bytes tell.
pub(crate) async fn serve_plain<IO>(io: IO, caller: Caller, reception: Arc<Reception>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let first = tokio::time::timeout(reception.limits.idle, prefixed::Prefixed::new(io));
    match reception.stop.unless_drained(first).await {
        Some(Ok(Ok((io, is_http2)))) => serve(io, is_http2, caller, reception).await,
        Some(Err(_)) => {
            reception.fairness.doubt(caller.remote.ip());
            reception.site.metrics.defended(Defence::SlowHeader);
        }
        Some(Ok(Err(_))) => reception.fairness.doubt(caller.remote.ip()),
        None => (),
    }
}

/// Serves a connection whose protocol is known.
pub(crate) async fn serve<IO>(io: IO, is_http2: bool, caller: Caller, reception: Arc<Reception>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (error, defence) = if is_http2 {
        // Each apart, so that a connection takes no more memory than its own protocol needs.
        let Err(error) = Box::pin(http2::serve(io, caller, Arc::clone(&reception))).await else { return };
        (error.to_string(), Defence::of_http2(&error))
    } else {
        let Err(error) = Box::pin(http1::serve(io, caller, Arc::clone(&reception))).await else { return };
        (error.to_string(), Defence::of_http1(&error))
    };
    if let Some(defence) = defence {
        reception.site.metrics.defended(defence);
    }
    tracing::debug!(visitor = %caller.remote, error, "a visitor's connection broke");
}

/// An accepted WebSocket as HTTP/2 and HTTP/3 say it: status 200, and nothing of the handshake that only HTTP/1.1 has.
fn without_upgrade(mut head: http::response::Parts, kind: Kind) -> http::response::Parts {
    if kind == Kind::WebSocket && head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = StatusCode::OK;
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head
}
