//! What only HTTP/2 has: pings, stream limits, refused streams, and answers of agents that break the protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use h2::server::{Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::registration::{Refused, Registered};
use wire::rpc::{CALL_TIMEOUT, ControlCall, ControlClient, ControlServer, RegisterError};
use wire::{Body, Breach, ConnectError, Ended, ExchangeError, Extensions, Interim, Kind, header};

use crate::rig::{Event, Node, Origin, connect_over, data, fed, get, registration, soon, tcp, whole};

/// A pipe in memory that can be cut without a word to either side.
struct Cable {
    edge: Option<DuplexStream>,
    agent: Option<DuplexStream>,
    cut: watch::Sender<bool>,
}

impl Cable {
    fn new() -> Self {
        Self::paced(Duration::ZERO)
    }

    /// Towards the agent a kilobyte passes in each such time.
    fn paced(pace: Duration) -> Self {
        let cut = watch::Sender::new(false);
        // A slow connection has short queues.
        let queue = if pace.is_zero() { 64 << 10 } else { 4 << 10 };
        let (edge, left) = tokio::io::duplex(queue);
        let (right, agent) = tokio::io::duplex(queue);
        let (from_edge, to_edge) = tokio::io::split(left);
        let (from_agent, to_agent) = tokio::io::split(right);
        tokio::spawn(forward(from_edge, to_agent, pace, cut.subscribe()));
        tokio::spawn(forward(from_agent, to_edge, Duration::ZERO, cut.subscribe()));
        Self { edge: Some(edge), agent: Some(agent), cut }
    }
}

async fn forward(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    pace: Duration,
    mut cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; if pace.is_zero() { 16 << 10 } else { 1 << 10 }];
    loop {
        if !pace.is_zero() {
            // The slowness of the cable, in paused time.
            tokio::time::sleep(pace).await;
        }
        let length = tokio::select! {
            biased;
            () = cut_off(&mut cut) => std::future::pending().await,
            length = from.read(&mut buffer) => length.unwrap_or(0),
        };
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn cut_off(cut: &mut watch::Receiver<bool>) {
    let _ = cut.wait_for(|cut| *cut).await;
}

/// Cuts the cable between two ends and checks how long each takes to notice.
async fn found_in_time(prepare: impl AsyncFnOnce(&wire::Connection)) {
    let origin = Origin::new(|_, request: Request<Body>, _| async move { Ok(Response::new(request.into_body())) });
    let (node, mut events) = Node::new(None);
    let mut cable = Cable::new();
    let (served, connected) = connect_over(cable.edge.take().unwrap(), cable.agent.take().unwrap(), node, origin).await;
    let (_, agent) = connected.unwrap();
    let Some(Event::Registered(_, edge)) = events.recv().await else { panic!("no registration") };
    // Alive and idle for a day of the paused clock.
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    assert!(edge.is_open() && !served.is_finished());
    prepare(&edge).await;
    cable.cut.send_replace(true);
    let cut = Instant::now();
    let agent_noticed = tokio::spawn(async move { (agent.closed().await, Instant::now()) });
    assert_eq!(served.await.unwrap().reason, "the agent vanished");
    assert!(cut.elapsed() <= Duration::from_secs(10), "{:?}", cut.elapsed());
    let (reason, noticed) = agent_noticed.await.unwrap();
    assert_eq!(reason, "the edge vanished");
    assert!(noticed - cut <= Duration::from_secs(10), "{:?}", noticed - cut);
    assert!(!edge.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_vanished_peer_is_found_while_idle() {
    found_in_time(async |_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_vanished_peer_is_found_while_saturated() {
    found_in_time(async |edge| {
        let (feed, body) = fed();
        let request = Request::post("https://a.test/").body(body).unwrap();
        let mut answer = edge.exchange(Kind::Http, request, Interim::unwanted()).await.unwrap().into_body();
        tokio::spawn(async move {
            loop {
                feed.data(vec![7; 16 << 10]).await;
            }
        });
        for _ in 0..1_000 {
            data(&mut answer).await.unwrap().unwrap();
        }
        tokio::spawn(async move { while let Some(Ok(_)) = data(&mut answer).await {} });
    })
    .await;
}

/// A ping waits for longer here behind what is being sent than a peer may be silent.
#[tokio::test(start_paused = true)]
async fn a_slow_connection_is_not_taken_for_a_vanished_peer() {
    let mut cable = Cable::paced(Duration::from_secs(1));
    let (node, mut events) = Node::new(None);
    let origin = Origin::new(|_, request: Request<Body>, _| async move {
        let read = request.into_body().collect().await.map_err(|_| crate::rig::no_answer())?;
        Ok(Response::new(Body::full(read.to_bytes())))
    });
    let (_served, connected) =
        connect_over(cable.edge.take().unwrap(), cable.agent.take().unwrap(), node, origin).await;
    let (_, _agent) = connected.unwrap();
    let Some(Event::Registered(_, edge)) = events.recv().await else { panic!("no registration") };
    let request = Request::post("https://a.test/").body(Body::full(vec![7; 256 << 10])).unwrap();
    let answer = edge.exchange(Kind::Http, request, Interim::unwanted()).await.unwrap();
    let took =
        tokio::time::timeout(Duration::from_secs(3_600), answer.into_body().collect()).await.expect("it goes on");
    assert_eq!(took.unwrap().to_bytes().len(), 256 << 10);
    assert!(edge.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_registers_is_dropped_after_ten_seconds() {
    let (edge, agent) = tokio::io::duplex(64 << 10);
    let (node, mut events) = Node::new(None);
    let start = Instant::now();
    let served = tokio::spawn(wire::http2::edge::serve(edge, ([127, 0, 0, 1], 1).into(), node));
    let mut agent = h2::server::handshake(agent).await.unwrap();
    let (request, mut respond) = agent.accept().await.unwrap().unwrap();
    let _open = respond.send_response(Response::new(()), false).unwrap();
    while agent.accept().await.is_some() {}
    drop(request);
    assert!(soon(served).await.unwrap().reason.contains("in time"));
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(events.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_says_nothing_is_given_up() {
    let (_edge, agent) = tokio::io::duplex(64 << 10);
    let registration = registration(Extensions::ALL);
    let connected = wire::http2::agent::connect(agent, &registration, Origin::hello(), Duration::from_secs(5)).await;
    assert!(matches!(connected, Err(ConnectError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_never_opens_the_control_stream_is_given_up() {
    let (edge, agent) = tokio::io::duplex(64 << 10);
    let registration = registration(Extensions::ALL);
    let edge = tokio::spawn(async move {
        let (sender, connection) = h2::client::handshake(edge).await.unwrap();
        let _ = connection.await;
        drop(sender);
    });
    let connected = wire::http2::agent::connect(agent, &registration, Origin::hello(), Duration::from_secs(5)).await;
    assert!(matches!(connected, Err(ConnectError::Rpc(_))));
    soon(edge).await.unwrap();
}

/// A stream of HTTP/2 as a pipe, for RPC.
fn piped(mut send: SendStream<Bytes>, mut recv: RecvStream) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if send.send_data(Bytes::copy_from_slice(&buffer[..length]), false).is_err() {
                return;
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    });
    tokio::spawn(async move {
        while let Some(Ok(bytes)) = recv.data().await {
            let _ = recv.flow_control().release_capacity(bytes.len());
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    near
}

/// As a stock agent does when it is refused: ends the control stream, and keeps the connection.
#[tokio::test]
async fn a_refused_agent_that_stays_is_sent_away() {
    let (edge, agent) = tcp().await;
    let remote = edge.peer_addr().unwrap();
    let refused = Refused { cause: "Unauthorized".into(), retry_after: None };
    let served = tokio::spawn(wire::http2::edge::serve(edge, remote, Node::new(Some(refused.clone())).0));
    let mut connection: Connection<TcpStream, Bytes> = h2::server::handshake(agent).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let send = respond.send_response(Response::new(()), false).unwrap();
    let agent = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let mut control = ControlClient::new(piped(send, request.into_body()), CALL_TIMEOUT);
    let answer = soon(control.register(&registration(Extensions::default()))).await;
    assert_eq!(answer, Err(RegisterError::Refused(refused)));
    soon(agent).await.unwrap();
    assert!(soon(served).await.unwrap().reason.contains("Unauthorized"));
}

/// An edge made by hand, with our agent registered as to a stock edge.
pub struct RawEdge {
    requests: SendRequest<Bytes>,
    control: ControlServer<DuplexStream>,
    agent: wire::AgentConnection,
}

impl RawEdge {
    /// Asks for `/early` before the agent has registered.
    pub async fn new(origin: Arc<Origin>) -> Self {
        let (edge, agent) = tcp().await;
        let registration = registration(Extensions::ALL);
        let connecting = tokio::spawn(async move {
            wire::http2::agent::connect(agent, &registration, origin, Duration::from_secs(5)).await
        });
        let (mut requests, connection) = h2::client::handshake(edge).await.unwrap();
        tokio::spawn(connection);
        let (early, _) = requests.send_request(upgrading("/early", None), true).unwrap();
        assert!(soon(early).await.unwrap().headers().contains_key(&header::RESPONSE_META));
        let control = upgrading("/", Some(&header::UPGRADE_CONTROL));
        let (response, send) = requests.send_request(control, false).unwrap();
        let response = soon(response).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key(&header::RESPONSE_META));
        let mut control = ControlServer::new(piped(send, response.into_body()));
        let Some(ControlCall::Register(question, _)) = soon(control.next()).await.unwrap() else {
            panic!("no register")
        };
        let registered = Registered {
            connection: crate::rig::CONNECTION,
            location: "lab01".into(),
            remotely_managed: true,
            origin_ca: None,
        };
        control.reply_register(question, &Ok(registered)).await.unwrap();
        let (_, agent) = soon(connecting).await.unwrap().unwrap();
        Self { requests, control, agent }
    }

    pub async fn ask(&mut self, request: Request<()>) -> Response<RecvStream> {
        let end = !request.headers().contains_key(&header::UPGRADE);
        let (response, _send) = self.requests.send_request(request, end).unwrap();
        soon(response).await.unwrap()
    }
}

fn upgrading(path: &str, kind: Option<&HeaderValue>) -> Request<()> {
    let mut request = Request::get(format!("https://a.test{path}")).body(()).unwrap();
    if let Some(kind) = kind {
        request.headers_mut().insert(header::UPGRADE, kind.clone());
    }
    request
}

/// One kind of answer on each path.
fn kinds_of_answers() -> Arc<Origin> {
    Origin::new(|_, request: Request<Body>, interim: Interim| async move {
        let mut response = Response::new(Body::full("hello"));
        let pairs: &[_] = match request.uri().path() {
            "/fault" => return Err(crate::rig::no_answer()),
            "/cut" => {
                let (feed, body) = fed();
                tokio::spawn(async move {
                    feed.data("half").await;
                    feed.fail("the origin died").await;
                });
                return Ok(Response::new(body));
            }
            "/chat" => {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                &[("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", "x")]
            }
            _ => &[("content-type", "text/plain"), ("content-length", "5"), ("set-cookie", "a=1"), ("cf-int-x", "1")],
        };
        interim.send(StatusCode::EARLY_HINTS, http::HeaderMap::new());
        *response.headers_mut() = crate::rig::headers(pairs);
        Ok(response)
    })
}

#[tokio::test]
async fn a_stock_edge_gets_answers_in_the_form_of_the_reference() {
    let mut edge = RawEdge::new(kinds_of_answers()).await;
    let answer = edge.ask(upgrading("/", None)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let packed = answer.headers()[&header::RESPONSE_HEADERS].as_bytes();
    let origin = header::deserialize(packed, header::Limits::HEADERS).unwrap();
    let sent = [("content-type", "text/plain"), ("content-length", "5"), ("set-cookie", "a=1")];
    assert_eq!(origin, crate::rig::headers(&sent));
    assert_eq!(answer.headers()[&header::RESPONSE_META], r#"{"src":"origin"}"#);
    let names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(answer.headers()["content-length"], "5");

    let answer = edge.ask(upgrading("/chat", Some(&HeaderValue::from_static("websocket")))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let packed = answer.headers()[&header::RESPONSE_HEADERS].as_bytes();
    let origin = header::deserialize(packed, header::Limits::HEADERS).unwrap();
    assert_eq!((origin.len(), &origin["sec-websocket-accept"]), (3, &HeaderValue::from_static("x")));

    let answer = edge.ask(upgrading("/fault", None)).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(*answer.headers(), crate::rig::headers(&[(ORIGIN.0, r#"{"src":"cloudflared"}"#)]));
    assert!(answer.into_body().is_end_stream());

    let mut cut = edge.ask(upgrading("/cut", None)).await.into_body();
    let reset = loop {
        match soon(cut.data()).await.expect("no end in order") {
            Ok(_) => {}
            Err(error) => break error.reason(),
        }
    };
    assert_eq!(reset, Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_pushed_configuration_is_answered_in_json_and_nonsense_with_502() {
    let mut edge = RawEdge::new(Origin::hello()).await;
    let cases = [
        (r#"{"version":3,"config":{"ingress":[]}}"#, Ok(r#"{"err":null,"lastAppliedVersion":3}"#)),
        (r#"{"version":4,"config":[]}"#, Ok(r#"{"err":"no document","lastAppliedVersion":3}"#)),
        (r#"{"version":"4","config":{}}"#, Err(())),
        ("{}", Err(())),
        ("", Err(())),
    ];
    for (body, expected) in cases {
        let request = upgrading("/", Some(&HeaderValue::from_static("update-configuration")));
        let (response, mut send) = edge.requests.send_request(request, false).unwrap();
        send.send_data(body.into(), true).unwrap();
        let response = soon(response).await.unwrap();
        match expected {
            Ok(expected) => {
                let answer = soon(response.into_body().data()).await.unwrap().unwrap();
                let (answer, expected): (serde_json::Value, serde_json::Value) =
                    (serde_json::from_slice(&answer).unwrap(), serde_json::from_str(expected).unwrap());
                assert_eq!(answer, expected, "{body}");
            }
            Err(()) => {
                assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{body}");
                assert_eq!(response.headers()[&header::RESPONSE_META], r#"{"src":"cloudflared"}"#);
            }
        }
    }
}

#[tokio::test]
async fn requests_are_served_though_the_control_stream_has_ended() {
    let mut edge = RawEdge::new(kinds_of_answers()).await;
    drop(edge.control);
    crate::rig::until_err(&edge.agent).await;
    let (answer, _) = edge.requests.send_request(upgrading("/", None), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), StatusCode::OK);
    let second = upgrading("/", Some(&header::UPGRADE_CONTROL));
    let (second, _send) = edge.requests.send_request(second, false).unwrap();
    assert_eq!(soon(second).await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
}

/// An agent made by hand, registered as a stock one.
struct Raw {
    edge: wire::Connection,
    served: JoinHandle<Ended>,
    /// Its end of the connection, under HTTP/2.
    line: TcpStream,
    requests: mpsc::UnboundedReceiver<(Request<RecvStream>, SendResponse<Bytes>)>,
    /// Ends the connection as it is, or asks for what needs it.
    commands: mpsc::UnboundedSender<Command>,
    _registered: Registered,
}

enum Command {
    GoAway,
    Cut,
}

impl Raw {
    async fn new(settings: &h2::server::Builder) -> Self {
        let (edge, agent) = tcp().await;
        let (node, mut events) = Node::new(None);
        let remote = edge.peer_addr().unwrap();
        let served = tokio::spawn(wire::http2::edge::serve(edge, remote, node));
        let agent = agent.into_std().unwrap();
        let line = TcpStream::from_std(agent.try_clone().unwrap()).unwrap();
        let agent = TcpStream::from_std(agent).unwrap();
        let mut connection: Connection<TcpStream, Bytes> = settings.handshake(agent).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.headers()[&header::UPGRADE], header::UPGRADE_CONTROL);
        let send = respond.send_response(Response::new(()), false).unwrap();
        let recv = request.into_body();
        let (commands, mut commanded) = mpsc::unbounded_channel();
        let (accepted, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    request = connection.accept() => match request {
                        Some(Ok(request)) => { let _ = accepted.send(request); }
                        Some(Err(_)) | None => return,
                    },
                    command = commanded.recv() => match command {
                        Some(Command::GoAway) => connection.graceful_shutdown(),
                        Some(Command::Cut) | None => return,
                    }
                }
            }
        });
        let near = piped(send, recv);
        let mut control = ControlClient::new(near, CALL_TIMEOUT);
        let registered = soon(control.register(&registration(Extensions::default()))).await.unwrap();
        tokio::spawn(async move { control.ended().await });
        let Some(Event::Registered(_, edge)) = events.recv().await else { panic!("no registration") };
        Self { edge, served, line, requests, commands, _registered: registered }
    }

    fn send(&self, request: Request<Body>) -> JoinHandle<Result<Response<Body>, ExchangeError>> {
        let edge = self.edge.clone();
        tokio::spawn(async move { edge.exchange(Kind::Http, request, Interim::unwanted()).await })
    }
}

fn answer(pairs: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = crate::rig::headers(pairs);
    response
}

const ORIGIN: (&str, &str) = ("cf-cloudflared-response-meta", r#"{"src":"origin"}"#);

#[tokio::test]
async fn a_stock_agents_head_is_read_from_the_serialized_set_alone() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    let sent = raw.send(get("https://a.test/"));
    let (request, mut respond) = soon(raw.requests.recv()).await.unwrap();
    assert_eq!(request.uri().to_string(), "https://a.test/");
    assert!(request.body().is_end_stream());
    assert!(!request.headers().contains_key(&header::EXTENSIONS));
    let head = answer(&[
        ORIGIN,
        ("content-type", "text/plain; charset=utf-8"),
        ("date", "Sat, 21 Nov 2026 09:00:00 GMT"),
        ("content-length", "4"),
        ("cf-cloudflared-response-headers", "U2V0LUNvb2tpZQ:YT0x;U2V0LUNvb2tpZQ:Yj0y;Q29udGVudC1MZW5ndGg:NA"),
    ]);
    let mut send = respond.send_response(head, false).unwrap();
    send.send_data("body".into(), true).unwrap();
    let response = whole(soon(sent).await.unwrap().unwrap()).await.unwrap();
    let expected = crate::rig::headers(&[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-length", "4")]);
    assert_eq!(*response.headers(), expected);
    assert_eq!(response.body(), "body");
}

#[tokio::test]
async fn answers_that_break_the_protocol_disturb_nobody_else() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    let slow = raw.send(get("https://a.test/slow"));
    let (_request, mut slow_respond) = soon(raw.requests.recv()).await.unwrap();
    let bad: [&[(&'static str, &'static str)]; 6] = [
        &[],
        &[("cf-cloudflared-response-meta", "origin")],
        &[ORIGIN, ("cf-cloudflared-response-headers", "!!!")],
        &[ORIGIN, ("cf-cloudflared-response-headers", "Q29udGVudC1MZW5ndGg:Zml2ZQ")],
        &[ORIGIN, ("content-length", "five")],
        &[ORIGIN, ("content-length", "5"), ("content-length", "6")],
    ];
    for pairs in bad {
        let sent = raw.send(get("https://a.test/"));
        let (_request, mut respond) = soon(raw.requests.recv()).await.unwrap();
        let mut send = respond.send_response(answer(pairs), false).unwrap();
        let error = soon(sent).await.unwrap().err().unwrap();
        assert!(matches!(error, ExchangeError::Protocol(_)), "{pairs:?}: {error:?}");
        let reason = soon(std::future::poll_fn(|context| send.poll_reset(context))).await.unwrap();
        assert!(matches!(reason, Reason::CANCEL | Reason::PROTOCOL_ERROR), "{reason:?}");
    }
    slow_respond.send_response(answer(&[ORIGIN]), true).unwrap();
    assert_eq!(soon(slow).await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(raw.edge.is_open());
}

#[tokio::test]
async fn an_agent_without_an_answer_says_so_by_502_and_meta() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    for meta in [r#"{"src":"cloudflared"}"#, r#"{"src":"cloudflared","flow_rate_limited":true}"#] {
        let sent = raw.send(get("https://a.test/"));
        let (_request, mut respond) = soon(raw.requests.recv()).await.unwrap();
        let mut head = answer(&[]);
        *head.status_mut() = StatusCode::BAD_GATEWAY;
        head.headers_mut().insert(header::RESPONSE_META, HeaderValue::from_static(meta));
        respond.send_response(head, true).unwrap();
        let error = soon(sent).await.unwrap().err().unwrap();
        assert!(matches!(error, ExchangeError::Origin(_)), "{error:?}");
    }
}

#[tokio::test]
async fn the_agents_stream_limit_is_kept_and_whoever_waits_was_not_sent() {
    // The control stream counts.
    let mut raw = Raw::new(h2::server::Builder::new().max_concurrent_streams(3)).await;
    let first = [raw.send(get("https://a.test/1")), raw.send(get("https://a.test/2"))];
    let mut accepted = Vec::new();
    for _ in 0..2 {
        accepted.push(soon(raw.requests.recv()).await.unwrap());
    }
    let third = raw.send(get("https://a.test/3"));
    let fourth = raw.send(get("https://a.test/4"));
    crate::rig::until(|| raw.edge.in_flight() == 4).await;

    let (_, mut respond) = accepted.pop().unwrap();
    respond.send_response(answer(&[ORIGIN]), true).unwrap();
    let next = soon(raw.requests.recv()).await.unwrap();
    accepted.push(next);
    crate::rig::until(|| raw.edge.in_flight() == 3).await;

    raw.commands.send(Command::Cut).unwrap();
    let mut ends = Vec::new();
    for sent in first.into_iter().chain([third, fourth]) {
        ends.push(match soon(sent).await.unwrap() {
            Ok(_) => "answered",
            Err(ExchangeError::Lost(_)) => "lost",
            Err(ExchangeError::NotSent(_)) => "not sent",
            Err(other) => panic!("{other:?}"),
        });
    }
    ends.sort_unstable();
    assert_eq!(ends, ["answered", "lost", "lost", "not sent"]);
    soon(raw.served).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_sends_nothing_without_end_is_ended_for_it() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    // Far more than may come at once, between two frames of its own: it has nothing else to say.
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"anything"].concat();
    let _ = raw.line.write_all(&ping.repeat(40_000)).await;
    let ended = soon(raw.served).await.unwrap();
    assert_eq!(ended.breach, Some(Breach::Http2(::http2::Breach::Idle)), "{ended:?}");
}

#[tokio::test]
async fn a_refused_stream_was_not_sent() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    let sent = raw.send(get("https://a.test/"));
    let (_request, mut respond) = soon(raw.requests.recv()).await.unwrap();
    respond.send_reset(Reason::REFUSED_STREAM);
    let error = soon(sent).await.unwrap().err().unwrap();
    assert!(matches!(error, ExchangeError::NotSent(_)), "{error:?}");

    let sent = raw.send(get("https://a.test/"));
    let (_request, mut respond) = soon(raw.requests.recv()).await.unwrap();
    respond.send_reset(Reason::INTERNAL_ERROR);
    let error = soon(sent).await.unwrap().err().unwrap();
    assert!(matches!(error, ExchangeError::Lost(_)), "{error:?}");
}

#[tokio::test]
async fn an_agent_that_goes_away_finishes_what_it_has_seen() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    let sent = raw.send(get("https://a.test/"));
    let (_request, mut respond) = soon(raw.requests.recv()).await.unwrap();
    raw.commands.send(Command::GoAway).unwrap();
    // What was sent before the edge heard of it is left unanswered; what comes after is refused.
    soon(async {
        loop {
            match tokio::time::timeout(Duration::from_millis(50), raw.send(get("https://a.test/"))).await {
                Err(_) => {}
                Ok(Ok(Err(ExchangeError::NotSent(_)))) => return,
                Ok(other) => panic!("{:?}", other.unwrap().err()),
            }
        }
    })
    .await;
    respond.send_response(answer(&[ORIGIN]), true).unwrap();
    assert_eq!(soon(sent).await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn expected_bodies_wait_for_the_100_of_a_stock_agent() {
    let mut raw = Raw::new(&h2::server::Builder::new()).await;
    let mut request = Request::post("https://a.test/").body(Body::full("upload")).unwrap();
    request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let sent = raw.send(request);
    let (request, mut respond) = soon(raw.requests.recv()).await.unwrap();
    assert_eq!(request.headers()["expect"], "100-continue");
    let mut body = request.into_body();
    // A whole body of a later request is here: one that is not held back would have come before it.
    let second = raw.send(Request::post("https://a.test/").body(Body::full("second")).unwrap());
    let (request, mut other) = soon(raw.requests.recv()).await.unwrap();
    assert_eq!(soon(request.into_body().data()).await.unwrap().unwrap(), "second");
    other.send_response(answer(&[ORIGIN]), true).unwrap();
    assert_eq!(soon(second).await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(futures_util::FutureExt::now_or_never(body.data()).is_none(), "before the 100");
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::CONTINUE;
    respond.send_informational(head).unwrap();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "upload");
    respond.send_response(answer(&[ORIGIN]), true).unwrap();
    assert_eq!(soon(sent).await.unwrap().unwrap().status(), StatusCode::OK);
}
