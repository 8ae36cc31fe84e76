//! A visitor who speaks any version of HTTP and sees an answer piece by piece as it comes.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use harness::{Edge, Http, LIMIT, RequestBody};
use http::{HeaderMap, Request, Response, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::http3;

/// How a visitor asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1.1 without TLS.
    Plain,
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
    /// HTTP/3.
    Three,
}

impl Over {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::One, Self::Two, Self::Three];
}

/// A head and a whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) interim: Vec<(u16, HeaderMap)>,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value as text, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// A body that is known as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that is what is sent into the channel.
pub(crate) fn streamed() -> (mpsc::Sender<Bytes>, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        let data = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(data)), receiver))
    });
    (sender, StreamBody::new(Box::pin(frames)).boxed())
}

/// A request under way. Dropping it is how a visitor leaves; see also [`Exchange::reset`].
pub(crate) struct Exchange {
    answer: Source,
    /// Ends the sending of the request's body when dropped.
    sending: Sending,
}

enum Source {
    One(One),
    Two { response: h2::client::ResponseFuture, body: Option<h2::RecvStream>, requests: h2::client::SendRequest<Bytes> },
    Three { receive: Box<http3::Receive>, visitor: http3::Visitor },
}

struct One {
    response: Option<BoxFuture<'static, hyper::Result<Response<Incoming>>>>,
    body: Option<Incoming>,
    connection: AbortHandle,
}

impl Drop for One {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Dropped when the visitor leaves.
struct Sending(#[expect(dead_code, reason = "its drop is the message")] Option<oneshot::Sender<()>>);

/// Keeps a connection open on which a request was reset.
pub(crate) struct Kept(#[expect(dead_code, reason = "held, not read")] Option<Connection>);

#[expect(dead_code, reason = "held, not read")]
enum Connection {
    Two(h2::client::SendRequest<Bytes>),
    Three(http3::Visitor),
}

/// Sends a request; its body is sent in the background as it comes.
pub(crate) async fn open(edge: &Edge, over: Over, request: Request<RequestBody>) -> Exchange {
    let opening = async {
        match over {
            Over::Plain | Over::One => one(edge, request).await,
            Over::Two => two(edge, request).await,
            Over::Three => three(edge, request).await,
        }
    };
    tokio::time::timeout(LIMIT, opening).await.expect("the edge takes a request in time")
}

/// Gets a path of this host and reads the whole answer.
pub(crate) async fn get(edge: &Edge, over: Over, host: &str, path: &str, headers: &[(&str, &[u8])]) -> Answer {
    let url = match over {
        Over::Plain => format!("http://{host}:{}{path}", edge.http().port()),
        Over::One | Over::Two | Over::Three => format!("https://{host}:{}{path}", edge.https().port()),
    };
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let exchange = open(edge, over, request.body(full("")).unwrap()).await;
    exchange.answer().await.unwrap_or_else(|error| panic!("{host}{path} over {over:?}: {error}"))
}

async fn one(edge: &Edge, mut request: Request<RequestBody>) -> Exchange {
    let stream = edge.visitor().over(Http::One).dial(request.uri()).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection).abort_handle();
    let uri = request.uri().clone();
    let host = uri.authority().unwrap().as_str().parse().unwrap();
    request.headers_mut().entry(header::HOST).or_insert(host);
    *request.uri_mut() = uri.path_and_query().unwrap().as_str().parse().unwrap();
    let response: BoxFuture<_> = Box::pin(async move { sender.send_request(request).await });
    // The request goes out whether or not somebody waits for the answer already.
    let task = tokio::spawn(response);
    let response: BoxFuture<_> = Box::pin(async move { task.await.expect("asking does not panic") });
    let answer = Source::One(One { response: Some(response), body: None, connection });
    Exchange { answer, sending: Sending(None) }
}

async fn two(edge: &Edge, request: Request<RequestBody>) -> Exchange {
    let stream = edge.visitor().over(Http::Two).dial(request.uri()).await;
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let (head, mut body) = request.into_parts();
    let ends = body.is_end_stream();
    let (response, mut stream) = requests.send_request(Request::from_parts(head, ()), ends).unwrap();
    let (left, leaves) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let sending = async {
            while let Some(frame) = body.frame().await {
                match frame.expect("the test sends a whole body").into_data() {
                    Ok(mut data) => {
                        while !data.is_empty() {
                            stream.reserve_capacity(data.len());
                            let Some(Ok(_)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
                            let part = data.split_to(stream.capacity().min(data.len()));
                            if stream.send_data(part, false).is_err() {
                                return;
                            }
                        }
                    }
                    Err(frame) => {
                        let _ = stream.send_trailers(frame.into_trailers().unwrap());
                        return;
                    }
                }
            }
            let _ = stream.send_data(Bytes::new(), true);
        };
        if ends {
            return;
        }
        tokio::select! {
            () = sending => (),
            _ = leaves => stream.send_reset(h2::Reason::CANCEL),
        }
    });
    Exchange { answer: Source::Two { response, body: None, requests }, sending: Sending(Some(left)) }
}

async fn three(edge: &Edge, request: Request<RequestBody>) -> Exchange {
    let name = request.uri().host().unwrap().to_owned();
    let mut visitor = http3::Visitor::connect(edge.https(), &name, &edge.ca()).await;
    let (head, mut body) = request.into_parts();
    let (mut send, receive) = visitor.request(Request::from_parts(head, ())).await;
    let (left, leaves) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let sending = async {
            while let Some(frame) = body.frame().await {
                let sent = match frame.expect("the test sends a whole body").into_data() {
                    Ok(data) => send.send_data(data).await,
                    Err(frame) => send.send_trailers(frame.into_trailers().unwrap()).await,
                };
                if sent.is_err() {
                    return;
                }
            }
            let _ = send.finish().await;
        };
        let has_left = tokio::select! {
            () = sending => false,
            _ = leaves => true,
        };
        if has_left {
            send.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
        }
    });
    Exchange { answer: Source::Three { receive: Box::new(receive), visitor }, sending: Sending(Some(left)) }
}

impl Exchange {
    /// The next head, interim or final.
    pub(crate) async fn next_head(&mut self) -> Result<(u16, HeaderMap), String> {
        tokio::time::timeout(LIMIT, self.wait_for_head()).await.expect("a head comes in time")
    }

    /// The same, however long it takes.
    pub(crate) async fn wait_for_head(&mut self) -> Result<(u16, HeaderMap), String> {
        match &mut self.answer {
            Source::One(one) => {
                let response = one.response.take().expect("there is only one head").await.map_err(text)?;
                let (head, body) = response.into_parts();
                one.body = Some(body);
                Ok((head.status.as_u16(), head.headers))
            }
            Source::Two { response, body, .. } => {
                let head = poll_fn(|context| {
                    if let Poll::Ready(Some(interim)) = response.poll_informational(context) {
                        return Poll::Ready(interim.map(|interim| interim.map(|()| None)));
                    }
                    Pin::new(&mut *response).poll(context).map_ok(|response| response.map(Some))
                });
                let (head, incoming) = head.await.map_err(text)?.into_parts();
                *body = incoming;
                Ok((head.status.as_u16(), head.headers))
            }
            Source::Three { receive, .. } => receive.head().await,
        }
    }

    /// The final head, and the interim ones before it.
    pub(crate) async fn head(&mut self) -> Result<(Vec<(u16, HeaderMap)>, u16, HeaderMap), String> {
        let mut interim = Vec::new();
        loop {
            let (status, headers) = self.next_head().await?;
            if status >= 200 {
                return Ok((interim, status, headers));
            }
            interim.push((status, headers));
        }
    }

    /// The next piece of the body, or its trailers.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        tokio::time::timeout(LIMIT, self.wait_for_frame()).await.expect("the next piece comes in time")
    }

    async fn wait_for_frame(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        match &mut self.answer {
            Source::One(one) => {
                one.body.as_mut().expect("the head was read").frame().await.map(|frame| frame.map_err(text))
            }
            Source::Two { body, .. } => {
                let body = body.as_mut().expect("the head was read");
                if let Some(data) = body.data().await {
                    return Some(data.map_err(text).map(|data| {
                        let _ = body.flow_control().release_capacity(data.len());
                        Frame::data(data)
                    }));
                }
                body.trailers().await.map_err(text).map(|trailers| trailers.map(Frame::trailers)).transpose()
            }
            Source::Three { receive, .. } => receive.frame().await,
        }
    }

    /// The next bytes as text; the end of the body is an empty piece.
    pub(crate) async fn piece(&mut self) -> String {
        match self.frame().await {
            None => String::new(),
            Some(frame) => String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap(),
        }
    }

    /// What is left of the body, and its trailers; an error if it is cut short.
    pub(crate) async fn rest(&mut self) -> Result<(Bytes, HeaderMap), String> {
        let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = self.frame().await {
            match frame?.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => {
                    trailers = frame.into_trailers().unwrap();
                    break;
                }
            }
        }
        Ok((body.freeze(), trailers))
    }

    /// Head and body.
    pub(crate) async fn answer(mut self) -> Result<Answer, String> {
        let (interim, status, headers) = self.head().await?;
        let (body, trailers) = self.rest().await?;
        Ok(Answer { interim, status, headers, body, trailers })
    }

    /// Leaves: HTTP/1.1 by closing the connection, the others by resetting the stream on a connection that stays.
    pub(crate) fn reset(self) -> Kept {
        let Self { answer, sending } = self;
        drop(sending);
        Kept(match answer {
            Source::One(_) => None,
            Source::Two { requests, .. } => Some(Connection::Two(requests)),
            // Dropping the receiving side asks the edge to stop.
            Source::Three { visitor, .. } => Some(Connection::Three(visitor)),
        })
    }
}

fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    text
}
