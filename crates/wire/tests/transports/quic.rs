//! What only QUIC has: streams of unknown kinds, heads that cannot be read, idle time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use wire::connect::{BodyForm, DATA_SIGNATURE, RequestHead, ResponseHead, VERSION};
use wire::rpc::{CALL_TIMEOUT, ControlClient};
use wire::{Body, ExchangeError, Extensions, Interim, Kind};

use crate::rig::{
    Event, Node, Origin, RPC_TIMEOUT, data, fed, get, quic, quic_dial, quic_dial_with, quic_listener,
    quic_listener_with, registration, soon,
};

/// An edge made by hand, with our agent registered.
pub async fn raw_edge(origin: Arc<Origin>) -> (quinn::Connection, wire::AgentConnection) {
    let (edge, agent) = quic().await;
    let serving = tokio::spawn({
        let edge = edge.clone();
        async move {
            let (send, recv) = edge.accept_bi().await.unwrap();
            let mut control = wire::rpc::ControlServer::new(tokio::io::join(recv, send));
            let Ok(Some(wire::rpc::ControlCall::Register(question, _))) = control.next().await else {
                panic!("no registration")
            };
            let registered = wire::registration::Registered {
                connection: crate::rig::CONNECTION,
                location: "lab01".into(),
                remotely_managed: true,
                origin_ca: None,
            };
            control.reply_register(question, &Ok(registered)).await.unwrap();
            control
        }
    });
    let registration = registration(Extensions::default());
    let (_, agent) = wire::quic::agent::connect(agent, &registration, origin, RPC_TIMEOUT).await.unwrap();
    // Keeps the control stream open for as long as the connection lives.
    let mut control = serving.await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = control.next().await {} });
    (edge, agent)
}

pub async fn ask(edge: &quinn::Connection, bytes: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
    let (mut send, mut recv) = edge.open_bi().await.unwrap();
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    soon(recv.read_to_end(1 << 20)).await
}

#[tokio::test]
async fn a_stream_of_an_unknown_kind_is_reset_alone() {
    let (edge, _agent) = raw_edge(Origin::hello()).await;
    let head =
        RequestHead::encode(Kind::Http, &get("https://a.test/").into_parts().0, BodyForm::None, Extensions::default());
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"", b"\x0a\x36", &[0; 64]] {
        let answer = ask(&edge, bytes).await;
        assert!(matches!(answer, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))), "{answer:?}");
    }
    let answer = ask(&edge, &head).await.unwrap();
    assert!(answer.starts_with(&DATA_SIGNATURE) && answer.ends_with(b"hello"));
}

#[tokio::test]
async fn a_stock_edge_gets_answers_in_the_form_of_the_reference() {
    let origin = Origin::new(|_, request: http::Request<Body>, interim: Interim| async move {
        interim.send(http::StatusCode::EARLY_HINTS, http::HeaderMap::new());
        match request.uri().path() {
            "/fault" => Err(crate::rig::no_answer()),
            "/chat" => Ok(crate::rig::status(http::StatusCode::SWITCHING_PROTOCOLS)),
            _ => {
                let (feed, body) = fed();
                tokio::spawn(async move { feed.fail("the origin died").await });
                Ok(http::Response::new(body))
            }
        }
    });
    let (edge, _agent) = raw_edge(origin).await;
    let ask = async |kind, path| {
        let head = get(&format!("https://a.test{path}")).into_parts().0;
        let form = if kind == Kind::Http { BodyForm::None } else { BodyForm::Bare };
        ask(&edge, &RequestHead::encode(kind, &head, form, Extensions::default())).await
    };
    let answer = ask(Kind::Http, "/fault").await.unwrap();
    let expected = ResponseHead::encode_failure(&crate::rig::no_answer(), Extensions::default());
    assert_eq!(answer, expected);

    let answer = ask(Kind::WebSocket, "/chat").await.unwrap();
    let head = ResponseHead::decode(Some(Kind::WebSocket), &mut answer.as_slice().into()).unwrap().unwrap();
    let ResponseHead::Answer { status, framed, .. } = head else { panic!("{head:?}") };
    assert_eq!((status, framed), (http::StatusCode::SWITCHING_PROTOCOLS, false));

    let cut = ask(Kind::Http, "/cut").await;
    let reset = matches!(&cut, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) if *code == 0u32.into());
    assert!(reset, "{cut:?}");
}

#[tokio::test]
async fn a_request_before_the_registration_is_served_and_so_is_one_after_the_control_stream() {
    let (edge, agent) = quic().await;
    let connecting = tokio::spawn(async move {
        wire::quic::agent::connect(agent, &registration(Extensions::default()), Origin::hello(), RPC_TIMEOUT).await
    });
    let head =
        RequestHead::encode(Kind::Http, &get("https://a.test/").into_parts().0, BodyForm::None, Extensions::default());
    let (send, recv) = soon(edge.accept_bi()).await.unwrap();
    assert!(ask(&edge, &head).await.unwrap().ends_with(b"hello"));
    let mut control = wire::rpc::ControlServer::new(tokio::io::join(recv, send));
    let Ok(Some(wire::rpc::ControlCall::Register(question, _))) = control.next().await else { panic!("none") };
    let registered = wire::registration::Registered {
        connection: crate::rig::CONNECTION,
        location: "lab01".into(),
        remotely_managed: true,
        origin_ca: None,
    };
    control.reply_register(question, &Ok(registered)).await.unwrap();
    let (_, agent) = soon(connecting).await.unwrap().unwrap();
    drop(control);
    crate::rig::until_err(&agent).await;
    assert!(ask(&edge, &head).await.unwrap().ends_with(b"hello"));
}

#[tokio::test]
async fn both_ends_take_datagrams_and_look_for_the_longest_packet() {
    let (edge, agent) = quic().await;
    for end in [&edge, &agent] {
        assert!(end.max_datagram_size().is_some());
        crate::rig::until(|| end.stats().path.current_mtu > 1_300).await;
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_with_an_error() {
    let (edge, _agent) = raw_edge(Origin::hello()).await;
    let mut bytes = [DATA_SIGNATURE.as_slice(), &VERSION].concat();
    bytes.extend([0xff; 64]);
    let answer = ask(&edge, &bytes).await.unwrap();
    let head = ResponseHead::decode(Some(Kind::Http), &mut answer.as_slice().into()).unwrap().unwrap();
    assert!(matches!(head, ResponseHead::Failed(_)), "{head:?}");
}

#[tokio::test]
async fn a_request_without_an_announced_body_has_none() {
    let origin = Origin::echo();
    let (edge, _agent) = raw_edge(origin).await;
    let request = get("https://a.test/").into_parts().0;
    let mut bytes = RequestHead::encode(Kind::Http, &request, BodyForm::None, Extensions::default()).to_vec();
    bytes.extend(b"thrown away");
    let answer = ask(&edge, &bytes).await.unwrap();
    assert!(!answer.ends_with(b"thrown away"));
}

/// An agent made by hand, registered as a stock one.
async fn raw_agent() -> (wire::Connection, quinn::Connection) {
    let (edge, agent) = quic().await;
    raw_agent_on(edge, agent).await
}

async fn raw_agent_on(edge: quinn::Connection, agent: quinn::Connection) -> (wire::Connection, quinn::Connection) {
    let (node, mut events) = Node::new(None);
    tokio::spawn(wire::quic::edge::serve(edge, node));
    let (send, recv) = agent.open_bi().await.unwrap();
    let mut control = ControlClient::new(tokio::io::join(recv, send), CALL_TIMEOUT);
    soon(control.register(&registration(Extensions::default()))).await.unwrap();
    tokio::spawn(async move { control.ended().await });
    let Some(Event::Registered(_, edge)) = events.recv().await else { panic!("no registration") };
    (edge, agent)
}

#[tokio::test]
async fn answers_that_break_the_protocol_disturb_nobody_else() {
    let (edge, agent) = raw_agent().await;
    let (_feed, body) = fed();
    let slow = http::Request::post("https://a.test/slow").body(body).unwrap();
    let slow = tokio::spawn({
        let edge = edge.clone();
        async move { edge.exchange(Kind::Http, slow, Interim::unwanted()).await }
    });
    let (mut slow_send, _slow_recv) = soon(agent.accept_bi()).await.unwrap();
    let hello = ResponseHead::encode_answer(http::StatusCode::OK, &http::HeaderMap::new(), false);
    let bad: [&[u8]; 4] =
        [b"HTTP/1.1 200 OK\r\n\r\n", &[DATA_SIGNATURE.as_slice(), &[0xff; 32]].concat(), b"", &hello[..20]];
    for bytes in bad {
        let sent = tokio::spawn({
            let edge = edge.clone();
            async move { edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await }
        });
        let (mut send, _recv) = soon(agent.accept_bi()).await.unwrap();
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        let error = soon(sent).await.unwrap().err().unwrap();
        assert!(matches!(error, ExchangeError::Protocol(_)), "{error:?}");
    }
    slow_send.write_all(&hello).await.unwrap();
    let mut answer = soon(slow).await.unwrap().unwrap().into_body();
    slow_send.write_all(b"hello").await.unwrap();
    assert_eq!(data(&mut answer).await.unwrap().unwrap(), "hello");
    slow_send.reset(0u32.into()).unwrap();
    assert!(data(&mut answer).await.unwrap().is_err());
    assert!(edge.is_open());
}

#[tokio::test]
async fn a_request_that_was_handed_to_nobody_was_not_sent() {
    let (edge, agent) = raw_agent().await;
    // A stock agent resets with 0, whatever it has seen.
    for (code, seen) in [(1u32, false), (0, true)] {
        let sent = tokio::spawn({
            let edge = edge.clone();
            async move { edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await }
        });
        let (mut send, _recv) = soon(agent.accept_bi()).await.unwrap();
        send.reset(code.into()).unwrap();
        let error = soon(sent).await.unwrap().err().unwrap();
        assert_eq!(matches!(error, ExchangeError::Lost(_)), seen, "{error:?}");
        assert_eq!(matches!(error, ExchangeError::NotSent(_)), !seen, "{error:?}");
    }
}

#[tokio::test]
async fn our_agent_says_when_it_has_handed_a_request_to_nobody() {
    let (edge, _agent) = raw_edge(Origin::hello()).await;
    let head =
        RequestHead::encode(Kind::Http, &get("https://a.test/").into_parts().0, BodyForm::None, Extensions::default());
    let answer = ask(&edge, &head[..head.len() - 1]).await;
    let reset =
        matches!(&answer, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) if *code == 1u32.into());
    assert!(reset, "{answer:?}");
}

#[tokio::test]
async fn a_request_whose_head_did_not_all_leave_was_not_sent() {
    let (endpoint, client) = quic_listener();
    let mut transport = wire::quic::agent_transport_config(wire::quic::Packets::Jumbo);
    transport.stream_receive_window(16u32.into());
    let address = endpoint.local_addr().unwrap();
    let (accepted, agent) = tokio::join!(
        async { endpoint.accept().await.unwrap().await.unwrap() },
        quic_dial_with(address, client, transport),
    );
    let (edge, agent) = raw_agent_on(accepted, agent).await;
    let sent =
        tokio::spawn(async move { edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await });
    let _stream = soon(agent.accept_bi()).await.unwrap();
    agent.close(0u32.into(), b"");
    let error = soon(sent).await.unwrap().err().unwrap();
    assert!(matches!(error, ExchangeError::NotSent(_)), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_waits_for_its_turn_keeps_no_other_waiting() {
    let drivers = Arc::new(AtomicUsize::new(0));
    let take_turns: wire::quic::TakeTurns = {
        let drivers = Arc::clone(&drivers);
        Arc::new(move |driver| match drivers.fetch_add(1, Ordering::Relaxed) {
            0 => Box::pin(async move {
                std::future::pending::<()>().await;
                driver.await;
            }),
            _ => driver,
        })
    };
    let (endpoint, client) = quic_listener_with(take_turns);
    let address = endpoint.local_addr().unwrap();
    let waiting = tokio::spawn(quic_dial(address, client.clone()));
    let _first = endpoint.accept().await.unwrap().accept().unwrap();
    let (_accepted, _agent) =
        tokio::join!(async { endpoint.accept().await.unwrap().await.unwrap() }, soon(quic_dial(address, client)));
    assert_eq!(
        drivers.load(Ordering::Relaxed),
        2,
        "each connection has a driver that takes turns, and the endpoint none"
    );
    assert!(!waiting.is_finished());
}

#[tokio::test]
async fn interim_answers_that_were_not_asked_for_go_nowhere() {
    let (edge, agent) = raw_agent().await;
    let (interim, mut early) = Interim::channel();
    let sent = tokio::spawn(async move { edge.exchange(Kind::Http, get("https://a.test/"), interim).await });
    let (mut send, _recv) = soon(agent.accept_bi()).await.unwrap();
    for status in [http::StatusCode::EARLY_HINTS, http::StatusCode::OK] {
        let head = ResponseHead::encode_answer(status, &http::HeaderMap::new(), false);
        send.write_all(&head).await.unwrap();
    }
    assert_eq!(soon(sent).await.unwrap().unwrap().status(), http::StatusCode::OK);
    assert!(early.recv().await.is_none());
}

#[tokio::test]
async fn streams_and_datagrams_that_nobody_reads_do_no_harm() {
    let rig_edge = raw_agent().await;
    let (edge, agent) = (&rig_edge.0, &rig_edge.1);
    // More streams than an agent may have open at once.
    for _ in 0..100 {
        let (mut send, mut recv) = soon(agent.open_bi()).await.unwrap();
        let _ = send.write_all(b"no signature").await;
        let answer = soon(recv.read_to_end(1)).await;
        assert!(matches!(answer, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))), "{answer:?}");
        assert!(soon(send.stopped()).await.unwrap().is_some());
    }
    // A flood of what belongs to no session, in either version, and of what is malformed.
    let datagrams = [&[][..], &[0], &[0, 5, 0], &[3; 21], &[0; 40], &[0xff; 1000]];
    for datagram in datagrams {
        agent.send_datagram(bytes::Bytes::copy_from_slice(datagram)).unwrap();
    }
    assert!(edge.is_open());

    let (edge, _agent) = raw_edge(Origin::hello()).await;
    for datagram in datagrams.iter().cycle().take(5_000) {
        edge.send_datagram_wait(bytes::Bytes::copy_from_slice(datagram)).await.unwrap();
    }
    let head =
        RequestHead::encode(Kind::Http, &get("https://a.test/").into_parts().0, BodyForm::None, Extensions::default());
    assert!(ask(&edge, &head).await.unwrap().ends_with(b"hello"));
}

#[tokio::test]
async fn bodies_to_a_stock_agent_are_announced_and_bare() {
    let (edge, agent) = raw_agent().await;
    let announced = [
        (Body::full("upload"), "content-length: 6"),
        (
            Body::wrap(http_body_util::StreamBody::new(futures_util::stream::iter([Ok::<_, String>(
                http_body::Frame::data("upload".into()),
            )]))),
            "transfer-encoding: chunked",
        ),
    ];
    for (body, announcement) in announced {
        let sent = tokio::spawn({
            let edge = edge.clone();
            let request = http::Request::post("https://a.test/").body(body).unwrap();
            async move { edge.exchange(Kind::Http, request, Interim::unwanted()).await }
        });
        let (_send, mut recv) = soon(agent.accept_bi()).await.unwrap();
        let bytes = soon(recv.read_to_end(1 << 20)).await.unwrap();
        assert!(bytes.ends_with(b"upload"));
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let (name, value) = announcement.split_once(": ").unwrap();
        assert!(text.contains(&format!("httpheader:{name}")) && text.contains(value), "{announcement}");
        sent.abort();
    }
}

/// Forwards datagrams between an agent and an edge until it is told to stop.
async fn relay(edge: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    back.connect(edge).await.unwrap();
    let address = front.local_addr().unwrap();
    let cut = watch::Sender::new(false);
    let mut stop = cut.subscribe();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut agent = None;
        loop {
            tokio::select! {
                biased;
                () = async { let _ = stop.wait_for(|stop| *stop).await; } => return,
                Ok((length, from)) = front.recv_from(&mut up) => {
                    agent = Some(from);
                    let _ = back.send(&up[..length]).await;
                }
                Ok(length) = back.recv(&mut down) => {
                    if let Some(agent) = agent {
                        let _ = front.send_to(&down[..length], agent).await;
                    }
                }
            }
        }
    });
    (address, cut)
}

/// What the design sets.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// Real time: the datagrams are real. The idle limit is five seconds.
async fn found_in_time(saturated: bool) {
    let (endpoint, client) = quic_listener();
    let (address, cut) = relay(endpoint.local_addr().unwrap()).await;
    let (accepted, agent) =
        tokio::join!(async { endpoint.accept().await.unwrap().await.unwrap() }, quic_dial(address, client));
    let (node, mut events) = Node::new(None);
    let served = tokio::spawn(wire::quic::edge::serve(accepted, node));
    let registration = registration(Extensions::ALL);
    let (_, agent) = wire::quic::agent::connect(agent, &registration, Origin::echo(), RPC_TIMEOUT).await.unwrap();
    let Some(Event::Registered(_, edge)) = events.recv().await else { panic!("no registration") };
    if saturated {
        let (feed, body) = fed();
        let request = http::Request::post("https://a.test/").body(body).unwrap();
        let mut answer = edge.exchange(Kind::Http, request, Interim::unwanted()).await.unwrap().into_body();
        tokio::spawn(async move {
            loop {
                feed.data(vec![7; 16 << 10]).await;
            }
        });
        for _ in 0..100 {
            data(&mut answer).await.unwrap().unwrap();
        }
        tokio::spawn(async move { while let Some(Ok(_)) = data(&mut answer).await {} });
    }
    cut.send_replace(true);
    let start = Instant::now();
    assert_eq!(soon(served).await.unwrap().reason, "the agent vanished");
    assert_eq!(soon(agent.closed()).await, "the edge vanished");
    assert!(start.elapsed() <= FOUND_WITHIN, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_vanished_peer_is_found_while_idle() {
    found_in_time(false).await;
}

#[tokio::test]
async fn a_vanished_peer_is_found_while_saturated() {
    found_in_time(true).await;
}

/// The idle limit is five seconds.
const LONGER_THAN_THE_IDLE_LIMIT: Duration = Duration::from_secs(7);

#[tokio::test]
async fn an_idle_connection_stays_up() {
    let rig = crate::rig::Rig::new(wire::Transport::Quic, Origin::hello()).await;
    let ended = tokio::time::timeout(LONGER_THAN_THE_IDLE_LIMIT, rig.agent.closed()).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(rig.get("https://a.test/").await.body(), "hello");
}
