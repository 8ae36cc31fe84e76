//! Connections come, go and come back.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use agent::{Agent, Event, FallbackReason, Protocol};
use http::Request;
use wire::registration::Refused;
use wire::{Body, Transport};

use crate::edge::{Edge, text};
use crate::origin::slow;
use crate::{LIMIT, config, event, everything_to, serving, started, within};

const FOUR: NonZeroU8 = NonZeroU8::new(4).unwrap();

fn ok() -> String {
    everything_to("http_status:200", "")
}

#[tokio::test]
async fn four_connections_spread_over_two_nodes() {
    for (protocol, transport) in [(Protocol::Auto, Transport::Quic), (Protocol::Http2, Transport::Http2)] {
        let first = Edge::start().await;
        let second = first.sibling().await;
        let mut config = config(&[&first, &second], &ok());
        config.connections = FOUR;
        config.protocol = protocol;
        let agent = started(config).await;
        within("two connections each", async { tokio::join!(first.has(2), second.has(2)) }).await;
        assert!(first.connections().iter().all(|connection| connection.transport() == transport));
        let registrations = first.registry.registrations.borrow();
        assert!(registrations.iter().all(|registration| registration.features.contains(&"snicket_faults".to_owned())));
        drop(registrations);
        let mut status = agent.status();
        let all = within("all four", status.wait_for(|status| status.connections.len() == 4)).await.unwrap();
        assert_eq!(all.connections[0].location, "tst1");
    }
}

#[tokio::test]
async fn an_edge_that_was_killed_is_found_again() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::start().await;
        let mut config = config(&[&edge], &ok());
        config.connections = FOUR;
        config.protocol = protocol;
        let agent = started(config).await;
        edge.has(4).await;
        let mut events = agent.events();
        let edge = edge.restarted().await;
        event(&mut events, |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
        edge.has(4).await;
        assert_eq!(edge.get("/").await.0, 200);
    }
}

#[tokio::test]
async fn an_edge_that_is_not_there_yet_is_waited_for() {
    let mut edge = Edge::start().await;
    edge.kill().await;
    let agent = Agent::start(config(&[&edge], &ok()), None).await.unwrap();
    let mut events = agent.events();
    let permanent = event(&mut events, |event| match event {
        Event::ConnectFailed { permanent, .. } => Some(permanent),
        _ => None,
    })
    .await;
    assert!(!permanent);
    let edge = edge.restarted().await;
    assert!(within("a connection", agent.ready()).await);
    assert_eq!(edge.get("/").await.0, 200);
}

#[tokio::test]
async fn blocked_udp_is_survived_said_and_remembered() {
    let edge = Edge::without_udp().await;
    let mut config = config(&[&edge], &ok());
    config.protocol_memory = Some(edge.as_ref().join("transport"));
    let begun = Instant::now();
    let agent = Agent::start(config.clone(), None).await.unwrap();
    let mut events = agent.events();
    assert!(within("a connection", agent.ready()).await);
    // Three dials over QUIC one after the other take longer, at four seconds each.
    assert!(begun.elapsed() < Duration::from_secs(12), "falling back took {:?}", begun.elapsed());
    let fallback = |event| match event {
        Event::FellBack { reason } => Some(reason),
        _ => None,
    };
    assert_eq!(event(&mut events, fallback).await, FallbackReason::QuicBlocked);
    assert_eq!(edge.connection().await.transport(), Transport::Http2);
    agent.shutdown(Duration::from_secs(5)).await;

    let agent = Agent::start(config, None).await.unwrap();
    assert_eq!(event(&mut agent.events(), fallback).await, FallbackReason::Remembered, "the next run knows");
    assert!(within("a connection", agent.ready()).await);
    assert_eq!(edge.connection().await.transport(), Transport::Http2);
}

#[tokio::test]
async fn refusals_are_told_and_outlived() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::start().await;
        let refusal = |cause: &str, retry_after| Refused { cause: cause.to_owned(), retry_after };
        *edge.registry.refusals.lock().unwrap() =
            vec![refusal("busy", Some(Duration::from_millis(10))), refusal("Unauthorized: Tunnel not found", None)];
        let mut config = config(&[&edge], &ok());
        config.protocol = protocol;
        let agent = Agent::start(config, None).await.unwrap();
        let mut events = agent.events();
        assert!(within("a connection in the end", agent.ready()).await);
        let mut told = Vec::new();
        event(&mut events, |event| match event {
            Event::ConnectFailed { reason, permanent, .. } => {
                told.push((reason, permanent));
                None
            }
            Event::Connected(_) => Some(()),
            _ => None,
        })
        .await;
        assert!(told[0].0.contains("Tunnel not found") && !told[0].1, "{told:?}");
        assert!(told[1].0.contains("busy") && !told[1].1, "{told:?}");
    }
}

#[tokio::test]
async fn a_permanent_refusal_is_said_to_be_one() {
    let edge = Edge::start().await;
    let refused = Refused { cause: "the tunnel was deleted".to_owned(), retry_after: None };
    *edge.registry.refusals.lock().unwrap() = vec![refused];
    let agent = Agent::start(config(&[&edge], &ok()), None).await.unwrap();
    let mut events = agent.events();
    let permanent = event(&mut events, |event| match event {
        Event::ConnectFailed { permanent, reason, .. } => Some((permanent, reason)),
        _ => None,
    });
    let (permanent, reason) = permanent.await;
    assert!(permanent && reason.contains("deleted"), "{reason}");
}

#[tokio::test]
async fn an_untrusted_edge_is_refused_with_advice_once_by_each_transport_tried() {
    let edge = Edge::start().await;
    let stranger = Edge::start().await;
    for (protocol, tried) in [
        (Protocol::Http2, [Transport::Http2; 2].as_slice()),
        (Protocol::Quic, &[Transport::Quic; 2]),
        (Protocol::Auto, &[Transport::Quic, Transport::Http2, Transport::Quic, Transport::Http2]),
    ] {
        let mut config = config(&[&edge], &ok());
        config.roots = certs::tls::Roots::Pem(stranger.ca.clone());
        config.protocol = protocol;
        let agent = Agent::start(config, None).await.unwrap();
        let mut events = agent.events();
        for &expected in tried {
            let (transport, reason) = event(&mut events, |event| match event {
                Event::ConnectFailed { index: 0, transport, reason, permanent: false, .. } => Some((transport, reason)),
                _ => None,
            })
            .await;
            assert_eq!(transport, expected, "{protocol:?}");
            assert!(reason.contains("--ca FILE"), "{protocol:?}: {reason}");
        }
        assert!(edge.connections().is_empty());
    }
}

#[tokio::test]
async fn a_stop_lets_requests_finish() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::start().await;
        let (origin, go, arrived) = slow().await;
        let agent = serving(&edge, protocol, &origin.service()).await;
        let connection = edge.connection().await;
        let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
        let exchange = edge.exchange(request);
        let stopping = async {
            within("the request", arrived).await.unwrap();
            let stop = agent.shutdown(Duration::from_secs(20));
            let release = async {
                // The edge takes no new requests before the old one is released.
                within("unregistering", async {
                    while connection.is_open() {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
                go.send(()).unwrap();
            };
            let begun = Instant::now();
            tokio::join!(stop, release);
            begun.elapsed()
        };
        let (response, took) = tokio::join!(
            async {
                let response = exchange.await.unwrap();
                text(response.into_body()).await
            },
            stopping
        );
        assert_eq!(response, "done", "{protocol:?}");
        assert!(took < Duration::from_secs(10), "{protocol:?}: the stop took {took:?}");
        edge.has(0).await;
    }
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_the_grace_period() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::start().await;
        let (origin, _go, arrived) = slow().await;
        let agent = serving(&edge, protocol, &origin.service()).await;
        let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
        let (answer, took) = tokio::join!(edge.exchange(request), async {
            within("the request", arrived).await.unwrap();
            let begun = Instant::now();
            agent.shutdown(Duration::from_secs(1)).await;
            begun.elapsed()
        });
        assert!(answer.is_err());
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    }
}

#[tokio::test]
async fn an_idle_agent_stops_at_once_and_a_cut_one_without_leave() {
    let edge = Edge::start().await;
    let agent = started(config(&[&edge], &ok())).await;
    let begun = Instant::now();
    agent.shutdown(Duration::from_secs(20)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    edge.has(0).await;

    let (origin, _go, arrived) = slow().await;
    let agent = started(config(&[&edge], &everything_to(&origin.service(), ""))).await;
    let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
    let (answer, ()) = tokio::join!(edge.exchange(request), async {
        within("the request", arrived).await.unwrap();
        // Longer than the test waits.
        let stop = agent.shutdown(10 * LIMIT);
        let cut = async { agent.cut() };
        within("the cut", async { tokio::join!(stop, cut) }).await;
    });
    assert!(answer.is_err());
}
