//! Heads and small bodies.

use std::sync::Arc;
use std::sync::Mutex;

use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use wire::header::Limits;
use wire::{Body, ExchangeError, Extensions, Interim, Kind, OriginError, OriginFault, Transport};

use crate::rig::{Event, Origin, Rig, both, fed, get, headers, no_answer, soon, status, whole};

both!(
    an_answer_comes_back_as_the_origin_gave_it,
    the_origin_sees_the_request_and_nothing_of_the_protocol,
    answers_without_a_body_keep_their_length,
    a_fault_of_the_origin_is_told_by_kind,
    a_stock_agent_tells_no_kind_of_fault,
    a_stock_agent_gets_no_mark,
    interim_answers_arrive_before_the_answer,
    interim_answers_of_a_stock_agent_are_not_asked_for,
    a_websocket_is_accepted_and_carries_bytes_both_ways,
    a_websocket_may_be_refused_with_200,
    an_interim_status_is_no_answer,
    configurations_are_pushed_with_their_version,
    configurations_that_are_too_much_together_are_refused,
    the_local_configuration_is_reported,
    hundreds_of_requests_at_once_are_all_answered,
    oversized_headers_of_an_origin_end_only_their_request,
);

async fn an_answer_comes_back_as_the_origin_gave_it(transport: Transport) {
    let origin = Origin::new(|_, _, _| async {
        let mut response = Response::new(Body::full("teapot"));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        *response.headers_mut() = headers(&[
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-type", "text/plain"),
            ("content-length", "6"),
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("cf-cloudflared-response-meta", "forged"),
            ("x-empty", ""),
        ]);
        Ok(response)
    });
    let rig = Rig::new(transport, origin).await;
    let response = rig.get("https://app.example.test/").await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let expected = headers(&[
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-type", "text/plain"),
        ("content-length", "6"),
        ("x-empty", ""),
    ]);
    assert_eq!(*response.headers(), expected);
    assert_eq!(response.body(), "teapot");
    rig.idle().await;
}

type Seen = Arc<Mutex<Vec<(Kind, http::request::Parts)>>>;

/// An origin that keeps the heads of what it is asked.
fn recorder() -> (Arc<Origin>, Seen) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let origin = Origin::new({
        let seen = Arc::clone(&seen);
        move |kind, request: Request<Body>, _| {
            seen.lock().unwrap().push((kind, request.into_parts().0));
            async { Ok(Response::new(Body::empty())) }
        }
    });
    (origin, seen)
}

async fn the_origin_sees_the_request_and_nothing_of_the_protocol(transport: Transport) {
    let (origin, seen) = recorder();
    let rig = Rig::new(transport, origin).await;
    let mut request = get("https://app.example.test:8443/a/../%2f//b?q=%20&r=a|b");
    *request.method_mut() = Method::DELETE;
    *request.version_mut() = Version::HTTP_3;
    request.headers_mut().extend(headers(&[
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("te", "trailers"),
        ("cf-connecting-ip", "192.0.2.7"),
        ("cf-cloudflared-proxy-src", "visitor"),
        ("cf-cloudflared-proxy-connection-upgrade", "control-stream"),
    ]));
    soon(rig.edge.exchange(Kind::Http, request, Interim::unwanted())).await.unwrap();
    let (kind, head) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(kind, Kind::Http);
    assert_eq!(head.method, Method::DELETE);
    assert_eq!(head.uri.path_and_query().unwrap(), "/a/../%2f//b?q=%20&r=a|b");
    let expected = headers(&[
        ("accept-encoding", "identity"),
        ("cookie", "a=1; b=2"),
        ("cf-connecting-ip", "192.0.2.7"),
        ("te", "trailers"),
        ("host", "app.example.test:8443"),
    ]);
    assert_eq!(head.headers, expected);
}

async fn answers_without_a_body_keep_their_length(transport: Transport) {
    let origin = Origin::new(|_, request: Request<Body>, _| async move {
        let mut response = match request.uri().path() {
            "/304" => status(StatusCode::NOT_MODIFIED),
            "/204" => status(StatusCode::NO_CONTENT),
            _ => status(StatusCode::OK),
        };
        if request.uri().path() != "/204" {
            response.headers_mut().insert("content-length", 1234.into());
        }
        Ok(response)
    });
    let rig = Rig::new(transport, origin).await;
    for (method, path, length) in
        [(Method::HEAD, "/", Some("1234")), (Method::GET, "/304", Some("1234")), (Method::GET, "/204", None)]
    {
        let mut request = get(&format!("https://app.example.test{path}"));
        *request.method_mut() = method;
        let response = soon(rig.edge.exchange(Kind::Http, request, Interim::unwanted())).await.unwrap();
        let found = response.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(found, length, "{path}");
        assert!(http_body::Body::is_end_stream(response.body()), "{path}");
        assert_eq!(whole(response).await.unwrap().body(), "", "{path}");
    }
    rig.idle().await;
}

async fn a_fault_of_the_origin_is_told_by_kind(transport: Transport) {
    let rig = Rig::new(transport, Origin::new(|_, _, _| async { Err(no_answer()) })).await;
    let error = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.err().unwrap();
    assert!(matches!(&error, ExchangeError::Origin(fault) if *fault == no_answer()), "{error:?}");
    rig.idle().await;
}

async fn a_stock_agent_tells_no_kind_of_fault(transport: Transport) {
    let rig = Rig::stock(transport, Origin::new(|_, _, _| async { Err(no_answer()) })).await;
    let error = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.err().unwrap();
    let ExchangeError::Origin(OriginError { fault, text }) = error else { panic!("{error:?}") };
    assert_eq!(fault, OriginFault::Unknown);
    match transport {
        Transport::Http2 => assert_eq!(text, ""),
        Transport::Quic => assert_eq!(text, no_answer().text),
    }
}

async fn a_stock_agent_gets_no_mark(transport: Transport) {
    let (origin, _) = recorder();
    let rig = Rig::stock(transport, origin).await;
    assert_eq!(rig.edge.extensions(), Extensions::default());
    assert_eq!(rig.get("https://a.test/").await.status(), StatusCode::OK);
    let ours = Rig::new(transport, Origin::hello()).await;
    assert_eq!(ours.edge.extensions(), Extensions::ALL);
}

fn early_hints() -> Arc<Origin> {
    Origin::new(|_, _, interim| async move {
        interim.send(StatusCode::EARLY_HINTS, headers(&[("link", "</a.css>; rel=preload"), ("connection", "close")]));
        interim.send(StatusCode::PROCESSING, HeaderMap::new());
        Ok(Response::new(Body::full("hello")))
    })
}

async fn interim_answers_arrive_before_the_answer(transport: Transport) {
    let rig = Rig::new(transport, early_hints()).await;
    let (interim, mut early) = Interim::channel();
    let response = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), interim)).await.unwrap();
    let (status, hints) = early.try_recv().unwrap();
    assert_eq!(status, StatusCode::EARLY_HINTS);
    assert_eq!(hints, headers(&[("link", "</a.css>; rel=preload")]));
    assert_eq!(early.try_recv().unwrap().0, StatusCode::PROCESSING);
    assert_eq!(whole(response).await.unwrap().body(), "hello");
}

async fn interim_answers_of_a_stock_agent_are_not_asked_for(transport: Transport) {
    let rig = Rig::stock(transport, early_hints()).await;
    let (interim, mut early) = Interim::channel();
    let response = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), interim)).await.unwrap();
    assert_eq!(whole(response).await.unwrap().body(), "hello");
    assert!(early.try_recv().is_none());
}

/// Accepts every WebSocket and answers each piece that comes with its letters upside down.
fn websocket() -> Arc<Origin> {
    Origin::new(|kind, request: Request<Body>, _| async move {
        assert_eq!(kind, Kind::WebSocket);
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.headers()["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
        let (feed, body) = fed();
        tokio::spawn(async move {
            let mut visitor = request.into_body();
            while let Some(Ok(frame)) = visitor.frame().await {
                feed.data(frame.into_data().unwrap().to_ascii_uppercase()).await;
            }
        });
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]);
        Ok(response)
    })
}

fn upgrade(body: Body) -> Request<Body> {
    let request = Request::connect("https://a.test/chat").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    request.header("upgrade", "websocket").header("connection", "upgrade").body(body).unwrap()
}

async fn a_websocket_is_accepted_and_carries_bytes_both_ways(transport: Transport) {
    for extensions in [Extensions::ALL, Extensions::default()] {
        let rig = Rig::with(transport, websocket(), extensions).await;
        let (visitor, body) = fed();
        let response = soon(rig.edge.exchange(Kind::WebSocket, upgrade(body), Interim::unwanted())).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers().len(), 3);
        assert_eq!(response.headers()["upgrade"], "websocket");
        let mut frames = response.into_body();
        for word in ["one", "two"] {
            visitor.data(word).await;
            let mut got = Vec::new();
            while got.len() < word.len() {
                got.extend(frames.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(got, word.to_ascii_uppercase().as_bytes());
        }
        assert_eq!(rig.edge.in_flight(), 1);
        drop(visitor);
        assert!(soon(frames.frame()).await.is_none(), "the end of one side ends the other");
        drop(frames);
        rig.idle().await;
    }
}

async fn a_websocket_may_be_refused_with_200(transport: Transport) {
    let rig = Rig::new(transport, Origin::hello()).await;
    let (_visitor, body) = fed();
    let response = soon(rig.edge.exchange(Kind::WebSocket, upgrade(body), Interim::unwanted())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(whole(response).await.unwrap().body(), "hello");
    rig.idle().await;
}

async fn an_interim_status_is_no_answer(transport: Transport) {
    let rig = Rig::new(transport, Origin::new(|_, _, _| async { Ok(status(StatusCode::EARLY_HINTS)) })).await;
    let error = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.err().unwrap();
    assert!(matches!(&error, ExchangeError::Origin(fault) if fault.fault == OriginFault::Nonsense), "{error:?}");
}

async fn configurations_are_pushed_with_their_version(transport: Transport) {
    let rig = Rig::new(transport, Origin::hello()).await;
    let push = |version, document: &'static str| rig.edge.update_configuration(version, document.into());
    assert_eq!(soon(push(7, r#"{"ingress":[]}"#)).await, Ok(7));
    assert_eq!(soon(push(3, r#"{"ingress":[]}"#)).await, Ok(7));
    let refused = soon(push(8, "null")).await.unwrap_err();
    assert!(refused.contains("no document"), "{refused}");
    assert_eq!(rig.get("https://a.test/").await.body(), "hello");
}

async fn configurations_that_are_too_much_together_are_refused(transport: Transport) {
    let origin = Origin::hello();
    let rig = Rig::new(transport, Arc::clone(&origin)).await;
    // Over HTTP/2 16 MiB at once, over QUIC 16 streams.
    let (at_once, length) = if transport == Transport::Http2 { (1, 9 << 20) } else { (16, 0) };
    let document = format!(r#"{{"ingress":[]{}}}"#, " ".repeat(length));
    let push = || {
        let (edge, document) = (rig.edge.clone(), document.clone());
        tokio::spawn(async move { edge.update_configuration(7, document.into()).await })
    };
    let mut arrived = origin.configurations.subscribe();
    let held = origin.configuring.acquire().await.unwrap();
    let waiting: Vec<_> = (0..at_once).map(|_| push()).collect();
    soon(arrived.wait_for(|count| *count == at_once)).await.unwrap();
    soon(push()).await.unwrap().unwrap_err();
    drop(held);
    for waiting in waiting {
        let _ = soon(waiting).await.unwrap();
    }
    // A place is free once the agent has ended its stream, which is after its answer.
    let free = async { while push().await.unwrap() != Ok(7) {} };
    soon(free).await;
    assert_eq!(*arrived.borrow(), at_once + 1, "what was refused never arrived");
}

async fn the_local_configuration_is_reported(transport: Transport) {
    let mut rig = Rig::new(transport, Origin::hello()).await;
    soon(rig.agent.update_local_configuration(r#"{"ingress":[]}"#.into())).await.unwrap();
    let Some(Event::LocalConfiguration(id, document)) = soon(rig.events.recv()).await else { panic!("no report") };
    assert_eq!((id, &*document), (rig.registered.connection, br#"{"ingress":[]}"#.as_slice()));
    let refused = soon(rig.agent.update_local_configuration("nonsense".into())).await.unwrap_err();
    assert!(refused.contains("not JSON"), "{refused}");
    assert_eq!(rig.get("https://a.test/").await.body(), "hello");
}

async fn hundreds_of_requests_at_once_are_all_answered(transport: Transport) {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let origin = Origin::new({
        let gate = Arc::clone(&gate);
        move |_, request: Request<Body>, _| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(Response::new(Body::full(request.uri().path().to_owned())))
            }
        }
    });
    let rig = Rig::new(transport, origin).await;
    let requests = 600;
    let running: Vec<_> = (0..requests)
        .map(|number| {
            let edge = rig.edge.clone();
            tokio::spawn(async move {
                let request = get(&format!("https://a.test/{number}"));
                let response = edge.exchange(Kind::Http, request, Interim::unwanted()).await.unwrap();
                assert_eq!(whole(response).await.unwrap().body(), &format!("/{number}"));
            })
        })
        .collect();
    crate::rig::until(|| rig.agent.in_flight() == requests).await;
    assert_eq!(rig.edge.in_flight(), requests);
    gate.add_permits(requests);
    for request in running {
        soon(request).await.unwrap();
    }
    rig.idle().await;
}

async fn oversized_headers_of_an_origin_end_only_their_request(transport: Transport) {
    let origin = Origin::new(|_, request: Request<Body>, _| async move {
        let mut response = Response::new(Body::full("hello"));
        let size: usize = request.uri().path()[1..].parse().unwrap();
        response.headers_mut().insert("x-big", "x".repeat(size).parse().unwrap());
        // With the big one as many as pass, or one more.
        let more = match size {
            10 => Limits::HEADERS.count - 1,
            11 => Limits::HEADERS.count,
            _ => 0,
        };
        for number in 0..more {
            response.headers_mut().insert(HeaderName::try_from(format!("x-{number}")).unwrap(), 1.into());
        }
        Ok(response)
    });
    let rig = Rig::new(transport, origin).await;
    let (_feed, endless) = fed();
    let waiting = rig.edge.clone();
    let other = tokio::spawn(async move {
        let request = Request::post("https://a.test/10").body(endless).unwrap();
        waiting.exchange(Kind::Http, request, Interim::unwanted()).await.map(|response| response.status())
    });
    // The name counts as well.
    let longest = Limits::HEADERS.bytes - "x-big".len();
    assert_eq!(rig.get(&format!("https://a.test/{longest}")).await.headers()["x-big"].len(), longest);
    assert_eq!(rig.get("https://a.test/10").await.headers().len(), Limits::HEADERS.count);
    for size in [11, longest + 1, 900_000, 6_000_000] {
        let request = get(&format!("https://a.test/{size}"));
        let error = soon(rig.edge.exchange(Kind::Http, request, Interim::unwanted())).await.err().unwrap();
        assert!(
            matches!(&error, ExchangeError::Origin(fault) if fault.fault == OriginFault::Nonsense),
            "{size}: {error:?}"
        );
    }
    assert_eq!(soon(other).await.unwrap().unwrap(), StatusCode::OK);
    assert!(rig.edge.is_open());
    assert_eq!(rig.get("https://a.test/10").await.body(), "hello");
}
