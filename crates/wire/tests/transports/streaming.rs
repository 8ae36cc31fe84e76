//! Bodies: as they come, whole or visibly not, in bounded memory, cancelled when nobody wants them.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use wire::{Body, BodyError, ExchangeError, Interim, Kind, OriginError, OriginFault, Transport};

use crate::rig::{Bell, Origin, Rig, both, data, fed, get, headers, soon, until, whole};

both!(
    each_piece_passes_as_it_comes,
    trailers_pass_both_ways,
    a_stock_agent_loses_trailers_over_quic_only,
    an_answer_that_breaks_off_is_never_whole,
    an_answer_that_breaks_off_at_once_has_begun,
    an_answer_shorter_than_its_length_is_never_whole,
    an_answer_longer_than_its_length_is_never_whole,
    a_request_that_breaks_off_is_never_whole,
    a_request_that_breaks_off_is_the_visitors_fault_whatever_the_agent_makes_of_it,
    a_request_shorter_than_its_length_is_never_whole,
    dropping_the_exchange_cancels_the_origin,
    dropping_the_answer_cancels_the_origin,
    dropping_a_whole_answer_lets_the_request_finish,
    visitors_that_leave_by_the_thousand_disturb_nobody,
    a_slow_reader_of_an_answer_holds_the_origin_back,
    a_slow_origin_holds_the_visitor_back,
    stalled_readers_hold_nobody_else_up,
    stalled_readers_do_not_take_all_of_a_connection,
    a_body_that_is_expected_waits_for_the_origin,
    a_body_that_is_expected_is_not_polled_for_an_early_answer,
    a_stock_agent_is_sent_an_expected_body,
);

fn post(body: Body) -> Request<Body> {
    Request::post("https://app.example.test/").body(body).unwrap()
}

async fn exchange(rig: &Rig, request: Request<Body>) -> Result<Response<Body>, ExchangeError> {
    soon(rig.edge.exchange(Kind::Http, request, Interim::unwanted())).await
}

async fn each_piece_passes_as_it_comes(transport: Transport) {
    let rig = Rig::new(transport, Origin::echo()).await;
    let (visitor, body) = fed();
    let mut answer = exchange(&rig, post(body)).await.unwrap().into_body();
    for piece in ["event: one\n\n", "x", "event: three\n\n"] {
        visitor.data(piece).await;
        assert_eq!(data(&mut answer).await.unwrap().unwrap(), piece);
    }
    drop(visitor);
    assert!(data(&mut answer).await.is_none());
    drop(answer);
    rig.idle().await;
}

async fn trailers_pass_both_ways(transport: Transport) {
    let rig = Rig::new(transport, Origin::echo()).await;
    let (visitor, body) = fed();
    let mut answer = exchange(&rig, post(body)).await.unwrap().into_body();
    visitor.data("message").await;
    visitor.trailers(headers(&[("grpc-status", "0"), ("cf-cloudflared-x", "1")])).await;
    assert_eq!(data(&mut answer).await.unwrap().unwrap(), "message");
    let trailers = soon(answer.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers, headers(&[("grpc-status", "0")]));
    assert!(soon(answer.frame()).await.is_none());
    rig.idle().await;
}

async fn a_stock_agent_loses_trailers_over_quic_only(transport: Transport) {
    let rig = Rig::stock(transport, Origin::echo()).await;
    let (visitor, body) = fed();
    let mut answer = exchange(&rig, post(body)).await.unwrap().into_body();
    visitor.data("message").await;
    visitor.trailers(headers(&[("grpc-status", "0")])).await;
    drop(visitor);
    assert_eq!(data(&mut answer).await.unwrap().unwrap(), "message");
    let last = soon(answer.frame()).await.map(Result::unwrap);
    match transport {
        Transport::Http2 => assert_eq!(last.unwrap().into_trailers().unwrap(), headers(&[("grpc-status", "0")])),
        Transport::Quic => assert!(last.is_none()),
    }
    rig.idle().await;
}

async fn an_answer_that_breaks_off_is_never_whole(transport: Transport) {
    for (extensions, length) in [(true, None), (true, Some(100)), (false, None), (false, Some(100))] {
        let (feeds, mut fed_bodies) = mpsc::unbounded_channel();
        let origin = Origin::new(move |_, _, _| {
            let (feed, body) = fed();
            feeds.send(feed).unwrap();
            let mut response = Response::new(body);
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length.into());
            }
            async { Ok(response) }
        });
        let rig = if extensions { Rig::new(transport, origin).await } else { Rig::stock(transport, origin).await };
        let mut answer = exchange(&rig, get("https://a.test/")).await.unwrap().into_body();
        let feed = fed_bodies.recv().await.unwrap();
        feed.data("half").await;
        assert_eq!(data(&mut answer).await.unwrap().unwrap(), "half");
        feed.fail("the origin died").await;
        assert!(data(&mut answer).await.unwrap().is_err());
        rig.idle().await;
        assert!(rig.edge.is_open());
    }
}

async fn an_answer_that_breaks_off_at_once_has_begun(transport: Transport) {
    for length in [None, Some(100)] {
        let origin = Origin::new(move |_, _, _| async move {
            let died = futures_util::stream::iter([Err::<Frame<Bytes>, _>("the origin died")]);
            let mut response = Response::new(Body::wrap(http_body_util::StreamBody::new(died)));
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length.into());
            }
            Ok(response)
        });
        let rig = Rig::new(transport, origin).await;
        for _ in 0..50 {
            let answer = exchange(&rig, get("https://a.test/")).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert!(whole(answer).await.is_err());
        }
        rig.idle().await;
        assert!(rig.edge.is_open());
    }
}

/// An origin that promises ten bytes and sends these.
fn liar(sent: &'static str) -> Arc<Origin> {
    Origin::new(move |_, _, _| async move {
        let mut response = Response::new(Body::full(sent));
        response.headers_mut().insert("content-length", 10.into());
        Ok(response)
    })
}

async fn an_answer_shorter_than_its_length_is_never_whole(transport: Transport) {
    for sent in ["", "five!"] {
        let rig = Rig::new(transport, liar(sent)).await;
        // The lie is found with the head when nothing follows it.
        if let Ok(answer) = exchange(&rig, get("https://a.test/")).await {
            assert!(whole(answer).await.is_err(), "{sent:?}");
        }
        rig.idle().await;
        assert!(rig.edge.is_open());
    }
}

async fn an_answer_longer_than_its_length_is_never_whole(transport: Transport) {
    let rig = Rig::new(transport, liar("more than ten bytes")).await;
    if let Ok(answer) = exchange(&rig, get("https://a.test/")).await {
        assert!(whole(answer).await.is_err());
    }
    rig.idle().await;
    assert!(rig.edge.is_open());
}

/// An origin that reads the request whole, tells how that went, and answers.
fn reader() -> (Arc<Origin>, mpsc::UnboundedReceiver<Result<Bytes, BodyError>>) {
    let (told, results) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, request: Request<Body>, _| {
        let told = told.clone();
        async move {
            let whole = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            let _ = told.send(whole);
            Ok(Response::new(Body::full("read")))
        }
    });
    (origin, results)
}

async fn a_request_that_breaks_off_is_never_whole(transport: Transport) {
    for extensions in [true, false] {
        let (origin, mut results) = reader();
        let rig = if extensions { Rig::new(transport, origin).await } else { Rig::stock(transport, origin).await };
        let (visitor, body) = fed();
        let failing = async {
            visitor.data("half").await;
            visitor.fail("the visitor left").await;
        };
        let (answer, ()) = tokio::join!(exchange(&rig, post(body)), failing);
        let error = answer.err().unwrap();
        assert!(matches!(&error, ExchangeError::RequestBody(reason) if reason == "the visitor left"), "{error:?}");
        rig.idle().await;
        // Either the origin saw the failure, or it was cancelled first; it never saw an end.
        assert!(!results.try_recv().is_ok_and(|result| result.is_ok()));
    }
}

async fn a_request_that_breaks_off_is_the_visitors_fault_whatever_the_agent_makes_of_it(transport: Transport) {
    let origin = Origin::new(|_, request: Request<Body>, _| async {
        match request.into_body().collect().await {
            Ok(_) => Ok(Response::new(Body::empty())),
            Err(error) => Err(OriginError::new(OriginFault::Closed, error.to_string())),
        }
    });
    let rig = Rig::new(transport, origin).await;
    // Often, because the agent's answer must never be the quicker one.
    for _ in 0..200 {
        let (visitor, body) = fed();
        let failing = async {
            visitor.data("half").await;
            visitor.fail("the visitor left").await;
        };
        let (answer, ()) = tokio::join!(exchange(&rig, post(body)), failing);
        let error = answer.err().unwrap();
        assert!(matches!(&error, ExchangeError::RequestBody(_)), "{error:?}");
    }
}

async fn a_request_shorter_than_its_length_is_never_whole(transport: Transport) {
    let (origin, mut results) = reader();
    let rig = Rig::new(transport, origin).await;
    let mut request = post(Body::wrap(http_body_util::Full::new(Bytes::from_static(b"short"))));
    request.headers_mut().insert("content-length", 10.into());
    // Either the origin saw the failure and answered, or its request was cancelled; it never saw an end.
    let _ = exchange(&rig, request).await;
    rig.idle().await;
    assert!(!results.try_recv().is_ok_and(|result| result.is_ok()));
}

async fn dropping_the_exchange_cancels_the_origin(transport: Transport) {
    let (started, mut starts) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, _, _| {
        let (bell, rung) = oneshot::channel();
        started.send(rung).unwrap();
        async move {
            let _bell = Bell(Some(bell));
            std::future::pending().await
        }
    });
    let rig = Rig::new(transport, origin).await;
    for with_body in [false, true] {
        let (feed, body) = fed();
        let body = [Body::empty(), body].into_iter().nth(usize::from(with_body)).unwrap();
        let request = post(body);
        let edge = rig.edge.clone();
        let waiting =
            tokio::spawn(async move { edge.exchange(Kind::Http, request, Interim::unwanted()).await.is_ok() });
        let rung = soon(starts.recv()).await.unwrap();
        waiting.abort();
        soon(rung).await.unwrap();
        rig.idle().await;
        feed.dropped().await;
    }
}

async fn dropping_the_answer_cancels_the_origin(transport: Transport) {
    for with_body in [false, true] {
        let (feeds, mut bodies) = mpsc::unbounded_channel();
        let origin = Origin::new(move |_, _, _| {
            let (feed, body) = fed();
            feeds.send(feed).unwrap();
            async { Ok(Response::new(body)) }
        });
        let rig = Rig::new(transport, origin).await;
        let (visitor, body) = fed();
        let body = [Body::empty(), body].into_iter().nth(usize::from(with_body)).unwrap();
        let request = post(body);
        let answer = exchange(&rig, request).await.unwrap();
        let feed = bodies.recv().await.unwrap();
        drop(answer);
        feed.dropped().await;
        rig.idle().await;
        visitor.dropped().await;
    }
}

async fn dropping_a_whole_answer_lets_the_request_finish(transport: Transport) {
    let (told, mut results) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, request: Request<Body>, _| {
        let told = told.clone();
        // Answers early and goes on reading, as origins that take uploads may.
        tokio::spawn(async move {
            let _ = told.send(request.into_body().collect().await.map(http_body_util::Collected::to_bytes));
        });
        async { Ok(Response::new(Body::full("early"))) }
    });
    let rig = Rig::new(transport, origin).await;
    let (visitor, body) = fed();
    let answer = exchange(&rig, post(body)).await.unwrap();
    assert_eq!(whole(answer).await.unwrap().body(), "early");
    // The agent may say that it wants no more, and then the rest is not sent.
    visitor.data("late").await;
    drop(visitor);
    let _ = soon(results.recv()).await.unwrap();
    rig.idle().await;
}

async fn visitors_that_leave_by_the_thousand_disturb_nobody(transport: Transport) {
    let rig = Rig::new(transport, Origin::echo()).await;
    let (visitor, body) = fed();
    let mut answer = exchange(&rig, post(body)).await.unwrap().into_body();
    for round in 0..50 {
        let leaving: Vec<_> = (0..40)
            .map(|number| {
                let edge = rig.edge.clone();
                tokio::spawn(async move {
                    let body = Body::wrap(Endless { taken: Arc::default(), end: u64::MAX });
                    let sent = edge.exchange(Kind::Http, post(body), Interim::unwanted());
                    if number % 2 == 0 {
                        // Leaves while the answer is awaited, at some point.
                        let _ = tokio::time::timeout(Duration::from_micros(37 * number), sent).await;
                    } else {
                        // Leaves in the middle of the answer.
                        let mut answer = sent.await.unwrap().into_body();
                        data(&mut answer).await.unwrap().unwrap();
                    }
                })
            })
            .collect();
        let piece = format!("round {round}");
        visitor.data(piece.clone()).await;
        assert_eq!(data(&mut answer).await.unwrap().unwrap(), piece);
        for left in leaving {
            soon(left).await.unwrap();
        }
    }
    drop(visitor);
    assert!(data(&mut answer).await.is_none());
    drop(answer);
    rig.idle().await;
    assert!(rig.edge.is_open());
}

/// As many bytes as anybody takes, counted as they are taken; perhaps an end.
struct Endless {
    taken: Arc<AtomicU64>,
    end: u64,
}

const PIECE: usize = 16 << 10;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        if self.taken.load(Ordering::SeqCst) >= self.end {
            return Poll::Ready(None);
        }
        self.taken.fetch_add(PIECE as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS)))))
    }
}

/// Other requests that are answered while a count stays as it is, before it is taken to stay so: each passes both ends'
/// tasks and both sockets, which would have moved what can be moved.
const ROUND_TRIPS: usize = 50;

/// Waits until a count no longer grows though the connection carries other requests, and answers it. The rig's origin
/// answers `/other` at once.
async fn settled(rig: &Rig, count: &AtomicU64) -> u64 {
    loop {
        let before = count.load(Ordering::SeqCst);
        for _ in 0..ROUND_TRIPS {
            rig.get("https://a.test/other").await;
        }
        if before > 0 && count.load(Ordering::SeqCst) == before {
            return before;
        }
    }
}

/// What may be under way between two ends that are not reading: a stream's window at the receiver, what the sender
/// keeps for the socket, what the kernel keeps of both, and a few pieces in hands.
const UNREAD: u64 = 12 << 20;

const BIG: u64 = 64 << 20;

async fn a_slow_reader_of_an_answer_holds_the_origin_back(transport: Transport) {
    let taken = Arc::new(AtomicU64::new(0));
    let origin = Origin::new({
        let taken = Arc::clone(&taken);
        move |_, request: Request<Body>, _| {
            let body = match request.uri().path() {
                "/other" => Body::empty(),
                _ => Body::wrap(Endless { taken: Arc::clone(&taken), end: BIG }),
            };
            async { Ok(Response::new(body)) }
        }
    });
    let rig = Rig::new(transport, origin).await;
    let mut answer = exchange(&rig, get("https://a.test/")).await.unwrap().into_body();
    let held = settled(&rig, &taken).await;
    assert!(held <= UNREAD, "{held} bytes were taken from the origin while nobody read");
    let mut read = 0;
    while let Some(bytes) = data(&mut answer).await {
        read += bytes.unwrap().len() as u64;
        assert!(taken.load(Ordering::SeqCst) <= read + UNREAD);
    }
    assert_eq!(read, BIG);
    drop(answer);
    rig.idle().await;
}

async fn a_slow_origin_holds_the_visitor_back(transport: Transport) {
    let (bodies, mut arrived) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, request: Request<Body>, _| {
        let other = request.uri().path() == "/other";
        if !other {
            bodies.send(request.into_body()).unwrap();
        }
        async move { if other { Ok(Response::new(Body::empty())) } else { std::future::pending().await } }
    });
    let rig = Rig::new(transport, origin).await;
    let taken = Arc::new(AtomicU64::new(0));
    let request = post(Body::wrap(Endless { taken: Arc::clone(&taken), end: BIG }));
    let edge = rig.edge.clone();
    let waiting = tokio::spawn(async move { edge.exchange(Kind::Http, request, Interim::unwanted()).await.is_ok() });
    let mut upload = soon(arrived.recv()).await.unwrap();
    let held = settled(&rig, &taken).await;
    assert!(held <= UNREAD, "{held} bytes were taken from the visitor while nobody read");
    let mut read = 0;
    while let Some(bytes) = data(&mut upload).await {
        read += bytes.unwrap().len() as u64;
        assert!(taken.load(Ordering::SeqCst) <= read + UNREAD);
    }
    assert_eq!(read, BIG);
    waiting.abort();
    rig.idle().await;
}

async fn stalled_readers_hold_nobody_else_up(transport: Transport) {
    let taken = Arc::new(AtomicU64::new(0));
    let origin = Origin::new({
        let taken = Arc::clone(&taken);
        move |_, request: Request<Body>, _| {
            let taken = Arc::clone(&taken);
            async move {
                Ok(Response::new(match request.uri().path() {
                    "/big" => Body::wrap(Endless { taken, end: u64::MAX }),
                    "/other" => Body::empty(),
                    _ => Body::full(vec![1; 1 << 20]),
                }))
            }
        }
    });
    let rig = Rig::new(transport, origin).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(exchange(&rig, get("https://a.test/big")).await.unwrap());
    }
    settled(&rig, &taken).await;
    assert_eq!(rig.get("https://a.test/").await.body().len(), 1 << 20);
    drop(stalled);
    rig.idle().await;
}

/// More than fit into the window of a connection. Those who take nothing lose it to those who do.
async fn stalled_readers_do_not_take_all_of_a_connection(transport: Transport) {
    // Some seconds, and what a starved machine needs to move so much.
    const VERY_LONG: Duration = Duration::from_secs(180);
    let origin = Origin::new(|_, request: Request<Body>, _| async move {
        Ok(Response::new(match request.uri().path() {
            "/big" => Body::wrap(Endless { taken: Arc::default(), end: u64::MAX }),
            _ => Body::empty(),
        }))
    });
    let rig = Rig::new(transport, origin).await;
    let crowding = async {
        let mut stalled = Vec::new();
        // The last ones wait until the first ones are given up.
        for _ in 0..200 {
            let asked = rig.edge.exchange(Kind::Http, get("https://a.test/big"), Interim::unwanted()).await.unwrap();
            let mut answer = asked.into_body();
            assert!(answer.frame().await.unwrap().is_ok());
            stalled.push(answer);
        }
        stalled
    };
    let mut stalled = tokio::time::timeout(VERY_LONG, crowding).await.expect("nobody waits for ever");
    // What had been taken off the stream already comes first.
    let mut first = stalled.swap_remove(0);
    let error = loop {
        match soon(data(&mut first)).await.expect("it is never whole") {
            Ok(_) => (),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("too slowly"), "{error}");
    drop((first, stalled));
    rig.idle().await;
}

/// A body that notes when it is polled.
struct Watched {
    polled: Arc<Mutex<bool>>,
    bytes: Option<Bytes>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        *self.polled.lock().unwrap() = true;
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn expecting() -> (Request<Body>, Arc<Mutex<bool>>) {
    let polled = Arc::new(Mutex::new(false));
    let body = Body::wrap(Watched { polled: Arc::clone(&polled), bytes: Some(Bytes::from_static(b"upload")) });
    let mut request = post(body);
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    (request, polled)
}

async fn a_body_that_is_expected_waits_for_the_origin(transport: Transport) {
    let (arrived, mut requests) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, request: Request<Body>, _| {
        let (go, gone) = oneshot::channel::<()>();
        assert!(!request.headers().contains_key("expect"));
        arrived.send(go).unwrap();
        async move {
            gone.await.unwrap();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok(Response::new(Body::full(body)))
        }
    });
    let rig = Rig::new(transport, origin).await;
    let (request, polled) = expecting();
    let edge = rig.edge.clone();
    let waiting = tokio::spawn(async move { edge.exchange(Kind::Http, request, Interim::unwanted()).await });
    let go = soon(requests.recv()).await.unwrap();
    // Another request after it has been answered: a body that was sent at once would have been polled by now.
    let (other, _) = expecting();
    let edge = rig.edge.clone();
    let second = tokio::spawn(async move { edge.exchange(Kind::Http, other, Interim::unwanted()).await });
    soon(requests.recv()).await.unwrap().send(()).unwrap();
    assert_eq!(whole(soon(second).await.unwrap().unwrap()).await.unwrap().body(), "upload");
    assert!(!*polled.lock().unwrap());
    go.send(()).unwrap();
    assert_eq!(whole(soon(waiting).await.unwrap().unwrap()).await.unwrap().body(), "upload");
    rig.idle().await;
}

async fn a_body_that_is_expected_is_not_polled_for_an_early_answer(transport: Transport) {
    let origin = Origin::new(|_, _, _| async { Ok(crate::rig::status(StatusCode::PAYLOAD_TOO_LARGE)) });
    let rig = Rig::new(transport, origin).await;
    let (request, polled) = expecting();
    assert_eq!(exchange(&rig, request).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    rig.idle().await;
    assert!(!*polled.lock().unwrap());
}

async fn a_stock_agent_is_sent_an_expected_body(transport: Transport) {
    let rig = Rig::stock(transport, reader().0).await;
    let (request, polled) = expecting();
    assert_eq!(whole(exchange(&rig, request).await.unwrap()).await.unwrap().body(), "read");
    assert!(*polled.lock().unwrap());
    until(|| rig.edge.in_flight() == 0).await;
}
