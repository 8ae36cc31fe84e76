//! Origins: a web server, and a listener that does with each connection what the test says.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) type OriginBody = BoxBody<Bytes, hyper::Error>;

/// A listener on loopback; ends when dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Answers `/echo` with the request's body, everything else with a description of the request as JSON.
    pub(crate) async fn web() -> Self {
        Self::raw(|stream| async move { serve(stream).await }).await
    }

    /// Does with each connection what `each` says.
    pub(crate) async fn raw<F>(each: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(each(stream));
            }
        });
        Self { address, accepted, task }
    }

    /// An origin that reads one request head on each connection and answers with these bytes, then closes.
    pub(crate) async fn saying(answer: &'static str) -> Self {
        Self::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await
    }

    pub(crate) fn service(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An origin whose answer waits until the test says so.
pub(crate) async fn slow() -> (Origin, oneshot::Sender<()>, oneshot::Receiver<()>) {
    let (go, gone) = oneshot::channel();
    let (asked, arrived) = oneshot::channel();
    let once = std::sync::Mutex::new(Some((gone, asked)));
    let origin = Origin::raw(move |mut stream| {
        let once = once.lock().unwrap().take();
        async move {
            let Some((gone, asked)) = once else { return };
            read_head(&mut stream).await;
            asked.send(()).unwrap();
            let _ = gone.await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
            read_head(&mut stream).await;
        }
    })
    .await;
    (origin, go, arrived)
}

/// A web server on one stream, HTTP/1.1 or HTTP/2.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>) -> Response<OriginBody> {
    match request.uri().path() {
        "/echo" => Response::new(request.into_body().boxed()),
        _ => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await;
            let (body, trailers) = match body {
                Ok(body) => {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    (String::from_utf8_lossy(&body.to_bytes()).into_owned(), trailers)
                }
                Err(_) => return Response::new(full("the body broke off")),
            };
            let described = json!({
                "method": parts.method.as_str(),
                "target": parts.uri.path_and_query().unwrap().as_str(),
                "version": format!("{:?}", parts.version),
                "authority": parts.uri.authority().map(ToString::to_string),
                "headers": headers(&parts.headers),
                "body": body,
                "trailers": headers(&trailers),
            });
            Response::builder().header("x-origin", "web").body(full(described.to_string())).unwrap()
        }
    }
}

fn full(text: impl Into<Bytes>) -> OriginBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

fn headers(headers: &HeaderMap) -> Value {
    let mut object = serde_json::Map::new();
    for name in headers.keys() {
        let values: Vec<String> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        object.insert(name.to_string(), json!(values.join(", ")));
    }
    Value::Object(object)
}

/// Reads up to the end of a request's head; what follows stays in the stream. Empty at the end of the stream.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap()
}
