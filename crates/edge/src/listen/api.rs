use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::handshakes::shake_hands;
use super::places::{Place, Places};
use super::tcp;
use crate::Limits;
use crate::fair::{Fair, Fairness};
use crate::metrics::Metrics;
use crate::stop::Stop;
use crate::unread::{Lingering, Unread, Upload};

/// A caller that answers nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// The first byte of a TLS handshake (RFC 8446 section 5.1); no method of HTTP begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// A token must not cross a network in plain.
const PLAIN_REFUSED: &str = "This API answers without TLS only on this machine itself. Use https:// here.\n";

/// Serves the API, with TLS to everybody and without it to this machine itself, until the node stops.
pub(crate) async fn api(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    limits: Limits,
    stop: Stop,
    fairness: Fairness,
    metrics: Arc<Metrics>,
) {
    let (places, places_here) = (Places::of_callers(), Places::of_callers());
    let entrance = tcp::Entrance::new(listener, SILENCE);
    while let Some((stream, remote)) = entrance.accept(&stop).await {
        let places = if remote.ip().is_loopback() { &places_here } else { &places };
        let place = match places.take(remote.ip()) {
            Ok(place) => place,
            Err(defence) => {
                metrics.defended(defence);
                tracing::debug!(caller = %remote, limit = defence.label(), "a connection to the API is refused");
                continue;
            }
        };
        let (router, fairness) = (router.clone(), fairness.clone());
        let account = fairness.of(remote.ip());
        let call = Call { remote, router, limits, stop: stop.clone(), fairness: fairness.clone(), _place: place };
        stop.spawn(Fair::new(Box::pin(call.serve(stream, Arc::clone(&tls))), fairness, account));
    }
}

struct Call {
    remote: SocketAddr,
    router: Router,
    limits: Limits,
    stop: Stop,
    fairness: Fairness,
    _place: Place,
}

impl Call {
    async fn serve(self, stream: TcpStream, tls: Arc<ServerConfig>) {
        let mut first = [0];
        let peeked = self.stop.unless_drained(timeout(self.limits.handshake, stream.peek(&mut first)));
        let Some(Ok(Ok(1))) = peeked.await else { return };
        if first == [TLS_HANDSHAKE] {
            let handshake = timeout(self.limits.handshake, shake_hands(stream, tls));
            match self.stop.unless_drained(handshake).await {
                None => (),
                Some(Ok(Ok(stream))) => self.answer(stream).await,
                Some(Ok(Err(error))) => {
                    self.fairness.doubt(self.remote.ip());
                    tracing::debug!(caller = %self.remote, %error, "a TLS handshake failed");
                }
                Some(Err(_)) => {
                    self.fairness.doubt(self.remote.ip());
                    tracing::debug!(caller = %self.remote, "a TLS handshake took too long");
                }
            }
        } else if self.remote.ip().is_loopback() {
            self.answer(stream).await;
        } else {
            refuse_plain(stream).await;
        }
    }

    async fn answer<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.idle);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(self.limits.streams);
        // The API asks where a caller is: on this machine, more is allowed.
        let router = self.router.layer(Extension(ConnectInfo(self.remote)));
        let router = TowerToHyperService::new(router);
        let under_way = Arc::new(watch::Sender::new(0_usize));
        let unread = Unread::default();
        let service = service_fn(|request: Request<Incoming>| {
            let present = Present::new(&under_way);
            let answering = router.call(request.map(|body| Upload::new(body, unread.clone())));
            async move {
                let answer = answering.await;
                drop(present);
                answer
            }
        });
        let connection = builder.serve_connection(TokioIo::new(Lingering::new(io, unread.clone())), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.drained() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = idle(under_way.subscribe(), self.limits.idle) => {
                connection.as_mut().graceful_shutdown();
                // Who still has not read the last answer by then never will.
                timeout(self.limits.idle, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(caller = %self.remote, %error, "a caller's connection broke");
        }
    }
}

/// A request under way as long as it lives.
struct Present(Arc<watch::Sender<usize>>);

impl Present {
    fn new(under_way: &Arc<watch::Sender<usize>>) -> Self {
        under_way.send_modify(|count| *count += 1);
        Self(Arc::clone(under_way))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Ends when no request has been under way for this long. The library has no such limit for HTTP/2, nor for the first
/// bytes, which tell it the version.
async fn idle(mut under_way: watch::Receiver<usize>, time: Duration) {
    loop {
        // The sender lives as long as the connection.
        let _ = under_way.wait_for(|count| *count == 0).await;
        if timeout(time, under_way.changed()).await.is_err() {
            return;
        }
    }
}

async fn refuse_plain(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{PLAIN_REFUSED}",
        PLAIN_REFUSED.len()
    );
    // Whoever does not read its refusal gets none.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
