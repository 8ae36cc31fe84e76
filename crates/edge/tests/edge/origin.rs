use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::{mpsc, watch};
use wire::{
    Body, BodyError, FlowRequest, FlowService, Handler, Interim, Kind, OriginError, OriginFault, StreamRefusal,
};

/// What the origin was asked.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) method: http::Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

/// An origin inside the agent. The path says what it does.
pub(crate) struct Origin {
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Requests that were given up before they were answered or read.
    pub(crate) given_up: watch::Sender<usize>,
    /// What `/endless` has sent.
    pub(crate) pieces: Arc<AtomicUsize>,
    pub(crate) configurations: watch::Sender<Vec<(i32, Bytes)>>,
    /// Lets `/gate` go on.
    pub(crate) gate: watch::Sender<bool>,
    /// Flows that were asked for.
    pub(crate) openings: AtomicUsize,
}

impl Origin {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::default(),
            given_up: watch::Sender::new(0),
            pieces: Arc::default(),
            configurations: watch::Sender::new(Vec::new()),
            gate: watch::Sender::new(false),
            openings: AtomicUsize::new(0),
        })
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("the origin was asked").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) async fn given_up(&self, count: usize) {
        let mut given_up = self.given_up.subscribe();
        tokio::time::timeout(crate::node::PATIENCE, given_up.wait_for(|given_up| *given_up >= count))
            .await
            .expect("the origin's request was never given up")
            .unwrap();
    }
}

/// Notes when a request is dropped before it came to its end.
struct Pending<'a>(&'a Origin, bool);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.given_up.send_modify(|count| *count += 1);
        }
    }
}

fn text(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(Body::full(body.into())).unwrap()
}

/// A body that is what is sent into the channel.
pub(crate) fn streamed() -> (mpsc::Sender<Result<Frame<Bytes>, BodyError>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (sender, Body::wrap(StreamBody::new(Box::pin(frames))))
}

impl Handler for Origin {
    async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, OriginError> {
        let mut pending = Pending(self, false);
        let (head, mut body) = request.into_parts();
        let path = head.uri.path().to_owned();
        self.seen.lock().unwrap().push(Seen {
            kind,
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
        });
        let answer = match path.as_str() {
            "/hello" => text(200, "hello"),
            // Its length is announced, so that the answer is the same for HEAD.
            "/length" => {
                let mut answer = text(200, if head.method == http::Method::HEAD { "" } else { "twelve bytes" });
                answer.headers_mut().insert("content-length", HeaderValue::from_static("12"));
                answer
            }
            "/204" => text(204, ""),
            "/304" => {
                let mut answer = text(304, "");
                answer.headers_mut().insert("etag", HeaderValue::from_static("\"1\""));
                answer
            }
            "/range" => {
                let mut answer = text(206, "cde");
                answer.headers_mut().insert("content-range", HeaderValue::from_static("bytes 2-4/10"));
                answer
            }
            "/echo" => Response::new(body),
            "/ws" if kind == Kind::WebSocket => {
                let mut answer = Response::new(body);
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                answer.headers_mut().insert("sec-websocket-accept", HeaderValue::from_static("made-up"));
                answer.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
                answer
            }
            // Says one thing and hangs up.
            "/ws-bye" if kind == Kind::WebSocket => {
                let mut answer = text(101, "bye");
                answer.headers_mut().insert("sec-websocket-accept", HeaderValue::from_static("made-up"));
                answer
            }
            "/ws-no" => text(403, "no"),
            "/count" => {
                let mut bytes = 0;
                let mut trailers = None;
                while let Some(frame) = body.frame().await {
                    let frame = frame.map_err(|error| OriginError::new(OriginFault::Closed, error.to_string()))?;
                    match frame.into_data() {
                        Ok(data) => bytes += data.len(),
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    }
                }
                let sum = trailers.and_then(|trailers| trailers.get("x-sum").cloned());
                text(200, format!("{bytes} {}", sum.map(|sum| sum.to_str().unwrap().to_owned()).unwrap_or_default()))
            }
            // Answers without reading the body.
            "/unread" => text(413, "too much"),
            // Answers at once, and reads on.
            "/reads-on" => {
                let pieces = Arc::clone(&self.pieces);
                tokio::spawn(async move {
                    while let Some(Ok(frame)) = body.frame().await {
                        pieces.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::SeqCst);
                    }
                });
                text(200, "heard enough")
            }
            "/hints" => {
                let mut hints = HeaderMap::new();
                hints.insert("link", HeaderValue::from_static("</style.css>; rel=preload"));
                interim.send(StatusCode::EARLY_HINTS, hints);
                text(200, "hinted")
            }
            "/trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let frames =
                    [Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"message"))), Ok(Frame::trailers(trailers))];
                Response::new(Body::wrap(StreamBody::new(stream::iter(frames))))
            }
            // Goes on until nobody takes it any more.
            "/endless" => {
                let (sender, body) = streamed();
                let (given_up, pieces) = (self.given_up.clone(), Arc::clone(&self.pieces));
                tokio::spawn(async move {
                    while sender.send(Ok(Frame::data(Bytes::from_static(&[0; 1000])))).await.is_ok() {
                        pieces.fetch_add(1, Ordering::SeqCst);
                    }
                    given_up.send_modify(|count| *count += 1);
                });
                Response::new(body)
            }
            // Breaks off in the middle when the gate opens.
            "/truncated" | "/truncated-length" => {
                let (sender, body) = streamed();
                let mut gate = self.gate.subscribe();
                tokio::spawn(async move {
                    let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"half")))).await;
                    let _ = gate.wait_for(|open| *open).await;
                    let _ = sender.send(Err(BodyError("the origin died".into()))).await;
                });
                let mut answer = Response::new(body);
                if path == "/truncated-length" {
                    answer.headers_mut().insert("content-length", HeaderValue::from_static("100"));
                }
                answer
            }
            // Sends one event at a time; the next only after the gate opens.
            "/events" => {
                let (sender, body) = streamed();
                let mut gate = self.gate.subscribe();
                tokio::spawn(async move {
                    let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))).await;
                    let _ = gate.wait_for(|open| *open).await;
                    let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"data: 2\n\n")))).await;
                });
                let mut answer = Response::new(body);
                answer.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
                answer
            }
            "/gate" => {
                let _ = self.gate.subscribe().wait_for(|open| *open).await;
                text(200, "open")
            }
            "/never" => std::future::pending().await,
            fault => match fault.strip_prefix("/fault/") {
                Some(name) => {
                    pending.1 = true;
                    return Err(OriginError::new(fault_named(name), format!("{name} <b>")));
                }
                None => text(404, "not found"),
            },
        };
        pending.1 = true;
        Ok(answer)
    }

    /// Answers each datagram with the service's name and what it said, `many` with much, and `nothing` with nothing.
    async fn flow(&self, request: FlowRequest) -> Result<FlowService, StreamRefusal> {
        let service = request.destination.to_string();
        self.openings.fetch_add(1, Ordering::SeqCst);
        let mut pending = Pending(self, false);
        if service == "never" {
            std::future::pending::<()>().await;
        }
        pending.1 = true;
        Ok(Box::new(move |mut flow| {
            Box::pin(async move {
                while let Some(payload) = flow.recv().await {
                    let answers = match &payload[..] {
                        b"many" => vec![Bytes::from(vec![0; 1_000]); 20],
                        b"nothing" => vec![Bytes::new()],
                        said => vec![Bytes::from([service.as_bytes(), b":", said].concat())],
                    };
                    for answer in answers {
                        let _ = flow.send(answer);
                    }
                }
                None
            })
        }))
    }

    async fn update_configuration(&self, version: i32, config: Bytes) -> Result<i32, (i32, String)> {
        self.configurations.send_modify(|seen| seen.push((version, config)));
        Ok(version)
    }
}

fn fault_named(name: &str) -> OriginFault {
    match name {
        "refused" => OriginFault::Refused,
        "connect-timeout" => OriginFault::ConnectTimeout,
        "unreachable" => OriginFault::Unreachable,
        "tls" => OriginFault::TlsHandshake,
        "certificate" => OriginFault::TlsCertificate,
        "response-timeout" => OriginFault::ResponseTimeout,
        "closed" => OriginFault::Closed,
        "nonsense" => OriginFault::Nonsense,
        "unsupported" => OriginFault::Unsupported,
        _ => OriginFault::Unknown,
    }
}
