//! The agent's HTTP endpoint (section 15.1).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;
use wire::Transport;

use crate::event::Status;
use crate::handler::Requests;
use crate::listen::{accept, bind};

/// The ports that are tried when none is given; tools look there.
const USUAL_PORTS: std::ops::RangeInclusive<u16> = 20241..=20245;
/// Connections served at once: a scraper or two, a health check, a person.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Opens the endpoint's listener: at the address, or at the first free of the usual ports on loopback, else at any port
/// there.
///
/// # Errors
/// The address is taken or not of this machine.
pub async fn listen(address: Option<SocketAddr>) -> io::Result<TcpListener> {
    bind(address, USUAL_PORTS).await
}

/// What the endpoint tells.
pub(crate) struct Facts {
    pub(crate) connector: Uuid,
    pub(crate) tunnel: Uuid,
    pub(crate) quick_hostname: Option<String>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) requests: Arc<Requests>,
}

/// Answers until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, facts: Arc<Facts>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, place) = accept(&listener, &places).await;
        while connections.try_join_next().is_some() {}
        let facts = Arc::clone(&facts);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let facts = Arc::clone(&facts);
                async move { Ok::<_, Infallible>(facts.answer(&request)) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::trace!(%error, "a connection to the metrics endpoint ended");
            }
            drop(place);
        });
    }
}

impl Facts {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/ready" => {
                let ready = self.status.borrow().connections.len();
                let status = if ready > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let body = json!({
                    "status": status.as_u16(), "readyConnections": ready, "connectorId": self.connector,
                });
                json_response(status, &body)
            }
            "/healthcheck" => text(StatusCode::OK, "OK\n"),
            "/metrics" => match self.requests.metrics.text(&self.status.borrow()) {
                Ok(metrics) => {
                    let mut response = text(StatusCode::OK, metrics);
                    let format = HeaderValue::from_static(prometheus::TEXT_FORMAT);
                    response.headers_mut().insert(CONTENT_TYPE, format);
                    response
                }
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/quicktunnel" => {
                let hostname = self.quick_hostname.as_deref().unwrap_or_default();
                json_response(StatusCode::OK, &json!({ "hostname": hostname }))
            }
            "/config" => {
                let active = self.requests.configuration.active();
                json_response(StatusCode::OK, &active.document.spelled_out(active.version))
            }
            "/diag/tunnel" => json_response(StatusCode::OK, &self.tunnel()),
            _ => text(
                StatusCode::NOT_FOUND,
                "the agent answers /ready, /healthcheck, /metrics, /config, /quicktunnel, /diag/tunnel\n",
            ),
        }
    }

    fn tunnel(&self) -> Value {
        let connections: Vec<Value> = self
            .status
            .borrow()
            .connections
            .iter()
            .map(|connection| {
                let mut shown = json!({
                    "isConnected": true, "index": connection.index, "edgeAddress": connection.edge,
                });
                // HTTP/2 is protocol 0, which is left out.
                if connection.transport == Transport::Quic {
                    shown["protocol"] = json!(1);
                }
                shown
            })
            .collect();
        json!({
            "tunnelID": self.tunnel, "connectorID": self.connector, "connections": connections, "icmp_sources": [],
        })
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, body.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
